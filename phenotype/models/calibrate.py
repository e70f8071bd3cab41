"""What a raw anomaly score means: its place among the scores of normal images that the model has never seen.

"Anomalous" is then the same for every model: an image by `Calibration.p_values`, a pixel by
`Calibration.pixel_p_values`, the pixels that stand out of an image by `discoveries`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, cast

import numpy as np
import numpy.typing as npt
import torch

from phenotype.models.alarms import Alarm, brightness, shortcut_alarms, smoothness, spearman
from phenotype.models.base import ImageModel, Source, ToldSource

__all__ = ["Calibration", "batches", "calibrate", "data_hash", "digests", "discoveries", "score_source", "spearman"]

Float64 = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]
Counted = Literal["random", "highest"]

REFERENCES = 500  # patients whose maps are kept for a while, at most
MEMORY = 1 << 28  # bytes that these maps may take, unless that is fewer than FEWEST of them
FEWEST = 40
GRID = 64  # order statistics kept of each pixel
FORMAT = 2


@dataclass(frozen=True, slots=True)
class Calibration:
    """Scores and maps of held-out normal images, one for each of n patients."""

    scores: Float64  # (n,)
    patients: npt.NDArray[np.int64]  # (n,) their numbers, in order of first appearance among the held-out images
    pixel_mean: Float32  # (*spatial) of their maps
    pixel_std: Float32  # (*spatial) of their maps
    pixel_grid: Float32  # (g, *spatial) ascending order statistics of what is usual at each pixel
    pixel_shares: Float64  # (g,) share of the values at a pixel that is at or above each of them
    pixel_count: npt.NDArray[np.int32]  # (*spatial) how many values there are
    alarms: tuple[Alarm, ...] = ()
    left_out: int = 0  # held-out images that the model was trained on all the same: not counted here

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """What is kept as tensors."""
        names = ("scores", "patients", "pixel_mean", "pixel_std", "pixel_grid", "pixel_shares", "pixel_count")
        return {name: getattr(self, name) for name in names}

    def told(self) -> dict[str, Any]:
        """What is kept in the manifest."""
        alarms = [asdict(alarm) for alarm in self.alarms]
        return {"format": FORMAT, "patients": len(self.scores), "left_out": self.left_out, "alarms": alarms}

    @classmethod
    def restored(cls, arrays: Mapping[str, npt.NDArray[Any]], told: Mapping[str, Any]) -> Self:
        """From what `arrays` and `told` gave; ValueError where another version wrote it."""
        if told.get("format") != FORMAT:
            raise ValueError(f"the calibration has format {told.get('format', 1)}, this version reads {FORMAT}")
        alarms = tuple(Alarm(**alarm) for alarm in told["alarms"])
        return cls(alarms=alarms, left_out=int(told["left_out"]), **arrays)

    @property
    def brightness_rho(self) -> float:
        """Rank correlation of the scores with the images' mean grey value."""
        return next((alarm.value for alarm in self.alarms if alarm.name == "brightness"), 0.0)

    def p_values(self, scores: npt.ArrayLike) -> Float64:
        """Probability that a normal image scores at least as high: (n,) in [1 / (held-out patients + 1), 1].

        Split conformal (Vovk et al. 2005; Bates et al. 2023, "Testing for outliers with conformal p-values"): valid
        where the image, if normal, comes from the same population as the held-out ones, whatever the model.
        """
        values = np.asarray(scores, dtype=np.float64)
        if not np.isfinite(values).all():
            raise ValueError("a score is not finite")
        as_high = len(self.scores) - np.searchsorted(np.sort(self.scores), values, side="left")
        return np.asarray((1.0 + as_high) / (1.0 + len(self.scores)), dtype=np.float64)

    def pixel_p_values(self, maps: npt.ArrayLike, inside: Bool | None = None) -> Float32:
        """Probability that a normal map is at least as high there: (n, *spatial) from maps (n, *spatial).

        Split conformal at each pixel, with the held-out maps at that pixel and those beside it (3 x 3): valid were
        these alike, too small where a pixel varies more than its neighbours. Over whole maps of other healthy children
        4.9 % of p were <= 0.05 with 150 held-out patients; with 15 or 16 adults 5.8 to 6.1 %. Rounded up between the
        order statistics that are kept.
        1 outside of `inside`, and where no held-out image was inside.
        """
        values = np.asarray(maps, dtype=np.float32)
        if not np.isfinite(values).all():
            raise ValueError("a map is not finite")
        if not len(self.pixel_grid):
            raise ValueError("this calibration knows nothing of pixels: calibrate on held-out images")
        p = np.ones(values.shape, dtype=np.float32)
        at_least = _counts(self.pixel_shares, self.pixel_count)
        for statistic, as_high in zip(self.pixel_grid, at_least, strict=True):  # ascending: the last one below counts
            np.copyto(p, (as_high / (1.0 + self.pixel_count)).astype(np.float32), where=statistic < values)
        if inside is not None:
            p[~np.asarray(inside, dtype=np.bool_)] = 1.0
        return p

    def z_maps(self, maps: npt.ArrayLike) -> Float32:
        """Maps (n, *spatial) in standard deviations from what is usual at each pixel of normal images."""
        # Where normal maps hardly vary (outside the body) noise would be blown up: a tenth of the usual deviation.
        varied = self.pixel_std[self.pixel_std > 0]
        floor = max(float(np.median(varied)) * 0.1 if varied.size else 0.0, 1e-6)
        z = (np.asarray(maps, dtype=np.float32) - self.pixel_mean) / np.maximum(self.pixel_std, floor)
        return np.asarray(z, dtype=np.float32)


