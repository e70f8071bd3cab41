"""Phantom chest radiographs: the anatomy of one invented person, projected as an X-ray plate shows it.

A radiograph is minus the logarithm of what is left of the beam, so everything that the beam passes adds up: body
wall, minus the air of the lungs, plus heart, bones, vessels and lesions. All shapes are written in millimetres of the
body (x to the right of the picture, which is the patient's left; y downwards, 0 at the top of the field) and drawn on
the pixel grid of a `View`. `attenuation` gives the sum (in units of mu times thickness), `expose` the picture.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, gaussian_filter1d

Array = NDArray[Any]  # float32 where it leaves a function; between, whatever numpy makes of it

FIELD = 340.0  # height of the irradiated field in mm, the same for every view
AIR = 1.35  # mu times thickness that a fully inflated lung takes away at its deepest


@dataclass(frozen=True, slots=True)
class Build:
    """The body of a person, the same in each of their studies. Lengths in mm."""

    sex: Literal["F", "M"]
    half_width: float  # from the midline to the inside of the lowest ribs
    wall: float  # muscle and fat outside the ribs
    apex: float  # y of the top of the lungs
    dome: float  # y of the right dome of the diaphragm
    flatness: float  # 0 a round diaphragm, 1 a flat one
    heart: float  # cardiothoracic ratio
    heart_tilt: float  # radians
    air: float  # inflation, 1 is usual
    breast: float  # 0 none
    rib_pitch: float
    rib_slope: float
    aorta: float  # radius of the aortic knob
    seed: int  # of ribs and vessels


@dataclass(frozen=True, slots=True)
class View:
    """How one radiograph was taken."""

    rows: int
    columns: int
    rotation: float  # degrees
    shift: tuple[float, float]  # mm, x and y
    exposure: float  # centre of the film curve, in units of mu times thickness
    latitude: float  # its width
    noise: float
    seed: int

    @property
    def spacing(self) -> float:
        """Millimetres per pixel (square pixels)."""
        return FIELD / self.rows


def draw_build(rng: np.random.Generator) -> Build:
    """A healthy person of random build."""
    sex: Literal["F", "M"] = "F" if rng.random() < 0.5 else "M"
    large = float(rng.normal(0, 1))
    return Build(
        sex=sex,
        half_width=float(np.clip((118 if sex == "F" else 130) + 4 * large + rng.normal(0, 2), 106, 144)),
        wall=float(np.clip(24 + 5 * large + rng.normal(0, 3), 12, 44)),
        apex=float(rng.normal(40, 3)),
        dome=float(rng.normal(240, 5)),
        flatness=float(rng.uniform(0.0, 0.3)),
        heart=float(np.clip(rng.normal(0.445, 0.022), 0.39, 0.49)),
        heart_tilt=float(rng.normal(0.68, 0.07)),
        air=float(np.clip(rng.normal(1.0, 0.05), 0.88, 1.12)),
        breast=float(rng.uniform(0.25, 1.0)) if sex == "F" else 0.0,
        rib_pitch=float(rng.normal(21.5, 1.0)),
        rib_slope=float(rng.uniform(0.05, 0.3)),
        aorta=float(rng.uniform(11, 16)),
        seed=int(rng.integers(2**31)),
    )


def draw_view(rng: np.random.Generator) -> View:
    """A random positioning and exposure; about 256 x 256 pixels."""
    rows = int(rng.choice([240, 248, 256, 264, 272]))
    return View(
        rows=rows,
        columns=rows + int(rng.choice([-12, 0, 0, 8, 16])),
        rotation=float(np.clip(rng.normal(0, 1.2), -3.5, 3.5)),
        shift=(float(rng.normal(0, 3.5)), float(rng.normal(0, 3.5))),
        exposure=float(rng.normal(2.1, 0.14)),
        latitude=float(rng.uniform(0.72, 0.95)),
        noise=float(rng.uniform(0.7, 1.4)),
        seed=int(rng.integers(2**31)),
    )


def _f32(values: Array) -> NDArray[np.float32]:
    return np.asarray(values, np.float32)


def smoothstep(x: Array) -> Array:
    """0 below 0, 1 above 1, smooth between."""
    t = np.clip(x, 0, 1)
    return _f32(t * t * (3 - 2 * t))


class Thorax:
    """The pixel grid of a view seen in body coordinates, with the regions that anatomy and lesions are drawn in."""

    def __init__(self, build: Build, view: View) -> None:
        self.build, self.view = build, view
        rows, columns = np.mgrid[: view.rows, : view.columns].astype(np.float32)
        x = (columns - (view.columns - 1) / 2) * view.spacing - view.shift[0]
        y = (rows - (view.rows - 1) / 2) * view.spacing - view.shift[1]
        c, s = np.cos(np.deg2rad(view.rotation)), np.sin(np.deg2rad(view.rotation))
        self.x: Array = (c * x + s * y).astype(np.float32)
        self.y: Array = (-s * x + c * y + FIELD / 2).astype(np.float32)
        self.lateral: Array = np.abs(self.x)  # distance from the midline
        self.left: NDArray[np.bool_] = self.x > 0  # the patient's left

    def to_pixel(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Row and column (fractional) of body coordinates."""
        view = self.view
        c, s = np.cos(np.deg2rad(view.rotation)), np.sin(np.deg2rad(view.rotation))
        u, v = x, y - FIELD / 2
        px, py = c * u - s * v + view.shift[0], s * u + c * v + view.shift[1]
        return (
            (py / view.spacing + (view.rows - 1) / 2).astype(np.float32),
            (px / view.spacing + (view.columns - 1) / 2).astype(np.float32),
        )

    # --- the borders of the lungs -------------------------------------------------------------------------------

    @cached_property
    def chest_wall(self) -> Array:
        """Distance of the inside of the ribs from the midline, at each pixel's height."""
        return self.wall_at(self.y)

    def wall_at(self, y: Array) -> Array:
        """Distance of the inside of the ribs from the midline at height `y` (mm)."""
        b = self.build
        t = np.clip((y - b.apex) / (b.dome + 10 - b.apex), 0, 1)
        return (46 + (b.half_width - 46) * (1 - (1 - t) ** 2.3) ** 0.55).astype(np.float32)

    @cached_property
    def mediastinum(self) -> Array:
        """Distance of the inner border of the lung from the midline."""
        b = self.build
        border = 21 + 25 * np.exp(-np.maximum(self.y - b.apex, 0) / 13) + 4 * smoothstep((self.y - 150) / 60)
        return _f32(border)

    @cached_property
    def diaphragm(self) -> Array:
        """y of the dome of the diaphragm at each pixel's distance from the midline."""
        b = self.build
        offset = np.where(self.left, 9.0, 0.0)  # the liver lifts the right dome
        centre = 0.47 * b.half_width
        t = (self.lateral - centre) / (b.half_width - centre)
        drop = np.where(t > 0, 36 * (1 - 0.45 * b.flatness) * np.abs(t) ** 2.4, 12 * np.abs(t) ** 2)
        drop = (1 - 0.75 * b.flatness * (t < 0)) * drop + 10 * b.flatness * np.clip(t, 0, 1)
        return (b.dome + offset + drop).astype(np.float32)

    @cached_property
    def lung(self) -> Array:
        """How much of a pixel is lung (0..1), the heart not yet taken away."""
        inside = smoothstep((self.chest_wall - self.lateral) / 3) * smoothstep((self.lateral - self.mediastinum) / 4)
        return inside * smoothstep((self.diaphragm - self.y) / 4) * (self.y > self.build.apex)

    @cached_property
    def air(self) -> Array:
        """What the air of the lungs takes away from the attenuation."""
        b = self.build
        middle, half = (self.chest_wall + self.mediastinum) / 2, np.maximum(self.chest_wall - self.mediastinum, 8) / 2
        q = np.clip((self.lateral - middle) / half, -1, 1)
        depth = np.sqrt(np.clip(1 - q**6, 0, 1)) * (0.62 + 0.38 * smoothstep((self.y - b.apex) / 90))
        behind = np.exp(-np.maximum(self.y - self.diaphragm, 0) / 22)  # the recess behind the dome
        recess = 0.3 * behind * (self.y > self.diaphragm) * smoothstep((self.chest_wall - self.lateral) / 3)
        return _f32(AIR * b.air * depth * (self.lung + recess * (1 - self.lung)))

    @cached_property
    def heart(self) -> Array:
        """Squared elliptic radius from the centre of the heart: 1 on its border."""
        b = self.build
        width = b.heart * 2 * b.half_width
        long, short = 0.60 * width, 0.385 * width
        cx, cy = 0.17 * width, b.dome + 14 - 0.36 * width
        dx, dy = self.x - cx, self.y - cy
        c, s = np.cos(b.heart_tilt), np.sin(b.heart_tilt)
        return _f32(((c * dx + s * dy) / long) ** 2 + ((-s * dx + c * dy) / short) ** 2)

    @cached_property
    def open_lung(self) -> Array:
        """Lung that neither heart nor diaphragm hides (0..1): where a radiologist looks for a lesion."""
        return self.lung * smoothstep((self.heart - 1.0) / 0.25)

    @property
    def height(self) -> float:
        """From apex to dome, mm."""
        return self.build.dome - self.build.apex


