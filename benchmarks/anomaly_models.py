"""What `benchmarks/anomaly.py` measures: the table of models, and everything that is measured of one of them."""

import json
import shutil
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from anomaly_data import TRUTH, Images
from filelock import FileLock
from torch.nn import functional

from phenotype.models import MODELS, build, family, model_class
from phenotype.models.alarms import aucp, brightness, drift_alarm, inversion_alarm
from phenotype.models.anogan import COMPARISON
from phenotype.models.base import Recipe
from phenotype.models.calibrate import calibrate, score_source
from phenotype.models.ensemble import Ensemble
from phenotype.models.figures import PixelFigures, auroc, average_precision
from phenotype.models.files import load_model
from phenotype.models.train import train

# The recommended models. `name` scores images; it was chosen on seed 0 of Kermany and Shenzhen, labels in view.
BEST = {"name": "radiograph+symmetry", "maps": "fused", "pretrained": "fused:denoiser+patchcore-lite0+radiograph"}
NO_DETECTORS = {  # told classes, made for something else, or there as a scoring of another training
    "classifier",
    "dcgan",  # anogan:P_D
    "wgan",  # its critic's value has no zero; the network of f-anogan
    "coarse-dae",  # fused:denoiser
    "planted",  # fused:detector
}
ENSEMBLES = (BEST["name"], BEST["pretrained"], "fused+radiograph", "fused:denoiser+radiograph")


@dataclass(frozen=True)
class Row:
    """How a model is trained and scored; what is left out is the family's own default."""

    family: str
    size: int = 64
    parameters: dict = field(default_factory=dict)
    scored_by: dict = field(default_factory=dict)


# The same training scored in other ways, and what the lecture calls it.
VARIANTS = {
    "anogan:P_D": Row("anogan", scored_by=COMPARISON["P_D"]),
    "anogan:GAN_R": Row("anogan", scored_by=COMPARISON["GAN_R"]),
    "anogan:ssim": Row("anogan", scored_by={"term": "ssim"}),
    "f-anogan:residual": Row("f-anogan", scored_by={"term": "residual"}),
    "f-anogan:ssim": Row("f-anogan", scored_by={"term": "ssim"}),
    "cae:residual": Row("cae", scored_by={"term": "residual"}),
    "vae:residual": Row("vae", scored_by={"term": "residual"}),
    "pca:residual": Row("pca", scored_by={"term": "residual"}),
    "pca:mahalanobis": Row("pca", scored_by={"term": "mahalanobis"}),
    "gmm:density": Row("gmm", scored_by={"term": "density"}),
    "fused:denoiser": Row("fused", scored_by={"term": "denoiser"}),
    "fused:detector": Row("fused", scored_by={"term": "detector"}),
    "symmetry:asymmetry": Row("symmetry", size=128, scored_by={"term": "asymmetry"}),
    "symmetry:sharpness": Row("symmetry", size=128, scored_by={"term": "sharpness"}),
}
# Families that want something else than 64 x 64 pixels and their own defaults.
SETTINGS = {
    "patchcore-lite0": Row("patchcore-lite0", size=128),
    "padim-lite0": Row("padim-lite0", size=128),
    "texture": Row("texture", size=128),
    "radiograph": Row("radiograph", size=128),
    "symmetry": Row("symmetry", size=128),
}
FULL = {"fused", "radiograph"}  # the recommended ones train in full, whatever --share says


def ROWS():
    """All rows by name, plain baselines and ensembles included."""
    rows = {name: Row(name) for name in MODELS if _detects(name)} | VARIANTS | SETTINGS
    rows = {name: row for name, row in rows.items() if row.family in MODELS}
    return rows | {name: Row(name) for name in BASELINES} | {name: Row(name) for name in ENSEMBLES}


def names():
    return sorted(ROWS())


def _detects(name):
    return name not in NO_DETECTORS and model_class(name).told == "nothing" and 2 in model_class(name).dimensions


# ---------------------------------------------------------------------------------------------- plain baselines


