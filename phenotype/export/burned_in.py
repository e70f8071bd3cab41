"""Text burned into pixels: found by OCR, painted over in the stored values, and looked for once more.

The OCR is RapidOCR with the models that come inside its wheel (`pip install phenotype[ocr]`): nothing is downloaded.
What stands outside of the regions of an ultrasound picture is painted over without reading it.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydicom.pixels import apply_color_lut, pixel_array

from phenotype.stage import Refused

MODES: Final = ("quarantine", "mask", "keep")
ROUNDS: Final = 3  # of looking and painting; what is still read after the last is refused
MAX_FRAMES: Final = 24  # looked at one by one; of more, these many, evenly apart
MIN_SCORE: Final = 0.5  # of the recognition; below it a box is taken for anatomy ...
MIN_CHARACTERS: Final = 2  # ... as is a single letter
MARKERS: Final = frozenset(  # of side, projection and position: they tell nothing of a person
    word
    for line in ("PA AP LAT LL RL LAO RAO RE LI RT LT LEFT RIGHT", "LINKS RECHTS STEHEND SITZEND LIEGEND ERECT SUPINE")
    for word in line.split()
)
_MARGIN: Final = 0.3  # of the height of a line, painted above and below it; twice as much before and behind
_ENLARGED: Final = 1024  # smaller pictures are enlarged to this side, since small letters are lost otherwise
_MISSING: Final = "text in pixels is looked for by an extra: pip install 'phenotype[ocr]'"

Box = tuple[int, int, int, int]  # top, left, bottom, right


@dataclass(frozen=True, slots=True)
class Masked:
    """What was painted over: boxes with text, and whether the surroundings of ultrasound regions were."""

    boxes: int
    outside: bool

    @property
    def changed(self) -> bool:
        """Whether any pixel may be another."""
        return bool(self.boxes) or self.outside


def available() -> bool:
    """Whether the OCR can be used."""
    from importlib.util import find_spec

    return all(find_spec(name) is not None for name in ("rapidocr", "onnxruntime"))


def require() -> None:
    """Raises Refused("no_ocr") where the extra is not installed."""
    if not available():
        raise Refused("no_ocr", _MISSING)


@functools.cache
def _engine() -> Any:
    require()
    import logging

    from rapidocr import RapidOCR

    logging.getLogger("RapidOCR").setLevel(logging.CRITICAL)  # its messages could quote what was read
    one = {f"EngineConfig.onnxruntime.{kind}_op_num_threads": 1 for kind in ("intra", "inter")}
    return RapidOCR(params={"Global.log_level": "critical", "Global.use_cls": False, "Global.text_score": 0.0} | one)


def find_text(picture: NDArray[np.uint8]) -> list[tuple[Box, str, float]]:
    """Boxes with text in a grey (rows, columns) or RGB (rows, columns, 3) picture, what is read there, its score."""
    grey = picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)
    factor = max(1, -(-_ENLARGED // max(grey.shape[:2])))
    large = grey.repeat(factor, axis=0).repeat(factor, axis=1) if factor > 1 else grey
    read = _engine()(np.ascontiguousarray(large[..., ::-1]), use_det=True, use_cls=False, use_rec=True)
    if read.boxes is None or read.txts is None:
        return []
    found = []
    for corners, text, score in zip(read.boxes, read.txts, read.scores, strict=True):
        left, top = np.floor(corners.min(axis=0) / factor).astype(int)
        right, bottom = np.ceil(corners.max(axis=0) / factor).astype(int)
        found.append(((int(top), int(left), int(bottom) + 1, int(right) + 1), str(text), float(score)))
    return found


def text_boxes(pictures: list[NDArray[np.uint8]]) -> list[Box]:
    """Boxes with what reads like text in any of these pictures of one size."""
    boxes = []
    for picture in pictures:
        for box, text, score in find_text(picture):
            letters = "".join(c for c in text.upper() if c.isalnum())
            if score >= MIN_SCORE and len(letters) >= MIN_CHARACTERS and letters not in MARKERS:
                boxes.append(box)
    return boxes


def mask_text(data: Any) -> Masked:
    """Paint over the text in the pixels of a data set, in place, and look again.

    Masked pixels are written uncompressed: the caller gives the data set the transfer syntax Explicit VR Little
    Endian. Without text nothing is touched. Raises Refused("text_remains") where text is still read in the end, and
    whatever the decoder raises.
    """
    pixels, photometric = _decoded(data)
    outside = _outside_regions(data, pixels)
    painted = 0
    for _ in range(ROUNDS):
        boxes = text_boxes(_pictures(data, pixels, photometric))
        if not boxes:
            break
        painted += len(boxes)
        for box in boxes:
            _paint(pixels, _grown(box), photometric, data)
    else:
        if text_boxes(_pictures(data, pixels, photometric)):
            raise Refused("text_remains", "text is still read in the pixels after painting over what was found")
    done = Masked(painted, outside)
    if done.changed:
        _store(data, pixels, photometric)
    return done


def _decoded(data: Any) -> tuple[NDArray[Any], str]:
    """Stored values as (frames, rows, columns[, samples]) that may be written to, and how they are to be understood."""
    photometric = str(data.PhotometricInterpretation)
    pixels = np.array(pixel_array(data))  # YBR comes as RGB
    if int(data.get("SamplesPerPixel", 1)) == 3 and photometric.startswith("YBR"):
        photometric = "RGB"
    one = pixels.ndim == 2 + (int(data.get("SamplesPerPixel", 1)) > 1)
    return (pixels[None] if one else pixels), photometric


def _pictures(data: Any, pixels: NDArray[Any], photometric: str) -> list[NDArray[np.uint8]]:
    """What a person would see, as 8 bits: frames evenly apart, and the brightest of all at each place."""
    step = -(-len(pixels) // MAX_FRAMES)
    chosen = list(pixels[::step])
    if len(pixels) > len(chosen):
        chosen.append(pixels.max(axis=0))
    return [view for frame in chosen for view in _views(data, frame, photometric)]


def _views(data: Any, frame: NDArray[Any], photometric: str) -> list[NDArray[np.uint8]]:
    if photometric == "PALETTE COLOR":
        frame = apply_color_lut(frame, data)
    values = frame.astype(np.float32)
    views = []
    # text has the highest value that can be stored, or that of the brightest tissue: over the full range the one is
    # seen, over the range that most pixels are in the other
    ranges = {(float(values.min()), float(values.max())), tuple(map(float, np.percentile(values, (1, 99))))}
    if frame.dtype == np.uint8:
        ranges = {(0.0, 255.0)}
    for low, high in sorted(ranges):
        if high > low:
            views.append((np.clip((values - low) / (high - low), 0, 1) * 255).astype(np.uint8))
    return [255 - view for view in views] if photometric == "MONOCHROME1" else views


def _outside_regions(data: Any, pixels: NDArray[Any]) -> bool:
    """Paint over everything outside the regions that an ultrasound object declares; False where it declares none."""
    regions = data.get("SequenceOfUltrasoundRegions")
    if not regions:
        return False
    rows, columns = pixels.shape[1:3]
    inside = np.zeros((rows, columns), dtype=bool)
    for region in regions:
        left, top, right, bottom = (
            int(region.get(f"RegionLocation{name}", -1)) for name in ("MinX0", "MinY0", "MaxX1", "MaxY1")
        )
        if not (0 <= left < right and 0 <= top < bottom):
            return False  # a region that makes no sense says nothing of the others either
        inside[top : bottom + 1, left : right + 1] = True
    if inside.all():
        return False
    pixels[:, ~inside] = _black(pixels, str(data.PhotometricInterpretation), data)
    return True


def _grown(box: Box) -> Box:
    top, left, bottom, right = box
    margin = max(2, round(_MARGIN * min(bottom - top, right - left)))
    return top - margin, left - 2 * margin, bottom + margin, right + 2 * margin


def _paint(pixels: NDArray[Any], box: Box, photometric: str, data: Any) -> None:
    top, left, bottom, right = (max(0, edge) for edge in box)
    pixels[:, top:bottom, left:right] = _black(pixels, photometric, data)


def _black(pixels: NDArray[Any], photometric: str, data: Any) -> Any:
    """The stored value that shows as black: the padding value where there is one, else the darkest there is."""
    padding = data.get("PixelPaddingValue")
    if isinstance(padding, int) and np.can_cast(np.min_scalar_type(padding), pixels.dtype):
        return padding
    if photometric == "MONOCHROME1":
        return pixels.max()
    return 0 if photometric in ("RGB", "PALETTE COLOR") else pixels.min()


def _store(data: Any, pixels: NDArray[Any], photometric: str) -> None:
    little = np.ascontiguousarray(pixels.astype(pixels.dtype.newbyteorder("<"), copy=False))
    raw = little.tobytes()
    for keyword in ("FloatPixelData", "DoubleFloatPixelData", "PixelData"):
        if keyword in data:
            setattr(data, keyword, raw + b"\0" * (len(raw) % 2))
            element = data[keyword]
            element.is_undefined_length = False
    if "PixelData" in data:
        data["PixelData"].VR = "OW" if pixels.dtype.itemsize > 1 else "OB"
        data.BitsAllocated = 8 * pixels.dtype.itemsize
    data.PhotometricInterpretation = photometric
    if int(data.get("SamplesPerPixel", 1)) > 1:
        data.PlanarConfiguration = 0
    for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
        data.pop(keyword, None)
    kind = list(data.get("ImageType") or ["DERIVED", "SECONDARY"])
    data.ImageType = ["DERIVED", *kind[1:]]
