"""Results as frames: every folder of a run is a row, whatever it holds, and nothing is told twice."""

import io
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import filelock
import pandas as pd
import pytest
import torch
import written

import u2pl
from u2pl.errors import UserError
from u2pl.files import write_json
from u2pl.project import Project
from u2pl.runs import frames, results
from u2pl.runs.folder import RunFolder
from u2pl.runs.labels import add_tags, write_note

EVENTS = {"start": (0, 0), "epoch": (9, 1)}


def make(project: Project, name: str, *, done: bool = True, miou: float = 50.0, **changes: Any) -> Path:
    """The folder of a run: finished, or stopped in its second epoch."""
    run = written.run(name, **changes)
    folder = project.runs / name
    write_json(folder / "run.json", run)
    events = RunFolder(folder)
    for event, (step, epoch) in EVENTS.items():
        events.event(event, step, epoch)
    if done:
        events.event("end", 12, 2)
        write_json(folder / "metrics.json", written.metrics(run, miou, epochs=3))
        (folder / "weights.pt").write_bytes(b"1234")
    return folder


def evaluate(folder: Path, by: str, kind: str = "whole image", **changes: Any) -> None:
    """Store an evaluation of a finished run; `changes` replaces entries of its metrics.json."""
    metrics = written.metrics(written.run(folder.name)) | changes
    metrics["protocol"]["evaluation"] = kind
    write_json(folder / "evaluations" / by / "metrics.json", metrics)
    write_json(folder / "evaluations" / by / "stamp.json", {})


def only(frame: pd.DataFrame) -> dict[str, Any]:
    """Its one row; what is missing is left out."""
    (row,) = frame.to_dict("records")
    return {key: value for key, value in row.items() if not pd.isna(value)}


# ---- runs ----------------------------------------------------------------------------------------------


def test_a_project_without_runs_has_a_frame_without_rows_and_all_columns(project: Project) -> None:
    assert list(u2pl.runs(project).columns) == list(frames.RUNS) and u2pl.runs(project).empty
    assert list(u2pl.results(project).columns) == list(frames.RESULTS) and u2pl.results(project).empty


def test_a_finished_run_is_a_row_with_its_result(project: Project) -> None:
    folder = make(project, "a", seed=3, overrides={"u2pl.alpha0": 0.3, "recipe.scale": [0.5, 2]}, miou=61.5)
    row = only(u2pl.runs(project))
    assert row.pop("started") == pd.Timestamp("2025-10-09 08:53:20", tz="UTC")
    assert abs(row.pop("finished") - pd.Timestamp.now("UTC")) < pd.Timedelta(minutes=5)
    assert row.pop("bytes") == sum(path.stat().st_size for path in folder.iterdir())
    assert row == {
        "run": "a",
        "dataset": "tiny",
        "split": "1/4",
        "method": "mt",
        "seed": 3,
        "flavor": "paper",
        "settings": "u2pl.alpha0=0.3, recipe.scale=[0.5, 2]",
        "state": "done",
        "epoch": 3,
        "epochs": 3,
        "miou": 61.5,
        "protocol": "whole image, teacher network, last checkpoint",
        "seconds": 1.5,
        "tags": "",
        "note": "",
        "fingerprint": "f" * 16,
        "problem": "",
    }


def test_a_run_that_was_stopped_failed_or_runs_says_how_far_it_is_and_has_no_result(project: Project) -> None:
    make(project, "stopped", done=False)
    RunFolder(make(project, "wrong", done=False)).event("failed", 9, 1, message="The loss is not finite.")
    with filelock.FileLock(make(project, "at-work", done=False) / "lock"):
        found = u2pl.runs(project).set_index("run")
    assert found["state"].to_dict() == {"at-work": "running", "stopped": "interrupted", "wrong": "failed"}
    assert (
        found["epoch"].tolist() == [2, 2, 2] and found["miou"].isna().all() and found["finished"].isna().all()
    )
    assert found["problem"].to_dict() == {"at-work": "", "stopped": "", "wrong": "The loss is not finite."}


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("run.json", "{"),
        ("run.json", None),
        ("run.json", "[]"),
        ("metrics.json", "{}"),
        ("run.json", "seed"),
        ("events.jsonl", "time"),
    ],
)
def test_a_damaged_run_says_so_and_hides_no_other(project: Project, file: str, text: str | None) -> None:
    make(project, "sound")
    folder = make(project, "broken")
    path = folder / file
    if text is None:
        path.unlink()
    elif text == "seed":
        write_json(path, written.run("broken", seed=10**30))
    elif text == "time":
        path.write_text('{"time": ' + "9" * 30 + ', "event": "end", "step": 1, "epoch": 1, "metrics": {}}')
    else:
        path.write_text(text)
    found = u2pl.runs(project).set_index("run")
    assert found["state"].to_dict() == {"broken": "damaged", "sound": "done"}
    assert str(folder) in found["problem"]["broken"] and found["problem"]["sound"] == ""
    assert found["bytes"]["broken"] > 0


