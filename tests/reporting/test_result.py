"""One finished run, as reports read it."""

from pathlib import Path

import pytest
from fabricated import write_result
from PIL import Image

from u2pl.errors import UserError
from u2pl.reporting.results import Result

CONFUSION = "truth / prediction,ground,square\nground,30,2\nsquare,4,5\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_result(tmp_path / "run", last=60.0, split="1/8", method="u2pl")
    return tmp_path / "run"


def read(folder: Path) -> Result:
    result = Result.read(folder)
    assert result is not None
    return result


def test_the_confusion_matrix_has_a_row_a_true_class(folder: Path) -> None:
    (folder / "confusion.csv").write_text(CONFUSION)
    found = read(folder).confusion
    assert found is not None and found.loc["ground", "square"] == 2 and found.loc["square", "ground"] == 4
    assert found.index.name == "truth" and found.columns.name == "prediction"
    assert found.to_numpy().sum() == 41


def test_a_result_of_an_earlier_version_has_none(folder: Path) -> None:
    (folder / "confusion.csv").unlink()
    assert read(folder).confusion is None


def test_a_damaged_one_is_a_sentence_when_it_is_asked_for(folder: Path) -> None:
    (folder / "confusion.csv").write_text(CONFUSION[:-9])
    result = read(folder)
    with pytest.raises(UserError, match=r"confusion\.csv is damaged"):
        _ = result.confusion


def test_entropy_is_a_picture_like_others_and_images_without_it_are_shown_too(folder: Path) -> None:
    before = read(folder).images
    for path in (folder / "samples").glob("*.entropy.png"):
        path.unlink()
    assert before and read(folder).images == before
    assert not read(folder).sample(before[0], "entropy").exists()
    Image.new("L", (8, 8)).save(folder / "samples" / f"{before[0]}.entropy.png")
    assert read(folder).sample(before[0], "entropy").is_file()