def discoveries(p: npt.ArrayLike, rate: float = 0.1, inside: Bool | None = None) -> Bool:
    """Pixels (n, *spatial) that stand out of their image, from p-values (n, *spatial): false ones are a share `rate`.

    Benjamini and Hochberg 1995 over an image's pixels, those `inside` only, which holds for pixels that depend on
    each other positively (Benjamini and Yekutieli 2001), as those of smooth maps do, and for p-values as fine as
    `rate` over the number of pixels. Those of few held-out patients are not: read the rate as an order of magnitude.
    """
    values = np.asarray(p, dtype=np.float64)
    if not 0 < rate < 1:
        raise ValueError(f"the rate of false discoveries must lie between 0 and 1, not {rate}")
    flat = values.reshape(len(values), -1)
    counted = np.ones(flat.shape, np.bool_) if inside is None else np.asarray(inside, np.bool_).reshape(flat.shape)
    ranked = np.sort(np.where(counted, flat, np.inf), axis=1)
    passed = ranked <= rate * np.arange(1, flat.shape[1] + 1) / np.maximum(counted.sum(1, keepdims=True), 1)
    last = flat.shape[1] - 1 - passed[:, ::-1].argmax(1)
    limit = np.where(passed.any(1), np.take_along_axis(ranked, last[:, None], 1)[:, 0], -1.0)
    return np.asarray((counted & (flat <= limit[:, None])).reshape(values.shape), np.bool_)


