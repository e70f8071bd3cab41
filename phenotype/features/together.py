"""Which models can score images together."""

from collections.abc import Sequence
from pathlib import Path

from db.tables import Run
from phenotype.stage import Refused, model_folder


def check_together(runs: Sequence[Run], home: Path) -> None:
    """Refused unless the models were calibrated on the same images: their scores are compared patient by patient."""
    if len({run.id for run in runs}) < len(runs):
        raise Refused("model", "a model is named twice; an ensemble is made of different ones")
    for key in ("cohort", "images", "framing", "space", "window", "within"):
        if len({run.recipe.get(key) or "" for run in runs}) > 1:
            raise Refused("models", f"models scored together must have learned with the same '{key}'")
    if len({run.recipe["watch"] != "none" for run in runs}) > 1:
        raise Refused("models", "models scored together must be watched all, or none: a watched one calibrates on less")
    for run in runs:
        if run.recipe["patch"]:
            raise Refused("models", f"'{run.label}' has learned from patches; models of whole images score together")
        if not (model_folder(home, run.id) / "calibration.safetensors").exists():
            raise Refused("models", f"'{run.label}' is not calibrated; its cohort needs a --holdout")
