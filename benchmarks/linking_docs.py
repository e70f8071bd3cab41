"""`docs/linking.md` from the results of `benchmarks/linking.py` and the words of `benchmarks/linking.md`."""

from pathlib import Path

import numpy as np
from linking_measure import CEILING, FIGURES, FINISHES
from linking_phantoms import NOISES, NOT_LOCAL, TERMS

from phenotype.linking.mappers import DEFAULT

WORDS = Path(__file__).with_name("linking.md")
AIMS = {"clean": 0.90, "asym20": 0.88, "sym20": 0.86}  # region AUROC of the default
COLUMNS = {
    "region AUROC": "region_auroc",
    "average precision": "region_ap",
    "pointing": "pointing",
    "mIoU": "miou",
    "image AUROC": "bag_auroc",
}
CHOSEN_BY = (0, 1)  # seeds whose test figures the default was chosen by
RESAMPLES = 2000


def summary(rows):
    """One entry for each kind, finish, noise and mapper: figures with their intervals, over all seeds measured."""
    groups = {}
    for row in rows:
        groups.setdefault((row["kind"], row["finish"], row["noise"], row["mapper"]), []).append(row)
    found = []
    for (kind, finish, noise, mapper), own in sorted(groups.items(), key=lambda item: _order(*item[0])):
        entry = {"kind": kind, "finish": finish, "noise": noise, "mapper": mapper, "seeds": len(own)}
        for name in FIGURES:
            entry[name] = _interval([row[name] for row in own], [row["draws"][name] for row in own])
        entry["terms"] = {
            name: {term: _mean([row["terms"][name][term] for row in own]) for term in TERMS[kind]} for name in FIGURES
        }
        for name in ("fit_seconds", "ms_per_image", "deletion_passed", "deletion_ratio", "calls", "emission_error"):
            entry[name] = _mean([row.get(name) for row in own])
        known = [term for row in own for term in row.get("calibrated", {}).values()]
        entry["calibrated"] = {name: _mean([term[name] for term in known]) for name in known[0]} if known else None
        found.append(entry)
    return found


def _order(kind, finish, noise, mapper):
    return (list(TERMS).index(kind), FINISHES.index(finish), list(NOISES).index(noise), mapper != DEFAULT, mapper)


def _interval(values, draws):
    """Mean over seeds, and 95 % of the means of seeds drawn again, each with its test's patients drawn again."""
    rng = np.random.default_rng(0)
    each = np.asarray(draws, float)
    seeds = rng.integers(len(each), size=(RESAMPLES, len(each)))
    drawn = each[seeds, rng.integers(each.shape[1], size=seeds.shape)].mean(axis=1)
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return {"mean": float(np.mean(values)), "low": float(low), "high": float(high), "of": [float(v) for v in values]}


def _mean(values):
    known = [value for value in values if value is not None and np.isfinite(value)]
    return float(np.mean(known)) if known else None


def write_docs(rows, parts, folder):
    """Write `linking.md` into `folder`; a part without results says so."""
    entries = summary(rows)
    words = WORDS.read_text(encoding="utf-8")
    for kind in TERMS:
        for finish in FINISHES:
            words = words.replace(f"[[table {kind} {finish}]]", _table(entries, kind, finish))
        words = words.replace(f"[[terms {kind}]]", _terms(entries, kind))
    for name, write in (("aims", _aims), ("calibration", _calibration), ("times", _times)):
        words = words.replace(f"[[{name}]]", write(entries))
    for name, write in _PARTS.items():
        words = words.replace(f"[[{name}]]", write(parts[name]) if name in parts else "*Not measured.*")
    words = words.replace("[[unseen]]", _unseen(summary([row for row in rows if row["seed"] not in CHOSEN_BY])))
    words = words.replace("[[default]]", f"`{DEFAULT}`")
    (folder / "linking.md").write_text(words, encoding="utf-8")


def _of(entries, **wanted):
    return [entry for entry in entries if all(entry[key] == value for key, value in wanted.items())]


