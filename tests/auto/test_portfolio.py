import pytest
from hypothesis import given
from hypothesis import strategies as st

from u2pl.auto.portfolio import (
    BASELINE,
    CANDIDATES,
    LEAST,
    LOOKS,
    MOST,
    RESERVE,
    Costs,
    Portfolio,
    cannot_win,
    choose,
    extended,
    least_seconds,
    work,
)

KNOWN = [BASELINE, *CANDIDATES, "mt"]
SECONDS = st.floats(10, 10**6)
COSTS = st.builds(Costs, st.floats(0.001, 5), st.floats(0.01, 60), st.floats(1, 20))


def chosen(seconds: float, costs: Costs, **changes: object) -> Portfolio | None:
    words: dict[str, object] = {"device": "cpu", "repeats": 3, "unlabeled": 100, "known": KNOWN, **changes}
    return choose(seconds, costs, **words)  # type: ignore[arg-type]


@given(SECONDS, COSTS)
def test_what_is_chosen_fits_the_budget_whichever_method_is_repeated(seconds: float, costs: Costs):
    found = chosen(seconds, costs)
    if found is None:
        assert seconds < least_seconds(costs, device="cpu", unlabeled=100, known=KNOWN)
        return
    assert LEAST["cpu"] <= found.steps <= MOST["cpu"]
    units, runs = work(found.methods, found.repeats)
    spent = units * found.steps * costs.step + runs * (costs.start + LOOKS * costs.look)
    assert spent <= seconds * (1 - RESERVE)


@given(SECONDS, COSTS)
def test_a_larger_budget_never_allows_less(seconds: float, costs: Costs):
    small, large = chosen(seconds, costs), chosen(2 * seconds, costs)
    if small is not None:
        assert large is not None
        assert (len(large.methods), large.repeats) >= (len(small.methods), small.repeats)


def test_a_gain_is_seen_three_times_before_another_method_is_tried():
    costs = Costs(step=0.3, look=5)
    found = [chosen(60.0 * minutes, costs) for minutes in (5, 15, 30, 60, 240)]
    shapes = [(len(each.methods) - 1, each.repeats) for each in found if each]
    assert shapes == sorted(shapes, key=lambda shape: (shape[1] == 3, shape))
    assert shapes[0] == (1, 1) and shapes[-1] == (4, 3)


def test_without_unlabelled_images_the_baseline_is_all_there_is_to_train():
    found = chosen(3600, Costs(0.3, 5), unlabeled=0)
    assert found and found.methods == (BASELINE,)


def test_there_are_no_more_folds_than_there_are():
    found = chosen(10**6, Costs(0.3, 5), repeats=2)
    assert found and found.repeats == 2


@given(SECONDS, SECONDS, COSTS)
def test_what_a_larger_budget_adds_fits_into_it_and_keeps_what_was_done(
    first: float, more: float, costs: Costs
):
    done = chosen(first, costs)
    if done is None:
        return
    found = extended(done, more, costs, repeats=3, unlabeled=100, known=KNOWN)
    assert found.methods[: len(done.methods)] == done.methods
    assert found.repeats >= done.repeats and found.steps == done.steps
    (units, runs), (had, ran) = work(found.methods, found.repeats), work(done.methods, done.repeats)
    added = (units - had) * done.steps * costs.step + (runs - ran) * (costs.start + LOOKS * costs.look)
    assert found == done or added <= more


RIVAL = {"suponly": [(2, 30.0), (4, 40.0), (6, 45.0), (8, 48.0), (10, 50.0)]}


@pytest.mark.parametrize(
    ("own", "end"),
    [
        ([(2, 10.0), (4, 20.0), (6, 21.0)], 33.0),  # its own slope: 21 + 4 x 2.75 + 1
        ([(2, 38.0), (4, 38.0), (6, 38.0)], 44.0),  # as the rival since epoch 6: 38 + 5 + 1
        ([(4, 44.0), (6, 46.0), (8, 46.0)], 49.0),  # 46 + 2 + 1
        ([(2, 10.0), (4, 30.0), (6, 40.0)], None),  # 40 + 4 x 7.5
        ([(2, 44.0), (4, 44.0), (6, 44.0)], None),  # as the rival: 44 + 5 + 1
        ([(2, 1.0), (4, 1.0)], None),  # too few looks
        ([(1, 1.0), (2, 1.0), (3, 1.0)], None),  # too early
        ([(6, 1.0), (8, 1.0), (10, 1.0)], None),  # it has ended
    ],
)
def test_what_cannot_win_rises_too_slowly_by_its_own_slope_and_by_that_of_others(
    own: list[tuple[int, float]], end: float | None
):
    found = cannot_win(own, RIVAL, 10)
    if end is None:
        assert found is None
    else:
        assert found and f"end at {end:.1f}" in found and "suponly has 50.0" in found


def test_a_teacher_that_lags_at_first_is_not_stopped():
    """What happened on photographs of houses: CutMix was as far behind at half of its epochs, and won."""
    suponly = [(1, 31.1), (2, 39.7), (3, 41.4), (4, 39.7), (5, 43.2), (6, 42.9), (7, 48.4), (8, 47.5)]
    cutmix = [(1, 31.1), (2, 39.7), (3, 35.8), (4, 42.3), (5, 45.6), (6, 47.4), (7, 49.3), (8, 50.2)]
    for seen in range(1, 9):
        assert cannot_win(cutmix[:seen], {"suponly": suponly}, 8) is None


def test_a_rival_that_is_not_as_far_proves_nothing():
    own = [(4, 20.0), (6, 20.0), (8, 20.0)]
    assert cannot_win(own, {"u2pl": [(6, 60.0)]}, 10) is None
    assert cannot_win(own, {"u2pl": [(8, 60.0)]}, 10)
    assert cannot_win(own, {"u2pl": []}, 10) is None
