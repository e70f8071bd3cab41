"""Instances of a series put together into images: what is read as one array."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from phenotype.imaging.geometry import Slice, Stack, Vector3, Vector6, arrange

RADIOGRAPHS = frozenset({"CR", "DX", "RG", "MG", "IO", "PX"})
VOLUMES = frozenset({"CT", "MR", "PT"})
LOCALISER = "LOCALIZER"  # the view of a scout image, spelled as in ImageType


@dataclass(frozen=True, slots=True)
class InstanceRow:
    """An instance as the database knows it."""

    id: str
    sop_class: str
    number: int | None
    rows: int
    columns: int
    frames: int
    view: str
    position: Vector3 | None
    orientation: Vector6 | None
    spacing: tuple[float, float] | None
    thickness: float | None


@dataclass(frozen=True, slots=True)
class SeriesRow:
    """A series and its instances."""

    id: str
    study_id: str
    modality: str
    instances: tuple[InstanceRow, ...]


@dataclass(frozen=True, slots=True)
class Assembled:
    """An image: its instances in order, its size, its place, and how many instances were left out, by reason."""

    kind: str  # radiograph, volume, frames
    instances: tuple[str, ...]
    view: str
    slices: int
    rows: int
    columns: int
    spacing: tuple[float, ...]
    orientation: Vector6 | None
    left_out: dict[str, int]


def assemble(series: SeriesRow) -> list[Assembled]:
    """The images of a series: each radiograph one, the slices of a CT, MR or PET one volume, each multi-frame one.

    Raises `Unreadable` with the reason of `arrange` where slices form no sound volume: a wrong order would be worse
    than none.
    """
    instances = sorted(series.instances, key=lambda i: (i.number is None, i.number or 0, i.id))
    if series.modality not in VOLUMES:
        return [_single(i, series.modality in RADIOGRAPHS) for i in instances]
    # a screen shot, or a multi-frame, in a series of slices stands for itself
    screen = [i for i in instances if "SecondaryCapture" in i.sop_class]
    several = [i for i in instances if i.frames > 1 and i not in screen]
    single = [i for i in instances if i.frames == 1 and i not in screen]
    images = [_single(i, False) for i in screen] + [_multiframe(i) for i in several]
    if any(i.view != LOCALISER for i in single):  # a series of nothing but localisers is no volume, and no fault
        images.append(_volume(single, arrange([_slice(i) for i in single])))
    return images


def _slice(i: InstanceRow) -> Slice:
    return Slice(i.rows, i.columns, i.position, i.orientation, i.spacing, i.thickness, i.view == LOCALISER)


def _single(i: InstanceRow, radiograph: bool) -> Assembled:
    kind = "radiograph" if radiograph and i.frames == 1 else "frames"
    return Assembled(kind, (i.id,), i.view, i.frames, i.rows, i.columns, i.spacing or (), None, {})


def _multiframe(i: InstanceRow) -> Assembled:
    """The header told whether its frames are a stack: then it has a position, and the thickness is their distance."""
    if i.position is None or i.spacing is None or not i.thickness:
        return _single(i, False)
    spacing = (i.thickness, *i.spacing)
    return Assembled("volume", (i.id,), i.view, i.frames, i.rows, i.columns, spacing, i.orientation, {})


def _volume(instances: Sequence[InstanceRow], stack: Stack) -> Assembled:
    chosen = [instances[i] for i in stack.order]
    first = chosen[0]
    return Assembled(
        kind="volume",
        instances=tuple(i.id for i in chosen),
        view=stack.plane.upper(),
        slices=len(chosen),
        rows=first.rows,
        columns=first.columns,
        spacing=stack.spacing_mm,
        orientation=stack.orientation,
        left_out=dict(sorted(Counter(reason for _, reason in stack.left_out).items())),
    )
