import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch.nn.functional import interpolate

from u2pl.batches.transforms import (
    AugmentedImage,
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


def view_of(image: NDArray[np.uint8], mask: NDArray[np.uint8] | None, **changes: object) -> AugmentedImage:
    """A view of 32 x 32 at any scale, ignored where it is padding; `changes` replaces arguments of `augment`."""
    options = {"crop": 32, "scale": (0.5, 2.0), "interpolation": "uint8", **changes}
    options = {"ignore_index": 255, "padding_label": 255, **options}
    return augment(image, mask, **{"rng": np.random.default_rng(0), **options})  # type: ignore[arg-type]


def inside_of(view: AugmentedImage) -> torch.Tensor:
    """Where a view is no padding, (crop, crop)."""
    return view.rows[:, None] & view.columns


def picture(height: int, width: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    rng = np.random.default_rng(height * 1000 + width)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return image, rng.integers(0, 5, (height, width), dtype=np.uint8)


@settings(deadline=None, max_examples=120)
@given(
    height=st.integers(8, 90),
    width=st.integers(8, 90),
    crop=st.sampled_from([12, 32, 64]),
    scale=st.floats(0.5, 2.0) | st.sampled_from([0.5, 1.0, 1.5, 2.0]),
    flip=st.booleans(),
    place=st.tuples(st.floats(0, 0.999), st.floats(0, 0.999)),
    interpolation=st.sampled_from(["uint8", "float32"]),
)
def test_a_view_is_the_crop_of_the_whole_picture_scaled_flipped_and_padded(
    height: int,
    width: int,
    crop: int,
    scale: float,
    flip: bool,
    place: tuple[float, float],
    interpolation: str,
) -> None:
    image, mask = picture(height, width)
    view = view_of(image, mask, crop=crop, interpolation=interpolation, rng=Chosen(scale, flip, place))
    size = [int(scale * height), int(scale * width)]
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    whole = interpolate(pixels, size=size, mode="bilinear", align_corners=False)[0]
    nearest = [[at * old // new for at in range(new)] for old, new in zip(mask.shape, size, strict=True)]
    labels = torch.from_numpy(mask[nearest[0]][:, nearest[1]])
    # The place counts from the left of the picture before it is flipped.
    top, left = max(0, crop - size[0]) // 2, max(0, crop - size[1]) // 2
    y, x = (int(at * (max(0, length - crop) + 1)) for at, length in zip(place, size, strict=True))
    whole, labels = whole[:, y : y + crop, x : x + crop], labels[y : y + crop, x : x + crop]
    if flip:
        whole, labels = whole.flip(-1), labels.flip(-1)
    seen = (slice(top, top + min(crop, size[0])), slice(left, left + min(crop, size[1])))
    expected, expected_labels = torch.zeros(3, crop, crop), torch.full((crop, crop), 255)
    expected[:, *seen], expected_labels[seen] = whole, labels.long()
    assert view.image.dtype == getattr(torch, interpolation)
    tolerance = 1.02 if interpolation == "uint8" else 1e-3
    torch.testing.assert_close(view.image.permute(2, 0, 1).float(), expected, atol=tolerance, rtol=0)
    assert torch.equal(view.mask.long(), expected_labels)
    assert torch.equal(inside_of(view), expected_labels != 255)


@settings(deadline=None, max_examples=60)
@given(
    length=st.integers(8, 90),
    scale=st.floats(0.5, 2.0),
    flip=st.booleans(),
    place=st.tuples(st.floats(0, 0.999), st.floats(0, 0.999)),
    crop=st.sampled_from([12, 32, 64]),
)
def test_bytes_are_one_grey_level_off_at_most(
    length: int, scale: float, flip: bool, place: tuple[float, float], crop: int
) -> None:
    image, mask = picture(length, 97 - length)
    exact, rounded = (
        view_of(image, mask, crop=crop, interpolation=kind, rng=Chosen(scale, flip, place))
        for kind in ("float32", "uint8")
    )
    assert (rounded.image.float() - exact.image).abs().max() <= 1.02
    assert all(torch.equal(a, b) for a, b in zip(rounded[1:], exact[1:], strict=True))


@pytest.mark.parametrize("size", [(375, 500), (1024, 2048)])
@pytest.mark.parametrize("scale", [0.5, 0.83, 1.0, 1.37, 2.0])
def test_a_view_is_what_torch_makes_of_the_whole_picture_at_the_sizes_of_the_paper(
    size: tuple[int, int], scale: float
) -> None:
    image, mask = picture(*size)
    scaled = [int(scale * length) for length in size]
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    whole = interpolate(pixels, size=scaled, mode="bilinear", align_corners=False)[0].movedim(0, 2)
    y, x = (int(0.3 * (max(0, length - 513) + 1)) for length in scaled)
    for kind, tolerance in (("float32", 1e-3), ("uint8", 1.02)):
        view = view_of(image, mask, crop=513, interpolation=kind, rng=Chosen(scale, False, (0.3, 0.3)))
        seen = view.image[view.rows][:, view.columns].float()
        torch.testing.assert_close(seen, whole[y : y + 513, x : x + 513], atol=tolerance, rtol=0)


@settings(deadline=None)
@given(st.integers(1, 90), st.floats(0.5, 2.0))
def test_labels_are_those_of_torchs_nearest_but_where_its_floats_miss_a_whole_number(
    length: int, scale: float
) -> None:
    scaled = max(1, int(scale * length))
    mask = np.arange(length, dtype=np.uint8)[None].repeat(length, 0)
    view = view_of(mask[..., None].repeat(3, 2), mask, crop=180, rng=Chosen(scale, False))
    ours = view.mask[view.rows][0][view.columns].float()
    torchs = interpolate(torch.arange(length).float()[None, None], size=scaled, mode="nearest")[0, 0]
    whole = torch.arange(scaled) * length % scaled == 0
    assert torch.equal(ours[~whole], torchs[~whole])
    assert ((ours - torchs)[whole] <= 1).all() and ((ours - torchs) >= 0).all()


def test_padding_has_the_mean_colour_and_is_ignored() -> None:
    image, mask = picture(10, 20)
    view = view_of(image, mask, crop=40, scale=(1, 1), ignore_index=11, padding_label=11)
    target, inside = view.mask, inside_of(view)
    assert (target[:15] == 11).all() and (target[25:] == 11).all() and (target[15:25, 10:30] < 5).all()
    assert torch.equal(inside, target != 11)
    normal = normalise(view.image[None], view.rows[None], view.columns[None])[0]
    assert (normal[:, ~inside] == 0).all() and (normal[:, inside] != 0).all()


def test_padding_can_have_a_label_of_its_own_which_changes_nothing_inside() -> None:
    image, mask = picture(10, 20)
    ignored, labeled = (view_of(image, mask, crop=40, scale=(1, 1), padding_label=p) for p in (255, 0))
    inside = inside_of(ignored)
    assert (labeled.mask[~inside] == 0).all() and torch.equal(labeled.mask[inside], ignored.mask[inside])
    assert torch.equal(labeled.image, ignored.image) and torch.equal(inside_of(labeled), inside)


def test_an_image_without_a_mask_is_ignored_everywhere() -> None:
    view = view_of(picture(40, 40)[0], None)
    assert (view.mask == 255).all() and view.image.shape == (32, 32, 3)
    assert (view.image.dtype, view.mask.dtype, view.rows.dtype) == (torch.uint8, torch.uint8, torch.bool)


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


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_normalised_pixels_are_those_of_imagenet_networks(dtype: torch.dtype) -> None:
    image = torch.tensor([[[[255, 0, 128]]]], dtype=dtype)
    expected = [(255 / 255 - 0.485) / 0.229, (0 - 0.456) / 0.224, (128 / 255 - 0.406) / 0.225]
    assert normalise(image).flatten().tolist() == pytest.approx(expected, abs=1e-5)
    assert image.flatten().tolist() == [255, 0, 128]


def test_normalised_pictures_lie_in_memory_as_networks_want_them() -> None:
    normal = normalise(torch.zeros(2, 5, 7, 3, dtype=torch.uint8))
    assert normal.shape == (2, 3, 5, 7) and normal.is_contiguous(memory_format=torch.channels_last)


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
