import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch.nn.functional import interpolate

from u2pl.data.transforms import (
    MEAN,
    STD,
    View,
    augment,
    center_crop,
    normalise,
    random_scale,
    resize_image,
    resize_mask,
)


class Chosen(np.random.Generator):
    """A generator that gives chosen numbers: is it smaller, is it flipped, the scale, the place."""

    def __init__(self, scale: float, flip: bool, place: tuple[float, float] = (0.0, 0.0)):
        super().__init__(np.random.PCG64(0))
        self.scale, self.place, self.singles = scale, place, [0.0 if scale < 1 else 0.9, 0.0 if flip else 0.9]

    def random(self, size: int | None = None) -> object:  # type: ignore[override]
        return self.singles.pop(0) if size is None else np.array(self.place)

    def uniform(self, low: float, high: float) -> float:  # type: ignore[override]
        assert low <= self.scale <= high
        return self.scale


def view_of(image: NDArray[np.uint8], mask: NDArray[np.uint8] | None, **changes: object) -> View:
    """A view of 32 x 32 at any scale, ignored where it is padding; `changes` replaces arguments of `augment`."""
    options = {"crop": 32, "scale": (0.5, 2.0), "ignore_index": 255, "padding_label": 255, **changes}
    return augment(image, mask, **{"rng": np.random.default_rng(0), **options})  # type: ignore[arg-type]


