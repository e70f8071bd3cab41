"""Descriptors of the phantoms' regions: principal components of the patch, its texture, and where in the body it is.

All descriptors are made here, so that every mapper sees the same. They are learned from images alone, without a report.
Components instead of a trained autoencoder: they take seconds, and a classifier that is told every region's truth finds
lesions as well with them (see `supervised` in the table).
"""

import hashlib
from pathlib import Path

import numpy as np
from filelock import FileLock
from linking_phantoms import CUBE, PATCH
from sklearn.decomposition import PCA

from phenotype.imaging import regions

REVISION = 1  # raised when the same phantoms give other descriptors than before
COMPONENTS = {"radiographs": 32, "volumes": 16}
SAMPLE = 12_000  # regions of images to learn from, that components are computed of


def descriptors(ph, seed, work):
    """(regions, d) float32 of all regions, the last 2 columns (3 of volumes) where they are; kept in `work`."""
    told = repr((REVISION, ph.kind, seed, len(ph.image), COMPONENTS)).encode() + ph.corners.tobytes()
    path = Path(work) / f"descriptors-{ph.kind}-{seed}-{hashlib.sha256(told).hexdigest()[:10]}.npy"
    with FileLock(path.with_suffix(".lock")):
        if not path.exists():
            made = (_of_radiographs if ph.kind == "radiographs" else _of_volumes)(ph, seed)
            with path.with_suffix(".part").open("wb") as file:
                np.save(file, made)
            path.with_suffix(".part").replace(path)
    return np.load(path, mmap_mode="r")


def _of_radiographs(ph, seed):
    def patches(i):
        corners = ph.corners[ph.rows(i)]
        boxes = np.hstack([corners, corners + PATCH]).astype(np.int32)
        cut = regions.cut(ph.pixels[i].astype(np.float32), boxes)
        return cut, regions.features(cut, boxes, tuple(ph.body[i].tolist()))

    return _described(ph, seed, patches)


def _of_volumes(ph, seed):
    low, high = -1000.0, 200.0  # HU: air, lung, fluid and tissue are told apart

    def cubes(i):
        corners = ph.corners[ph.rows(i)]
        volume = np.clip((ph.pixels[i].astype(np.float32) - low) / (high - low), 0, 1)
        windows = np.lib.stride_tricks.sliding_window_view(volume, CUBE)
        cut = np.ascontiguousarray(windows[tuple(corners.T)])
        middle = cut[:, CUBE[0] // 2]
        boxes = np.hstack([corners[:, 1:], corners[:, 1:] + CUBE[1:]]).astype(np.int32)
        body = ph.body[i]
        texture = regions.features(middle, boxes, (int(body[1]), int(body[2]), int(body[4]), int(body[5])))
        height = (corners[:, :1] + CUBE[0] / 2 - body[0]) / (body[3] - body[0])
        spread = np.stack([cut.max(axis=(1, 2, 3)), cut.min(axis=(1, 2, 3)), cut.std(axis=(1, 2, 3))], axis=1)
        parts = [spread, texture[:, :-2], np.clip(height, 0, 1), texture[:, -2:]]
        return cut, np.hstack(parts).astype(np.float32)

    return _described(ph, seed, cubes)


def _described(ph, seed, of_image):
    """Components of patches, beside what else `of_image` gives of each image: (patches, features)."""
    rng = np.random.default_rng([seed, 3])
    train = ph.of("train")
    chosen = np.sort(rng.choice(train, min(len(train), 300), replace=False))
    each = max(1, SAMPLE // len(chosen))
    sample = []
    for i in chosen:
        cut, _ = of_image(i)
        sample.append(_flat(cut)[rng.choice(len(cut), min(each, len(cut)), replace=False)])
    components = PCA(COMPONENTS[ph.kind], svd_solver="randomized", random_state=seed).fit(np.concatenate(sample))
    rows = []
    for i in range(len(ph.part)):
        cut, features = of_image(i)
        rows.append(np.hstack([components.transform(_flat(cut)), features]))
    return np.concatenate(rows).astype(np.float32)


def _flat(patches):
    return patches.reshape(len(patches), -1)
