"""What a raw anomaly score means: its place among the scores of normal images that the model has never seen."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import rankdata

from phenotype.models.base import ImageModel, Source, ToldSource

Float64 = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]
ALARM = 0.5  # absolute rank correlation from which a score is little but brightness


@dataclass(frozen=True, slots=True)
class Calibration:
    """Scores and maps of held-out normal images."""

    scores: Float64  # (n,) ascending
    pixel_mean: Float32  # (h, w) of their maps
    pixel_std: Float32  # (h, w) of their maps
    brightness_rho: float  # Spearman correlation of their scores with their mean grey value
    left_out: int = 0  # held-out images that the model was trained on all the same: not counted here

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """What is kept as tensors."""
        return {"scores": self.scores, "pixel_mean": self.pixel_mean, "pixel_std": self.pixel_std}

    @property
    def brightness_alarm(self) -> bool:
        """Whether the score follows plain brightness on normal images, and so may say little of disease."""
        return abs(self.brightness_rho) > ALARM

    def p_values(self, scores: npt.ArrayLike) -> Float64:
        """Probability that a normal image scores at least as high: (n,) in [1 / (held-out + 1), 1].

        Split conformal (Vovk et al. 2005; Bates et al. 2023, "Testing for outliers with conformal p-values"): valid
        where the image, if normal, comes from the same population as the held-out ones, whatever the model.
        """
        values = np.asarray(scores, dtype=np.float64)
        if not np.isfinite(values).all():
            raise ValueError("a score is not finite")
        as_high = len(self.scores) - np.searchsorted(self.scores, values, side="left")
        return np.asarray((1.0 + as_high) / (1.0 + len(self.scores)), dtype=np.float64)

    def z_maps(self, maps: npt.ArrayLike) -> Float32:
        """Maps (n, h, w) in standard deviations from what is usual at each pixel of normal images."""
        # Where normal maps hardly vary (outside the body) noise would be blown up: a tenth of the usual deviation.
        floor = max(float(np.median(self.pixel_std)) * 0.1, 1e-6)
        z = (np.asarray(maps, dtype=np.float32) - self.pixel_mean) / np.maximum(self.pixel_std, floor)
        return np.asarray(z, dtype=np.float32)


def calibrate(model: ImageModel, held_out: Source, training: Source, batch_size: int = 64) -> Calibration:
    """Calibrate `model` on normal images that it has not seen in training.

    Images of one patient are not independent: give one image, or one study, a patient. An image that is also in
    `training` is left out: on those a model scores too low, and false alarms at p = 0.01 double. ValueError if fewer
    than two are left.
    """
    seen = set(digests(training))
    scores: list[float] = []
    brightness: list[float] = []
    mean = np.zeros(model.recipe.shape)
    squares = np.zeros_like(mean)
    for images, batch_scores, maps in score_source(model, held_out, batch_size):
        for image, score, anomaly_map in zip(images, batch_scores, maps, strict=True):
            if _digest(image) in seen:
                continue
            scores.append(float(score))
            brightness.append(float(image.mean(dtype=np.float64)))
            away = anomaly_map - mean  # Welford: the maps of many images are never held together
            mean += away / len(scores)
            squares += away * (anomaly_map - mean)
    if len(scores) < 2:
        raise ValueError(
            f"calibration needs at least two normal images not used in training; of {len(held_out)} held out, "
            f"{len(scores)} are"
        )
    return Calibration(
        scores=np.sort(np.asarray(scores, dtype=np.float64)),
        pixel_mean=mean.astype(np.float32),
        pixel_std=np.sqrt(squares / (len(scores) - 1)).astype(np.float32),
        brightness_rho=spearman(scores, brightness),
        left_out=len(held_out) - len(scores),
    )


def score_source(model: ImageModel, images: Source, batch_size: int = 64) -> Iterator[tuple[Float32, Float64, Float32]]:
    """Score images in order, by batches, on the model's device: images (n, 1, h, w), scores (n,), maps (n, h, w)."""
    for batch in batches(images, batch_size):
        scores, maps = model.score(torch.from_numpy(batch).to(model.device))
        yield batch, scores.cpu().numpy().astype(np.float64), maps.cpu().numpy()


def batches(images: Source, batch_size: int = 256) -> Iterator[Float32]:
    """The images of a source in order, `batch_size` at a time, the last ones included."""
    for start in range(0, len(images), batch_size):
        yield np.ascontiguousarray(images.take(np.arange(start, min(start + batch_size, len(images)))), np.float32)


def digests(images: Source) -> Iterator[bytes]:
    """SHA-256 of each image's pixels, in order."""
    return (_digest(one) for batch in batches(images) for one in batch)


def _digest(image: Float32) -> bytes:
    return hashlib.sha256(image.tobytes()).digest()


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


def spearman(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Rank correlation; 0 where one of the two does not vary."""
    ranks_a, ranks_b = rankdata(a), rankdata(b)
    if np.ptp(ranks_a) == 0 or np.ptp(ranks_b) == 0:
        return 0.0
    return float(np.corrcoef(ranks_a, ranks_b)[0, 1])
