"""Lesions planted into the phantom radiographs: each with its kind, place and size known to the pixel.

A `Lesion` is the plan (what, on which side, in which third of the lung, how large), a `Placed` lesion is where it came
to lie in one picture. Sides are the patient's: the left lung is on the right of the picture.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from phenotype.demo.thorax import Array, Build, Thorax, View, attenuation, draw_lines, expose, smoothstep

Side = Literal["left", "right", ""]
Zone = Literal["upper", "middle", "lower", ""]
ZONES: tuple[Zone, ...] = ("upper", "middle", "lower")

KINDS = {
    "nodule": "focal",
    "consolidation": "lobar",
    "pleural_effusion": "pleural",
    "pneumothorax": "pleural",
    "cardiomegaly": "organ",
    "hyperinflation": "diffuse",
    "fibrosis_ild": "diffuse",
    "edema_congestion": "diffuse",
    "pacemaker": "device",
    "central_line": "device",
}


@dataclass(frozen=True, slots=True)
class Lesion:
    """What to plant. `size` is in mm (diameter, height of fluid, width of air, width of the heart), 0 where none."""

    finding: str
    side: Side = ""
    zone: Zone = ""
    size: float = 0.0
    strength: float = 1.0  # of the contrast, 1 is usual
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Box:
    """Rows `top` to `bottom` and columns `left` to `right` of the written image, the last ones excluded."""

    top: int
    left: int
    bottom: int
    right: int


@dataclass(frozen=True, slots=True)
class Placed:
    """A lesion as it came to lie in a picture; `box` and `centre` (row, column) are None for what has no place."""

    lesion: Lesion  # with side and zone as they came out
    box: Box | None
    centre: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Layer:
    """What a lesion does to the attenuation (see `thorax.attenuation`), and its extent (0..1) for the box."""

    extent: Array | None
    air_lost: Array | float = 0.0
    vessels: Array | float = 1.0
    added: Array | float = 0.0


def radiograph(
    build: Build, view: View, lesions: Sequence[Lesion], *, clutter: bool = True
) -> tuple[Array, tuple[Placed, ...]]:
    """The picture (rows, columns; 0..1, dense is bright) of a body with these lesions, and where they lie.

    `clutter` adds what no report mentions: electrodes, wires, marker letters. The same build, view and lesions give
    the same picture; leaving a lesion out changes the picture only where that lesion is.
    """
    thorax = Thorax(reshape(build, lesions), view)
    air, vessels, added = np.zeros_like(thorax.x), np.ones_like(thorax.x), np.zeros_like(thorax.x)
    placed = []
    for lesion in lesions:
        rng = np.random.default_rng(lesion.seed)
        layer, found = DRAW[lesion.finding](thorax, lesion, rng)
        air = 1 - (1 - air) * (1 - layer.air_lost)
        vessels = vessels * layer.vessels
        added = added + layer.added
        placed.append(_place(layer.extent, found))
    if clutter:
        added = added + _clutter(thorax)
    return expose(attenuation(thorax, air_lost=air, vessels=vessels, added=added), view), tuple(placed)


def reshape(build: Build, lesions: Sequence[Lesion]) -> Build:
    """The body as its diseases change it: a large heart, inflated or shrunken lungs."""
    for lesion in lesions:
        if lesion.finding == "cardiomegaly":
            build = replace(build, heart=lesion.size / (2 * build.half_width))
        elif lesion.finding == "hyperinflation":
            k = lesion.strength
            build = replace(
                build,
                dome=build.dome + 20 * k,
                flatness=min(0.6 + 0.4 * k, 1.0),
                air=build.air * (1 + 0.24 * k),
                heart=build.heart * (1 - 0.14 * k),
                rib_pitch=build.rib_pitch * (1 + 0.07 * k),
            )
        elif lesion.finding == "fibrosis_ild" and lesion.side == "right":  # once, for both lungs
            build = replace(build, dome=build.dome - 20 * lesion.strength, air=build.air * 0.93)
    return build


def _place(extent: Array | None, lesion: Lesion) -> Placed:
    if extent is None:
        return Placed(lesion, None, None)
    inside = extent > 0.35 * extent.max()
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    box = Box(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)
    weight = np.where(inside, extent, 0).astype(np.float64)
    row = float((weight.sum(1) @ np.arange(len(weight))) / weight.sum())
    column = float((weight.sum(0) @ np.arange(weight.shape[1])) / weight.sum())
    return Placed(lesion, box, (round(row, 1), round(column, 1)))


def _on(t: Thorax, side: Side) -> NDArray[np.bool_]:
    return t.left if side == "left" else ~t.left


def _third(t: Thorax, y: Array) -> Array:
    """0 at the apex, 3 at the dome."""
    return np.asarray(3 * (y - t.build.apex) / t.height, np.float32)


def _pick(t: Thorax, lesion: Lesion, margin: float, rng: np.random.Generator) -> tuple[float, float, Lesion]:
    """A free place in the open lung at least `margin` mm from its borders; elsewhere on that side if none is."""
    x = rng.uniform(0, t.build.half_width, 800).astype(np.float32) * (1 if lesion.side == "left" else -1)
    y = rng.uniform(t.build.apex, t.build.dome + 30, 800).astype(np.float32)
    row, column = (np.rint(p).astype(int) for p in t.to_pixel(x, y))
    inside = (row >= 0) & (row < t.view.rows) & (column >= 0) & (column < t.view.columns)
    x, y, at = x[inside], y[inside], (row[inside], column[inside])
    free = (t.chest_wall[at] - np.abs(x) > margin) & (np.abs(x) - t.mediastinum[at] > margin)
    free &= (y > t.build.apex + margin) & (t.diaphragm[at] - y > margin) & (t.heart[at] > (1 + margin / 70) ** 2)
    zone = np.clip(_third(t, y), 0, 2).astype(int)
    wanted = free & (zone == ZONES.index(lesion.zone))
    n = int(np.flatnonzero(wanted if wanted.any() else free)[0])  # the first try that fits: the same place in each view
    return float(x[n]), float(y[n]), replace(lesion, zone=ZONES[zone[n]])


def _nodule(t: Thorax, lesion: Lesion, rng: np.random.Generator) -> tuple[Layer, Lesion]:
    radius = lesion.size / 2
    x, y, lesion = _pick(t, lesion, radius + 3, rng)
    angle = np.arctan2(t.y - y, t.x - x)
    lobes = 1 + 0.08 * np.sin(3 * angle + rng.uniform(0, 6)) + 0.05 * np.sin(5 * angle + rng.uniform(0, 6))
    ball = np.sqrt(np.clip(1 - (np.hypot(t.x - x, t.y - y) / (radius * lobes)) ** 2, 0, 1)).astype(np.float32)
    return Layer(ball, added=lesion.strength * (0.30 + 0.018 * lesion.size) * ball), lesion


def _consolidation(t: Thorax, lesion: Lesion, rng: np.random.Generator) -> tuple[Layer, Lesion]:
    x, y, lesion = _pick(t, lesion, 14, rng)
    radius = lesion.size / 2
    grain = gaussian_filter(rng.standard_normal(t.x.shape, dtype=np.float32), 7 / t.view.spacing)
    distance = np.hypot((t.x - x) / radius, (t.y - y) / (0.8 * radius)) + 0.16 * grain / grain.std()
    shape = smoothstep((1.25 - distance) / 0.8) * _on(t, lesion.side)
    if rng.random() < 0.5:  # bounded by a fissure on one side
        slope, up = rng.uniform(-0.3, 0.3), rng.choice([-1, 1])
        shape *= smoothstep((up * (t.y - y - slope * (t.x - x)) + 0.4 * radius) / 5)
    lost = np.clip(0.72 * lesion.strength, 0, 0.95) * shape
    return Layer(shape * t.lung, air_lost=lost, vessels=1 - 0.6 * shape), lesion


def _effusion(t: Thorax, lesion: Lesion, rng: np.random.Generator) -> tuple[Layer, Lesion]:
    b = t.build
    floor = b.dome + 36 + (9 if lesion.side == "left" else 0)
    reach = np.clip(t.lateral / b.half_width, 0, 1)
    surface = floor - lesion.size * (0.62 + 0.38 * reach**4) - 2 * np.sin(t.lateral / 30 + rng.uniform(0, 6))
    fluid = smoothstep((t.y - surface) / 11) * _on(t, lesion.side)
    lost = np.clip(0.93 * lesion.strength, 0, 0.97) * fluid
    extent = fluid * np.maximum(t.lung, (t.air > 0.12) * (t.lateral > 0.6 * b.half_width))
    return Layer(extent, air_lost=lost, vessels=1 - fluid, added=0.16 * extent), replace(lesion, zone="lower")


def _pneumothorax(t: Thorax, lesion: Lesion, rng: np.random.Generator) -> tuple[Layer, Lesion]:
    b = t.build
    across = 1 - lesion.size / b.half_width
    down = 1 - 0.9 * lesion.size / t.height
    y = b.dome + 20 - (b.dome + 20 - t.y) / down
    border = t.mediastinum + (t.wall_at(y.astype(np.float32)) - t.mediastinum) * across
    border -= 2 * np.sin(t.y / 25 + rng.uniform(0, 6))
    taper = smoothstep((t.build.dome - 10 - t.y) / 70)  # the lung still touches the wall at the base
    border = border * taper + (t.chest_wall + 6) * (1 - taper)
    lung = smoothstep((border - t.lateral) / 3.5) * smoothstep((y - b.apex) / 4)
    free = (1 - lung) * t.lung * _on(t, lesion.side)
    line = 4 * lung * (1 - lung) * t.lung * _on(t, lesion.side)
    rest = lung * t.lung * _on(t, lesion.side)
    added = lesion.strength * (0.2 * line - 0.3 * free) + 0.08 * rest
    return Layer(free, vessels=1 - free, added=added), replace(lesion, zone="upper")


def _heart(t: Thorax, lesion: Lesion, rng: np.random.Generator) -> tuple[Layer, Lesion]:
    return Layer((t.heart < 1).astype(np.float32) * smoothstep((t.diaphragm + 8 - t.y) / 8)), lesion


def _inflation(t: Thorax, lesion: Lesion, rng: np.random.Generator) -> tuple[Layer, Lesion]:
    return Layer(None, vessels=0.75), lesion


def _reticulation(t: Thorax, lesion: Lesion, rng: np.random.Generator) -> tuple[Layer, Lesion]:
    mesh = np.zeros_like(t.x)
    for scale in (1.9, 3.1):  # mm; the zero crossings of smooth noise are a net of lines
        noise = gaussian_filter(rng.standard_normal(t.x.shape, dtype=np.float32), scale / t.view.spacing)
        mesh += np.exp(-((noise / (0.28 * noise.std())) ** 2))
    basal = smoothstep((_third(t, t.y) - 0.9) / 1.8)
    rim = 0.45 + 0.55 * smoothstep((t.lateral - t.mediastinum) / (t.chest_wall - t.mediastinum + 1))
    weight = lesion.strength * basal * rim * t.lung * _on(t, lesion.side)
    return Layer(weight, air_lost=np.clip(0.25 * weight, 0, 0.6), added=weight * (0.42 * mesh - 0.02)), replace(
        lesion, zone="lower"
    )


def _congestion(t: Thorax, lesion: Lesion, rng: np.random.Generator) -> tuple[Layer, Lesion]:
    wing = np.exp(-(((t.lateral - 48) / 32) ** 2) - ((t.y - 155) / 48) ** 2) * t.lung
    return Layer(None, vessels=1 + 0.7 * wing, added=0.34 * lesion.strength * wing), lesion


def _pacemaker(t: Thorax, lesion: Lesion, rng: np.random.Generator) -> tuple[Layer, Lesion]:
    sign = 1 if lesion.side == "left" else -1
    x, y = sign * (t.build.half_width * 0.70 + rng.normal(0, 4)), t.build.apex + 46 + rng.normal(0, 5)
    box = smoothstep((1 - (((t.x - x) / 22) ** 4 + ((t.y - y) / 18) ** 4)) / 0.3)
    cx, cy = 0.30 * t.build.half_width, t.build.dome - 22
    way = [(x - 15 * sign, y - 15), (sign * 62, y - 22), (sign * 20, y + 8), (-20, y + 40), (-24, 175), (-10, 205)]
    lead = _wire(t, [*way, (cx, cy)], 1.3)
    return Layer(box, added=2.6 * box + 1.1 * lead), replace(lesion, zone="upper")


def _central_line(t: Thorax, lesion: Lesion, rng: np.random.Generator) -> tuple[Layer, Lesion]:
    sign = 1 if lesion.side == "left" else -1
    way = [(sign * 62, 4.0), (sign * 50, 30.0), (sign * 30, 72.0), (-14 + 2 * sign, 100.0), (-21, 128.0)]
    line = _wire(t, [*way, (-22, 150 + rng.normal(0, 6))], 1.2)
    return Layer(np.minimum(line, 1), added=0.75 * line), replace(lesion, zone="upper")


def _wire(t: Thorax, way: Sequence[tuple[float, float]], width: float) -> Array:
    """A smooth wire through points in body mm, about 1 at its middle."""
    points = np.asarray(way, float)
    along = np.linspace(0, len(points) - 1, 160)
    smooth = np.stack([np.interp(along, np.arange(len(points)), points[:, k]) for k in (0, 1)], 1)
    kernel = np.hanning(31)[1:-1]
    padded = np.concatenate([np.repeat(smooth[:1], 14, 0), smooth, np.repeat(smooth[-1:], 14, 0)])
    smooth = np.stack([np.convolve(padded[:, k], kernel / kernel.sum(), "valid") for k in (0, 1)], 1)
    drawn = draw_lines(t, smooth[:-1], smooth[1:], np.full(len(smooth) - 1, width))
    return np.asarray(gaussian_filter(drawn, 0.8) * 2.0, np.float32)


LETTERS = {"L": "10000 10000 10000 10000 10000 10000 11111", "R": "11110 10001 10001 11110 10100 10010 10001"}


def _clutter(t: Thorax) -> Array:
    """What lies on the patient or the cassette and no report mentions."""
    rng = np.random.default_rng(t.view.seed + 1)
    added = np.zeros_like(t.x)
    letter = "L" if rng.random() < 0.7 else "R"
    glyph = np.array([[float(d) for d in row] for row in LETTERS[letter].split()], np.float32)
    glyph = np.kron(glyph, np.ones((2, 2), np.float32))
    top = int(rng.integers(6, 30))
    edge = int(rng.integers(6, 24))
    left = t.view.columns - edge - glyph.shape[1] if letter == "L" else edge
    added[top : top + glyph.shape[0], left : left + glyph.shape[1]] += 2.4 * glyph
    if rng.random() < 0.3:  # electrodes and their wires
        for x, y in ((-80.0, 85.0), (80.0, 90.0), (90.0, 215.0))[: int(rng.integers(1, 4))]:
            x, y = x + rng.normal(0, 10), y + rng.normal(0, 10)  # noqa: PLW2901
            r = np.hypot(t.x - x, t.y - y)
            added += 0.35 * smoothstep((7 - r) / 2) + 0.8 * smoothstep((2.6 - r) / 1.5)
            added += 0.45 * _wire(t, [(x, y), (x * 1.2, y + 40), (x * 0.9, y + 90), (x * 1.1, 345)], 0.9)
    if rng.random() < 0.12:  # a shutter
        added -= 9 * (np.abs(t.x) > rng.uniform(163, 175)) * (rng.random() < 0.8)
    return added


DRAW: dict[str, Callable[[Thorax, Lesion, np.random.Generator], tuple[Layer, Lesion]]] = {
    "nodule": _nodule,
    "consolidation": _consolidation,
    "pleural_effusion": _effusion,
    "pneumothorax": _pneumothorax,
    "cardiomegaly": _heart,
    "hyperinflation": _inflation,
    "fibrosis_ild": _reticulation,
    "edema_congestion": _congestion,
    "pacemaker": _pacemaker,
    "central_line": _central_line,
}
