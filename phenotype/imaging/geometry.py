"""The slices of a series put into order by where they lie in the patient, not by their names or numbers.

Positions and directions are those of DICOM PS3.3 C.7.6.2: millimetres in the patient's coordinate system (x to the
patient's left, y to the back, z to the head).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from phenotype.imaging.files import Unreadable

TOLERANCE = 0.05  # of the slice distance
_ROUNDING_MM = 0.101  # headers exist that round positions to a tenth of a millimetre
_MINIMUM_MM = 0.02
_TILT = 0.01  # how far slices may drift in their own plane, of the way along their normal: half a degree

Vector3 = tuple[float, float, float]
Vector6 = tuple[float, float, float, float, float, float]


@dataclass(frozen=True, slots=True)
class Slice:
    """What one slice's header says of its place: mm, `orientation` the directions of a row and of a column."""

    rows: int
    columns: int
    position: Vector3 | None = None
    orientation: Vector6 | None = None
    pixel_spacing: tuple[float, float] | None = None  # (between rows, between columns)
    thickness: float | None = None
    localiser: bool = False


@dataclass(frozen=True, slots=True)
class Stack:
    """Slices in order, from feet to head, back or right to left: along the axis nearest to their normal, ascending.

    order        indices into the given slices
    spacing_mm   (z, y, x): between slices, between rows, between columns
    orientation  the common directions of a row and of a column
    plane        "axial", "coronal" or "sagittal": the nearest
    origin       the position of the first slice
    left_out     (index, reason) of slices that do not belong to the stack
    """

    order: tuple[int, ...]
    spacing_mm: Vector3
    orientation: Vector6 | None
    plane: str
    origin: Vector3 | None
    left_out: tuple[tuple[int, str], ...] = ()


def arrange(slices: Sequence[Slice]) -> Stack:
    """Put the slices of one series into order.

    Localisers, and a minority of slices of other size or orientation, are left out, each with its reason. Raises
    `Unreadable` with the reason where no single sound stack remains: "no_slices", "mixed_size", "mixed_orientation",
    "no_position", "no_spacing", "doubled_slices", "missing_slices", "uneven_spacing", "gantry_tilt".
    """
    left_out = [(i, "localiser") for i, s in enumerate(slices) if s.localiser]
    kept = [i for i, s in enumerate(slices) if not s.localiser]
    if not kept:
        raise Unreadable("no_slices", "the series holds nothing but localisers")
    kept, odd = _majority(kept, [(slices[i].rows, slices[i].columns, _rounded(slices[i].pixel_spacing)) for i in kept])
    if odd and len(odd) >= len(kept):
        raise Unreadable("mixed_size", "slices of different sizes, none of them in the majority")
    left_out += [(i, "other_size") for i in odd]
    kept, odd = _majority(kept, [_rounded(slices[i].orientation) for i in kept])
    if odd and len(odd) >= len(kept):
        raise Unreadable("mixed_orientation", "slices of different orientations, none of them in the majority")
    left_out += [(i, "other_orientation") for i in odd]

    first = slices[kept[0]]
    if first.pixel_spacing is None or min(first.pixel_spacing) <= 0:
        raise Unreadable("no_spacing", "no pixel spacing")
    if len(kept) == 1:
        if not first.thickness or first.thickness <= 0:
            raise Unreadable("no_spacing", "a single slice without thickness")
        spacing, order = first.thickness, kept
    else:
        spacing, order = _along_normal(slices, kept)
    plane = plane_of(first.orientation) if first.orientation else "axial"
    return Stack(
        tuple(order),
        (spacing, *first.pixel_spacing),
        first.orientation,
        plane,
        slices[order[0]].position,
        tuple(sorted(left_out)),
    )


def plane_of(orientation: Vector6) -> str:
    """The anatomical plane nearest to a slice's orientation: "axial", "coronal" or "sagittal"."""
    return ("sagittal", "coronal", "axial")[int(np.argmax(np.abs(_normal(orientation))))]


def _normal(orientation: Vector6) -> NDArray[np.float64]:
    row, column = np.asarray(orientation[:3], float), np.asarray(orientation[3:], float)
    normal = np.cross(row, column)
    length = float(np.linalg.norm(normal))
    if not 0.9 < length < 1.1:
        raise Unreadable("no_position", "directions of rows and columns that are not at right angles")
    return np.asarray(normal / length, dtype=np.float64)


def _along_normal(slices: Sequence[Slice], kept: list[int]) -> tuple[float, list[int]]:
    orientation = slices[kept[0]].orientation
    if orientation is None or any(slices[i].position is None for i in kept):
        raise Unreadable("no_position", "slices without position or orientation")
    normal = _normal(orientation)
    normal *= np.sign(normal[np.argmax(np.abs(normal))])  # so that one patient is always read the same way up
    positions = np.array([slices[i].position for i in kept], dtype=np.float64)
    depth = positions @ normal
    order = np.argsort(depth, kind="stable")
    gaps = np.diff(depth[order])
    usual = float(np.median(gaps))
    slack = max(TOLERANCE * usual, min(_ROUNDING_MM, 0.2 * usual))
    if usual < _MINIMUM_MM or gaps.min() < _MINIMUM_MM:
        raise Unreadable("doubled_slices", "two slices at one position")
    if np.abs(gaps - usual).max() > slack:
        whole = np.abs(gaps - np.rint(gaps / usual) * usual).max() <= 2 * slack
        if whole and gaps.min() >= usual - slack:
            raise Unreadable("missing_slices", "gaps of whole slices")
        raise Unreadable("uneven_spacing", "slices at uneven distances")
    drift = positions - positions[order[0]] - (depth - depth[order[0]])[:, None] * normal
    if np.abs(drift).max() > _ROUNDING_MM + _TILT * np.ptp(depth):
        raise Unreadable("gantry_tilt", "slices shifted in their own plane")
    spacing = float(depth[order[-1]] - depth[order[0]]) / (len(kept) - 1)
    return round(spacing, 6), [kept[i] for i in order]


def _rounded(values: Sequence[float] | None) -> tuple[float, ...] | None:
    return None if values is None else tuple(round(v, 3) + 0.0 for v in values)  # + 0.0: -0.0 becomes 0.0


def _majority(indices: list[int], keys: Sequence[object]) -> tuple[list[int], list[int]]:
    if not keys:
        return indices, []
    common = Counter(keys).most_common(1)[0][0]
    same = [i for i, key in zip(indices, keys, strict=True) if key == common]
    return same, [i for i, key in zip(indices, keys, strict=True) if key != common]
