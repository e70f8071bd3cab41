"""A picture of the mapping of report terms to images: the image, what the algorithm sees, what the expert drew."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from db.queries.expert import ExpertMark, SideBySide
from phenotype.explore.films import Unseen
from phenotype.explore.pictures import Scale, View, overlay, region_map

GRID = (64, 64)  # of the map, before it is spread over the image
_MAP = "#ffffff"
_READERS = ("#5ad1ff", "#7dff8a", "#ff9ff3", "#ffd166")  # told apart also on a grey image
_INCHES = 2.6  # of one image


@dataclass(frozen=True, slots=True)
class Shown:
    """A case: the name of the term, the threshold of its map (None where none was tuned), what there is of it, and the
    view of its image or why there is none."""

    term: str
    threshold: float | None
    case: SideBySide
    view: View | Unseen


def write_side_by_side(shown: Sequence[Shown], out: Path, *, dots: int = 110) -> int:
    """Write a PNG of the cases whose images can be read, and return how many they are.

    The columns of a case are the image, the map with its contour at the threshold, and what each reader drew. Nothing
    but surrogate ids and labels of readers is written beside them.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [(one, one.view) for one in shown if isinstance(one.view, View)]
    readers = sorted({mark.reader for one, _ in rows for mark in one.case.marks})
    colours = {reader: _READERS[n % len(_READERS)] for n, reader in enumerate(readers)}
    beside = 2 if len(rows) > 3 else 1  # cases in a line
    lines = max(1, -(-len(rows) // beside))
    size = (3 * beside * _INCHES, lines * (_INCHES + 0.3) + 0.4)
    figure = Figure(figsize=size, dpi=dots, facecolor="black")
    FigureCanvasAgg(figure)
    axes = figure.subplots(lines, 3 * beside, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for cells, (one, view) in zip(axes.reshape(-1, 3), rows, strict=False):
        _row(cells, one, view, colours)
    for axis, title in zip(axes[0], ("image", "algorithm", "expert") * beside, strict=True):
        axis.text(0.5, 1.16, title, transform=axis.transAxes, color="white", ha="center", fontsize=11, weight="bold")
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.02, top=1 - 0.6 / size[1], wspace=0.03, hspace=0.3 / _INCHES)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, format="png", facecolor="black", metadata={"Software": None})
    return len(rows)


def _row(cells: NDArray[Any], one: Shown, view: View, colours: dict[str, str]) -> None:
    case = one.case
    top, left, height, width = view.area
    edges = (left - 0.5, left + width - 0.5, top + height - 0.5, top - 0.5)
    values = _map(case)
    high = float(np.nanmax(values)) if np.isfinite(values).any() else 1.0
    contour = one.threshold is not None and one.threshold < high
    low = one.threshold if contour else float(np.nanquantile(values, 0.8))
    low = high - 1.0 if low is None or low >= high else low  # a map that is the same everywhere
    for axis in cells:
        axis.imshow(view.pixels, cmap="gray", vmin=0, vmax=1, interpolation="bilinear")
        axis.set_xlim(left - 0.5, left + width - 0.5)
        axis.set_ylim(top + height - 0.5, top - 0.5)
    cells[1].imshow(overlay(view, values, Scale(low, high)), interpolation="bilinear")
    spread = Image.fromarray(np.nan_to_num(values, nan=low - 1)).resize((width, height), Image.Resampling.BILINEAR)
    if contour:
        cells[1].contour(np.asarray(spread), levels=[low], extent=edges, origin="upper", colors=_MAP, linewidths=1.1)
    for mark in case.marks:
        _contour(cells[2], mark, view, colours[mark.reader])
    told = case.call if case.probability is None else f"{case.call} {case.probability:.2f}".strip()
    place = "" if case.image.kind == "radiograph" else f"  slice {case.image.slice}"
    _told(cells[0], f"{case.image.id}{place}", "white")
    _told(cells[1], f"{one.term}: {told}" if told else one.term, "white")
    readers = sorted({mark.reader for mark in case.marks})
    for number, reader in enumerate(readers):
        cells[2].text(
            0.02 + number / len(readers),
            1.02,
            reader,
            transform=cells[2].transAxes,
            color=colours[reader],
            fontsize=8,
            va="bottom",
        )


def _told(axis: Any, words: str, colour: str) -> None:
    axis.text(0.02, 1.02, words, transform=axis.transAxes, color=colour, fontsize=8, va="bottom")


def _map(case: SideBySide) -> NDArray[np.float32]:
    """The scores over the image (rows, columns); NaN where no region is."""
    if case.labels is None:
        return region_map(case.scores, case.boxes, GRID)
    known = np.concatenate([[np.nan], case.scores]).astype(np.float32)
    return np.asarray(known[case.labels], np.float32)


def _contour(axis: Any, mark: ExpertMark, view: View, colour: str) -> None:
    top, left, height, width = view.area
    if mark.mask is not None:
        edges = (left - 0.5, left + width - 0.5, top + height - 0.5, top - 0.5)
        padded = np.asarray(mark.mask, np.float32)
        axis.contour(padded, levels=[0.5], extent=edges, origin="upper", colors=colour, linewidths=1.3)
        return
    from matplotlib.patches import Rectangle

    first, second, third, fourth = mark.box
    corner = left + second * width - 0.5, top + first * height - 0.5
    size = (fourth - second) * width, (third - first) * height
    axis.add_patch(Rectangle(corner, *size, fill=False, edgecolor=colour, linewidth=1.3))
