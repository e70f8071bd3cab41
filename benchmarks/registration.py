"""How well images are brought into one space, and followed over time.

python benchmarks/registration.py [../shared/data] [--seeds N] [--only PART] [--json FILE]

torso       phantom torsos whose every point is known, registered to one reference: whole, fragments, another modality
templates   the same where the direct way is hard (an organ is missing, other modality, fragment): direct and with
            templates, and whether the quality picks the right way
chests      CT phantoms of the demo, people of different build, at their true lungs
ct_series   a real CT series against random affine and smooth warps of itself, its organ labels transferred
shenzhen    real radiographs: lungs that people outlined, in pixels and in the thorax; one lung made white
follow      the demo's patients with two radiographs, and pairs of CT phantoms: points of the same body, in mm
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from phenotype.demo.cases import draw_studies
from phenotype.demo.lesions import radiograph
from phenotype.demo.thorax import Thorax, draw_build
from phenotype.demo.torso import EXTENT, T1, draw_torso, draw_warp
from phenotype.demo.volume import draw_volume
from phenotype.imaging import grids
from phenotype.imaging.dicom import read_pixels
from phenotype.imaging.files import FileRef
from phenotype.imaging.geometry import directions
from phenotype.imaging.masks import ct_lung_mask, lung_mask
from phenotype.normalization import radiographs
from phenotype.normalization.follow import link_radiographs
from phenotype.normalization.organs import read_labels
from phenotype.normalization.templates import Template, normalize
from phenotype.normalization.volumes import Volume, prepare, register

Row = dict[str, Any]
Labels = NDArray[Any]

SHAPE = (100, 65, 85)  # of a torso: 4 mm
SPACING = tuple(mm / n for mm, n in zip(EXTENT, SHAPE, strict=True))
MR = {"values": T1, "noise": 3.0}
LOST = {"without": ("left lung",)}


def main() -> None:
    """Measure all parts, or one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", type=Path, default=Path("../shared/data"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", choices=sorted(PARTS))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found: dict[str, list[Row]] = {}
    for name, part in PARTS.items():
        if options.only in (None, name):
            found[name] = []
            print(f"\n{name}")
            for row in part(options.data, options.seeds):
                found[name].append(row)
                print("  " + "  ".join(f"{k} {_text(v)}" for k, v in row.items()), flush=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


def _text(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def dice(one: Labels, other: Labels, least: int = 50) -> float:
    """The mean over labels of the second that have so many voxels."""
    kinds = [k for k in np.unique(other) if k and (other == k).sum() >= least]
    both = [2 * ((one == k) & (other == k)).sum() / ((one == k).sum() + (other == k).sum()) for k in kinds]
    return float(np.mean(both))


# ------------------------------------------------------------------------------------------------ phantoms


def subject(seed: int, *, strength: float = 1.0, **how: Any) -> tuple[Volume, Labels, NDArray[Any]]:
    """A torso made ready, its organs (the body itself left out) and the true places of its voxels in the reference."""
    view = how.get("view", (0.0, 1.0))
    shape = (max(6, round(SHAPE[0] * (view[1] - view[0]))), *SHAPE[1:])
    warp = draw_warp(np.random.default_rng(seed), strength, strength) if seed else None
    values, labels, places = draw_torso(warp, shape, seed, **how)
    return prepare(values, SPACING, None, "MR" if "values" in how else "CT", 4.0), labels, places


def judged(forward: grids.Grid, labels: Labels, places: NDArray[Any], of_reference: Labels) -> Row:
    """Dice of organs that travelled, and how far points of the body land from where they belong."""
    away = np.linalg.norm((grids.apply(forward, grids.centres(labels.shape)) - places) * EXTENT, axis=-1)[labels > 0]
    there = grids.warp_labels(of_reference, forward, labels.shape)
    organs = np.where(labels > 1, labels, 0)
    error = {"error_mm": float(np.median(away)), "error_p95_mm": float(np.quantile(away, 0.95))}
    return {"dice": dice(np.where(there > 1, there, 0), organs)} | error | {"folded": grids.folded(forward)}


def mean(rows: list[Row]) -> Row:
    """The mean of the figures of several rows."""
    return {k: float(np.mean([row[k] for row in rows])) for k in rows[0]}


def torso(_data: Path, seeds: int) -> Iterator[Row]:
    """Direct registration, by what is in view."""
    reference, drawn, _ = subject(0)
    cases: dict[str, Row] = {
        "whole": {},
        "upper half": {"view": (0.5, 0.95)},
        "lower half": {"view": (0.05, 0.45)},
        "a tenth": {"view": (0.55, 0.65)},
        "other modality": MR,
    }
    for name, how in cases.items():
        before, affine, after = [], [], []
        for seed in range(1, seeds + 1):
            image, labels, places = subject(seed, **how)
            low, high = how.get("view", (0.0, 1.0))
            nodes = grids.nodes((2, 2, 2))
            nodes[..., 0] = low + nodes[..., 0] * (high - low)  # where it would lie had everybody the same body
            before.append(judged(nodes.astype(np.float32), labels, places, drawn))
            affine.append(judged(register(image, reference, fine=0).forward, labels, places, drawn))
            start = time.process_time()
            found = register(image, reference)
            seconds = time.process_time() - start
            after.append(
                judged(found.forward, labels, places, drawn) | {"quality": found.quality, "cpu_seconds": seconds}
            )
        told = {"dice_before": mean(before)["dice"], "dice_affine": mean(affine)["dice"]}
        yield {"case": name, "n": seeds} | told | mean(after) | {"error_before_mm": mean(before)["error_mm"]}


def templates(_data: Path, seeds: int) -> Iterator[Row]:
    """Direct against with templates, where direct is hard; and the way that truth would have picked."""
    reference, drawn, _ = subject(0)
    kinds = {"MR": MR, "one lung": LOST, "usual": {}}
    made = {}
    for n, (name, how) in enumerate(kinds.items()):
        volume = subject(101 + n, strength=0.5, **how)[0]
        made[name] = Template(volume, register(volume, reference, fine=60))
    cases: dict[str, Row] = {
        "usual": {},
        "other modality": MR,
        "fragment of it": MR | {"view": (0.4, 0.8)},
        "one lung": LOST,
        "fragment of one lung": LOST | {"view": (0.5, 0.95)},
        "one lung, other modality": MR | LOST,
    }
    for name, how in cases.items():
        direct, gated, always, best = [], [], [], []
        for seed in range(1, seeds + 1):
            image, labels, places = subject(seed, **how)
            alone = normalize(image, reference, dict, gate=0.0, threshold=0.4)
            direct.append(judged(alone.forward, labels, places, drawn))
            ways = {k: normalize(image, reference, lambda k=k: {k: made[k]}, gate=2.0, threshold=0.4) for k in made}
            tried = [alone, *(way for way in ways.values() if way.route != "direct")]
            picked = max(tried, key=lambda way: way.quality)
            always.append(judged(picked.forward, labels, places, drawn))
            gated.append(direct[-1] if alone.quality >= 0.75 else always[-1])
            best.append(max((judged(way.forward, labels, places, drawn) for way in tried), key=lambda row: row["dice"]))
        row: Row = {"case": name, "n": seeds}
        for kind, rows in {"direct": direct, "gated": gated, "always": always, "by_truth": best}.items():
            row |= {f"dice_{kind}": mean(rows)["dice"], f"error_{kind}_mm": mean(rows)["error_mm"]}
        yield row


def chests(_data: Path, seeds: int) -> Iterator[Row]:
    """People of different build: only their lungs are known."""
    made = []
    for seed in range(seeds + 1):
        hounsfield, space, _ = draw_volume(draw_build(np.random.default_rng(seed)), (), seed)
        pixels = hounsfield.astype(np.float32)
        made.append((prepare(pixels, space.spacing, None, "CT", 4.0), ct_lung_mask(pixels).labels))
    reference, drawn = made[0]
    before, after = [], []
    for image, lungs in made[1:]:
        nothing = np.asarray(grids.nodes((2, 2, 2)), np.float32)
        before.append(dice(grids.warp_labels(drawn, nothing, lungs.shape), lungs))
        found = register(image, reference)
        after.append(
            {"dice": dice(grids.warp_labels(drawn, found.forward, lungs.shape), lungs), "quality": found.quality}
        )
    yield {"case": "demo CT", "n": seeds, "dice_before": float(np.mean(before))} | mean(after)


# ------------------------------------------------------------------------------------------------ a real CT


def ct_series(data: Path, seeds: int) -> Iterator[Row]:
    """The series is the reference; images are warps of it, of the strength of differences between adults."""
    folder = data / "ct_series"
    if not folder.is_dir():
        return
    pixels, spacing, labels = real_series(folder)
    reference = prepare(pixels, spacing, None, "CT", 2.0)
    before, after = [], []
    for seed in range(1, seeds + 1):
        image, drawn, places = warped(pixels, labels, spacing, seed)
        extent = np.array(pixels.shape) * spacing
        start = time.process_time()
        found = register(prepare(image, spacing, None, "CT", 2.0), reference)
        seconds = time.process_time() - start
        there = grids.apply(found.forward, grids.centres(image.shape))
        body = image > -300
        inside = np.all((places > 0.02) & (places < 0.98), axis=-1) & body
        away = np.linalg.norm((there - places) * extent, axis=-1)[inside]
        unmoved = np.linalg.norm((grids.centres(image.shape) - places) * extent, axis=-1)[inside]
        moved = grids.warp_labels(labels, found.forward, image.shape)
        row = {"dice": dice(moved, drawn, 200), "error_mm": float(np.median(away))}
        row |= {"error_p95_mm": float(np.quantile(away, 0.95)), "folded": found.folded}
        after.append(row | {"quality": found.quality, "cpu_seconds": seconds})
        before.append({"dice": dice(labels, drawn, 200), "error_mm": float(np.median(unmoved))})
    told = {f"{k}_before": v for k, v in mean(before).items()}
    yield {"case": "20 slices, 31 organs", "n": seeds} | told | mean(after)


def real_series(folder: Path) -> tuple[NDArray[np.float32], tuple[float, ...], Labels]:
    """The pixels of the real series, thinned to every second row and column, their spacing, and the organ labels."""
    import pydicom

    heads = [(pydicom.dcmread(p, stop_before_pixels=True), p) for p in sorted((folder / "dicom").iterdir())]
    heads.sort(key=lambda pair: float(pair[0].ImagePositionPatient[2]))
    picture = read_pixels([FileRef(str(path)) for _, path in heads])
    axes = directions(tuple(float(v) for v in heads[0][0].ImageOrientationPatient))
    origin = [float(v) for v in heads[0][0].ImagePositionPatient]
    labels = read_labels(folder / "organs.nii.gz", picture.pixels.shape, picture.spacing_mm, axes, origin)
    z, y, x = picture.spacing_mm
    return picture.pixels[:, ::2, ::2], (z, 2 * y, 2 * x), labels[:, ::2, ::2]


def warped(
    pixels: NDArray[np.float32], labels: Labels, spacing: tuple[float, ...], seed: int
) -> tuple[NDArray[np.float32], Labels, NDArray[Any]]:
    """The series, its labels, and the true places of its voxels in the series, after a random warp."""
    rng = np.random.default_rng(seed)
    extent = np.array(pixels.shape) * spacing
    own = grids.centres(pixels.shape)
    bend = ndimage.gaussian_filter(rng.normal(size=(5, 7, 7, 3)), (1, 1, 1, 0))
    bend *= np.array([1.5, 6.0, 6.0]) / extent / bend.std()
    scale, turn = 1 + rng.uniform(-0.06, 0.06, 3), rng.normal(0, 0.05)
    scale[0] = 1.0  # of 4 cm along the body nothing would be left to see
    matrix = np.diag(1 / extent) @ np.array([[1, 0, 0], [0, 1, -turn], [0, turn, 1]]) @ np.diag(scale * extent)
    shift = rng.normal(0, 1, 3) * [0.5, 8, 8] / extent
    at = np.moveaxis(own, -1, 0) * (np.array(bend.shape[:3]) - 1)[:, None, None, None]
    places = (own - 0.5) @ matrix.T + 0.5 + shift
    places += np.stack([ndimage.map_coordinates(bend[..., k], at, order=3, mode="nearest") for k in range(3)], -1)
    index = np.moveaxis(places * np.array(pixels.shape) - 0.5, -1, 0)
    image = ndimage.map_coordinates(pixels, index, order=1, mode="constant", cval=-1000.0)
    drawn = ndimage.map_coordinates(labels, index, order=0, mode="constant")
    return (image + rng.normal(0, 15, image.shape)).astype(np.float32), drawn, places


# ------------------------------------------------------------------------------------------------ radiographs


def shenzhen(data: Path, seeds: int) -> Iterator[Row]:
    """Lungs that people outlined, in the thorax; every second image, or fewer with fewer seeds."""
    folder = data / "shenzhen"
    if not folder.is_dir():
        return
    raw, laid, own, there, quality, routes, seconds = [], [], [], [], [], [], 0.0
    white = []
    for n, path in enumerate(sorted((folder / "lung_masks").iterdir())[:: max(1, 6 // seeds)]):
        pixels = np.asarray(Image.open(folder / "images" / path.name).convert("L"), np.float32)
        lungs = two_lungs(np.asarray(Image.open(path).convert("L")) > 0)
        if lungs is None:
            continue
        start = time.process_time()
        placed = radiographs.place(pixels)
        seconds += time.process_time() - start
        quality.append(placed.quality)
        routes.append(placed.route)
        raw.append(grids.warp_labels(lungs, np.asarray(grids.nodes((2, 2)), np.float32), (128, 128)))
        laid.append(grids.warp_labels(lungs, grids.invert(placed.forward, (24, 24)), (128, 128)))
        corners = np.concatenate([radiographs.landmarks(lungs == side, side)[[16, 17, 12]] for side in (1, 2)])
        own.append(corners)
        there.append(grids.apply(placed.forward, corners))
        if n % 4 == 0:
            fallen = radiographs.place(whitened(pixels, 1 + n // 4 % 2))
            away = np.linalg.norm(grids.apply(fallen.forward, corners) - there[-1], axis=1).mean()
            white.append((fallen.route == "one lung", float(away), fallen.quality / max(placed.quality, 1e-9)))
    yield {
        "case": "outlined lungs",
        "n": len(raw),
        "dice_before": between(raw),
        "dice": between(laid),
        "corner_spread_before": spread(own),
        "corner_spread": spread(there),
        "quality_p5": float(np.quantile(quality, 0.05)),
        "quality": float(np.median(quality)),
        "by_lungs": float(np.mean([route == "lungs" for route in routes])),
        "cpu_seconds": seconds / len(raw),
    }
    known, away, part = np.mean(white, axis=0).tolist()
    told = {"recorded": known, "corner_shift": away, "quality_ratio": part}
    yield {"case": "one lung made white", "n": len(white)} | told


def two_lungs(mask: NDArray[np.bool_]) -> Labels | None:
    """Labels 1 and 2 of the two largest parts, from left to right."""
    parts, count = ndimage.label(mask)
    if count < 2:
        return None
    largest = 1 + np.argsort(-np.bincount(parts.ravel())[1:])[:2]
    first, second = sorted(largest, key=lambda k: np.nonzero(parts == k)[1].mean())
    return np.where(parts == first, 1, np.where(parts == second, 2, 0)).astype(np.uint8)


def whitened(pixels: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """One lung as bright as what is around it."""
    view = (pixels / 255).astype(np.float32)
    lung = lung_mask(view).labels == side
    ring = ndimage.binary_dilation(lung, iterations=12) & ~lung
    soft = ndimage.gaussian_filter(lung.astype(np.float32), 6)
    flat = np.quantile(view[ring], 0.7) + 0.3 * (view - view[lung].mean())
    return (255 * (view * (1 - soft) + soft * flat)).astype(np.float32)


def between(masks: list[Labels], pairs: int = 500) -> float:
    """The mean Dice of random pairs."""
    rng = np.random.default_rng(0)
    drawn = (rng.choice(len(masks), 2, replace=False) for _ in range(pairs))
    return float(np.mean([dice(masks[a], masks[b], 1) for a, b in drawn]))


def spread(corners: list[NDArray[Any]]) -> float:
    """How far a corner lies from where it usually does, median, as a fraction of the image."""
    points = np.asarray(corners)
    return float(np.median(np.linalg.norm(points - np.median(points, axis=0), axis=-1)))


# ------------------------------------------------------------------------------------------------ over time


def follow(_data: Path, seeds: int) -> Iterator[Row]:
    """Points of a body in two images of it: where the later one's lie in the earlier one."""
    studies = [s for s in draw_studies(60 * seeds, 0, 0) if s.view is not None]
    pairs = [(a, b) for a, b in pairwise(studies) if a.person == b.person]
    before, lungs_alone, after, lesion = [], [], [], []
    for earlier, later in pairs:
        (old, planted), (new, planted_new) = (radiograph(s.person.build, s.view, s.lesions) for s in (earlier, later))
        found = link_radiographs(new.astype(np.float32), old.astype(np.float32))
        b = later.person.build
        x = np.tile([-0.7, -0.35, 0.35, 0.7], 4) * b.half_width
        y = b.apex + np.repeat([0.2, 0.4, 0.6, 0.8], 4) * (b.dome - b.apex)
        here, there = (
            np.stack(Thorax(b, s.view).to_pixel(x, y), 1) / [s.view.rows, s.view.columns] for s in (later, earlier)
        )
        size = np.array([earlier.view.rows, earlier.view.columns]) * earlier.view.spacing
        one, other = (radiographs.place(v.astype(np.float32)) for v in (new, old))
        alone = grids.compose(one.forward, grids.invert(other.forward, (24, 24)))
        before.append(np.linalg.norm((here - there) * size, axis=1).mean())
        lungs_alone.append(np.linalg.norm((grids.apply(alone, here) - there) * size, axis=1).mean())
        after.append(np.linalg.norm((grids.apply(found.forward, here) - there) * size, axis=1).mean())
        lesion += _lesions(found.forward, later, earlier, planted_new, planted)
    yield {
        "case": "radiographs, points of the lungs",
        "n": len(pairs),
        "error_before_mm": float(np.median(before)),
        "error_lungs_mm": float(np.median(lungs_alone)),
        "error_mm": float(np.median(after)),
        "error_p90_mm": float(np.quantile(after, 0.9)),
    }
    if lesion:
        told = {"error_mm": float(np.median(lesion)), "error_p90_mm": float(np.quantile(lesion, 0.9))}
        yield {"case": "radiographs, nodules carried over", "n": len(lesion)} | told
    yield _torsos_followed(seeds)


def _lesions(forward: grids.Grid, later: Any, earlier: Any, new: Any, old: Any) -> list[float]:
    """How far the centre of each nodule lands from the same nodule's in the earlier image, mm."""
    away = []
    for one, other in zip(new, old, strict=True):
        if one.lesion.finding == "nodule" and one.centre and other.centre:
            size = np.array([[v.view.rows, v.view.columns] for v in (later, earlier)], float)
            landed = grids.apply(forward, (np.array(one.centre) + 0.5) / size[0]) * size[1]
            away.append(float(np.linalg.norm(landed - np.array(other.centre) - 0.5) * earlier.view.spacing))
    return away


def _torsos_followed(seeds: int) -> Row:
    """The same torso twice: breathing and pose differ, and a nodule has grown."""
    before, after = [], []
    for seed in range(1, seeds + 1):
        rng = np.random.default_rng(seed)
        warps = draw_warp(rng), draw_warp(rng, 0.3, 0.5)
        one, labels, places = _twice(warps[0], None, seed)
        two, _, again = _twice(warps[0], warps[1], 1000 + seed)
        found = register(two, one)
        lungs = (again[..., 0] > 0.5) & (np.abs(again[..., 1] - 0.5) < 0.3)
        # where the later voxels' body points lie in the earlier image: both know their place in the shared body
        back = grids.invert(np.asarray(_grid_of(warps[0]), np.float32), (24, 24, 24))
        truth = grids.apply(back, again)
        own = grids.centres(labels.shape)
        before.append(float(np.median(np.linalg.norm((own - truth) * EXTENT, axis=-1)[lungs])))
        landed = grids.apply(found.forward, own)
        after.append(float(np.median(np.linalg.norm((landed - truth) * EXTENT, axis=-1)[lungs])))
        del places
    told = {"error_before_mm": float(np.mean(before)), "error_mm": float(np.mean(after))}
    return {"case": "CT torsos, points of the chest", "n": seeds} | told


def _twice(warp: Any, pose: Any, seed: int) -> tuple[Volume, Labels, NDArray[Any]]:
    both: Callable[[NDArray[Any]], NDArray[Any]] = warp if pose is None else lambda points: warp(pose(points))
    values, labels, places = draw_torso(both, SHAPE, seed)  # type: ignore[arg-type]
    return prepare(values, SPACING, None, "CT", 4.0), labels, places


def _grid_of(warp: Any) -> NDArray[Any]:
    return np.asarray(warp(grids.nodes((24, 24, 24))))


PARTS: dict[str, Callable[[Path, int], Iterator[Row]]] = {
    "torso": torso,
    "templates": templates,
    "chests": chests,
    "ct_series": ct_series,
    "shenzhen": shenzhen,
    "follow": follow,
}

if __name__ == "__main__":
    main()