class Plain:
    """A score that anybody could think of, with what `calibrate` asks of a model."""

    device = torch.device("cpu")

    def __init__(self, name, size, views):
        self.name, self.recipe = name, Recipe(size=size)
        self.mean = torch.from_numpy(views.mean(0))
        self.spread = torch.from_numpy(views.std(0)).clamp(min=0.02)

    def score(self, x, inside=None):
        maps = BASELINES[self.name](self, x[:, 0])
        return maps.mean((1, 2)), maps


def _gradient(_, x):
    down, right = x.diff(dim=1, append=x[:, -1:]), x.diff(dim=2, append=x[:, :, -1:])
    return down.square() + right.square()


BASELINES = {
    "plain:brightness": lambda _, x: x,
    "plain:z-score": lambda own, x: ((x - own.mean) / own.spread).abs(),
    "plain:gradient": _gradient,
}


# ---------------------------------------------------------------------------------------------- one job


def measure(data, name, seed, share):
    """Train (`share` of the family's steps) and measure a model on a set: rows for its images and planted lesions."""
    torch.set_num_threads(1)
    model, split, seconds = trained(data, name, seed, share)
    views = data.views(model.recipe.size)
    parts = {part: Images(views[getattr(split, part)]) for part in ("train", "held_out", "healthy", "sick")}
    patients = split.patients[split.held_out]
    calibration = calibrate(model, parts["held_out"], parts["train"], groups=patients)
    with clock() as scoring:
        found = {part: scored(model, parts[part]) for part in ("held_out", "healthy", "sick")}
    truth = np.repeat([0, 1], [len(parts["healthy"]), len(parts["sick"])])
    scores = {part: one[0] for part, one in found.items()}
    both = np.concatenate([scores["healthy"], scores["sick"]])
    area, precision = auroc(truth, both), average_precision(truth, both)
    plain = np.concatenate([brightness(parts[part].views.astype(np.float32)) for part in ("healthy", "sick")])
    images = sum(len(one) for one in scores.values())
    p = calibration.p_values(both)
    common = {"key": data.key, "model": name, "trained": ROWS()[name].family, "seed": seed, "share": share}
    row = common | {
        "data": data.name,
        "size": model.recipe.size,
        "images": {part: len(one) for part, one in parts.items()},
        **_figure("image_auroc", area),
        **_figure("ap", precision),
        "seconds": seconds,
        "ms_per_image": 1000 * scoring.seconds / images,
        "shift_auroc": auroc(
            np.repeat([0, 1], [len(patients), len(parts["healthy"])]),
            np.concatenate([scores["held_out"], scores["healthy"]]),
        ).value,
        "brightness_auroc": auroc(truth, plain).value,
        "aucp": aucp(calibration.scores, both),
        "p05_healthy": float((p[truth == 0] <= 0.05).mean()),
        "p05_sick": float((p[truth == 1] <= 0.05).mean()),
        "pixel_p05": pixel_share(model, parts["held_out"], parts["train"], patients, seed),
        "pixel_p05_healthy": float((calibration.pixel_p_values(found["healthy"][1]) <= 0.05).mean()),
        "alarms": [
            asdict(a)
            for a in (
                *calibration.alarms,
                inversion_alarm(calibration.scores, both),
                drift_alarm(calibration.scores, scores["healthy"]),
            )
        ],
    }
    return [row, common | planted(data, model, split, calibration, scores["healthy"])]


def planted(data, model, split, calibration, healthy_scores):
    """Image and pixel figures of lesions planted into the healthy test images; of phantoms, of the sick ones' own."""
    views, masks = data.planted(model.recipe.size)
    places = split.sick if data.name == "demo" else split.healthy
    scores, maps = scored(model, Images(views[places]))
    truth = np.repeat([0, 1], [len(healthy_scores), len(scores)])
    z = at_truth(calibration.z_maps(maps))
    figures = PixelFigures(z, masks[places]).intervals()
    return {
        "data": f"{data.name}-lesions",
        "size": model.recipe.size,
        **_figure("image_auroc", auroc(truth, np.concatenate([healthy_scores, scores]))),
        **_figure("ap", average_precision(truth, np.concatenate([healthy_scores, scores]))),
        **{k: v for name, figure in figures.items() for k, v in _figure(f"pixel_{name}", figure).items()},
        "pixel_ap_raw": PixelFigures(at_truth(maps), masks[places])()["ap"],
        "pixels_marked": float(masks[places].mean()),
    }


