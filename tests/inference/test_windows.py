from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from inference.positions import Positions
from torch import Tensor
from torch.nn.functional import interpolate

from u2pl.inference.windows import sliding_logits, stride_of, windows
from u2pl.models.deeplab import Output


def one_by_one(network: Positions, image: Tensor, window: int, stride: int) -> Tensor:
    """The same by the book: every window alone, in the order of the image, sums and counts pixel by pixel."""
    _, _, height, width = image.shape
    high, wide = min(window, height), min(window, width)
    total = np.zeros((len(image), 3, height, width))
    times = np.zeros((height, width))
    top = 0
    while True:
        top, left = min(top, height - high), 0
        while True:
            left = min(left, width - wide)
            logits = network(image[:, :, top : top + high, left : left + wide], represent=False).logits
            logits = interpolate(logits, size=(high, wide), mode="bilinear", align_corners=True)
            total[:, :, top : top + high, left : left + wide] += logits.numpy()
            times[top : top + high, left : left + wide] += 1
            if left == width - wide:
                break
            left += stride
        if top == height - high:
            break
        top += stride
    return torch.from_numpy(total / times)


@settings(deadline=None, max_examples=40)
@given(
    height=st.integers(5, 60),
    width=st.integers(5, 60),
    window=st.integers(4, 40),
    images=st.integers(1, 3),
)
def test_windows_give_what_they_give_one_by_one(height: int, width: int, window: int, images: int) -> None:
    image = torch.from_numpy(np.random.default_rng(height).normal(size=(images, 3, height, width)))
    expected = one_by_one(Positions(), image, window, -(-2 * window // 3))
    torch.testing.assert_close(sliding_logits(Positions(), image, window), expected, atol=1e-12, rtol=0)  # type: ignore[arg-type]


@given(length=st.integers(1, 3000), window=st.integers(1, 1000))
def test_every_pixel_is_in_a_window_and_every_window_in_the_image(length: int, window: int) -> None:
    found = windows(length, window)
    starts = [place.start for place in found]
    covered = np.zeros(length, bool)
    for place in found:
        assert 0 <= place.start < place.stop <= length and place.stop - place.start == min(window, length)
        covered[place] = True
    assert covered.all() and starts == sorted(set(starts))
    assert all(b - a <= stride_of(window) for a, b in pairwise(starts))


def test_an_image_of_cityscapes_has_two_by_four_windows_of_769_as_in_the_released_code() -> None:
    assert [place.start for place in windows(1024, 769)] == [0, 255]
    assert [place.start for place in windows(2048, 769)] == [0, 513, 1026, 1279]
    assert stride_of(769) == 513


def test_an_image_no_larger_than_the_window_goes_through_whole() -> None:
    image = torch.rand(2, 3, 20, 30)
    network = Positions()
    expected = interpolate(
        network(image, represent=False).logits, size=(20, 30), mode="bilinear", align_corners=True
    )
    assert torch.equal(sliding_logits(network, image, 30), expected)  # type: ignore[arg-type]
    assert network.seen == [2, 2]


@pytest.mark.parametrize(("images", "seen"), [(1, [4, 4]), (2, [4, 4, 4, 4]), (3, [3] * 8)])
def test_a_few_windows_go_through_the_network_at_once(images: int, seen: list[int]) -> None:
    network = Positions()
    sliding_logits(network, torch.rand(images, 3, 40, 80), 30)  # type: ignore[arg-type]
    assert network.seen == seen


@settings(deadline=None, max_examples=40)
@given(height=st.integers(1, 60), width=st.integers(1, 60), window=st.integers(1, 40))
def test_a_network_that_always_says_the_same_says_it_of_the_whole_image(
    height: int, width: int, window: int
) -> None:
    """Also where three or four windows overlap: 0.1 is no binary fraction, its sums are rounded."""

    class Constant(torch.nn.Module):
        def forward(self, image: Tensor, *, represent: bool = True) -> Output:
            small = [-(-n // 4) for n in image.shape[2:]]
            return Output(
                image.new_tensor([0.1, -3.0])[None, :, None, None].expand(len(image), 2, *small), None
            )

    logits = sliding_logits(Constant(), torch.rand(2, 3, height, width), window)  # type: ignore[arg-type]
    expected = torch.tensor([0.1, -3.0])[None, :, None, None].expand(2, 2, height, width)
    torch.testing.assert_close(logits, expected)
