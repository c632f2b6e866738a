import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from losses import reference
from torch import Tensor

from u2pl.losses.partition import alpha_t, entropy, gamma_t, percentile, pseudo_label

IGNORE = 255
seeds = st.integers(0, 10**6)
shares = st.one_of(st.sampled_from([0.0, 0.2, 0.5, 1.0]), st.floats(0, 1))


def probabilities(seed: int, classes: int, *, sharpness: float = 3, ties: bool = False) -> Tensor:
    """(2, C, 3, 5) float64; with ties, many pixels have equal probabilities and some are one-hot."""
    generator = torch.Generator().manual_seed(seed)
    logits = sharpness * torch.randn(2, classes, 3, 5, generator=generator, dtype=torch.float64)
    if ties:
        logits = torch.where(logits > sharpness, 1e4, logits.sign())
    return logits.softmax(dim=1)


def pixels(prob_BCHW: Tensor) -> list[list[float]]:
    return prob_BCHW.permute(0, 2, 3, 1).flatten(0, 2).tolist()


@given(seed=seeds, classes=st.integers(2, 6), ties=st.booleans())
@settings(max_examples=40, deadline=None)
def test_entropy_is_equation_5(seed: int, classes: int, ties: bool):
    prob = probabilities(seed, classes, ties=ties)
    expected = [reference.entropy(p) for p in pixels(prob)]
    np.testing.assert_allclose(entropy(prob).flatten(), expected, rtol=0, atol=1e-9)


def test_a_certain_pixel_has_no_entropy_and_an_undecided_one_log_c():
    prob = torch.tensor([[1.0, 0, 0], [1 / 3, 1 / 3, 1 / 3]], dtype=torch.float64).T.reshape(1, 3, 1, 2)
    assert entropy(prob).flatten().tolist() == pytest.approx([0, np.log(3)], abs=1e-12)


@given(alpha0=st.floats(0, 1), epoch=st.integers(0, 79))
def test_alpha_t_is_equation_7(alpha0: float, epoch: int):
    assert alpha_t(alpha0, epoch, 80) == pytest.approx(reference.alpha_t(alpha0, epoch, 80), abs=1e-12)


def test_alpha_t_falls_from_alpha_0_towards_0():
    assert [alpha_t(0.2, epoch, 4) for epoch in range(4)] == pytest.approx([0.2, 0.15, 0.1, 0.05])


@given(seed=seeds, count=st.integers(1, 40), alpha=shares, ties=st.booleans())
@settings(max_examples=80, deadline=None)
def test_gamma_t_is_numpys_percentile(seed: int, count: int, alpha: float, ties: bool):
    values = torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    values = (values * 4).round() if ties else values
    expected = np.percentile(values.numpy(), 100 * (1 - alpha))
    assert gamma_t(values, torch.ones(count, dtype=torch.bool), alpha).item() == pytest.approx(
        expected, abs=1e-9
    )


@given(seed=seeds, share=shares)
@settings(max_examples=40, deadline=None)
def test_only_valid_values_count(seed: int, share: float):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(2, 4, 5, generator=generator, dtype=torch.float64)
    valid = torch.rand(values.shape, generator=generator) < 0.4
    result = percentile(values, valid, share).item()
    if valid.any():
        assert result == pytest.approx(np.percentile(values[valid].numpy(), 100 * share), abs=1e-9)
    else:
        assert np.isnan(result)


def test_without_a_valid_value_no_pixel_is_below_or_above_the_threshold():
    values = torch.rand(1, 2, 2)
    gamma = gamma_t(values, torch.zeros_like(values, dtype=torch.bool), 0.2)
    assert not (values < gamma).any()
    assert not (values > gamma).any()


def test_more_than_two_to_the_24_values_are_not_refused():
    count = 2**24 + 1
    values = torch.arange(2, dtype=torch.float16).repeat_interleave(count // 2 + 1)[:count]
    valid = torch.ones(1, dtype=torch.bool).expand(count)
    assert percentile(values, valid, 0.25).item() == 0
    assert percentile(values, valid, 0.75).item() == 1


@given(seed=seeds, classes=st.integers(2, 6), alpha=shares, ties=st.booleans())
@settings(max_examples=60, deadline=None)
def test_pseudo_labels_are_equation_6(seed: int, classes: int, alpha: float, ties: bool):
    prob = probabilities(seed, classes, ties=ties)
    scores = entropy(prob)
    gamma = gamma_t(scores, torch.ones_like(scores, dtype=torch.bool), alpha)
    # A pixel at the threshold itself may fall on either side by rounding.
    clear = ((scores - gamma).abs() > 1e-9).flatten().tolist()
    expected = [reference.pseudo_label(p, gamma.item(), IGNORE) for p in pixels(prob)]
    result = pseudo_label(prob, scores, gamma, IGNORE).flatten().tolist()
    assert [r for r, c in zip(result, clear, strict=True) if c] == [
        e for e, c in zip(expected, clear, strict=True) if c
    ]


@pytest.mark.parametrize(("alpha", "unreliable"), [(0.0, 1), (0.2, 20), (0.5, 50), (1.0, 100)])
def test_the_share_alpha_of_highest_entropy_gets_no_pseudo_label(alpha: float, unreliable: int):
    """As Eq. 6 asks for an entropy below gamma_t, the one highest is left out even with alpha 0."""
    first = torch.linspace(0.5, 0.99, 100, dtype=torch.float64)
    prob = torch.stack([first, 1 - first]).reshape(1, 2, 10, 10)
    scores = entropy(prob)
    gamma = gamma_t(scores, torch.ones_like(scores, dtype=torch.bool), alpha)
    ignored = pseudo_label(prob, scores, gamma, IGNORE) == IGNORE
    assert ignored.sum().item() == unreliable
    assert set(scores[ignored].tolist()) == set(scores.flatten().sort().values[-unreliable:].tolist())


def test_where_all_pixels_are_equally_uncertain_none_is_reliable():
    prob = torch.full((1, 4, 3, 3), 0.25)
    scores = entropy(prob)
    gamma = gamma_t(scores, torch.ones_like(scores, dtype=torch.bool), 0.2)
    assert (pseudo_label(prob, scores, gamma, IGNORE) == IGNORE).all()
