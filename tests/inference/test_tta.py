from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from inference.positions import Positions
from torch import Tensor

from u2pl.errors import UsageError
from u2pl.inference.tta import NO_TTA, TTA, mean_probabilities
from u2pl.inference.windows import sliding_logits


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


def pass_by_pass(
    logits_of: Callable[[Tensor], Tensor], image: np.ndarray, tta: TTA, size: tuple[int, int]
) -> np.ndarray:
    found = []
    for scale in tta.scales:
        height, width = (max(1, int(scale * length)) for length in image.shape[2:])
        scaled = interpolated(image, (height, width), corners=False)
        for mirrored in [False, True] if tta.flip else [False]:
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
def test_what_is_averaged_are_the_probabilities_of_every_pass_at_the_masks_size(
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

    tta, size = TTA(tuple(sorted(scales)), flip), mask or (height, width)
    mean = mean_probabilities(logits_of, torch.from_numpy(image), tta, size)
    expected = pass_by_pass(logits_of, image, tta, size)
    torch.testing.assert_close(mean, torch.from_numpy(expected), atol=1e-10, rtol=0)


def test_mirroring_changes_nothing_for_a_network_that_looks_at_single_pixels() -> None:
    image = torch.rand(2, 3, 6, 8, dtype=torch.float64)
    mean = mean_probabilities(lambda images: 5 * images, image, TTA(flip=True), (6, 8))
    assert torch.equal(mean, (5 * image).softmax(1))


def test_a_network_that_knows_columns_alone_gives_the_mean_of_a_row_and_its_mirror_image() -> None:
    likelihood = torch.tensor([[0.9, 0.8, 0.7, 0.2], [0.1, 0.2, 0.3, 0.8]], dtype=torch.float64)
    mean = mean_probabilities(
        lambda images: likelihood.log()[None, :, None].expand(1, 2, 3, 4),
        torch.rand(1, 3, 3, 4, dtype=torch.float64),
        TTA(flip=True),
        (3, 4),
    )
    expected = torch.tensor([[0.55, 0.75, 0.75, 0.55], [0.45, 0.25, 0.25, 0.45]], dtype=torch.float64)
    torch.testing.assert_close(mean, expected[None, :, None].expand(1, 2, 3, 4))


def test_a_scaled_picture_has_the_whole_pixels_of_its_scaled_size_and_at_least_one() -> None:
    seen = []

    def logits_of(images: Tensor) -> Tensor:
        seen.append(tuple(images.shape[2:]))
        return images

    mean_probabilities(logits_of, torch.rand(1, 3, 7, 1), TTA((0.5, 0.75, 1.0, 1.25), True), (7, 1))
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
    tta = TTA.parse(scales, flip)
    assert tta.text == words and list(tta.scales) == sorted(tta.scales)
    assert (tta == NO_TTA) == (words == "single scale")


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
        TTA.parse(scales, False)
    assert says in str(error.value)
