"""`docs/anomaly.md` from the results of `benchmarks/anomaly.py` and the words of `benchmarks/anomaly.md`."""

from collections import defaultdict
from pathlib import Path

import numpy as np

from phenotype.models.choice import Choice

WORDS = Path(__file__).with_name("anomaly.md")
IMAGES = {  # column: the figure, how it is written, which is best
    "AUROC": ("image_auroc", "range", max),
    "95 %": (("image_auroc_low", "image_auroc_high"), "interval", None),
    "average precision": ("ap", "range", max),
    "normal vs. normal": ("shift_auroc", "plain", None),
    "AUCp": ("aucp", "plain", None),
    "pixels p ≤ 0.05": ("pixel_p05", "percent", None),
    "alarms": ("alarms", "alarms", None),
    "training, CPU s": ("seconds", "whole", None),
    "ms an image": ("ms_per_image", "short", None),
}
LESIONS = {
    "pixel AUROC": ("pixel_auroc", "range", max),
    "average precision": ("pixel_ap", "range", max),
    "95 %": (("pixel_ap_low", "pixel_ap_high"), "interval", None),
    "best Dice": ("pixel_dice", "range", max),
    "AUPRO ≤ 0.3": ("pixel_aupro", "range", max),
    "raw maps: precision": ("pixel_ap_raw", "plain", None),
    "image AUROC": ("image_auroc", "plain", max),
}


def write_docs(results, best, folder):
    """Write `anomaly.md` into `folder`; a set without results says so."""
    words = WORDS.read_text(encoding="utf-8")
    for name in ("kermany", "shenzhen", "demo"):
        words = words.replace(f"[[table {name}]]", table(results, name, IMAGES, best))
        words = words.replace(f"[[facts {name}]]", facts(results, name))
        words = words.replace(f"[[table {name}-lesions]]", table(results, f"{name}-lesions", LESIONS, best))
    pictures = sorted((folder / "anomaly").glob("*.png"))
    told = "\n\n".join(f"![{picture.stem.replace('-', ' ')}](anomaly/{picture.name})" for picture in pictures)
    words = words.replace("[[pictures]]", told).replace("[[best]]", f"`{best['name']}`")
    seeds = sorted({row["seed"] for row in results})
    words = words.replace("[[seeds]]", f"{len(seeds)} seed{'s' if len(seeds) != 1 else ''}")
    (folder / "anomaly.md").write_text(words, encoding="utf-8")


def table(results, data, columns, best):
    """Models by their first figure, the highest first; the best of each column bold, the recommended one marked."""
    rows = defaultdict(list)
    for row in results:
        if row["data"] == data:
            rows[row["model"]].append(row)
    if not rows:
        return "*Not measured.*"
    leading = next(iter(columns.values()))[0]
    order = sorted(rows, key=lambda model: -np.mean([row[leading] for row in rows[model]]))
    lines = ["| model | " + " | ".join(columns) + " |", "| --- |" + " --- |" * len(columns)]
    top = {key: max(_mean(rows[m], key) for m in rows) for key, _, find in columns.values() if find is max}
    for model in order:
        cells = []
        for key, how, find in columns.values():
            cell = _cell(rows[model], key, how)
            cells.append(f"**{cell}**" if find is max and round(_mean(rows[model], key) - top[key], 3) >= 0 else cell)
        mark = " ←" if model == best["name"] else ""
        lines.append(f"| `{model}`{mark} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def facts(results, data):
    """How many images, the shortcut by brightness, and whether the test's healthy ones are like those learned from."""
    rows = [row for row in results if row["data"] == data]
    if not rows:
        return ""
    images = rows[0]["images"]
    shortcut = np.mean([row["brightness_auroc"] for row in rows])
    shift = [row["shift_auroc"] for row in rows if not row["model"].startswith("plain:")] or [0.5]
    drift = np.mean([any(a["name"] == "drift" and a["fired"] for a in row["alarms"]) for row in rows])
    return (
        f"{images['train']} healthy images learned from, {images['held_out']} to calibrate on; tested on "
        f"{images['healthy']} healthy and {images['sick']} sick ones. Brightness alone has an AUROC of {shortcut:.2f}. "
        f"Held-out and test images of the healthy are told apart with an AUROC of {min(shift):.2f} to {max(shift):.2f} "
        f"(0.5 if they were alike); the drift alarm fires for {drift:.0%} of the models. {chosen_without_labels(rows)}"
    )


def chosen_without_labels(rows):
    """What AUCp would have chosen of all that learned, and what that lost against the best in hindsight."""
    regrets, names = [], []
    for seed in sorted({row["seed"] for row in rows}):
        own = [row for row in rows if row["seed"] == seed and not row["model"].startswith("plain:")]
        if len(own) > 1:
            choice = Choice(max(own, key=lambda row: row["aucp"])["model"], {row["model"]: row["aucp"] for row in own})
            regrets.append(choice.regret({row["model"]: row["image_auroc"] for row in own}))
            names.append(f"`{choice.chosen}`")
    if not regrets:
        return ""
    return (
        f"AUCp would have chosen {', '.join(sorted(set(names)))}, and lost {np.mean(regrets):.3f} AUROC against the "
        f"best in hindsight (at most {max(regrets):.3f})."
    )


def _mean(rows, key):
    return float(np.mean([row[key] for row in rows]))


def _cell(rows, key, how):
    if how == "alarms":
        counted = defaultdict(int)
        for row in rows:
            for alarm in row["alarms"]:
                if alarm["fired"] and alarm["name"] != "drift":
                    counted[alarm["name"]] += 1
        return ", ".join(name if n == len(rows) else f"{name} {n}/{len(rows)}" for name, n in counted.items())
    if how == "interval":
        return f"{_mean(rows, key[0]):.2f}–{_mean(rows, key[1]):.2f}"
    values = [row[key] for row in rows]
    mean = np.mean(values)
    if how == "range" and len(values) > 1:
        return f"{mean:.3f} ({min(values):.2f}–{max(values):.2f})"
    written = {
        "range": f"{mean:.3f}",
        "plain": f"{mean:.2f}",
        "percent": f"{mean:.1%}",
        "whole": f"{mean:.0f}" if mean >= 10 else f"{mean:.1f}",
    }
    return written.get(how, f"{mean:.1f}")
