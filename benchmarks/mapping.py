"""AnoGAN's mapping and f-AnoGAN's score: how fast, how near to the best, and whether an image's score is its own.

    python benchmarks/mapping.py [--data ../shared/data/kermany] [--threads 2] [--quick] [--json FILE]

Speed at 64 x 64 pixels with the paper's width, 64 (speed does not depend on what the weights are), beside
the rate at which this machine multiplies matrices. A search of 500 steps is timed over a few steps; each line says how
many. Then equality over batches, the loss that schedules reach on a GAN trained shortly on real images, and, where
`pyod` is installed, its AnoGAN and ALAD on the same images.
"""

import argparse
import importlib.util
import json
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

import numpy as np
import torch
from anomaly_data import Dataset, Images
from sklearn.metrics import roc_auc_score
from torch.utils.flop_counter import FlopCounterMode

from phenotype.models import build
from phenotype.models.calibrate import spearman
from phenotype.models.mapping import SCHEDULES, Schedule, frozen, random_starts, search
from phenotype.models.train import train

PAPER = 500  # steps
SIZE, WIDE, NARROW = 64, 64, 16


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a set of radiographs; without it, only speed and equality")
    parser.add_argument("--quick", action="store_true", help="small counts: to see that it works")
    parser.add_argument("--json", type=Path, help="where the results go")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    found = {"threads": args.threads, "quick": args.quick, "sgemm_gflops": sgemm()}
    print(f"{args.threads} threads, matrix products at {found['sgemm_gflops']:.0f} GFLOP/s")
    found["speed"] = speed(args.quick, found["sgemm_gflops"])
    found["f-anogan"] = feed_forward(args.quick, found["sgemm_gflops"])
    found["equality"] = equality(args.quick)
    if args.data:
        data = Dataset(args.data.name, args.data, Path(gettempdir()) / "phenotype-anomaly")
        split, views = data.split(0), data.views(SIZE)
        few = 12 if args.quick else 48
        healthy, sick = (Images(views).take(np.sort(rows)[:few]) for rows in (split.healthy, split.sick))
        training = Images(views[np.sort(split.train)])
        model = shortly_trained(args.quick, training)
        found["schedules"] = schedules(args.quick, model, torch.from_numpy(healthy))
        found["accuracy"] = accuracy(args.quick, model, training, healthy, sick)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")


# ---------------------------------------------------------------------------------------------- speed


def best_of(function, times):
    """Seconds of the fastest of `times` calls, after one that is not counted."""
    function()
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        function()
        taken.append(time.perf_counter() - started)
    return min(taken)


def sgemm(n=1536):
    """GFLOP/s of a product of two square matrices."""
    a, b = torch.randn(n, n), torch.randn(n, n)
    return 2 * n**3 / best_of(lambda: a @ b, 8) / 1e9


