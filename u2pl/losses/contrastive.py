"""The pixel contrastive loss on unreliable pixels (Sec. 3.3), and its binary variant (App. C).

P is every pixel of the step, labelled and unlabelled images in one row, at the heads' resolution.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

_PIXELS_AT_ONCE = 2**14
"""On a CPU their probabilities stay in the cache."""

_RANKS = 255
"""Ranks are bytes; a threshold beyond them would wrap around."""


def parts(*of_pixels_P: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Tensors with a row for each pixel, (P, ...), in parts that stay in a CPU's cache; whole, elsewhere."""
    at_once = _PIXELS_AT_ONCE if of_pixels_P[0].device.type == "cpu" else max(1, len(of_pixels_P[0]))
    return zip(*(of_pixels.split(at_once) for of_pixels in of_pixels_P), strict=True)


def ranks(prob_CP: Tensor) -> Tensor:
    """O_ij(c): the place of each class in a pixel's prediction, 0 for the likeliest; (C, P) uint8, so C <= 255.

    Of two equal probabilities the class with the smaller index comes first. Counts for each class how
    many others beat it, which takes less time and memory than sorting every pixel's classes.
    """
    rank_CP = torch.zeros_like(prob_CP, dtype=torch.uint8)
    for c in range(len(prob_CP) - 1):
        beaten = prob_CP[c + 1 :] > prob_CP[c]
        rank_CP[c] += beaten.sum(dim=0, dtype=torch.uint8)
        rank_CP[c + 1 :] += ~beaten
    return rank_CP


def coarse_ranks(prob_CP: Tensor, r_l: int, r_h: int) -> Tensor:
    """`ranks` as far as two thresholds tell them apart, in a quarter of the time.

    Args:
        prob_CP: floats, none of them NaN.
        r_l: the lower threshold.
        r_h: the upper one, not below `r_l`.

    Returns:
        (C, P) uint8: 0 for a rank below `r_l`, `r_l` for one below `r_h`, and `r_h` for the others.
    """
    bounds = min(r_l, _RANKS), min(r_h, _RANKS)
    beyond = (likeliest(prob_CP, bound).logical_not_().view(torch.uint8).mul_(bound) for bound in bounds)
    return torch.maximum(*beyond)


def likeliest(prob_CP: Tensor, count: int) -> Tensor:
    """Whether a class is among the `count` likeliest of a pixel, (C, P) bool; of equal ones the first come first.

    Keeps the values of so many, the largest yet, and asks no more than which others reach the last of them.
    """
    classes = len(prob_CP)
    if 2 * count <= classes:
        return _outermost(prob_CP, count, _LARGEST)
    return _outermost(prob_CP, max(classes - count, 0), _SMALLEST).logical_not_()  # the others are fewer


class _End(NamedTuple):
    """One of the two ends of an order."""

    nearer: Callable[..., Tensor]
    farther: Callable[..., Tensor]
    reaches: Callable[..., Tensor]
    exceeds: Callable[..., Tensor]
    nowhere: float
    direction: int
    """In which classes of equal values come: from the first one, or from the last."""


_LARGEST = _End(torch.maximum, torch.minimum, torch.ge, torch.gt, -torch.inf, 1)
_SMALLEST = _End(torch.minimum, torch.maximum, torch.le, torch.lt, torch.inf, -1)


def _outermost(values_CP: Tensor, count: int, end: _End) -> Tensor:
    """Which `count` values of each column are nearest to one end, (C, P) bool."""
    if count == 0:
        return torch.zeros_like(values_CP, dtype=torch.bool)
    last_P = _last(values_CP, count, end)
    among_CP = _compared(end.reaches, values_CP, last_P)
    # On a GPU to look whether there are ties would mean to wait.
    if values_CP.device.type == "cpu" and bool((_count(among_CP) == count).all()):
        return among_CP
    among_CP = _compared(end.exceeds, values_CP, last_P)
    room_P = count - _count(among_CP)
    for value_P, among_P in list(zip(values_CP, among_CP, strict=True))[:: end.direction]:
        taken_P = (value_P == last_P) & (room_P > 0)
        among_P |= taken_P
        room_P -= taken_P.view(torch.uint8)
    return among_CP


def _last(values_CP: Tensor, count: int, end: _End) -> Tensor:
    """Of each column the value that is the `count`-th from an end, (P,)."""
    held = [torch.full_like(values_CP[0], end.nowhere) for _ in range(count)]
    for new_P in values_CP:
        for k, held_P in enumerate(held):
            left_P = end.farther(held_P, new_P) if k < count - 1 else new_P
            end.nearer(held_P, new_P, out=held_P)
            new_P = left_P
    return held[-1]


