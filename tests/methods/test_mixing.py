import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from u2pl.batches.mixing import half_area_boxes, paste
from u2pl.steps.whole_batch import WholeBatch


def paste_neighbor(inside: Tensor, batch: Tensor, groups: int = 1) -> Tensor:
    """As CutMix does."""
    return paste(inside, WholeBatch(groups).following(batch), batch)


def extent(inside_HW: Tensor) -> tuple[int, int]:
    """Height and width of the smallest box around all that is True."""
    return int(inside_HW.any(1).sum()), int(inside_HW.any(0).sum())


@given(st.integers(0, 10**6), st.integers(8, 70), st.integers(8, 70))
@settings(max_examples=60, deadline=None)
def test_a_box_is_a_full_rectangle_of_about_half_the_area_and_wider_than_half(
    seed: int, height: int, width: int
):
    inside = half_area_boxes(3, height, width, torch.Generator().manual_seed(seed))
    assert inside.shape == (3, height, width)
    for box in inside:
        h, w = extent(box)
        assert box.sum() == h * w
        assert width / 2 < w <= width
        assert abs(h * w - height * width / 2) <= w / 2


def test_boxes_differ_from_image_to_image_and_lie_everywhere():
    inside = half_area_boxes(300, 32, 32, torch.Generator().manual_seed(0))
    assert len(inside.flatten(1).unique(dim=0)) > 100
    assert inside.any(0).all()
    assert inside.float().mean() == pytest.approx(0.5, abs=0.01)


def test_equal_generators_give_equal_boxes():
    first, second = (half_area_boxes(2, 32, 48, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("shape", [(3, 4, 5), (3, 2, 4, 5)])
def test_inside_its_box_an_image_shows_the_next_one_and_the_last_one_shows_the_first(shape: tuple[int, ...]):
    generator = torch.Generator().manual_seed(0)
    inside = torch.rand(3, 4, 5, generator=generator) < 0.5
    batch = torch.arange(torch.Size(shape).numel()).reshape(shape)
    mixed = paste_neighbor(inside, batch)
    for b in range(3):
        for y in range(4):
            for x in range(5):
                source = (b + 1) % 3 if inside[b, y, x] else b
                assert torch.equal(mixed[b, ..., y, x], batch[source, ..., y, x])


def test_no_group_sees_another_groups_images():
    batch = torch.arange(6.0)[:, None, None].expand(6, 4, 5)
    everywhere = torch.ones(6, 4, 5, dtype=torch.bool)
    partners = {
        groups: paste_neighbor(everywhere, batch, groups)[:, 0, 0].tolist() for groups in (1, 2, 3, 6)
    }
    assert partners == {
        1: [1, 2, 3, 4, 5, 0],
        2: [1, 2, 0, 4, 5, 3],
        3: [1, 0, 3, 2, 5, 4],
        6: [0, 1, 2, 3, 4, 5],
    }


def test_groups_are_mixed_as_if_each_were_a_batch():
    generator = torch.Generator().manual_seed(0)
    batch, inside = torch.rand(6, 3, 8, 8, generator=generator), half_area_boxes(6, 8, 8, generator)
    alone = [paste_neighbor(i, b) for i, b in zip(inside.chunk(3), batch.chunk(3), strict=True)]
    assert torch.equal(paste_neighbor(inside, batch, 3), torch.cat(alone))
