"""Masks that experts have drawn, out of NIfTI, pictures and DICOM segmentations, laid on the slices of an image."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phenotype.executors import Refused
from phenotype.linking.expert import Drawn, Mask, Target, lay_mask

NIFTI = (".nii", ".nii.gz")
PICTURES = (".png", ".tif", ".tiff", ".bmp")
_APART = 1.0  # mm that a frame may lie beside the slice that it is of, where slices have no thickness between them


@dataclass(frozen=True, slots=True)
class LabelMap:
    """Whole numbers (slices, rows, columns) and the matrix (4, 4) from their (column, row, slice) to mm.

    Millimetres are DICOM's: x to the patient's left, y to the back, z to the head. `matrix` is None for a picture.
    """

    labels: NDArray[np.int32]
    matrix: NDArray[np.float64] | None


@dataclass(frozen=True, slots=True)
class Segment:
    """One frame of a DICOM segmentation. `source` is the SOP instance UID of what it was drawn on, empty where it does
    not say; `series` that of the series."""

    number: int  # of the frame, counted from 1
    name: str
    code: str
    source: str
    series: str
    position: tuple[float, float, float] | None
    mask: Mask


def read_mask(path: Path) -> LabelMap:
    """The labels in a NIfTI file or a picture. Refused where it is neither, or holds anything but whole numbers."""
    if path.name.lower().endswith(PICTURES):
        from PIL import Image, UnidentifiedImageError

        try:
            with Image.open(path) as picture:
                labels = np.asarray(picture.convert("L") if picture.mode not in ("L", "I;16", "1") else picture)
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError):
            raise Refused("unreadable", "the mask is no picture that can be read") from None
        return LabelMap(labels.astype(np.int32)[None], None)
    import SimpleITK as sitk

    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError:  # its message quotes the path
        raise Refused("unreadable", "the mask is no NIfTI file that can be read") from None
    if image.GetNumberOfComponentsPerPixel() != 1 or image.GetDimension() not in (2, 3):
        raise Refused("unreadable", "the mask holds more than one number a voxel, or other than 2 or 3 dimensions")
    values = sitk.GetArrayFromImage(image)
    if not (np.isfinite(values).all() and np.array_equal(values, np.rint(values))):
        raise Refused("not_labels", "the mask holds fractions: a mask is made of whole numbers, 0 where nothing is")
    matrix = np.eye(4)
    size = image.GetDimension()
    direction = np.array(image.GetDirection()).reshape(size, size) * np.array(image.GetSpacing())
    matrix[:size, :size], matrix[:size, 3] = direction, image.GetOrigin()
    return LabelMap(values.astype(np.int32).reshape((-1, *values.shape[-2:])), matrix)


def values_of(found: LabelMap) -> list[int]:
    """The labels that are drawn, 0 left out."""
    return [int(value) for value in np.unique(found.labels) if value]


def lay_labels(found: LabelMap, target: Target, value: int | None) -> list[Drawn]:
    """The mask of a label (any but 0 where not given) on each slice that it touches.

    Laid by millimetres where both sides know them: each pixel of the image takes the nearest voxel, so that the mask
    may have another grid or order of slices. Otherwise both must have the same size, and are taken to have one order.
    """
    matrix = _matrix(target)
    mask = found.labels == value if value is not None else found.labels != 0
    if found.matrix is None or matrix is None:
        if mask.shape[0] != target.slices:
            told = f"the mask has {mask.shape[0]} slices, the image {target.slices}"
            raise Refused("size", f"{told}, and where they lie is not known: draw it on the image as it was delivered")
        planes: Sequence[Mask] = list(mask)
    else:
        planes = list(_resampled(mask, found.matrix, target, matrix))
    drawn = [lay_mask(target, index, plane) for index, plane in enumerate(planes) if plane.any()]
    kept = [one for one in drawn if one is not None]
    if mask.any() and not kept:
        raise Refused("outside", "no voxel of the mask lies in the image: is it of this image?")
    return kept


def _matrix(target: Target) -> NDArray[np.float64] | None:
    """Slices' matrices (slices, 3, 3): mm = matrix @ (column, row, 1); None where a header does not say."""
    matrices = np.zeros((target.slices, 3, 3))
    for own, plane in zip(matrices, target.planes, strict=True):
        if plane.position is None or plane.orientation is None or plane.spacing is None:
            return None
        along, down = np.array(plane.orientation[:3]), np.array(plane.orientation[3:])
        own[:, 0], own[:, 1], own[:, 2] = along * plane.spacing[1], down * plane.spacing[0], plane.position
    return matrices