def flops(function, *inputs):
    """Floating-point operations of a call without gradients."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        function(*inputs)
    return counter.get_total_flops()


def usual_step(model, x, features, z, optimizer):
    """What most loops do: the gradients of all weights are computed with that of z, and never used."""
    again = model.generate(z)
    residual = (again - x).abs().sum()
    feature = (model.features(again) - features).abs().sum()
    optimizer.zero_grad()
    model.zero_grad()
    (0.9 * residual + 0.1 * feature).backward()
    optimizer.step()


def mapping_of(model, x, channels_last, steps):
    """`steps` steps of the search, with networks frozen."""
    still = frozen(model, channels_last)
    start = random_starts(x, model.recipe.latent)
    with torch.no_grad():
        features = still.features(x)
    schedule = Schedule(steps, 0.05, cosine=False, from_encoder=False)
    return lambda: search(still.generate, still._mapping_loss, (x, features), start, schedule)


def speed(quick, peak):
    """Seconds of the paper's 500 steps for an image, by each way of taking them."""
    model = build("anogan", SIZE, width=WIDE, scales="paper").requires_grad_(True)
    x = torch.rand(32, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    ways = {}

    def usual(n):
        z = torch.randn(n, model.recipe.latent).requires_grad_()
        return partial(usual_step, model, x[:n], model.features(x[:n]).detach(), z, torch.optim.Adam([z], lr=0.05))

    # The gradient in z costs as much as the way there, the gradients of the weights as much again.
    once = flops(lambda: model.features(model.generate(torch.zeros(1, model.recipe.latent))))
    ways["one image at a time, gradients of weights left on"] = (usual(1), 1, 4 if quick else 30, 1, 3 * once)
    ways["32 at a time, gradients of weights left on"] = (usual(32), 32, 1 if quick else 3, 1, 3 * once)
    steps = 1 if quick else 5
    for name, last in (("32 at a time, networks frozen", False), ("32, frozen, channels last", True)):
        # After its last step `search` looks once more where it came to.
        ways[name] = (mapping_of(model, x, last, steps), 32, 1 if quick else 2, steps, (2 + 1 / steps) * once)
    found = {}
    for name, (function, images, times, taken, done) in ways.items():
        each = best_of(function, times) / taken / images
        share = done / each / 1e9 / peak
        if done < 3 * once:  # of 500 steps the last look is nothing
            each *= 2 * once / done
        found[name] = {"images_per_second": 1 / (PAPER * each), "share_of_sgemm": share, "steps_timed": taken * times}
        print(
            f"{name}: {PAPER * each:.2f} s an image for {PAPER} steps, {1 / (PAPER * each):.3f} images/s, "
            f"{share:.0%} of the matrix rate (extrapolated from {taken * times} steps)"
        )
    rates = [row["images_per_second"] for row in found.values()]
    fast = rates[-1] * PAPER / SCHEDULES["fast"].steps
    found["fast schedule"] = {"images_per_second": fast, "times_the_usual_loop": fast / rates[0]}
    print(
        f"fast schedule, {SCHEDULES['fast'].steps} steps instead of {PAPER}: {fast:.2f} images/s, "
        f"{fast / rates[0]:.1f} times the usual loop"
    )
    return found


def feed_forward(quick, peak):
    """Images a second of f-AnoGAN's score: in torch, and exported."""
    found = {}
    for width in (NARROW, WIDE):
        model = build("f-anogan", SIZE, width=width, scales="paper")
        x = torch.rand(32, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
        times = 2 if quick else 8
        done = flops(model.score, x)
        ways = {
            "torch": partial(model.score, x),
            "torch, channels last": partial(frozen(model, channels_last=True).score, x),
        }
        if all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime")):
            ways["ONNX Runtime"] = exported(model, x)
        else:
            print("ONNX Runtime: not measured, pip install 'phenotype[onnx]'")
        for name, function in ways.items():
            each = best_of(function, times) / len(x)
            share = done / len(x) / each / 1e9 / peak
            found[f"width {width}, {name}"] = {"images_per_second": 1 / each, "share_of_sgemm": share}
            print(f"f-AnoGAN score, width {width}, {name}: {1 / each:.0f} images/s, {share:.0%} of the matrix rate")
    return found


def exported(model, x):
    """A call of the exported model, without its vectors."""
    import onnxruntime

    from phenotype.models.onnx import export_onnx

    with TemporaryDirectory() as folder:
        export_onnx(model, Path(folder))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(
            str(Path(folder) / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
    images = x.numpy()
    return lambda: session.run(["scores", "maps"], {"images": images})


# ---------------------------------------------------------------------------------------------- quality


def equality(quick):
    """The greatest relative difference between scores of the same images in batches of different sizes."""
    model = build("anogan", SIZE, width=NARROW, search="brief")
    x = torch.rand(13, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    together = model.score(x)[0]
    apart = {n: torch.cat([model.score(some)[0] for some in x.split(n)]) for n in (1, 5)}
    found = {f"batches of {n}": float(((together - some).abs() / together.abs()).max()) for n, some in apart.items()}
    found["twice equal bit for bit"] = bool(torch.equal(together, model.score(x)[0]))
    print(f"scores in batches of 13 and of 1 and 5: {found}")
    return found


def shortly_trained(quick, training):
    """An AnoGAN of a width that can be trained here."""
    steps = 40 if quick else 500
    model = build("anogan", SIZE, width=NARROW, seed=0)
    with TemporaryDirectory() as folder:
        train(
            model,
            training,
            folder=Path(folder),
            steps=steps,
            batch_size=32,
            seed=0,
            learning_rate=1e-3,
            checkpoint_every=10**6,
            threads=torch.get_num_threads(),
        )
    print(f"an AnoGAN of width {NARROW} trained for {steps} steps on {len(training)} images:")
    return model


def schedules(quick, model, x):
    """Mean loss that each schedule reaches on images not trained on, over that of the paper's 500 steps."""
    tried = dict(SCHEDULES)
    tried["fast, 50 steps"] = Schedule(50, 0.8)
    tried["fast, random start"] = Schedule(100, 0.8, from_encoder=False)
    tried["fast, stopped at 0.2 %"] = SCHEDULES["fast"].stopping(0.002)
    if quick:
        tried["paper"] = Schedule(60, 0.05, cosine=False, from_encoder=False)
    found = {}
    for name, schedule in tried.items():
        mapped = model.map_to_latent(x, schedule)
        curve = mapped.losses.nan_to_num(torch.inf).cummin(0).values.mean(1)  # the best so far, as an image keeps it
        found[name] = {
            "loss": float(mapped.loss.mean()),
            "mean_steps": float(mapped.steps.float().mean()),
            "after_steps": {str(at): float(curve[at]) for at in (0, 20, 50, 100, 200, 500) if at < len(curve)},
        }
    for row in found.values():
        row["against_paper"] = row["loss"] / found["paper"]["loss"] - 1
    for name, row in sorted(found.items(), key=lambda item: item[1]["mean_steps"]):
        print(
            f"  {len(x)} images, {name}: {row['mean_steps']:.0f} steps, "
            f"loss {row['loss']:.4f} ({row['against_paper']:+.1%})"
        )
    return found


def accuracy(quick, model, training, healthy, sick):
    """AUROC and rank correlation of two calls: ours, and PyOD's with its defaults but for the number of epochs."""
    truth = np.repeat([0, 1], [len(healthy), len(sick)])
    test = np.concatenate([healthy, sick])
    scorers = {f"AnoGAN, {term}": partial(_ours, model.scored_by(term=term)) for term in ("combined", "ssim")}
    if all(importlib.util.find_spec(name) for name in ("pyod", "numba")):
        from pyod.models.alad import ALAD
        from pyod.models.anogan import AnoGAN

        epochs = 2 if quick else 20
        images = training.take(np.arange(40 if quick else 150))  # its AnoGAN queries training images one at a time
        for name, maker in (("AnoGAN", partial(AnoGAN, epochs_query=5)), ("ALAD", ALAD)):
            torch.manual_seed(0)
            theirs = maker(epochs=epochs, batch_size=32).fit(images.reshape(len(images), -1))
            scorers[f"PyOD {name}"] = partial(_theirs, theirs)
    else:
        print("  PyOD: not measured, it or its numba is not installed")
    found = {}
    for name, scorer in scorers.items():
        once, again = scorer(test), scorer(test)
        found[name] = {"auroc": float(roc_auc_score(truth, once)), "spearman_of_two_calls": spearman(once, again)}
        print(f"  {name}: AUROC {found[name]['auroc']:.3f}, two calls agree in ranks: {spearman(once, again):.3f}")
    return found


def _ours(model, images):
    return model.score(torch.from_numpy(images))[0].numpy()


def _theirs(detector, images):
    return detector.decision_function(images.reshape(len(images), -1))


if __name__ == "__main__":
    main()
