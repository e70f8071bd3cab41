"""The pictures of docs/models.md, drawn anew, and the figures beside them.

    python benchmarks/models.py [PART ...] [--data ../shared/data] [--out docs/models] [--work FOLDER]

Parts: game, ring, samples, arithmetic, conditional, mask, healthy, autoencoder; all of them by default. Real
radiographs (Kermany, Shenzhen) are read at 64 x 64 pixels. Writes a picture for each part and their figures to
figures.json beside them, and prints them. Trained models are kept in the work folder: called again, they are read.
Seed 1 throughout, one thread.
"""

import argparse
import csv
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from sklearn.linear_model import LogisticRegression

from phenotype.models import build
from phenotype.models.base import residual_map
from phenotype.models.diagnostics import report
from phenotype.models.games import coverage, mixture, play, ring
from phenotype.models.gan import attribute_vector
from phenotype.models.train import train
from phenotype.models.translation import plant

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
SIZE, SEED = 64, 1
SIGMA = 0.1  # of the ring's modes
# The ring's settings are the same for all losses.
RING = {"steps": 600, "critic_updates": 5, "learning_rate": 2e-3, "batch_size": 64}
TRAINING = {  # steps, batch size, learning rate: less than the families' defaults
    "dcgan": (500, 32, 1e-3),
    "wgan": (400, 32, 1e-3),
    "cgan": (400, 32, 1e-3),
    "pix2pix": (250, 16, 2e-3),
    "healthy": (350, 16, 2e-3),
}


class Told:
    """A source of images (n, 1, size, size), and what is told beside each."""

    def __init__(self, images, told=None):
        self.images, self.told = images, told

    def __len__(self):
        return len(self.images)

    def take(self, indices):
        """Images by index."""
        return self.images[indices]

    def targets(self, indices):
        """What is told, by index."""
        return self.told[indices]


