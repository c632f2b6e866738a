"""Strong views: what may change in an image, what may not, and that its draws do not depend on the company it is in."""

import colorsys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from u2pl.batches.strong_view import StrongDraws, strong_view
from u2pl.batches.transforms import denormalised, normalise
from u2pl.settings.hyper import StrongViewSettings

FIXED = {
    "jitter_probability": 1.0,
    "jitter_brightness": 0.0,
    "jitter_contrast": 0.0,
    "jitter_saturation": 0.0,
    "jitter_hue": 0.0,
    "grayscale_probability": 0.0,
    "blur_probability": 0.0,
    "blur_sigma": (0.1, 2.0),
    "cutout": 0.0,
}
STRONG = FIXED | {
    "jitter_brightness": 0.5,
    "jitter_contrast": 0.5,
    "jitter_saturation": 0.5,
    "jitter_hue": 0.25,
    "cutout": 0.1,
}


def drawn(images: int, seed: int = 0, **changes: object) -> StrongDraws:
    return StrongDraws.draw(
        StrongViewSettings(**{**FIXED, **changes}), images, torch.Generator().manual_seed(seed)
    )


def pictures(images: int = 2, height: int = 20, width: int = 20, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Normalised images with padding around, of each another part, and where they are none."""
    rng = np.random.default_rng(seed)
    pixels = torch.from_numpy(rng.integers(0, 256, (images, height, width, 3), dtype=np.uint8))
    rows = torch.ones(images, height, dtype=torch.bool)
    columns = torch.ones(images, width, dtype=torch.bool)
    for b in range(images):
        rows[b, : b + 2] = columns[b, width - 2 * b - 1 :] = False
    return normalise(pixels, rows, columns), rows[:, :, None] & columns[:, None]


def colors(image: Tensor) -> Tensor:
    """(B, H, W, 3), from 0 to 1."""
    return denormalised(image).permute(0, 2, 3, 1)


def test_the_colours_of_pictures_come_back_from_images():
    pixels = torch.arange(256, dtype=torch.uint8).repeat(3).view(1, 16, 16, 3)
    torch.testing.assert_close(colors(normalise(pixels)), pixels / 255, atol=1e-6, rtol=0)


def test_without_strength_the_strong_view_is_the_weak_one():
    image, valid = pictures()
    view = strong_view(image, valid, drawn(2))
    torch.testing.assert_close(view.image, image, atol=1e-5, rtol=0)
    assert torch.equal(view.kept, valid)


@pytest.mark.parametrize("index", range(4))
def test_an_image_s_draws_do_not_depend_on_how_the_batch_is_cut(index: int):
    image, valid = pictures(4)
    draws = drawn(4, **{**STRONG, "grayscale_probability": 0.5, "blur_probability": 0.5})
    whole, own = strong_view(image, valid, draws), slice(index, index + 1)
    alone = strong_view(image[own], valid[own], draws.part(own))
    assert torch.equal(whole.image[own], alone.image) and torch.equal(whole.kept[own], alone.kept)


def test_two_views_of_an_image_and_two_images_of_a_view_differ():
    image, valid = pictures(1)
    image, valid = image.expand(2, -1, -1, -1), valid.expand(2, -1, -1)
    one, other = (strong_view(image, valid, drawn(2, seed, **STRONG)).image for seed in (0, 1))
    assert not torch.allclose(one, other) and not torch.allclose(one[0], one[1])


def test_the_images_that_are_given_stay_as_they_are():
    image, valid = pictures()
    before = image.clone(), valid.clone()
    strong_view(image, valid, drawn(2, **STRONG))
    assert torch.equal(image, before[0]) and torch.equal(valid, before[1])


@given(
    seed=st.integers(0, 2**40),
    height=st.integers(4, 24),
    width=st.integers(4, 24),
    amount=st.floats(0, 1),
    hue=st.floats(0, 0.5),
    cutout=st.floats(0, 1),
    chances=st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)),
)
@settings(max_examples=60, deadline=None)
def test_colours_stay_colours_padding_stays_padding_and_the_square_leaves(
    seed: int,
    height: int,
    width: int,
    amount: float,
    hue: float,
    cutout: float,
    chances: tuple[float, float, float],
):
    image, valid = pictures(2, height, width, seed)
    names = ("jitter_probability", "grayscale_probability", "blur_probability")
    amounts = dict.fromkeys(("jitter_brightness", "jitter_contrast", "jitter_saturation"), amount)
    draws = drawn(2, seed, **dict(zip(names, chances, strict=True)), **amounts, jitter_hue=hue, cutout=cutout)
    view = strong_view(image, valid, draws)
    assert view.image.shape == image.shape and view.image.dtype == torch.float32
    assert (view.image.permute(0, 2, 3, 1)[~view.kept] == 0).all()
    assert not (view.kept & ~valid).any()
    inside = view.image.permute(0, 2, 3, 1)[view.kept]
    low, high = (normalise(torch.full((1, 1, 1, 3), v)).flatten() for v in (0.0, 255.0))
    assert (inside >= low - 1e-4).all() and (inside <= high + 1e-4).all()
    half = round(cutout * min(height, width))
    for b in range(2):
        gone = (valid[b] & ~view.kept[b]).nonzero()
        if len(gone):
            assert (gone.max(dim=0).values - gone.min(dim=0).values < 2 * half).all()
    assert cutout > 0 or torch.equal(view.kept, valid)


def test_one_square_is_cut_out_at_a_uniform_place_and_over_the_edge_less_of_it():
    image, valid = torch.zeros(300, 3, 20, 20), torch.ones(300, 20, 20, dtype=torch.bool)
    gone = ~strong_view(image, valid, drawn(300, cutout=0.25)).kept
    areas = gone.sum(dim=(1, 2))
    assert areas.max() == 10 * 10 and areas.min() >= 5 * 5
    assert torch.equal(areas, gone.any(dim=1).sum(dim=1) * gone.any(dim=2).sum(dim=1))
    assert gone.float().mean(dim=0)[5:15, 5:15].std() < 0.05
    assert (gone.float().mean(dim=0) > 0.02).all()


@pytest.mark.parametrize("kind", ["brightness", "contrast", "saturation", "hue"])
def test_each_distortion_does_what_it_is_called_to_the_pixels_that_are_no_padding(kind: str):
    image, valid = pictures(1)
    amount = 0.25 if kind == "hue" else 0.5
    draws = drawn(1, 3, **{f"jitter_{kind}": amount})
    number = ["brightness", "contrast", "saturation", "hue"].index(kind)
    strength = draws.strength[0, number].item()
    before, after = (
        colors(each)[valid].double().numpy() for each in (image, strong_view(image, valid, draws).image)
    )
    gray = before @ np.array([0.2989, 0.587, 0.114])
    if kind == "hue":
        turned = []
        for pixel in before:
            h, s, v = colorsys.rgb_to_hsv(*pixel)
            turned.append(colorsys.hsv_to_rgb((h + strength) % 1, s, v))
        expected = np.array(turned)
    else:
        other = {"brightness": 0.0, "contrast": gray.mean(), "saturation": gray[:, None]}[kind]
        expected = (strength * before + (1 - strength) * other).clip(0, 1)
    assert abs(strength - (0 if kind == "hue" else 1)) > 0.02
    np.testing.assert_allclose(after, expected, atol=2e-5)


def test_the_order_of_the_distortions_is_drawn_and_strengths_fill_their_ranges():
    draws = drawn(4000, **STRONG)
    assert len({tuple(order) for order in draws.order.tolist()}) == 24
    for column, (low, high) in zip(draws.strength.T, [(0.5, 1.5)] * 3 + [(-0.25, 0.25)], strict=True):
        assert low <= column.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < column.max() <= high
        assert column.mean().item() == pytest.approx((low + high) / 2, abs=0.03)


def test_distortions_come_in_the_order_that_is_drawn():
    image, valid = pictures(1)
    draws = drawn(1, 3, **{**STRONG, "cutout": 0.0})
    turned = replace(draws, order=draws.order.flip(1))
    one, other = (colors(strong_view(image, valid, each).image)[valid] for each in (draws, turned))
    assert not torch.allclose(one, other, atol=1e-3)
    brighter = replace(draws, strength=torch.tensor([[1.5, 0.5, 1.0, 0.0]]))
    for first in (0, 1):
        order = torch.tensor([[first, 1 - first, 2, 3]])
        found = colors(strong_view(image, valid, replace(brighter, order=order)).image)[valid]
        expected = colors(image)[valid]
        for number in (first, 1 - first):
            if number:
                gray = (expected @ torch.tensor([0.2989, 0.587, 0.114])).mean()
                expected = (0.5 * expected + 0.5 * gray).clamp(0, 1)
            else:
                expected = (1.5 * expected).clamp(0, 1)
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)


def test_as_many_images_are_distorted_grey_or_blurred_as_the_probabilities_say():
    draws = drawn(4000, jitter_probability=0.8, grayscale_probability=0.2, blur_probability=0.5)
    shares = draws.jittered, draws.gray, draws.sigma > 0
    for share, expected in zip(shares, (0.8, 0.2, 0.5), strict=True):
        assert share.float().mean().item() == pytest.approx(expected, abs=0.03)
    blurred = draws.sigma[draws.sigma > 0]
    assert 0.1 <= blurred.min() < 0.12 and 1.98 < blurred.max() <= 2


def test_no_setting_changes_what_is_drawn_for_another():
    certain = {"blur_probability": 1, "grayscale_probability": 1}
    plain, more = drawn(5, **STRONG), drawn(5, **{**STRONG, **certain})
    assert torch.equal(plain.strength, more.strength) and torch.equal(plain.center, more.center)


def test_a_grey_image_has_no_colours_and_a_blurred_one_is_smoother():
    image, valid = pictures(1)
    gray = colors(strong_view(image, valid, drawn(1, grayscale_probability=1)).image)[valid]
    torch.testing.assert_close(gray, gray[:, :1].expand(-1, 3))
    smooth = colors(strong_view(image, valid, drawn(1, blur_probability=1, blur_sigma=(2, 2))).image)
    assert smooth[valid].std() < 0.5 * colors(image)[valid].std()


def test_an_image_of_nothing_but_padding_stays_that():
    image, valid = torch.zeros(1, 3, 8, 8), torch.zeros(1, 8, 8, dtype=torch.bool)
    view = strong_view(image, valid, drawn(1, **STRONG))
    assert (view.image == 0).all() and not view.kept.any()
