from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from losses import reference, scenes
from torch.nn import functional

from u2pl.losses import enlarged
from u2pl.losses.cross_entropy import cross_entropy, lambda_u

IGNORE = scenes.IGNORE


@contextmanager
def double_precision() -> Iterator[None]:
    """A quotient of two counts has PyTorch's default precision."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


# Eqs. 2 and 3


@given(
    seed=st.integers(0, 10**6),
    classes=st.integers(2, 6),
    labels=st.sampled_from(scenes.LABELS),
    kind=st.sampled_from(scenes.LOGITS),
)
@settings(max_examples=80, deadline=None)
def test_cross_entropy_is_equations_2_and_3(seed: int, classes: int, labels: str, kind: str):
    scene = scenes.make(seed, classes, labels, kind, images=2)
    logits = scene.logits[: len(scene.label)]
    expected = reference.cross_entropy(scenes.pixels(logits), scene.label.flatten().tolist(), IGNORE)
    assert cross_entropy(logits, scene.label, IGNORE).item() == pytest.approx(expected, abs=1e-9)


@given(
    seed=st.integers(0, 10**6),
    small=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    at_once=st.integers(1, 70),
    wants_gradient=st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_logits_of_another_size_are_interpolated_and_so_is_the_gradient(
    seed: int, small: tuple[int, int], size: tuple[int, int], at_once: int, wants_gradient: bool
):
    """As by PyTorch, which holds all of the large map; rows that are worked on at once need not divide it."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 3, *small, generator=generator, dtype=torch.float64)
    label = torch.randint(4, (2, *size), generator=generator)
    label[label == 3] = IGNORE
    results = []
    for enlarge in (True, False):
        given = logits.clone().requires_grad_(wants_gradient)
        with mock.patch.object(enlarged, "_PIXELS_AT_ONCE", at_once):
            if enlarge:
                loss = functional.interpolate(given, size, mode="bilinear", align_corners=True)
                loss = functional.cross_entropy(loss, label, ignore_index=IGNORE, reduction="sum")
                loss = loss / (label != IGNORE).sum().clamp(min=1)
            else:
                loss = cross_entropy(given, label, IGNORE)
        results.append([loss.detach(), *(torch.autograd.grad(3 * loss, given) if wants_gradient else [])])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


def test_where_every_image_has_as_many_labels_it_is_the_mean_over_images_that_the_paper_writes():
    scene = scenes.make(0, 4, images=3)
    label = scene.label.clamp(max=3)
    label[:, 0] = IGNORE
    logits = scene.logits[:3]
    each = [
        reference.cross_entropy(scenes.pixels(logits[i : i + 1]), label[i].flatten().tolist(), IGNORE)
        for i in range(3)
    ]
    assert cross_entropy(logits, label, IGNORE).item() == pytest.approx(sum(each) / 3, abs=1e-9)


def test_a_batch_without_any_label_gives_a_loss_of_zero_and_a_gradient_of_zero():
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    loss = cross_entropy(logits, torch.full((1, 2, 2), IGNORE), IGNORE)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_an_ignored_pixel_gets_no_gradient_and_a_labelled_one_p_minus_1_over_their_number():
    logits = torch.randn(1, 2, 1, 3, dtype=torch.float64, requires_grad=True)
    cross_entropy(logits, torch.tensor([[[0, IGNORE, 1]]]), IGNORE).backward()
    prob = logits.detach().softmax(dim=1)[0, :, 0]
    truth = torch.tensor([[1.0, 0, 0], [0, 0, 1]])
    expected = (prob - truth) / 2
    expected[:, 1] = 0
    torch.testing.assert_close(logits.grad[0, :, 0], expected, rtol=0, atol=1e-12)


def test_the_ignore_index_need_not_be_255():
    logits = torch.randn(1, 3, 1, 2, dtype=torch.float64)
    label = torch.tensor([[[1, 11]]])
    assert cross_entropy(logits, label, 11).item() == pytest.approx(
        reference.cross_entropy(scenes.pixels(logits), [1, 11], 11), abs=1e-9
    )


# Eq. 8


@given(reliable=st.integers(1, 24), padding=st.integers(0, 23), eta=st.floats(0, 4))
@settings(max_examples=60, deadline=None)
def test_lambda_u_is_equation_8_over_the_pixels_that_are_no_padding(reliable: int, padding: int, eta: float):
    valid = torch.arange(24) < 24 - padding
    label = torch.where(valid & (torch.arange(24) < reliable), 1, IGNORE)
    expected = reference.lambda_u(label.tolist(), valid.tolist(), eta, IGNORE)
    arguments = label.reshape(2, 3, 4), valid.reshape(2, 3, 4), eta, IGNORE
    with double_precision():
        assert lambda_u(*arguments).item() == pytest.approx(expected, abs=1e-9)
    assert lambda_u(*arguments).item() == pytest.approx(expected, rel=1e-6)


def test_where_every_pixel_is_reliable_lambda_u_is_eta():
    label = torch.zeros(2, 3, 4, dtype=torch.int64)
    assert lambda_u(label, torch.ones_like(label, dtype=torch.bool), 1.5, IGNORE).item() == 1.5


def test_lambda_u_is_finite_when_no_pixel_has_a_pseudo_label():
    valid = torch.ones(2, 3, 4, dtype=torch.bool)
    assert lambda_u(torch.full((2, 3, 4), IGNORE), valid, 1.0, IGNORE).item() == 24
    assert lambda_u(torch.full((2, 3, 4), IGNORE), ~valid, 1.0, IGNORE).item() == 0


def test_lambda_u_has_no_dimension():
    valid = torch.ones(2, 3, 4, dtype=torch.bool)
    assert lambda_u(torch.zeros(2, 3, 4, dtype=torch.int64), valid, 1.0, IGNORE).shape == ()


def test_with_half_of_the_pixels_reliable_their_mean_loss_counts_twice():
    logits, label = torch.randn(1, 2, 1, 4, dtype=torch.float64), torch.tensor([[[0, 1, IGNORE, IGNORE]]])
    weight = lambda_u(label, torch.ones(1, 1, 4, dtype=torch.bool), 1.0, IGNORE)
    assert (weight * cross_entropy(logits, label, IGNORE)).item() == pytest.approx(
        2 * reference.cross_entropy(scenes.pixels(logits), label.flatten().tolist(), IGNORE), abs=1e-9
    )
