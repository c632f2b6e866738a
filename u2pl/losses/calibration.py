"""Soft labels fused of two predictions on one scale, and the loss on them (PseudoSeg's calibrated fusion)."""

import torch
from torch import Tensor
from torch.nn import functional

_LEAST = 1e-8


def mean_square(first_BCHW: Tensor, second_BCHW: Tensor) -> Tensor:
    """The mean of all squared entries of each image's two maps of logits, (B,)."""
    return torch.stack([logits.square().mean(dim=(1, 2, 3)) for logits in (first_BCHW, second_BCHW)]).mean(
        dim=0
    )


def fused(first_BCHW: Tensor, second_BCHW: Tensor, mean_square_B: Tensor, temperature: float) -> Tensor:
    """The sharpened mean of two predictions, (B, C, H, W).

    pbar = (softmax(u / r) + softmax(v / r)) / 2 with r = sqrt(mean square + 1e-8), then pbar_c^(1/T), normalised.

    Args:
        first_BCHW: logits u.
        second_BCHW: logits v, of the same shape.
        mean_square_B: of all images that are scaled together, for each of these.
        temperature: T; below 1 the label is surer than the mean.
    """
    r_B111 = (mean_square_B + _LEAST).sqrt()[:, None, None, None]
    mean = ((first_BCHW / r_B111).softmax(dim=1) + (second_BCHW / r_B111).softmax(dim=1)) / 2
    # A softmax of logarithms, since powers of small numbers vanish.
    return (mean.log() / temperature).softmax(dim=1)


def soft_cross_entropy(logits_BCHW: Tensor, label_BCHW: Tensor, mask_BHW: Tensor) -> Tensor:
    """Of each image the sum of -sum_c y_c log softmax(logits)_c over the points of a mask, (B,)."""
    loss_BHW = -(label_BCHW * functional.log_softmax(logits_BCHW, dim=1)).sum(dim=1)
    return (loss_BHW * mask_BHW).sum(dim=(1, 2))
