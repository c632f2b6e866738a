"""`u2pl suggest`: the folder that is handed to whoever labels."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
from PIL import Image

from u2pl.annotations import exports
from u2pl.data.description import read_mask
from u2pl.data.prepared import description_of, open_split
from u2pl.exchange.model import Model
from u2pl.labeling import premasks
from u2pl.project import Project

Command = Callable[..., CompletedProcess[str]]
RUN = "tiny-1_4-suponly-s0"


@pytest.fixture
def project(trained: Path, tmp_path: Path) -> Project:
    return Project(Path(shutil.copytree(trained, tmp_path / "project")))


@pytest.mark.slow
def test_a_suggestion_is_a_folder_that_can_be_handed_over(project: Project, u2pl: Command) -> None:
    done = u2pl("suggest", "-n", "3", "--blank", "0.3", cwd=project.root)
    assert done.returncode == 0, done.stderr
    folder = project.root / "suggestions" / RUN
    assert f"Next: u2pl prepare --dataset tiny --merge suggestions/{RUN}/masks" in done.stdout
    assert "masks were not opened" in done.stdout, "all of tiny's images have masks"
    assert "by random: drawn by the seed" in done.stdout and "--by suggestive" in done.stdout
    names = (folder / "list.txt").read_text().split()
    split = open_split(project, "tiny", "1/4")
    assert len(names) == 3 and set(names) <= set(split.unlabeled)
    with (folder / "list.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == names and [row["rank"] for row in rows] == ["1", "2", "3"]
    assert all(row["why"].startswith("drawn at random; entropy ") for row in rows)
    assert all(row["rare_class"] in split.classes and row["rare_class"] in row["why"] for row in rows)
    model, description = Model.of_run(project, RUN), description_of(project, "tiny")
    blank = []
    for row in rows:
        name = row["name"]
        assert (folder / f"images/{name}.png").read_bytes() == split.images[name].read_bytes()
        mask = read_mask(folder / f"masks/{name}.png", premasks.readable(description))
        prediction = model.predict(split.images[name])
        assert float(row["entropy"]) == pytest.approx(prediction.entropy.mean(), abs=1e-3)
        certain = mask != 255
        assert (mask[certain] == prediction.classes[certain]).all()
        if certain.any() and not certain.all():
            assert prediction.entropy[certain].max() <= prediction.entropy[~certain].min() + 1e-4
        blank.append(~certain)
        with Image.open(folder / f"masks/{name}.png") as picture:
            assert picture.mode == "P"
    assert 0.28 < np.mean(blank) <= 0.3
    with Image.open(folder / "contact_sheet.png") as picture:
        assert picture.width > 900
    # What was written for CVAT reads as the same masks.
    (export,) = exports.find(folder / "cvat")
    classes = {name: index for index, name in enumerate(split.classes)}
    for picture, name in exports.match(export, split.images).names.items():
        written = read_mask(folder / f"masks/{name}.png", premasks.readable(description))
        assert (export.mask(picture, classes, (64, 64), 255) == written).all()
    tasks = json.loads((folder / "label_studio/tasks.json").read_text())
    assert [task["data"]["name"] for task in tasks] == names
    assert f"{folder}/images" in (folder / "label_studio/import.txt").read_text()
    # A second one leaves the first as it is, and is the same.
    again = u2pl("suggest", RUN, "-n", "3", "--blank", "0.3", "--json", cwd=project.root)
    facts = json.loads(again.stdout)
    assert facts["folder"] == f"{folder}-2" and [image["name"] for image in facts["images"]] == names
    assert facts["candidates"] == 12 and facts["candidates_have_masks"] and facts["by"] == "random"
    assert (Path(facts["folder"]) / "list.csv").read_bytes() == (folder / "list.csv").read_bytes()
    assert [path.name for path in (project.root / "suggestions").iterdir() if path.name.startswith(".")] == []
    # Another seed draws others; the model can be asked to choose, and then nothing is said of a draw.
    seeds = [u2pl("suggest", RUN, "-n", "3", "--seed", k, "--json", cwd=project.root) for k in "0123"]
    drawn = {tuple(image["name"] for image in json.loads(done.stdout)["images"]) for done in seeds}
    assert tuple(names) in drawn and len(drawn) > 1
    chosen = u2pl("suggest", RUN, "-n", "3", "--by", "suggestive", cwd=project.root)
    assert "the most similar choice for" in " ".join(chosen.stdout.split()) and "drawn" not in chosen.stdout


@pytest.mark.slow
def test_images_without_a_mask_are_the_candidates_where_there_are_some_and_damaged_ones_are_left_out(
    project: Project, u2pl: Command
) -> None:
    split = open_split(project, "tiny", "1/4")
    without = split.unlabeled[:4]
    for name in without:
        (project.root / f"pictures/masks/{name}.png").unlink()
    assert u2pl("prepare", "--dataset", "tiny", "--split", "mine", "--source",
                str(project.split("tiny", "1/4") / "labeled.txt"), cwd=project.root).returncode == 0  # fmt: skip
    run = project.runs / RUN
    run.joinpath("run.json").write_text(
        run.joinpath("run.json").read_text().replace('"split": "1/4"', '"split": "mine"')
    )
    split.images[without[0]].write_bytes(b"no picture")
    done = u2pl("suggest", RUN, "-n", "9", "--by", "entropy", "--out", "next", "--json", cwd=project.root)
    facts = json.loads(done.stdout)
    assert sorted(image["name"] for image in facts["images"]) == sorted(without[1:])
    assert not facts["candidates_have_masks"]
    entropies = [image["entropy"] for image in facts["images"]]
    assert entropies == sorted(entropies, reverse=True)
    assert [one["name"] for one in facts["unreadable"]] == [without[0]]
    assert f"{without[0]} cannot be read" in done.stderr


@pytest.mark.slow
def test_what_cannot_be_suggested_is_a_sentence(project: Project, u2pl: Command) -> None:
    taken = project.root / "taken"
    taken.mkdir()
    (taken / "mine.txt").touch()
    for words, said in (
        (["nobody"], "No run called 'nobody'"),
        ([RUN, "--by", "entrpy"], "Did you mean 'entropy'?"),
        ([RUN, "--out", "taken"], "taken is there already, and not empty"),
        ([RUN, "-n", "0"], "greater than or equal"),
    ):
        done = u2pl("suggest", *words, cwd=project.root)
        assert done.returncode in (1, 2) and said in done.stderr and "Traceback" not in done.stderr, (
            done.stderr
        )
    shutil.rmtree(project.runs)
    done = u2pl("suggest", cwd=project.root)
    assert done.returncode == 1 and "There is no finished run yet" in done.stderr
    assert not (project.root / "suggestions").exists()
    assert [path.name for path in taken.iterdir()] == ["mine.txt"]


def test_a_suggestion_that_was_cut_off_leaves_nothing(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    from u2pl.labeling import suggestion

    def cut_off(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(suggestion.annotations, "label_studio", cut_off)
    with pytest.raises(KeyboardInterrupt):
        suggestion.suggest(project, RUN, 2)
    assert list((project.root / "suggestions").iterdir()) == []
