"""Supervised and unsupervised cross-entropy (Eqs. 2, 3 and 8)."""

from torch import Tensor
from torch.nn import functional


def cross_entropy(
    logits_BCHW: Tensor, label_BHW: Tensor, ignore_index: int, count: Tensor | None = None
) -> Tensor:
    """Mean cross-entropy over the pixels of a batch that have a label (Eqs. 2 and 3); 0 when none has one.

    Args:
        logits_BCHW: before the softmax, at the label's resolution.
        label_BHW: int64 classes, or `ignore_index`.
        count: of pixels with a label, where these images are but some of the batch's: the parts' results then add up
            to the batch's.
    """
    total = functional.cross_entropy(logits_BCHW, label_BHW, ignore_index=ignore_index, reduction="sum")
    return total / labeled_pixels(label_BHW, ignore_index).clamp(min=1) if count is None else total / count


def labeled_pixels(label_BHW: Tensor, ignore_index: int) -> Tensor:
    """How many pixels have a label, 0-d int64."""
    return (label_BHW != ignore_index).sum()


def lambda_u(label_BHW: Tensor, valid_BHW: Tensor, eta: float, ignore_index: int) -> Tensor:
    """Weight of the unsupervised loss: eta times the inverse share of pixels with a pseudo-label (Eq. 8).

    Args:
        label_BHW: pseudo-labels (Eq. 6).
        valid_BHW: bool; the pixels that Eq. 8 counts as |B_u| H W, all but padding.

    Returns:
        0-d float32 tensor; eta times the number of valid pixels when none has a pseudo-label (the loss is 0 then).
    """
    return eta * valid_BHW.sum() / labeled_pixels(label_BHW, ignore_index).clamp(min=1)