def _count(mask_CP: Tensor) -> Tensor:
    """How many classes have each pixel, (P,) uint8."""
    return mask_CP.view(torch.uint8).sum(dim=0, dtype=torch.uint8)


def _compared(operation: Callable[..., Tensor], left: Tensor, right: Tensor | float) -> Tensor:
    """`operation` of two tensors of one type, bool: into that type a CPU compares many times faster than into bool."""
    shape = torch.broadcast_shapes(left.shape, right.shape if isinstance(right, Tensor) else ())
    result = operation(left, right, out=torch.empty(shape, dtype=left.dtype, device=left.device))
    return result.view(torch.bool) if result.dtype == torch.uint8 else result.to(torch.bool)


def label_mask(label_P: Tensor, classes: int) -> Tensor:
    """Which pixels have which label, (C, P) bool; a label that is no class (ignored) is in no row."""
    # No class has the number 255: there are no more than so many.
    number_P = label_P.clamp(-1, _RANKS).to(torch.uint8)
    return _compared(
        torch.eq, number_P, torch.arange(classes, device=label_P.device, dtype=torch.uint8)[:, None]
    )


def anchor_mask(label_P: Tensor, prob_CP: Tensor, delta_p: float) -> Tensor:
    """Which pixels are candidate anchors of which class, (C, P) bool (Eqs. 9, 10 and 11).

    Args:
        label_P: true labels of labelled images and pseudo-labels of unlabelled ones; any value that is
            not a class (ignored, unreliable) makes no anchor.
        prob_CP: the teacher's probabilities.
        delta_p: probability of its class that an anchor must exceed.
    """
    return label_mask(label_P, len(prob_CP)).logical_and_(_compared(torch.gt, prob_CP, delta_p))


def labeled_negative_mask(label_P: Tensor, rank_CP: Tensor, r_l: int) -> Tensor:
    """n^l_ij(c): pixels of labelled images that are not c but easily taken for it, (C, P) bool (Eq. 14).

    A pixel whose label is no class (ignored) is a negative of none: whether it is c is unknown.
    """
    classes = len(rank_CP)
    known_P = (label_P >= 0) & (label_P < classes)
    others_CP = label_mask(label_P, classes).logical_not_()
    return others_CP.logical_and_(_compared(torch.lt, rank_CP, min(r_l, _RANKS))).logical_and_(known_P)


def unlabeled_negative_mask(chosen_P: Tensor, rank_CP: Tensor, r_l: int, r_h: int) -> Tensor:
    """n^u_ij(c): chosen (unreliable) pixels for which c is unlikely but not among the unlikeliest (Eq. 15).

    Args:
        chosen_P: bool; the pixels whose entropy exceeds gamma_t, or another choice for Table 4.

    Returns:
        (C, P) bool. With Eqs. 13 and 16, the negatives of class c are the labelled images' pixels of
        `labeled_negative_mask` and the unlabelled images' pixels of this one.
    """
    low_CP = _compared(torch.ge, rank_CP, min(r_l, _RANKS))
    return low_CP.logical_and_(_compared(torch.lt, rank_CP, min(r_h, _RANKS))).logical_and_(chosen_P)


def centers(
    representation_PD: Tensor, mask_CP: Tensor, total: Callable[[Tensor], Tensor] = lambda part: part
) -> tuple[Tensor, Tensor]:
    """Mean representation of every class's candidate anchors, z_c^+ (Eq. 12).

    Args:
        representation_PD: floats.
        mask_CP: bool; the candidates.
        total: the sum of a tensor over all parts of the batch, where these pixels are but one of them.

    Returns:
        (C, D) centres, zero for a class without candidates, and (C,) bool that says which have any.
    """
    sum_CD = representation_PD.new_zeros(len(mask_CP), representation_PD.shape[1])
    count_C = representation_PD.new_zeros(len(mask_CP))
    for some_PD, mask_PC in parts(representation_PD, mask_CP.t()):
        weight_CP = mask_PC.t().to(representation_PD.dtype)
        sum_CD += weight_CP @ some_PD
        count_C += weight_CP.sum(dim=1)
    sum_CD, count_C = total(sum_CD), total(count_C)
    return sum_CD / count_C.clamp(min=1)[:, None], count_C > 0


