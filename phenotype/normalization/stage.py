"""Normalize and Follow: this room's door to the database."""

import hashlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from sqlalchemy import literal, select
from sqlalchemy.orm import Session

from db.queries.images import image_files
from db.queries.positions import ImageGeometry, SeenTerm, followed, geometries, region_places, seen_terms
from db.tables import Alignment, FollowUp, Image, Organ, Run, Track
from db.write import insert_rows
from phenotype.imaging.cache import cache_folder
from phenotype.stage import Refused, Stage, Subjects, knob, model_folder, newest_run, run_of

if TYPE_CHECKING:
    from phenotype.normalization.follow import Viewed
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
    """Lay images into a common space: volumes onto one of them, directly or by templates; radiographs onto a thorax."""

    images: str = run_of("assemble", "the run that put the images together")
    kind: str = knob("any", "the kind of image: radiograph, volume or any")
    reference: str = knob("", "the volume that others are laid onto, by image id; nothing for the most complete")
    templates: str = knob("3", "volumes to go by where the direct way fails: image ids, or how many of different kinds")
    radiographs: str = knob("mean", "frontal radiographs onto the thorax by their 'mean', or each by its own 'lungs'")
    spacing: float = knob(4.0, "mm between voxels when volumes are registered")
    steps: int = knob(30, "of the warp at that resolution; 0 for affine maps alone")
    gate: float = knob(0.75, "the quality below which the direct way is not enough and templates are tried")
    threshold: float = knob(0.4, "the quality below which an image is not accepted")
    organs: str = knob("", "a label map of the reference's organs (NIfTI), which travel to all volumes", recipe=False)
    organ_names: str = knob("", "their names: a CSV of label and name", recipe=False)
    drawn: str = knob("", "a digest of the label map and the names", hidden=True)
    averaged: str = knob("", "the radiographs that the mean is made of, by image id", hidden=True)

    name: ClassVar[str] = "normalize"
    subject: ClassVar[str] = "image_id"
    results: ClassVar = (Alignment, Organ)
    batch: ClassVar[int] = 4
    revision: ClassVar[int] = 2

    def resolve(self, session: Session, home: Path) -> Self:
        """With the reference, the templates and the radiographs of the mean known by their ids. Refused where one is
        no image of the run."""
        if self.kind not in KINDS:
            raise Refused("kind", f"'{self.kind}' is no kind of image; use {', '.join(KINDS)}")
        if not 0.5 <= self.spacing <= 50:
            raise Refused("spacing", f"{self.spacing:g} mm: use 0.5 to 50")
        if self.radiographs not in ("mean", "lungs"):
            raise Refused("radiographs", f"'{self.radiographs}' is no way to lay radiographs; use 'mean' or 'lungs'")
        stage = super().resolve(session, home)
        if self.kind != "volume" and self.radiographs == "mean":
            stage = replace(stage, averaged=_sample(session, stage.images))
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
        averaged = [name for name in self.averaged.split(",") if name]
        wanted = [*templates, *averaged, *([self.reference] if self.reference else [])]
        known = sources(session, self.home, geometries(session, wanted)) if wanted else {}
        return Space(
            reference=known.get(self.reference),
            templates=tuple(known[name] for name in templates if name in known),
            spacing=self.spacing,
            fine=self.steps,
            folder=model_folder(Path(self.home), self.run_id),
            labels=Path(self.organs) if self.organs else None,
            names=Path(self.organ_names) if self.organ_names else None,
            radiographs=tuple(known[name] for name in averaged if name in known),
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


@dataclass(frozen=True)
class Follow(Stage):
    """Register each image to the one before of the same patient, and follow what the term maps show."""

    images: str = run_of("assemble", "the run that put the images together")
    map: str = run_of("map", "the run whose term maps are followed")
    spacing: float = knob(4.0, "mm between voxels when volumes are registered")
    steps: int = knob(30, "of the warp at that resolution; 0 for affine maps alone")
    threshold: float = knob(0.4, "the quality below which a registration is not accepted, and nothing is followed")
    link: str = knob("", "the run that learned the terms", hidden=True)
    embeddings: str = knob("", "the run that described the regions", hidden=True)

    name: ClassVar[str] = "follow"
    subject: ClassVar[str] = "image_id"
    results: ClassVar = (FollowUp, Track)
    batch: ClassVar[int] = 4

    def resolve(self, session: Session, home: Path) -> Self:
        """With the runs that the maps were made from."""
        stage = super().resolve(session, home)
        recipe = session.get_one(Run, stage.map).recipe
        return replace(stage, link=recipe["link"], embeddings=recipe["embeddings"])

    def subjects(self) -> Subjects:
        """Every image that has one before it, whose id is the version: another one in between makes it new."""
        return followed(self.images)

    def read(self, session: Session, ids: list[str]) -> dict[str, Any]:
        """Image id to it and the one before, with the days between them."""
        pairs = followed(self.images).subquery()
        earlier = {row[0]: row[1] for row in session.execute(select(pairs).where(pairs.c.id.in_(ids)))}
        known = {image.image_id: image for image in geometries(session, sorted({*ids, *earlier.values()}))}
        viewed = self._viewed(session, known)
        found = {}
        for image in ids:
            days = [known[one].day for one in (image, earlier[image])]
            between = (days[0] - days[1]).days if days[0] and days[1] else None
            found[image] = viewed[image], viewed[earlier[image]], between
        return found

    def _viewed(self, session: Session, known: dict[str, ImageGeometry]) -> dict[str, "Viewed"]:
        from phenotype.normalization.follow import Viewed
        from phenotype.normalization.spots import Places, TermSeen

        ids = list(known)
        terms = seen_terms(session, self.map, self.link, ids)
        regions = region_places(session, self.embeddings, ids)
        return {
            image: Viewed(
                source,
                {t.concept_id: TermSeen(t.concept_id, _called(t), t.regions, t.slice) for t in terms.get(image, [])},
                Places(r.slices, r.boxes, r.labels) if (r := regions.get(image)) is not None else None,
            )
            for image, source in sources(session, self.home, list(known.values())).items()
        }

    def compute(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Image id to the id of the one before, the days between, the Link and what was Tracked along it."""
        from phenotype.normalization.follow import follow, link

        found: dict[str, Any] = {}
        for image, (later, earlier, days) in inputs.items():
            try:
                linked = link(later.source, earlier.source, spacing=self.spacing, fine=self.steps)
            except ValueError:
                raise Refused("no_overlap", "the two volumes have nothing in common") from None
            tracked = follow(later, earlier, linked) if linked.quality >= self.threshold else []
            found[image] = earlier.source.image_id, days, linked, tracked
        return found

    def store(self, session: Session, outputs: dict[str, Any]) -> None:
        """One row a pair, and one for each place followed."""
        pairs, places = [], []
        for image, (earlier, days, linked, tracked) in outputs.items():
            own = {"run_id": self.run_id, "image_id": image, "earlier_id": earlier}
            accepted = linked.quality >= self.threshold
            pairs.append(own | {"days": days, "route": linked.route, "quality": linked.quality, "accepted": accepted})
            for track in tracked:
                values = asdict(track)
                row = own | {"concept_id": values.pop("concept")}
                for prefix, spot in (("", values.pop("later")), ("earlier_", values.pop("earlier"))):
                    row |= {f"{prefix}{name}": spot[name] for name in ("slice", "row", "column")}
                places.append(row | values)
        insert_rows(session, FollowUp, pairs)
        insert_rows(session, Track, places)


def _called(term: SeenTerm) -> bool:
    """Whether a term is called on an image; by its own score where its maps have no calibrated probability."""
    if term.call:
        return term.call == "here"
    if term.probability is not None:
        return term.probability >= (0.5 if term.threshold is None else term.threshold)
    return term.score > 0


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


def _sample(session: Session, run_id: str) -> str:
    """The ids of frontal radiographs to make a mean of, one of a patient, chosen by nothing but their names; empty
    where they are too few. A mean of as many as it takes stays: images that come later are laid onto the same."""
    from phenotype.normalization.laying import LATERAL
    from phenotype.normalization.mean import LEAST, MOST

    before = newest_run(session, "normalize", images=run_id, radiographs="mean")
    sample = str(session.get_one(Run, before).recipe["averaged"]) if before else ""
    if sample.count(",") + 1 >= MOST:
        return sample
    one_of = {
        image.patient_id: image.image_id
        for image in geometries(session, run_id=run_id)
        if image.kind == "radiograph" and image.view.upper() not in LATERAL
    }
    chosen = sorted(one_of.values(), key=lambda image: hashlib.sha256(image.encode()).digest())[:MOST]
    return ",".join(sorted(chosen)) if len(chosen) >= LEAST else ""


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
