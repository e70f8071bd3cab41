"""Fit one image model to the images of a cohort."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from phenotype.features.inference import calibrate_volumes, one_thread
from phenotype.features.samples import Samples, Unit, prepare
from phenotype.features.told import TARGETS, ClassedSamples, MaskedSamples
from phenotype.features.views import Source
from phenotype.models import base, build, model_class
from phenotype.models.base import ImageModel, Reduction
from phenotype.models.calibrate import Calibration, calibrate
from phenotype.models.files import read_training, save_model
from phenotype.models.parameters import known_parameters, parse_parameters
from phenotype.models.sheets import Sheets
from phenotype.models.sliding import Sliding
from phenotype.models.train import train
from phenotype.models.watching import CollapseCheck, Observer, Watch, watch_aucp, watch_loss
from phenotype.stage import Refused

if TYPE_CHECKING:
    from phenotype.features.stage import Train, TrainInput

Progress = Callable[[int, int, str], None]


def check(stage: "Train") -> dict[str, Any]:
    """The parameters of the model that `stage` asks for; Refused where it asks for what the model does not know."""
    told = model_class(stage.model).told
    wanted = {"classes": stage.condition, "images": stage.target, "nothing": "-"}[told]
    if not wanted:
        knobs = {"classes": "--condition names the findings", "images": f"--target names one of {', '.join(TARGETS)}"}
        raise Refused("told", f"{stage.model} must be told {told} beside the images: {knobs[told]}")
    for knob, value, meant in (("condition", stage.condition, "classes"), ("target", stage.target, "images")):
        if value and told != meant:
            raise Refused(knob, f"{stage.model} is told {told}, so '{knob}' must stay empty")
    if stage.target and stage.target not in TARGETS:
        raise Refused("target", f"'{stage.target}' is no target; use one of {', '.join(TARGETS)}")
    try:
        parameters = parse_parameters(stage.model, stage.parameters)
        if stage.condition and "classes" in known_parameters(stage.model):
            parameters.setdefault("classes", stage.condition.count(",") + 2)
        parameters["dims"] = stage.dims
        build(stage.model, stage.patch or stage.size, **parameters)
    except ValueError as error:
        raise Refused("parameters", str(error)) from None
    return parameters


def fit_model(stage: "Train", images: "TrainInput", progress: Progress) -> str:
    """Train a model as `stage` says and calibrate it on the images kept aside; returns a word on what was left.

    Where a figure is watched, every second of those is for that, and the others calibrate: what a choice was made with
    cannot say how good it is. Killed and started again it continues from its last checkpoint to the same weights.
    Raises Refused where no image can be read, and for what the model does not know.
    """
    parameters = check(stage)
    unit = Unit(
        size=stage.size,
        patch=stage.patch,
        resolution=stage.resolution,
        slices=stage.slices,
        framing=stage.framing,
        patches=stage.patches,
        seed=stage.seed,
        window=stage.window,
        within=stage.within,
        dims=stage.dims,
        spacing=stage.spacing,
    )
    folder = stage.folder
    folder.mkdir(parents=True, exist_ok=True)
    unreadable = missing = 0

    def samples(name: str, some: list[tuple[str, Source]], unit: Unit = unit) -> Samples:
        nonlocal unreadable, missing
        found, failed = prepare(folder / f"{name}.samples", some, unit, progress)
        unreadable, missing = unreadable + failed, missing + found.missing
        return found

    learn = samples("train", images.train)
    if not len(learn):
        raise Refused("no_images", f"none of the {len(images.train)} images of the cohort's training part can be read")
    watched, kept = (images.holdout[::2], images.holdout[1::2]) if stage.watch != "none" else ([], images.holdout)
    source = _told(stage, images, "train", images.train, learn)
    watch: Watch | None = None
    if stage.watch != "none":
        held_out = samples("watched", watched)
        if not len(held_out):
            raise Refused("watch", "no image of the cohort is kept aside to watch; use a cohort with a --holdout")
        looks: Any = {"every": stage.watch_every, "patience": stage.patience}
        if stage.watch == "aucp":
            pool = samples("pool", images.pool)
            if not len(pool):
                raise Refused("pool", "the pool holds no image that the model does not learn from")
            watch = watch_aucp(held_out, pool, **looks)
        else:
            told = source is not learn
            watch = watch_loss(_told(stage, images, "watched", watched, held_out), told=told, **looks)
    observers: list[Observer] = []
    if stage.sheets:
        observers.append(Sheets(folder, learn, stage.sheets))
    if stage.collapse_every:
        observers.append(CollapseCheck(learn, stage.collapse_every))
    model = build(stage.model, unit.side, seed=stage.seed, **parameters)
    train(
        model,
        source,
        folder=folder,
        steps=stage.steps,
        batch_size=stage.batch_size,
        seed=stage.seed,
        learning_rate=stage.learning_rate,
        checkpoint_every=stage.checkpoint_every,
        checkpoint_minutes=stage.checkpoint_minutes,
        accumulate=stage.accumulate,
        accelerator=stage.accelerator,
        devices=stage.devices,
        precision=stage.precision,
        mixed_on_cpu=stage.mixed_on_cpu,
        compile=stage.compile,
        threads=stage.threads,
        watch=watch,
        observers=observers,
        tensorboard=stage.tensorboard,
        about=_about(stage, images),
        progress=progress,
    )
    counted = _calibrated(stage, model, kept, learn, unit, samples)
    if counted is not None:
        save_model(model, folder, read_training(folder), counted)
    for path in folder.glob("*.samples"):
        path.unlink()
    lungs = f", {missing} without lungs found" if stage.within == "lung" else ""
    return f"{len(learn)} samples, {unreadable} images unreadable{lungs}"


def _calibrated(
    stage: "Train",
    model: ImageModel,
    kept: list[tuple[str, Source]],
    learn: Samples,
    unit: Unit,
    samples: Callable[[str, list[tuple[str, Source]], Unit], Samples],
) -> Calibration | None:
    """The calibration on images kept aside, scored as all images will be; None where there are fewer than two."""
    if stage.dims == 3:
        with one_thread():
            look = replace(unit.look, reduction=stage.reduction)
            return calibrate_volumes([source for _, source in kept], model, look)
    scorer = model
    if stage.patch:
        scorer = Sliding(model, stage.resolution, cast(Reduction, stage.reduction))
        unit = replace(unit, patch=0, size=stage.resolution, masked=True)
    aside = samples("holdout", kept, unit)
    if len(set(aside.owners.tolist())) < 2:
        return None
    return calibrate(scorer, aside, learn, groups=aside.owners, counted="highest")  # as a volume is by its slices


def _told(
    stage: "Train", images: "TrainInput", part: str, some: list[tuple[str, Source]], samples: Samples
) -> base.Source:
    """The samples of these images, with what the model is told beside them."""
    if stage.condition:
        return ClassedSamples(samples, [images.classes[image] for image, _ in some])
    if stage.target:
        return MaskedSamples(samples, stage.target, stage.folder / f"{part}-{stage.target}.samples")
    return samples


def _about(stage: "Train", images: "TrainInput") -> dict[str, Any]:
    """Where the images come from, for the model card: digests and settings, nothing of a person."""
    return {
        "cohort": stage.cohort,
        "modality": sorted({source.modality for _, source in images.train}),
        "framing": stage.framing,
        "window": stage.window or "the standard one",
        "within": stage.within,
        "sample": f"patches of {stage.patch} from views of {stage.resolution}" if stage.patch else "whole views",
        "studied_images": len(images.train),
        "classes": ["none of these", *stage.condition.split(",")] if stage.condition else "none told",
        "target": stage.target or "none told",
    }