def sample(mask_CP: Tensor, count: int, generator: torch.Generator | None = None) -> Tensor:
    """Draw `count` pixels of each class uniformly, with replacement, from those its mask allows.

    Returns:
        (C, count) int64 indices into P, in bounds but meaningless for a class without any. No host round trip.
    """
    draw_CM = torch.rand(len(mask_CP), count, device=mask_CP.device, generator=generator)
    drawn_CM = torch.empty_like(draw_CM, dtype=torch.int64)
    for mask_P, draw_M, drawn_M in zip(mask_CP, draw_CM, drawn_CM, strict=True):
        seen_P = mask_P.cumsum(dim=0, dtype=torch.int32)
        # The k-th candidate is the first pixel by which k candidates have been seen.
        k_M = (draw_M * seen_P[-1]).to(torch.int32).minimum(seen_P[-1] - 1) + 1
        torch.searchsorted(seen_P, k_M, out=drawn_M)
    return drawn_CM.clamp_(max=mask_CP.shape[1] - 1)


def info_nce(
    anchor_CMD: Tensor,
    positive_CD: Tensor,
    negative_KD: Tensor,
    index_CMN: Tensor,
    tau: float,
    here_CM: Tensor | None = None,
    length_K: Tensor | None = None,
) -> Tensor:
    """Each anchor is to be more similar to its class centre than to all its negatives; Eq. 4 before its sum over c.

    l_c = -1/M sum_i log [ e^{<z_ci, z_c^+>/tau} / ( e^{<z_ci, z_c^+>/tau} + sum_j e^{<z_ci, z_cij^->/tau} ) ]
    with the cosine similarity <., .>, 0 where one of the two is 0.

    Args:
        anchor_CMD: the student's representations; the gradient reaches these alone.
        positive_CD: class centres, from `centers`.
        negative_KD: a table of the teacher's representations, such as the memory bank's storage.
        index_CMN: int64 rows of that table, N negatives for each anchor.
        tau: temperature.
        here_CM: bool; the anchors of this part of the batch, where the others count elsewhere: the parts' losses add
            up to the batch's. None: all of them.
        length_K: the lengths of the table's rows, as the memory bank has them; None: all of them are computed.

    Returns:
        (C,) the loss of each class. Of a class without anchors or negatives it is meaningless, see `mean_over_classes`.
    """
    return _contrast(anchor_CMD, positive_CD, negative_KD, index_CMN, tau, here_CM, length_K, _joint)


def binary(
    anchor_CMD: Tensor,
    positive_CD: Tensor,
    negative_KD: Tensor,
    index_CMN: Tensor,
    tau: float,
    here_CM: Tensor | None = None,
    length_K: Tensor | None = None,
) -> Tensor:
    """Each negative competes with the class centre on its own: L_b (Eq. A1) before its sum over c.

    l_c = 1/(M N) sum_i sum_j log(1 + e^{(<z_ci, z_cij^-> - <z_ci, z_c^+>)/tau}); arguments and result as of `info_nce`.
    """
    return _contrast(anchor_CMD, positive_CD, negative_KD, index_CMN, tau, here_CM, length_K, _pairwise)


def mean_over_classes(loss_C: Tensor, use_C: Tensor, classes: int | Tensor) -> Tensor:
    """The sum over c and the 1/C of Eqs. 4 and A1: classes without anchors or negatives add nothing.

    Args:
        loss_C: from `info_nce` or `binary`.
        use_C: bool; False for a class without anchors or without negatives.
        classes: what to divide by: all C classes, as Eq. 4 is written, or another count.

    Returns:
        0-d tensor; 0, with a gradient of 0, when no class is used.
    """
    return loss_C.where(use_C, 0).sum() / classes


Similarities = tuple[Tensor, Tensor, Tensor]
"""Of each anchor the loss (K,), and its derivatives by the similarities to the centre (K,) and the negatives (K, N)."""


def _joint(positive_K: Tensor, negative_KN: Tensor) -> Similarities:
    total_K = torch.logaddexp(positive_K, negative_KN.logsumexp(dim=1))
    return total_K - positive_K, (positive_K - total_K).exp() - 1, (negative_KN - total_K[:, None]).exp()


def _pairwise(positive_K: Tensor, negative_KN: Tensor) -> Similarities:
    margin_KN = negative_KN - positive_K[:, None]
    weight_KN = margin_KN.sigmoid() / margin_KN.shape[1]
    # Not softplus, which above 20 returns its argument.
    return -functional.logsigmoid(-margin_KN).mean(dim=1), -weight_KN.sum(dim=1), weight_KN