def _resampled(
    mask: Mask, voxels: NDArray[np.float64], target: Target, matrices: NDArray[np.float64]
) -> Iterator[Mask]:
    """The mask on each slice of the target, by the nearest voxel."""
    columns, rows = np.meshgrid(np.arange(target.columns), np.arange(target.rows))
    pixels = np.stack([columns.ravel(), rows.ravel(), np.ones(columns.size)])
    back = np.linalg.inv(voxels)
    size = np.array(mask.shape[::-1])[:, None]
    for matrix in matrices:
        at = np.rint(back[:3, :3] @ (matrix @ pixels) + back[:3, 3:]).astype(np.int64)
        inside = ((at >= 0) & (at < size)).all(axis=0)
        plane = np.zeros(columns.size, np.bool_)
        x, y, z = at[:, inside]
        plane[inside] = mask[z, y, x]
        yield plane.reshape(target.rows, target.columns)


# ------------------------------------------------------------------------------------------------ DICOM


def read_segmentation(path: Path) -> list[Segment]:
    """The frames of a DICOM segmentation that are not empty (PS3.3 C.8.20: binary, fractional and label maps).

    Of a fractional one, what is at least half. Refused where it is none or cannot be read.
    """
    import pydicom
    from pydicom.errors import InvalidDicomError

    try:
        data = pydicom.dcmread(path)
        if data.get("Modality") != "SEG" or "SegmentSequence" not in data:
            raise Refused("not_seg", "a DICOM file, but no segmentation")
        pixels = np.asarray(data.pixel_array).reshape(-1, data.Rows, data.Columns)
    except (InvalidDicomError, OSError, EOFError):
        raise Refused("unreadable", "no DICOM file that can be read") from None
    except (AttributeError, ValueError, KeyError, RuntimeError, NotImplementedError):  # of broken headers and pixels
        raise Refused("unreadable", "a DICOM segmentation whose header or pixels are broken") from None
    kind = str(data.get("SegmentationType", "BINARY")).upper()
    segments = {int(s.SegmentNumber): s for s in data.SegmentSequence}
    shared = _first(data, "SharedFunctionalGroupsSequence")
    series = str(_get(_first(data, "ReferencedSeriesSequence"), "SeriesInstanceUID") or "")
    groups = list(data.get("PerFrameFunctionalGroupsSequence") or []) or [None] * len(pixels)
    if len(groups) != len(pixels):
        raise Refused("unreadable", f"{len(pixels)} frames, but {len(groups)} descriptions of frames")
    found = []
    for number, (plane, group) in enumerate(zip(pixels, groups, strict=True), 1):
        own = _get(_first(group, "SegmentIdentificationSequence"), "ReferencedSegmentNumber")
        own = own or _get(_first(shared, "SegmentIdentificationSequence"), "ReferencedSegmentNumber")
        for segment in segments if kind == "LABELMAP" else [int(own or min(segments))]:
            mask = plane == segment if kind == "LABELMAP" else plane > 0
            if kind == "FRACTIONAL":
                mask = plane * 2 >= int(data.get("MaximumFractionalValue", 255))
            if mask.any() and segment in segments:
                name, code = _called(segments[segment])
                place = _first(group, "PlanePositionSequence") or _first(shared, "PlanePositionSequence")
                at = _get(place, "ImagePositionPatient")
                position = None if at is None else (float(at[0]), float(at[1]), float(at[2]))
                source = _source(group) or _source(shared)
                found.append(Segment(number, name, code, source, series, position, mask))
    return found


def _called(segment: Any) -> tuple[str, str]:
    """The name and the code of a segment: of its type, unless that is of a kind of thing as general as "Organ"."""
    kind = _first(segment, "SegmentedPropertyTypeCodeSequence")
    return str(segment.get("SegmentLabel", "")), str(_get(kind, "CodeValue") or "")


def _source(group: Any) -> str:
    derived = _first(group, "DerivationImageSequence")
    return str(_get(_first(derived, "SourceImageSequence"), "ReferencedSOPInstanceUID") or "")


def _first(data: Any, name: str) -> Any:
    sequence = _get(data, name)
    return sequence[0] if sequence else None


def _get(data: Any, name: str) -> Any:
    return None if data is None else data.get(name)


def nearest_slice(target: Target, position: tuple[float, float, float]) -> int:
    """The slice of an image that a frame at this position (mm) lies on; Refused where it lies on none."""
    planes = target.planes
    if any(p.position is None or p.orientation is None for p in planes):
        raise Refused("no_position", "the segmentation names no image, and the slices do not say where they lie")
    first = planes[0].orientation or ()
    normal = np.cross(first[:3], first[3:])
    heights = np.array([p.position for p in planes], np.float64) @ normal
    off = np.abs(heights - np.asarray(position) @ normal)
    steps = np.abs(np.diff(np.sort(heights)))
    if off.min() > (np.median(steps) / 2 if steps.size else _APART) + 0.01:
        raise Refused("outside", f"a frame lies {off.min():.1f} mm beside the nearest slice: is it of this image?")
    return int(off.argmin())
