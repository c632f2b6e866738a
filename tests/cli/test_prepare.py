import json
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from tiny import REPOSITORY, draw_tiny

Command = Callable[..., CompletedProcess[str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty project, and beside it the data set `tiny`."""
    shutil.copy(REPOSITORY / "params.yaml", tmp_path)
    (tmp_path / "dvc.yaml").touch()
    draw_tiny(tmp_path / "pictures")
    return tmp_path


def test_a_yaml_file_prepares_a_data_set_and_its_name_does_from_then_on(folder: Path, u2pl: Command) -> None:
    first = u2pl("prepare", "--dataset", "pictures/tiny.yaml", "--split", "1/4", cwd=folder)
    assert first.returncode == 0
    assert "checking images: 20 of 20" in first.stderr
    assert "4 labelled, 12 unlabelled, 4 validation" in first.stdout
    assert "Next: u2pl train --dataset tiny --split 1/4" in " ".join(first.stdout.split())
    again = u2pl("prepare", "--dataset", "tiny", "--split", "1/2", "--json", cwd=folder)
    manifest = json.loads(again.stdout)
    assert (manifest["split"], manifest["counts"]["labeled"]) == ("1/2", 8)
    assert Path(manifest["folder"], "labeled.txt").is_file()


def test_a_class_without_labels_is_marked(folder: Path, u2pl: Command) -> None:
    path = folder / "pictures/tiny.yaml"
    path.write_text(path.read_text().replace("- bar", "- bar\n- unicorn"))
    done = u2pl("prepare", "--dataset", str(path), "--split", "1/4", cwd=folder)
    assert "unicorn  (no label)" in done.stdout and "bar  (no label)" not in done.stdout


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--dataset", "shaeps"], 2, "Did you mean 'shapes'"),
        (["--dataset", "voc"], 2, "blender-1/8"),
        (["--dataset", "voc", "--split", "classic-1/16", "--seed", "3"], 2, "--source seeded"),
        (["--dataset", "voc", "--split", "classic-1/16-seeded", "--root", "."], 1, "no PASCAL VOC 2012"),
        (["--dataset", "cityscapes", "--split", "1/16"], 2, "registration"),
        (
            ["--dataset", "cityscapes", "--split", "1/16-seeded", "--root", "."],
            1,
            "leftImg8bit_trainvaltest.zip",
        ),
        (["--source", "unimtach"], 2, "Did you mean 'unimatch'"),
        (["--overlap"], 2, "--source FILE"),
        (["--split", "mine", "pictures/train.txt"], 2, "a list of labelled images --source"),
        (["--dataset", "camvid"], 2, "--root"),
        (["--dataset", "camvid", "--root", "nowhere"], 1, "There is no folder"),
        (["--split", "classic-1/16"], 2, "no pool"),
        (["--split", "some"], 2, "1/16"),
        (["--seed", "-1"], 2, "--seed"),
    ],
)
def test_a_mistake_is_one_sentence_and_a_status(
    folder: Path, u2pl: Command, words: list[str], status: int, said: str
) -> None:
    done = u2pl("prepare", *words, cwd=folder)
    assert done.returncode == status and said in done.stderr and "Traceback" not in done.stderr


def test_prepare_splits_is_another_name_for_it(folder: Path, u2pl: Command) -> None:
    done = u2pl("prepare-splits", "--dataset", "pictures/tiny.yaml", "--split", "full", cwd=folder)
    assert done.returncode == 0 and "16 labelled, 0 unlabelled" in done.stdout


def test_help_is_a_sentence_and_an_example(u2pl: Command) -> None:
    said = u2pl("prepare", "--help").stdout
    assert "Example: u2pl prepare --dataset voc --split classic-1/16" in said


def test_shares_of_both_sides_and_of_void_are_shown_and_what_is_odd_is_a_warning(
    folder: Path, u2pl: Command
) -> None:
    shutil.copy(folder / "pictures/images/03.png", folder / "pictures/images/17.png")
    path = folder / "pictures/tiny.yaml"
    path.write_text(path.read_text().replace("- bar", "- bar\n- unicorn"))
    done = u2pl("prepare", "--dataset", str(path), "--split", "1/4", cwd=folder)
    assert done.returncode == 0 and "% of train" in done.stdout and "% of val" in done.stdout
    void = next(line for line in done.stdout.splitlines() if "void" in line)
    assert void.split("│")[2:4] == ["        3.1 ", "      3.1 "]
    assert "Warning: Classes in no mask at all: unicorn." in done.stderr
    assert "trained on under another name: 1 (17 = 03)" in done.stderr
    again = u2pl("prepare", "--dataset", "tiny", "--split", "1/4", "--json", cwd=folder)
    assert len(json.loads(again.stdout)["warnings"]) == again.stderr.count("Warning: ") == 3
    found = u2pl("splits", "audit", cwd=folder)
    assert found.returncode == 1 and "another name: 1 (17 = 03)" in found.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--split", ""], "No split called ''"),
        (["--dataset", ""], "''"),
        (["--split", "1/4", "--seed", "9223372036854775808"], "not 9223372036854775808. Set --seed"),
    ],
)
def test_empty_words_and_seeds_out_of_range_are_a_sentence(
    folder: Path, u2pl: Command, words: list[str], said: str
) -> None:
    done = u2pl("prepare", *words, cwd=folder)
    assert done.returncode == 2 and said in done.stderr and len(done.stderr.splitlines()) == 1
