"""The lesions that the benchmark plants are where their masks say, and what it makes of data it has never seen."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from model_images import normal
from PIL import Image
from scipy import ndimage

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def plant(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    from lesions import plant

    return plant


@pytest.mark.parametrize("shape", [(64, 64), (150, 120)])
def test_a_lesion_is_where_its_mask_says(plant, shape):
    rng = np.random.default_rng(3)
    shares, changes, up, several = [], [], [], []
    for image in normal(60, 64, seed=1)[:, 0]:
        healthy = np.clip(ndimage.zoom(image, np.array(shape) / 64, order=1), 0, 1)
        lesioned, mask = plant(healthy, rng)
        change = lesioned - healthy
        assert lesioned.min() >= 0 and lesioned.max() <= 1 and mask.any()
        assert np.abs(change[mask]).min() > 0.49 * np.abs(change).max() > np.abs(change[~mask]).max() * 0.95
        shares.append(mask.mean())
        changes.append(np.abs(change).max())
        up.append(change[mask].mean() > 0)
        several.append(ndimage.label(mask)[1])
        row, column = np.argwhere(mask).mean(0) / shape
        assert 0 < row < 1 and 0 < column < 1
    assert 0.01 < np.mean(shares) < 0.06  # small
    assert 0.03 < np.median(changes) < 0.3  # and soft
    assert 0.5 < np.mean(up) < 0.9 and max(several) > 1


def test_the_same_chance_gives_the_same_lesion(plant):
    image = normal(1, 64, seed=1)[0, 0]
    (one, mask), (again, _) = (plant(image, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(one, again)
    assert (np.abs(one - image)[~ndimage.binary_dilation(mask, iterations=30)] < 0.02).all()


def test_the_benchmark_runs_on_anything_and_continues(tmp_path):
    """Few images of another size without lung masks, one of them missing, one twice."""
    folder = tmp_path / "shenzhen"
    folder.mkdir()
    images = normal(80, 64, seed=1)[:, 0]
    images[60:, 20:44, 12:28] = ndimage.gaussian_filter(images[60:, 20:44, 12:28], (0, 3, 3)) + 0.2
    with (folder / "readings.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["accession", "image", "lung_mask", "sex", "age", "reading", "tuberculosis"])
        for n, image in enumerate(images):
            Image.fromarray((image.clip(0, 1) * 255).astype(np.uint8)).save(folder / f"{n}.png")
            rows.writerow([f"A{n}", f"{n}.png", "", "", "", "normal" if n < 60 else "PTB", int(n >= 60)])
        rows.writerow(["A98", "98.png", "", "", "", "normal", 0])
        rows.writerow(["A99", "0.png", "", "", "", "normal", 0])

    def run(models):
        call = [BENCHMARKS / "anomaly.py", "--shenzhen", folder, "--model", models, "--seeds", 1, "--jobs", 0]
        call += ["--work", tmp_path / "work", "--json", tmp_path / "found.json"]
        told = subprocess.run([sys.executable, *map(str, call)], check=True, capture_output=True, text=True).stdout
        return told, json.loads((tmp_path / "found.json").read_text())

    told, found = run("pca,plain:brightness")
    assert "1 images of the list are not there" in told and "shenzhen: 80 images" in told
    rows = {(row["model"], row["data"]): row for row in found["results"]}
    assert len(rows) == 4 and "name" in found["best"]
    row = rows["pca", "shenzhen"]
    assert row["image_auroc_low"] <= row["image_auroc"] <= row["image_auroc_high"] and row["image_auroc"] > 0.7
    assert row["images"] == {"train": 36, "held_out": 9, "healthy": 15, "sick": 20}
    assert 0 < rows["pca", "shenzhen-lesions"]["pixel_ap"] < 1
    again, same = run("pca,plain:brightness")
    assert "pca" not in again and same == found
