"""Splits pixels into reliable and unreliable ones by the entropy of the teacher's prediction (Sec. 3.2)."""

from typing import NamedTuple

import torch
from torch import Tensor

from u2pl.losses.enlarged import Enlarged, enlarge


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


def predict(logits_BChw: Tensor, size: tuple[int, ...] | None = None) -> Prediction:
    """The likeliest class of each pixel, the entropy of its softmax and its maximum, in one pass (Eqs. 5 and 6).

    With s = logits less their maximum, H = log(sum of exp s) - (sum of s exp s) / (sum of exp s): the
    probabilities themselves are never needed.

    Args:
        logits_BChw: finite floats.
        size: height and width at which pixels are predicted, the logits interpolated, bilinear with corners aligned;
            None: those of the logits.
    """
    size = tuple(logits_BChw.shape[2:] if size is None else size)
    label_BHW = torch.empty(len(logits_BChw), *size, dtype=torch.int64, device=logits_BChw.device)
    entropy_BHW, confidence_BHW = (torch.empty_like(label_BHW, dtype=logits_BChw.dtype) for _ in range(2))
    maps = label_BHW, entropy_BHW, confidence_BHW
    if logits_BChw.device.type != "cpu":
        _predict(enlarge(logits_BChw, size).transpose(0, 1), *maps)
        return Prediction(*maps)
    # A few rows at a time, so that their intermediate values stay in the cache.
    for logits_Chw, *of_image in zip(logits_BChw, *maps, strict=True):
        enlarged = Enlarged(logits_Chw, size)
        for part in enlarged:
            _predict(enlarged.rows(part), *(of_pixels[part] for of_pixels in of_image))
    return Prediction(*maps)


def _predict(logits_C: Tensor, label: Tensor, entropy: Tensor, confidence: Tensor) -> None:
    """Fill in what is said of some pixels, of any shape; overwrites their logits."""
    classes, top = len(logits_C), logits_C.amax(dim=0)
    # The first of the likeliest has the largest number; to ask for the place of a maximum takes far longer.
    number_C = torch.arange(classes, 0, -1, dtype=logits_C.dtype, device=logits_C.device)
    first_C = torch.eq(logits_C, top, out=torch.empty_like(logits_C)).mul_(number_C.view(-1, *[1] * top.ndim))
    label.copy_(first_C.amax(dim=0)).neg_().add_(classes)
    shifted_C = logits_C.sub_(top)
    weight_C = shifted_C.exp()
    total = weight_C.sum(dim=0)
    confidence.copy_(1 / total)
    entropy.copy_(total.log() - weight_C.mul_(shifted_C).sum(dim=0) / total)


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
    """The k-th smallest values, counted from 0, of a k and the next; selected on a CPU, where k can be read."""
    if values.device.type != "cpu":
        return values.sort().values.gather(0, k)
    low, high = k.tolist()
    lower = values.kthvalue(low + 1).values
    if high == low or (values <= lower).sum() > high:
        return torch.stack([lower, lower])
    # To look for the next one takes a fraction of selecting it.
    return torch.stack([lower, values.where(values > lower, torch.inf).min()])


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
