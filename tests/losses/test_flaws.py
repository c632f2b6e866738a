"""GCT's maps against scipy and against sums over pixels in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from u2pl.losses import flaws

IGNORE = 255
SIDES = pytest.mark.parametrize("side", [32, 48, 65])


def slow_blur(map_HW: np.ndarray, size: int) -> np.ndarray:
    """A weighted sum for each pixel; the edge is mirrored without repeating it."""
    impulse = np.zeros((size, size))
    impulse[size // 2, size // 2] = 1
    sigma = 0.3 * ((size - 1) / 2 - 1) + 0.8
    weight = ndimage.gaussian_filter(impulse, sigma, mode="reflect", truncate=4.0)
    padded = np.pad(map_HW, size // 2, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size))
    return (windows * weight).sum(axis=(2, 3))


def slow_dilate(map_HW: np.ndarray) -> np.ndarray:
    padded = np.pad(map_HW, 1, mode="reflect")
    return np.lib.stride_tricks.sliding_window_view(padded, (3, 3)).max(axis=(2, 3))


def slow_target(prob_CHW: np.ndarray, label_HW: np.ndarray) -> np.ndarray:
    side = label_HW.shape[-1]
    classes = np.arange(len(prob_CHW))[:, None, None]
    wrong = 0.5 * np.abs((classes == label_HW) - prob_CHW).sum(axis=0)
    spread = slow_blur(wrong, flaws.kernel_size(side, 8))
    spread = slow_blur(slow_dilate(spread), flaws.kernel_size(side, 4))
    return (spread - spread.min()) / (spread.max() - spread.min() + 1e-9)


def slow_handled(flaw_HW: np.ndarray) -> np.ndarray:
    smooth = slow_blur(np.maximum(flaw_HW, 0), flaws.kernel_size(flaw_HW.shape[-1], 16))
    shown = smooth if smooth.max() > 0.1 else 0 * smooth
    return (shown - smooth.min()) / (smooth.max() - smooth.min() + 1e-9)


@pytest.mark.parametrize(
    ("side", "widths"),
    [(321, (21, 41, 81)), (512, (33, 65, 129)), (513, (33, 65, 129)), (769, (49, 97, 193))],
)
def test_kernels_are_as_wide_as_in_the_original(side: int, widths: tuple[int, ...]):
    assert tuple(flaws.kernel_size(side, part) for part in (16, 8, 4)) == widths


@pytest.mark.parametrize("size", [3, 5, 9, 33, 129])
def test_a_kernel_sums_to_one_and_is_not_a_gaussian_made_to_sum_to_one(size: int):
    """The tails are folded back, which leaves more at the ends."""
    kernel = flaws.kernel(size).double().numpy()
    assert kernel.sum() == pytest.approx(1, abs=1e-6)
    assert np.allclose(kernel, kernel[::-1])
    x = np.arange(size) - size // 2
    renormalised = np.exp(-(x**2) / 2 / (0.3 * ((size - 1) / 2 - 1) + 0.8) ** 2)
    renormalised /= renormalised.sum()
    assert kernel[0] > renormalised[0]


@SIDES
def test_the_target_is_how_wrong_a_prediction_is_blurred_widened_and_blurred_again(side: int):
    generator = torch.Generator().manual_seed(side)
    logits = 3 * torch.randn(3, 5, side, side, generator=generator)
    label = torch.randint(0, 5, (3, side, side), generator=generator)
    label[0, : side // 3] = IGNORE
    label[2] = IGNORE
    found = flaws.target(logits.softmax(1), label, IGNORE)
    assert found.shape == (3, 1, side, side)
    for b in range(2):
        expected = slow_target(logits[b].double().softmax(0).numpy(), label[b].numpy())
        assert np.allclose(found[b, 0].numpy(), expected, atol=2e-5)
    # All void: a map of one value, of which only rounding is left to spread.
    assert found[2].isfinite().all()


def test_a_pixel_without_a_label_is_half_as_wrong_as_a_certain_mistake():
    prob = torch.zeros(1, 2, 32, 32)
    prob[:, 0] = 1
    label = torch.zeros(1, 32, 32, dtype=torch.int64)
    label[0, 4, 4], label[0, 28, 28] = IGNORE, 1
    map_HW = flaws.target(prob, label, IGNORE)[0, 0]
    assert map_HW[28, 28] == pytest.approx(1)
    assert map_HW[4, 4] == pytest.approx(0.5, abs=0.02)


@SIDES
@pytest.mark.parametrize("scale", [1.0, 0.01])
def test_a_map_is_handled_before_it_is_compared(side: int, scale: float):
    """Negative values count as none, and a faint map as no flaw at all."""
    raw = scale * torch.randn(3, 1, side, side, generator=torch.Generator().manual_seed(side))
    found = flaws.handled(raw)
    for b in range(3):
        assert np.allclose(found[b, 0].numpy(), slow_handled(raw[b, 0].double().numpy()), atol=2e-5)
    if scale < 0.1:
        assert (found <= 0).all()


@given(st.integers(0, 2**31), st.sampled_from([0.2, 0.6, 0.9]))
@settings(max_examples=25)
def test_each_learns_where_the_others_flaw_is_smaller_and_neither_where_both_are_complete(
    seed: int, xi: float
):
    maps = torch.rand(2, 2, 1, 6, 6, generator=torch.Generator().manual_seed(seed))
    maps[:, 0, 0, 0] = torch.tensor([xi, xi + 1e-3, 0.0, 1.0, -0.1, 0.5])
    found = flaws.exchange(*maps, xi)
    first, second = maps.numpy()
    clipped = [np.where(h > xi, 1, h) for h in (first, second)]
    assert np.array_equal(~found.first_learns.numpy(), clipped[1] >= clipped[0])
    assert np.array_equal(~found.second_learns.numpy(), clipped[0] >= clipped[1])
    assert np.array_equal(found.both_bad.numpy(), (first > xi) & (second > xi))
    assert not (found.both_bad & (found.first_learns | found.second_learns)).any()
    assert not (found.first_learns & found.second_learns).any()