def calibrate(
    model: ImageModel,
    held_out: Source,
    training: Source,
    batch_size: int = 64,
    *,
    groups: npt.ArrayLike | None = None,
    counted: Counted = "random",
) -> Calibration:
    """Calibrate `model` on normal images that it has not seen in training.

    groups   (n,) whose image each of `held_out` is: images of one patient are not independent, so each patient counts
             once. Nothing for a patient each.
    counted  which image of a patient that is: a "random" one, the same at every call, where images will be scored one
             by one; the one that scores "highest" where they will be scored by their highest, as the slices of a volume

    An image that is also in `training` is left out: on those a model scores too low, and false alarms at p = 0.01
    double. ValueError if fewer than two patients are left. Maps of 500 patients (as many as fit 256 MB) are held in
    memory; scores are of all of them.
    """
    seen = set(digests(training))
    usable = np.asarray([digest not in seen for digest in digests(held_out)], dtype=np.bool_)
    named = np.arange(len(held_out)) if groups is None else np.asarray(groups)
    if named.shape != (len(held_out),):
        raise ValueError(f"groups must say of each of {len(held_out)} images whose it is, not of {named.shape}")
    patient = _in_order(named)
    rng = np.random.default_rng(0)
    indices = np.flatnonzero(usable)
    if counted == "random":
        shuffled = rng.permutation(indices)
        indices = np.sort(shuffled[np.unique(patient[shuffled], return_index=True)[1]])
    patients, own = np.unique(patient[indices], return_inverse=True)
    if len(patients) < 2:
        raise ValueError(
            f"calibration needs at least two normal images not used in training, of two patients; "
            f"of {len(held_out)} held out, {usable.sum()} are, of {len(patients)}"
        )
    pixels = int(np.prod(model.recipe.shape))
    kept = min(len(patients), REFERENCES, max(FEWEST, MEMORY // (4 * pixels)))
    place = np.full(len(patients), -1)
    place[rng.permutation(len(patients))[:kept]] = np.arange(kept)

    scores = np.full(len(patients), -np.inf)
    traits = np.zeros((2, len(patients)))
    maps = np.zeros((kept, *model.recipe.shape), dtype=np.float32)
    whose = iter(own)
    for images, batch_scores, batch_maps, inside in _scored(model, held_out, batch_size, indices):
        bright, smooth = brightness(images), smoothness(images)
        for n, score in enumerate(batch_scores):
            at = next(whose)
            if score > scores[at]:
                scores[at], traits[:, at] = score, (bright[n], smooth[n])
                if place[at] >= 0:
                    maps[place[at]] = batch_maps[n] if inside is None else np.where(inside[n], batch_maps[n], np.nan)
    if not np.isfinite(scores).all():
        raise ValueError(f"{model.name} gave a score that is not finite")
    grid, shares, count = _order_statistics(maps)
    mean, std = _mean_and_std(maps)
    return Calibration(
        scores=scores,
        patients=patients.astype(np.int64),
        pixel_mean=mean,
        pixel_std=std,
        pixel_grid=grid,
        pixel_shares=shares,
        pixel_count=count,
        alarms=tuple(shortcut_alarms(scores, brightness=traits[0], smoothness=traits[1])),
        left_out=int((~usable).sum()),
    )


def _in_order(named: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Numbers (n,) of names (n,), in order of first appearance."""
    _, first, number = np.unique(named, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[number].astype(np.int64)


def _mean_and_std(maps: Float32) -> tuple[Float32, Float32]:
    """Of the maps (n, *spatial) at each pixel, NaN left out; one map at a time in double precision."""
    number = np.maximum((~np.isnan(maps)).sum(0), 1)
    mean = sum((np.nan_to_num(one).astype(np.float64) for one in maps), np.zeros(maps.shape[1:])) / number
    squares = sum((np.nan_to_num(one - mean) ** 2 for one in maps), np.zeros(maps.shape[1:]))
    return mean.astype(np.float32), np.sqrt(squares / np.maximum(number - 1, 1)).astype(np.float32)


def _order_statistics(maps: Float32) -> tuple[Float32, Float64, npt.NDArray[np.int32]]:
    """A grid of order statistics of each pixel and its neighbours: `pixel_grid`, `pixel_shares` and `pixel_count`.

    Of few values all are kept; of many, all of the highest and ever fewer below: p is exact where it is small.
    """
    count, *spatial = maps.shape
    beside = (3,) * len(spatial)
    padded = np.pad(maps, [(0, 0), *[(1, 1)] * len(spatial)], constant_values=np.nan)
    values = count * 3 ** len(spatial)
    from_top = np.unique(np.geomspace(1, values, GRID).round().astype(int))[::-1]
    if values <= GRID:
        from_top = np.arange(values, 0, -1)
    shares = from_top / values
    grid = np.empty((len(shares), *spatial), dtype=np.float32)
    number = np.empty(spatial, dtype=np.int32)
    for row in range(spatial[0]):  # by rows, or slices: what is sorted at once stays small
        around = np.lib.stride_tricks.sliding_window_view(
            padded[:, row : row + 3], beside, axis=tuple(range(1, maps.ndim))
        )
        around = np.moveaxis(around[:, 0], range(1, len(spatial)), range(-len(spatial) + 1, 0)).reshape(
            values, *spatial[1:]
        )
        ranked = np.sort(around, axis=0)  # NaN, what is not inside, last
        number[row] = (~np.isnan(ranked)).sum(0)
        at = np.maximum(number[row] - _counts(shares, number[row]), 0)
        grid[:, row] = np.take_along_axis(ranked, at, axis=0)
    return np.where(np.isnan(grid), np.inf, grid), shares, number


def _counts(shares: Float64, count: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    """How many of the values of each pixel are at or above its order statistics: (g, *spatial)."""
    of_all = shares.reshape(-1, *[1] * count.ndim) * count
    return np.maximum(np.ceil(of_all - 1e-6), 1).astype(np.int64)


def score_source(model: ImageModel, images: Source, batch_size: int = 64) -> Iterator[tuple[Float32, Float64, Float32]]:
    """Score images in order, by batches, on the model's device: images, scores (n,), maps (n, *spatial).

    Where the source has `inside(indices)`, bool (n, *spatial), only what is inside counts.
    """
    for batch, scores, maps, _ in _scored(model, images, batch_size, np.arange(len(images))):
        yield batch, scores, maps


def _scored(
    model: ImageModel, images: Source, batch_size: int, indices: npt.NDArray[np.int64]
) -> Iterator[tuple[Float32, Float64, Float32, Bool | None]]:
    masks = getattr(images, "inside", None)
    for start in range(0, len(indices), batch_size):
        chosen = indices[start : start + batch_size]
        batch = np.ascontiguousarray(images.take(chosen), np.float32)
        inside = None if masks is None else np.ascontiguousarray(masks(chosen), np.bool_)
        counted = None if inside is None else torch.from_numpy(inside).to(model.device)
        scores, maps = model.score(torch.from_numpy(batch).to(model.device), counted)
        yield batch, scores.cpu().numpy().astype(np.float64), maps.cpu().numpy(), inside


def batches(images: Source, batch_size: int = 256) -> Iterator[Float32]:
    """The images of a source in order, `batch_size` at a time, the last ones included."""
    for start in range(0, len(images), batch_size):
        yield np.ascontiguousarray(images.take(np.arange(start, min(start + batch_size, len(images)))), np.float32)


def digests(images: Source) -> Iterator[bytes]:
    """SHA-256 of each image's pixels, in order."""
    return (hashlib.sha256(one.tobytes()).digest() for batch in batches(images) for one in batch)


def data_hash(images: Source | ToldSource, told: bool = False) -> str:
    """SHA-256 of all images of a source, in order; with what it tells beside them, where that is `told`."""
    digest = hashlib.sha256()
    for batch in batches(images):
        digest.update(batch.tobytes())
    if told:
        for start in range(0, len(images), 256):
            indices = np.arange(start, min(start + 256, len(images)))
            digest.update(np.ascontiguousarray(cast(ToldSource, images).targets(indices)).tobytes())
    return digest.hexdigest()
