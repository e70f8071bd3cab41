"""`phenotype models` and `phenotype export model`: which families of image models there are, and a trained one to take
away."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from db.session import open_database
from phenotype import show
from phenotype.settings import Settings
from phenotype.show import Csv, Json
from phenotype.stage import Refused, find_run, model_folder


@dataclass(frozen=True, slots=True)
class FamilyRow:
    """A family: what it is, its training by default, what it is told beside images, its dimensions and parameters."""

    model: str
    what: str
    steps: int
    told: str
    dims: str
    parameters: str


def list_models(
    parameters: Annotated[bool, typer.Option("--parameters", help="with the parameters of each, and defaults")] = False,
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """The families of image models that `phenotype train --model` knows."""
    from phenotype.models import MODELS, model_class
    from phenotype.models.parameters import parameters_text

    rows = [
        FamilyRow(
            name,
            family.what,
            family.steps,
            model_class(name).told,
            ", ".join(map(str, model_class(name).dimensions)),
            parameters_text(name),
        )
        for name, family in MODELS.items()
    ]
    columns = [name for name in FamilyRow.__slots__ if name != "parameters" or parameters or as_json or as_csv]
    values = [[getattr(row, column) for column in columns] for row in rows]
    show.answer(columns, values, as_json=as_json, as_csv=as_csv)


def export_model(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="a trained model: its name, or the beginning of its run's id")],
    out: Annotated[Path, typer.Argument(help="the folder to write")],
    onnx: Annotated[bool, typer.Option(help="with ONNX, for programs without torch; needs the extra onnx")] = True,
) -> None:
    """A trained model to take away: safetensors, manifest, model card and calibration, and ONNX."""
    settings: Settings = context.obj
    database = open_database(settings.database)
    with database.reading() as session:
        run = find_run(session, "train", model)
    from phenotype.models.files import ModelFileError, load_model

    folder = model_folder(settings.home_of(database), run)
    try:
        trained = load_model(folder)
    except ModelFileError as error:
        raise Refused("model", f"the model of run {run} cannot be read: {error}") from None
    out.mkdir(parents=True, exist_ok=True)
    names = ("model.safetensors", "model.json", "model-card.md", "calibration.safetensors")
    written = [name for name in names if (folder / name).is_file()]
    for name in written:
        shutil.copyfile(folder / name, out / name)
    if onnx:
        from phenotype.models.onnx import NotExportable, export_onnx

        try:
            outputs = export_onnx(trained, out, {"run": run})
            written.append(f"model.onnx ({', '.join(outputs)})")
        except NotExportable as error:
            show.messages.print(f"without ONNX: {error}", markup=False)
        except ValueError as error:
            raise Refused("onnx", f"{error}; or --no-onnx") from None
    told = "weights can remember the images they learned from: hand them on as you would those images"
    show.messages.print(f"wrote {out}: {', '.join(written)}\n{told}", markup=False)