def test_what_somebody_labelled_a_run_with_is_told_and_what_is_wrong_with_that_hides_nothing_else(
    project: Project,
) -> None:
    folder = make(project, "a")
    add_tags(folder, ["good", "paper"])
    write_note(folder, "why?")
    (make(project, "b") / "labels.json").write_text("{")
    found = u2pl.runs(project).set_index("run")
    assert found[["tags", "note", "problem"]].loc["a"].tolist() == ["good, paper", "why?", ""]
    assert found["state"].tolist() == ["done", "done"] and "labels.json" in found["problem"]["b"]


def test_what_is_no_folder_of_a_run_is_no_row(project: Project) -> None:
    make(project, ".old")
    (project.runs / "notes.txt").write_text("mine")
    assert u2pl.runs(project).empty


def test_links_in_a_folder_do_not_count_as_its_bytes(project: Project) -> None:
    folder = make(project, "a")
    before = u2pl.runs(project)["bytes"][0]
    (project.root / "large").write_bytes(b"0" * 100_000)
    (folder / "link").symlink_to(project.root / "large")
    assert u2pl.runs(project)["bytes"][0] - before < 1000


def test_a_run_that_was_evaluated_since_has_that_result_unless_the_run_is_another_by_now(
    project: Project,
) -> None:
    folder = make(project, "a", miou=50.0)
    evaluate(folder, "whole", miou={"reported": 52.5})
    assert u2pl.runs(project)["miou"].tolist() == [52.5]
    (folder / "evaluations/whole/stamp.json").unlink()  # as of an evaluation that was cut off
    assert u2pl.runs(project)["miou"].tolist() == [50.0]
    evaluate(folder, "whole", miou={"reported": 52.5}, fingerprint="0" * 16)
    assert u2pl.runs(project)["miou"].tolist() == [50.0]


def test_the_project_is_that_of_the_current_folder_unless_another_is_named(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    make(project, "a")
    monkeypatch.delenv("U2PL_ROOT", raising=False)
    monkeypatch.chdir(project.runs)
    assert u2pl.runs()["run"].tolist() == u2pl.results()["run"].unique().tolist() == ["a"]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="No u2pl project"):
        u2pl.runs()
    assert u2pl.runs(str(project.root))["run"].tolist() == ["a"]


