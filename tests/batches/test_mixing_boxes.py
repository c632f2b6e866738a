"""Where images are mixed: boxes of a share of the area, toggled boxes, regions of a class."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from u2pl.batches.mixing import Box, class_region, of_classes, proportional_box, toggled_boxes

draws = st.floats(0, 1, exclude_max=True)
sides = st.integers(1, 90)


def sizes(box: Box) -> tuple[int, int]:
    rows, columns = box
    return rows.stop - rows.start, columns.stop - columns.start


# ---- boxes of a share of the area ------------------------------------------------------------------------


@given(
    share=st.floats(0.01, 1),
    height=sides,
    width=sides,
    aspect=draws,
    place=st.tuples(draws, draws),
    shrink=st.floats(0, 1),
)
@example(share=0.5, height=33, width=47, aspect=0.0, place=(0.0, 1 - 2**-53), shrink=1.0)
@settings(max_examples=200, deadline=None)
def test_a_box_lies_inside_the_image_and_has_its_share_of_the_area_but_for_rounding(
    share: float, height: int, width: int, aspect: float, place: tuple[float, float], shrink: float
) -> None:
    box = proportional_box(share, height, width, aspect, place, shrink=shrink)
    for side, length in zip(box, (height, width), strict=True):
        assert 0 <= side.start <= side.stop <= length
    h, w = sizes(box)
    # Each side is rounded by half a pixel at most.
    assert abs(h * w - share * shrink**2 * height * width) <= (height + width) / 2 + 0.25 + 1e-9


def test_with_aspect_0_a_box_is_as_high_as_the_image_and_with_aspect_1_as_wide() -> None:
    assert sizes(proportional_box(0.5, 40, 60, 0.0, (0.3, 0.3))) == (40, 30)
    assert sizes(proportional_box(0.5, 40, 60, 1.0, (0.3, 0.3))) == (20, 60)
    assert sizes(proportional_box(0.25, 40, 60, 0.5, (0.3, 0.3))) == (20, 30)


def test_a_share_of_1_is_the_whole_image() -> None:
    for aspect in (0.0, 0.4, 1.0):
        assert proportional_box(1.0, 40, 60, aspect, (0.7, 0.2)) == (slice(0, 40), slice(0, 60))


def test_shrinking_a_box_shortens_both_sides() -> None:
    assert sizes(proportional_box(0.25, 400, 600, 0.5, (0, 0), shrink=0.5)) == (100, 150)
    assert sizes(proportional_box(0.5, 400, 600, 0.0, (0, 0), shrink=0.25)) == (100, 75)
    assert sizes(proportional_box(0.5, 40, 60, 0.3, (0, 0), shrink=0.0)) == (0, 0)


def test_a_box_that_is_enlarged_ends_at_the_image() -> None:
    assert proportional_box(0.5, 40, 60, 0.0, (0.5, 0.5), shrink=1.5) == (slice(0, 40), slice(8, 53))


@given(aspect=draws, height=sides, width=sides)
@settings(max_examples=60, deadline=None)
def test_a_box_lies_at_the_first_place_with_draws_of_0_and_at_the_last_with_draws_just_below_1(
    aspect: float, height: int, width: int
) -> None:
    just_below_1 = 1 - 2**-24
    first = proportional_box(0.4, height, width, aspect, (0, 0))
    last = proportional_box(0.4, height, width, aspect, (just_below_1, just_below_1))
    assert (first[0].start, first[1].start) == (0, 0)
    assert (last[0].stop, last[1].stop) == (height, width)
    assert sizes(first) == sizes(last)


def test_the_first_place_moves_a_box_down_and_the_second_one_to_the_right() -> None:
    assert proportional_box(0.25, 40, 60, 0.5, (0.5, 0)) == (slice(10, 30), slice(0, 30))
    assert proportional_box(0.25, 40, 60, 0.5, (0, 0.5)) == (slice(0, 20), slice(15, 45))


def test_ratios_of_the_sides_are_log_uniform() -> None:
    logs = []
    for aspect in (np.arange(1000) + 0.5) / 1000:
        h, w = sizes(proportional_box(0.5, 10_000, 10_000, aspect, (0, 0)))
        logs.append(math.log2(h / w))
    np.testing.assert_allclose(sorted(logs), np.linspace(-0.999, 0.999, 1000), atol=1e-3)


# ---- toggled boxes ---------------------------------------------------------------------------------------


def drawn_toggled(count: int, height: int, width: int, seed: int, boxes: int) -> list[list[list[bool]]]:
    """CPS's masks, pixel by pixel: those inside an odd number of boxes."""
    generator = torch.Generator().manual_seed(seed)
    masks = []
    for image in torch.rand(count, boxes, 4, generator=generator).double().numpy():
        inside = [[False] * width for _ in range(height)]
        for draw, aspect, down, right in image:
            area = 0.25 + draw / 4
            h = round(math.exp(aspect * math.log(area)) / math.sqrt(boxes) * height)
            w = round(area / math.exp(aspect * math.log(area)) / math.sqrt(boxes) * width)
            top, left = round((height - h) * down), round((width - w) * right)
            for y in range(top, top + h):
                for x in range(left, left + w):
                    inside[y][x] = not inside[y][x]
        masks.append(inside)
    return masks


