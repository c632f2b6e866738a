"""Which negatives are drawn, how likely, and never which; the ramp and the distance of directions."""

from math import exp, log

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from u2pl.losses.debiased_negatives import Places, choose, draw, weights
from u2pl.losses.label_consistency import direction_distance
from u2pl.losses.ramp import sigmoid_ramp

RULES = ("debiased_other", "other_image", "uniform", "uncertainty", "debiased")


@given(seed=st.integers(0, 2**40), share=st.floats(0, 1), count=st.integers(1, 40))
@settings(max_examples=50, deadline=None)
def test_points_are_chosen_from_the_mask_each_once_and_all_where_there_are_too_few(
    seed: int, share: float, count: int
):
    mask = torch.rand(2, 4, 6, generator=torch.Generator().manual_seed(seed)) < share
    index, usable = choose(mask, count, [seed, seed + 1])
    assert index.shape == usable.shape == (2, min(count, 24))
    for b in range(2):
        chosen = index[b][usable[b]]
        assert len(chosen) == len(set(chosen.tolist())) == min(count, int(mask[b].sum()))
        assert mask[b].flatten()[chosen].all()


def test_chosen_points_are_uniform_and_those_of_an_image_depend_on_its_seed_alone():
    mask = torch.ones(1, 2, 5, dtype=torch.bool)
    mask[0, 0, 0] = False
    counts = np.zeros(10)
    for seed in range(600):
        counts[choose(mask, 3, [seed])[0].numpy()] += 1
    assert counts[0] == 0
    assert (np.abs(counts[1:] - 200) < 60).all()
    both = choose(mask.expand(2, -1, -1), 3, [7, 8])[0]
    assert torch.equal(both[1:], choose(mask, 3, [8])[0]) and not torch.equal(both[0], both[1])


def scene(seed: int, classes: int) -> tuple[torch.Tensor, torch.Tensor, Places, Places, torch.Tensor]:
    rng = np.random.default_rng(seed)
    soft = [torch.from_numpy(rng.dirichlet(np.full(classes, 0.3), n)) for n in (5, 12)]
    at = [Places(*(torch.from_numpy(rng.integers(0, high, n)) for high in (3, 12, 12))) for n in (5, 12)]
    return soft[0], soft[1], at[0], at[1], torch.from_numpy(rng.random(12) < 0.8)


@pytest.mark.parametrize("rule", RULES)
@given(seed=st.integers(0, 2**32), classes=st.sampled_from([2, 5, 19]))
@settings(max_examples=20, deadline=None)
def test_weights_follow_their_rule_pair_by_pair(rule: str, seed: int, classes: int):
    anchor, label, anchor_at, at, allowed = scene(seed, classes)
    found = weights(rule, anchor, label, anchor_at, at, allowed)
    for i in range(5):
        for j in range(12):
            own = anchor_at.image[i] == at.image[j]
            far = max(abs(anchor_at.row[i] - at.row[j]), abs(anchor_at.column[i] - at.column[j])) > 4
            if rule in ("debiased_other", "debiased"):
                weight = 1 - float(anchor[i] @ label[j])
            elif rule == "uncertainty":
                p = label[j].numpy()
                weight = 1 + float(sum(q * log(q) for q in p if q > 0)) / log(classes)
            else:
                weight = 1.0
            may = not own if rule in ("debiased_other", "other_image") else (not own or far)
            expected = weight if may and allowed[j] else 0
            assert found[i, j].item() == pytest.approx(expected, abs=1e-9)


def test_points_are_drawn_as_likely_as_they_weigh_and_those_of_no_weight_never():
    weight = torch.tensor([[0.0, 1.0, 3.0, 0.0, 4.0, 0.0], [2.0, 0.0, 0.0, 2.0, 0.0, 0.0]])
    index, possible = draw(weight, 4000, 5)
    assert possible.all() and index.shape == (2, 4000)
    for row, drawn in zip(weight, index, strict=True):
        share = torch.bincount(drawn, minlength=6) / 4000
        assert (share[row == 0] == 0).all()
        torch.testing.assert_close(share, row / row.sum(), atol=0.03, rtol=0)
    assert torch.equal(index, draw(weight, 4000, 5)[0]) and not torch.equal(index, draw(weight, 4000, 6)[0])


@pytest.mark.parametrize("row", [[0.0, 0.0, 0.0], [torch.nan, 1.0, 1.0]])
def test_an_anchor_without_points_is_told_of_and_breaks_nothing(row: list[float]):
    index, possible = draw(torch.tensor([row, [0.0, 1.0, 0.0]]), 7, 0)
    assert possible.tolist() == [False, True]
    assert (index[1] == 1).all() and (index >= 0).all() and (index < 3).all()


@pytest.mark.parametrize("place", [0.0, 1.0])
def test_the_ends_of_the_range_are_of_no_point_without_weight(place: float, monkeypatch: pytest.MonkeyPatch):
    """Just below 1 times the total may be rounded up to it."""
    monkeypatch.setattr(torch, "rand", lambda *size, **_: torch.full(size, place))
    index, possible = draw(torch.tensor([[0.0, 1e-30, 0.5, 0.0]]), 3, 0)
    assert possible.all() and (index == (2 if place else 1)).all()


@pytest.mark.parametrize("classes", [2, 19])
def test_directions_are_as_far_apart_as_2_less_2_cosines_and_only_the_first_learns(classes: int):
    torch.manual_seed(0)
    p, q = (torch.rand(2, classes, 3, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    found = direction_distance(p, q)
    torch.testing.assert_close(found, 2 - 2 * torch.cosine_similarity(p, q, dim=1))
    torch.testing.assert_close(direction_distance(3 * p, 0.2 * p), torch.zeros(2, 3, 3, dtype=torch.float64))
    found.sum().backward()
    assert p.grad.any() and q.grad is None


def test_a_ramp_rises_from_e_to_the_minus_5_to_1_and_none_is_1():
    values = [sigmoid_ramp(index, 10) for index in range(15)]
    assert values[0] == exp(-5) and values[10:] == [1.0] * 5
    assert values[:11] == sorted(set(values[:11]))
    assert values[5] == pytest.approx(exp(-1.25))
    assert sigmoid_ramp(0, 0) == 1.0
