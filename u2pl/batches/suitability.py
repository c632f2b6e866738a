"""Whether batches can be made of a split, and show what they should: asked before hours are spent on them."""

import math
from pathlib import Path
from statistics import fmean

import numpy as np
from PIL import Image

from u2pl.data.prepared import Split
from u2pl.errors import UserError
from u2pl.settings import Recipe

_LOOKED_AT = 20
"""Images whose sizes are looked up."""
_SMALLEST = 33
"""Crop that images of any size may have: of smaller ones a network's last map would be a single pixel."""
_LEAST_SHOWN = 0.4
"""Of a crop, below which it is refused. The paper's crops show 0.7 and more of their images."""


def check_counts(split: Split, batch: int, unlabeled: bool) -> None:
    """Check that a split can fill batches.

    Raises:
        UserError: fewer labelled images than a batch needs, or no unlabelled ones where they are wanted.
    """
    count = len(split.labeled)
    if count < batch:
        smaller = f", or --set batch={count}" if count >= 2 else ""
        raise UserError(
            f"Split {split.split!r} of {split.dataset!r} has {count} labelled images, a batch needs {batch}. "
            f"Use a split with more of them{smaller}."
        )
    if unlabeled and not split.unlabeled:
        raise UserError(
            f"Split {split.split!r} of {split.dataset!r} has no unlabelled images, and the method "
            "needs some. Use a split such as 1/8, or --method suponly."
        )


def check_crop(split: Split, recipe: Recipe) -> None:
    """Check that crops show images rather than the padding around them.

    Raises:
        UserError: they are far larger than the labelled images are at the recipe's scales.
    """
    names = split.labeled[:: math.ceil(len(split.labeled) / _LOOKED_AT)]
    sizes = [size for name in names if (size := _size(split.images[name]))]
    if not sizes:
        return
    shown = fmean(_shown(recipe, *size) for size in sizes)
    if shown >= _LEAST_SHOWN or recipe.crop <= _SMALLEST:
        return
    width, height = sorted(sizes, key=math.prod)[len(sizes) // 2]
    side = recipe.resize * math.sqrt(width * height)
    resized = "" if recipe.resize == 1 else f", resized by {recipe.resize:g}"
    raise UserError(
        f"A crop of {recipe.crop} x {recipe.crop} pixels would be {100 * (1 - shown):.0f} % padding: the images have "
        f"about {width} x {height} pixels{resized}. Use --set crop={32 * max(1, round(side / 32)) + 1} or less."
    )


def _shown(recipe: Recipe, width: int, height: int) -> float:
    """Share of a crop that an image fills, on average over the scales that `random_scale` draws."""
    low, high = recipe.scale
    ranges = [(low, 1.0), (1.0, high)] if low < 1 < high else [(low, high)]
    factors = np.concatenate([np.linspace(*ends, 5) for ends in ranges])
    return fmean(
        math.prod(min(side * recipe.resize * factor / recipe.crop, 1) for side in (width, height))
        for factor in factors
    )


def _size(path: Path) -> tuple[int, int] | None:
    """Width and height; None of a picture that cannot be read, of which the loader says more."""
    try:
        with Image.open(path) as picture:
            return picture.size
    except OSError:
        return None
