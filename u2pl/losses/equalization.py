"""Adaptive equalization learning (AEL): how sure the student is of each class, and what follows from it.

Equations are those of Hu et al., *Semi-Supervised Semantic Segmentation via Adaptive Equalization Learning*, NeurIPS
2021.
"""

import torch
from torch import Tensor
from torch.nn import functional


def true_class_probability(
    logits_BCHW: Tensor, label_BHW: Tensor, ignore_index: int
) -> tuple[Tensor, Tensor]:
    """Of each image and class, the sum of the class's probability over its pixels, and their number (Eq. 4).

    Args:
        logits_BCHW: the student's, at the label's resolution.
        label_BHW: int64 classes, or `ignore_index`.

    Returns:
        Two (B, C) tensors, floats.
    """
    images, classes = logits_BCHW.shape[:2]
    nll_BHW = functional.cross_entropy(logits_BCHW, label_BHW, ignore_index=ignore_index, reduction="none")
    known_BHW = label_BHW != ignore_index
    image_B11 = torch.arange(images, device=label_BHW.device)[:, None, None]
    # What is ignored goes to a place of its own, behind all others.
    place = torch.where(known_BHW, image_B11 * classes + label_BHW, images * classes).flatten()
    total, count = (
        torch.zeros(images * classes + 1, device=place.device, dtype=values.dtype).index_add_(
            0, place, values.flatten()
        )
        for values in ((-nll_BHW).exp(), known_BHW.to(nll_BHW.dtype))
    )
    return total[:-1].view(images, classes), count[:-1].view(images, classes)


def update(
    confidence_C: Tensor, total_BC: Tensor, count_BC: Tensor, *, momentum: float, mean: str, absent: str
) -> Tensor:
    """The confidence bank after a batch: Conf <- momentum Conf + (1 - momentum) v.

    Args:
        confidence_C: Conf, from 0 to 1.
        total_BC: from `true_class_probability`, of all images of the batch.
        count_BC: likewise.
        momentum: of the average.
        mean: `image`: v is the mean over images that have the class of their own means (Eq. 4); `pixel`: over pixels.
        absent: a class that no image has stays as it is (`keep`), or has v = 0 (`zero`).
    """
    if mean == "image":
        total_C, count_C = (total_BC / count_BC.clamp(min=1)).sum(dim=0), (count_BC > 0).sum(dim=0)
    else:
        total_C, count_C = total_BC.sum(dim=0), count_BC.sum(dim=0)
    now_C = total_C / count_C.clamp(min=1)
    moved_C = momentum * confidence_C + (1 - momentum) * now_C
    if absent == "keep":
        moved_C = moved_C.where(count_C > 0, confidence_C)
    # A student that diverges is found out by its loss; the draws that follow from the bank must not fail before.
    return moved_C.where(moved_C.isfinite(), confidence_C)


def sampling(confidence_C: Tensor, power: float = 1.0, among_C: Tensor | None = None) -> Tensor:
    """Probability of drawing each class, (C,): softmax((1 - Conf)^power), the highest for the worst learned (Eq. 9).

    Args:
        confidence_C: from 0 to 1.
        power: 1 in the paper.
        among_C: bool; the others are never drawn.
    """
    lack_C = (1 - confidence_C) ** power
    return (lack_C if among_C is None else lack_C.where(among_C, -torch.inf)).softmax(dim=0)


def keep_rate(confidence_C: Tensor, beta: float) -> Tensor:
    """Share of a class's pixels that are kept: [(1 - Conf) / max (1 - Conf)]^beta, (C,)."""
    lack_C = 1 - confidence_C
    # Where every class is perfectly learned none is ahead of another: all are kept.
    most = lack_C.max()
    return torch.where(most > 0, lack_C / most.clamp(min=torch.finfo(lack_C.dtype).tiny), 1.0) ** beta


def weights(
    confidence_BHW: Tensor,
    predicted_BHW: Tensor,
    valid_BHW: Tensor,
    *,
    rate_C: Tensor,
    draw_HW: Tensor,
    gamma: float,
) -> Tensor:
    """Weight of each pixel in the consistency loss, before it is normalised, (B, H, W).

    conf^gamma where the pixel is kept, else 0: one is kept with the rate of the class that the student predicts there.

    Args:
        confidence_BHW: the teacher's probability of its label.
        predicted_BHW: the student's likeliest class, int64.
        valid_BHW: bool; 0 elsewhere.
        rate_C: from `keep_rate`; ones keep all.
        draw_HW: uniform numbers from 0 to 1, the same for all images.
        gamma: at 0 all that are kept count the same.
    """
    kept_BHW = (draw_HW < rate_C[predicted_BHW]) & valid_BHW
    return torch.where(kept_BHW, confidence_BHW**gamma, 0)


def weighted_cross_entropy(
    logits_BCHW: Tensor, target_BHW: Tensor, weight_BHW: Tensor, ignore_index: int
) -> Tensor:
    """Of each image the weighted sum of its pixels' cross-entropies, (B,) (Eq. 12, not divided); ignored ones add 0."""
    loss_BHW = functional.cross_entropy(logits_BCHW, target_BHW, ignore_index=ignore_index, reduction="none")
    return (weight_BHW * loss_BHW).sum(dim=(1, 2))
