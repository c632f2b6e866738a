"""Validation images as they are scored: the picture at the recipe's size, and its mask."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from u2pl.batches.transforms import center_crop, normalise, resize_image, resize_mask
from u2pl.data.image_set import ImageSet
from u2pl.settings import Recipe


def validation(split: ImageSet, recipe: Recipe) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Of every validation image the name, the picture at the recipe's size, and the mask it is scored by.

    Shapes: float32 (1, 3, H, W), normalised; int64 (H', W'). Of centre crops both are crop x crop, and the
    picture has the mean colour around it where it is smaller.
    """
    for name in split.val:
        pixels = resize_image(split.image(name), recipe.resize)
        image = normalise(torch.from_numpy(pixels)[None])
        if recipe.evaluation == "center":
            image = center_crop(image, recipe.crop, 0)
        yield name, image, scored_mask(split, recipe, name)


def scored_mask(split: ImageSet, recipe: Recipe, name: str) -> Tensor:
    """The mask a validation image is scored by, int64: whole, at its own size, or the centre crop at the recipe's.

    The padding of a centre crop is ignored, or class 0 where the recipe scores it. A whole image has none. Of an image
    that has no mask all pixels are ignored.
    """
    if split.has_mask(name):
        mask = split.mask(name)
    else:  # of a training image without labels, which can be looked at like any other
        mask = np.full(split.image(name).shape[:2], split.ignore_index, dtype=np.uint8)
    if recipe.evaluation != "center":
        return torch.from_numpy(mask.astype(np.int64))
    small = torch.from_numpy(resize_mask(mask, recipe.resize).astype(np.int64))
    return center_crop(small, recipe.crop, 0 if recipe.score_padding else split.ignore_index)
