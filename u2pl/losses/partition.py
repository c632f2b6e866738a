"""Splits pixels into reliable and unreliable ones by the entropy of the teacher's prediction (Sec. 3.2)."""

from typing import NamedTuple

import torch
from torch import Tensor

_PIXELS_AT_ONCE = 2**15
"""On a CPU `predict` works on so many pixels that their intermediate values stay in the cache."""


class Prediction(NamedTuple):
    """What a network says of each pixel, (B, H, W) each."""

    label: Tensor
    """int64: the likeliest class, of equally likely ones the smallest."""
    entropy: Tensor
    """Nats (Eq. 5)."""
    confidence: Tensor
    """Probability of the likeliest class."""


def entropy(prob_BCHW: Tensor) -> Tensor:
    """Entropy of each pixel's class distribution in nats, (B, H, W) (Eq. 5); 0 log 0 counts as 0."""
    return torch.special.entr(prob_BCHW).sum(dim=1)


def predict(logits_BCHW: Tensor) -> Prediction:
    """The likeliest class of each pixel, the entropy of its softmax and its maximum, in one pass (Eqs. 5 and 6).

    With s = logits less their maximum, H = log(sum of exp s) - (sum of s exp s) / (sum of exp s): the
    probabilities themselves are never needed.

    Args:
        logits_BCHW: finite floats.
    """
    batch, _, height, width = logits_BCHW.shape
    label_BHW = torch.empty(batch, height, width, dtype=torch.int64, device=logits_BCHW.device)
    entropy_BHW, confidence_BHW = (torch.empty_like(label_BHW, dtype=logits_BCHW.dtype) for _ in range(2))
    rows = max(1, _PIXELS_AT_ONCE // width) if logits_BCHW.device.type == "cpu" else height
    for logits_CHW, label_HW, entropy_HW, confidence_HW in zip(
        logits_BCHW, label_BHW, entropy_BHW, confidence_BHW, strict=True
    ):
        for first in range(0, height, rows):
            part = slice(first, first + rows)
            shifted = logits_CHW[:, part]
            top = shifted.max(dim=0)
            shifted = shifted - top.values
            weight = shifted.exp()
            total = weight.sum(dim=0)
            label_HW[part] = top.indices
            confidence_HW[part] = 1 / total
            entropy_HW[part] = total.log() - weight.mul_(shifted).sum(dim=0) / total
    return Prediction(label_BHW, entropy_BHW, confidence_BHW)


def alpha_t(alpha0: float, epoch: int, epochs: int) -> float:
    """Share of the pixels that are unreliable in an epoch (Eq. 7), counted from 0."""
    return alpha0 * (1 - epoch / epochs)


def percentile(values: Tensor, valid: Tensor, share: float | Tensor) -> Tensor:
    """The value below which `share` (0 to 1) of the valid `values` lie, interpolated linearly as np.percentile does.

    Args:
        values: floats of any shape.
        valid: bool of the same shape; the others do not count.

    Returns:
        0-d tensor on the same device, computed there: no count travels to the host. NaN when nothing is
        valid, so that every comparison with it is False.
    """
    # Not torch.nanquantile: it refuses more than 2^24 values, and indexing by a mask would wait for the device.
    candidates = values.masked_fill(~valid, torch.inf).flatten()
    last = (valid.sum() - 1).clamp(min=0)
    position = last.to(torch.float64) * share
    below = position.floor().long()
    low, high = _smallest(candidates, torch.stack([below, torch.minimum(below + 1, last)]))
    weight = (position - below).to(values.dtype)
    return torch.where(valid.any(), low + (high - low) * weight, torch.nan)


def _smallest(values: Tensor, k: Tensor) -> Tensor:
    """The k-th smallest values, counted from 0; selected on a CPU, where k can be read, and sorted elsewhere."""
    if values.device.type == "cpu":
        return torch.stack([values.kthvalue(place + 1).values for place in k.tolist()])
    return values.sort().values.gather(0, k)


def gamma_t(entropy_BHW: Tensor, valid_BHW: Tensor, alpha: float) -> Tensor:
    """Entropy from which a pixel counts as unreliable, one number for the whole batch (Eq. 6).

    Args:
        entropy_BHW: nats, from `entropy` or `predict`.
        valid_BHW: bool; False where a pixel is padding.
        alpha: share of the valid pixels to call unreliable, from `alpha_t`.

    Returns:
        0-d tensor; NaN when no pixel is valid.
    """
    return percentile(entropy_BHW, valid_BHW, 1 - alpha)


def pseudo_label(label_BHW: Tensor, entropy_BHW: Tensor, gamma: Tensor, ignore_index: int) -> Tensor:
    """The likeliest class where the entropy is below gamma_t, else `ignore_index` (Eq. 6).

    Args:
        label_BHW: argmax of the prediction, int64; `ignore_index` where a pixel is padding.
        gamma: from `gamma_t`, 0-d or broadcast over the pixels.

    Returns:
        (B, H, W) int64.
    """
    return torch.where(entropy_BHW < gamma, label_BHW, ignore_index)
