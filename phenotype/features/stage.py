"""Train, Embed and Score: this room's door to the database."""

import json
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Self

from sqlalchemy import literal, select
from sqlalchemy.orm import Session

from db.queries.images import cohort_images, image_files
from db.queries.labels import concept_ids, study_classes
from db.queries.positions import accepted_places
from db.tables import Alignment, Anomaly, Cohort, Embedding, Image, Region, Run
from db.write import insert_rows
from phenotype.features.together import check_together
from phenotype.features.views import DESCRIPTORS, Look, Source
from phenotype.imaging.cache import cache_folder
from phenotype.imaging.thorax import window_of
from phenotype.imaging.window import WINDOWS
from phenotype.models import MODELS
from phenotype.stage import (
    Fit,
    Refused,
    Stage,
    Subjects,
    done_by,
    find_run,
    knob,
    model_folder,
    newest_run,
    run_of,
    tell,
)


def _sources(session: Session, home: str, ids: list[str], space: str) -> dict[str, Source]:
    """Where images lie, by id; with a `space`, a run of normalize, also where radiographs show the thorax."""
    cache = cache_folder(Path(home)) if home else None
    windows = {i: window_of(found) for i, found in accepted_places(session, space, ids).items()} if space else {}
    return {i: Source(f.kind, f.modality, f.files, cache, windows.get(i)) for i, f in image_files(session, ids).items()}


@dataclass(frozen=True, slots=True)
class TrainInput:
    """Images by id: to learn from, and one for each patient kept aside, to calibrate on."""

    train: list[tuple[str, Source]]
    holdout: list[tuple[str, Source]]
    pool: list[tuple[str, Source]] = field(default_factory=list)  # unlabelled, where a choice is made with it
    classes: dict[str, int] = field(default_factory=dict)  # by image, where the model is told them


_FAMILIES = "the model (`phenotype models` tells more):\n\n" + "\n\n".join(
    f"{name}: {family.what}" for name, family in MODELS.items()
)


