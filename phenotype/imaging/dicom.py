"""Pixels: a radiograph, a volume or a picture as one float32 array, brighter where more was absorbed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.datadict import tag_for_keyword

from phenotype.imaging import encoding
from phenotype.imaging.decoding import decodable, stored_pixels, whole
from phenotype.imaging.files import FileRef, Unreadable, open_bytes
from phenotype.imaging.geometry import Slice, Stack, arrange
from phenotype.imaging.header import Header

__all__ = ["Picture", "decodable", "frame_stack", "is_picture", "picture_size", "read_pixels", "slice_of"]

MAX_PIXELS = 1 << 30  # of one image: 4 GiB as float32
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601
_PICTURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")
_SHARED, _OWN = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
_PLACE = ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")
_MEASURED = frozenset({"CT", "PT"})  # what is stored in them is a quantity
_EXACT = 1 << 24  # whole numbers below are exact as float32
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Picture:
    """An image as one array.

    pixels          float32: (rows, columns) of a radiograph, (slices, rows, columns) of a volume or of several frames;
                    after the modality LUT, so Hounsfield units for CT. Padding is as dark as the darkest real pixel.
    spacing_mm      (y, x) or (z, y, x); empty where the header does not say
    tilt_corrected  the slices were sheared, as a tilted gantry makes them: they have been moved back in their planes by
                    linear interpolation, about the middle of the volume, with the darkest pixel where nothing was seen
    """

    pixels: Floats
    spacing_mm: tuple[float, ...]
    tilt_corrected: bool = False


def read_pixels(refs: Sequence[FileRef]) -> Picture:
    """Read one image: a single object (radiograph, multi-frame, PNG or JPEG), or the slices of a volume in their order.

    MONOCHROME1 is turned (but not what has a physical unit: Hounsfield units, uptake), colours become luminance, the
    frames of a multi-frame volume are put into order. Raises `Unreadable` with a reason: those of `open_bytes`,
    `encoding.layout` and `encoding.index`, "decode", "no_pixel_data", "mixed_size", "too_large".
    """
    try:
        with encoding.quiet():
            if len(refs) == 1:
                data = open_bytes(refs[0])
                return _read_picture(data) if is_picture(data) else _read_object(data)
            return _read_volume(refs)
    except (Unreadable, MemoryError):
        raise
    except Exception as error:  # a damaged header fails in many ways, and the message may quote it
        raise Unreadable("decode", f"the pixels have no sound meaning ({type(error).__name__})") from None


def _read_volume(refs: Sequence[FileRef]) -> Picture:
    volume: Floats | None = None
    slices: list[Slice] = []
    for i, ref in enumerate(refs):
        head = _open(open_bytes(ref))
        place = _place(head)
        if volume is None:
            if place.rows * place.columns * len(refs) > MAX_PIXELS:
                raise Unreadable("too_large", "a volume beyond the limit")
            volume = np.empty((len(refs), place.rows, place.columns), dtype=np.float32)
        if (whole(head, "NumberOfFrames", 1) or 1) > 1 or (place.rows, place.columns) != volume.shape[1:]:
            raise Unreadable("mixed_size", "slices of different sizes in one volume")
        _grey(head, volume[i])
        slices.append(place)
    if volume is None:
        raise Unreadable("no_slices", "no file to read")
    try:
        stack = arrange(slices)
    except Unreadable:
        return Picture(volume, ())
    if any(stack.shear):
        if stack.order != tuple(range(len(slices))):
            raise Unreadable("decode", "sheared slices out of order")
        _straighten(volume, stack)
    return Picture(volume, stack.spacing_mm, any(stack.shear))


def _straighten(volume: Floats, stack: Stack) -> None:
    """Take the shear out, in place."""
    from scipy import ndimage

    distance, *within = stack.spacing_mm
    for i, pixels in enumerate(volume):
        depth = (i - (len(volume) - 1) / 2) * distance
        moved = [slope * depth / size for slope, size in zip(stack.shear, within, strict=True)]
        volume[i] = ndimage.shift(pixels, moved, order=1, mode="constant", cval=float(pixels.min()), prefilter=False)


def is_picture(data: bytes) -> bool:
    """Whether these bytes begin like a PNG or a JPEG file."""
    return data.startswith(_PICTURES)


def picture_size(data: bytes) -> tuple[int, int]:
    """(rows, columns) of a PNG or JPEG, from its header. Raises `Unreadable`: "decode", "truncated", "too_large"."""
    image = _open_picture(data)
    columns, rows = image.size
    # both formats end with a marker; bytes may follow it, but it must be there
    if (b"IEND" if data[:1] == b"\x89" else b"\xff\xd9") not in data[-4096:]:
        raise Unreadable("truncated", "the picture has no end")
    return rows, columns


def slice_of(head: Header, frame: int | None = None) -> Slice:
    """What a header, or one frame of an enhanced one, says of its place in the patient."""
    return _slice(head, [head] if frame is None else [head, *_frame_groups(head, _PLACE)[frame]])


def _place(head: Header) -> Slice:
    """The place of a single frame, wherever it is told."""
    return slice_of(head, 0 if _OWN in head and head.items(_OWN) else None)


def frame_stack(head: Header, frames: int) -> Stack | None:
    """The frames of an enhanced CT or MR put into order; None where they are not one sound stack (a cine loop, several
    phases, a tilted gantry)."""
    try:
        groups = _frame_groups(head, _PLACE)
        stack = arrange([_slice(head, [head, *(groups[i] if i < len(groups) else ())]) for i in range(frames)])
    except Unreadable:
        return None
    return None if any(stack.shear) else stack


def _slice(head: Header, groups: Sequence[Header]) -> Slice:
    rows, columns = whole(head, "Rows"), whole(head, "Columns")
    if not rows or not columns:
        raise Unreadable("bad_header", "an image without size")
    thickness = _numbers(groups, "SliceThickness", 1)
    return Slice(
        rows=rows,
        columns=columns,
        position=_numbers(groups, "ImagePositionPatient", 3),  # type: ignore[arg-type]  # of the length asked for
        orientation=_numbers(groups, "ImageOrientationPatient", 6),  # type: ignore[arg-type]
        pixel_spacing=_numbers(groups, "PixelSpacing", 2) or _numbers(groups, "ImagerPixelSpacing", 2),  # type: ignore[arg-type]
        thickness=thickness[0] if thickness else None,
        localiser="LOCALIZER" in [kind.upper() for kind in head.texts("ImageType")],
    )


def _numbers(groups: Sequence[Header], keyword: str, count: int) -> tuple[float, ...] | None:
    """`count` finite numbers of an element, from the last of `groups` that has them; None where none has."""
    return next((values for group in reversed(groups) if (values := group.floats(keyword, count))), None)


def _frame_groups(head: Header, names: Sequence[str]) -> list[list[Header]]:
    """For each frame the groups of that name: PS3.3 C.7.6.16, what all share, then what is its own."""
    shared = [group for item in head.items(_SHARED)[:1] for name in names for group in item.items(name)]
    own = [[*shared, *(group for name in names for group in item.items(name))] for item in head.items(_OWN)]
    return own or ([shared] if shared else [])


def _open(data: bytes) -> Header:
    where = encoding.layout(data)
    return Header(where, encoding.index(where))


def _read_object(data: bytes) -> Picture:
    head = _open(data)
    if _size(head) > MAX_PIXELS:
        raise Unreadable("too_large", "more pixels than are read at once")
    pixels = _grey(head)
    if pixels.ndim == 2:
        return Picture(pixels, _place(head).pixel_spacing or ())
    stack = frame_stack(head, len(pixels))
    if stack is None:
        return Picture(pixels, ())
    return Picture(np.ascontiguousarray(pixels[list(stack.order)]), stack.spacing_mm)


def _size(head: Header) -> int:
    return math.prod(whole(head, name, 1) or 1 for name in ("Rows", "Columns", "NumberOfFrames"))


def _grey(head: Header, out: Floats | None = None) -> Floats:
    """The pixels of an object after its LUTs: (rows, columns), or (frames, rows, columns) where there are several;
    written into `out` where it is given."""
    if not any(name in head for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise Unreadable("no_pixel_data", "an object without pixels")
    stored = stored_pixels(head)
    samples = whole(head, "SamplesPerPixel", 1) or 1
    if samples > 1 or head.text("PhotometricInterpretation") == "PALETTE COLOR":
        grey = stored[..., :3].astype(np.float32) @ _LUMA
    else:
        grey = _meaning(head, stored, out)
    if out is None:
        return np.asarray(grey, dtype=np.float32)
    if grey is not out:
        if grey.shape != out.shape:
            raise Unreadable("mixed_size", "slices of different sizes in one volume")
        out[...] = grey
    return out


def _meaning(head: Header, stored: NDArray[Any], out: Floats | None) -> Floats:
    """Grey values after the modality LUT, turned if they are stored the other way round."""
    turned = head.text("PhotometricInterpretation") == "MONOCHROME1"
    groups = _frame_groups(head, ["PixelValueTransformationSequence"])
    scales = [_scale(head, *own) for own in groups] or [_scale(head)]
    if stored.ndim == 2:
        scales = scales[:1]
    if turned and head.text("Modality") in _MEASURED and None not in scales:
        turned = False  # MONOCHROME1 says how to show a quantity, not that it is the other way round
    stored = _unpadded(head, stored, turned != any(scale and scale[0] < 0 for scale in scales))
    ends = _ends(head, stored) if turned else None
    if "ModalityLUTSequence" in head:
        from pydicom.pixels import apply_modality_lut

        read = encoding.dataset(head.where, encoding.PIXEL_DATA)
        pixels = np.asarray(apply_modality_lut(stored, read), dtype=np.float32)
        if ends is None:
            return pixels
        return np.asarray(np.float32(apply_modality_lut(np.array([ends], stored.dtype), read).sum()) - pixels)
    pixels = np.empty(stored.shape, dtype=np.float32) if out is None else out
    if len(scales) == 1:
        _rescale(stored, scales[0], ends, pixels)
    else:
        for i, plane in enumerate(stored):
            _rescale(plane, scales[min(i, len(scales) - 1)], ends, pixels[i])
    return pixels


def _scale(*groups: Header) -> tuple[float, float] | None:
    """Slope and intercept, of the last group that has them; None where no group has."""
    for group in reversed(groups):
        if group.text("RescaleSlope") or group.text("RescaleIntercept"):
            slope, intercept = group.floats("RescaleSlope", 1), group.floats("RescaleIntercept", 1)
            if slope is None or intercept is None or slope[0] == 0:
                raise Unreadable("bad_rescale", "a slope or intercept that is none")
            return slope[0], intercept[0]
    return None


def _ends(head: Header, stored: NDArray[Any]) -> tuple[int, int]:
    """The least and the greatest value that can be stored: about them a negative is turned, whatever its content."""
    used, signed = whole(head, "BitsStored") or 8 * stored.itemsize, whole(head, "PixelRepresentation", 0)
    return (-(1 << (used - 1)), (1 << (used - 1)) - 1) if signed else (0, (1 << used) - 1)


def _rescale(
    stored: NDArray[Any], scale: tuple[float, float] | None, ends: tuple[int, int] | None, out: Floats
) -> None:
    """stored * slope + intercept, correctly rounded; or, about `ends`, the other way round."""
    slope, intercept = scale or (1.0, 0.0)
    if ends is not None:  # the values of both ends less the value
        slope, intercept = -slope, intercept + slope * sum(ends)
    exact = stored.dtype.kind in "iub" and stored.itemsize <= 2 and slope.is_integer() and intercept.is_integer()
    if not exact or abs(slope) * 65536 + abs(intercept) >= _EXACT:
        np.copyto(out, stored.astype(np.float64) * slope + intercept, casting="same_kind")
        return
    if slope == 1:
        np.add(stored, np.float32(intercept), out=out, dtype=np.float32, casting="unsafe")
    else:
        np.multiply(stored, np.float32(slope), out=out, dtype=np.float32, casting="unsafe")
        out += np.float32(intercept)


def _unpadded(head: Header, stored: NDArray[Any], highest: bool) -> NDArray[Any]:
    """Padding (PS3.3 C.7.5.1.1.2) as the lowest real value, or the `highest` where that is the darkest."""
    if stored.dtype.kind == "f":
        padded = ~np.isfinite(stored)
    else:
        value = _stored_value(head, "PixelPaddingValue", stored)
        if value is None:
            return stored
        limit = _stored_value(head, "PixelPaddingRangeLimit", stored)
        if limit is None or limit == value:
            padded = stored == value
        else:
            padded = (stored >= min(value, limit)) & (stored <= max(value, limit))
    if not padded.any() or padded.all():
        return stored
    real = stored[~padded]
    return np.where(padded, real.max() if highest else real.min(), stored)


def _stored_value(head: Header, keyword: str, stored: NDArray[Any]) -> int | None:
    """A value of the header that is written like a pixel, whatever its type there; None where no pixel can be that."""
    tag = tag_for_keyword(keyword)
    span = head.found.spans.get(tag) if tag is not None else None
    if span is None or span[2] - span[1] not in (2, 4):
        return None
    low, high = _ends(head, stored)
    order = "little" if head.where.little else "big"
    value = int.from_bytes(head.where.body[span[1] : span[2]], order, signed=low < 0)  # type: ignore[arg-type]
    return value if low <= value <= high else None


def _open_picture(data: bytes) -> Any:
    from PIL import Image

    try:
        image = Image.open(BytesIO(data), formats=("PNG", "JPEG"))
    except Exception as error:
        raise Unreadable("decode", f"not a readable picture ({type(error).__name__})") from None
    if image.size[0] * image.size[1] > MAX_PIXELS // 4:
        raise Unreadable("too_large", "a picture beyond the limit")
    return image


def _read_picture(data: bytes) -> Picture:
    image = _open_picture(data)
    try:
        if image.mode in ("1", "P", "PA", "RGBA", "LA", "CMYK", "YCbCr"):
            image = image.convert("L" if image.mode in ("1", "LA") else "RGB")
        stored = np.asarray(image)
    except Exception as error:
        raise Unreadable("decode", f"the picture cannot be decoded ({type(error).__name__})") from None
    grey = stored if stored.ndim == 2 else stored[..., :3].astype(np.float32) @ _LUMA
    return Picture(np.ascontiguousarray(grey, dtype=np.float32), ())
