"""Mixes images: boxes of several samplers, regions that a prediction proposes, pixels of some classes."""

from collections.abc import Sequence
from math import sqrt

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Box = tuple[slice, slice]
"""Rows and columns."""


def half_area_boxes(count: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Random boxes that cover about half of the image each (the sampler of the released code).

    The width is uniform between half of the image and one pixel less than all, the height follows from the area.

    Args:
        generator: a CPU generator.

    Returns:
        (count, height, width) bool, True inside the box.
    """
    inside = torch.zeros(count, height, width, dtype=torch.bool)
    for mask in inside:
        w = int(torch.randint(width // 2 + 1, width, (), generator=generator))
        h = min(round(height * width / 2 / w), height)
        x = int(torch.randint(0, width - w + 1, (), generator=generator))
        y = int(torch.randint(0, height - h + 1, (), generator=generator))
        mask[y : y + h, x : x + w] = True
    return inside


def paste(inside_BHW: Tensor, other: Tensor, maps: Tensor) -> Tensor:
    """Images, labels or entropies with those of others inside a mask.

    Args:
        inside_BHW: bool.
        other: (B, H, W) or (B, channels, H, W).
        maps: likewise.
    """
    return torch.where(inside_BHW if maps.dim() == 3 else inside_BHW[:, None], other, maps)


def proportional_box(
    share: float, height: int, width: int, aspect: float, place: Sequence[float], *, shrink: float = 1.0
) -> Box:
    """A box of a share of the image's area, with a log-uniform aspect ratio (French et al., CutMix-Seg).

    Args:
        share: of the area.
        height: of the image.
        width: likewise.
        aspect: uniform from 0 to 1: the box's height is `share`^aspect of the image's, its width the rest of the area.
        place: uniform from 0 to 1, of the top and of the left side.
        shrink: factor on both sides of the box.
    """
    fractions = share**aspect, share ** (1 - aspect)
    sides = [
        (min(round(fraction * shrink * length), length), length)
        for fraction, length in zip(fractions, (height, width), strict=True)
    ]
    starts = [round((length - side) * where) for (side, length), where in zip(sides, place, strict=True)]
    (h, _), (w, _) = sides
    return slice(starts[0], starts[0] + h), slice(starts[1], starts[1] + w)


def toggled_boxes(count: int, height: int, width: int, generator: torch.Generator, boxes: int = 3) -> Tensor:
    """Masks of several boxes each, together at most half of the image (CPS).

    Every box turns its area over, so that where two overlap it is outside again. Its share of the area is uniform
    from 1/4 to 1/2, divided by the number of boxes.

    Args:
        generator: a CPU generator.

    Returns:
        (count, height, width) bool, True inside.
    """
    inside = torch.zeros(count, height, width, dtype=torch.bool)
    draws = torch.rand(count, boxes, 4, generator=generator).tolist()
    for mask, of_image in zip(inside, draws, strict=True):
        for share, aspect, *place in of_image:
            mask[
                proportional_box(0.25 + 0.25 * share, height, width, aspect, place, shrink=sqrt(1 / boxes))
            ] ^= True
    return inside


def class_region(label_HW: NDArray[np.integer], wanted: int, least: float, pick: float) -> Box | None:
    """The bounding box of a connected piece of a class, touching corners included; None where there is none.

    Args:
        label_HW: a prediction.
        wanted: the class.
        least: pixels that the piece must exceed.
        pick: uniform from 0 to 1, which of the pieces.
    """
    mask_HW = label_HW == wanted
    if np.count_nonzero(mask_HW) <= least:  # the usual case, and finding pieces takes long
        return None
    from scipy import ndimage  # for the few methods that get here

    pieces_HW, count = ndimage.label(mask_HW, structure=np.ones((3, 3)))
    sizes = np.bincount(pieces_HW.ravel(), minlength=count + 1)[1:]
    large = np.flatnonzero(sizes > least)
    if len(large) == 0:
        return None
    box = ndimage.find_objects(pieces_HW)[large[int(pick * len(large))]]
    return box[0], box[1]


def of_classes(mask_BHW: Tensor, class_BN: Tensor) -> Tensor:
    """Where each image's mask has one of its own N classes, (B, H, W) bool.

    Args:
        mask_BHW: int64.
        class_BN: int64, repetitions allowed.
    """
    found = torch.zeros_like(mask_BHW, dtype=torch.bool)
    for one_B in class_BN.unbind(dim=1):
        found |= mask_BHW == one_B[:, None, None]
    return found
