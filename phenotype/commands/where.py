"""`phenotype where`: the corresponding place in other images."""

from pathlib import Path
from typing import Annotated, Any

import typer
from numpy.typing import NDArray

from db.queries.positions import Lying, lying
from db.session import open_database
from phenotype import show
from phenotype.settings import Settings
from phenotype.show import Csv, Json
from phenotype.stage import Refused, find_run, model_folder

LUNGS = {1: "right lung", 2: "left lung"}


def where(
    context: typer.Context,
    image: Annotated[str, typer.Argument(help="the id of an image that was laid into the common space")],
    row: Annotated[float, typer.Option(help="of the place, in pixels from 0")],
    column: Annotated[float, typer.Option(help="of the place, in pixels from 0")],
    slice_: Annotated[int, typer.Option("--slice", help="of a volume, from 0: the order of the stack")] = 0,
    to: Annotated[str, typer.Option(help="the ids of other images, separated by commas; nothing for all")] = "",
    patient: Annotated[bool, typer.Option("--patient", help="only images of the same patient")] = False,
    unsure: Annotated[bool, typer.Option("--unsure", help="images that were not accepted too")] = False,
    run: Annotated[str, typer.Option(help="the run of `normalize`; nothing for the current one")] = "",
    limit: Annotated[int, typer.Option(help="how many rows at most")] = 100,
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """The corresponding place in other images: of the same patient at another time, or of anybody."""
    from phenotype.normalization.places import Place, elsewhere, organ_at, to_reference

    settings: Settings = context.obj
    database = open_database(settings.database)
    with database.reading() as session:
        run_id = find_run(session, "normalize", run)
        start = next(iter(lying(session, run_id, images=[image])), None)
        if start is None:
            raise Refused("image", f"no image '{image}' lies in the common space of run {run_id}")
        wanted = [name.strip() for name in to.split(",") if name.strip()]
        of = start.patient_id if patient else ""
        others = lying(session, run_id, images=wanted, patient=of, kind=start.kind)
    try:
        at = to_reference(start, slice_, row, column)
    except ValueError as error:
        raise Refused("place", str(error)) from None
    labels = _organs(start, model_folder(settings.home_of(database), run_id))
    organ = "" if labels is None else organ_at(*labels, at)
    shown = [other for other in others if (other.accepted or unsure or wanted) and other.image_id != image]
    found = elsewhere(start, shown, (slice_, row, column), organ)
    if not start.accepted:
        show.messages.print(f"the image itself was not accepted: {start.reason}", style="yellow", markup=False)
    show.records(found[:limit], Place, as_json, as_csv)
    if len(found) > limit:
        show.messages.print(f"only the first {limit} of {len(found)} images; --limit shows more", markup=False)


def _organs(start: Lying, folder: Path) -> tuple[NDArray[Any], dict[int, str]] | None:
    """What is drawn into the reference: organs that the run was given, or the lungs of the thorax."""
    from phenotype.normalization.places import kept_organs

    if start.kind == "radiograph":
        from phenotype.imaging import thorax

        return thorax.lungs(), LUNGS
    return kept_organs(folder)
