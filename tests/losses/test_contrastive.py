import math
from collections.abc import Callable
from typing import NamedTuple
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from losses import reference, scenes
from losses.scenes import Scene
from scipy.stats import chisquare
from torch import Tensor
from torch.nn import functional

from u2pl.losses import contrastive

IGNORE = scenes.IGNORE
PIXELS = 30
seeds = st.integers(0, 10**6)
any_scene = st.builds(
    scenes.make,
    seed=seeds,
    classes=st.integers(2, 6),
    labels=st.sampled_from(scenes.LABELS),
    logits=st.sampled_from(scenes.LOGITS),
    features=st.sampled_from(scenes.FEATURES),
)
ranks_to = st.sampled_from([(3, 20), (1, 3), (0, 2), (1, 2), (2, 6), (3, 3), (7, 20)])
"""(r_l, r_h): the paper's, with most numbers of classes below r_h and some not above r_l, and others."""


def chosen(mask_CP: Tensor, c: int) -> list[int]:
    return mask_CP[c].nonzero().flatten().tolist()


# O_ij


@given(seed=seeds, classes=st.integers(1, 255), kind=st.sampled_from(["random", "ties", "equal"]))
@settings(max_examples=60, deadline=None)
def test_ranks_are_the_places_in_descending_order_and_ties_go_to_the_smaller_class(
    seed: int, classes: int, kind: str
):
    prob = scenes.make(seed, classes, logits=kind, size=(1, 3)).prob_CP
    rank = contrastive.ranks(prob)
    assert rank.dtype == torch.uint8
    assert rank.T.tolist() == [reference.order(p) for p in prob.T.tolist()]


@given(
    seed=seeds,
    classes=st.integers(1, 255),
    kind=st.sampled_from(["random", "ties", "equal"]),
    bounds=st.tuples(st.integers(0, 300), st.integers(0, 300)).map(sorted),
)
@settings(max_examples=100, deadline=None)
def test_coarse_ranks_lie_between_the_same_thresholds_as_ranks(
    seed: int, classes: int, kind: str, bounds: list[int]
):
    prob, (r_l, r_h) = scenes.make(seed, classes, logits=kind, size=(1, 3)).prob_CP, bounds
    rank = contrastive.ranks(prob)
    coarse = contrastive.coarse_ranks(prob, r_l, r_h)
    assert torch.equal(contrastive.likeliest(prob, r_l), rank < min(r_l, 255))
    assert coarse.dtype == torch.uint8
    for bound in bounds:
        assert torch.equal(coarse < min(bound, 255), rank < min(bound, 255))


@given(any_scene)
@settings(max_examples=30, deadline=None)
def test_the_likeliest_class_has_rank_0_and_the_unlikeliest_rank_c_minus_1(scene: Scene):
    prob = scene.prob_CP
    rank = contrastive.ranks(prob).long()
    assert (prob.gather(0, rank.argmin(dim=0)[None]) == prob.amax(dim=0)).all()
    assert (prob.gather(0, rank.argmax(dim=0)[None]) == prob.amin(dim=0)).all()
    assert (rank.sort(dim=0).values == torch.arange(scene.classes)[:, None]).all()


def test_all_of_255_ranks_fit():
    prob = torch.arange(255.0)[:, None]
    assert torch.equal(contrastive.ranks(prob).flatten(), torch.arange(254, -1, -1, dtype=torch.uint8))


# Eqs. 9 to 16


@given(any_scene)
@settings(max_examples=30, deadline=None)
def test_the_rows_of_a_label_mask_are_the_classes_and_no_row_is_the_ignored_pixels(scene: Scene):
    label = scene.plain_label_P
    mask = contrastive.label_mask(label, scene.classes)
    for c in range(scene.classes):
        assert chosen(mask, c) == [j for j, y in enumerate(label.tolist()) if y == c]