def attenuation(
    thorax: Thorax, *, air_lost: Array | float = 0.0, vessels: Array | float = 1.0, added: Array | float = 0.0
) -> Array:
    """Attenuation of the body at each pixel, with lesions.

    `air_lost` (0..1) is the part of the lung's air that something displaced, `vessels` (0..1) dims vessels where the
    lung has collapsed, `added` is further attenuation, negative where there is more air.
    """
    mu = _soft_tissue(thorax) - thorax.air * (1 - air_lost) * (1 - 0.5 * smoothstep((1 - thorax.heart) / 0.1))
    mu += _heart_and_vessels(thorax) + _bones(thorax)
    mu += _vessel_tree(thorax) * vessels * thorax.lung * (1 - 0.8 * np.asarray(air_lost))
    return _f32(np.maximum(mu + added, 0))


def _soft_tissue(t: Thorax) -> Array:
    b = t.build
    outer = b.half_width + 8 + b.wall
    arm = smoothstep((118 - t.y + 0.5 * np.maximum(t.lateral - outer, 0)) / 46)
    outline = outer + 8 * smoothstep((t.y - 250) / 80) - 5 * smoothstep((210 - t.y) / 90) + 190 * arm**1.5
    inside = smoothstep((outline - t.lateral) / 4)
    trapezius = 44 - 46 * np.exp(-np.maximum(t.lateral - 44 - 0.25 * b.wall, 0) / 34) - 0.3 * (b.wall - 24)
    neck = smoothstep((t.y - trapezius) / 14)
    depth = 2.75 + 0.012 * (b.wall - 24) - 1.25 * smoothstep((75 - t.y) / 70) + 0.35 * smoothstep((t.y - 240) / 40)
    rounding = np.clip(1 - (t.lateral / (outline + 4)) ** 2, 0, 1) ** 0.35
    shoulder = 1 - 0.32 * arm * smoothstep((t.lateral - outer + 20) / 30)
    tissue = depth * rounding * shoulder * inside * neck
    if b.breast:
        r2 = ((t.lateral - 0.62 * b.half_width) / 62) ** 2 + ((t.y - 196) / 52) ** 2
        crescent = np.sqrt(np.clip(1 - r2, 0, 1)) * (0.25 + 0.75 * smoothstep((t.y - 150) / 80))
        tissue += 0.62 * b.breast * crescent
    gas = ((t.x - 62) / 30) ** 2 + ((t.y - b.dome - 42) / 15) ** 2  # air in the stomach
    return _f32(tissue - 0.5 * smoothstep((1 - gas) / 0.35) * (t.y > t.diaphragm + 7))


