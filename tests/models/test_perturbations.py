"""CCT's perturbations against loops in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from u2pl.models import perturbations as p


def features(seed: int = 0, shape: tuple[int, ...] = (3, 5, 7, 6)) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_noise_multiplies_and_is_the_same_for_all_images():
    z, noise = features(), features(1, (5, 7, 6))
    found = p.f_noise(z, noise)
    for b in range(3):
        assert np.allclose(found[b].numpy(), z[b].numpy() + z[b].numpy() * noise.numpy())


@pytest.mark.parametrize("share", [0.7, 0.9])
def test_the_most_active_places_are_dropped(share: float):
    z = features().abs()
    found = p.f_drop(z, share).numpy()
    for b in range(3):
        mean = z[b].numpy().mean(axis=0)
        for y, x in np.ndindex(mean.shape):
            gone = mean[y, x] >= share * mean.max()
            assert np.array_equal(found[b, :, y, x], 0 * found[b, :, y, x] if gone else z[b, :, y, x].numpy())
    assert (p.f_drop(torch.ones(1, 2, 3, 3), 1.0) == 0).all(), "what equals the threshold goes"


def test_half_of_the_channels_go_and_the_others_are_doubled():
    kept = torch.tensor([[True, False, True, False, True]] * 3)
    found = p.dropout(features(), kept)
    assert torch.equal(found[:, ::2], 2 * features()[:, ::2]) and (found[:, 1::2] == 0).all()


def test_a_mask_of_pixels_is_brought_to_the_features_by_the_nearest():
    mask = torch.rand(3, 28, 24, generator=torch.Generator().manual_seed(2)) > 0.5
    found = p.masked(features(), mask)
    expected = features() * mask[:, None, ::4, ::4]
    assert torch.equal(found, expected)


def ragged(height: int, width: int, seed: int = 0) -> np.ndarray:
    """An object whose outline no straight runs make up."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((height + 20, width + 20), dtype=bool)
    mask[10:-10, 10:-10] = True
    mask[10, 10:-10][rng.random(width) < 0.5] = False
    mask[-11, 10:-10][rng.random(width) < 0.5] = False
    mask[11:-11, 10][rng.random(height - 2) < 0.5] = False
    return mask


def test_only_ragged_outlines_are_cut_and_each_object_has_a_box():
    """A rectangle has four points left when straight runs have become their ends, however large it is."""
    mask = np.zeros((200, 200), dtype=bool)
    mask[20:180, 20:180] = True
    assert p.objects(mask) == []
    both = np.concatenate([ragged(60, 80), ragged(40, 80, 1)])
    boxes = sorted(p.objects(both))
    assert len(boxes) == 2
    for (top, left, height, width), first in zip(boxes, (0, 80), strict=True):
        part = both[first : first + 80 if first == 0 else None]
        y, x = np.nonzero(part)
        assert (top - first, left) == (y.min(), x.min())
        assert (height, width) == (np.ptp(y), np.ptp(x)), "the last minus the first, as in the original"


def test_a_hole_in_an_object_is_no_outline_of_its_own():
    mask = ragged(60, 80)
    mask[30:40, 30:40] = ~ragged(60, 80)[30:40, 30:40] | (np.random.default_rng(0).random((10, 10)) < 0.5)
    assert len(p.objects(mask)) == 1


@given(st.integers(3, 60), st.integers(3, 60), st.integers(0, 2**32))
@settings(max_examples=60)
def test_a_window_of_two_fifths_is_cut_anywhere_inside_its_box(height: int, width: int, seed: int):
    keep = p.cut((80, 90), [(9, 12, height, width)], np.random.default_rng(seed))
    gone = ~keep
    h, w = int(0.4 * height), int(0.4 * width)
    assert gone.sum() == h * w
    if gone.any():
        y, x = np.nonzero(gone)
        assert np.ptp(y) == h - 1 and np.ptp(x) == w - 1
        assert 9 <= y.min() <= 9 + int(0.6 * height) and 12 <= x.min() <= 12 + int(0.6 * width)


def test_every_place_of_a_window_can_be_drawn():
    starts = {
        int(np.nonzero(~p.cut((40, 40), [(5, 5, 10, 10)], np.random.default_rng(k)))[0].min())
        for k in range(200)
    }
    assert starts == set(range(5, 12))


def divergence(clean: Tensor, moved: Tensor) -> Tensor:
    """KL of what a decoder says of clean features from what it says of others, summed over classes and places."""
    return (clean.softmax(1) * (clean.log_softmax(1) - moved.log_softmax(1))).sum()


def test_the_adversarial_direction_is_the_gradient_of_the_divergence_and_as_long_as_is_said():
    weight = features(3, (4, 5, 1, 1))
    z, start = features(), features(4) - 0.5
    found = p.adversarial(z, start, lambda x: functional.conv2d(x, weight), 2.0)
    moved = found - z
    for b in range(3):
        one = z[b : b + 1]
        direction = (start[b : b + 1] / start[b].norm()).requires_grad_()
        # By a far larger step, whose error is of second order.
        divergence(
            functional.conv2d(one, weight), functional.conv2d(one + 1e-3 * direction, weight)
        ).backward()
        wanted = direction.grad / direction.grad.norm()
        assert moved[b].norm() == pytest.approx(2, rel=1e-6)
        assert (wanted * moved[b : b + 1]).sum() / 2 == pytest.approx(1, abs=1e-3)


def test_the_adversarial_direction_changes_more_than_a_random_one_and_carries_no_gradient():
    weight = features(3, (4, 5, 1, 1)).float().requires_grad_()
    z = features().float().requires_grad_()
    decode = lambda x: functional.conv2d(x, weight.double())  # noqa: E731
    found = p.adversarial(z, features(4).float() - 0.5, decode, 0.5)
    noise = features(5)
    noise *= 0.5 / noise.flatten(1).norm(dim=1)[:, None, None, None]
    clean = decode(z.double())
    assert divergence(clean, decode(found.double())) > 2 * divergence(clean, decode(z + noise))
    assert found.dtype == torch.float32
    (gradient,) = torch.autograd.grad(found.sum(), z)
    assert torch.equal(gradient, torch.ones_like(z)) and weight.grad is None
