"""Pictures of the autoencoder families, for docs/models.md.

    python benchmarks/pictures_ae.py OUT          # about 4 CPU minutes; needs no data
    python benchmarks/pictures_ae.py OUT discs    # ae_pca.png alone, 16 CPU seconds

`draw_discs` writes ae_pca.png, on the images of tests/models/test_reconstruction.py; `draw_phantoms` what phantom
radiographs show: ae_pca_phantoms.png, pca_components.png, stacked_code.png and vae_samples.png. Both return the figures
that belong beside them; `draw` does both.
"""

import json
import sys
import tempfile
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch

from phenotype.demo.lesions import radiograph
from phenotype.demo.thorax import draw_build, draw_view
from phenotype.imaging.window import standardize
from phenotype.models import build
from phenotype.models.train import train

SIZE, TRAINING, TEST = 64, 400, 100


class Images:
    """A source over an array."""

    def __init__(self, array):
        self.array = array

    def __len__(self):
        return len(self.array)

    def take(self, indices):
        return self.array[indices]


def draw(out_folder):
    """Write all pictures to `out_folder`; returns the figures."""
    return draw_discs(out_folder) | draw_phantoms(out_folder)


def draw_phantoms(out_folder):
    """Write the pictures of phantoms; returns mean squared errors of 100 unseen ones and what else is seen."""
    mpl.use("Agg")
    out = Path(out_folder)
    out.mkdir(parents=True, exist_ok=True)
    array, sex = phantoms(TRAINING + TEST, seed=0)
    training, x = Images(array[:TRAINING]), torch.from_numpy(array[TRAINING:])
    models = {
        "PCA, 30": learn("pca", training, 0, components=30),
        "autoencoder, 30": learn("cae", training, 800, latent=30, ssim_weight=0.0),
        "VAE, 32": learn("vae", training, 800),
        "stacked, 2": learn("stacked", training, 800, hidden="500-250-100"),
    }
    with torch.no_grad():
        again = {name: model.reconstruct(x) for name, model in models.items()}
        codes = models["stacked, 2"].embed(x).numpy()
        drawn = models["VAE, 32"].sample(16, torch.Generator().manual_seed(0))
    figures = {"mean image": float((x - torch.from_numpy(training.array).mean(0)).pow(2).mean())}
    figures |= {name: float((one - x).pow(2).mean()) for name, one in again.items()}
    figures = {f"mean squared error, {name}": round(value, 6) for name, value in figures.items()}
    bright = x.mean((1, 2, 3)).numpy()
    _, *fit = np.linalg.lstsq(np.c_[codes, np.ones(TEST)], bright, rcond=None)
    figures["R2 of brightness from the stacked code"] = round(1 - float(fit[0][0] / (bright.var() * TEST)), 3)

    rows = {"original": x, **{name: again[name] for name in ("PCA, 30", "autoencoder, 30")}}
    sheet(out / "ae_pca_phantoms.png", {name: one[:8] for name, one in rows.items()})
    # The directions have any sign and scale: the mean and one component a picture, each stretched to its own range.
    pca = models["PCA, 30"]
    shown = torch.cat([pca.mean[None], pca.components[:15]]).reshape(2, 8, 1, SIZE, SIZE)
    low, high = shown.amin((2, 3, 4), keepdim=True), shown.amax((2, 3, 4), keepdim=True)
    shown = (shown - low) / (high - low)
    sheet(out / "pca_components.png", {"mean, 1 to 7": shown[0], "8 to 15": shown[1]})
    sheet(out / "vae_samples.png", {"original": x[:8], "drawn": drawn[:8], "drawn ": drawn[8:]})
    scatter(out / "stacked_code.png", codes, bright, sex[TRAINING:])
    return figures


def draw_discs(out_folder):
    """Write ae_pca.png to `out_folder`: 30 numbers an image, as components and as a code; returns the errors."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "models"))
    from test_reconstruction import discs, trained

    mpl.use("Agg")
    out = Path(out_folder)
    out.mkdir(parents=True, exist_ok=True)
    x = torch.from_numpy(discs(100, seed=2))
    with tempfile.TemporaryDirectory() as folder:
        _, linear, model = trained(Path(folder))
    with torch.no_grad():
        again = {"PCA, 30": linear.reconstruct(x), "autoencoder, 30": model.reconstruct(x)}
    errors = {name: float((one - x).pow(2).mean()) for name, one in again.items()}
    title = "mean squared error of 100 unseen images: " + "; ".join(f"{name}: {e:.5f}" for name, e in errors.items())
    sheet(out / "ae_pca.png", {name: one[:8] for name, one in {"original": x, **again}.items()}, title)
    return {f"mean squared error of discs, {name}": round(error, 6) for name, error in errors.items()}


def phantoms(count, seed):
    """Healthy phantom radiographs (n, 1, size, size), and whether each is a woman's."""
    images, female = np.empty((count, 1, SIZE, SIZE), np.float32), np.empty(count, np.bool_)
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        body = draw_build(rng)
        picture, _ = radiograph(body, draw_view(rng), (), clutter=False)
        images[number, 0], female[number] = standardize(picture, "CR", SIZE)[0], body.sex == "F"
    return images, female


def learn(name, images, steps, **parameters):
    """A trained model."""
    model = build(name, SIZE, **parameters)
    plan = {"batch_size": 32, "seed": 0, "learning_rate": 2e-3, "checkpoint_every": 10**6}
    with tempfile.TemporaryDirectory() as folder:
        train(model, images, folder=Path(folder), steps=steps, **plan)
    return model


def sheet(path, rows, title=None):
    """Named rows of images (n, 1, size, size) as one picture."""
    from matplotlib import pyplot as plt

    columns = max(map(len, rows.values()))
    figure, axes = plt.subplots(
        len(rows), columns, figsize=(1.1 * columns + 0.2, 1.15 * len(rows)), squeeze=False, layout="constrained"
    )
    for line, (name, images) in zip(axes, rows.items(), strict=True):
        for axis, image in zip(line, images, strict=True):
            axis.imshow(image[0].clamp(0, 1), cmap="gray", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
        line[0].set_ylabel(name.strip(), fontsize=8)
    figure.suptitle(title, fontsize=9)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def scatter(path, codes, bright, female):
    """Codes of two numbers, coloured by mean grey value; women and men with marks of their own."""
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(4.8, 3.8), layout="constrained")
    for chosen, mark, name in ((female, "o", "woman"), (~female, "^", "man")):
        points = axis.scatter(
            *codes[chosen].T, c=bright[chosen], marker=mark, s=22, label=name, vmin=bright.min(), vmax=bright.max()
        )
    figure.colorbar(points, label="mean grey value")
    axis.set(xlabel="code 1", ylabel="code 2")
    axis.legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    chosen = draw_discs if sys.argv[2:] == ["discs"] else draw
    print(json.dumps(chosen(sys.argv[1]), indent=1))