def _heart_and_vessels(t: Thorax) -> Array:
    b = t.build
    heart = 0.6 * np.clip(1 - t.heart, 0, 1) ** 0.4 * (1 - smoothstep((t.y - t.diaphragm) / 30))
    upper = smoothstep((t.y - b.apex) / 25) * smoothstep((185 - t.y) / 40)
    # upper mediastinum: superior vena cava, aortic arch, descending aorta, and the air of the trachea in it
    middle = 0.2 * upper * smoothstep((26 - t.lateral) / 4)
    taper = 23 + (t.y - 125) * np.where(t.left, 0.42, 0.2)  # great vessels widening into the heart
    trunk = smoothstep((taper - t.lateral) / 4) * smoothstep((t.y - 112) / 24) * (t.heart >= 1)
    trunk *= smoothstep((b.dome - 25 - t.y) / 20)
    knob = ((t.x - 24) / (b.aorta + 6)) ** 2 + ((t.y - 112) / (b.aorta + 5)) ** 2
    arch = 0.45 * np.sqrt(np.clip(1 - knob, 0, 1))
    descending = 0.22 * smoothstep((t.x - 6) / 4) * smoothstep((25 - t.x) / 3) * smoothstep((t.y - 112) / 20)
    descending *= smoothstep((t.diaphragm - t.y) / 30)
    carina = 134.0
    trachea = smoothstep((8.5 - t.lateral) / 3) * smoothstep((carina - t.y) / 6)
    bronchus = smoothstep((6 - np.abs(t.y - carina - 0.75 * (t.lateral - 4))) / 3) * smoothstep((36 - t.lateral) / 8)
    hilum = ((t.lateral - 34) / 15) ** 2 + ((t.y - np.where(t.left, 141.0, 150.0)) / 23) ** 2
    hila = 0.42 * np.sqrt(np.clip(1 - hilum, 0, 1))
    dense = heart + 0.42 * trunk + middle + arch + descending + hila
    return _f32(dense - 0.42 * trachea - 0.25 * bronchus * (t.y > carina - 6))


