"""What of runs/ could go, and above all what may not."""

from pathlib import Path

import filelock
import pytest
import written
from tiny import edit_params

from u2pl.errors import UserError
from u2pl.files import read_json, write_json
from u2pl.pipeline import ActivePlan, garbage, resolve, spec_of
from u2pl.pipeline.garbage import Asked
from u2pl.pipeline.needed import in_words, shown_in
from u2pl.project import Project
from u2pl.runs import removal
from u2pl.runs.folder import RunFolder
from u2pl.runs.labels import add_tags, write_note
from u2pl.training import trainer

PLAN = """
dataset: tiny
seeds: [0]
tables:
  table1: {rows: [SupOnly, U²PL (w/ CutMix)], splits: {classic-1/4: 1/4}}
"""
NEEDED = "tiny-1_4-suponly-s0"


@pytest.fixture
def project(tiny_project: Project) -> Project:
    """With an active plan of two runs, and no run yet."""
    (tiny_project.root / "pipelines/plans/tiny.yaml").write_text(PLAN, encoding="utf-8")
    resolve(tiny_project, "tiny").write(tiny_project)
    return tiny_project


def make(project: Project, name: str, *, finished: bool, checkpoints: int = 0, **changes: object) -> Path:
    folder = project.runs / name
    run = written.run(name, **changes)
    write_json(folder / "run.json", run)
    if finished:
        write_json(folder / "metrics.json", written.metrics(run))
        (folder / "weights.pt").write_bytes(bytes(5000))
    if checkpoints:
        (folder / "last.pt").write_bytes(bytes(checkpoints))
    return folder


def claim(project: Project) -> RunFolder:
    """The folder of the plan's first run, as a trainer takes it."""
    _, _, description = trainer.describe(project, spec_of(ActivePlan.read(project).runs[NEEDED]))
    return RunFolder.claim(project, NEEDED, {**description, "parent": None}, fresh=True)


def finish(folder: RunFolder) -> None:
    write_json(folder.path / "metrics.json", written.metrics(read_json(folder.path / "run.json")))
    (folder.path / "weights.pt").write_bytes(bytes(5000))
    folder.release()


def found(project: Project) -> dict[str, Asked]:
    return {f"{item.run}: {item.what}": item.asked for item in garbage.find(project).items}


def collect(project: Project, *, unfinished: bool = False, finished: bool = False) -> None:
    for item in garbage.find(project).chosen(unfinished=unfinished, finished=finished):
        garbage.delete(project, item)


def test_which_tables_show_a_run(project: Project):
    shown = shown_in(project)
    assert shown[NEEDED] == ["table1"] and len(shown) == 2
    assert in_words(shown, NEEDED) == "table1" and in_words(shown, "other") == ""
    assert in_words({"a": ["table1", "table4", "fig2", "table1"]}, "a") == "table1, table4 and fig2"
    project.active_plan.unlink()
    assert shown_in(project) == {}


def test_without_more_words_only_what_nobody_can_miss_goes(project: Project):
    done = make(project, "done", finished=True, checkpoints=300)
    half = make(project, "half", finished=False, checkpoints=400)
    removal.remove(project, make(project, "gone", finished=True))
    assert found(project) == {
        "gone: removed by u2pl runs rm": Asked.NOTHING,
        "done: checkpoints of a finished run": Asked.NOTHING,
        "done: finished, in no table or figure": Asked.FINISHED,
        "half: unfinished, in no table or figure": Asked.UNFINISHED,
    }
    assert {item.what: item.bytes for item in garbage.find(project).items}[
        "checkpoints of a finished run"
    ] == 300
    collect(project)
    assert (done / "weights.pt").exists() and not (done / "last.pt").exists()
    assert (half / "last.pt").exists()
    assert removal.removed_runs(project) == {}
    collect(project, unfinished=True)
    assert done.exists() and not half.exists()
    collect(project, finished=True)
    assert list(project.runs.iterdir()) == []


def test_what_a_table_needs_stays_whatever_is_said(project: Project):
    folder = claim(project).path
    make(project, "tiny-1_4-u2pl-s0", finished=False)
    collect(project, unfinished=True, finished=True)
    assert (folder / "run.json").exists()
    finish(claim(project))
    (folder / "last.pt").write_bytes(bytes(100))
    collect(project, unfinished=True, finished=True)
    assert (folder / "weights.pt").exists() and not (folder / "last.pt").exists()
    assert garbage.find(project).needed > 5000


def test_a_set_aside_run_of_todays_settings_stays_and_one_of_others_goes_when_asked(project: Project):
    """The plan's run was finished; then params.yaml was changed, another trained, and changed back."""
    finish(claim(project))
    edit_params(project, lambda values: values["recipes"]["tiny"].update(lr=0.5))
    resolve(project, "tiny").write(project)
    claim(project).release()
    store = project.runs / ".old"
    (first,) = store.iterdir()
    assert [item.asked for item in garbage.find(project).items] == [
        Asked.FINISHED
    ]  # today's settings are others
    edit_params(project, lambda values: values["recipes"]["tiny"].update(lr=0.01))
    collect(project, unfinished=True, finished=True)
    assert (first / "weights.pt").exists()
    claim(project).release()  # takes it back, and sets the other aside
    assert found(project) == {f"{NEEDED}: unfinished, set aside: of other settings": Asked.UNFINISHED}
    collect(project, unfinished=True)
    assert list(store.iterdir()) == []


def test_what_is_being_trained_stays(project: Project):
    folder = make(project, "half", finished=False)
    items = garbage.find(project).items
    with filelock.FileLock(folder / "lock"):
        assert found(project) == {}
        with pytest.raises(UserError, match="trained right now"):
            garbage.delete(project, items[0])
    assert (folder / "run.json").exists()


def test_a_run_that_has_ended_since_it_was_looked_at_stays(project: Project):
    folder = make(project, "half", finished=False)
    (item,) = garbage.find(project).items
    make(project, "half", finished=True)
    with pytest.raises(UserError, match="has come to its end meanwhile"):
        garbage.delete(project, item)
    assert (folder / "weights.pt").exists()


def test_what_somebody_labelled_is_no_garbage(project: Project):
    add_tags(make(project, "a", finished=True), ["good"])
    write_note(make(project, "b", finished=False), "why?")
    (make(project, "c", finished=False) / "labels.json").write_text("{")
    assert found(project) == {}


def test_checkpoints_beside_another_runs_result_are_not_taken_for_a_finished_runs(project: Project):
    folder = make(project, "a", finished=True, checkpoints=100)
    write_json(folder / "metrics.json", written.metrics(written.run("a", fingerprint="a" * 16)))
    collect(project, unfinished=True)
    assert (folder / "last.pt").exists()


def test_what_is_no_run_is_left_alone(project: Project):
    (project.runs / "mine").mkdir(parents=True)
    (project.runs / "mine" / "weights.pt").write_text("x")
    (project.runs / "torn").mkdir()
    (project.runs / "torn" / "run.json").write_text("{")
    assert found(project) == {}


def test_with_a_damaged_plan_nothing_is_called_garbage(project: Project):
    make(project, NEEDED, finished=True)
    project.active_plan.write_text("plan: [")
    with pytest.raises(UserError, match=r"plan\.yaml"):
        garbage.find(project)
