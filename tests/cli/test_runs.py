"""`u2pl runs`: listing, showing, comparing, labelling, removing and cleaning away, as somebody types it."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import filelock
import pytest
from run_folders import write_run
from u2pl_cli import app
from u2pl_cli.sparkline import sparkline

from u2pl.pipeline import resolve
from u2pl.project import Project
from u2pl.runs.labels import add_tags, read_labels

U2pl = Callable[..., subprocess.CompletedProcess[str]]
PLAN = """
dataset: tiny
seeds: [0]
tables:
  table1: {rows: [SupOnly], splits: {classic-1/4: 1/4}}
"""
NEEDED = "tiny-1_4-suponly-s0"
OURS = {"method": "u2pl", "hyper": {"alpha0": 0.2}}


@pytest.fixture
def project(tiny_project: Project) -> Project:
    """With three runs: one has finished, one failed and one was interrupted."""
    write_run(tiny_project, "tiny-1_4-mt-s0", 50.0, curve=(10.0, 30.0, 49.0))
    write_run(tiny_project, "tiny-1_4-u2pl-s0", 61.0, curve=(10.0, 40.0, 60.0), **OURS)
    write_run(tiny_project, "tiny-1_8-mt-s1", seed=1, split="1/8")
    write_run(tiny_project, "wrong", seed=2, failed="The loss is not finite.")
    return tiny_project


@pytest.fixture
def run(u2pl: U2pl, project: Project) -> Callable[..., str]:
    """Runs `u2pl runs ...` in the project, and gives what it says."""

    def call(*words: str, status: int = 0) -> str:
        done = u2pl("runs", *words, cwd=project.root)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout if status == 0 else done.stderr

    return call


@pytest.fixture
def planned(project: Project) -> Project:
    """With an active plan whose table needs one of its runs, which has finished."""
    (project.root / "pipelines/plans/tiny.yaml").write_text(PLAN, encoding="utf-8")
    resolve(project, "tiny").write(project)
    write_run(project, NEEDED, 40.0, method="suponly")
    return project


# ---- the list ------------------------------------------------------------------------------------------


def test_the_list_has_a_line_a_run_and_says_what_there_is(run: Callable[..., str]):
    lines = run().splitlines()
    assert lines[0].split() == ["run", "state", "mIoU", "%", "epoch", "finished", "time", "size", "note"]
    assert lines[1].split()[:3] == ["tiny-1_4-mt-s0", "done", "50.00"]
    assert [line.split()[1] for line in lines[1:5]] == ["done", "done", "interrupted", "failed"]
    assert "The loss is not finite." in lines[4]
    assert lines[-1].startswith("4 runs: 2 done, 1 failed, 1 interrupted; ")


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["--method", "u2pl"], ["tiny-1_4-u2pl-s0"]),
        (["--split", "1/8"], ["tiny-1_8-mt-s1"]),
        (["--seed", "2"], ["wrong"]),
        (["--state", "finished", "--sort", "miou"], ["tiny-1_4-u2pl-s0", "tiny-1_4-mt-s0"]),
        (["--state", "done", "--sort", "miou", "--reverse"], ["tiny-1_4-mt-s0", "tiny-1_4-u2pl-s0"]),
        (["--state", "failed"], ["wrong"]),
        (["--dataset", "tiny", "--method", "mt", "--limit", "1"], ["tiny-1_4-mt-s0"]),
        (["--sort", "miou", "--limit", "1"], ["tiny-1_4-u2pl-s0"]),
        (["--reverse"], ["wrong", "tiny-1_8-mt-s1", "tiny-1_4-u2pl-s0", "tiny-1_4-mt-s0"]),
        (["--dataset", "camvid"], []),
    ],
)
def test_runs_are_chosen_sorted_and_cut(run: Callable[..., str], words: list[str], names: list[str]):
    assert [row["run"] for row in json.loads(run(*words, "--json"))] == names


def test_json_has_plain_values_and_csv_a_line_a_run(run: Callable[..., str], project: Project):
    add_tags(project.runs / "wrong", ["bad", "old"])
    row = json.loads(run("--tag", "bad", "--tag", "old", "--json"))[0]
    assert (row["run"], row["tags"], row["miou"], row["seed"]) == ("wrong", ["bad", "old"], None, 2)
    rows = list(csv.DictReader(io.StringIO(run("--csv"))))
    assert [each["run"] for each in rows][-1] == "wrong" and rows[-1]["tags"] == "bad, old"
    assert "--json and --csv are two formats" in run("--json", "--csv", status=2)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ["--dataset", "tinny"],
            "None of the 4 runs has dataset 'tinny'. Did you mean 'tiny'? There is: tiny.",
        ),
        (["--tag", "good"], "None of the 4 runs has tag 'good'. None has any."),
        (
            ["--method", "u2pl", "--split", "1/8"],
            "None of the 4 runs has all of that. All of them: u2pl runs",
        ),
    ],
)
def test_where_nothing_fits_it_is_said_what_there_is(run: Callable[..., str], words: list[str], says: str):
    assert run(*words) == f"{says}\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--state", "finnished"], "No state called 'finnished'"),
        (["--sort", "mIoU"], "No column called 'mIoU'. Did you mean 'miou'?"),
        (["--limit", "0"], "greater than or equal to 1"),
        (["--method", "mt", "show", "wrong"], "What stands before `show` chooses runs for the list"),
    ],
)
def test_words_that_say_nothing_are_refused(run: Callable[..., str], words: list[str], says: str):
    assert says in " ".join(run(*words, status=2).split())


def test_in_an_empty_project_it_is_said_how_to_begin(u2pl: U2pl, tiny_project: Project):
    done = u2pl("runs", cwd=tiny_project.root)
    assert done.stdout.startswith("There is no run yet. Train one: u2pl train")
    assert json.loads(u2pl("runs", "--json", cwd=tiny_project.root).stdout) == []


def test_a_narrow_terminal_gets_whole_names_and_fewer_columns(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    name = "a-" + "long-" * 9 + "name"
    write_run(project, name, 50.0)
    monkeypatch.chdir(project.root)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("u2pl_cli.run_views._is_terminal", lambda: True)
    assert app.run(["runs"]) == 0
    said = capsys.readouterr().out
    assert any(line.split()[:3] == [name, "done", "50.00"] for line in said.splitlines())
    assert all(len(line.rstrip()) <= 80 for line in said.splitlines())
    assert "No room for: finished, time, size, note." in " ".join(said.split())


def test_a_hostile_note_is_plain_text(run: Callable[..., str], project: Project):
    run("note", "wrong", "[red]a\x1b[31mb\n=cmd")
    (project.runs / "wrong" / "events.jsonl").unlink()
    (line,) = [line for line in run().splitlines() if line.startswith("wrong")]
    assert "[red]a\\x1b[31mb =cmd" in line


# ---- one run -------------------------------------------------------------------------------------------


def test_a_run_is_shown_with_all_that_is_known_of_it(u2pl: U2pl, trained: Path):
    said = u2pl("runs", "show", NEEDED, cwd=trained).stdout
    found = json.loads(u2pl("runs", "show", NEEDED, "--json", cwd=trained).stdout)
    assert found["status"]["state"] == "done"
    (score,) = found["scores"]
    assert f"mIoU {score['miou']:.2f} %" in said and score["is_own"]
    assert list(found["iou"]) == ["ground", "square", "disc", "bar"] and "disc" in said
    assert [point["epoch"] for point in found["curve"]] == [0, 1, 2] and "in 3 epochs" in said
    best = found["best"]
    assert f"mIoU {best['miou']:.2f} % in epoch {best['epoch'] + 1}, chosen" in said, "people count from 1"
    assert found["changed"] == {} and "nothing; all is as in params.yaml" in said
    assert found["settings"]["recipe"]["crop"] == 32 and "crop=32" in said
    assert found["bytes"]["weights"] > 0 and sum(found["bytes"].values()) == 2 * found["bytes"]["all"]
    assert found["memory_gib"] > 0 and found["seconds"] > 0
    assert all(Path(path).exists() for path in found["files"].values())
    assert f"weights: {trained / 'runs' / NEEDED / 'weights.pt'}" in said
    assert f"Next: u2pl export {NEEDED}" in said


def test_settings_that_were_set_come_first_with_what_they_were(u2pl: U2pl, tiny_project: Project):
    from u2pl.runs.folder import RunFolder
    from u2pl.settings import RunSpec
    from u2pl.training import trainer

    spec = RunSpec("tiny", "1/4", "u2pl", 0, {"recipe.lr": 0.5, "u2pl.alpha0": 0.3})
    _, _, description = trainer.describe(tiny_project, spec)
    name = description["name"]
    RunFolder.claim(tiny_project, name, {**description, "parent": None}, fresh=False).release()
    lines = u2pl("runs", "show", name, cwd=tiny_project.root).stdout.splitlines()
    at = lines.index("set         recipe.lr=0.5 (params.yaml: 0.01)")
    assert lines[at + 1].strip() == "u2pl.alpha0=0.3 (params.yaml: 0.2)"
    assert lines[at + 2].startswith("recipe ") and " lr=" not in lines[at + 2]
    assert lines[at + 3].startswith("u2pl ") and "alpha0=" not in lines[at + 3]
    assert (
        "Next: u2pl train --dataset tiny --split 1/4 --method u2pl --seed 0 --set recipe.lr=0.5" in lines[-1]
    )


def test_of_a_run_it_is_shown_which_tables_need_it_and_how_it_is_labelled(
    run: Callable[..., str], planned: Project
):
    run("tag", NEEDED, "good")
    run("note", NEEDED, "the", "first")
    found = json.loads(run("show", NEEDED, "--json"))
    assert (found["shown_in"], found["tags"], found["note"]) == (["table1"], ["good"], "the first")
    lines = run("show", str(planned.runs / NEEDED)).splitlines()
    assert {"shown in    table1", "tags        good", "note        the first"} <= set(lines)


def test_a_run_that_is_not_there_is_told_the_nearest(run: Callable[..., str]):
    for words in (
        ["show", "tiny-1_4-mt-s1"],
        ["tag", "tiny-1_4-mt-s1", "x"],
        ["rm", "--yes", "tiny-1_4-mt-s1"],
    ):
        assert "No run called 'tiny-1_4-mt-s1'. Did you mean" in run(*words, status=2)


# ---- several runs --------------------------------------------------------------------------------------


def test_two_runs_are_compared(run: Callable[..., str], project: Project):
    said = run("compare", "tiny-1_4-mt-s0", "tiny-1_4-u2pl-s0", "--out", str(project.root / "c.png"))
    lines = [" ".join(line.split()) for line in said.splitlines()]
    assert lines[:2] == ["A tiny-1_4-mt-s0", "B tiny-1_4-u2pl-s0"]
    assert {
        "method mt u2pl",
        "Only B: alpha0=0.2",
        "mIoU 50.00 61.00 +11.00",
        "ground 55.00 66.00 +11.00",
    } <= set(lines)
    assert not any("batch" in line for line in lines)
    assert any(line.startswith("A ") and line.endswith("10.0 to 49.0 in 3 epochs") for line in lines)
    assert "B against A: +11.00 points with one seed: it cannot be told from chance." in said
    assert (project.root / "c.png").read_bytes().startswith(b"\x89PNG")
    assert said.endswith(f"Wrote {project.root / 'c.png'}.\n")


def test_epochs_without_a_validation_count_too(run: Callable[..., str], project: Project):
    history = project.runs / "tiny-1_4-mt-s0" / "history.csv"
    history.write_text("epoch,step,val/miou\n0,9,\n1,18,\n2,27,30\n3,36,\n4,45,\n5,54,45\n")
    assert "30.0 to 45.0 % in 6 epochs" in run("show", "tiny-1_4-mt-s0")
    assert "30.0 to 45.0 in 6 epochs" in run("compare", "tiny-1_4-mt-s0", "tiny-1_4-u2pl-s0")


def test_without_an_epoch_there_is_no_picture(run: Callable[..., str], project: Project):
    said = run("compare", "tiny-1_8-mt-s1", "wrong", "--out", "c.png", status=1)
    assert "there is no curve to draw" in said and not (project.root / "c.png").exists()


def test_the_numbers_go_to_a_spreadsheet_and_to_a_script(run: Callable[..., str]):
    rows = list(csv.reader(io.StringIO(run("compare", "tiny-1_4-mt-s0", "tiny-1_4-u2pl-s0", "--csv"))))
    assert rows[0] == ["percent", "tiny-1_4-mt-s0", "tiny-1_4-u2pl-s0", "tiny-1_4-u2pl-s0 - tiny-1_4-mt-s0"]
    assert rows[1] == ["mIoU", "50.0", "61.0", "11.0"]
    found = json.loads(run("compare", "tiny-1_4-mt-s0", "tiny-1_4-u2pl-s0", "--json"))
    assert found["scores"][0]["difference"] == {"tiny-1_4-u2pl-s0": 11.0}


def test_seeds_are_paired(run: Callable[..., str], project: Project):
    for seed in range(1, 6):
        write_run(project, f"tiny-1_4-mt-s{seed}", 50.0 - seed, seed=seed)
        write_run(project, f"tiny-1_4-u2pl-s{seed}", 51.0 + seed / 10, seed=seed, **OURS)
    assert "p = 0.031 by the exact sign-flip test" in run("compare", "tiny-1_4-mt", "tiny-1_4-u2pl-s*")
    shutil.rmtree(project.runs / "tiny-1_4-mt-s5")
    said = run("compare", "tiny-1_4-mt", "tiny-1_4-u2pl")
    assert "Too few seeds for any statement" in said and "A  tiny-1_4-mt: seeds 0, 1, 2, 3, 4\n" in said
    assert "seeds 5." in said


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["compare", "wrong"], "Name two runs or more"),
        (["compare", "wrong", "x-*"], "No run's name fits 'x-*'"),
        (["compare", "wrong", "tiny-1_4-mt-s0", "--out", "c.svg"], "c.svg does not end in .png"),
        (["compare", "wrong", "tiny-1_4-mt-s0", "--out", "mine.png"], "would replace mine.png"),
        (["compare", "wrong", "tiny-1_4-mt-s0", "--json", "--csv"], "two formats"),
    ],
)
def test_what_cannot_be_compared_is_said(
    run: Callable[..., str], project: Project, words: list[str], says: str
):
    (project.root / "mine.png").write_text("mine")
    assert says in run(*words, status=2)
    assert (project.root / "mine.png").read_text() == "mine"


# ---- labels --------------------------------------------------------------------------------------------


def test_tags_and_notes_are_given_and_taken(run: Callable[..., str], project: Project):
    assert run("tag", "wrong", "bad", "old") == "wrong: bad, old\n"
    assert run("tag", "wrong", "old", "--remove") == "wrong: bad\n"
    assert run("note", "wrong", "lr too high") == "wrong: lr too high\n"
    assert run("note", "wrong", "") == "wrong: no note\n"
    assert read_labels(project.runs / "wrong") == {"tags": ["bad"], "note": ""}
    assert "A tag is a word" in run("tag", "wrong", "a,b", status=2)
    assert "has no tag 'old'" in run("tag", "wrong", "old", "--remove", status=2)


def test_a_run_elsewhere_is_shown_but_not_changed(run: Callable[..., str], project: Project, tmp_path: Path):
    other = write_run(Project(tmp_path / "other"), "theirs", 50.0)
    assert "theirs" in run("show", str(other))
    assert run("tag", "runs/wrong/", "x") == "wrong: x\n"
    for words in (["tag", str(other), "x"], ["rm", str(other), "--yes"]):
        assert "lies outside" in run(*words, status=2)
    assert (other / "weights.pt").exists() and not (other / "labels.json").exists()


# ---- what goes -----------------------------------------------------------------------------------------


def test_a_removed_run_comes_back_until_its_space_is_freed(run: Callable[..., str], project: Project):
    said = run("rm", "--yes", "wrong", str(project.runs / "tiny-1_4-mt-s0"))
    assert "Back: u2pl runs restore wrong" in said
    assert not (project.runs / "wrong").exists() and not (project.runs / "tiny-1_4-mt-s0").exists()
    assert "back in" in run("restore", "wrong")
    assert (project.runs / "wrong" / "last.pt").exists()
    assert "nothing was deleted" in run("gc")
    assert "tiny-1_4-mt-s0" in run("gc")
    assert "Freed" in run("gc", "--yes")
    assert "There is no removed run" in run("restore", "tiny-1_4-mt-s0", status=1)
    assert (project.runs / "wrong").exists() and (project.runs / "tiny-1_4-u2pl-s0").exists()


def test_what_a_table_needs_goes_by_force_alone_and_the_others_stay_with_it(
    run: Callable[..., str], planned: Project
):
    said = run("rm", "--yes", "wrong", NEEDED, status=1)
    assert (
        f"{NEEDED} is needed by table1 of the active plan. Nothing was removed. With --force it goes" in said
    )
    assert (planned.runs / "wrong").exists() and (planned.runs / NEEDED).exists()
    said = run("rm", "--yes", "--force", NEEDED)
    assert "What table1 shows of it stays as it is" in said
    assert "u2pl train --dataset tiny --split 1/4 --method suponly --seed 0\n" in said
    assert not (planned.runs / NEEDED).exists()


def test_what_is_being_trained_is_not_removed_by_force_either(run: Callable[..., str], project: Project):
    with filelock.FileLock(project.runs / "wrong" / "lock"):
        said = run("rm", "--yes", "--force", "tiny-1_4-mt-s0", "wrong", status=1)
    assert "wrong is being trained right now" in said
    assert (project.runs / "wrong").exists() and (project.runs / "tiny-1_4-mt-s0").exists()


def test_where_nobody_can_be_asked_nothing_is_removed(run: Callable[..., str], project: Project):
    assert "Add --yes" in run("rm", "wrong", status=2)
    assert (project.runs / "wrong").exists()


@pytest.mark.parametrize(("answer", "stays"), [("n\n", True), ("\n", True), ("y\n", False)])
def test_somebody_is_asked(
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answer: str,
    stays: bool,
):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.chdir(project.root)
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    assert app.run(["runs", "rm", "wrong"]) == (1 if stays else 0)
    assert "Remove wrong (" in capsys.readouterr().out
    assert (project.runs / "wrong").exists() == stays


def test_gc_deletes_runs_where_that_is_said_and_never_what_a_table_needs(
    run: Callable[..., str], planned: Project
):
    run("tag", "tiny-1_4-u2pl-s0", "good")
    said = json.loads(run("gc", "--json"))
    asks = {item["run"]: item["asks"] for item in said["items"]}
    assert asks == {"tiny-1_4-mt-s0": "--finished", "tiny-1_8-mt-s1": "--unfinished", "wrong": "--unfinished"}
    assert not said["deleted"] and said["chosen"] == 0
    assert "stays without --finished" in run("gc", "--unfinished", "--yes")
    assert sorted(path.name for path in planned.runs.iterdir()) == [
        "tiny-1_4-mt-s0",
        NEEDED,
        "tiny-1_4-u2pl-s0",
    ]
    run("gc", "--finished", "--unfinished", "--yes")
    assert sorted(path.name for path in planned.runs.iterdir()) == [NEEDED, "tiny-1_4-u2pl-s0"]
    assert run("gc").startswith("runs/ holds ")
    assert "There is nothing to clean away." in run("gc")


# ---- beside the commands -------------------------------------------------------------------------------


def test_a_shell_completes_names_of_runs_and_of_removed_ones(started_u2pl: U2pl, project: Project):
    def completed(line: str) -> list[str]:
        words = {
            "_U2PL_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(line.split(" ")) - 1),
        }
        return started_u2pl(cwd=project.root, **words).stdout.split()

    assert completed("u2pl runs show tiny-1_4") == ["tiny-1_4-mt-s0", "tiny-1_4-u2pl-s0"]
    assert completed("u2pl runs compare wrong ti") == ["tiny-1_4-mt-s0", "tiny-1_4-u2pl-s0", "tiny-1_8-mt-s1"]
    assert completed("u2pl runs restore w") == []
    assert started_u2pl("runs", "rm", "wrong", "--yes", cwd=project.root).returncode == 0
    assert completed("u2pl runs restore w") == ["wrong"] and completed("u2pl runs show w") == []


@pytest.mark.parametrize(
    "words",
    [["runs"], ["runs", "show", "wrong"], ["runs", "compare", "wrong", "tiny-1_4-mt-s0"], ["runs", "gc"]],
    ids=" ".join,
)
def test_torch_is_not_loaded(project: Project, words: list[str]):
    script = (
        "import sys\nfrom u2pl_cli import app\n"
        f"status = app.run({words!r})\n"
        "print(status, sorted({'torch', 'mlflow', 'dvc', 'matplotlib'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=project.root, capture_output=True, text=True, env={**os.environ}
    )
    assert done.stderr == "0 []\n"


def test_a_curve_in_a_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
    assert sparkline([]) == "" and sparkline([5.0]) == "▁"
    assert sparkline([0.0, 7.0, 3.5]) == "▁█▅"
    assert sparkline([0.0, 7.0], span=(0.0, 14.0)) == "▁▅"
    assert sparkline([float(k) for k in range(100)], width=8) == "▁▂▃▄▅▆▇█"
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert sparkline([0.0, 7.0]) == "_@"