def pixel_share(model, held_out, training, patients, seed):
    """Share of pixels with p <= 0.05 of one half of the held-out patients, calibrated on the other, and vice versa."""
    known = np.random.default_rng([seed, 5]).permutation(np.unique(patients))
    first = np.isin(patients, known[: len(known) // 2])
    shares = []
    for reference, query in ((first, ~first), (~first, first)):
        calibration = calibrate(model, Images(held_out.views[reference]), training, groups=patients[reference])
        p = calibration.pixel_p_values(scored(model, Images(held_out.views[query]))[1])
        shares.append(float((p <= 0.05).mean()))
    return float(np.mean(shares))


def scored(model, images):
    """Scores (n,) and maps (n, side, side) of all images."""
    found = [(scores, maps) for _, scores, maps in score_source(model, images)]
    return np.concatenate([s for s, _ in found]), np.concatenate([m for _, m in found])


def at_truth(maps):
    """Maps at the size of the masks."""
    if maps.shape[1] == TRUTH:
        return maps
    return functional.interpolate(torch.from_numpy(maps)[:, None], size=(TRUTH, TRUTH), mode="area")[:, 0].numpy()


def _figure(name, figure):
    return {name: figure.value, f"{name}_low": figure.low, f"{name}_high": figure.high}


# ---------------------------------------------------------------------------------------------- training


def trained(data, name, seed, share):
    """The model, the split it was trained on, and CPU seconds of training."""
    split = data.split(seed)
    if name in ENSEMBLES:
        members, seconds = [], 0.0
        for member in name.split("+"):
            model, _, took = trained(data, member, seed, share)
            views = data.views(model.recipe.size)
            calibration = calibrate(
                model, Images(views[split.held_out]), Images(views[split.train]), groups=split.patients[split.held_out]
            )
            members.append((model, calibration))
            seconds += took
        return Ensemble(members), split, seconds
    row = ROWS()[name]
    training = Images(data.views(row.size)[split.train])
    if name in BASELINES:
        with clock() as taken:
            model = Plain(name, row.size, training.views.astype(np.float32))
        return model, split, taken.seconds
    model, seconds = _trained(data, row, training, seed, share)
    return model.scored_by(**row.scored_by) if row.scored_by else model, split, seconds


def _trained(data, row, training, seed, share):
    own = family(row.family)
    steps = own.steps if row.family in FULL else round(share * own.steps)
    told = "-".join(f"{k}={v}" for k, v in sorted(row.parameters.items()))
    folder = data.work / "models" / f"{data.name}-{data.key}-{row.family}-{row.size}-{told}-{seed}-{steps}"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):  # another process may want the same training
        took = folder / "seconds.json"
        if took.exists():
            return load_model(folder), json.loads(took.read_text())["cpu"]
        shutil.rmtree(folder)
        model = build(row.family, row.size, seed=seed, **row.parameters)
        with clock() as taken:
            train(
                model,
                training,
                folder=folder,
                steps=steps,
                batch_size=own.batch_size,
                seed=seed,
                learning_rate=own.learning_rate,
                checkpoint_every=10**9,
            )
        took.write_text(json.dumps({"cpu": taken.seconds}))
        return model.eval(), taken.seconds


@contextmanager
def clock():
    """CPU seconds of this process."""

    class Taken:
        seconds = 0.0

    taken, started = Taken(), time.process_time()
    try:
        yield taken
    finally:
        taken.seconds = time.process_time() - started