@given(seed=st.integers(0, 10**6), height=st.integers(4, 40), width=st.integers(4, 40))
@settings(max_examples=60, deadline=None)
def test_pixels_of_an_odd_number_of_boxes_are_inside(seed: int, height: int, width: int) -> None:
    found = toggled_boxes(2, height, width, torch.Generator().manual_seed(seed))
    assert found.dtype == torch.bool and found.shape == (2, height, width)
    assert found.tolist() == drawn_toggled(2, height, width, seed, 3)


@pytest.mark.parametrize("boxes", [1, 2, 5])
def test_there_may_be_more_or_fewer_boxes(boxes: int) -> None:
    found = toggled_boxes(3, 30, 40, torch.Generator().manual_seed(1), boxes=boxes)
    assert found.tolist() == drawn_toggled(3, 30, 40, 1, boxes)


def test_three_boxes_cover_at_most_half_of_an_image_and_less_where_they_overlap() -> None:
    area = toggled_boxes(2000, 120, 90, torch.Generator().manual_seed(0)).float().mean(dim=(1, 2))
    assert area.max() < 0.51
    assert area.min() < 0.25
    assert 0.25 < area.mean() < 0.375


def test_a_single_box_covers_a_quarter_to_half_of_an_image() -> None:
    area = toggled_boxes(2000, 120, 90, torch.Generator().manual_seed(0), boxes=1).float().mean(dim=(1, 2))
    assert area.min() > 0.24 and area.max() < 0.51
    assert area.mean() == pytest.approx(0.375, abs=0.01)


def test_toggled_boxes_differ_from_image_to_image_and_lie_everywhere() -> None:
    inside = toggled_boxes(1000, 16, 16, torch.Generator().manual_seed(0))
    assert len(inside.flatten(1).unique(dim=0)) > 990
    assert inside.any(0).all() and not inside.all(0).any()


def test_equal_generators_give_equal_toggled_boxes_and_the_first_do_not_depend_on_their_number() -> None:
    few, many = (toggled_boxes(n, 32, 48, torch.Generator().manual_seed(7)) for n in (2, 5))
    assert torch.equal(few, many[:2])


# ---- regions of a class ----------------------------------------------------------------------------------


def pieces(label_HW: NDArray[np.integer], wanted: int) -> list[set[tuple[int, int]]]:
    """Connected pieces, corners included, in order of their first pixels, row after row."""
    height, width = label_HW.shape
    left = {(y, x) for y in range(height) for x in range(width) if label_HW[y, x] == wanted}
    found = []
    for start in sorted(left):
        if start not in left:
            continue
        piece, edge = {start}, [start]
        left.remove(start)
        while edge:
            y, x = edge.pop()
            around = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= around
            piece |= around
            edge += around
        found.append(piece)
    return found


def bounds(piece: set[tuple[int, int]]) -> Box:
    ys, xs = [y for y, _ in piece], [x for _, x in piece]
    return slice(min(ys), max(ys) + 1), slice(min(xs), max(xs) + 1)