def _bones(t: Thorax) -> Array:
    b = t.build
    phase = np.random.default_rng(b.seed).uniform(0, 6.28, 4)
    wobble = 1.5 * np.sin(t.lateral / 31 + phase[0] + t.left) + 1.5 * np.sin(t.y / 43 + phase[1])
    cage = smoothstep((t.chest_wall + 7 - t.lateral) / 4) * smoothstep((t.y - b.apex + 3) / 6)
    below = 1 - 0.55 * smoothstep((t.y - t.diaphragm) / 20)
    bend = t.lateral / b.half_width
    # posterior ribs leave the spine, rise a little and fall towards the side; anterior ones climb from the side
    posterior = t.y + wobble + 16 * bend - (34 + 60 * b.rib_slope) * bend**2.2 - b.apex
    anterior = t.y - wobble - (42 + 70 * b.rib_slope) * np.clip(1 - bend, 0, 1) ** 1.3 - b.apex - 9
    bones = _rib(posterior, b.rib_pitch, 5.6) * 0.24 * smoothstep((t.lateral - 14) / 10)
    bones += _rib(anterior, b.rib_pitch * 1.12, 6.2) * 0.20 * smoothstep((bend - 0.42) / 0.25)
    bones *= cage * below * (t.y < b.dome + 62)
    tangent = np.exp(-(((t.lateral - t.chest_wall - 3) / 3.2) ** 2)) * smoothstep((t.y - b.apex - 12) / 30)
    bones += 0.22 * tangent * (0.45 + 0.55 * _rib(posterior, b.rib_pitch, 6.5)) * (t.y < b.dome + 50)
    # the spine: vertebral bodies with discs and spinous processes between
    body = np.mod(t.y + 3 * phase[2], 20) - 10
    disc = 1 - 0.38 * np.exp(-(((np.abs(body) - 10) / 2.2) ** 2))
    spine = smoothstep((17 - t.lateral) / 3) * disc + 0.35 * np.exp(-((np.abs(t.lateral - 15) / 2.0) ** 2))
    process = np.exp(-((t.x / 3) ** 2 + ((body - 3) / 5) ** 2))
    bones += (0.22 * spine + 0.3 * process) * (1 - 0.35 * smoothstep((150 - t.y) / 120))
    # clavicles and the inner borders of the shoulder blades
    line = b.apex + 30 - 27 * smoothstep((t.lateral - 14) / 115) - 0.08 * t.lateral + 4 * np.sin(t.lateral / 26)
    distance = np.abs(t.y - line)
    ends = smoothstep((t.lateral - 11) / 5) * smoothstep((168 - t.lateral) / 12)
    bones += ends * (0.36 * smoothstep((7 - distance) / 2) + 0.22 * np.exp(-(((distance - 5.3) / 1.3) ** 2)))
    border = b.half_width + 2 - 0.16 * (t.y - 60) + 12 * np.cos(t.y / 25)
    blade = smoothstep((t.lateral - border) / 3) * smoothstep((border + 44 - 0.2 * (t.y - 60) - t.lateral) / 10)
    bones += 0.17 * blade * smoothstep((t.y - b.apex - 14) / 20) * smoothstep((b.apex + 125 - t.y) / 30)
    humerus = np.hypot(t.lateral - b.half_width - 56, (t.y - b.apex - 32) * 0.8)
    return bones + 0.4 * smoothstep((21 - humerus) / 4)


