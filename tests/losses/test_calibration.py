"""Fused labels and the loss on them against their definitions in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from u2pl.losses.calibration import fused, mean_square, soft_cross_entropy


def softmax(x: np.ndarray, axis: int = 1) -> np.ndarray:
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


@given(
    seed=st.integers(0, 2**32),
    classes=st.integers(2, 19),
    scale=st.floats(0.1, 50),
    temperature=st.floats(0.3, 2),
)
@settings(max_examples=50, deadline=None)
def test_fused_labels_are_sharpened_means_of_both_predictions_on_one_scale(
    seed: int, classes: int, scale: float, temperature: float
):
    rng = np.random.default_rng(seed)
    u, v = scale * rng.normal(size=(2, classes, 3, 2)), rng.normal(size=(2, classes, 3, 2))
    r = np.sqrt(np.mean(np.concatenate([u, v]) ** 2) + 1e-8)
    mean = 0.5 * softmax(u / r) + 0.5 * softmax(v / r)
    expected = mean ** (1 / temperature)
    expected /= expected.sum(axis=1, keepdims=True)
    first, second = torch.from_numpy(u).float(), torch.from_numpy(v).float()
    square = mean_square(first, second)
    assert square.shape == (2,)
    label = fused(first, second, square.mean().expand(2), temperature)
    np.testing.assert_allclose(label.numpy(), expected, atol=2e-5)


def test_logits_of_nothing_but_zeros_give_an_even_label():
    zero = torch.zeros(1, 4, 2, 2)
    torch.testing.assert_close(
        fused(zero, zero, mean_square(zero, zero), 0.5), torch.full((1, 4, 2, 2), 0.25)
    )


def test_a_small_probability_is_sharpened_instead_of_vanishing_into_nothing_defined():
    sure = torch.tensor([[100.0, -100.0]])[:, :, None, None]
    label = fused(sure, sure, torch.tensor([1e-4]), 0.1)
    assert torch.equal(label.flatten(), torch.tensor([1.0, 0.0]))


@pytest.mark.parametrize("classes", [2, 19])
def test_soft_cross_entropy_is_summed_over_a_mask_s_points_of_each_image(classes: int):
    rng = np.random.default_rng(classes)
    logits, label = rng.normal(size=(3, classes, 2, 4)), softmax(rng.normal(size=(3, classes, 2, 4)))
    mask = rng.random((3, 2, 4)) < 0.5
    mask[2] = False
    found = soft_cross_entropy(*(torch.from_numpy(each) for each in (logits, label, mask)))
    expected = [
        sum(-(label[b, :, y, x] * np.log(softmax(logits)[b, :, y, x])).sum() for y, x in np.argwhere(mask[b]))
        for b in range(3)
    ]
    np.testing.assert_allclose(found.numpy(), expected)
    assert found[2] == 0