def _contrast(
    anchor_CMD: Tensor,
    positive_CD: Tensor,
    negative_KD: Tensor,
    index_CMN: Tensor,
    tau: float,
    here_CM: Tensor | None,
    length_K: Tensor | None,
    compare: Callable[[Tensor, Tensor], Similarities],
) -> Tensor:
    anchor_CMD = functional.normalize(anchor_CMD, dim=-1)
    positive_CD = functional.normalize(positive_CD, dim=-1)
    if length_K is None:
        length_K = torch.linalg.vector_norm(negative_KD, dim=1)
    length_CMN = length_K[index_CMN].clamp_(min=_SHORTEST)
    return _Contrast.apply(anchor_CMD, positive_CD, negative_KD, index_CMN, length_CMN, tau, here_CM, compare)


_SHORTEST = 1e-12
"""Length that a vector is divided by at least."""


class _Contrast(torch.autograd.Function):
    """Losses of unit anchors against unit centres and sampled rows of a table.

    The gradient reaches the anchors alone, so it is computed beside the loss, while the weights of the negatives are
    at hand. Neither pass copies a row: the similarities to rows are what a weighted sum of these rows has as the
    derivatives by its weights, and torch computes both for bags of embeddings, which lie where they lie.
    """

    @staticmethod
    def forward(
        ctx: Any,
        anchor_CMD: Tensor,
        positive_CD: Tensor,
        negative_KD: Tensor,
        index_CMN: Tensor,
        length_CMN: Tensor,
        tau: float,
        here_CM: Tensor | None,
        compare: Callable[[Tensor, Tensor], Similarities],
    ) -> Tensor:
        classes, count, _ = index_CMN.shape
        maps_A = [t.flatten(0, 1) for t in (anchor_CMD, index_CMN, length_CMN)]
        maps_A.append(positive_CD.repeat_interleave(count, 0))
        of_anchors = partial(_of_anchors, negative_KD=negative_KD, tau=tau, compare=compare)
        if here_CM is not None and here_CM.device.type == "cpu" and not here_CM.all():
            number_A = here_CM.flatten().nonzero()[:, 0]
            loss_A, gradient_AD = (
                t.new_zeros(classes * count, *t.shape[1:]).index_copy_(0, number_A, t)
                for t in of_anchors(*(t[number_A] for t in maps_A))
            )
        else:
            loss_A, gradient_AD = of_anchors(*maps_A)
            # Which anchors are here, only a CPU knows without waiting; elsewhere the rest is set to 0.
            if here_CM is not None:
                loss_A, gradient_AD = loss_A * here_CM.flatten(), gradient_AD * here_CM.flatten()[:, None]
        ctx.save_for_backward((gradient_AD / count).view_as(anchor_CMD))
        return loss_A.view(classes, count).mean(dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, loss_gradient_C: Tensor) -> tuple[Tensor | None, ...]:
        (gradient_CMD,) = ctx.saved_tensors
        return loss_gradient_C[:, None, None] * gradient_CMD, *(None,) * 7


def _of_anchors(
    anchor_AD: Tensor,
    index_AN: Tensor,
    length_AN: Tensor,
    center_AD: Tensor,
    negative_KD: Tensor,
    tau: float,
    compare: Callable[[Tensor, Tensor], Similarities],
) -> tuple[Tensor, Tensor]:
    """Of each anchor the loss (A,) and its gradient (A, D)."""
    first_A = torch.arange(0, index_AN.numel(), index_AN.shape[1], device=index_AN.device)
    bag_AN = torch.arange(len(anchor_AD), device=index_AN.device).repeat_interleave(index_AN.shape[1])
    similarity_AN = torch.ops.aten._embedding_bag_per_sample_weights_backward(
        anchor_AD.contiguous(), negative_KD, index_AN.flatten(), first_A, bag_AN, _SUM
    ).view_as(index_AN)
    similarity_AN /= length_AN * tau
    loss_A, by_center_A, by_negative_AN = compare((anchor_AD * center_AD).sum(dim=1) / tau, similarity_AN)
    weight_AN = by_negative_AN / length_AN
    pulled_AD = functional.embedding_bag(index_AN, negative_KD, per_sample_weights=weight_AN, mode="sum")
    return loss_A, (pulled_AD + by_center_A[:, None] * center_AD) / tau


_SUM = 0
"""The number of a sum among the ways in which a bag of embeddings becomes one."""