@given(any_scene, st.sampled_from([0.0, 0.3, 0.9, 0.999]))
@settings(max_examples=60, deadline=None)
def test_anchor_candidates_are_equations_9_to_11(scene: Scene, delta_p: float):
    label, prob = scene.plain_label_P, scene.prob_CP
    mask = contrastive.anchor_mask(label, prob, delta_p)
    for c in range(scene.classes):
        expected = reference.all_anchors(
            label.tolist(), prob.T.tolist(), scene.labeled_P.tolist(), delta_p, c
        )
        assert set(chosen(mask, c)) == expected


def test_an_anchor_must_exceed_delta_p():
    prob = torch.tensor([[0.25, 0.5], [0.75, 0.5]])
    assert contrastive.anchor_mask(torch.tensor([0, 0]), prob, 0.25).tolist() == [
        [False, True],
        [False, False],
    ]


@given(any_scene, st.integers(0, 7))
@settings(max_examples=60, deadline=None)
def test_labelled_negatives_are_equation_14(scene: Scene, r_l: int):
    label, prob = scene.plain_label_P, scene.prob_CP
    mask = contrastive.labeled_negative_mask(label, contrastive.ranks(prob), r_l)
    for c in range(scene.classes):
        assert mask[c].tolist() == [
            reference.labeled_negative(y, p, r_l, c)
            for y, p in zip(label.tolist(), prob.T.tolist(), strict=True)
        ]


@given(any_scene, ranks_to, st.sampled_from([0.0, 0.5, 1.0]))
@settings(max_examples=60, deadline=None)
def test_unlabelled_negatives_are_equation_15(scene: Scene, r: tuple[int, int], share: float):
    prob = scene.prob_CP
    unreliable = torch.rand(prob.shape[1], generator=torch.Generator().manual_seed(0)) < share
    mask = contrastive.unlabeled_negative_mask(unreliable, contrastive.ranks(prob), *r)
    for c in range(scene.classes):
        assert mask[c].tolist() == [
            reference.unlabeled_negative(high, p, *r, c)
            for high, p in zip(unreliable.tolist(), prob.T.tolist(), strict=True)
        ]


@given(any_scene, ranks_to)
@settings(max_examples=40, deadline=None)
def test_both_masks_put_together_are_equations_13_and_16(scene: Scene, r: tuple[int, int]):
    label, prob, labeled = scene.plain_label_P, scene.prob_CP, scene.labeled_P
    unreliable = torch.rand(len(label), generator=torch.Generator().manual_seed(1)) < 0.5
    rank = contrastive.ranks(prob)
    mask = torch.where(
        labeled,
        contrastive.labeled_negative_mask(label, rank, r[0]),
        contrastive.unlabeled_negative_mask(unreliable, rank, *r),
    )
    for c in range(scene.classes):
        expected = reference.negatives(
            label.tolist(), prob.T.tolist(), labeled.tolist(), unreliable.tolist(), *r, c
        )
        assert chosen(mask, c) == expected


def test_a_pixel_of_a_class_is_never_its_negative_even_where_the_teacher_is_wrong():
    prob = torch.tensor([[0.6, 0.1], [0.3, 0.3], [0.1, 0.6]])
    mask = contrastive.labeled_negative_mask(torch.tensor([0, 0]), contrastive.ranks(prob), 2)
    assert mask.T.tolist() == [[False, True, False], [False, True, True]]


@pytest.mark.parametrize("bound", [3, 20, 255, 256, 257, 512, 1000])
def test_a_rank_threshold_above_every_rank_bounds_nothing(bound: int):
    rank = torch.arange(3, dtype=torch.uint8)[:, None]
    chosen_P, unlabelled = torch.tensor([True]), contrastive.unlabeled_negative_mask
    assert unlabelled(chosen_P, rank, 1, bound).flatten().tolist() == [False, True, True]
    assert unlabelled(chosen_P, rank, bound, 2000).flatten().tolist() == [False, False, False]
    labelled = contrastive.labeled_negative_mask(torch.tensor([0]), rank, bound)
    assert labelled.flatten().tolist() == [False, True, True]


