"""Fit one image model to the images of a cohort."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from phenotype.features.samples import Unit, prepare
from phenotype.models import build
from phenotype.models.calibrate import calibrate
from phenotype.models.files import read_training, save_model
from phenotype.models.train import train
from phenotype.stage import Refused

if TYPE_CHECKING:
    from phenotype.features.stage import Train, TrainInput


def fit_model(stage: "Train", images: "TrainInput", progress: Callable[[int, int, str], None]) -> str:
    """Train a model as `stage` says and calibrate it on the images kept aside; returns a word on what was left.

    Killed and started again it continues from its last checkpoint to the same weights. Raises Refused where no image
    can be read.
    """
    unit = Unit(
        size=stage.size,
        patch=stage.patch,
        resolution=stage.resolution,
        slices=stage.slices,
        framing=stage.framing,
        patches=stage.patches,
        seed=stage.seed,
    )
    folder = stage.folder
    folder.mkdir(parents=True, exist_ok=True)
    learn, unreadable = prepare(folder / "train.samples", images.train, unit, progress)
    if not len(learn):
        raise Refused("no_images", f"none of the {len(images.train)} images of the cohort's training part can be read")
    model = build(stage.model, unit.side, seed=stage.seed)
    train(
        model,
        learn,
        folder=folder,
        steps=stage.steps,
        batch_size=stage.batch_size,
        seed=stage.seed,
        learning_rate=stage.learning_rate,
        checkpoint_every=stage.checkpoint_every,
        accelerator=stage.accelerator,
        devices=stage.devices,
        precision=stage.precision,
        threads=stage.threads,
        progress=progress,
    )
    kept, unreadable_kept = prepare(folder / "holdout.samples", images.holdout, unit, progress)
    if len(kept) >= 2:
        save_model(model, folder, read_training(folder), calibrate(model, kept, learn))
    for path in folder.glob("*.samples"):
        path.unlink()
    return f"{len(learn)} samples, {unreadable + unreadable_kept} images unreadable"
