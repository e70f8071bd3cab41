"""How well the lungs of real radiographs are found: Dice against outlines drawn by people, of all Shenzhen images.

python benchmarks/lungs.py [shared/data/shenzhen]
"""

import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from phenotype.imaging.masks import lung_mask


def main(folder: Path) -> None:
    """One row of figures for all images that have an outline."""
    dice, quality, found, seconds = [], [], [], 0.0
    for path in sorted((folder / "lung_masks").iterdir()):
        truth = np.asarray(Image.open(path).convert("L")) > 0
        image = np.asarray(Image.open(folder / "images" / path.name).convert("L"), np.float32) / 255
        start = time.process_time()
        lungs = lung_mask(image)
        seconds += time.process_time() - start
        mask = lungs.labels > 0
        dice.append(2 * (mask & truth).sum() / (mask.sum() + truth.sum()))
        quality.append(lungs.quality)
        found.append(lungs.found)
    believed = np.asarray(dice)[found]
    print(f"{len(dice)} images of {image.shape}, {seconds / len(dice):.2f} CPU s each")
    print("Dice: median {:.3f}, 10th percentile {:.3f}, least {:.3f}".format(*np.quantile(dice, (0.5, 0.1, 0))))
    print(f"Dice below 0.8: {np.sum(np.less(dice, 0.8))}; not found: {len(found) - sum(found)}")
    least = np.asarray(quality)[found].min()
    print(f"of those found: Dice below 0.8: {np.sum(believed < 0.8)}; least quality {least:.2f}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/data/shenzhen"))
