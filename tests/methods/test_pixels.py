"""Where pixels stand, in every way to cut a batch into processes, groups and parts."""

import itertools

import pytest
import torch

from u2pl import processes
from u2pl.steps.micro_batch import MicroBatch
from u2pl.steps.pixels import Pixels

CPU = torch.device("cpu")
AREA = 3
WAYS = [
    (size, groups, images)
    for size, groups, images in itertools.product((1, 2, 4), (1, 2, 4), (1, 2, 4))
    if (groups % size == 0 or size % groups == 0) and size * images % groups == 0
]
"""Processes, groups, labelled images of each process."""


@pytest.fixture(params=WAYS, ids=lambda way: "{} processes, {} groups, {} images each".format(*way))
def way(request: pytest.FixtureRequest) -> tuple[int, int, int]:
    return request.param


def each_process(monkeypatch: pytest.MonkeyPatch, size: int, groups: int, images: int):
    for rank in range(size):
        monkeypatch.setattr(processes, "size", lambda: size)
        monkeypatch.setattr(processes, "rank", lambda rank=rank: rank)
        yield rank, Pixels(images, groups, AREA)


def expected_place(size: int, groups: int, images: int, stream: int, number: int, pixel: int) -> int:
    """Counted one by one: group after group, labelled images first."""
    each = size * images // groups
    in_order = itertools.product(range(groups), range(2), range(each), range(AREA))
    standing = [(s, group * each + image, p) for group, s, image, p in in_order]
    return standing.index((stream, number, pixel))


def test_every_pixel_has_the_place_that_counting_gives_it(
    way: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
):
    size, groups, images = way
    seen = []
    for rank, pixels in each_process(monkeypatch, *way):
        places = pixels.places(CPU).view(2, images, AREA)
        for stream, image, pixel in itertools.product(range(2), range(images), range(AREA)):
            wanted = expected_place(size, groups, images, stream, rank * images + image, pixel)
            assert places[stream, image, pixel] == wanted
        seen += places.flatten().tolist()
    assert sorted(seen) == list(range(2 * size * images * AREA))


def test_the_pixels_of_a_group_are_found_in_the_maps_and_in_the_row_of_all(
    way: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
):
    size, groups, images = way
    everything = torch.arange(2 * size * images * AREA)
    for group in range(groups):
        found = []
        for _, pixels in each_process(monkeypatch, *way):
            found += pixels.own(group, pixels.places(CPU), 0).tolist()
            here = pixels.of_group(group, everything)
        assert sorted(found) == everything[here].tolist()
        assert len(found) == len(everything) // groups


def test_a_pixel_of_a_group_is_found_in_one_part_of_one_process(
    way: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
):
    size, groups, images = way
    each = 2 * size * images * AREA // groups
    for group in range(groups):
        times = torch.zeros(each, dtype=torch.int64)
        for rank, pixels in each_process(monkeypatch, *way):
            places = pixels.places(CPU).view(2, images, AREA)
            at_once = max(1, images // 2)
            for first in range(0, images, at_once):
                mine = slice(first, first + at_once)
                micro = MicroBatch(rank * images + first, at_once, mine, False, size * images)
                row, here = pixels.rows(group, torch.arange(each), micro)
                times += here
                of_part = places[:, mine].flatten()
                assert (row >= 0).all() and (row < len(of_part)).all()
                assert torch.equal(of_part[row[here]], group * each + torch.arange(each)[here])
        assert (times == 1).all()


def test_the_masks_of_one_process_are_put_in_the_order_of_the_row_of_all():
    for groups in (1, 2, 4):
        pixels = Pixels(4, groups, AREA)
        values = torch.arange(2 * 4 * AREA)
        mask_CP = torch.stack([values % 2 == 0, values % 3 == 0])
        assert torch.equal(pixels.all_masks(mask_CP), mask_CP[:, pixels.places(CPU).argsort()])
        rows, masks, places = pixels.all_rows(values[:, None].float(), mask_CP)
        assert torch.equal(masks, pixels.all_masks(mask_CP))
        assert torch.equal(rows[:, 0].long(), values[pixels.places(CPU).argsort()])
        assert torch.equal(places, values)
