"""Arrays to pictures that a page can hold: PNG as data URIs, a map laid over an image, a ring around a place."""

import base64
import io
from dataclasses import dataclass
from functools import cache

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from phenotype.imaging.window import Frame

Floats = NDArray[np.float32]

COLOURS = "inferno"
OPAQUE = 0.65  # how much of the image the highest colour hides
_FINER = 4  # rings are drawn so much larger and made smaller again: Pillow draws without smoothing


@dataclass(frozen=True, slots=True)
class View:
    """A square view of values in [0, 1] of one slice, and how it lies over the image of `shape` (rows, columns)."""

    pixels: Floats
    frame: Frame
    shape: tuple[int, int]

    @property
    def area(self) -> tuple[int, int, int, int]:
        """Where the image lies in the view, without the border beside it: top, left, height, width."""
        top, left = (round(offset) for offset in self.frame.offset)
        height, width = (max(1, round(n * s)) for n, s in zip(self.shape, self.frame.scale, strict=True))
        return top, left, height, width


@dataclass(frozen=True, slots=True)
class Scale:
    """The values of a map from which colour begins to show, and at which it is full."""

    low: float
    high: float

    def place(self, values: NDArray[np.floating]) -> NDArray[np.float64]:
        """Values as fractions of the scale, cut off at its ends; 0 where there is no value."""
        fractions = (np.asarray(values, np.float64) - self.low) / max(self.high - self.low, 1e-9)
        return np.clip(np.nan_to_num(fractions, nan=0.0), 0.0, 1.0)


def grey(view: Floats) -> NDArray[np.uint8]:
    """Values in [0, 1] as bytes."""
    return np.asarray(np.clip(view, 0.0, 1.0) * 255 + 0.5, np.uint8)


def overlay(view: View, values: NDArray[np.floating], scale: Scale) -> NDArray[np.uint8]:
    """A map (rows, columns) over the whole image in colour upon its view: (size, size, 3).

    What lies at the low end of the scale stays as it is, the high end is the brightest and hides most.
    """
    top, left, height, width = view.area
    spread = Image.fromarray(np.ascontiguousarray(values, np.float32)).resize(
        (width, height), Image.Resampling.BILINEAR
    )
    there = np.zeros(view.pixels.shape)
    there[top : top + height, left : left + width] = scale.place(np.asarray(spread))
    return _blend(view.pixels, there)


def colour_bar(width: int = 240, height: int = 10) -> NDArray[np.uint8]:
    """The colours of `overlay` upon a middle grey, from the low end of the scale to the high one."""
    ramp = np.tile(np.linspace(0.0, 1.0, width), (height, 1))
    return _blend(np.full((height, width), 0.35, np.float32), ramp)


def _blend(pixels: Floats, fractions: NDArray[np.float64]) -> NDArray[np.uint8]:
    # the darkest quarter of the colours would look like shadow
    colours = np.asarray(colormaps[COLOURS](0.25 + 0.75 * fractions))[..., :3]
    opacity = (OPAQUE * np.minimum(1.0, 1.6 * fractions))[..., None]
    mixed = (1 - opacity) * pixels[..., None] + opacity * colours
    return np.asarray(np.clip(mixed, 0.0, 1.0) * 255 + 0.5, np.uint8)


def region_map(scores: NDArray[np.floating], boxes: NDArray[np.floating], shape: tuple[int, int]) -> Floats:
    """Mean score (rows, columns) of the regions that cover each pixel of a grid over the image; NaN where none does.

    scores (n,); boxes (n, 4): top, left, bottom, right as fractions of the image. A region counts the more, the nearer
    its centre is, so that the edges of the boxes do not show.
    """
    rows, columns = shape
    corners = np.rint(np.asarray(boxes, np.float64) * [rows, columns, rows, columns]).astype(np.int64)
    first = np.clip(corners[:, :2], 0, [rows - 1, columns - 1])
    last = np.clip(corners[:, 2:], first + 1, [rows, columns])
    total, cover = np.zeros(shape), np.zeros(shape)
    for score, (top, left), (bottom, right) in zip(scores.tolist(), first.tolist(), last.tolist(), strict=True):
        weight = np.outer(_tent(bottom - top), _tent(right - left))
        total[top:bottom, left:right] += score * weight
        cover[top:bottom, left:right] += weight
    with np.errstate(invalid="ignore"):
        return np.asarray(total / cover, np.float32)


def _tent(length: int) -> NDArray[np.float64]:
    """Weights that fall from the middle to the ends, none of them 0."""
    return 1 - np.abs((np.arange(length) + 0.5) * 2 / length - 1) + 1e-3


def ring(picture: NDArray[np.uint8], view: View, row: float, column: float) -> NDArray[np.uint8]:
    """The picture with a ring around a place given as fractions of the image: white, with a dark edge on both sides."""
    top, left, height, width = view.area
    y, x = top + row * height, left + column * width
    size = picture.shape[0]
    radius = size / 16
    drawn = Image.new("LA", (size * _FINER, size * _FINER), (0, 0))
    pen = ImageDraw.Draw(drawn)
    for value, thick in ((0, 0.018), (255, 0.008)):
        outer = radius + size * thick / 2
        box = [(c + d * outer) * _FINER for d in (-1, 1) for c in (x, y)]
        pen.ellipse(box, outline=(value, 255), width=max(1, round(size * thick * _FINER)))
    small = np.asarray(drawn.resize((size, size), Image.Resampling.BOX), np.float64)
    cover = small[..., 1:] / 255
    colour = np.broadcast_to(picture[..., None] if picture.ndim == 2 else picture, (size, size, 3))
    return np.asarray((1 - cover) * colour + cover * small[..., :1] + 0.5, np.uint8)


def data_uri(picture: NDArray[np.uint8]) -> str:
    """A grey (rows, columns) or coloured (rows, columns, 3) picture as PNG in a data URI.

    Colours are reduced to 256: no eye sees it in a picture of this size, and the page is half as large.
    """
    image = Image.fromarray(picture)
    if picture.ndim == 3:
        image = image.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.FLOYDSTEINBERG)
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


@cache
def colour_bar_uri() -> str:
    """`colour_bar` as a data URI."""
    return data_uri(colour_bar())