def test_neither_frame_needs_torch_and_the_room_is_callable_after_its_modules_were_imported(
    project: Project,
) -> None:
    make(project, "a")
    script = (
        "import sys, u2pl, u2pl.runs.records; from u2pl.runs import staleness\n"
        "print(len(u2pl.runs()), len(u2pl.results()), u2pl.runs.records.__name__, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=project.root, capture_output=True, text=True)
    assert done.stdout == "1 5 u2pl.runs.records False\n", done.stderr


# ---- evaluations ---------------------------------------------------------------------------------------


def test_every_number_of_every_evaluation_is_a_row(project: Project) -> None:
    folder = make(project, "a", miou=50.0)
    miou = {"reported": 51.0, "last": 51.0, "best": 52.0, "best_epoch": 0}
    evaluate(folder, "whole", miou=miou, iou={"ground": 80.0, "square": None})
    evaluate(folder, "sliding", "sliding window", miou={"reported": 55.0}, iou={"ground": 60.0})
    make(project, "b", done=False)
    found = u2pl.results(project)
    assert set(found["run"]) == {"a"}
    own = found[found["protocol"] == "whole image, teacher network, last checkpoint"]
    means = own[own["class"].isna()].set_index("measure")["value"]
    assert means.to_dict() == {"miou": 51.0, "miou_last": 51.0, "miou_best": 52.0}
    classes = own[own["measure"] == "iou"].set_index("class")["value"]
    assert classes["ground"] == 80.0 and pd.isna(classes["square"])
    other = found[found["protocol"].str.startswith("sliding")]
    assert other["measure"].tolist() == ["miou", "iou"] and other["value"].tolist() == [55.0, 60.0]


def test_an_evaluation_on_pictures_names_them_in_its_protocol(project: Project) -> None:
    folder = make(project, "a")
    scores = written.metrics(written.run("a"), iou={}, revision=None) | {"miou": {"reported": 40.0}}
    scores = {k: v for k, v in scores.items() if k not in ("split_source", "labeled", "unlabeled", "steps")}
    scores["pictures"] = {"images": "/x/mine", "masks": "/x/masks", "class_numbers": True, "count": 3}
    write_json(folder / "evaluations/pictures/mine-0/whole/metrics.json", scores)
    found = u2pl.results(project).set_index("protocol")["value"]
    assert found["whole image, teacher network, last checkpoint, on /x/mine"] == 40.0


def test_results_of_runs_whose_folders_are_gone_are_told_once(project: Project) -> None:
    make(project, "here", miou=50.0)
    for name in ("here", "gone"):
        metrics = written.metrics(written.run(name), 70.0)
        for stage in (name, f"{name}-alpha0=0.2"):  # two stages of a plan may have one run
            write_json(project.results / stage / "metrics.json", metrics)
    found = u2pl.results(project)
    assert found[found["measure"] == "miou"].set_index("run")["value"].to_dict() == {
        "here": 50.0,
        "gone": 70.0,
    }
    shutil.rmtree(project.runs)
    assert set(u2pl.results(project)["run"]) == {"here", "gone"}


# ---- history -------------------------------------------------------------------------------------------


def test_a_history_is_a_row_a_number_and_names_are_what_they_were(project: Project) -> None:
    folder = RunFolder(make(project, "a"))
    folder.write_history([{"epoch": 0, "step": 4, "=x": 2.5}, {"epoch": 1, "step": 8, "val/miou": 1 / 3}])
    found = u2pl.history("a", project)
    assert found.to_dict("split")["data"] == [["a", 0, 4, "=x", 2.5], ["a", 1, 8, "val/miou", 1 / 3]]
    assert u2pl.history(folder.path, project).equals(found)
    with pytest.raises(UserError, match="No run called 'b'"):
        u2pl.history("b", project)


@pytest.mark.parametrize("epochs", [None, []])
def test_a_run_none_of_whose_epochs_has_ended_has_no_rows(project: Project, epochs: list[Any] | None) -> None:
    folder = RunFolder(make(project, "a"))
    if epochs is not None:
        folder.write_history(epochs)
    assert u2pl.history("a", project).dtypes.to_dict() == frames.frame([], frames.HISTORY).dtypes.to_dict()


@pytest.mark.parametrize(
    "text",
    [
        "epoch,step,a\nx,1,2\n",
        "epoch,step,a\n0,1,x\n",
        "step,a\n1,2\n",
        "epoch,a\ninf,1\n",
        "epoch,step,a\n0,1,2,3\n1,1,2,3\n",
    ],
)
def test_a_damaged_history_is_refused_in_a_sentence(tmp_path: Path, text: str):
    (tmp_path / "history.csv").write_text("epoch,step,a,b\n0,1,2.5,\n1,2,,3\n")
    assert frames.series(tmp_path) == {"a": [(0, 2.5)], "b": [(1, 3.0)]}
    (tmp_path / "history.csv").write_text(text)
    with pytest.raises(UserError, match=r"history\.csv is damaged"):
        frames.series(tmp_path)


# ---- CSV -----------------------------------------------------------------------------------------------


def test_a_frame_as_csv_has_no_formula_and_reads_back_as_it_was() -> None:
    names = ["=1+1", "a\rb", "a\nb", 'say "x"', "−1", "a,b", ""]
    text = frames.csv(pd.DataFrame({"=name": names, "value": [0.1, 1 / 3, None, 4, 5, 6, 7]}))
    assert "\r\n" not in text and "\n'=1+1,0.1\n" in text
    back = pd.read_csv(io.StringIO(text, newline=""), keep_default_na=False, lineterminator="\n")
    assert back["'=name"].tolist() == ["'=1+1", *names[1:]] and back["value"][1] == str(1 / 3)


# ---- confusion matrices --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "classes", [["ground", "square"], ["NA", "null"], ["7", "07"], ["=1+1", "'quoted"], ["a,b", 'c "d"']]
)
def test_a_confusion_matrix_is_read_as_it_was_written(tmp_path: Path, classes: list[str]) -> None:
    counts = torch.tensor([[3, 2**40], [0, 5]])
    metrics = {"iou": dict.fromkeys(classes, 50.0)}
    results._write_scores(tmp_path, metrics, counts)
    found = frames.confusion(tmp_path)
    assert found is not None
    assert list(found.index) == list(found.columns) == classes
    assert found.to_numpy().tolist() == counts.tolist()
    assert found.loc[classes[0], classes[1]] == 2**40, "a row is the truth"


def test_an_evaluation_of_an_earlier_version_has_no_confusion_matrix(tmp_path: Path) -> None:
    assert frames.confusion(tmp_path) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "truth / prediction,a,b\na,1,2\n",
        "truth / prediction,a,b\nb,1,2\na,3,4\n",
        "truth / prediction,a,b\na,1,2\nb,3,\n",
        "truth / prediction,a,b\na,1,2\nb,3,4,5\n",
        "truth / prediction,a,b\na,1,2\nb,3,many\n",
        "\x00\x01",
    ],
)
def test_a_damaged_confusion_matrix_is_a_sentence_with_what_to_do(tmp_path: Path, text: str) -> None:
    (tmp_path / "confusion.csv").write_text(text)
    with pytest.raises(UserError, match=r"confusion\.csv is damaged .* Move it elsewhere"):
        frames.confusion(tmp_path)