@given(
    seed=st.integers(0, 10**6),
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    density=st.sampled_from([0.1, 0.3, 0.5, 1.0]),
    least=st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.5]),
    pick=draws,
)
@settings(max_examples=200, deadline=None)
def test_a_region_is_the_box_around_a_large_piece_of_the_class(
    seed: int, size: tuple[int, int], density: float, least: float, pick: float
) -> None:
    rng = np.random.default_rng(seed)
    label = np.where(rng.random(size) < density, 2, rng.integers(0, 2, size)).astype(np.uint8)
    large = [piece for piece in pieces(label, 2) if len(piece) > least]
    found = class_region(label, 2, least, pick)
    assert found == (bounds(large[int(pick * len(large))]) if large else None)


PIECES = np.array(
    [
        [1, 1, 0, 0, 0, 0, 1],
        [1, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 1, 0, 0, 0],
        [0, 0, 0, 0, 1, 0, 0],
        [0, 0, 0, 0, 0, 1, 0],
        [1, 1, 0, 0, 0, 0, 1],
    ],
    dtype=np.uint8,
)
"""Of class 1: pieces of 3, 1, 4 and 2 pixels, the one of 4 connected at corners."""
THREE, ONE, FOUR, TWO = (
    (slice(0, 2), slice(0, 2)),
    (slice(0, 1), slice(6, 7)),
    (slice(2, 6), slice(3, 7)),
    (slice(5, 6), slice(0, 2)),
)


def chosen(least: float, wanted: int = 1) -> list[Box]:
    """All boxes that a pick can give, in their order."""
    boxes: list[Box] = []
    for pick in np.arange(0, 1, 0.01):
        box = class_region(PIECES, wanted, least, float(pick))
        if box is not None and box not in boxes:
            boxes.append(box)
    return boxes


@pytest.mark.parametrize(
    ("least", "boxes"),
    [
        (0, [THREE, ONE, FOUR, TWO]),
        (1, [THREE, FOUR, TWO]),
        (2, [THREE, FOUR]),
        (2.5, [THREE, FOUR]),
        (3, [FOUR]),
        (4, []),
    ],
)
def test_a_piece_must_exceed_the_least_number_of_pixels(least: float, boxes: Sequence[Box]) -> None:
    assert chosen(least) == boxes


def test_every_large_piece_is_picked_equally_often() -> None:
    picked = [class_region(PIECES, 1, 1, (k + 0.5) / 300) for k in range(300)]
    assert [picked.count(box) for box in (THREE, ONE, FOUR, TWO)] == [100, 0, 100, 100]
    assert class_region(PIECES, 1, 1, 1 - 2**-24) == TWO


def test_a_class_that_is_nowhere_has_no_region() -> None:
    assert class_region(PIECES, 2, 0, 0.5) is None
    assert class_region(np.zeros((3, 3), dtype=np.int64), 1, 0, 0.0) is None


def test_a_class_that_is_everywhere_has_the_whole_image_as_its_region() -> None:
    assert class_region(np.full((4, 6), 3), 3, 23, 0.9) == (slice(0, 4), slice(0, 6))
    assert class_region(np.full((4, 6), 3), 3, 24, 0.9) is None


def test_class_0_is_a_class_like_any_other() -> None:
    assert chosen(0, wanted=0) == [(slice(0, 6), slice(0, 7))]


# ---- pixels of some classes ------------------------------------------------------------------------------


@given(seed=st.integers(0, 10**6), images=st.integers(1, 3), draws=st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_pixels_that_have_one_of_their_own_images_classes_are_found(
    seed: int, images: int, draws: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.tensor([0, 1, 2, 3, 255])[torch.randint(5, (images, 4, 5), generator=generator)]
    classes = torch.randint(4, (images, draws), generator=generator)
    found = of_classes(mask, classes)
    assert found.dtype == torch.bool and found.shape == mask.shape
    for b, y, x in np.ndindex(*mask.shape):
        assert found[b, y, x] == (int(mask[b, y, x]) in classes[b].tolist())


def test_drawing_a_class_twice_changes_nothing() -> None:
    mask = torch.arange(6).view(1, 2, 3) % 3
    once, twice = (of_classes(mask, torch.tensor([drawn])) for drawn in ([1], [1, 1]))
    assert torch.equal(once, mask == 1) and torch.equal(once, twice)
