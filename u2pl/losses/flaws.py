"""Maps of where a prediction is wrong, and what two predictions learn from them.

Ke et al., *Guided Collaborative Training for Pixel-wise Semi-Supervised Learning*, ECCV 2020. Maps are (B, 1, H, W).
"""

from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import conv2d, max_pool2d, pad

_EPSILON = 1e-9
_FAINT = 0.1
"""A map whose highest value is not above it finds nothing wrong."""
VOID = 0.5
"""How wrong a pixel without a label counts: a one-hot label of nothing but zeros, as in the released code."""


def kernel_size(side: int, part: int) -> int:
    """Width of a Gaussian kernel in pixels, odd: the crop's side divided by so many."""
    size = side // part
    return size + 1 - size % 2


@cache
def kernel(size: int) -> Tensor:
    """A Gaussian in one dimension, (size,) float32.

    What scipy makes of a single 1 in the middle of zeros that are mirrored at the ends: the tails beyond them are
    folded back. Its deviation is the one that OpenCV gives to a kernel of this size.
    """
    from scipy.ndimage import gaussian_filter1d  # for the one method that needs kernels

    impulse = np.zeros(size)
    impulse[size // 2] = 1
    sigma = 0.3 * ((size - 1) / 2 - 1) + 0.8
    return torch.from_numpy(gaussian_filter1d(impulse, sigma, mode="reflect", truncate=4.0)).float()


def blur(map_B1HW: Tensor, size: int) -> Tensor:
    """Convolve maps with a Gaussian, mirrored at the edges."""
    weight, margin = kernel(size).to(map_B1HW), size // 2
    padded = pad(map_B1HW, (margin,) * 4, mode="reflect")
    return conv2d(conv2d(padded, weight[None, None, None]), weight[None, None, :, None])


def dilate(map_B1HW: Tensor) -> Tensor:
    """The highest value of each pixel and its eight neighbours, mirrored at the edges."""
    return max_pool2d(pad(map_B1HW, (1,) * 4, mode="reflect"), 3, stride=1)


def target(prob_BCHW: Tensor, label_BHW: Tensor, ignore_index: int) -> Tensor:
    """What a flaw detector is to say of a prediction: how wrong it is, spread out, from 0 to 1 in each image.

    Args:
        prob_BCHW: probabilities.
        label_BHW: true classes, or `ignore_index`.
    """
    side, known = prob_BCHW.shape[-1], label_BHW != ignore_index
    right = prob_BCHW.gather(1, label_BHW.where(known, 0)[:, None])
    wrong = (1 - right).where(known[:, None], VOID)
    spread = blur(wrong, kernel_size(side, 8))
    spread = blur(dilate(spread), kernel_size(side, 4))
    low, high = _ends(spread)
    return (spread - low) / (high - low + _EPSILON)


def handled(flaw_B1HW: Tensor) -> Tensor:
    """A detector's map as two of them are compared: not negative, smooth, from 0 to 1 in each image.

    One that is faint all over becomes 0, or a little less.
    """
    smooth = blur(flaw_B1HW.clamp(min=0), kernel_size(flaw_B1HW.shape[-1], 16))
    low, high = _ends(smooth)
    return (smooth.where(high > _FAINT, 0) - low) / (high - low + _EPSILON)


class Exchange(NamedTuple):
    """Where two networks learn from each other, (B, 1, H, W) bool each."""

    first_learns: Tensor
    """The second network's prediction has the smaller flaw there."""
    second_learns: Tensor
    both_bad: Tensor
    """Each keeps its own prediction, and is to mend it."""


def exchange(first: Tensor, second: Tensor, xi: float) -> Exchange:
    """Compare two handled maps (dynamic consistency).

    Args:
        first: of the first network.
        second: of the second.
        xi: from which value on a flaw counts as complete.
    """
    first, second = (flaw.where(flaw <= xi, 1) for flaw in (first, second))
    return Exchange(second < first, first < second, (first > xi) & (second > xi))


def _ends(map_B1HW: Tensor) -> tuple[Tensor, Tensor]:
    """Least and greatest value of each image, (B, 1, 1, 1)."""
    return map_B1HW.amin(dim=(1, 2, 3), keepdim=True), map_B1HW.amax(dim=(1, 2, 3), keepdim=True)
