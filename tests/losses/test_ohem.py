"""Hard example mining against the rule written out pixel by pixel, in float64."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from u2pl.losses import ohem


def theirs(certainty: list[float], known: list[bool], least: float, count: int) -> set[int]:
    """Which pixels count, as the released code decides: `count` is the number of pixels to keep at least."""
    labeled = {k for k, there in enumerate(known) if there}
    if count > len(labeled):
        return labeled
    values = sorted(q if there else 1.0 for q, there in zip(certainty, known, strict=True))
    theta = max(least, values[min(len(values), count) - 1])
    return {k for k in labeled if certainty[k] <= theta}


@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 0.2, 0.5, 0.7, 0.7000001, 0.9, 1.0]), st.booleans()), min_size=1
    ),
    st.floats(0.01, 1),
    st.sampled_from([0.5, 0.7, 0.95]),
)
def test_the_pixels_that_count_are_those_of_the_rule(
    pixels: list[tuple[float, bool]], kept: float, least: float
):
    """With ties at the threshold, few labels, and none."""
    certainty, known = zip(*pixels, strict=True)
    q, there = torch.tensor(certainty, dtype=torch.float64), torch.tensor(known)
    q = q.where(there, 1)
    theta = ohem.threshold(q, there, least=least, kept=kept)
    assert theta.shape == ()
    found = set(ohem.hard(q, there, theta).nonzero()[:, 0].tolist())
    assert found == theirs(list(certainty), list(known), least, max(1, round(kept * len(pixels))))


def test_the_floor_of_the_released_code_is_a_share_of_two_of_its_crops():
    q = torch.linspace(0.8, 1, 2 * 769 * 769)
    theta = ohem.threshold(q, torch.ones_like(q, dtype=torch.bool), least=0.7, kept=0.0845507)
    assert ohem.hard(q, torch.ones_like(q, dtype=torch.bool), theta).sum() == 100_000


def test_where_few_have_a_label_all_count():
    q, known = torch.full((100,), 0.99), torch.zeros(100, dtype=torch.bool)
    known[:9] = True
    theta = ohem.threshold(q.where(known, 1), known, least=0.7, kept=0.1)
    assert math.isinf(theta) and ohem.hard(q, known, theta).sum() == 9
    known[9] = True
    assert not ohem.threshold(q.where(known, 1), known, least=0.7, kept=0.1).isinf()


@pytest.mark.parametrize("kept", [0.01, 0.5, 1.0])
def test_a_network_that_diverges_has_no_pixel_left_out(kept: float):
    q, known = torch.full((10,), torch.nan), torch.ones(10, dtype=torch.bool)
    assert ohem.hard(q, known, ohem.threshold(q, known, least=0.7, kept=kept)).all()