def _table(entries, kind, finish):
    lines = []
    for noise in NOISES:
        own = _of(entries, kind=kind, finish=finish, noise=noise)
        own += (
            [] if noise == "clean" or not own else _of(entries, kind=kind, finish=finish, noise="clean", mapper=CEILING)
        )
        if not own:
            continue
        seeds = sorted({entry["seeds"] for entry in own})
        lines += [f"\n**{noise}** ({seeds[-1]} seed{'s' if seeds[-1] > 1 else ''})\n"]
        lines += ["| mapper | " + " | ".join(COLUMNS) + " |", "| --- |" + " --- |" * len(COLUMNS)]
        own.sort(key=lambda entry: -entry["region_auroc"]["mean"])
        for entry in own:
            mark = " ←" if entry["mapper"] == DEFAULT else ""
            mark += f" ({entry['seeds']} of {seeds[-1]} seeds)" if entry["seeds"] < seeds[-1] else ""
            cells = [_written(entry[key], key == "region_auroc") for key in COLUMNS.values()]
            lines.append(f"| `{entry['mapper']}`{mark} | " + " | ".join(cells) + " |")
    return "\n".join(lines) if lines else "*Not measured.*"


def _written(figure, precise):
    digits = 3 if precise else 2
    return f"{figure['mean']:.{digits}f} ({figure['low']:.{digits}f}–{figure['high']:.{digits}f})"


def _terms(entries, kind):
    lines = [
        "| noise | figure | " + " | ".join(f"`{t}`" for t in TERMS[kind]) + " |",
        "| --- | --- |" + " --- |" * len(TERMS[kind]),
    ]
    for noise in NOISES:
        for entry in _of(entries, kind=kind, finish="mapped", noise=noise, mapper=DEFAULT):
            for told, name in (("region AUROC", "region_auroc"), ("pointing", "pointing"), ("mIoU", "miou")):
                values = [entry["terms"][name][term] for term in TERMS[kind]]
                lines.append(f"| {noise} | {told} | " + " | ".join(f"{v:.2f}" for v in values) + " |")
    return "\n".join(lines) if len(lines) > 2 else "*Not measured.*"


def _aims(entries):
    lines = ["| aim | measured | reached |", "| --- | --- | --- |"]
    for noise, aim in AIMS.items():
        for entry in _of(entries, kind="radiographs", finish="mapped", noise=noise, mapper=DEFAULT):
            figure = entry["region_auroc"]
            lines.append(
                f"| region AUROC of the default, {noise}, at least {aim:.2f} | {_written(figure, True)} | "
                f"{_yes(figure['mean'] >= aim)} |"
            )
            for finished, told in (("bare", "all of them bare"), ("mapped", "all of them with the finish")):
                own = _of(entries, kind="radiographs", noise=noise, finish=finished)
                mine = _of(own, mapper=DEFAULT)[0]["region_auroc"]
                others = [other for other in own if other["mapper"] not in (DEFAULT, CEILING)]
                if others:
                    best = max(others, key=lambda other: other["region_auroc"]["mean"])
                    lines.append(
                        f"| {noise}: interval above that of every other mapper, {told} | {_written(mine, True)}, best "
                        f"of the others `{best['mapper']}`, {_written(best['region_auroc'], True)} | "
                        f"{_yes(all(mine['low'] > other['region_auroc']['high'] for other in others))} |"
                    )
            if entry["deletion_passed"] is not None:
                lines.append(
                    f"| {noise}: deletion of the top 5 % lowers the score 3 times more than random in 90 % of positive "
                    f"calls | {entry['deletion_passed']:.0%} of {entry['calls']:.0f} calls a seed, "
                    f"{entry['deletion_ratio']:.0f} times in the median | {_yes(entry['deletion_passed'] >= 0.9)} |"
                )
            if noise == "asym20" and entry["calibrated"]:
                error = entry["calibrated"]["error"]
                lines.append(
                    f"| {noise}: calibration error of the probability of an image at most 0.05 | {error:.3f} | "
                    f"{_yes(error <= 0.05)} |"
                )
            local = [v for t, v in entry["terms"]["pointing"].items() if t not in NOT_LOCAL]
            wanted = {"clean": 0.70, "sym20": 0.62}.get(noise)
            if wanted:
                mean = float(np.mean(local))
                lines.append(
                    f"| {noise}: pointing of local terms at least {wanted:.2f} | {mean:.2f} | {_yes(mean >= wanted)} |"
                )
    return "\n".join(lines) if len(lines) > 2 else "*Not measured.*"


def _calibration(entries):
    own = _of(entries, kind="radiographs", finish="mapped", mapper=DEFAULT)
    lines = ["| noise | calibration error | Brier score | Brier score of the prevalence |", "| --- | --- | --- | --- |"]
    for entry in own:
        if entry["calibrated"]:
            figures = [f"{entry['calibrated'][name]:.3f}" for name in ("error", "brier", "brier_prevalence")]
            lines.append(f"| {entry['noise']} | " + " | ".join(figures) + " |")
    return "\n".join(lines) if len(lines) > 2 else "*Not measured.*"