def _rib(distance: Array, pitch: float, half: float) -> Array:
    """A stack of bands, each denser at its edges (the cortex), most at the lower one."""
    d = np.mod(distance, pitch) - pitch / 2
    band = smoothstep((half - np.abs(d)) / 2)
    cortex = np.exp(-(((d - half + 1.2) / 1.2) ** 2)) + 0.7 * np.exp(-(((d + half - 1.2) / 1.2) ** 2))
    return 0.62 * band + 0.5 * cortex


def _vessel_tree(t: Thorax) -> Array:
    """Pulmonary vessels: a tree of straight segments from each hilum, thinner at each fork."""
    rng = np.random.default_rng(t.build.seed + 1)
    parts: list[NDArray[np.float64]] = []
    for side in (-1, 1):
        start = np.array([34.0 * side, 150.0 if side < 0 else 141.0])
        fans = np.linspace(-1.35, 1.45, 9) + rng.normal(0, 0.1, 9)
        reach = t.build.half_width * (0.30 + 0.14 * np.sin(np.linspace(0.2, 2.9, 9))) * (1 + 0.25 * (fans > 0.4))
        points, angles = np.repeat(start[None], 9, 0), fans
        width, length = np.where(fans > 0.2, 5.2, 3.8), reach
        for _ in range(5):
            ends = points + length[:, None] * np.stack([side * np.cos(angles), np.sin(angles)], 1)
            parts.append(np.column_stack([points, ends, width]))
            fork = rng.uniform(0.16, 0.5, angles.shape)
            keep = np.repeat(rng.random(angles.shape) < 0.93, 2)
            points = np.repeat(ends, 2, 0)[keep]
            angles = (np.stack([angles - fork, angles + fork], 1).ravel() + rng.normal(0, 0.12, 2 * len(fork)))[keep]
            width = (np.repeat(width, 2) * rng.uniform(0.6, 0.85, 2 * len(width)))[keep]
            length = (np.repeat(length, 2) * rng.uniform(0.5, 0.8, 2 * len(length)))[keep]
    segments = np.concatenate(parts)
    tree = np.zeros(t.x.shape, np.float32)
    for low, high, sigma in ((0.0, 1.3, 0.7), (1.3, 2.6, 1.1), (2.6, 9.0, 2.1)):  # mm
        chosen = segments[(segments[:, 4] >= low) & (segments[:, 4] < high)]
        drawn = draw_lines(t, chosen[:, :2], chosen[:, 2:4], chosen[:, 4])
        tree += gaussian_filter(drawn, sigma / t.view.spacing)
    return 0.14 * tree


def draw_lines(t: Thorax, starts: NDArray[np.float64], ends: NDArray[np.float64], weight: NDArray[np.float64]) -> Array:
    """Lines between body coordinates (n, 2) as a picture whose integral across a line is its weight (in pixels)."""
    if not len(starts):
        return np.zeros(t.x.shape, np.float32)
    steps = np.maximum(np.hypot(*(ends - starts).T) / t.view.spacing * 2, 1).astype(int)  # half a pixel apart
    which = np.repeat(np.arange(len(steps)), steps)
    along = (np.arange(len(which)) - np.repeat(np.cumsum(steps) - steps, steps)) / steps[which]
    at = starts[which] + along[:, None] * (ends - starts)[which]
    row, column = t.to_pixel(at[:, 0].astype(np.float32), at[:, 1].astype(np.float32))
    r, c = np.rint(row).astype(int), np.rint(column).astype(int)
    inside = (r >= 0) & (r < t.view.rows) & (c >= 0) & (c < t.view.columns)
    flat = np.bincount((r * t.view.columns + c)[inside], 0.5 * weight[which][inside], t.x.size)
    return flat.reshape(t.x.shape).astype(np.float32)


def expose(mu: Array, view: View) -> Array:
    """The picture of an attenuation: scatter and blur, quantum noise, and the film curve. Values 0..1, dense is bright.

    Noise has its own seed, so that two pictures of one view differ only where their attenuation does.
    """
    rng = np.random.default_rng(view.seed)
    scattered = 0.93 * gaussian_filter(mu, 0.55) + 0.07 * gaussian_filter(mu, 9, truncate=2)
    grain = gaussian_filter1d(rng.standard_normal(mu.shape, dtype=np.float32), 0.5)
    noisy = scattered + 0.022 * view.noise * np.exp(0.28 * scattered) * grain
    curve = 1 / (1 + np.exp((view.exposure - noisy) / view.latitude))
    floor = 1 / (1 + np.exp(view.exposure / view.latitude))
    return _f32(np.clip((curve - floor) / (0.97 - floor), 0, 1))