def picture(height: int, width: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    rng = np.random.default_rng(height * 1000 + width)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return image, rng.integers(0, 5, (height, width), dtype=np.uint8)


@settings(deadline=None, max_examples=40)
@given(
    height=st.integers(20, 60),
    width=st.integers(20, 60),
    scale=st.sampled_from([0.5, 0.75, 1.0, 1.25, 1.5, 2.0]),
    flip=st.booleans(),
    place=st.tuples(st.floats(0, 0.999), st.floats(0, 0.999)),
)
def test_only_the_crop_is_computed_and_it_equals_the_crop_of_everything(
    height: int, width: int, scale: float, flip: bool, place: tuple[float, float]
) -> None:
    crop, (image, mask) = 32, picture(height, width)
    view, target, inside = view_of(image, mask, crop=crop, rng=Chosen(scale, flip, place))
    size = [int(scale * height), int(scale * width)]
    whole = interpolate(normalise(image)[None], size=size, mode="bilinear", align_corners=False)[0]
    labels = interpolate(torch.from_numpy(mask)[None, None].float(), size=size, mode="nearest")[0, 0]
    if flip:
        whole, labels = whole.flip(-1), labels.flip(-1)
    padded = torch.zeros(3, max(size[0], crop), max(size[1], crop))
    padded_labels = torch.full(padded.shape[1:], 255.0)
    top, left = max(0, crop - size[0]) // 2, max(0, crop - size[1]) // 2
    padded[:, top : top + size[0], left : left + size[1]] = whole
    padded_labels[top : top + size[0], left : left + size[1]] = labels
    y, x = (int(at * (length - crop + 1)) for at, length in zip(place, padded.shape[1:], strict=True))
    torch.testing.assert_close(view, padded[:, y : y + crop, x : x + crop], atol=2e-4, rtol=0)
    assert torch.equal(target, padded_labels[y : y + crop, x : x + crop].long())
    assert torch.equal(inside, target != 255)


def test_padding_has_the_mean_colour_and_is_ignored() -> None:
    image, mask = picture(10, 20)
    view, target, inside = view_of(image, mask, crop=40, scale=(1, 1), ignore_index=11, padding_label=11)
    assert (target[:15] == 11).all() and (target[25:] == 11).all() and (target[15:25, 10:30] < 5).all()
    assert (view[:, target == 11] == 0).all() and (view[:, target != 11] != 0).any()
    assert torch.equal(inside, target != 11)


def test_padding_can_have_a_label_of_its_own_which_changes_nothing_inside() -> None:
    image, mask = picture(10, 20)
    ignored, labeled = (view_of(image, mask, crop=40, scale=(1, 1), padding_label=p) for p in (255, 0))
    assert (labeled.mask[~labeled.inside] == 0).all()
    assert torch.equal(labeled.mask[labeled.inside], ignored.mask[ignored.inside])
    assert torch.equal(labeled.image, ignored.image) and torch.equal(labeled.inside, ignored.inside)


def test_an_image_without_a_mask_is_ignored_everywhere() -> None:
    view, target, inside = view_of(picture(40, 40)[0], None)
    assert (target == 255).all() and view.shape == (3, 32, 32)
    assert (view.dtype, target.dtype, inside.dtype) == (torch.float32, torch.int64, torch.bool)


def test_half_of_the_scales_are_below_one_and_half_above() -> None:
    rng = np.random.default_rng(0)
    scales = np.array([random_scale(rng, 0.5, 2.0) for _ in range(4000)])
    assert scales.min() >= 0.5 and scales.max() <= 2
    assert (scales < 1).mean() == pytest.approx(0.5, abs=0.03)
    assert np.median(scales[scales < 1]) == pytest.approx(0.75, abs=0.02)
    assert np.median(scales[scales > 1]) == pytest.approx(1.5, abs=0.04)


def test_a_range_on_one_side_of_one_is_uniform() -> None:
    rng = np.random.default_rng(0)
    assert np.mean([random_scale(rng, 1.0, 3.0) for _ in range(2000)]) == pytest.approx(2, abs=0.05)
    assert random_scale(rng, 1.0, 1.0) == 1


def test_the_same_generator_gives_the_same_view() -> None:
    image, mask = picture(50, 40)
    views = [view_of(image, mask, rng=np.random.default_rng([1, 2, 3])) for _ in range(2)]
    assert all(torch.equal(one, other) for one, other in zip(*views, strict=True))


def test_half_of_the_views_are_flipped_and_every_place_is_cropped() -> None:
    image = np.zeros((34, 33, 3), dtype=np.uint8)
    mask = np.arange(33, dtype=np.uint8)[None].repeat(34, 0)
    rng = np.random.default_rng(0)
    rows = [view_of(image, mask, scale=(1, 1), rng=rng).mask[0] for _ in range(400)]
    assert sum(bool(row[0] > row[-1]) for row in rows) / 400 == pytest.approx(0.5, abs=0.08)
    assert {int(row.min()) for row in rows} == {0, 1}


def test_normalised_pixels_are_those_of_imagenet_networks() -> None:
    image = np.array([[[255, 0, 128]]], dtype=np.uint8)
    expected = [(255 / 255 - 0.485) / 0.229, (0 - 0.456) / 0.224, (128 / 255 - 0.406) / 0.225]
    assert normalise(image).flatten().tolist() == pytest.approx(expected, abs=1e-5)
    assert MEAN.dtype == STD.dtype == np.float32


def test_resizing_floors_the_size_averages_images_and_picks_labels() -> None:
    image, mask = picture(31, 20)
    assert resize_image(image, 0.5).shape == (15, 10, 3)
    assert set(np.unique(resize_mask(mask, 0.5))) <= set(range(5))
    checks = np.indices((32, 32)).sum(0) % 2 * 255
    shrunk = resize_image(checks[..., None].repeat(3, 2).astype(np.uint8), 0.25)
    assert np.abs(shrunk[1:-1, 1:-1].astype(int) - 128).max() < 20
    assert resize_image(image, 1) is image


@pytest.mark.parametrize(
    ("length", "crop", "expected"),
    [
        (7, 7, [1, 2, 3, 4, 5, 6, 7]),
        (7, 5, [2, 3, 4, 5, 6]),
        (8, 5, [2, 3, 4, 5, 6]),
        (3, 5, [0, 1, 2, 3, 0]),
        (2, 5, [0, 1, 2, 0, 0]),
    ],
)
def test_a_centre_crop_cuts_or_pads_on_both_sides(length: int, crop: int, expected: list[int]) -> None:
    row = torch.arange(1, length + 1)
    across, down = row.expand(crop, length), row[:, None].expand(length, crop)
    assert all(line.tolist() == expected for line in center_crop(across, crop, 0))
    assert all(line.tolist() == expected for line in center_crop(down, crop, 0).T)
    assert center_crop(down[None], crop, 0).shape == (1, crop, crop)


def test_a_centre_crop_may_cut_one_side_and_pad_the_other() -> None:
    cropped = center_crop(torch.ones(3, 40, 20), 30, -1)
    assert cropped.shape == (3, 30, 30)
    assert (
        (cropped[..., 5:25] == 1).all() and (cropped[..., :5] == -1).all() and (cropped[..., 25:] == -1).all()
    )