class Work:
    """Data and trained models, each read or made once."""

    def __init__(self, data, folder):
        self.data, self.folder = data, folder

    def images(self, name):
        """Radiographs (n, 1, 64, 64) of "kermany" (healthy children), "pneumonia" (sick ones), "shenzhen"."""
        if name == "shenzhen":
            return read([self.data / "shenzhen" / row["image"] for row in self.readings()])
        part = {"kermany": "train/NORMAL", "pneumonia": "test/PNEUMONIA"}[name]
        return read(sorted((self.data / "kermany" / part).iterdir()))

    def readings(self):
        """Rows of the Shenzhen set."""
        with (self.data / "shenzhen" / "readings.csv").open(encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def trained(self, name, source):
        """A model of the family, trained as TRAINING says."""
        model = build(name, SIZE, seed=SEED)
        steps, batch_size, learning_rate = TRAINING[name]
        train(
            model,
            source,
            folder=self.folder / name,
            steps=steps,
            batch_size=batch_size,
            seed=SEED,
            learning_rate=learning_rate,
            checkpoint_every=100,
        )
        return model


def read(paths):
    """The middle square of each picture, (n, 1, 64, 64) in [0, 1]."""
    images = np.empty((len(paths), 1, SIZE, SIZE), dtype=np.float32)
    for image, path in zip(images, paths, strict=True):
        with Image.open(path) as file:
            grey = file.convert("L")
        side = min(grey.size)
        left, top = (grey.width - side) // 2, (grey.height - side) // 2
        square = grey.crop((left, top, left + side, top + side)).resize((SIZE, SIZE), Image.Resampling.BOX)
        image[0] = np.asarray(square, dtype=np.float32) / 255
    return images


# ---- the parts: each writes a picture and returns figures


def draw_game(work, path):
    """A generator learns numbers: two humps, as the game goes on."""
    centres, sigma = torch.tensor([[-1.5], [1.5]]), 0.4
    grid = torch.linspace(-4, 4, 200)[:, None]
    game = play(mixture(centres, sigma), "non-saturating", steps=1500, seed=SEED, width=32, grid=grid, watch=25)
    shown = [game[at] for at in (0, 3, 11, 59)]
    figure = Figure(figsize=(12, 3), layout="constrained")
    density = np.exp(-0.5 * ((grid - centres.T) / sigma).numpy() ** 2).sum(1) / (2 * sigma * np.sqrt(2 * np.pi))
    for axis, moment in zip(figure.subplots(1, len(shown), sharey=True), shown, strict=True):
        axis.fill_between(grid[:, 0], density, color="0.85", label="real numbers")
        axis.hist(
            moment.samples[:, 0].clamp(-4, 4), bins=60, range=(-4, 4), density=True, histtype="step", label="generated"
        )
        axis.plot(grid[:, 0], moment.judged.sigmoid()[:, 0], "--", color="C3", label="judged real (probability)")
        axis.set(title=f"step {moment.step}", ylim=(0, 1.3))
    figure.axes[0].legend(loc="upper left", fontsize=7)
    figure.savefig(path, dpi=100)
    share = float((game[-1].samples < 0).float().mean())
    return rounded({"share in the left hump": share, "deviation around a hump": float(game[-1].samples.abs().std())})


def draw_ring(work, path):
    """Eight Gaussians: what a plain GAN and a Wasserstein GAN reach of them."""
    losses, seeds = ("non-saturating", "minimax", "wasserstein"), (0, 1, 2)
    figure = Figure(figsize=(9, 9.5), layout="constrained")
    axes = figure.subplots(len(losses), len(seeds), sharex=True, sharey=True)
    found = {}
    for row, loss in zip(axes, losses, strict=True):
        for axis, seed in zip(row, seeds, strict=True):
            samples = play(mixture(ring(), SIGMA), loss, seed=seed, **RING)[-1].samples
            reached = coverage(samples, ring(), SIGMA)
            axis.scatter(*mixture(ring(), SIGMA)(500, torch.Generator().manual_seed(9)).T, s=3, color="0.8")
            axis.scatter(*samples.T, s=3)
            axis.set(xlim=(-3, 3), ylim=(-3, 3), aspect="equal")
            axis.set_title(f"{loss}, seed {seed}: {reached.modes} of 8 modes", fontsize=9)
            found.setdefault(loss, []).append({"modes": reached.modes, "close": round(reached.close, 3)})
    figure.savefig(path, dpi=80)
    return found


def draw_samples(work, path):
    """Radiographs that nobody has."""
    real = work.images("kermany")
    rows, found = {"real": torch.from_numpy(real[:: len(real) // 20][:20])}, {}
    embedder = build("cae", SIZE, seed=SEED)
    for name in ("dcgan", "wgan"):
        model = work.trained(name, Told(real))
        with torch.no_grad():
            rows[name] = model.sample(20, torch.Generator().manual_seed(SEED))
        some = torch.from_numpy(real[::3])
        diagnosis = report(model, some, embedder.embed, torch.Generator().manual_seed(2), len(some))
        found[name] = {"collapsed": diagnosis.collapsed, **rounded(diagnosis.as_dict())}
    sheet(path, {name: images.reshape(2, 10, SIZE, SIZE) for name, images in rows.items()})
    return found


def draw_arithmetic(work, path):
    """z of narrow chests - z of wide ones + z of a wide one = a narrow one."""
    model = work.trained("wgan", Told(work.images("kermany")))
    random = torch.Generator().manual_seed(3)

    def margin(images):
        """Mean grey value beside the chest: dark where it is narrow."""
        return torch.cat([images[:, 0, 20:50, :5], images[:, 0, 20:50, -5:]], 2).mean((1, 2))

    with torch.no_grad():
        z = model.latents(1000, random)
        middle = margin(model.generate(z)).median()
        direction = attribute_vector(z, margin(model.generate(z)) < middle)
        new = model.latents(400, random)
        wide = new[margin(model.generate(new)) > middle]
        other = torch.randn(direction.shape, generator=random)
        other *= direction.norm() / other.norm()
        rows = {f"wide + {times} x": model.generate(wide[:10] + times * direction) for times in (0, 1, 2, 3)}
        narrow, by_chance = (
            float((margin(model.generate(wide + 2 * one)) < middle).float().mean()) for one in (direction, other)
        )
    sheet(path, {name: images.reshape(1, 10, SIZE, SIZE) for name, images in rows.items()})
    return {"wide become narrow": round(narrow, 3), "along another direction": round(by_chance, 3)}


def draw_conditional(work, path):
    """Chests of children and of adults, as asked for."""
    children, adults = work.images("kermany"), work.images("shenzhen")
    images = np.concatenate([children[: len(adults)], adults])
    y = np.repeat([0, 1], len(adults)).astype(np.int64)
    model = work.trained("cgan", Told(images, y))
    # Nobody's judgement but a classifier's that has seen real images alone: every second to learn, the rest to check.
    small = torch.nn.functional.avg_pool2d
    flat = small(torch.from_numpy(images), 4).flatten(1).numpy()
    classifier = LogisticRegression(max_iter=1000).fit(flat[::2], y[::2])
    with torch.no_grad():
        asked = torch.arange(400) % 2
        made = model.sample(400, torch.Generator().manual_seed(SEED), asked)
    recognised = classifier.score(small(made, 4).flatten(1).numpy(), asked.numpy())
    rows = {"children": made[::2][:20], "adults": made[1::2][:20]}
    sheet(path, {name: one.reshape(2, 10, SIZE, SIZE) for name, one in rows.items()})
    checked = classifier.score(flat[1::2], y[1::2])
    return {"made as asked": round(recognised, 3), "the classifier on real images": round(checked, 3)}


def draw_mask(work, path):
    """Radiographs and the lung masks made of them, beside those drawn by hand."""
    kept = [at for at, row in enumerate(work.readings()) if row["lung_mask"]]
    images = work.images("shenzhen")[kept]
    masks = (read([work.data / "shenzhen" / work.readings()[at]["lung_mask"] for at in kept]) > 0.5).astype(np.float32)
    held_out = np.arange(len(kept)) % 5 == 4
    model = work.trained("pix2pix", Told(images[~held_out], masks[~held_out]))
    x, truth = torch.from_numpy(images[held_out]), masks[held_out] > 0.5
    made = model.translate(x)
    usual = np.broadcast_to(masks[~held_out].mean(0) > 0.5, truth.shape)
    overlap = [
        float(np.mean([2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in zip(found, truth, strict=True)]))
        for found in (made.numpy() > 0.5, usual)
    ]
    rows = {"radiograph": x[:10], "made": made[:10], "drawn by hand": torch.from_numpy(truth[:10]).float()}
    sheet(path, {name: one.reshape(1, 10, SIZE, SIZE) for name, one in rows.items()})
    return {
        "held out": int(held_out.sum()),
        "Dice": round(overlap[0], 3),
        "Dice of one mask for all": round(overlap[1], 3),
    }


def draw_healthy(work, path):
    """Lesions, planted and real, and the healthy counterparts of the images."""
    healthy = work.images("kermany")
    held_out = np.arange(len(healthy)) % 10 == 9
    model = work.trained("healthy", Told(healthy[~held_out]))
    truth = torch.from_numpy(healthy[held_out])
    planted = plant(truth, torch.Generator().manual_seed(SEED))
    lesion = (planted - truth).abs() > 0.1
    made = model.translate(planted)
    left = float((made - truth).abs()[lesion].mean() / (planted - truth).abs()[lesion].mean())
    touched = lesion.flatten(1).sum(1).argsort(descending=True)[10:15]
    sick = torch.from_numpy(work.images("pneumonia")[:20:4])
    shown = torch.cat([planted[touched], sick])
    counterparts = model.translate(shown)
    rows = {
        "5 planted, 5 pneumonia": shown,
        "counterpart": counterparts,
        "difference x 4": 4 * residual_map(shown, counterparts),
    }
    sheet(path, {name: one.reshape(1, 10, SIZE, SIZE) for name, one in rows.items()})
    changed = float((model.translate(truth) - truth).abs().mean())
    return {"of a planted lesion left": round(left, 3), "healthy images change by": round(changed, 4)}


def draw_autoencoder(work, path):
    """Autoencoders and principal components on phantoms: several pictures of another benchmark."""
    try:
        from pictures_ae import draw
    except ImportError:
        return {"left out": "benchmarks/pictures_ae.py is not there"}
    return draw(path.parent)


PARTS = {
    "game": draw_game,
    "ring": draw_ring,
    "samples": draw_samples,
    "arithmetic": draw_arithmetic,
    "conditional": draw_conditional,
    "mask": draw_mask,
    "healthy": draw_healthy,
    "autoencoder": draw_autoencoder,
}


def sheet(path, rows):
    """A picture of named rows (lines, columns, h, w) of images in [0, 1], at twice their size."""
    lines = [line for images in rows.values() for line in images]
    names = [name if not at else "" for name, images in rows.items() for at in range(len(images))]
    columns = len(lines[0])
    figure = Figure(figsize=(columns * 1.0 + 1.2, len(lines) * 1.05), layout="constrained")
    for axes, line, name in zip(np.atleast_2d(figure.subplots(len(lines), columns)), lines, names, strict=True):
        for axis, image in zip(axes, line, strict=True):
            axis.imshow(image, cmap="gray", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
        axes[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
    figure.savefig(path, dpi=100)


def rounded(figures):
    """Figures as they are printed."""
    return {name: round(value, 3) for name, value in figures.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--data", type=Path, default=SHARED)
    parser.add_argument("--out", type=Path, default=Path("docs/models"))
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "phenotype-models")
    args = parser.parse_args()
    unknown = set(args.parts) - set(PARTS)
    if unknown:
        parser.error(f"no part is called {', '.join(sorted(unknown))}; known are {', '.join(PARTS)}")
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    written = args.out / "figures.json"
    figures = json.loads(written.read_text(encoding="utf-8")) if written.exists() else {}
    for part in args.parts or PARTS:
        started = time.process_time()
        figures[part] = PARTS[part](Work(args.data, args.work), args.out / f"{part}.png")
        print(part, f"{time.process_time() - started:.0f} CPU s", json.dumps(figures[part]), flush=True)
        written.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
