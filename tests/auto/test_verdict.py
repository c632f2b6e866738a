import json
import math
import statistics
from dataclasses import asdict

import pytest

from u2pl.auto.verdict import Scored, Verdict, judge

TITLES = {"suponly": "SupOnly", "u2pl": "U²PL", "cutmix": "CutMix"}


def verdict(numbers: dict[str, list[float]], unlabeled: int = 40, unit: str = "seed") -> Verdict:
    scored = [
        Scored(f"{method}-{k}", method, k, value, {"a": value + 10, "b": value - 10, "never": None})
        for method, values in numbers.items()
        for k, value in enumerate(values)
    ]
    return judge(
        scored, repeats=3, unit=unit, tried=len(numbers) - 1, unlabeled=unlabeled, val=30, title=TITLES
    )


def test_a_gain_is_told_seed_by_seed_and_class_by_class():
    found = verdict({"suponly": [50, 52, 51], "u2pl": [54, 57, 55], "cutmix": [51]})
    gains = [4, 5, 4]
    sd = statistics.stdev(gains)
    assert found.headline.startswith(
        f"The 40 unlabelled pictures gained +{statistics.mean(gains):.1f} ± {sd:.1f} mIoU"
    )
    assert (found.method, found.run, found.miou) == ("u2pl", "u2pl-1", 57)
    assert "hardly chance of the seeds" in found.doubt and "the same 30 pictures" in found.doubt
    assert "chosen of 2 methods by its first seed, which flatters: over the others it is +4.50" in found.doubt
    assert found.numbers["cutmix"][1:] == [None, None]
    a = found.classes[0]
    assert (a.name, a.base, a.ours, a.gain) == ("a", 61, pytest.approx(196 / 3), pytest.approx(13 / 3))
    assert a.sd == pytest.approx(sd)
    assert found.classes[2].gain is None


def test_a_loss_is_a_loss_and_the_baseline_is_taken():
    found = verdict({"suponly": [50, 52, 51], "u2pl": [48, 49, 47]})
    assert "gained nothing" in found.headline and "−3.0" in found.headline
    assert (found.method, found.run) == ("suponly", "suponly-1")


def test_a_gain_within_its_spread_may_be_chance():
    found = verdict({"suponly": [50, 52, 51], "u2pl": [54, 50, 52]}, unit="fold")
    assert "may be chance" in found.doubt and "3 folds" in found.doubt


def test_a_method_that_was_seen_once_beats_none_that_was_seen_three_times():
    found = verdict({"suponly": [50, 52, 51], "u2pl": [54, 57, 55], "cutmix": [70]})
    assert found.method == "u2pl"


def test_one_comparison_says_nothing_of_its_spread():
    found = verdict({"suponly": [50], "u2pl": [54]})
    assert "+4.0 mIoU" in found.headline
    assert "One seed alone" in found.doubt
    assert found.classes[0].sd is None


def test_two_seeds_are_few():
    assert "two are few" in verdict({"suponly": [50, 51], "u2pl": [54, 55.5]}).doubt


def test_before_there_is_a_comparison():
    assert "not known yet" in verdict({"suponly": [50]}).headline
    assert verdict({"u2pl": [50]}).run == "u2pl-0"
    nothing = verdict({})
    assert nothing.run is None and "nothing to say" in nothing.headline


def test_where_every_picture_has_a_label_nothing_could_be_gained():
    found = verdict({"suponly": [50, 51, 52]}, unlabeled=0)
    assert "Every picture has a label" in found.headline
    assert not math.isnan(found.miou or math.nan)
    assert [each.ours for each in found.classes] == [None, None, None]


@pytest.mark.parametrize("numbers", [{"suponly": [50], "u2pl": [54]}, {"suponly": [50]}, {}])
def test_a_verdict_can_be_written_down(numbers: dict[str, list[float]]):
    json.dumps(asdict(verdict(numbers)), allow_nan=False)


def test_folds_share_pictures_so_no_test_is_told_and_their_numbers_rank_no_networks():
    found = verdict({"suponly": [50, 40, 60], "u2pl": [54, 45, 64]}, unit="fold")
    assert "no test says" in found.doubt and "p =" not in found.doubt
    assert found.run == "u2pl-0"
    assert "chosen of" not in found.doubt


def test_a_class_that_some_folds_lack_is_told():
    scored = [
        Scored(f"{m}-{k}", m, k, 50.0, {"a": 50.0, "rare": 50.0 if k else None})
        for m in ("suponly", "u2pl")
        for k in range(3)
    ]
    words = {"repeats": 3, "tried": 1, "unlabeled": 9, "val": 9, "title": TITLES}
    assert "rare cannot be scored in every fold" in judge(scored, unit="fold", **words).doubt  # type: ignore[arg-type]
