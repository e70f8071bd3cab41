"""The comparison of the AnoGAN paper (Schlegl et al. 2017, its figures 3 and 4), drawn anew from real radiographs.

    python benchmarks/pictures_anogan.py ../shared/data/kermany docs/anomaly [--work FOLDER] [--models FOLDER]

Learns from the healthy of the set and tests on its test part, as `benchmarks/anomaly.py` splits it (seed 0), at 64 x 64
pixels. Writes

- anogan-models.png      ROC curves of the models: P_D, aCAE, GAN_R, AnoGAN, f-AnoGAN
- anogan-components.png  ROC curves of the terms of AnoGAN's score
- anogan-residuals.png   healthy and sick images, the nearest that the GAN can make, and where they differ
"""

import argparse
from pathlib import Path
from tempfile import gettempdir

import anomaly_models
import numpy as np
import torch
from anomaly_data import Dataset, Images
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score, roc_curve

from phenotype.models import build, family
from phenotype.models.anogan import COMPARISON
from phenotype.models.base import residual_map
from phenotype.models.mapping import SCHEDULES
from phenotype.models.train import train

TRAINING = {"anogan": 1200, "f-anogan": 700, "adversarial-cae": 500}  # steps: some four minutes of one core in all
SHOWN = 6  # images of each kind


def draw(data_folder: Path, out_folder: Path, models: dict | None = None, work: Path | None = None) -> dict[str, float]:
    """Write the three pictures to `out_folder`; returns the AUROC of each curve by its name.

    `models` are trained models by family name, of 64 x 64 pixels; what is missing is trained here, with `TRAINING`
    steps, and kept in `work`: called again, it is read.
    """
    work = work or Path(gettempdir()) / "phenotype-anogan"
    data = Dataset(data_folder.name, data_folder, work)
    split, views = data.split(0), data.views(64)
    models = dict(models or {})
    for name in TRAINING:
        models[name] = models.get(name) or trained(name, Images(views[np.sort(split.train)]), work / name)
    x = {
        kind: torch.from_numpy(Images(views).take(np.sort(rows)))
        for kind, rows in (("healthy", split.healthy), ("sick", split.sick))
    }
    both, sick = torch.cat([x["healthy"], x["sick"]]), np.repeat([0, 1], [len(x["healthy"]), len(x["sick"])])

    anogan = models["anogan"]
    mapped = anogan.map_to_latent(both)
    with torch.no_grad():
        terms = anogan.scaled(anogan.terms(both, mapped.images))
    by_model = {
        "P_D: discriminator alone": anogan.scored_by(**COMPARISON["P_D"]).score(both)[0],
        "aCAE": models["adversarial-cae"].score(both)[0],
        "GAN_R: guided by cross-entropy": anogan.scored_by(**COMPARISON["GAN_R"]).score(both)[0],
        "AnoGAN": mapped.loss,
        "f-AnoGAN": models["f-anogan"].score(both)[0],
    }
    by_term = {
        "residual": terms["residual"],
        "discrimination: features": terms["feature"],
        "discrimination: cross-entropy": terms["cross-entropy"],
        "combined, lambda 0.1": mapped.loss,
    }
    out_folder.mkdir(parents=True, exist_ok=True)
    found = roc(out_folder / "anogan-models.png", sick, by_model, "Models")
    found |= roc(out_folder / "anogan-components.png", sick, by_term, "Terms of AnoGAN's score")
    spread = [np.linspace(0, len(part) - 1, SHOWN).astype(int) for part in x.values()]
    shown = torch.from_numpy(np.concatenate([spread[0], len(x["healthy"]) + spread[1]]))
    nearest = anogan.map_to_latent(both[shown], SCHEDULES["fast"]).images
    residuals(out_folder / "anogan-residuals.png", both[shown], nearest)
    return found


def trained(name, images, folder):
    """A model of the family, trained on `images` or read from `folder`."""
    model = build(name, 64, seed=0)
    row = family(name)
    train(
        model,
        images,
        folder=folder,
        steps=TRAINING[name],
        batch_size=row.batch_size,
        seed=0,
        learning_rate=row.learning_rate,
        checkpoint_every=200,
    )
    return model


def roc(path, truth, scores, title):
    """ROC curves in one picture; returns their AUROCs."""
    figure = Figure(figsize=(5.2, 5.2), layout="constrained")
    axes = figure.subplots()
    found = {}
    for name, values in scores.items():
        found[name] = float(roc_auc_score(truth, values.numpy()))
        rates = roc_curve(truth, values.numpy())
        axes.plot(rates[0], rates[1], lw=1.8, label=f"{name}: {found[name]:.2f}")
    axes.plot([0, 1], [0, 1], color="0.7", lw=1, ls=":")
    axes.set(xlabel="healthy images flagged", ylabel="sick images flagged", aspect="equal", xlim=(0, 1), ylim=(0, 1))
    axes.set_title(f"{title}: AUROC, {int((truth == 0).sum())} healthy, {int(truth.sum())} sick", fontsize=10)
    axes.legend(loc="lower right", fontsize=8, frameon=False)
    figure.savefig(path, dpi=110)
    return found


def residuals(path, x, again):
    """Rows of images, of what was generated for them, and of their residuals over the images."""
    maps = residual_map(x, again).numpy()
    top = float(np.quantile(maps, 0.995))  # one scale for all: what is red is red everywhere
    figure = Figure(figsize=(1.15 * len(x), 3.9), layout="constrained")
    rows = figure.subplots(3, len(x))
    for column, (image, made, residual) in enumerate(zip(x[:, 0].numpy(), again[:, 0].numpy(), maps, strict=True)):
        rows[0, column].set_title("healthy" if column < SHOWN else "sick", fontsize=9)
        for axes, picture in zip(rows[:, column], (image, made, image), strict=True):
            axes.imshow(picture, cmap="gray", vmin=0, vmax=1)
            axes.set(xticks=[], yticks=[])
        seen = np.clip(residual / top, 0, 1)
        rows[2, column].imshow(residual, cmap="autumn_r", vmin=0, vmax=top, alpha=0.75 * seen)
    for axes, name in zip(rows[:, 0], ("image", "nearest generated", "residual"), strict=True):
        axes.set_ylabel(name, fontsize=8)
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the set, called kermany or shenzhen")
    parser.add_argument("out", type=Path, help="where the pictures go")
    parser.add_argument("--work", type=Path, help="where trained models are kept")
    parser.add_argument("--models", type=Path, help="work folder of `anomaly.py`: its models of seed 0, not others")
    parser.add_argument("--share", type=float, default=1.0, help="as that was run with")
    args = parser.parse_args()
    torch.set_num_threads(1)
    models = {}
    if args.models:
        data = Dataset(args.data.name, args.data, args.models)
        models = {name: anomaly_models.trained(data, name, 0, args.share)[0] for name in TRAINING}
    for name, figure in draw(args.data, args.out, models, args.models or args.work).items():
        print(f"{figure:.3f}  {name}")


if __name__ == "__main__":
    main()
