"""Sheets of pictures while a model learns: what it makes of the same few images, every so many steps.

They are made of training images: whoever may not see those may not see them. They are written into the folder of the
training and nowhere else, and only where they are asked for.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from phenotype.models.base import ImageModel, Source
from phenotype.models.files import write_whole

LEAST = 64  # pixels that a picture is enlarged to
MARGIN = 14  # pixels above each row, for its name


@dataclass(frozen=True, slots=True)
class Sheets:
    """An observer that writes folder/sheets/STEP.png of `count` images, evenly spaced in `source`."""

    folder: Path
    source: Source
    every: int
    count: int = 8
    seed: int = 0

    def look(self, model: ImageModel, step: int) -> Mapping[str, float]:
        """Write the sheet of this step; it has no figures."""
        indices = np.unique(np.linspace(0, len(self.source) - 1, self.count).astype(np.int64))
        x = torch.from_numpy(np.ascontiguousarray(self.source.take(indices), np.float32)).to(model.device)
        rows = model.pictures(x, torch.Generator().manual_seed(self.seed))
        place = self.folder / "sheets"
        place.mkdir(exist_ok=True)
        write_whole(place / f"{step:08d}.png", sheet(rows))
        return {}


def sheet(rows: Mapping[str, Tensor]) -> bytes:
    """A PNG with a named row for each (n, *spatial) of images in [0, 1]; of volumes their middle slice."""
    flat = {name: _pictures(images) for name, images in rows.items()}
    width = max(sum(picture.width + 2 for picture in row) for row in flat.values())
    height = sum(MARGIN + row[0].height for row in flat.values())
    canvas = Image.new("L", (max(width, 200), height))
    draw, top = ImageDraw.Draw(canvas), 0
    for name, row in flat.items():
        draw.text((2, top + 1), name, fill=255)
        for place, picture in enumerate(row):
            canvas.paste(picture, (place * (picture.width + 2), top + MARGIN))
        top += MARGIN + row[0].height
    content = io.BytesIO()
    canvas.save(content, "PNG")
    return content.getvalue()


def _pictures(images: Tensor) -> list[Image.Image]:
    if images.ndim == 4:
        images = images[:, images.shape[1] // 2]
    grey = (images.detach().float().cpu().clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    times = max(1, LEAST // grey.shape[-1])
    return [Image.fromarray(one.repeat(times, 0).repeat(times, 1)) for one in grey]
