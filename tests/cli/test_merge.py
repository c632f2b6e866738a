"""The loop with people: `u2pl suggest`, `u2pl prepare --merge`, `u2pl train --from`."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
import torch
from PIL import Image

from u2pl.data.prepared import open_split
from u2pl.project import Project

Command = Callable[..., CompletedProcess[str]]
RUN = "tiny-1_4-suponly-s0"


@pytest.fixture
def project(trained: Path, tmp_path: Path) -> Project:
    return Project(Path(shutil.copytree(trained, tmp_path / "project")))


def state(project: Project, run: str) -> dict[str, torch.Tensor]:
    return torch.load(project.runs / run / "weights.pt", weights_only=True)["state"]


@pytest.mark.slow
def test_a_round_of_the_loop(project: Project, u2pl: Command) -> None:
    assert u2pl("suggest", RUN, "-n", "2", cwd=project.root).returncode == 0
    masks = project.root / "suggestions" / RUN / "masks"
    first, second = sorted(masks.iterdir())
    with Image.open(project.root / f"pictures/masks/{first.name}") as picture:
        picture.save(first)
    done = u2pl("prepare", "--dataset", "tiny", "--merge", str(masks), cwd=project.root)
    assert done.returncode == 0, done.stderr
    assert f"onto split 1/4 (which {RUN} was trained on" in done.stdout
    assert "6 labelled, 10 unlabelled, 4 validation images" in done.stdout
    assert (
        f"Warning: 1 mask exactly as u2pl suggest wrote them, perhaps not looked at yet: {second.stem}."
        in done.stderr
    )
    follow = f"u2pl train --dataset tiny --split round-1 --method suponly --from {RUN}"
    assert f"Next: {follow}\n" in done.stdout
    # The model that the suggestion came from is as good as before.
    for words in (["predict", RUN, "pictures/images/00.png"], ["evaluate", RUN], ["suggest", RUN, "-n", "1"]):
        assert u2pl(*words, cwd=project.root).returncode == 0, words
    runs = json.loads(u2pl("runs", "--json", cwd=project.root).stdout)
    assert [(run["run"], run["state"]) for run in runs] == [(RUN, "done")], "and not stale"
    # Next round, with another method: its student and its teacher start from the last model, whose heads it shares.
    words = follow.replace("suponly --from", "mt --from").split()[1:]
    settings = ["--set", "lr=1e-12", "--set", "epochs=2", "--limit-batches", "1", "--name", "next", "--json"]
    trained = u2pl(*words, *settings, cwd=project.root)
    assert trained.returncode == 0, trained.stderr
    record = json.loads((project.runs / "next/run.json").read_text())
    assert record["recipe"]["weights"].startswith("sha256:") and record["split"] == "round-1"
    assert record["overrides"]["recipe.weights"] == f"runs/{RUN}/{RUN}.u2pl"
    before, after = state(project, RUN), state(project, "next")
    learned = [name for name in before if name.endswith(("weight", "bias"))]
    assert len(learned) > 20
    for name in learned:
        assert torch.allclose(before[name], after[name], atol=1e-6), name
    assert json.loads(trained.stdout)["labeled"] == 6
    # It is the run of those settings: once more it returns at once, and the next suggestion goes on with it.
    again = u2pl(*words, *settings, cwd=project.root)
    assert json.loads(again.stdout)["seconds"] == json.loads(trained.stdout)["seconds"]
    suggested = json.loads(u2pl("suggest", "-n", "1", "--json", cwd=project.root).stdout)
    assert (suggested["run"], suggested["split"], suggested["candidates"]) == ("next", "round-1", 10)
    # What the round after that is to be trained with is what this one was, but for where it starts.
    from u2pl_cli.prepare import _start

    method, *settings, start = _start(project, "next")[1:-1]
    assert (method, start) == ("mt", "--from")
    given = {"recipe.lr=1e-12", "recipe.epochs=2", "recipe.limit_batches=1"}
    assert {word.removeprefix("--set=") for word in settings} == given
    assert _start(project, "nobody") == []


@pytest.mark.slow
def test_a_merge_is_one_object_of_json(project: Project, u2pl: Command) -> None:
    folder = project.root / "corrected"
    folder.mkdir()
    name = open_split(project, "tiny", "1/4").unlabeled[0]
    Image.fromarray(np.ones((64, 64), np.uint8)).save(folder / f"{name}.png")
    words = ["prepare", "--dataset", "tiny", "--merge", str(folder), "--onto", "1/4", "--json"]
    done = u2pl(*words, cwd=project.root)
    facts = json.loads(done.stdout)
    assert facts["split"] == "round-1" and facts["counts"]["labeled"] == 5
    assert facts["round"]["taken"] == [name] and facts["round"]["onto"] == "1/4"
    assert (open_split(project, "tiny", "round-1").mask(name) == 1).all()


@pytest.mark.slow
def test_a_round_onto_a_fold_is_trained_and_scored_on_what_the_fold_is(
    project: Project, u2pl: Command
) -> None:
    words = ["prepare", "--dataset", "tiny"]
    assert u2pl(*words, "--split", "fold2of3", cwd=project.root).returncode == 0
    fold = open_split(project, "tiny", "fold2of3")
    folder = project.root / "corrected"
    folder.mkdir()
    shutil.copy(project.root / f"pictures/masks/{fold.labeled[0]}.png", folder)
    done = u2pl(*words, "--merge", "corrected", "--onto", "fold2of3", cwd=project.root)
    assert done.returncode == 0, done.stderr
    words = ["train", "--dataset", "tiny", "--split", "round-1", "--method", "suponly", "--name", "folded"]
    trained = u2pl(*words, "--set", "epochs=1", "--limit-batches", "1", "--json", cwd=project.root)
    assert trained.returncode == 0, trained.stderr
    assert open_split(project, "tiny", "round-1").val == fold.val
    scored = u2pl("evaluate", "folded", "--worst", "20", cwd=project.root)
    assert scored.returncode == 0, scored.stderr
    shown = {path.name.split(".")[0] for path in (project.runs / "folded").rglob("worst/*.png")}
    assert shown == set(fold.val)


@pytest.mark.slow
def test_what_cannot_be_merged_or_started_from_is_a_sentence(project: Project, u2pl: Command) -> None:
    folder = project.root / "corrected"
    folder.mkdir()
    Image.fromarray(np.full((64, 64), 9, np.uint8)).save(folder / "00.png")
    for words, said in (
        (["prepare", "--dataset", "tiny", "--merge", "nowhere"], "There is no folder nowhere"),
        (
            ["prepare", "--dataset", "tiny", "--merge", "corrected"],
            "mask value that is neither a class nor ignored",
        ),
        (["prepare", "--dataset", "tiny", "--onto", "1/4"], "--onto is for --merge"),
        (
            ["prepare", "--dataset", "tiny", "--merge", "corrected", "--seed", "1"],
            "--merge makes the lists itself",
        ),
        (["train", "--dataset", "tiny", "--from", "nobody"], "No run called 'nobody'"),
        (["train", "--dataset", "tiny", "--from", RUN, "--weights", "none"], "both say what to start from"),
        (["train", "--dataset", "shapes", "--from", RUN], "and 'shapes' has background"),
    ):
        done = u2pl(*words, cwd=project.root)
        assert done.returncode in (1, 2) and said in done.stderr and "Traceback" not in done.stderr, (
            done.stderr
        )


def test_a_round_has_the_settings_that_were_chosen_for_the_split_before_it(project: Project) -> None:
    """Another encoder could not start from the last model."""
    from u2pl_cli.prepare import _same_recipe

    from u2pl.settings import chosen_recipe_path

    assert not _same_recipe(project, "tiny", "full", "round-1")
    before, after = (chosen_recipe_path(project, "tiny", split) for split in ("full", "round-1"))
    before.parent.mkdir()
    before.write_text("crop: 64\n")
    assert _same_recipe(project, "tiny", "full", "round-1")
    assert after.read_text() == "crop: 64\n"
