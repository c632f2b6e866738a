import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from losses import reference
from scipy.stats import chisquare
from torch import Tensor

from u2pl.losses import contrastive

IGNORE = 255
PIXELS = 30


def scene(seed: int, classes: int, present: list[int], ties: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Labels drawn from `present`, probabilities (P, C) and representations (P, D), float64."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.tensor(present)[torch.randint(len(present), (PIXELS,), generator=generator)]
    logits = 2 * torch.randn(PIXELS, classes, generator=generator, dtype=torch.float64)
    prob = (logits.sign() if ties else logits).softmax(dim=1)
    return label, prob, torch.randn(PIXELS, 5, generator=generator, dtype=torch.float64)


scenes = st.builds(
    lambda seed, classes, kind, ties: (
        classes,
        *scene(seed, classes, {"all": [*range(classes), IGNORE], "one": [1], "void": [IGNORE]}[kind], ties),
    ),
    st.integers(0, 10**6),
    st.integers(2, 6),
    st.sampled_from(["all", "one", "void"]),
    st.booleans(),
)


def chosen(mask_PC: Tensor, c: int) -> list[int]:
    return mask_PC[:, c].nonzero().flatten().tolist()


@given(scenes)
@settings(max_examples=40, deadline=None)
def test_class_order_ranks_the_likeliest_class_0_and_the_unlikeliest_last(scene):
    classes, _, prob, _ = scene
    order = contrastive.class_order(prob)
    assert order.tolist() == [reference.order(p) for p in prob.tolist()]
    assert order.gather(1, prob.argmax(dim=1, keepdim=True)).eq(0).all()
    assert order.sort(dim=1).values.eq(torch.arange(classes)).all()


@given(scenes, st.sampled_from([0.0, 0.3, 0.9, 0.999]))
@settings(max_examples=40, deadline=None)
def test_anchor_candidates_are_equations_9_to_11(scene, delta_p: float):
    classes, label, prob, _ = scene
    mask = contrastive.anchor_mask(label, prob, delta_p)
    for c in range(classes):
        assert chosen(mask, c) == reference.anchors(label.tolist(), prob.tolist(), delta_p, c)


@given(scenes, st.integers(0, 7))
@settings(max_examples=40, deadline=None)
def test_labelled_negatives_are_equation_14(scene, r_l: int):
    classes, label, prob, _ = scene
    mask = contrastive.labeled_negative_mask(label, contrastive.class_order(prob), r_l)
    for c in range(classes):
        assert chosen(mask, c) == reference.labeled_negatives(label.tolist(), prob.tolist(), r_l, c)


@given(scenes, st.integers(0, 3), st.integers(1, 20), st.sampled_from([0.0, 0.5, 1.0]))
@settings(max_examples=40, deadline=None)
def test_unlabelled_negatives_are_equation_15(scene, r_l: int, r_h: int, share: float):
    classes, _, prob, _ = scene
    high = torch.arange(PIXELS) < share * PIXELS
    mask = contrastive.unlabeled_negative_mask(high, contrastive.class_order(prob), r_l, r_h)
    for c in range(classes):
        assert chosen(mask, c) == reference.unlabeled_negatives(high.tolist(), prob.tolist(), r_l, r_h, c)


def test_a_pixel_of_a_class_is_never_its_negative_even_where_the_teacher_is_wrong():
    prob = torch.tensor([[0.6, 0.3, 0.1], [0.1, 0.3, 0.6]])
    mask = contrastive.labeled_negative_mask(torch.tensor([0, 0]), contrastive.class_order(prob), 2)
    assert mask.tolist() == [[False, True, False], [False, True, True]]


@given(scenes, st.sampled_from([0.0, 0.3]))
@settings(max_examples=40, deadline=None)
def test_centers_are_equation_12(scene, delta_p: float):
    classes, label, prob, z = scene
    centers, present = contrastive.centers(z, contrastive.anchor_mask(label, prob, delta_p))
    for c in range(classes):
        members = reference.anchors(label.tolist(), prob.tolist(), delta_p, c)
        assert present[c].item() == bool(members)
        expected = reference.center(z.tolist(), members) if members else [0.0] * 5
        np.testing.assert_allclose(centers[c], expected, rtol=0, atol=1e-9)


@given(
    seed=st.integers(0, 10**6),
    classes=st.integers(2, 5),
    tau=st.sampled_from([0.05, 0.5, 2.0]),
    use=st.lists(st.booleans(), min_size=5, max_size=5),
)
@settings(max_examples=40, deadline=None)
def test_info_nce_is_equation_4(seed: int, classes: int, tau: float, use: list[bool]):
    generator = torch.Generator().manual_seed(seed)
    anchor, positive, negative = (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in ((classes, 4, 6), (classes, 6), (classes, 4, 3, 6))
    )
    positive[0], negative[-1, :, 0] = 0, 0  # what an absent class and an empty slot look like
    use = use[:classes]
    loss = contrastive.info_nce(anchor, positive, negative, torch.tensor(use), tau)
    expected = reference.info_nce(anchor.tolist(), positive.tolist(), negative.tolist(), use, tau)
    assert loss.item() == pytest.approx(expected, abs=1e-9)


def test_info_nce_is_log_1_plus_n_when_positives_and_negatives_are_alike():
    z = torch.ones(2, 3, dtype=torch.float64)
    loss = contrastive.info_nce(
        z[:, None].expand(2, 4, 3), z, z[:, None, None].expand(2, 4, 256, 3), torch.ones(2).bool(), 0.5
    )
    assert loss.item() == pytest.approx(math.log(257), abs=1e-9)


def test_info_nce_has_the_value_worked_out_for_perfect_separation():
    """256 negatives, cosines 1 and -1, tau 0.5: log(1 + 256 exp(-4)) = 1.738."""
    z = torch.ones(2, 3, dtype=torch.float64)
    loss = contrastive.info_nce(
        z[:, None].expand(2, 4, 3), z, -z[:, None, None].expand(2, 4, 256, 3), torch.ones(2).bool(), 0.5
    )
    assert loss.item() == pytest.approx(1.738, abs=5e-4)


def test_without_a_usable_class_the_loss_and_its_gradient_are_zero():
    anchor = torch.randn(3, 2, 4, requires_grad=True)
    loss = contrastive.info_nce(
        anchor, torch.zeros(3, 4), torch.zeros(3, 2, 5, 4), torch.zeros(3).bool(), 0.5
    )
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(anchor.grad, torch.zeros_like(anchor))


def test_the_gradient_of_info_nce_reaches_the_anchors_alone():
    anchor, positive, negative = (
        torch.randn(shape, requires_grad=True) for shape in ((2, 3, 4), (2, 4), (2, 3, 5, 4))
    )
    contrastive.info_nce(anchor, positive, negative, torch.ones(2).bool(), 0.5).backward()
    assert anchor.grad.abs().sum() > 0
    assert positive.grad is None
    assert negative.grad is None


def test_anchors_of_an_unused_class_get_no_gradient():
    anchor = torch.randn(2, 3, 4, requires_grad=True)
    use = torch.tensor([True, False])
    contrastive.info_nce(anchor, torch.randn(2, 4), torch.randn(2, 3, 5, 4), use, 0.5).backward()
    assert anchor.grad[0].abs().sum() > 0
    assert anchor.grad[1].abs().sum() == 0


@given(st.integers(0, 10**6), st.sampled_from([0.02, 0.3, 1.0]))
@settings(max_examples=30, deadline=None)
def test_a_sample_holds_candidates_alone_and_is_in_bounds_for_a_class_without_any(seed: int, density: float):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(PIXELS, 4, generator=generator) < density
    mask[:, 2] = False
    index = contrastive.sample(mask, 20, generator)
    assert index.shape == (4, 20)
    assert ((index >= 0) & (index < PIXELS)).all()
    for c in mask.any(dim=0).nonzero().flatten():
        assert mask[index[c], c].all()


def test_where_there_are_fewer_candidates_than_asked_for_they_are_drawn_again():
    mask = torch.zeros(PIXELS, 2, dtype=torch.bool)
    mask[[3, 17], 0] = True
    index = contrastive.sample(mask, 50, torch.Generator().manual_seed(0))
    assert set(index[0].tolist()) == {3, 17}


def test_every_candidate_is_drawn_equally_often():
    mask = torch.zeros(PIXELS, 1, dtype=torch.bool)
    mask[::3] = True
    index = contrastive.sample(mask, 20_000, torch.Generator().manual_seed(0))
    counts = index.flatten().bincount(minlength=PIXELS)[::3]
    assert chisquare(counts.numpy()).pvalue > 0.01


def test_equal_seeds_draw_equal_samples():
    mask = torch.rand(PIXELS, 3) < 0.5
    first, second = (contrastive.sample(mask, 9, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, second)
