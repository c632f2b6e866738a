import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from losses import reference
from torch import Tensor

from u2pl.losses.cross_entropy import cross_entropy, lambda_u

IGNORE = 255


def flat(logits_BCHW: Tensor) -> list[list[float]]:
    return logits_BCHW.permute(0, 2, 3, 1).flatten(0, 2).tolist()


@given(seed=st.integers(0, 10**6), classes=st.integers(2, 6), void=st.sampled_from([0, 0.3, 1]))
@settings(max_examples=40, deadline=None)
def test_cross_entropy_is_equations_2_and_3(seed: int, classes: int, void: float):
    generator = torch.Generator().manual_seed(seed)
    logits = 5 * torch.randn(2, classes, 3, 4, generator=generator, dtype=torch.float64)
    label = torch.randint(0, classes, (2, 3, 4), generator=generator)
    label[torch.rand(label.shape, generator=generator) < void] = IGNORE
    expected = reference.cross_entropy(flat(logits), label.flatten().tolist(), IGNORE)
    assert cross_entropy(logits, label, IGNORE).item() == pytest.approx(expected, abs=1e-9)


def test_a_batch_without_any_label_gives_a_loss_of_zero_and_a_gradient_of_zero():
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    loss = cross_entropy(logits, torch.full((1, 2, 2), IGNORE), IGNORE)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_the_ignore_index_need_not_be_255():
    logits = torch.randn(1, 3, 1, 2, dtype=torch.float64)
    label = torch.tensor([[[1, 11]]])
    assert cross_entropy(logits, label, 11).item() == pytest.approx(
        reference.cross_entropy(flat(logits), [1, 11], 11), abs=1e-9
    )


@given(reliable=st.integers(1, 24), eta=st.floats(0, 4))
@settings(max_examples=30, deadline=None)
def test_lambda_u_is_equation_8(reliable: int, eta: float):
    label = torch.full((24,), IGNORE)
    label[:reliable] = 1
    expected = reference.lambda_u(label.tolist(), eta, IGNORE)
    assert lambda_u(label.reshape(2, 3, 4), eta, IGNORE).item() == pytest.approx(expected, rel=1e-6)


def test_lambda_u_is_finite_when_no_pixel_has_a_pseudo_label():
    assert lambda_u(torch.full((2, 3, 4), IGNORE), 1.0, IGNORE).item() == 24


def test_with_half_of_the_pixels_reliable_their_mean_loss_counts_twice():
    logits, label = torch.randn(1, 2, 1, 4, dtype=torch.float64), torch.tensor([[[0, 1, IGNORE, IGNORE]]])
    weighted = lambda_u(label, 1.0, IGNORE) * cross_entropy(logits, label, IGNORE)
    assert weighted.item() == pytest.approx(
        2 * reference.cross_entropy(flat(logits), label.flatten().tolist(), IGNORE), abs=1e-9
    )
