"""Normalize: this room's door to the database."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from sqlalchemy import literal, select
from sqlalchemy.orm import Session

from db.queries.images import image_files
from db.queries.positions import ImageGeometry, geometries
from db.tables import Alignment, Image, Organ
from db.write import insert_rows
from phenotype.imaging.cache import cache_folder
from phenotype.stage import Refused, Stage, Subjects, knob, model_folder, run_of

if TYPE_CHECKING:
    from phenotype.normalization.images import Source, Space

KINDS = {"any": ("radiograph", "volume"), "radiograph": ("radiograph",), "volume": ("volume",)}


def sources(session: Session, home: str, known: list[ImageGeometry]) -> dict[str, "Source"]:
    """Images to be read, by image id."""
    from phenotype.normalization.images import Source

    files = image_files(session, [image.image_id for image in known])
    cache = cache_folder(Path(home)) if home else None
    return {
        image.image_id: Source(
            image_id=image.image_id,
            kind=image.kind,
            modality=image.modality,
            view=image.view,
            files=files[image.image_id].files,
            shape=image.shape,
            spacing=image.spacing,
            orientation=image.orientation,
            origin=image.origin,
            cache=cache,
        )
        for image in known
    }


@dataclass(frozen=True)
class Normalize(Stage):
    """Lay images into a common space: volumes onto one of them, directly or by templates; radiographs by lungs."""

    images: str = run_of("assemble", "the run that put the images together")
    kind: str = knob("any", "the kind of image: radiograph, volume or any")
    reference: str = knob("", "the volume that others are laid onto, by image id; nothing for the most complete")
    templates: str = knob("3", "volumes to go by where the direct way fails: image ids, or how many of different kinds")
    spacing: float = knob(4.0, "mm between voxels when volumes are registered")
    steps: int = knob(30, "of the warp at that resolution; 0 for affine maps alone")
    gate: float = knob(0.75, "the quality below which the direct way is not enough and templates are tried")
    threshold: float = knob(0.4, "the quality below which an image is not accepted")
    organs: str = knob("", "a label map of the reference's organs (NIfTI), which travel to all volumes", recipe=False)
    organ_names: str = knob("", "their names: a CSV of label and name", recipe=False)
    drawn: str = knob("", "a digest of the label map and the names", hidden=True)

    name: ClassVar[str] = "normalize"
    subject: ClassVar[str] = "image_id"
    results: ClassVar = (Alignment, Organ)
    batch: ClassVar[int] = 4

    def resolve(self, session: Session, home: Path) -> Self:
        """With the reference and the templates known by their ids. Refused where one is no volume of the run."""
        if self.kind not in KINDS:
            raise Refused("kind", f"'{self.kind}' is no kind of image; use {', '.join(KINDS)}")
        if not 0.5 <= self.spacing <= 50:
            raise Refused("spacing", f"{self.spacing:g} mm: use 0.5 to 50")
        stage = super().resolve(session, home)
        if self.kind == "radiograph":
            return replace(stage, reference="", templates="")
        known = {v.image_id: v for v in geometries(session, run_id=stage.images) if v.kind == "volume"}
        reference, templates = _chosen(known, self.reference, self.templates)
        stage = replace(stage, reference=reference, templates=templates, drawn=_digest(self))
        if self.organs and stage.reference:
            from phenotype.normalization.images import drawn

            try:
                drawn(Path(self.organs), stage._space(session).reference)  # type: ignore[arg-type]
            except ValueError as error:
                raise Refused("organs", str(error)) from None
        return stage

    def subjects(self) -> Subjects:
        """Images of the kind."""
        return select(Image.id, literal("")).where(Image.run_id == self.images, Image.kind.in_(KINDS[self.kind]))

    def _space(self, session: Session) -> "Space":
        from phenotype.normalization.images import Space

        templates = [name for name in self.templates.split(",") if name]
        wanted = [*templates, self.reference] if self.reference else []
        known = sources(session, self.home, geometries(session, wanted)) if wanted else {}
        return Space(
            reference=known.get(self.reference),
            templates=tuple(known[name] for name in templates if name in known),
            spacing=self.spacing,
            fine=self.steps,
            folder=model_folder(Path(self.home), self.run_id),
            labels=Path(self.organs) if self.organs else None,
            names=Path(self.organ_names) if self.organ_names else None,
        )

    def read(self, session: Session, ids: list[str]) -> dict[str, Any]:
        """Image id to where it lies on the disk, and the space that it is to be laid into."""
        space = self._space(session)
        found = sources(session, self.home, geometries(session, ids))
        return {image: (source, space) for image, source in found.items()}

    def compute(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Image id to Laid."""
        from phenotype.normalization.laying import lay

        return {
            image: lay(source, space, gate=self.gate, threshold=self.threshold)
            for image, (source, space) in inputs.items()
        }

    def store(self, session: Session, outputs: dict[str, Any]) -> None:
        """One row an image, and one for each organ on it."""
        placed, organs = [], []
        for image, laid in outputs.items():
            own = {"run_id": self.run_id, "image_id": image}
            named = ("route", "quality", "accepted", "reason", "forward", "backward")
            placed.append(own | {name: getattr(laid, name) for name in named} | _box(laid))
            organs += [
                own | {"organ": o.organ, "volume_ml": o.volume_ml, "share": o.share} | _box(o) for o in laid.organs
            ]
        insert_rows(session, Alignment, placed)
        insert_rows(session, Organ, organs)


def _box(found: Any) -> dict[str, list[float] | None]:
    return {name: None if (at := getattr(found, name)) is None else list(at) for name in ("low", "high")}


def _chosen(known: dict[str, ImageGeometry], reference: str, templates: str) -> tuple[str, str]:
    """The reference and the templates as ids."""
    from phenotype.normalization.choice import Described, most_complete, unlike

    count = int(templates) if templates.isdigit() and templates not in known else None
    named = [name.strip() for name in templates.split(",") if name.strip()] if count is None else []
    for name in [*named, *([reference] if reference else [])]:
        if name not in known:
            raise Refused("image", f"no volume of this run of `assemble` is called '{name}'; see image_view")
        if not known[name].spacing:
            raise Refused("image", f"'{name}' has no known spacing, so that nothing can be laid onto it")
    described = [
        Described(v.image_id, v.modality, _mm(v), (v.spacing[0], v.spacing[1], v.spacing[2]))
        for v in known.values()
        if len(v.spacing) == 3
    ]
    if not described:
        return "", ""
    chosen = next((d for d in described if d.image_id == reference), None) or most_complete(described)
    if count is not None:
        named = unlike(described, chosen, count)
    return chosen.image_id, ",".join(name for name in named if name != chosen.image_id)


def _mm(volume: ImageGeometry) -> tuple[float, float, float]:
    slices, rows, columns = (n * mm for n, mm in zip(volume.shape, volume.spacing, strict=True))
    return float(slices), float(rows), float(columns)


def _digest(stage: Normalize) -> str:
    digest = hashlib.sha256()
    for option, path in (("organs", stage.organs), ("organ-names", stage.organ_names)):
        if path:
            try:
                digest.update(option.encode() + Path(path).read_bytes())
            except OSError as error:
                raise Refused(option, f"the file of --{option} cannot be read: {error.strerror}") from None
    return digest.hexdigest()[:16] if stage.organs or stage.organ_names else ""
