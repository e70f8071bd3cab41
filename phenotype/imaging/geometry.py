"""The slices of a series put into order by where they lie in the patient, not by their names or numbers.

Positions and directions are those of DICOM PS3.3 C.7.6.2: millimetres in the patient's coordinate system (x to the
patient's left, y to the back, z to the head).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from phenotype.imaging.files import Unreadable

TOLERANCE = 0.05  # of the slice distance
MINIMUM_MM = 0.02  # slices nearer than this are at one position
_ROUNDING_MM = 0.101  # headers exist that round positions to a tenth of a millimetre
_TILT = 0.01  # how far slices may drift in their own plane, of the way along their normal: half a degree
_STEEPEST = 0.7  # of a drift that can be a tilted gantry: 35 degrees
_TURN = 0.002  # how far the directions of slices in one stack may differ

Vector3 = tuple[float, float, float]
Vector6 = tuple[float, float, float, float, float, float]


@dataclass(frozen=True, slots=True)
class Slice:
    """What one slice's header says of its place: mm, `orientation` the directions of a row and of a column.

    `acquisition` (numbers joined by "/"), `number` (InstanceNumber) and `pixel_hash` tell apart what lies at one place.
    """

    rows: int
    columns: int
    position: Vector3 | None = None
    orientation: Vector6 | None = None
    pixel_spacing: tuple[float, float] | None = None  # (between rows, between columns)
    thickness: float | None = None
    localiser: bool = False
    acquisition: str = ""
    number: int | None = None
    pixel_hash: str | None = None


@dataclass(frozen=True, slots=True)
class Stack:
    """Slices in order, from feet to head, back or right to left: along the axis nearest to their normal, ascending.

    order        indices into the given slices
    spacing_mm   (z, y, x): between slices, between rows, between columns
    orientation  the common directions of a row and of a column
    plane        "axial", "coronal" or "sagittal": the nearest
    origin       the position of the first slice, after the shear was taken out
    left_out     (index, reason) of slices that do not belong to the stack
    shear        (down, right) mm that slices drift in their own plane for each mm along their normal, as a tilted
                 gantry makes them; (0, 0) where they do not
    """

    order: tuple[int, ...]
    spacing_mm: Vector3
    orientation: Vector6 | None
    plane: str
    origin: Vector3 | None
    left_out: tuple[tuple[int, str], ...] = ()
    shear: tuple[float, float] = (0.0, 0.0)


def arrange(slices: Sequence[Slice]) -> Stack:
    """Put slices that all belong to one stack into order.

    Raises `Unreadable` with the reason where they are no single sound stack: "no_slices", "mixed_size",
    "mixed_orientation", "no_position", "no_spacing", "doubled_slices", "missing_slices", "uneven_spacing",
    "gantry_tilt" (a drift that is not the same all the way).
    """
    if not slices or any(s.localiser for s in slices):
        raise Unreadable("no_slices", "nothing but slices can be a stack")
    first = min(slices, key=lambda s: (s.orientation or (), s.pixel_spacing or ()))  # whatever the order of the files
    if any((s.rows, s.columns) != (first.rows, first.columns) or not _same_spacing(s, first) for s in slices):
        raise Unreadable("mixed_size", "slices of different sizes")
    if any(not _same_orientation(s, first) for s in slices):
        raise Unreadable("mixed_orientation", "slices of different orientations")
    if first.pixel_spacing is None or min(first.pixel_spacing) <= 0:
        raise Unreadable("no_spacing", "no pixel spacing")
    if len(slices) == 1:
        if not first.thickness or first.thickness <= 0:
            raise Unreadable("no_spacing", "a single slice without thickness")
        plane = plane_of(first.orientation) if first.orientation else "axial"
        return Stack((0,), (first.thickness, *first.pixel_spacing), first.orientation, plane, first.position)
    if first.orientation is None or any(s.position is None for s in slices):
        raise Unreadable("no_position", "slices without position or orientation")
    positions = np.array([s.position for s in slices], dtype=np.float64)
    depth = positions @ _upwards(first.orientation)
    order = np.argsort(depth, kind="stable")
    spacing = _distance(depth[order])
    shear, origin = _drift(positions[order], depth[order], first.orientation)
    return Stack(
        order=tuple(int(i) for i in order),
        spacing_mm=(spacing, *first.pixel_spacing),
        orientation=first.orientation,
        plane=plane_of(first.orientation),
        origin=origin,
        shear=shear,
    )


def plane_of(orientation: Vector6) -> str:
    """The anatomical plane nearest to a slice's orientation: "axial", "coronal" or "sagittal"."""
    return ("sagittal", "coronal", "axial")[_axis(_normal(orientation))]


