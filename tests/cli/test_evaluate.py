import csv
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from u2pl_cli.app import run

from u2pl.data.pictures import read_image
from u2pl.data.prepared import open_split
from u2pl.files import read_json
from u2pl.inference import scores
from u2pl.inference.evaluator import evaluate
from u2pl.project import Project
from u2pl.runs import results
from u2pl.runs.records import KINDS
from u2pl.runs.results import load_network

RUN = "tiny-1_4-suponly-s0"

Evaluate = Callable[..., str]


@pytest.fixture
def project(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A copy of the project with one finished run; commands run inside it."""
    root = Path(shutil.copytree(trained, tmp_path / "project"))
    monkeypatch.chdir(root)
    monkeypatch.delenv("U2PL_ROOT", raising=False)
    return Project(root)


@pytest.fixture
def evaluated(project: Project, capsys: pytest.CaptureFixture[str]) -> Evaluate:
    """What `u2pl evaluate` prints for the run, without line breaks."""

    def evaluated(*words: str) -> str:
        assert run(["evaluate", RUN, *words]) == 0
        return re.sub(r"\s+", " ", capsys.readouterr().out)

    return evaluated


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def table(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


@pytest.mark.slow
def test_an_evaluation_leaves_its_numbers_as_tables_beside_the_metrics(project: Project, evaluated: Evaluate):
    metrics = json.loads(evaluated("--into", "results/table1", "--json"))
    folder = project.runs / RUN / "evaluations" / "whole"
    written, copied = contents(folder), contents(project.root / "results" / "table1" / RUN)
    del written["stamp.json"]  # what the evaluation is true of, for whoever wants to take it over
    assert copied.keys() - written.keys() == {"history.csv", "scores.json"}
    assert all(copied[name] == content for name, content in written.items())
    # What DVC shows.
    results = project.root / "results" / "table1" / RUN
    assert read_json(results / "scores.json") == {
        "miou": metrics["miou"]["reported"],
        "last": metrics["miou"]["last"],
        "best": metrics["miou"]["best"],
    }
    shares = pd.read_csv(results / "shares.csv").to_dict("records")
    header, *rows = table(results / "confusion.csv")
    assert [(row["truth"], row["prediction"], row["pixels"]) for row in shares] == [
        (truth, prediction, int(count))
        for truth, *counts in rows
        for prediction, count in zip(header[1:], counts, strict=True)
    ]
    for truth, *counts in rows:
        total = sum(float(row["percent"]) for row in shares if row["truth"] == truth)
        assert total == pytest.approx(100 if any(map(int, counts)) else 0, abs=0.05)
    assert {"metrics.json", "iou.csv", "confusion.csv"} < written.keys() and len(written) == 4 + 4 * len(
        KINDS
    )
    assert read_json(folder / "metrics.json") == metrics
    assert contents(project.runs / RUN / "samples") == contents(folder / "samples")

    network, recipe = load_network(project.runs / RUN, 4)
    split = open_split(project, "tiny", "1/4")
    expected = evaluate(network, split, recipe).confusion
    header, *rows = table(folder / "confusion.csv")
    assert header == ["truth / prediction", "ground", "square", "disc", "bar"] == [header[0], *split.classes]
    assert [name for name, *_ in rows] == split.classes
    assert [[int(value) for value in row] for _, *row in rows] == expected.tolist()
    header, *rows = table(folder / "iou.csv")
    assert header == ["class", "iou", "pixels"]
    masks = np.stack([split.mask(name) for name in split.val])
    assert [int(row[2]) for row in rows] == [(masks == c).sum() for c in range(4)]
    assert [float(row[1]) for row in rows] == scores.iou(expected).tolist()
    assert {name: float(value) for name, value, _ in rows} == metrics["iou"]


@pytest.mark.slow
def test_what_training_found_at_its_end_is_what_an_evaluation_finds(project: Project, evaluated: Evaluate):
    folder = project.runs / RUN / "evaluations" / "whole"
    kept = contents(folder)
    evaluated()
    assert contents(folder) == kept


@pytest.mark.slow
def test_a_table_takes_over_what_is_known_and_measures_what_has_changed(
    project: Project, evaluated: Evaluate, monkeypatch: pytest.MonkeyPatch
):
    measured = []
    real = results.evaluate
    monkeypatch.setattr(results, "evaluate", lambda *a, **k: measured.append(a) or real(*a, **k))
    first = json.loads(evaluated("--into", "results/table1", "--json"))
    assert not measured
    path = project.runs / RUN / "weights.pt"
    state = torch.load(path, weights_only=True)
    *_, bias = (name for name in state["state"] if name.startswith("classifier.") and name.endswith(".bias"))
    state["state"][bias] = torch.tensor([9.0, 0, 0, 0])
    torch.save(state, path)
    second = json.loads(evaluated("--into", "results/table1", "--json"))
    assert len(measured) == 1
    assert second["iou"] != first["iou"]
    (project.runs / RUN / "evaluations" / "whole" / "metrics.json").write_text("{")
    assert json.loads(evaluated("--into", "results/table1", "--json"))["iou"] == second["iou"]


@pytest.mark.slow
def test_last_and_best_are_said_and_which_of_them_is_reported(project: Project, evaluated: Evaluate):
    said = evaluated()
    miou = read_json(project.runs / RUN / "metrics.json")["miou"]
    assert (
        f"mIoU {miou['reported']:.2f} % (last {miou['last']:.2f} %, best {miou['best']:.2f} % "
        f"in epoch {miou['best_epoch'] + 1}). Reported is the last epoch; the paper's released numbers on VOC are of "
        "the best epoch on val (D31 in docs/fidelity.md)." in said
    )
    assert said.endswith("/runs/tiny-1_4-suponly-s0/evaluations/whole. Next: u2pl report ")


@pytest.mark.slow
def test_an_miou_over_fewer_classes_says_so_in_the_table_and_in_the_sentence(
    project: Project, evaluated: Evaluate
):
    said = evaluated("--into", "results/table1")
    assert "over" not in said.partition("Confusion")[0]
    path = project.runs / RUN / "evaluations/whole/metrics.json"
    metrics = read_json(path)
    metrics["iou"]["disc"] = None
    path.write_text(json.dumps(metrics))
    said = evaluated("--into", "results/table1")
    assert "mIoU over 3 of 4 classes │" in said
    assert (
        f"mIoU {metrics['miou']['reported']:.2f} % over 3 of 4 classes (last" in said
        and "Left out: disc" in said
    )


@pytest.mark.slow
def test_another_protocol_replaces_nothing_of_the_runs_own(project: Project, evaluated: Evaluate):
    evaluated("--into", "results/table1")
    path = project.runs / RUN
    before, results = contents(path), contents(project.root / "results")
    for words, folder, protocol in (
        (["--evaluation", "sliding"], "sliding", "sliding window of 32, stride 22, single scale, mask resolution"),
        (["--evaluation", "center"], "center", "centre crop of 32, single scale, padding ignored"),
        (["--flip"], "whole_single_scale_with_flip", "whole image, single scale with flip, mask resolution"),
        (
            ["--scales", "1,0.5", "--evaluation", "center", "--flip"],
            "center_scales_0.5_1_with_flip",
            "centre crop of 32, scales 0.5 1 with flip, padding ignored",
        ),
    ):  # fmt: skip
        said = evaluated(*words)
        assert "by another protocol than the run's own: no number of the tables." in said
        assert f"/runs/{RUN}/evaluations/{folder}. Next" in said
        metrics = read_json(path / "evaluations" / folder / "metrics.json")
        assert metrics["protocol"]["evaluation"] == protocol
        assert list(metrics["miou"]) == ["reported"] and f"mIoU {metrics['miou']['reported']:.2f} %" in said
        assert {"iou.csv", "confusion.csv"} < contents(path / "evaluations" / folder).keys()
    after = contents(path)
    assert {name: after[name] for name in before} == before
    assert contents(project.root / "results") == results
    centre = read_json(path / "evaluations" / "center" / "metrics.json")
    assert centre["miou"] != read_json(path / "metrics.json")["miou"]
    sample = next((path / "evaluations" / "center" / "samples").glob("*.input.png"))
    assert read_image(sample).shape == (32, 32, 3)


@pytest.mark.slow
def test_naming_the_runs_own_protocol_is_saying_nothing(project: Project, evaluated: Evaluate):
    plain = json.loads(evaluated("--json"))
    same = ("--evaluation", "whole", "--scales", "1.0", "--into", "results/table1", "--json")
    assert json.loads(evaluated(*same)) == plain
    assert [item.name for item in (project.runs / RUN / "evaluations").iterdir()] == ["whole"]


@pytest.mark.slow
@pytest.mark.parametrize("words", [[], ["--evaluation", "center", "--flip"]])
def test_the_worst_images_are_shown_with_their_own_miou(
    project: Project, evaluated: Evaluate, words: list[str]
):
    evaluated("--worst", "2", *words)
    (folder,) = (path.parent for path in (project.runs / RUN / "evaluations").glob("*/worst"))
    split = open_split(project, "tiny", "1/4")
    header, *rows = table(folder / "worst" / "worst.csv")
    assert header == ["image", "miou"]

    colors = np.array([*split.colors, (255, 255, 255)])
    own = {}
    for name in split.val:
        truth = split.mask(name)[16:48, 16:48] if words else split.mask(name)
        if name in dict(rows):
            shown = {k: read_image(folder / "worst" / f"{name}.{k}.png") for k in ("truth", "prediction")}
            assert (shown["truth"] == colors[np.where(truth == 255, 4, truth)]).all()
            guess = (shown["prediction"][..., None, :] == colors[:4]).all(-1).argmax(-1)
            hits = [
                ((truth == c) & (guess == c)).sum() / ((truth == c) | ((guess == c) & (truth != 255))).sum()
                for c in range(4)
                if ((truth == c) | ((guess == c) & (truth != 255))).any()
            ]
            own[name] = 100 * np.mean(hits)
    assert {name: float(value) for name, value in rows} == pytest.approx(own)
    assert len(rows) == 2 and float(rows[0][1]) <= float(rows[1][1])
    assert len(contents(folder / "worst")) == 2 * 3 + 1
    evaluated(*words)
    assert not (folder / "worst").exists(), "they belong to the evaluation before"


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["--scales", "1,two"], 2, "A scale is a number from 0.1 to 4, not 'two'. Example: --scales"),
        (["--scales", "1,1"], 2, "The scale 1 stands twice in '1,1'."),
        (["--evaluation", "centre"], 2, "No evaluation called 'centre'. Did you mean 'center'?"),
        (["--flip", "--into", "results/table1"], 2, "each run by its own protocol alone. Leave --into out"),
        (["--evaluation", "center", "--into", "results/table1"], 2, "evaluations/center."),
        (["--worst", "-1"], 2, "--worst"),
    ],
)
def test_a_mistake_is_answered_in_words_and_leaves_no_trace(
    project: Project, capsys: pytest.CaptureFixture[str], words: list[str], status: int, says: str
):
    before = contents(project.root)
    assert run(["evaluate", RUN, *words]) == status
    said = capsys.readouterr()
    assert said.out == ""
    assert says in re.sub(r"\s+", " ", said.err.replace("│", " "))
    assert contents(project.root) == before


@pytest.mark.slow
def test_stages_that_want_one_run_at_once_measure_it_once_and_all_get_the_whole(project: Project) -> None:
    shutil.rmtree(project.runs / RUN / "evaluations")
    commands = [
        [sys.executable, "-m", "u2pl_cli", "evaluate", RUN, "--into", f"results/table{k}"] for k in range(4)
    ]
    stages = [
        subprocess.Popen(command, cwd=project.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for command in commands
    ]
    for stage in stages:
        _, errors = stage.communicate(timeout=200)
        assert stage.returncode == 0, errors
    first, *others = (contents(project.root / "results" / f"table{k}" / RUN) for k in range(4))
    assert {"metrics.json", "iou.csv", "confusion.csv", "history.csv"} < first.keys()
    assert all(other == first for other in others)


@pytest.mark.slow
def test_pictures_of_the_worst_images_are_no_part_of_what_tables_are_made_of(
    project: Project, evaluated: Evaluate
) -> None:
    evaluated("--into", "results/table1")
    before = contents(project.root / "results" / "table1" / RUN)
    evaluated("--worst", "2")
    evaluated("--into", "results/table1")
    assert contents(project.root / "results" / "table1" / RUN) == before


# ---- where results may be written ------------------------------------------------------------------------


def refused(project: Project, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What `u2pl evaluate` says when it refuses; the project is as it was."""
    before = contents(project.root)
    assert run(["evaluate", *words]) in (1, 2)
    after = {name: content for name, content in contents(project.root).items() if not name.endswith(".lock")}
    assert after == {name: content for name, content in before.items() if not name.endswith(".lock")}
    said = re.sub(r"\s+", " ", capsys.readouterr().err)
    assert "defect" not in said
    return said


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--worst", "1")])
@pytest.mark.parametrize(
    "into", ["runs", "runs/.", "runs/" + RUN, "runs/" + RUN + "/evaluations", "runs/../runs", "link"]
)
def test_results_are_never_written_over_runs(
    project: Project, capsys: pytest.CaptureFixture[str], into: str, options: tuple[str, ...]
):
    (project.root / "link").symlink_to(project.runs, target_is_directory=True)
    assert "is a place for runs" in refused(project, capsys, RUN, "--into", into, *options)


@pytest.mark.slow
def test_a_run_that_lies_elsewhere_is_not_written_over_either(
    project: Project, capsys: pytest.CaptureFixture[str]
):
    shutil.copytree(project.runs / RUN, project.root / "elsewhere" / RUN)
    said = refused(project, capsys, f"elsewhere/{RUN}", "--into", "elsewhere")
    assert "is a place for runs" in said


@pytest.mark.slow
@pytest.mark.parametrize("theirs", ["metrics.json", "history.csv", "iou.csv", "samples/mine.txt", "run.json"])
def test_files_of_somebody_elses_are_not_replaced(
    project: Project, capsys: pytest.CaptureFixture[str], theirs: str
):
    path = project.root / "mine" / RUN / theirs
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    assert "is no result that u2pl evaluate wrote" in refused(project, capsys, RUN, "--into", "mine")


@pytest.mark.slow
def test_what_else_lies_beside_a_result_stays_and_pictures_that_are_no_more_go(
    project: Project, evaluated: Evaluate
):
    evaluated("--into", "results")
    folder = project.root / "results" / RUN
    whole = contents(folder)
    for name in ("notes.txt", "samples/drawn by hand.png"):
        (folder / name).write_text("mine")
    (folder / "samples" / "of another list.input.png").write_text("x")
    evaluated("--into", "results")
    assert contents(folder) == whole | {"notes.txt": b"mine", "samples/drawn by hand.png": b"mine"}


@pytest.mark.slow
@pytest.mark.parametrize("field", ["name", "fingerprint", "dataset", "split", "parent", "uid", "method"])
@pytest.mark.parametrize("path", ["{canary}", "../../canary", "..", "", "a/../../../canary"])
def test_a_field_of_a_run_from_elsewhere_is_never_a_path(
    project: Project, capsys: pytest.CaptureFixture[str], field: str, path: str
):
    canary = project.root / "canary"
    canary.mkdir()
    (canary / "metrics.json").write_text("mine")
    file = project.runs / RUN / "run.json"
    values = json.loads(file.read_text()) | {field: path.format(canary=canary)}
    values["facts"] |= {field: values[field]} if field in values["facts"] else {}
    file.write_text(json.dumps(values))
    said = refused(project, capsys, RUN, "--into", "results")
    assert "run.json is not what u2pl writes there" in said
    assert run(["train", "--dataset", "tiny", "--split", "1/4", "--method", "suponly", "--fresh"]) in (1, 2)
    assert (canary / "metrics.json").read_text() == "mine"
    assert (project.runs / RUN / "weights.pt").is_file()
