"""Supervised and unsupervised cross-entropy (Eqs. 2, 3 and 8)."""

from torch import Tensor
from torch.nn import functional


def cross_entropy(logits_BCHW: Tensor, label_BHW: Tensor, ignore_index: int) -> Tensor:
    """Mean cross-entropy over the pixels of a batch that have a label (Eqs. 2 and 3); 0 when none has one.

    Args:
        logits_BCHW: before the softmax, at the label's resolution.
        label_BHW: int64 classes, or `ignore_index`.
    """
    total = functional.cross_entropy(logits_BCHW, label_BHW, ignore_index=ignore_index, reduction="sum")
    return total / (label_BHW != ignore_index).sum().clamp(min=1)


def lambda_u(label_BHW: Tensor, valid_BHW: Tensor, eta: float, ignore_index: int) -> Tensor:
    """Weight of the unsupervised loss: eta times the inverse share of pixels with a pseudo-label (Eq. 8).

    Args:
        label_BHW: pseudo-labels (Eq. 6).
        valid_BHW: bool; the pixels that Eq. 8 counts as |B_u| H W, all but padding.

    Returns:
        0-d float32 tensor; eta times the number of valid pixels when none has a pseudo-label (the loss is 0 then).
    """
    return eta * valid_BHW.sum() / (label_BHW != ignore_index).sum().clamp(min=1)