@given(any_scene, st.sampled_from([0.0, 0.3]), st.sampled_from([3, 2**14]))
@settings(max_examples=60, deadline=None)
def test_centers_are_equation_12(scene: Scene, delta_p: float, at_once: int):
    label, prob = scene.plain_label_P, scene.prob_CP
    z = scene.teacher.permute(0, 2, 3, 1).flatten(0, 2)
    with mock.patch.object(contrastive, "_PIXELS_AT_ONCE", at_once):
        centers, present = contrastive.centers(z, contrastive.anchor_mask(label, prob, delta_p))
    for c in range(scene.classes):
        members = reference.all_anchors(label.tolist(), prob.T.tolist(), scene.labeled_P.tolist(), delta_p, c)
        assert present[c].item() == bool(members)
        expected = reference.center(z.tolist(), members) if members else [0.0] * z.shape[1]
        np.testing.assert_allclose(centers[c], expected, rtol=0, atol=1e-9)


# Eqs. 4 and A1


class Given(NamedTuple):
    """What the losses compare, float64."""

    anchor_CMD: Tensor
    positive_CD: Tensor
    negative_KD: Tensor
    index_CMN: Tensor


class Loss(NamedTuple):
    """One of the two losses, and the same written down elsewhere."""

    ours: Callable[..., Tensor]
    reference: reference.Compare
    gradient: Callable[..., list[float]]
    plain: Callable[[Tensor, Tensor], Tensor]
    """Loss of each anchor from its similarity to the centre (C, M) and to its negatives (C, M, N)."""


losses = pytest.mark.parametrize(
    "loss",
    [
        Loss(
            contrastive.info_nce,
            reference.joint,
            reference.joint_gradient,
            lambda right, wrong: -torch.cat([right[..., None], wrong], dim=2).log_softmax(dim=2)[..., 0],
        ),
        Loss(
            contrastive.binary,
            reference.pairwise,
            reference.pairwise_gradient,
            lambda right, wrong: -(right[..., None] - wrong).sigmoid().log().mean(dim=2),
        ),
    ],
    ids=["info_nce", "binary"],
)


def make(seed: int, classes: int = 3, M: int = 4, N: int = 3, D: int = 5, K: int = 11) -> Given:
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    # Of different lengths, as nothing says that a network's representations have length 1.
    anchor = 3 * randn(classes, M, D) * randn(classes, M, 1).exp()
    index = torch.randint(K, (classes, M, N), generator=generator)
    return Given(anchor, randn(classes, D), randn(K, D), index)


def through_autograd(loss: Loss, anchor_CMD: Tensor, given: Given, tau: float) -> Tensor:
    """(C,): all C x M x N negatives at once, and PyTorch finds the gradient."""
    right = functional.cosine_similarity(anchor_CMD, given.positive_CD[:, None], dim=2)
    negative = given.negative_KD[given.index_CMN]
    wrong = functional.cosine_similarity(anchor_CMD[:, :, None], negative, dim=3)
    return loss.plain(right / tau, wrong / tau).mean(dim=1)


def gradient_of(function: Callable[[Tensor], Tensor], anchor_CMD: Tensor) -> Tensor:
    anchor_CMD = anchor_CMD.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(function(anchor_CMD), anchor_CMD)
    return gradient


