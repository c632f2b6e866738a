from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import interpolate

from u2pl.errors import UsageError
from u2pl.inference.windows import ONCE, Looks, mean_probabilities, sliding_logits, stride_of, windows
from u2pl.models.deeplab import Output


class Positions(torch.nn.Module):
    """A network whose logits depend on what a window shows and on the place within it, at a quarter of its size."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def forward(self, image: Tensor, *, represent: bool = True) -> Output:
        assert not represent
        self.seen.append(len(image))
        small = interpolate(
            image, size=[-(-n // 4) for n in image.shape[2:]], mode="bilinear", align_corners=True
        )
        y, x = (torch.linspace(0, 1, n, dtype=image.dtype) for n in small.shape[2:])
        return Output(torch.stack([small.sum(1), small[:, 0] * y[:, None], small[:, 1] * x], dim=1), None)


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


# ---- scales and mirror images ----------------------------------------------------------------------------


def interpolated(image: np.ndarray, size: tuple[int, int], *, corners: bool) -> np.ndarray:
    """Bilinear interpolation of (B, C, H, W) by its definition, pixel by pixel."""
    result = image
    for axis, count in zip((2, 3), size, strict=True):
        length, slices = result.shape[axis], []
        for k in range(count):
            if corners:
                place = k * (length - 1) / (count - 1) if count > 1 else 0.0
            else:
                place = min(max((k + 0.5) * length / count - 0.5, 0), length - 1)
            low = min(int(place), length - 1)
            high, share = min(low + 1, length - 1), place - low
            slices.append((1 - share) * result.take(low, axis) + share * result.take(high, axis))
        result = np.stack(slices, axis)
    return result


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def look_by_look(
    logits_of: Callable[[Tensor], Tensor], image: np.ndarray, looks: Looks, size: tuple[int, int]
) -> np.ndarray:
    found = []
    for scale in looks.scales:
        height, width = (max(1, int(scale * length)) for length in image.shape[2:])
        scaled = interpolated(image, (height, width), corners=False)
        for mirrored in [False, True] if looks.flip else [False]:
            seen = scaled[..., ::-1] if mirrored else scaled
            logits = interpolated(logits_of(torch.from_numpy(seen.copy())).numpy(), size, corners=True)
            found.append(softmax(logits[..., ::-1] if mirrored else logits))
    return np.mean(found, axis=0)


@settings(deadline=None, max_examples=30)
@given(
    height=st.integers(5, 20),
    width=st.integers(5, 20),
    scales=st.lists(st.sampled_from([0.5, 0.75, 1.0, 1.5, 2.0]), min_size=1, max_size=3, unique=True),
    flip=st.booleans(),
    window=st.sampled_from([None, 9]),
    mask=st.sampled_from([None, (13, 17)]),
)
def test_what_is_averaged_are_the_probabilities_of_every_look_at_the_masks_size(
    height: int,
    width: int,
    scales: list[float],
    flip: bool,
    window: int | None,
    mask: tuple[int, int] | None,
) -> None:
    """In double precision, against the definition; `Positions` sees places, so mirroring changes its logits."""
    image, network = np.random.default_rng(height).normal(size=(2, 3, height, width)), Positions()

    def logits_of(images: Tensor) -> Tensor:
        if window is None:
            return network(images, represent=False).logits
        return sliding_logits(network, images, window)  # type: ignore[arg-type]

    looks, size = Looks(tuple(sorted(scales)), flip), mask or (height, width)
    mean = mean_probabilities(logits_of, torch.from_numpy(image), looks, size)
    expected = look_by_look(logits_of, image, looks, size)
    torch.testing.assert_close(mean, torch.from_numpy(expected), atol=1e-10, rtol=0)


def test_mirroring_changes_nothing_for_a_network_that_looks_at_single_pixels() -> None:
    image = torch.rand(2, 3, 6, 8, dtype=torch.float64)
    mean = mean_probabilities(lambda images: 5 * images, image, Looks(flip=True), (6, 8))
    assert torch.equal(mean, (5 * image).softmax(1))


def test_a_network_that_knows_columns_alone_gives_the_mean_of_a_row_and_its_mirror_image() -> None:
    likelihood = torch.tensor([[0.9, 0.8, 0.7, 0.2], [0.1, 0.2, 0.3, 0.8]], dtype=torch.float64)
    mean = mean_probabilities(
        lambda images: likelihood.log()[None, :, None].expand(1, 2, 3, 4),
        torch.rand(1, 3, 3, 4, dtype=torch.float64),
        Looks(flip=True),
        (3, 4),
    )
    expected = torch.tensor([[0.55, 0.75, 0.75, 0.55], [0.45, 0.25, 0.25, 0.45]], dtype=torch.float64)
    torch.testing.assert_close(mean, expected[None, :, None].expand(1, 2, 3, 4))


def test_a_scaled_picture_has_the_whole_pixels_of_its_scaled_size_and_at_least_one() -> None:
    seen = []

    def logits_of(images: Tensor) -> Tensor:
        seen.append(tuple(images.shape[2:]))
        return images

    mean_probabilities(logits_of, torch.rand(1, 3, 7, 1), Looks((0.5, 0.75, 1.0, 1.25), True), (7, 1))
    assert seen == [(3, 1)] * 2 + [(5, 1)] * 2 + [(7, 1)] * 2 + [(8, 1)] * 2


@pytest.mark.parametrize(
    ("scales", "flip", "words"),
    [
        ("1", False, "single scale"),
        ("1.0", True, "single scale with flip"),
        ("1.5, 0.75,1", True, "scales 0.75 1 1.5 with flip"),
        ("0.5", False, "scale 0.5"),
    ],
)
def test_scales_are_read_in_any_order_and_said(scales: str, flip: bool, words: str) -> None:
    looks = Looks.parse(scales, flip)
    assert looks.words == words and list(looks.scales) == sorted(looks.scales)
    assert (looks == ONCE) == (words == "single scale")


@pytest.mark.parametrize(
    ("scales", "says"),
    [
        ("0", "A scale is a number from 0.1 to 4, not '0'."),
        ("1,-1", "not '-1'."),
        ("1, big", "not 'big'."),
        ("1,,2", "not ''."),
        ("", "not ''."),
        ("5", "not '5'."),
        ("nan", "not 'nan'."),
        ("inf", "not 'inf'."),
        ("1,0.5,1.0", "The scale 1 stands twice in '1,0.5,1.0'."),
    ],
)
def test_bad_scales_are_refused_in_words(scales: str, says: str) -> None:
    with pytest.raises(UsageError) as error:
        Looks.parse(scales, False)
    assert says in str(error.value)
