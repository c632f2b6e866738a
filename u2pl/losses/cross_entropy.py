"""Supervised and unsupervised cross-entropy (Eqs. 2, 3 and 8)."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from u2pl.losses.enlarged import Enlarged, enlarge


def cross_entropy(
    logits_BChw: Tensor, label_BHW: Tensor, ignore_index: int, count: Tensor | None = None
) -> Tensor:
    """Mean cross-entropy over the pixels of a batch that have a label (Eqs. 2 and 3); 0 when none has one.

    Args:
        logits_BChw: before the softmax; at another resolution than the label's, they are interpolated to it, bilinear
            with corners aligned.
        label_BHW: int64 classes, or `ignore_index`.
        count: of pixels with a label, where these images are but some of the batch's: the parts' results then add up
            to the batch's.
    """
    if logits_BChw.device.type == "cpu":
        total = _Total.apply(logits_BChw, label_BHW, ignore_index)
    else:
        large = enlarge(logits_BChw, label_BHW.shape[1:])
        total = functional.cross_entropy(large, label_BHW, ignore_index=ignore_index, reduction="sum")
    return total / labeled_pixels(label_BHW, ignore_index).clamp(min=1) if count is None else total / count


class _Total(torch.autograd.Function):
    """The sum over all pixels, and its gradient beside it, while a few rows of them are in a CPU's cache."""

    @staticmethod
    def forward(ctx: Any, logits_BChw: Tensor, label_BHW: Tensor, ignore_index: int) -> Tensor:
        totals, gradients = [logits_BChw.new_zeros(())], []
        for logits_Chw, label_HW in zip(logits_BChw, label_BHW, strict=True):
            large = Enlarged(logits_Chw, label_HW.shape)
            for part in large:
                known_rW = label_HW[part] != ignore_index
                index_rW = (label_HW[part] * known_rW)[None]
                weight_CrW = large.rows(part)
                weight_CrW -= weight_CrW.amax(dim=0)
                own_rW = weight_CrW.gather(0, index_rW)[0]
                total_rW = weight_CrW.exp_().sum(dim=0)
                known_rW = known_rW.to(total_rW.dtype)
                totals.append(((total_rW.log() - own_rW) * known_rW).sum())
                if ctx.needs_input_grad[0]:
                    weight_CrW *= known_rW / total_rW
                    weight_CrW.scatter_add_(0, index_rW, -known_rW[None])
                    large.add_gradient(part, weight_CrW)
            if ctx.needs_input_grad[0]:
                gradients.append(large.gradient)
        if gradients:
            ctx.save_for_backward(torch.stack(gradients))
        return torch.stack(totals).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (gradient_BChw,) = ctx.saved_tensors
        return gradient * gradient_BChw, None, None


def labeled_pixels(label_BHW: Tensor, ignore_index: int) -> Tensor:
    """How many pixels have a label, 0-d int64."""
    return (label_BHW != ignore_index).sum()


def lambda_u(label_BHW: Tensor, valid_BHW: Tensor, eta: float, ignore_index: int) -> Tensor:
    """Weight of the unsupervised loss: eta times the inverse share of pixels with a pseudo-label (Eq. 8).

    Args:
        label_BHW: pseudo-labels (Eq. 6).
        valid_BHW: bool; the pixels that Eq. 8 counts as `|B_u| H W`, all but padding.

    Returns:
        0-d float32 tensor; eta times the number of valid pixels when none has a pseudo-label (the loss is 0 then).
    """
    return eta * valid_BHW.sum() / labeled_pixels(label_BHW, ignore_index).clamp(min=1)