@dataclass(frozen=True)
class Train(Fit):
    """Train an image model on the studies of a cohort, without labels."""

    images: str = run_of("assemble", "the run that put the images together")
    model: str = knob("cae", _FAMILIES)
    parameters: str = knob("", "of the model, as in latent=32,width=32; a wrong one is answered with those that exist")
    called: str = knob("", "a name to refer to it by; nothing for the model's and what it sees, as in cae-patch")
    framing: str = knob(
        "body",
        "what of the image is seen: the box around the 'body', the whole 'image', or, of radiographs in the common "
        "space, the 'thorax': lungs and what is around them",
    )
    space: str = knob("", "for framing 'thorax': the run of `normalize`; nothing for the newest of these images")
    size: int = knob(64, "side of the view that a model of whole images sees, in pixels")
    patch: int = knob(0, "side of the patches that a model of patches sees; 0 for whole images")
    resolution: int = knob(128, "side of the view that patches are cut from")
    slices: int = knob(8, "slices of a volume to learn from")
    patches: int = knob(24, "patches of a view to learn from; cubes of a study")
    dims: int = knob(2, "3 for cubes of side 'patch' from whole volumes, with voxels as long as wide and high")
    spacing: float = knob(
        0.0, "mm between the voxels of cubes; 0 for as many along the longer side as 'resolution' says"
    )
    window: str = knob("", f"of CT: {', '.join(WINDOWS)} or percentile; nothing for lung; all else by percentiles")
    within: str = knob("image", "what is not blanked: the 'image', the 'body' or the 'lung' (body if there is none)")
    reduction: str = knob("top10", "scores of patches to that of an image: mean, top10 (of the highest tenth) or max")
    steps: int = knob(0, "training steps; 0 for what suits the model")
    batch_size: int = knob(0, "samples a step; 0 for what suits the model")
    learning_rate: float = knob(0.0, "0 for what suits the model")
    accumulate: int = knob(1, "parts that a batch is computed in, one after the other, where memory is short")
    condition: str = knob("", "findings, separated by commas: the classes that reports give a model that is told them")
    labels: str = knob("", "the run of `label` whose labels these are; nothing for the current one")
    target: str = knob("", "what a model that turns images into others is to draw: the 'lung' or the 'body'")
    watch: str = knob("none", "end early by a figure of images kept aside, half of them: 'loss', or 'aucp' with a pool")
    watch_every: int = knob(50, "steps between two looks at it")
    patience: int = knob(5, "looks without a better figure until training ends; the best weights are kept")
    pool: str = knob("", "for aucp: the cohort of studies as they come, healthy or not; nothing for the newest")
    seed: int = knob(0, "of all chance in training")
    threads: int = knob(2, "CPU threads; part of the recipe, since sums of floats depend on it")
    accelerator: str = knob("cpu", "cpu, cuda or what else Lightning Fabric knows")
    devices: int = knob(1, "how many of them")
    precision: str = knob("32-true", "as Lightning Fabric names it, such as bf16-mixed; on a CPU 32 bits")
    mixed_on_cpu: bool = knob(False, "bf16-mixed on a CPU too, where it knows it: slower than 32 bits on most")
    compile: bool = knob(False, "compile the model with torch.compile, where there is a C++ compiler")
    checkpoint_every: int = knob(100, "steps between checkpoints", recipe=False)
    checkpoint_minutes: float = knob(5.0, "minutes after which there is a checkpoint too", recipe=False)
    collapse_every: int = knob(0, "steps between looks at whether a GAN collapses; 0 for none", recipe=False)
    sheets: int = knob(
        0,
        "steps between pictures of images it learns from, as it sees them, in the model's folder; 0: none",
        recipe=False,
    )
    tensorboard: bool = knob(False, "TensorBoard event files in the model's folder", recipe=False)

    name: ClassVar[str] = "train"

    @property
    def label(self) -> str:
        """The name to refer to it by."""
        return self.called or f"{self.model}-{'patch' if self.patch else 'image'}"

    def resolve(self, session: Session, home: Path) -> Self:
        """With the training that suits the model, where none was asked for."""
        if self.model not in MODELS:
            raise Refused("model", f"no model is called '{self.model}'; there are {', '.join(MODELS)}")
        if self.framing not in ("body", "image", "thorax"):
            raise Refused("framing", f"'{self.framing}' is no framing; use 'body', 'image' or 'thorax'")
        if self.space and self.framing != "thorax":
            raise Refused("space", f"framing '{self.framing}' needs no common space; leave 'space' empty")
        if self.window not in ("", "percentile", *WINDOWS):
            raise Refused("window", f"'{self.window}' is no window; use {', '.join(WINDOWS)} or percentile")
        if self.within not in ("image", "body", "lung"):
            raise Refused("within", f"'{self.within}' is no part of an image; use 'image', 'body' or 'lung'")
        if self.reduction not in ("mean", "top10", "max"):
            raise Refused("reduction", f"'{self.reduction}' is no reduction; use 'mean', 'top10' or 'max'")
        if self.dims not in (2, 3) or (self.dims == 3 and not self.patch):
            raise Refused("dims", f"dims {self.dims} with patch {self.patch}: dims is 2, or 3 with a patch above 0")
        if self.spacing < 0 or (self.spacing and self.dims == 2):
            raise Refused("spacing", f"{self.spacing:g} mm: spacing is that of cubes (dims 3), and above 0")
        if self.patch > self.resolution and self.dims == 2:
            raise Refused("patch", f"patches of {self.patch} do not fit into views of {self.resolution}")
        if self.watch not in ("none", "loss", "aucp"):
            raise Refused("watch", f"'{self.watch}' is nothing to watch; use 'none', 'loss' or 'aucp'")
        family = MODELS[self.model]
        concepts = [name.strip() for name in self.condition.split(",") if name.strip()]
        known = concept_ids(session, concepts)
        if len(known) < len(concepts):
            unknown = ", ".join(f"'{name}'" for name in concepts if name not in known)
            raise Refused("condition", f"no finding is called {unknown}; `phenotype sql` lists them in label_view")
        stage = replace(
            self,
            steps=self.steps or family.steps,
            batch_size=self.batch_size or family.batch_size,
            learning_rate=self.learning_rate or family.learning_rate,
            condition=",".join(known[name] for name in concepts),
            labels=find_run(session, "label", self.labels) if concepts else "",
            pool=find_run(session, "cohort", self.pool) if self.watch == "aucp" else "",
        )
        if self.parameters or concepts or self.target or self.dims == 3:
            from phenotype.features.fitting import check

            check(stage)
        stage = super(Train, stage).resolve(session, home)
        if self.framing == "thorax":
            stage = replace(stage, space=_space(session, self.space, stage.images))
        more = [run for run in (stage.labels, stage.space) if run]
        if more:
            stage = replace(stage, upstream=done_by(session, [stage.cohort, stage.images, *more]))
        return stage

    def read(self, session: Session, ids: list[str]) -> dict[str, Any]:
        """The images of the cohort."""
        chosen = cohort_images(session, ids[0], self.images)
        sources = _sources(session, self.home, [image.image_id for image in chosen], self.space)
        split: dict[str, list[tuple[str, Source]]] = {"train": [], "holdout": []}
        seen: set[str] = set()
        for image in chosen:
            if image.split == "train" or image.patient_id not in seen:  # images of one patient are not independent
                split[image.split].append((image.image_id, sources[image.image_id]))
            if image.split == "holdout":
                seen.add(image.patient_id)
        pool = cohort_images(session, self.pool, self.images) if self.pool else []
        of_pool = _sources(session, self.home, [image.image_id for image in pool], self.space)
        by_study = study_classes(session, self.labels, self.condition.split(",")) if self.condition else {}
        classes = {image.image_id: by_study.get(image.study_id, -1) for image in chosen} if self.condition else {}
        learned = {name for name, _ in split["train"]}
        unseen = [(name, source) for name, source in of_pool.items() if name not in learned]
        return {ids[0]: TrainInput(**split, pool=unseen, classes=classes)}

    def compute(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Train, calibrate, and leave the model in the run's folder."""
        from phenotype.features.fitting import fit_model

        return {cohort: fit_model(self, images, tell) for cohort, images in inputs.items()}

    def store(self, session: Session, outputs: dict[str, Any]) -> None:
        """Nothing: the model is in the folder of the run."""


@dataclass(frozen=True)
class _PerImage(Stage):
    """A stage whose subjects are the images of the kind that a model has learned from."""

    images: str = run_of("assemble", "the run that put the images together")
    slices: int = knob(8, "slices of a volume to look at")
    kind: str = knob("", "the kind of image that the model has learned from", hidden=True)
    look: str = knob("", "how it has looked at them: fields of `Look` as JSON", hidden=True)
    space: str = knob("", "the common space in which it has looked at them: a run of `normalize`", hidden=True)

    subject: ClassVar[str] = "image_id"
    batch: ClassVar[int] = 8

    def subjects(self) -> Subjects:
        """Images of the model's kind; of radiographs that it knows in the common space, those with a place there."""
        query = select(Image.id, literal("")).where(Image.run_id == self.images)
        if self.kind != "any":
            query = query.where(Image.kind == self.kind)
        if not self.space:
            return query
        placed = select(Alignment.image_id).where(Alignment.run_id == self.space, Alignment.accepted)
        return query.where((Image.kind != "radiograph") | Image.id.in_(placed))

    def read(self, session: Session, ids: list[str]) -> dict[str, Any]:
        """Where the images lie."""
        return _sources(session, self.home, ids, self.space)


def _space(session: Session, name: str, images: str) -> str:
    """The run of normalize of that name, or the newest of these images. Refused where there is none."""
    found = find_run(session, "normalize", name) if name else newest_run(session, "normalize", images=images)
    if not found:
        raise Refused("space", "framing 'thorax' needs these images in the common space: `phenotype normalize` first")
    return found


def _as_learned(session: Session, run_id: str) -> tuple[str, dict[str, Any], str]:
    """The kind of image that a model has learned from, how it looked at them (fields of `Look`), and in which space."""
    recipe = session.get_one(Run, run_id).recipe
    kind = session.scalars(select(Cohort.images).where(Cohort.id == recipe["cohort"])).one()
    return kind, {f.name: recipe.get(f.name, f.default) for f in fields(Look)}, recipe.get("space", "")


@dataclass(frozen=True)
class Embed(_PerImage):
    """Describe images and their regions by vectors."""

    whole: str = run_of("train", "the model of whole images", "cae-image")
    patches: str = run_of("train", "the model of patches", "cae-patch")
    regions: str = knob("patches", "patches on a grid, or supervoxels, which follow what is in the image")
    stride: int = knob(8, "pixels of the view between patches; the side of supervoxels")
    resolution: int = knob(128, "side of the view that patches are cut from")
    descriptors: str = knob(
        "paired",
        "what a patch is described by beside the model's code: "
        + "; ".join(f"{name}: {what}" for name, what in DESCRIPTORS.items()),
    )

    name: ClassVar[str] = "embed"
    results: ClassVar = (Region, Embedding)

    def resolve(self, session: Session, home: Path) -> Self:
        """With the kind of image that the models know."""
        if self.regions not in ("patches", "supervoxels"):
            raise Refused("regions", f"'{self.regions}' are no regions; use 'patches' or 'supervoxels'")
        if self.descriptors not in DESCRIPTORS:
            raise Refused("descriptors", f"'{self.descriptors}' describes nothing; use {', '.join(DESCRIPTORS)}")
        stage = super().resolve(session, home)
        kind, look, space = _as_learned(session, stage.whole)
        kind_of_patches, look_of_patches, space_of_patches = _as_learned(session, stage.patches)
        for key in ("framing", "window", "within"):
            if kind != kind_of_patches or look[key] != look_of_patches[key]:
                raise Refused("models", f"the models of whole images and of patches differ in kind of image or '{key}'")
        if space != space_of_patches:
            raise Refused("models", "the models of whole images and of patches differ in the common space they know")
        return replace(stage, kind=kind, look=json.dumps(look_of_patches), space=space)

    def compute(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Image id to EmbeddedImage."""
        from phenotype.features.inference import embed_image, one_thread, trained

        whole, _ = trained(model_folder(Path(self.home), self.whole))
        patches, _ = trained(model_folder(Path(self.home), self.patches))
        with one_thread():
            return {
                image: embed_image(
                    source,
                    whole,
                    patches,
                    resolution=self.resolution,
                    stride=self.stride,
                    slices=self.slices,
                    look=Look(**json.loads(self.look)),
                    descriptors=self.descriptors,
                    regions=self.regions,
                )
                for image, source in inputs.items()
            }

    def store(self, session: Session, outputs: dict[str, Any]) -> None:
        """One row an image in Region and in Embedding."""
        ids = {image: {"run_id": self.run_id, "image_id": image} for image in outputs}
        places = [
            ids[i] | {"count": len(e.slices), "slices": e.slices, "boxes": e.boxes, "labels": e.labels}
            for i, e in outputs.items()
        ]
        vectors = [ids[i] | {"whole": e.whole, "regions": e.regions} for i, e in outputs.items()]
        insert_rows(session, Region, places)
        insert_rows(session, Embedding, vectors)


@dataclass(frozen=True)
class Score(_PerImage):
    """Say how far images are from the normal that a model has learned, and where."""

    model: str = run_of("train", "the model of the normal, or several with + between them", "f-anogan-image")
    slices: int = knob(0, "slices of a volume to look at; 0 for as many as the model was calibrated on")

    name: ClassVar[str] = "score"
    results: ClassVar = (Anomaly,)
    scores_with: str = knob("", "the model's name", hidden=True)

    @property
    def label(self) -> str:
        """The model's name; of several, with + between them."""
        return self.scores_with

    def resolve(self, session: Session, home: Path) -> Self:
        """With the kind of image that the model knows, or that all of them know."""
        names = self.model.split("+")
        if len(names) > 1 and not all(names):
            raise Refused("model", f"'{self.model}' names no model on one side of a +; write both")
        stages = [super(Score, replace(self, model=name)).resolve(session, home) for name in names]
        runs = [session.get_one(Run, stage.model) for stage in stages]
        if len(runs) > 1:
            check_together(runs, home)
        kind, look, space = _as_learned(session, runs[0].id)
        labels = "+".join(run.label for run in runs)
        learned = {run.recipe.get("slices", stages[0].slices) for run in runs}
        if not self.slices and len(learned) > 1:
            raise Refused("slices", "models that were calibrated on different numbers of slices need --slices")
        return replace(
            stages[0],
            model="+".join(run.id for run in runs),
            kind=kind,
            look=json.dumps(look),
            space=space,
            scores_with=labels,
            slices=self.slices or learned.pop(),  # of more slices the highest score is higher, and p too small
        )

    def remarks(self, session: Session) -> list[str]:
        """An alarm where the images, some of them sick, score lower than the normal ones kept aside."""
        from phenotype.features.inference import together
        from phenotype.models.alarms import inversion_alarm

        _, calibration = together(tuple(model_folder(Path(self.home), run) for run in self.model.split("+")))
        scores = list(session.scalars(select(Anomaly.score).where(Anomaly.run_id == self.run_id)))
        if calibration is None or not scores:
            return []
        alarm = inversion_alarm(calibration.scores, scores)
        return [alarm.text] if alarm.fired else []

    def compute(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Image id to ScoredImage."""
        from phenotype.features.inference import one_thread, score_image, together

        model, calibration = together(tuple(model_folder(Path(self.home), run) for run in self.model.split("+")))
        with one_thread():
            return {
                i: score_image(s, model, calibration, slices=self.slices, look=Look(**json.loads(self.look)))
                for i, s in inputs.items()
            }

    def store(self, session: Session, outputs: dict[str, Any]) -> None:
        """One row an image."""
        rows = [
            {
                "run_id": self.run_id,
                "image_id": image,
                "score": scored.score,
                "p_value": scored.p_value,
                "peak_slice": scored.slice,
                "peak_row": scored.row,
                "peak_column": scored.column,
                "map": scored.map,
            }
            for image, scored in outputs.items()
        ]
        insert_rows(session, Anomaly, rows)
