from pathlib import Path

import pytest

from u2pl.trust.calibration import Calibration
from u2pl.trust.findings import LABELED, UNLABELED, VAL, Trust, threshold_in_words
from u2pl.trust.near_duplicates import Pair
from u2pl.trust.thresholds import ImageThreshold, PixelThreshold


def trust(**changed: object) -> Trust:
    given: dict[str, object] = {
        "run": "r",
        "folder": Path("check"),
        "classes": ("a", "b"),
        "labeled": 5,
        "unlabeled": 6,
        "validation": 20,
        "calibration": None,
        "image": None,
        "pixel": None,
        "novelty_threshold": None,
        "novel": (),
        "near_duplicates": (),
        "masks": (),
        "unreadable": (),
    }
    return Trust(**{**given, **changed})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("temperature", "before", "after", "said"),
    [
        (1.5, 0.1, 0.02, "it is too sure of itself"),
        (0.8, 0.1, 0.02, "it is less sure than it could be"),
        (1.1, 0.02, 0.03, "a temperature improves nothing here"),
        (1.1, 0.02, None, "one image alone cannot tell"),
    ],
)
def test_calibration_is_told_as_it_was_measured(
    temperature: float, before: float, after: float | None, said: str
) -> None:
    found = Calibration(temperature, before, after, 1, 1, [], 20, 100)
    words = trust(calibration=found).calibration_in_words()
    assert said in words and f"{100 * before:.1f} points" in words
    assert after is None or f"by {100 * after:.1f}" in words


def test_a_threshold_that_tells_nothing_names_no_picture() -> None:
    good = ImageThreshold(40, 26, 0.76, 0.49, 0.52, 60, 66, 55, 145)
    assert "below 40.0 % should be looked at" in threshold_in_words(good, 145)
    assert "76 %" in threshold_in_words(good, 145) and "49 % of all" in threshold_in_words(good, 145)
    poor = good._replace(spearman=0.1)
    assert "does not tell" in threshold_in_words(poor, 145)
    assert "With 1 validation image, fewer than 10" in threshold_in_words(None, 1)


def test_without_a_labelled_pixel_nothing_is_claimed() -> None:
    assert "nothing is known" in trust().calibration_in_words()
    assert "no threshold" in trust().pixel_in_words()
    some = trust(pixel=PixelThreshold(0.62, 0.5, 0.28, 0.45))
    assert "below 0.62" in some.pixel_in_words() and "45 % of them were wrong" in some.pixel_in_words()


def test_leaks_are_pairs_with_validation_images() -> None:
    leak = Pair("a", "b", (VAL, UNLABELED), 1.0, "")
    other = Pair("c", "d", (LABELED, UNLABELED), 1.0, "")
    assert trust(near_duplicates=(leak, other)).leaks == (leak,)
    assert "Of 20 validation images 1 has" in trust(near_duplicates=(leak, other)).leaks_in_words()
    assert "too good" in trust(near_duplicates=(leak,)).leaks_in_words()
    assert "0 have a near duplicate" in trust(near_duplicates=(other,)).leaks_in_words()
    many = tuple(leak._replace(image=str(k)) for k in range(10))
    assert "stands still" in trust(near_duplicates=many).leaks_in_words()
