"""The pixel contrastive loss on unreliable pixels (Sec. 3.3).

P is every pixel of the step, labelled and unlabelled images in one row, at the heads' resolution.
"""

import torch
from torch import Tensor
from torch.nn import functional


def class_order(prob_PC: Tensor) -> Tensor:
    """O_ij(c): the rank of each class in a pixel's prediction, 0 for the likeliest, (P, C) int64.

    Of two equal probabilities the class with the smaller index comes first.
    """
    return prob_PC.argsort(dim=1, descending=True, stable=True).argsort(dim=1)


def anchor_mask(label_P: Tensor, prob_PC: Tensor, delta_p: float) -> Tensor:
    """Which pixels are candidate anchors of which class, (P, C) bool (Eqs. 9, 10 and 11).

    Args:
        label_P: true labels of labelled images and pseudo-labels of unlabelled ones; any value that is
            not a class (ignored, unreliable) makes no anchor.
        prob_PC: the teacher's probabilities.
        delta_p: probability of its class that an anchor must exceed.
    """
    return _is_class(label_P, prob_PC.shape[1]) & (prob_PC > delta_p)


def labeled_negative_mask(label_P: Tensor, order_PC: Tensor, r_l: int) -> Tensor:
    """n^l_ij(c): pixels of labelled images that are not c but easily taken for it, (P, C) bool (Eq. 14).

    A pixel whose label is no class (ignored) is a negative of none: whether it is c is unknown.
    """
    classes = order_PC.shape[1]
    known = (label_P >= 0) & (label_P < classes)
    return known[:, None] & ~_is_class(label_P, classes) & (order_PC < r_l)


def unlabeled_negative_mask(chosen_P: Tensor, order_PC: Tensor, r_l: int, r_h: int) -> Tensor:
    """n^u_ij(c): chosen (unreliable) pixels for which c is unlikely but not among the unlikeliest (Eq. 15).

    Args:
        chosen_P: bool; the pixels whose entropy exceeds gamma_t, or another choice for Table 4.

    Returns:
        (P, C) bool.
    """
    return chosen_P[:, None] & (order_PC >= r_l) & (order_PC < r_h)


def centers(representation_PD: Tensor, anchor_mask_PC: Tensor) -> tuple[Tensor, Tensor]:
    """Mean representation of every class's candidate anchors, z_c^+ (Eq. 12).

    Returns:
        (C, D) centres, zero for a class without candidates, and (C,) bool that says which have any.
    """
    weights = anchor_mask_PC.to(representation_PD.dtype)
    count_C = weights.sum(dim=0)
    return weights.T @ representation_PD / count_C.clamp(min=1)[:, None], count_C > 0


def sample(mask_PC: Tensor, count: int, generator: torch.Generator | None = None) -> Tensor:
    """Draw `count` pixels of each class uniformly, with replacement, from those its mask allows.

    Returns:
        (C, count) int64 indices into P, in bounds but meaningless for a class without any. No host round trip.
    """
    cumulative_CP = mask_PC.T.cumsum(dim=1, dtype=torch.int32).contiguous()
    total_C = cumulative_CP[:, -1:]
    draw = torch.rand(len(total_C), count, device=mask_PC.device, generator=generator)
    # The k-th candidate is the first pixel by which k candidates have been seen.
    k = (draw * total_C).to(torch.int32).minimum(total_C - 1) + 1
    return torch.searchsorted(cumulative_CP, k).clamp(max=mask_PC.shape[0] - 1)


def info_nce(
    anchor_CMD: Tensor, positive_CD: Tensor, negative_CMND: Tensor, use_C: Tensor, tau: float
) -> Tensor:
    """L_c: each anchor is to be more similar to its class centre than to its negatives (Eq. 4).

    Args:
        anchor_CMD: the student's representations; the gradient reaches these alone.
        positive_CD: class centres, from `centers`.
        negative_CMND: the teacher's representations, drawn from the memory bank.
        use_C: bool; False for a class without anchors or without negatives. Such a class adds nothing,
            and the sum is still divided by all C classes, as Eq. 4 is written.
        tau: temperature of the cosine similarities.

    Returns:
        0-d tensor, 0 when no class is used.
    """
    anchor = functional.normalize(anchor_CMD, dim=-1)
    positive_CD, negative_CMND = positive_CD.detach(), negative_CMND.detach()
    positive = torch.einsum("cmd,cd->cm", anchor, functional.normalize(positive_CD, dim=-1))
    # Divided by the length afterwards: a normalised copy of the largest tensor of the step would cost more.
    length_CMN = torch.linalg.vector_norm(negative_CMND, dim=-1).clamp(min=1e-12)
    negative = torch.einsum("cmd,cmnd->cmn", anchor, negative_CMND) / length_CMN
    similarity = torch.cat([positive[..., None], negative], dim=-1) / tau
    loss_CM = similarity.logsumexp(dim=-1) - similarity[..., 0]
    return loss_CM.mean(dim=1).where(use_C, 0).mean()


def _is_class(label_P: Tensor, classes: int) -> Tensor:
    return label_P[:, None] == torch.arange(classes, device=label_P.device)
