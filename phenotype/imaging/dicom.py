"""Pixels: a radiograph, a volume or a picture as one float32 array, brighter where more was absorbed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.pixels import apply_color_lut, apply_modality_lut, pixel_array

from phenotype.imaging import encoding
from phenotype.imaging.files import FileRef, Unreadable, open_bytes
from phenotype.imaging.geometry import Slice, Stack, arrange

MAX_PIXELS = 1 << 30  # of one image: 4 GiB as float32
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601
_PICTURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")


@dataclass(frozen=True, slots=True)
class Picture:
    """An image as one array.

    pixels      float32: (rows, columns) of a radiograph, (slices, rows, columns) of a volume or of several frames;
                after the modality LUT, so Hounsfield units for CT
    spacing_mm  (y, x) or (z, y, x); empty where the header does not say
    """

    pixels: NDArray[np.float32]
    spacing_mm: tuple[float, ...]


def read_pixels(refs: Sequence[FileRef]) -> Picture:
    """Read one image: a single object (radiograph, multi-frame, PNG or JPEG), or the slices of a volume in their order.

    MONOCHROME1 is turned, colours become luminance, the frames of a multi-frame volume are put into order. Raises
    `Unreadable` with a reason: those of `open_bytes` and `encoding.layout`, "decode", "no_pixel_data", "mixed_size",
    "too_large".
    """
    with encoding.quiet():
        if len(refs) == 1:
            data = open_bytes(refs[0])
            return _read_picture(data) if is_picture(data) else _read_object(data)
        return _read_volume(refs)


def _read_volume(refs: Sequence[FileRef]) -> Picture:
    volume: NDArray[np.float32] | None = None
    slices: list[Slice] = []
    for i, ref in enumerate(refs):
        read = _open(open_bytes(ref))
        pixels = _grey(read)
        if volume is None:
            if pixels.ndim != 2 or pixels.size * len(refs) > MAX_PIXELS:
                raise Unreadable("too_large", "slices of several frames, or a volume beyond the limit")
            volume = np.empty((len(refs), *pixels.shape), dtype=np.float32)
        if pixels.shape != volume.shape[1:]:
            raise Unreadable("mixed_size", "slices of different sizes in one volume")
        volume[i] = pixels
        slices.append(slice_of(read))
    if volume is None:
        raise Unreadable("no_slices", "no file to read")
    return Picture(volume, _spacing(slices))


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


def slice_of(read: Any, frame: int | None = None) -> Slice:
    """What a data set, or one frame of an enhanced one, says of its place in the patient."""
    groups: list[Any] = [read]
    if frame is not None:
        # PS3.3 C.7.6.16: what differs between frames stands in the one sequence, what they share in the other
        shared, own = read.get("SharedFunctionalGroupsSequence"), read.get("PerFrameFunctionalGroupsSequence")
        for sequence, item in ((shared, 0), (own, frame)):
            if sequence is not None and item < len(sequence):
                for name in ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence"):
                    groups += list(sequence[item].get(name) or [])
    spacing = numbers(groups, "PixelSpacing", 2) or numbers(groups, "ImagerPixelSpacing", 2)
    thickness = numbers(groups, "SliceThickness", 1)
    return Slice(
        rows=int(read.Rows),
        columns=int(read.Columns),
        position=numbers(groups, "ImagePositionPatient", 3),  # type: ignore[arg-type]  # of the length asked for
        orientation=numbers(groups, "ImageOrientationPatient", 6),  # type: ignore[arg-type]
        pixel_spacing=spacing,  # type: ignore[arg-type]
        thickness=thickness[0] if thickness else None,
        localiser="LOCALIZER" in [str(v).upper() for v in np.atleast_1d(read.get("ImageType") or [])],
    )


def numbers(groups: Sequence[Any], keyword: str, count: int) -> tuple[float, ...] | None:
    """`count` finite numbers of an element, from the last of `groups` that has them; None where none has."""
    for group in reversed(groups):
        try:
            values = [float(v) for v in np.atleast_1d(group.get(keyword))]
        except Exception:  # noqa: S112  (optional, and pydicom fails in many ways on an ill-formed value)
            continue
        if len(values) == count and np.isfinite(values).all():
            return tuple(values)
    return None


def frame_stack(read: Any, frames: int) -> Stack | None:
    """The frames of an enhanced CT or MR put into order; None where they are not a stack (a cine loop, many phases)."""
    try:
        return arrange([slice_of(read, frame) for frame in range(frames)])
    except Unreadable:
        return None


def _open(data: bytes) -> Any:
    return encoding.dataset(encoding.layout(data))


def _read_object(data: bytes) -> Picture:
    read = _open(data)
    pixels = _grey(read)
    if pixels.ndim == 2:
        spacing = slice_of(read).pixel_spacing
        return Picture(pixels, spacing or ())
    stack = frame_stack(read, len(pixels))
    if stack is None or stack.left_out:
        return Picture(pixels, ())
    return Picture(np.ascontiguousarray(pixels[list(stack.order)]), stack.spacing_mm)


def _grey(read: Any) -> NDArray[np.float32]:
    """The pixels of a data set, after its LUTs: (rows, columns), or (frames, rows, columns) where there are several."""
    if not any(name in read for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise Unreadable("no_pixel_data", "an object without pixels")
    try:
        stored = pixel_array(read)
        palette = read.PhotometricInterpretation == "PALETTE COLOR"
        if palette:
            stored = apply_color_lut(stored, read)
        if palette or read.SamplesPerPixel == 3:
            return np.asarray(stored[..., :3].astype(np.float32) @ _LUMA, dtype=np.float32)
        pixels = _modality(stored, read)
        if read.PhotometricInterpretation == "MONOCHROME1":
            # about the ends of what can be stored, through the same LUT: the turn does not hang on the content
            span, signed = 1 << int(read.BitsStored), int(read.PixelRepresentation)
            ends = np.array([[-span // 2, span // 2 - 1] if signed else [0, span - 1]], dtype=stored.dtype)
            pixels = np.float32(_modality(ends, read).sum()) - pixels
    except Exception as error:  # a codec fails in its own way, and its message may quote the header
        raise Unreadable("decode", f"the pixels cannot be decoded ({type(error).__name__})") from None
    return pixels


def _modality(stored: NDArray[Any], read: Any) -> NDArray[np.float32]:
    own = read.get("PerFrameFunctionalGroupsSequence")
    if own is None or stored.ndim != 3:
        return np.asarray(apply_modality_lut(stored, read), dtype=np.float32)
    pixels = stored.astype(np.float32)
    shared = read.get("SharedFunctionalGroupsSequence")
    for i in range(len(pixels)):
        groups: list[Any] = []
        for sequence, item in ((shared, 0), (own, i)):
            if sequence is not None and item < len(sequence):
                groups += list(sequence[item].get("PixelValueTransformationSequence") or [])
        slope, intercept = numbers(groups, "RescaleSlope", 1), numbers(groups, "RescaleIntercept", 1)
        if slope and intercept:
            pixels[i] = pixels[i] * np.float32(slope[0]) + np.float32(intercept[0])
    return pixels


def _spacing(slices: Sequence[Slice]) -> tuple[float, ...]:
    try:
        return arrange(slices).spacing_mm
    except Unreadable:
        return ()


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