def directions(orientation: Vector6) -> NDArray[np.float64]:
    """The patient's directions (3, 3) along the slices, rows and columns of a stack as `arrange` orders it."""
    along = [_upwards(orientation), orientation[3:], orientation[:3]]
    return np.asarray(along, dtype=np.float64)


def depths(slices: Sequence[Slice]) -> NDArray[np.float64]:
    """How far along their common normal slices lie, mm, ascending as in a `Stack`. They must have a position."""
    orientation = min(s.orientation for s in slices if s.orientation)
    return np.asarray([s.position for s in slices], dtype=np.float64) @ _upwards(orientation)


def alike(one: Slice, other: Slice) -> bool:
    """Whether two slices could be of one stack: of one size, spacing and orientation."""
    same_size = (one.rows, one.columns) == (other.rows, other.columns) and _same_spacing(one, other)
    return same_size and _same_orientation(one, other) and (one.position is None) == (other.position is None)


def _same_spacing(one: Slice, other: Slice) -> bool:
    a, b = one.pixel_spacing, other.pixel_spacing
    if a is None or b is None:
        return a is b
    return all(abs(x - y) <= 1e-3 * max(x, y) for x, y in zip(a, b, strict=True))


def _same_orientation(one: Slice, other: Slice) -> bool:
    a, b = one.orientation, other.orientation
    if a is None or b is None:
        return a is b
    return all(abs(x - y) <= _TURN for x, y in zip(a, b, strict=True))


def _normal(orientation: Vector6) -> NDArray[np.float64]:
    row, column = np.asarray(orientation[:3], float), np.asarray(orientation[3:], float)
    normal = np.cross(row, column)
    length = float(np.linalg.norm(normal))
    if not 0.9 < length < 1.1:
        raise Unreadable("no_position", "directions of rows and columns that are not at right angles")
    return np.asarray(normal / length, dtype=np.float64)


def _axis(normal: NDArray[np.float64]) -> int:
    """0, 1 or 2: the patient's axis nearest to a normal; the last of several as near, whatever the rounding."""
    return 2 - int(np.argmax(np.round(np.abs(normal), 2)[::-1]))


def _upwards(orientation: Vector6) -> NDArray[np.float64]:
    normal = _normal(orientation)
    return np.asarray(normal * np.sign(normal[_axis(normal)]))  # so that one patient is always read the same way up


def _distance(depth: NDArray[np.float64]) -> float:
    """The one distance between slices at these ascending depths."""
    gaps = np.diff(depth)
    usual = float(np.median(gaps))
    slack = max(TOLERANCE * usual, min(_ROUNDING_MM, 0.2 * usual))
    if usual < MINIMUM_MM or gaps.min() < MINIMUM_MM:
        raise Unreadable("doubled_slices", "two slices at one position")
    if np.abs(gaps - usual).max() > slack:
        whole = np.abs(gaps - np.rint(gaps / usual) * usual).max() <= 2 * slack
        if whole and gaps.min() >= usual - slack:
            raise Unreadable("missing_slices", "gaps of whole slices")
        raise Unreadable("uneven_spacing", "slices at uneven distances")
    return round(float(depth[-1] - depth[0]) / len(gaps), 6)


def _drift(
    positions: NDArray[np.float64], depth: NDArray[np.float64], orientation: Vector6
) -> tuple[tuple[float, float], Vector3]:
    """The shear of slices in order, and the origin: that of the first slice once the shear is taken out."""
    axes = np.array([orientation[3:], orientation[:3]], dtype=np.float64)  # down, right
    along, within = depth - depth.mean(), (positions - positions.mean(axis=0)) @ axes.T
    origin = (float(positions[0, 0]), float(positions[0, 1]), float(positions[0, 2]))
    if np.abs(within - within[0]).max() <= _ROUNDING_MM + _TILT * np.ptp(depth):
        return (0.0, 0.0), origin
    slope = along @ within / (along @ along)
    if len(depth) < 3 or np.abs(within - np.outer(along, slope)).max() > _ROUNDING_MM or np.hypot(*slope) > _STEEPEST:
        raise Unreadable("gantry_tilt", "slices shifted in their own plane, not evenly or too far")
    moved = positions[0] - along[0] * slope @ axes
    return (float(slope[0]), float(slope[1])), (float(moved[0]), float(moved[1]), float(moved[2]))
