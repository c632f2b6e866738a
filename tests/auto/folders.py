"""Folders as people have them: photographs of bright squares, some with masks."""

from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 64


def draw_folder(folder: Path, pictures: int, masks: int, values: tuple[int, int] = (0, 255)) -> Path:
    """Write images/pNN.jpg, and masks/pNN.png for the first ones."""
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for k in range(pictures):
        pixels = rng.integers(90, 140, (SIDE, SIDE, 3))
        mask = np.full((SIDE, SIDE), values[0])
        y, x = rng.integers(0, SIDE - 20, 2)
        pixels[y : y + 20, x : x + 20] = rng.integers(180, 250, (20, 20, 3))
        mask[y : y + 20, x : x + 20] = values[1]
        Image.fromarray(pixels.astype(np.uint8)).save(folder / "images" / f"p{k:02}.jpg", quality=95)
        if k < masks:
            Image.fromarray(mask.astype(np.uint8)).save(folder / "masks" / f"p{k:02}.png")
    return folder