def _unseen(entries):
    own = _of(entries, kind="radiographs", finish="mapped", mapper=DEFAULT)
    told = [f"{_written(entry['region_auroc'], True)} ({entry['noise']})" for entry in own]
    return "the region AUROC of the default is " + ", ".join(told) + "." if told else "nothing has been measured."


def _yes(reached):
    return "yes" if reached else "**no**"


def _times(entries):
    own = _of(entries, kind="radiographs", finish="mapped", noise="clean")
    lines = ["| mapper | fit, CPU s | map, ms an image | error of the emission table |", "| --- | --- | --- | --- |"]
    for entry in own:
        error = "" if entry["emission_error"] is None else f"{entry['emission_error']:.2f}"
        lines.append(f"| `{entry['mapper']}` | {entry['fit_seconds']:.1f} | {entry['ms_per_image']:.1f} | {error} |")
    return "\n".join(lines) if own else "*Not measured.*"


def _shenzhen(part):
    lines = ["| figure | value | 95 % |", "| --- | --- | --- |"]
    intervals = part.get("intervals", {})
    for name, value in part.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            low, high = intervals.get(name, (None, None))
            written = f"{value:.3f}" if isinstance(value, float) else f"{value}"
            lines.append(
                f"| {name.replace('_', ' ')} | {written} | " + ("" if low is None else f"{low:.3f}–{high:.3f}") + " |"
            )
    return "\n".join(lines)


def _locality(rows):
    heads = (
        "noise",
        "term",
        "local",
        "not local",
        "no verdict",
        "share of the image",
        "image AUROC",
        "without its highest",
    )
    lines = ["| " + " | ".join(heads) + " |", "| --- |" + " --- |" * (len(heads) - 1)]
    groups = {}
    for row in rows:
        groups.setdefault((row["noise"], row["term"]), []).append(row)
    for (noise, term), own in groups.items():
        told = [str(sum(row["verdict"] == verdict for row in own)) for verdict in ("local", "not local", "")]
        half = _mean([row["half"] for row in own])
        told += ["" if half is None else f"{half:.0%}"]
        told += [f"{np.mean([row[name] for row in own]):.2f}" for name in ("auroc", "auroc_left")]
        lines.append(f"| {noise} | `{term}` | " + " | ".join(told) + " |")
    return "\n".join(lines)


def _retrieval(rows):
    groups = {}
    for row in rows:
        groups.setdefault((row["noise"], row["profile"], row["way"]), []).append(row)
    lines = ["| noise | profile of | searched by | mAP@50 | P@10 | nDCG@10 | gain |", "| --- |" * 1 + " --- |" * 6]
    for (noise, profile, way), own in groups.items():
        gains = [row for row in own if row.get("gain")]
        gain = (
            ""
            if not gains
            else "{:.2f} ({:.2f}–{:.2f})".format(
                *(np.mean([row[key] for row in gains]) for key in ("gain", "gain_low", "gain_high"))
            )
        )
        figures = [f"{np.mean([row[key] for row in own]):.3f}" for key in ("map50", "p10", "ndcg10")]
        lines.append(f"| {noise} | `{profile}` | {way} | " + " | ".join(figures) + f" | {gain} |")
    return "\n".join(lines)


def _scale(part):
    lines = [f"{part['rows']:,} regions of {part['columns']} features, {part['terms']} terms.\n"]
    lines += ["| what | CPU s | memory on top, MB | |", "| --- | --- | --- | --- |"]
    names = {
        "fit": "ferns: fit",
        "map": "ferns: map",
        "default_fit": f"`{part.get('default', DEFAULT)}`: fit",
        "default_map": f"`{part.get('default', DEFAULT)}`: map",
        "term": "the regions of a term",
        "exact": f"{part.get('queries', '')} searches, exact",
        "inverted": f"{part.get('queries', '')} searches, inverted file",
    }
    for name, told in names.items():
        if name in part:
            own = part[name]
            more = ", ".join(
                f"{key} {own[key]:.3g}" for key in ("train_s", "add_s", "recall10", "index_mb") if key in own
            )
            memory = f"{own['memory_mb']:.0f}" if "memory_mb" in own else ""
            lines.append(f"| {told} | {own['cpu_s']:.1f} | {memory} | {more} |")
    return "\n".join(lines)


_PARTS = {"shenzhen": _shenzhen, "locality": _locality, "retrieval": _retrieval, "scale": _scale}