@losses
@given(
    seed=seeds,
    classes=st.integers(2, 5),
    M=st.sampled_from([1, 4]),
    N=st.sampled_from([1, 3, 8]),
    tau=st.sampled_from([0.1, 0.5, 2.0]),
    use=st.lists(st.booleans(), min_size=5, max_size=5),
    zeros=st.booleans(),
    known=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_the_loss_is_the_papers_equation(
    loss: Loss,
    seed: int,
    classes: int,
    M: int,
    N: int,
    tau: float,
    use: list[bool],
    zeros: bool,
    known: bool,
):
    """Eq. 4 and Eq. A1; fewer rows in the table than negatives drawn, zero vectors, classes that are not used."""
    given, use = make(seed, classes, M, N, K=5), use[:classes]
    if zeros:  # what an absent class and an empty ring look like
        given.positive_CD[0], given.negative_KD[::2], given.anchor_CMD[-1, -1] = 0, 0, 0
    loss_C = loss.ours(*given, tau, length_K=given.negative_KD.norm(dim=1) if known else None)
    negative = given.negative_KD[given.index_CMN].tolist()
    anchor, positive = given.anchor_CMD.tolist(), given.positive_CD.tolist()
    result = contrastive.mean_over_classes(loss_C, torch.tensor(use), classes)
    expected = reference.contrast(loss.reference, anchor, positive, negative, use, tau)
    assert result.item() == pytest.approx(expected, abs=1e-9)
    for c in range(classes):
        alone = [k == c for k in range(classes)]
        expected = classes * reference.contrast(loss.reference, anchor, positive, negative, alone, tau)
        assert loss_C[c].item() == pytest.approx(expected, abs=1e-9)


@losses
@pytest.mark.parametrize("tau", [0.1, 0.05, 0.01])
def test_at_a_small_temperature_the_loss_is_as_exact(loss: Loss, tau: float):
    """Table A6 goes down to 0.01, where similarities divided by it differ by up to 200."""
    angle = torch.linspace(0, math.pi, 400, dtype=torch.float64)[:, None, None]
    negative = torch.cat([angle.cos(), angle.sin()], dim=2)
    towards = torch.tensor([1.0, 0.0], dtype=torch.float64)
    index = torch.arange(400)[:, None, None]
    given = Given(towards.expand(400, 1, 2), -towards.expand(400, 2), negative[:, 0], index)
    expected = [loss.reference([1.0, 0.0], [-1.0, 0.0], n, tau) for n in negative.tolist()]
    np.testing.assert_allclose(loss.ours(*given, tau), expected, rtol=0, atol=1e-9)


@losses
@given(seed=seeds, tau=st.sampled_from([0.05, 0.5, 2.0]), zeros=st.booleans())
@settings(max_examples=40, deadline=None)
def test_the_gradient_is_the_derivative_of_the_papers_equation(
    loss: Loss, seed: int, tau: float, zeros: bool
):
    given, use = make(seed), [True, False, True]
    if zeros:
        given.positive_CD[0], given.negative_KD[::2] = 0, 0

    def total(loss_C: Tensor) -> Tensor:
        return contrastive.mean_over_classes(loss_C, torch.tensor(use), 3)

    gradient = gradient_of(lambda a: total(loss.ours(a, *given[1:], tau)), given.anchor_CMD)
    plain = gradient_of(lambda a: total(through_autograd(loss, a, given, tau)), given.anchor_CMD)
    negative = given.negative_KD[given.index_CMN].tolist()
    expected = [
        [
            [used * x / (3 * 4) for x in loss.gradient(z, positive, wrong, tau)]
            for z, wrong in zip(anchors, negatives, strict=True)
        ]
        for used, anchors, positive, negatives in zip(
            use, given.anchor_CMD.tolist(), given.positive_CD.tolist(), negative, strict=True
        )
    ]
    np.testing.assert_allclose(gradient, expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(gradient, plain, rtol=1e-9, atol=1e-9)


@losses
def test_the_gradient_is_that_of_finite_differences(loss: Loss):
    given = make(0, classes=2)
    assert torch.autograd.gradcheck(
        lambda anchor: loss.ours(anchor, *given[1:], 0.5), given.anchor_CMD.requires_grad_()
    )


@losses
@given(seed=seeds)
@settings(max_examples=20, deadline=None)
def test_weights_of_the_classes_and_pixels_drawn_twice_reach_the_map_as_through_autograd(
    loss: Loss, seed: int
):
    given = make(seed)
    generator = torch.Generator().manual_seed(seed)
    map_PD = torch.randn(4, 5, generator=generator, dtype=torch.float64)
    weight_C = torch.randn(3, generator=generator, dtype=torch.float64)
    drawn_CM = torch.randint(4, (3, 4), generator=generator)
    ours = gradient_of(lambda z: (weight_C * loss.ours(z[drawn_CM], *given[1:], 0.5)).sum(), map_PD)
    plain = gradient_of(lambda z: (weight_C * through_autograd(loss, z[drawn_CM], given, 0.5)).sum(), map_PD)
    np.testing.assert_allclose(ours, plain, rtol=1e-9, atol=1e-9)


@losses
@given(seed=seeds, share=st.sampled_from([0.0, 0.3, 1.0]))
@settings(max_examples=20, deadline=None)
def test_anchors_that_are_here_and_those_that_are_elsewhere_add_up_to_all(
    loss: Loss, seed: int, share: float
):
    given = make(seed)
    here_CM = torch.rand(3, 4, generator=torch.Generator().manual_seed(seed)) < share

    def of(here_CM: Tensor | None) -> tuple[Tensor, Tensor]:
        gradient = gradient_of(lambda a: loss.ours(a, *given[1:], 0.5, here_CM).sum(), given.anchor_CMD)
        return loss.ours(*given, 0.5, here_CM), gradient

    whole, here, elsewhere = of(None), of(here_CM), of(~here_CM)
    for all_of_them, one, other in zip(whole, here, elsewhere, strict=True):
        np.testing.assert_allclose(one + other, all_of_them, rtol=0, atol=1e-12)
    assert (here[1][~here_CM] == 0).all() and (elsewhere[1][here_CM] == 0).all()


@losses
def test_in_single_precision_loss_and_gradient_stay_close(loss: Loss):
    given = make(0, M=6, N=40, D=32)
    single = Given(*(t.float() if t.is_floating_point() else t for t in given))
    exact, rounded = (
        gradient_of(lambda a, g=g: loss.ours(a, *g[1:], 0.5).sum(), g.anchor_CMD) for g in (given, single)
    )
    np.testing.assert_allclose(rounded, exact, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(loss.ours(*single, 0.5), loss.ours(*given, 0.5), rtol=1e-5)
    assert loss.ours(*single, 0.5).dtype == rounded.dtype == torch.float32


@losses
def test_the_gradient_reaches_the_anchors_alone(loss: Loss):
    given = make(0)
    for tensor in given[:3]:
        tensor.requires_grad_()
    loss.ours(*given, 0.5).sum().backward()
    assert given.anchor_CMD.grad.abs().sum() > 0
    assert given.positive_CD.grad is None
    assert given.negative_KD.grad is None


@losses
def test_the_gradient_is_computed_with_the_loss_and_outlives_a_change_of_the_table(loss: Loss):
    """The bank is overwritten in the next step, maybe before the gradient is asked for."""
    given = make(0)
    expected = gradient_of(lambda a: loss.ours(a, *given[1:], 0.5).sum(), given.anchor_CMD)
    anchor = given.anchor_CMD.requires_grad_()
    result = loss.ours(anchor, *given[1:], 0.5).sum()
    given.negative_KD.zero_()
    result.backward()
    assert torch.equal(anchor.grad, expected)


@losses
def test_asking_for_the_gradient_twice_gives_it_twice(loss: Loss):
    given = make(0)
    anchor = given.anchor_CMD.requires_grad_()
    total = loss.ours(*given, 0.5).sum()
    first, second = (torch.autograd.grad(total, anchor, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)


@losses
def test_without_a_gradient_to_compute_there_is_none(loss: Loss):
    assert not loss.ours(*make(0), 0.5).requires_grad


@losses
def test_anchors_of_an_unused_class_get_no_gradient(loss: Loss):
    given = make(0)
    use = torch.tensor([True, False, True])
    gradient = gradient_of(
        lambda a: contrastive.mean_over_classes(loss.ours(a, *given[1:], 0.5), use, 3), given.anchor_CMD
    )
    assert gradient.abs().sum(dim=(1, 2)).gt(0).tolist() == use.tolist()
    assert (gradient[1] == 0).all()


@losses
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_zero_vectors_give_finite_losses_and_gradients(loss: Loss, dtype: torch.dtype):
    given = make(0)
    for tensor in given[:3]:
        tensor[0] = 0
    given = Given(*(t.to(dtype) if t.is_floating_point() else t for t in given))
    for g in (given, Given(*(torch.zeros_like(t) for t in given))):
        assert loss.ours(*g, 0.5).isfinite().all()
        assert gradient_of(lambda a, g=g: loss.ours(a, *g[1:], 0.5).sum(), g.anchor_CMD).isfinite().all()


@losses
def test_the_arguments_are_left_as_they_were(loss: Loss):
    given = make(0)
    before = [tensor.clone() for tensor in given]
    gradient_of(lambda a: loss.ours(a, *given[1:], 0.5).sum(), given.anchor_CMD)
    assert all(map(torch.equal, given, before))


@losses
def test_neither_pass_holds_all_negatives(loss: Loss):
    given = make(0, classes=8, M=20, N=50, D=16, K=100)
    everything = given.index_CMN.numel() * 16 * 8
    with torch.profiler.profile(profile_memory=True) as profile:
        gradient_of(lambda a: loss.ours(a, *given[1:], 0.5).sum(), given.anchor_CMD)
    assert max(event.cpu_memory_usage for event in profile.events()) < everything / 4


def alike(M: int, N: int, sign: float = 1) -> Given:
    """Anchors and centres in one direction, all negatives in the same or in the opposite one."""
    z = torch.ones(1, 3, dtype=torch.float64)
    return Given(z.expand(2, M, 3), z.expand(2, 3), sign * z, torch.zeros(2, M, N, dtype=torch.int64))


@pytest.mark.parametrize(
    ("sign", "joint", "pairwise"),
    [
        (1, math.log(257), math.log(2)),  # nothing to tell apart
        (-1, 1.738, 0.01815),  # perfect separation at tau 0.5: log(1 + 256 exp(-4)), log(1 + exp(-4))
    ],
)
def test_the_losses_have_the_values_worked_out_for_256_negatives(sign: float, joint: float, pairwise: float):
    assert contrastive.info_nce(*alike(4, 256, sign), 0.5).tolist() == pytest.approx([joint] * 2, abs=5e-4)
    assert contrastive.binary(*alike(4, 256, sign), 0.5).tolist() == pytest.approx([pairwise] * 2, abs=5e-4)


def test_with_a_single_negative_both_losses_are_one():
    given = make(0, N=1)
    np.testing.assert_allclose(
        contrastive.info_nce(*given, 0.5), contrastive.binary(*given, 0.5), rtol=0, atol=1e-12
    )


def test_the_length_of_a_representation_does_not_matter():
    given = make(0)
    longer = Given(7 * given.anchor_CMD, 8 * given.positive_CD, 9 * given.negative_KD, given.index_CMN)
    np.testing.assert_allclose(
        contrastive.info_nce(*longer, 0.5), contrastive.info_nce(*given, 0.5), rtol=0, atol=1e-12
    )


# The sum over classes


@given(st.lists(st.tuples(st.floats(0, 9), st.booleans()), min_size=1, max_size=6), st.integers(1, 30))
def test_the_mean_over_classes_adds_the_used_ones_and_divides_by_what_is_asked(
    losses_and_uses: list[tuple[float, bool]], divisor: int
):
    loss_C = torch.tensor([loss for loss, _ in losses_and_uses], dtype=torch.float64)
    use_C = torch.tensor([used for _, used in losses_and_uses])
    expected = sum(loss for loss, used in losses_and_uses if used) / divisor
    for classes in (divisor, torch.tensor(divisor)):
        result = contrastive.mean_over_classes(loss_C, use_C, classes)
        assert result.shape == ()
        assert result.item() == pytest.approx(expected, abs=1e-9)


def test_what_an_unused_class_has_for_a_loss_does_not_matter():
    loss_C = torch.tensor([1.0, torch.nan, torch.inf], requires_grad=True)
    result = contrastive.mean_over_classes(loss_C, torch.tensor([True, False, False]), 3)
    result.backward()
    assert result.item() == pytest.approx(1 / 3)
    assert loss_C.grad.tolist() == pytest.approx([1 / 3, 0, 0])


def test_without_a_usable_class_the_loss_and_its_gradient_are_zero():
    given = make(0)
    anchor = given.anchor_CMD.requires_grad_()
    loss = contrastive.mean_over_classes(
        contrastive.info_nce(*given, 0.5), torch.zeros(3, dtype=torch.bool), 3
    )
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(anchor.grad, torch.zeros_like(anchor))


# Drawing pixels


@given(seeds, st.sampled_from([0.02, 0.3, 1.0]), st.booleans())
@settings(max_examples=40, deadline=None)
def test_a_sample_holds_candidates_alone_and_is_in_bounds_for_a_class_without_any(
    seed: int, density: float, transposed: bool
):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(4, PIXELS, generator=generator) < density
    mask[2] = False
    index = contrastive.sample(mask.T.contiguous().T if transposed else mask, 20, generator)
    assert index.shape == (4, 20)
    assert index.dtype == torch.int64
    assert ((index >= 0) & (index < PIXELS)).all()
    for c in mask.any(dim=1).nonzero().flatten():
        assert mask[c, index[c]].all()


def test_where_there_are_fewer_candidates_than_asked_for_they_are_drawn_again():
    mask = torch.zeros(2, PIXELS, dtype=torch.bool)
    mask[0, [3, 17]] = True
    mask[1, -1] = True
    index = contrastive.sample(mask, 50, torch.Generator().manual_seed(0))
    assert set(index[0].tolist()) == {3, 17}
    assert set(index[1].tolist()) == {PIXELS - 1}


def test_every_candidate_of_every_class_is_drawn_equally_often():
    mask = torch.zeros(3, PIXELS, dtype=torch.bool)
    mask[0, ::3] = mask[1, 1:] = mask[2] = True
    index = contrastive.sample(mask, 20_000, torch.Generator().manual_seed(0))
    for row, allowed in zip(index, mask, strict=True):
        assert chisquare(row.bincount(minlength=PIXELS)[allowed].numpy()).pvalue > 0.01


def test_draws_are_independent_of_each_other_and_of_the_other_classes():
    mask = torch.ones(2, 5, dtype=torch.bool)
    index = contrastive.sample(mask, 20_000, torch.Generator().manual_seed(0))
    for first, second in ((index[0, ::2], index[0, 1::2]), (index[0], index[1])):
        assert chisquare((5 * first + second).bincount(minlength=25).numpy()).pvalue > 0.01


@pytest.mark.parametrize(("number", "expected"), [(0.0, 2), (1 - 2**-24, 21), (1.0, 21)])
def test_the_extreme_random_numbers_draw_the_first_and_the_last_candidate(number: float, expected: int):
    mask = torch.zeros(1, PIXELS, dtype=torch.bool)
    mask[0, [2, 9, 21]] = True
    with mock.patch.object(torch, "rand", lambda *shape, **_: torch.full(shape, number)):
        assert contrastive.sample(mask, 2).tolist() == [[expected] * 2]


def test_equal_seeds_draw_equal_samples():
    mask = torch.rand(3, PIXELS) < 0.5
    first, second = (contrastive.sample(mask, 9, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, second)
