"""The geometry of charts: numbers that the page's template draws as SVG."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 36
POINTS = 2000  # drawn at most: more would only cover each other

# After M. Okabe and K. Ito, "Color universal design", 2008, without black: told apart by colour-blind eyes too.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#9A8F00")
MARKS = ("circle", "square", "triangle", "diamond", "cross", "down", "plus", "hexagon")


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar by its corner and size."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class HistogramRow:
    """The histogram of one group: its bars, drawn on a line at `base`, and where its median lies."""

    name: str
    count: int
    base: float
    bars: tuple[Bar, ...]
    median: float
    median_at: float


@dataclass(frozen=True, slots=True)
class Histogram:
    """Histograms of groups below each other, on one axis with ticks (place, text)."""

    width: float
    height: float
    rows: tuple[HistogramRow, ...]
    ticks: tuple[tuple[float, str], ...]


def histogram(groups: Sequence[tuple[str, Sequence[float]]], *, width: float = 640, row: float = 64) -> Histogram:
    """Histograms of values, one for each group that has any, each as high as its fullest bin.

    The axis ends at the highest value, or four times as far above the median as nine tenths of the values reach; what
    is higher stands in the last bin, and the last tick says so.
    """
    filled = [(name, np.asarray(values, np.float64)) for name, values in groups if len(values)]
    if not filled:
        return Histogram(width, 0.0, (), ())
    everything = np.concatenate([values for _, values in filled])
    low, middle, most, high = (float(v) for v in np.quantile(everything, [0.0, 0.5, 0.9, 1.0]))
    high = min(high, middle + 4 * (most - middle)) if most > middle else high
    if high <= low:
        low, high = low - 0.5, low + 0.5
    edges = np.linspace(low, high, BINS + 1)
    step = width / BINS
    rows = []
    for number, (name, values) in enumerate(filled):
        base = (number + 1) * row - 4.0
        counts, _ = np.histogram(np.minimum(values, high), edges)
        heights = counts / counts.max() * (row - 26)
        bars = tuple(
            Bar(_round(i * step + 0.5), _round(base - h), _round(step - 1), _round(h))
            for i, h in enumerate(heights)
            if h
        )
        median = float(np.median(values))
        at = _round(min(1.0, (median - low) / (high - low)) * width)
        rows.append(HistogramRow(name, values.size, base, bars, median, at))
    beyond = bool((everything > high).any())
    marks = [(i / 4 * width, low + i / 4 * (high - low)) for i in range(5)]
    ticks = [(_round(x), f"{value:.3g}") for x, value in marks]
    if beyond:
        ticks[-1] = (ticks[-1][0], f"≥ {ticks[-1][1]}")
    return Histogram(width, len(filled) * row + 22, tuple(rows), tuple(ticks))


@dataclass(frozen=True, slots=True)
class Cloud:
    """The points of a group as one SVG path of marks of one shape, and where their middle lies."""

    group: str
    number: str  # written in the middle; empty for what is no group
    name: str
    colour: str
    mark: str
    path: str
    sample: str  # the mark alone, for the legend, in a box of 16 x 16
    count: int
    middle: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Scatter:
    """Points of several groups in a plane of principal axes, which hold `shares` of the variance."""

    width: float
    height: float
    clouds: tuple[Cloud, ...]
    shares: tuple[float, float]
    drawn: int
    total: int


def principal_axes(vectors: NDArray[np.floating]) -> tuple[NDArray[np.float64], tuple[float, float]]:
    """Vectors (n, d), standardised, on their first two principal axes (n, 2), and the shares of variance of these.

    Columns that do not vary count for nothing; an axis points to where its largest loading is positive.
    """
    matrix = np.asarray(vectors, np.float64)
    spread = matrix.std(axis=0)
    varies = spread > 1e-9 * np.maximum(1.0, np.abs(matrix.mean(axis=0)))
    standard = (matrix - matrix.mean(axis=0))[:, varies] / spread[varies]
    if standard.shape[1] == 0:
        return np.zeros((len(matrix), 2)), (0.0, 0.0)
    values, axes = np.linalg.eigh(standard.T @ standard)
    order = np.argsort(values)[::-1][:2]
    axes = axes[:, order] * np.sign(axes[np.abs(axes[:, order]).argmax(axis=0), order])
    placed = standard @ axes
    shares = [float(v) for v in values[order] / values.sum()]
    if placed.shape[1] < 2:
        return np.hstack([placed, np.zeros((len(matrix), 1))]), (shares[0], 0.0)
    return placed, (shares[0], shares[1])


def scatter(
    vectors: NDArray[np.floating],
    groups: Sequence[str],
    labels: Sequence[tuple[str, str, str]],
    *,
    width: float = 640,
    height: float = 460,
) -> Scatter:
    """Vectors (n, d) in the plane of their principal axes, a cloud for each (group, number, name), in this order.

    Told apart by shape as well as colour. The axes are drawn between the outermost half per cent of points; points
    beyond stand at the edge.
    """
    placed, shares = principal_axes(vectors)
    low, high = np.quantile(placed, [0.005, 0.995], axis=0)
    span = np.where(high > low, high - low, 1.0)
    margin = 16.0
    fractions = np.clip((placed - low) / span, 0.0, 1.0)
    x = margin + fractions[:, 0] * (width - 2 * margin)
    y = height - margin - fractions[:, 1] * (height - 2 * margin)
    drawn = np.zeros(len(placed), bool)
    drawn[np.linspace(0, len(placed) - 1, min(POINTS, len(placed))).astype(np.intp)] = True
    names = np.asarray(groups)
    clouds = []
    for i, (group, number, name) in enumerate(labels):
        own = names == group
        mark = MARKS[i % len(MARKS)]
        shown = own & drawn
        path = "".join(_mark(mark, a, b, 3.6) for a, b in zip(x[shown].tolist(), y[shown].tolist(), strict=True))
        middle = (_round(np.median(x[own])), _round(np.median(y[own]))) if own.any() else (0.0, 0.0)
        colour = COLOURS[i % len(COLOURS)]
        sample = _mark(mark, 8, 8, 5.5)
        clouds.append(Cloud(group, number, name, colour, mark, path, sample, int(own.sum()), middle))
    return Scatter(width, height, tuple(clouds), shares, int(drawn.sum()), len(placed))


def _mark(kind: str, x: float, y: float, r: float) -> str:
    """A mark of about radius r around a place, as a part of an SVG path."""
    if kind == "circle":
        return f"M{x - r:.1f} {y:.1f}a{r:g} {r:g} 0 1 0 {2 * r:g} 0a{r:g} {r:g} 0 1 0 {-2 * r:g} 0z"
    if kind == "plus":
        corners = _cross(r)
    elif kind == "cross":
        corners = [((a - b) * 0.7071, (a + b) * 0.7071) for a, b in _cross(r)]
    else:
        sides, turn = {"square": (4, 45), "triangle": (3, -90), "down": (3, 90), "diamond": (4, 0), "hexagon": (6, 0)}[
            kind
        ]
        angles = np.deg2rad(turn + np.arange(sides) * 360 / sides)
        corners = [(1.15 * r * float(np.cos(t)), 1.15 * r * float(np.sin(t))) for t in angles]
    return "M" + "L".join(f"{x + a:.1f} {y + b:.1f}" for a, b in corners) + "z"


def _cross(r: float) -> list[tuple[float, float]]:
    long, thin = 1.15 * r, 0.38 * r
    arm = [(-thin, -long), (thin, -long), (thin, -thin)]
    turned = [(arm, 1, 0), (arm, 0, 1), (arm, -1, 0), (arm, 0, -1)]
    return [(a * c - b * s, a * s + b * c) for points, c, s in turned for a, b in points]


def _round(value: float) -> float:
    return round(float(value), 1)
