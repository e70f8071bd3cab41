"""Instances of a series put together into images: what is read as one array."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from phenotype.imaging.geometry import Slice, Stack, Vector3, Vector6
from phenotype.imaging.stacks import divide

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
    acquisition: str = ""
    pixel_hash: str | None = None


@dataclass(frozen=True, slots=True)
class SeriesRow:
    """A series and its instances."""

    id: str
    study_id: str
    modality: str
    instances: tuple[InstanceRow, ...]


@dataclass(frozen=True, slots=True)
class Assembled:
    """An image: its instances in order, its size, its place.

    `left_out` counts, by reason, the instances of the series that are in no image: once, with the largest volume. It
    also holds "gantry_tilt_corrected" (0 instances) where reading the volume takes a shear out by interpolation.
    """

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
    """The images of a series: each radiograph one, each stack of slices of a CT, MR or PET a volume, each multi-frame
    one.

    Raises `Unreadable` with the reason of `divide` where slices form no sound volume: a wrong order would be worse
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
    slices = [i for i in single if i.view != LOCALISER]
    if len(slices) == 1 and not (slices[0].spacing and slices[0].thickness):
        images.append(replace(_single(slices[0], False), left_out=_counted(["localiser"] * (len(single) - 1))))
    elif slices:  # a series of nothing but localisers is no volume, and no fault
        images += [_volume(single, stack) for stack in divide([_slice(i) for i in single])]
    return images


def _slice(i: InstanceRow) -> Slice:
    return Slice(
        rows=i.rows,
        columns=i.columns,
        position=i.position,
        orientation=i.orientation,
        pixel_spacing=i.spacing,
        thickness=i.thickness,
        localiser=i.view == LOCALISER,
        acquisition=i.acquisition,
        number=i.number,
        pixel_hash=i.pixel_hash,
    )


def _single(i: InstanceRow, radiograph: bool) -> Assembled:
    # what the detector measured, before it was made into a picture, comes beside the picture and looks like none
    raw = i.sop_class.endswith("ForProcessing")
    kind = "radiograph" if radiograph and i.frames == 1 and not raw else "frames"
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
    left_out = _counted(reason for _, reason in stack.left_out)
    return Assembled(
        kind="volume",
        instances=tuple(i.id for i in chosen),
        view=stack.plane.upper(),
        slices=len(chosen),
        rows=first.rows,
        columns=first.columns,
        spacing=stack.spacing_mm,
        orientation=stack.orientation,
        left_out=left_out | ({"gantry_tilt_corrected": 0} if any(stack.shear) else {}),
    )


def _counted(reasons: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(reasons).items()))
