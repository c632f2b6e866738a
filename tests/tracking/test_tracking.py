"""Run folders made by hand, mirrored into real MLflow stores: SQLite files and a server on loopback."""

import json
import os
import shlex
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import forked
import pytest
import written
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tracking.mlflow_server import Server, contents, free_port, wait_until

from u2pl.errors import UsageError, UserError
from u2pl.files import read_json, write_json
from u2pl.project import Project
from u2pl.reporting.links import links
from u2pl.reporting.results import Result
from u2pl.tracking import sidecar, store
from u2pl.tracking.addresses import sqlite_file
from u2pl.tracking.events import metric_name
from u2pl.tracking.examples import COLUMNS
from u2pl.tracking.mirror import Store, sync
from u2pl.tracking.sidecar import Sidecar
from u2pl.tracking.store import default_uri

pytestmark = [
    pytest.mark.mlflow,
    # MLflow asks SQLAlchemy for a loader that SQLAlchemy is about to retire.
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"),
]

T0 = 1_760_000_000_000


def event(
    kind: str, step: int = 0, epoch: int = 0, *, at: int | None = None, **metrics: float
) -> dict[str, Any]:
    when = T0 + 1000 * step if at is None else T0 + at
    named = {name.replace("__", "/"): value for name, value in metrics.items()}
    return {"time": when, "event": kind, "step": step, "epoch": epoch, "metrics": named}


def write_events(folder: Path, *events: dict[str, Any]) -> None:
    with (folder / "events.jsonl").open("a") as file:
        file.writelines(json.dumps(e) + "\n" for e in events)


CURVE = [
    event("start"),
    event("step", 1, loss=1.5, lr=0.01),
    event("step", 2, loss=1.25, lr=0.005),
    event("epoch", 2, 0, at=2500, val__miou=40.0, train__loss=1.375, lr=0.005),
]


def make_run(
    project: Project, name: str, *events: dict[str, Any], parent: str | None = None, miou: float | None = None
) -> Path:
    folder = project.runs / name
    (folder / "samples").mkdir(parents=True)
    facts = written.run(
        name,
        uid=uuid.uuid4().hex,
        dataset="shapes",
        split="1/8",
        method="u2pl",
        recipe={**written.RECIPE, "lr": 0.001, "scale": [0.5, 2.0]},
        hyper={"alpha0": 0.2, "dpa": True},
        parent=parent,
    )
    write_json(folder / "run.json", facts)
    for file in ("settings.yaml", "labeled.txt", "unlabeled.txt", "val.txt"):
        (folder / file).write_text(f"{name} {file}\n")
    for kind in COLUMNS:
        Image.new("RGB", (8, 6), "red").save(folder / "samples" / f"a.{kind}.png")
    write_events(folder, *events)
    if miou is not None:
        finish(folder, miou)
    return folder


def finish(folder: Path, miou: float) -> None:
    write_json(folder / "metrics.json", written.metrics(read_json(folder / "run.json"), miou))


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "U2PL_TRACKING"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_RUN_ID", "somebody-elses")  # where obeyed, every run would be that one
    for name, value in store.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose store exists; its tests tell their runs apart by name."""
    project = Project(tmp_path_factory.mktemp("project"))
    for name in ("params.yaml", "dvc.yaml"):
        (project.root / name).write_text("{}\n")
    store.prepare_store(f"sqlite:///{project.root}/mlflow.db", project.root / "mlartifacts")
    return project


@pytest.fixture
def project(place: Project, tmp_path: Path) -> Project:
    """The same store, with run folders of the test's own."""
    (place.root / "runs").unlink(missing_ok=True)
    (place.root / "runs").symlink_to(tmp_path, target_is_directory=True)
    return place


def runs_named(store: Store, name: str) -> list[Any]:
    found = store.client.search_runs([store.experiment], f"tags.`u2pl.name` = '{name}'")
    return sorted(found, key=lambda run: run.info.start_time)


def history(store: Store, run_id: str, metric: str) -> list[tuple[int, float]]:
    return sorted((point.step, point.value) for point in store.client.get_metric_history(run_id, metric))


def rows(project: Project) -> dict[str, list[Any]]:
    with sqlite3.connect(project.root / "mlflow.db") as database:
        tables = ("runs", "metrics", "latest_metrics", "params", "tags")
        contents = {table: sorted(map(repr, database.execute(f"select * from {table}"))) for table in tables}
    database.close()
    return contents


# ---- runs ----------------------------------------------------------------------------------------------


def test_a_finished_run_arrives_with_parameters_tags_curves_and_files(project):
    make_run(project, "whole", *CURVE, event("end", 2), miou=50.0)
    summary = sync(project)
    store = Store(project)
    (run,) = runs_named(store, "whole")
    assert (summary.runs, summary.ablations, summary.problems) == (1, 0, [])
    assert run.info.run_name == "whole" and run.info.status == "FINISHED"
    assert (run.info.start_time, run.info.end_time) == (T0, T0 + 2000)
    assert run.data.params == {
        "dataset": "shapes", "split": "1/8", "method": "u2pl", "seed": "0",
        "recipe.backbone": "resnet10", "recipe.batch": "2", "recipe.crop": "32", "recipe.epochs": "3",
        "recipe.evaluation": "whole", "recipe.lr": "0.001", "recipe.scale": "[0.5, 2.0]",
        "u2pl.alpha0": "0.2", "u2pl.dpa": "true", "alpha0": "0.2", "dpa": "true",
    }  # fmt: skip
    assert {"host": "here", "threads": "2", "u2pl.fingerprint": "f" * 16}.items() <= run.data.tags.items()
    assert history(store, run.info.run_id, "loss") == [(1, 1.5), (2, 1.25)]
    assert history(store, run.info.run_id, "val/miou") == [(2, 40.0)]
    assert [run.data.metrics[f"miou_{key}"] for key in ("reported", "last", "best")] == [50.0, 49.0, 51.0]
    point = store.client.get_metric_history(run.info.run_id, "val/miou")[0]
    assert point.timestamp == T0 + 2500
    files = {f.path for f in store.client.list_artifacts(run.info.run_id)}
    lists = {"labeled.txt", "unlabeled.txt", "val.txt"}
    assert files == lists | {"settings.yaml", "metrics.json", "examples.png"}


def test_the_run_folder_says_where_its_mlflow_run_is(project):
    folder = make_run(project, "one", *CURVE, event("end", 2), miou=40.0)
    run = Store(project).mirror(folder)
    where = read_json(folder / "tracking.json")
    assert (where["store"], where["run"]) == (default_uri(project), run)
    assert where["fingerprint"] == read_json(folder / "run.json")["fingerprint"]


def test_syncing_again_leaves_the_store_as_it_was(project):
    make_run(project, "twice", *CURVE, event("end", 2), miou=50.0)
    make_run(project, "twice-open", *CURVE)
    make_ablation(project, "twice-by-alpha0", {"0.1": "twice", "0.3": "twice-open"})
    sync(project)
    before, files = rows(project), contents(project)
    assert sync(project).problems == []
    assert rows(project) == before
    assert contents(project) == files


def test_a_later_sync_adds_what_has_happened_since(project):
    folder = make_run(project, "grows", *CURVE[:2])
    store = Store(project)
    store.mirror(folder)
    write_events(folder, *CURVE[2:])
    assert store.mirror(folder) == Store(project).mirror(folder)
    (run,) = runs_named(store, "grows")
    assert history(store, run.info.run_id, "loss") == [(1, 1.5), (2, 1.25)]


def test_a_repeated_step_counts_once_and_its_last_event_counts(project):
    again = [event("resume", 1), event("step", 2, at=9000, loss=1.0), event("step", 3, loss=0.5)]
    folder = make_run(project, "resumed", *CURVE, *again)
    store = Store(project)
    assert history(store, store.mirror(folder), "loss") == [(1, 1.5), (2, 1.0), (3, 0.5)]


def test_a_repeated_step_that_was_mirrored_before_is_not_sent_again(project):
    folder = make_run(project, "resumed-live", *CURVE)
    store = Store(project)
    run_id = store.mirror(folder)
    write_events(folder, event("resume", 1), event("step", 2, at=9000, loss=1.25), event("step", 3, loss=0.5))
    assert Store(project).mirror(folder) == run_id
    assert history(store, run_id, "loss") == [(1, 1.5), (2, 1.25), (3, 0.5)]


def test_a_value_that_step_and_epoch_both_report_arrives_once(project):
    folder = make_run(project, "both", *CURVE)
    store = Store(project)
    assert history(store, store.mirror(folder), "lr") == [(1, 0.01), (2, 0.005)]


def test_a_half_written_last_line_waits_until_it_is_whole(project):
    folder = make_run(project, "half", *CURVE[:2])
    store = Store(project)
    line = json.dumps(CURVE[2]) + "\n"
    with (folder / "events.jsonl").open("a") as file:
        file.write(line[:25])
    run_id = store.mirror(folder)
    assert history(store, run_id, "loss") == [(1, 1.5)]
    with (folder / "events.jsonl").open("a") as file:
        file.write(line[25:])
    store.mirror(folder)
    assert history(store, run_id, "loss") == [(1, 1.5), (2, 1.25)]


def test_a_line_damaged_by_a_killed_writer_is_passed_over(project):
    folder = make_run(project, "damaged", CURVE[1])
    with (folder / "events.jsonl").open("a") as file:
        file.write('{"time": 17, "eve\n')
    write_events(folder, CURVE[2])
    store = Store(project)
    assert history(store, store.mirror(folder), "loss") == [(1, 1.5), (2, 1.25)]


def test_a_long_run_takes_several_calls_and_loses_nothing(project):
    curve = [event("step", step, **{f"m{k}": float(step) for k in range(7)}) for step in range(1, 201)]
    store = Store(project)
    run_id = store.mirror(make_run(project, "long", *curve))
    assert [step for step, _ in history(store, run_id, "m6")] == list(range(1, 201))


@pytest.mark.parametrize(
    ("last", "miou", "held", "status"),
    [
        ("end", 50.0, False, "FINISHED"),
        (
            "end",
            50.0,
            True,
            "FINISHED",
        ),  # its trainer closes the side process before it lets go of the folder
        ("failed", None, False, "FAILED"),
        ("interrupted", None, False, "KILLED"),
        ("start", None, False, "KILLED"),
        ("start", None, True, "RUNNING"),
        ("resume", None, True, "RUNNING"),
    ],
)
def test_the_status_follows_the_folder(project, last, miou, held, status):
    name = f"{last}-{miou}-{held}"
    folder = make_run(project, name, *CURVE, event("failed", 2), event(last, 2), miou=miou)
    lock = FileLock(folder / "lock")
    if held:
        lock.acquire()
    store = Store(project)
    store.mirror(folder)
    assert runs_named(store, name)[0].info.status == status
    lock.release()


def test_a_run_that_ends_while_it_is_mirrored_ends_when_its_last_event_says(project, monkeypatch):
    folder = make_run(project, "ends", *CURVE[:2])
    store = Store(project)
    send = Store._send

    def end_meanwhile(*arguments: Any) -> None:
        send(*arguments)
        if not (folder / "metrics.json").exists():
            write_events(folder, *CURVE[2:], event("end", 2, at=7000))
            finish(folder, 50.0)

    monkeypatch.setattr(Store, "_send", end_meanwhile)
    store.mirror(folder, running=True)
    store.mirror(folder, running=False)
    (run,) = runs_named(store, "ends")
    assert (run.info.status, run.info.end_time) == ("FINISHED", T0 + 7000)
    assert [p.timestamp for p in store.client.get_metric_history(run.info.run_id, "miou_last")] == [T0 + 7000]


def test_a_resumed_run_is_running_again_under_the_same_id(project):
    folder = make_run(project, "goes-on", *CURVE, event("interrupted", 2))
    store = Store(project)
    run_id = store.mirror(folder)
    write_events(folder, event("resume", 2))
    assert store.mirror(folder, running=True) == run_id
    assert store.client.get_run(run_id).info.status == "RUNNING"


def test_a_damaged_folder_is_named_and_the_others_are_mirrored(project):
    (make_run(project, "bad") / "run.json").write_text("{")
    make_run(project, "good", *CURVE)
    summary = sync(project)
    assert summary.runs == 1 and "bad was not mirrored" in summary.problems[0]


def test_only_the_runs_named_are_mirrored(project):
    make_run(project, "wanted", *CURVE)
    make_run(project, "unwanted", *CURVE)
    assert sync(project, runs=["wanted"]).runs == 1
    assert runs_named(Store(project), "unwanted") == []
    with pytest.raises(UsageError, match="Did you mean 'wanted'"):
        sync(project, runs=["wantd"])


@settings(max_examples=100, deadline=None)
@given(st.text(min_size=1))
def test_mlflow_takes_every_metric_name(name):
    from mlflow.utils.validation import _validate_metric_name

    _validate_metric_name(metric_name(name))


def test_two_classes_whose_names_become_one_stay_two(project):
    clash = {"val__iou__x!": 1.0, "val__iou__x?": 2.0, "val__iou__x_": 3.0, "val__iou__y": 4.0}
    folder = make_run(project, "clash", event("epoch", 1, 0, **clash))
    write_events(folder, event("epoch", 2, 1, **{"val__iou__x?": 5.0}))
    store = Store(project)
    run_id = store.mirror(folder)
    assert history(store, run_id, "val/iou/x_") == [(1, 3.0)]
    assert history(store, run_id, "val/iou/y") == [(1, 4.0)]
    metrics = store.client.get_run(run_id).data.metrics
    others = sorted(name for name in metrics if name.startswith("val/iou/x_-"))
    assert sorted(metrics[name] for name in others) == [1.0, 5.0]
    assert [len(history(store, run_id, name)) for name in sorted(others, key=metrics.__getitem__)] == [1, 2]
    write_events(folder, event("epoch", 3, 2, **{"val__iou__x!": 6.0}))
    assert Store(project).mirror(folder) == run_id
    assert sorted(store.client.get_run(run_id).data.metrics) == sorted(metrics)


def test_usual_metric_names_stay_as_they_are():
    assert metric_name("val/iou/traffic light") == "val/iou/traffic light"
    assert metric_name("val/iou/a=b") == "val/iou/a_b"


# ---- ablations -----------------------------------------------------------------------------------------


def make_ablation(project: Project, name: str, values: dict[str, str]) -> Path:
    folder = project.runs / ".ablations" / name
    folder.mkdir(parents=True)
    entries = []
    for value, run in values.items():
        metrics = project.runs / run / "metrics.json"
        miou = read_json(metrics)["miou"] if metrics.exists() else {}
        found = {f"miou_{key}": miou.get(key) for key in ("reported", "last", "best")}
        entries.append({"value": value, "run": run, **found})
    facts = {"name": name, "uid": uuid.uuid4().hex, "parameter": "u2pl.alpha0", "method": "u2pl"}
    write_json(
        folder / "ablation.json", facts | {"dataset": "shapes", "split": "1/8", "seed": 0, "runs": entries}
    )
    return folder


@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")  # as it is meant to be
def test_an_ablation_is_mirrored_by_a_process_that_nobody_waits_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("U2PL_TRACKING", raising=False)
    project, mirrored = Project(tmp_path), tmp_path / "mirrored"
    assert sidecar.sync_ablation(project, "by-alpha0", wait=False) is None  # nothing was recorded
    make_ablation(project, "by-alpha0", {})
    # Stands in for MLflow: it takes its time once its owner has let go of it.
    script = f"import sys, time; sys.stdin.read(); time.sleep(0.5); open({str(mirrored)!r}, 'w')"
    monkeypatch.setattr(sidecar, "_command", lambda *_: [sys.executable, "-c", script])
    assert sidecar.sync_ablation(project, "by-alpha0", wait=False) is None
    assert not mirrored.exists()
    wait_until(mirrored.exists, 20)


def test_an_ablation_is_a_run_that_refers_to_one_a_value(project):
    make_run(project, "own", *CURVE, parent="by-alpha0", miou=50.0)
    make_run(project, "reused", *CURVE, miou=60.0)
    make_ablation(project, "by-alpha0", {"0.1": "own", "0.2": "reused"})
    assert sync(project).ablations == 1
    store = Store(project)
    (parent,) = runs_named(store, "by-alpha0")
    assert parent.data.params["parameter"] == "u2pl.alpha0" and parent.info.status == "FINISHED"
    assert history(store, parent.info.run_id, "miou_reported") == [(0, 50.0), (1, 60.0)]
    assert history(store, parent.info.run_id, "miou_last") == [(0, 49.0), (1, 59.0)]
    files = [file.path for file in store.client.list_artifacts(parent.info.run_id)]
    assert files == ["ablation.json", "comparison.json"]

    (own,), (reused,) = runs_named(store, "own"), runs_named(store, "reused")
    assert own.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert "mlflow.parentRunId" not in reused.data.tags
    assert [run.data.tags["u2pl.ablation/by-alpha0"] for run in (own, reused)] == ["0.1", "0.2"]
    note = parent.data.tags["mlflow.note.content"]
    assert "`u2pl.alpha0`" in note
    for value, miou, run in (("0.1", "50.00", own), ("0.2", "60.00", reused)):
        address = f"#/experiments/{store.experiment}/runs/{run.info.run_id}"
        assert f"| `{value}` | {miou} | [{run.info.run_name}]({address}) |" in note
    table = store.client.download_artifacts(parent.info.run_id, "comparison.json")
    assert [(row[0], row[1], row[4]) for row in read_json(Path(table))["data"]] == [
        ("0.1", 50.0, "own"),
        ("0.2", 60.0, "reused"),
    ]


def test_the_copies_that_earlier_versions_made_for_an_ablation_go(project):
    folder = make_run(project, "copied", *CURVE, miou=60.0)
    make_run(project, "trained", *CURVE, parent="with-copies", miou=50.0)
    make_ablation(project, "with-copies", {"0.1": "trained", "0.2": "copied"})
    store = Store(project)
    parent = store._ablation("with-copies")
    uid = read_json(folder / "run.json")["uid"]
    tags = {"u2pl.uid": uid, "u2pl.parent": "with-copies", "u2pl.kind": "run", "u2pl.name": "copied"}
    tags["mlflow.parentRunId"] = parent.info.run_id
    copy = store.client.create_run(store.experiment, tags=tags).info.run_id
    assert sync(project).problems == []
    assert store.client.get_run(copy).info.lifecycle_stage == "deleted"
    assert [run.info.run_id for run in runs_named(store, "copied")] != [copy]
    assert len(runs_named(store, "copied")) == len(runs_named(store, "trained")) == 1


def test_a_run_mirrored_before_its_ablation_was_recorded_becomes_its_child(project):
    folder = make_run(project, "early", *CURVE, parent="late-record")
    store = Store(project)
    run_id = store.mirror(folder)
    finish(folder, 50.0)
    parent_id = store.mirror_ablation(make_ablation(project, "late-record", {"0.1": "early"}))
    assert store.client.get_run(run_id).data.tags["mlflow.parentRunId"] == parent_id
    assert len(runs_named(store, "early")) == 1


# ---- reports -------------------------------------------------------------------------------------------


def make_report(project: Project, *names: str) -> Path:
    page = project.root / "reports" / "index.html"
    page.parent.mkdir(exist_ok=True)
    page.write_text("".join(f"<p>{name}</p>" for name in names))
    folder = project.runs / ".reports" / "reports_index.html"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "report.json").exists():
        write_json(folder / "report.json", {"page": "reports/index.html", "uid": uuid.uuid4().hex})
    return folder


def note_of(store: Store, name: str) -> str:
    (run,) = runs_named(store, name)
    return str(run.data.tags["mlflow.note.content"])


def test_a_run_links_to_the_page_that_shows_it_once_that_is_written(tmp_path):
    project = Project(tmp_path)
    for name in ("shown", "shown-too", "hidden"):
        make_run(project, name, *CURVE, miou=50.0)
    make_ablation(project, "compares", {"0.1": "shown"})
    sync(project)
    store = Store(project)
    assert "No page shows it yet" in note_of(store, "shown")
    page = store.mirror_report(make_report(project, "shown", "shown-too"))
    link = f"Page: [reports/index.html](#/experiments/{store.experiment}/runs/{page}/artifacts/index.html)."
    assert link in note_of(store, "shown") and link in note_of(store, "shown-too")
    assert "No page shows it yet" in note_of(store, "hidden")
    file = store.client.download_artifacts(page, "index.html")
    assert Path(file).read_text() == "<p>shown</p><p>shown-too</p>"
    sync(project)
    assert link in note_of(store, "compares")
    before = rows(project)
    assert sync(project).problems == [] and rows(project) == before
    make_report(project, "hidden")
    sync(project)
    assert link in note_of(Store(project), "hidden") and link not in note_of(Store(project), "shown")
    assert len(store.client.search_runs([store.experiment], "tags.`u2pl.kind` = 'report'")) == 1


def test_a_page_that_is_gone_is_named(project):
    folder = make_report(project, "x")
    (project.root / "reports" / "index.html").unlink()
    (problem,) = sync(project).problems
    assert problem.startswith("The report reports_index.html was not mirrored: There is no ")
    shutil.rmtree(folder)


@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")  # as it is meant to be
def test_a_page_is_mirrored_by_a_process_that_nobody_waits_for(tmp_path):
    project = Project(tmp_path)
    make_report(project, "x")
    shutil.rmtree(project.runs)
    assert sidecar.sync_report(project, tmp_path / "reports" / "index.html") is None
    store = Store(project)
    wait_until(lambda: store.client.search_runs([store.experiment], "tags.`u2pl.kind` = 'report'"), 60)
    outside = tmp_path.parent / "elsewhere.html"
    assert sidecar.sync_report(project, outside) is None
    (blocked := Project(tmp_path / "blocked")).root.mkdir()
    (blocked.root / "runs").write_text("no folder")
    assert "cannot be written" in str(sidecar.sync_report(blocked, blocked.root / "index.html"))
    assert [path.name for path in (project.runs / ".reports").iterdir()] == ["reports_index.html"]


# ---- the load of the machine ---------------------------------------------------------------------------


def test_the_load_of_the_machine_arrives_once_and_beside_the_steps(project):
    folder = make_run(project, "loaded", *CURVE)
    samples = [event("system", step, system__cpu_utilization_percentage=10.0 * step) for step in range(3)]
    (folder / "system.jsonl").write_text("".join(json.dumps(each) + "\n" for each in samples[:2]))
    store = Store(project)
    run_id = store.mirror(folder)
    with (folder / "system.jsonl").open("a") as file:
        file.write(json.dumps(samples[2]) + "\n")
    for opened in (store, Store(project)):
        assert opened.mirror(folder) == run_id
        found = history(opened, run_id, "system/cpu_utilization_percentage")
        assert found == [(0, 0.0), (1, 10.0), (2, 20.0)]
        assert history(opened, run_id, "loss") == [(1, 1.5), (2, 1.25)]


# ---- stores --------------------------------------------------------------------------------------------


def test_the_address_does_not_depend_on_the_current_folder(project, monkeypatch):
    monkeypatch.chdir("/")
    assert default_uri(project) == f"sqlite:///{project.root}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///other/store.db")
    assert default_uri(project) == f"sqlite:///{project.root}/other/store.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert default_uri(project) == "http://127.0.0.1:5000"


SECRET_ADDRESSES = [
    ("postgresql://user:p4ss@w0rd/s3cret:x9@127.0.0.1:1/db", ("p4ss", "w0rd", "s3cret", "x9")),
    ("mysql+pymysql://user:s3c%40ret@127.0.0.1:1/db?ssl_key=k3y", ("s3c@ret", "s3c%40ret", "k3y")),
    ("https://t0ken@127.0.0.1:1", ("t0ken",)),
    ("http://user:s3cret@127.0.0.1:1?password=s3same&token=t0ken", ("s3cret", "s3same", "t0ken")),
    ("http://user:pa:s3cret@127.0.0.1:1/#t0ken", ("s3cret", "t0ken")),
    ("http://user:s3cret@127.0.0.1:no-port", ("s3cret",)),
    ("user:s3cret@host", ("s3cret",)),
]


@pytest.mark.parametrize(("address", "secrets"), SECRET_ADDRESSES)
def test_no_secret_of_an_address_leaves_the_program(project, u2pl_process, monkeypatch, address, secrets):
    folder = make_run(project, "told", *CURVE)
    environment = {"MLFLOW_TRACKING_URI": address, "MLFLOW_TRACKING_PASSWORD": "envs3cret"}
    said = [u2pl_process("track", "sync", *words, **environment) for words in ((), ("--debug",))]
    assert all(done.returncode == 1 for done in said)
    texts = [done.stdout + done.stderr for done in said]
    assert "run: u2pl track sync" in texts[0] and "Traceback" in texts[1]
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    warning = Sidecar.start(project, folder).close()
    texts += [str(warning), *(path.read_text(errors="replace") for path in folder.glob("tracking.*"))]
    assert warning is not None and len(texts) > 3
    for secret in (*secrets, "envs3cret"):
        assert not [text for text in texts if secret in text]


def test_what_says_where_a_run_is_says_no_password(project, monkeypatch):
    folder = make_run(project, "placed", *CURVE)
    store = Store(project)
    store.uri = "http://user:s3cret@host/?token=t0ken"
    store._write_tracked_run(folder, "id", "f")
    assert read_json(folder / "tracking.json")["store"] == "http://user:***@host/?token=***"


FOLDERS = ["a%20b", "a?b#c", "a b'ä"]


@pytest.mark.parametrize("name", FOLDERS)
def test_a_project_folder_of_any_name_has_its_store_inside(tmp_path, u2pl_process, name):
    project = Project(tmp_path / name)
    project.root.mkdir()
    for file in ("params.yaml", "dvc.yaml"):
        (project.root / file).write_text("{}\n")
    folder = make_run(project, "one", *CURVE, event("end", 2), miou=50.0)
    done = u2pl_process("track", "sync", cwd=project.root)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {name}
    inside = {path.name for path in project.root.iterdir()}
    assert inside == {"params.yaml", "dvc.yaml", "runs", "mlflow.db", "mlflow.db.lock", "mlartifacts"}
    with sqlite3.connect(project.root / "mlflow.db") as database:
        assert database.execute("select name from runs").fetchall() == [("one",)]
    database.close()
    assert list((project.root / "mlartifacts").rglob("metrics.json"))
    address = shlex.split(done.stdout.splitlines()[1])[-1]
    assert sqlite_file(address) == (project.root / "mlflow.db", "")
    result = Result(folder, read_json(folder / "metrics.json") | read_json(folder / "run.json"))
    assert links(project, [result]).commands == ["mlflow ui --backend-store-uri sqlite:///mlflow.db"]


def spoil(project: Project, kind: str) -> None:
    database = project.root / "mlflow.db"
    match kind:
        case "is a folder":
            database.mkdir()
        case "is not a database":
            database.write_text("hello\n" * 1000)
        case "is a link to a file that is not there":
            database.symlink_to(project.root / "gone.db")
        case "mlartifacts is no folder":
            (project.root / "mlartifacts").write_text("")
        case "is no file":
            os.mkfifo(database)


@pytest.mark.parametrize(
    "kind",
    [
        *("is a folder", "is not a database", "is a link to a file that is not there"),
        *("mlartifacts is no folder", "is no file"),
    ],
)
def test_what_is_no_store_is_one_sentence_at_once(tmp_path, kind):
    project = Project(tmp_path)
    folder = make_run(project, "waits", *CURVE)
    spoil(project, kind)
    begun = time.monotonic()
    with pytest.raises(UserError, match=rf"{kind}.* then run: u2pl track sync"):
        sync(project)
    warning = Sidecar.start(project, folder).close()
    assert warning is not None and kind in warning and warning.endswith("run: u2pl track sync")
    assert time.monotonic() - begun < 30  # it was two minutes
    assert not (folder / "tracking.log").exists()


def test_a_store_that_is_read_only_is_one_sentence(tmp_path, monkeypatch):
    project = Project(tmp_path)
    (tmp_path / "mlflow.db").touch()
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    with pytest.raises(UserError, match="read-only"):
        sync(project)


def test_a_store_that_cannot_be_opened_is_a_readable_error(project):
    (project.root / "broken.db").write_text("not a database, however long one looks at it")
    with pytest.raises(UserError, match=r"cannot be opened: .* then run: u2pl track sync"):
        sync(project, f"sqlite:///{project.root}/broken.db")


EIGHT = """
import os, sys, warnings
from pathlib import Path
from u2pl.project import Project
from u2pl.reporting.links import links
from u2pl.reporting.results import Result
from u2pl.tracking import mirror
from u2pl.tracking.addresses import sqlite_file
warnings.simplefilter("ignore")
import mlflow.store.tracking.sqlalchemy_store, alembic.command
project = Project(Path(sys.argv[1]))
children = []
for folder in sorted(project.runs.iterdir()):
    if child := os.fork():
        children.append(child)
        continue
    status = 1
    try:
        mirror.Store(project).mirror(folder)
        status = 0
    finally:
        os._exit(status)
print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])
"""


def test_eight_processes_at_once_make_one_store_that_holds_all_their_runs(tmp_path):
    # Forked after the import, so that they really meet and two cores have time for them.
    project = Project(tmp_path)
    for number in range(8):
        make_run(project, f"run{number}", *CURVE)
    done = subprocess.run(
        [sys.executable, "-c", EIGHT, str(tmp_path)], capture_output=True, text=True, timeout=80
    )
    assert done.stdout == f"{[0] * 8}\n", done.stderr
    store = Store(project)
    assert len(store.client.search_experiments(filter_string="name = 'u2pl'")) == 1
    assert [len(runs_named(store, f"run{number}")) for number in range(8)] == [1] * 8


@pytest.mark.slow
def test_eight_side_processes_that_start_at_once_make_one_store_that_is_whole(tmp_path, monkeypatch):
    # They give way to other processes; on a busy machine a minute may be too little for eight.
    monkeypatch.setattr(sidecar, "LAST_MIRROR_SECONDS", 300)
    project = Project(tmp_path)
    folders = [make_run(project, f"run{number}", *CURVE) for number in range(8)]
    sidecars = [Sidecar.start(project, folder) for folder in folders]
    for folder in folders:
        write_events(folder, event("end", 2))
        finish(folder, 50.0)
    assert [each.close(timeout=300) for each in sidecars] == [None] * 8
    live = contents(project)
    assert len(live) == 8
    assert sync(project, f"sqlite:///{tmp_path}/rebuilt.db").runs == 8
    assert live == contents(project, f"sqlite:///{tmp_path}/rebuilt.db")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    made = Server(tmp_path)
    made.start()
    yield made.address
    made.kill()


@pytest.mark.slow
def test_a_server_receives_the_same_once(project, server):
    make_run(project, "served", *CURVE, event("end", 2), miou=50.0)
    for _ in range(2):
        assert sync(project, server).problems == []
    store = Store(project, server)
    (run,) = runs_named(store, "served")
    assert run.info.status == "FINISHED" and run.data.params["u2pl.alpha0"] == "0.2"
    assert history(store, run.info.run_id, "loss") == [(1, 1.5), (2, 1.25)]
    assert "examples.png" in [file.path for file in store.client.list_artifacts(run.info.run_id)]


# ---- the side process ----------------------------------------------------------------------------------


def test_importing_the_module_imports_no_mlflow():
    script = (
        "import sys, u2pl.tracking.mirror, u2pl.tracking.sidecar; "
        "print('mlflow' in sys.modules, 'torch' in sys.modules)"
    )
    assert (
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout
        == "False False\n"
    )


@pytest.mark.slow
def test_the_side_process_follows_a_run_and_ends_with_it(project):
    folder = make_run(project, "live", *CURVE[:2])
    sidecar = Sidecar.start(project, folder)
    store = Store(project)
    wait_until(lambda: runs_named(store, "live"), 40)
    assert runs_named(store, "live")[0].info.status == "RUNNING"
    write_events(folder, *CURVE[2:], event("end", 2))
    finish(folder, 50.0)
    assert sidecar.close() is None and sidecar.close() is None
    (run,) = runs_named(store, "live")
    assert run.info.status == "FINISHED" and history(store, run.info.run_id, "val/miou") == [(2, 40.0)]


OWNER = """
import sys, time
from pathlib import Path
from filelock import FileLock
from u2pl.project import Project
from u2pl.reporting.links import links
from u2pl.reporting.results import Result
from u2pl.tracking.sidecar import Sidecar
folder = Path(sys.argv[2])
with FileLock(folder / "lock"):
    sidecar = Sidecar.start(Project(Path(sys.argv[1])), folder)
    print(sidecar._process.pid, flush=True)
    time.sleep(60)
"""


@pytest.mark.slow
def test_when_its_owner_is_killed_the_side_process_says_so_and_goes(project):
    folder = make_run(project, "shot", *CURVE)
    command = [sys.executable, "-c", OWNER, str(project.root), str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        owner.kill()
    wait_until(lambda: not alive(pid), 40)
    (run,) = runs_named(Store(project), "shot")
    assert run.info.status == "KILLED" and run.data.metrics["loss"] == 1.25


def alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_dead_store_costs_a_warning_and_no_more(project, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    folder = make_run(project, "unheard", *CURVE)
    begun = time.monotonic()
    warning = Sidecar.start(project, folder).close()
    assert warning is not None and warning.endswith("run: u2pl track sync")
    assert time.monotonic() - begun < 30
    assert "Max retries exceeded" in (folder / "tracking.log").read_text()


def test_a_side_process_that_hangs_is_killed(project, monkeypatch):
    with socket.socket() as silent:  # accepts connections and never answers
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        sidecar = Sidecar.start(project, make_run(project, "stuck", *CURVE))
        begun = time.monotonic()
        warning = sidecar.close(timeout=0.5)
    assert warning is not None and time.monotonic() - begun < 5


def test_tracking_can_be_switched_off(project, monkeypatch):
    monkeypatch.setenv("U2PL_TRACKING", "none")
    folder = make_run(project, "untracked", *CURVE)
    assert Sidecar.start(project, folder).close() is None
    assert not (folder / "tracking.log").exists()


def test_a_folder_that_cannot_be_written_costs_a_warning(project):
    warning = Sidecar.start(project, project.runs / "nowhere").close()
    assert warning is not None and "Tracking did not start" in warning


# ---- the command ---------------------------------------------------------------------------------------


@pytest.fixture
def u2pl(project: Project, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    from u2pl_cli.app import run

    monkeypatch.setenv("U2PL_ROOT", str(project.root))
    return lambda *words: run(list(words))


@pytest.fixture
def u2pl_process(project: Project) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """`u2pl` in a process of its own, in which nothing stands between it and its streams."""

    def run(*words: str, cwd: Path = project.root, **environment: str) -> "subprocess.CompletedProcess[str]":
        return forked.run(*words, cwd=cwd, environment=os.environ | environment)

    return run


def test_track_sync_says_where_the_store_lies_and_how_to_look_at_it(project, u2pl, capsys):
    make_run(project, "seen", *CURVE)
    assert u2pl("track", "sync") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        f"Mirrored into sqlite:///{project.root}/mlflow.db: runs 1, ablations 0.",
        f"Look at them with: mlflow ui --backend-store-uri sqlite:///{project.root}/mlflow.db",
    ]


def test_track_sync_fails_for_an_unknown_run_and_for_a_damaged_one(project, u2pl, capsys):
    (make_run(project, "torn") / "run.json").write_text("{")
    assert u2pl("track", "sync", "tron") == 2
    assert u2pl("track", "sync") == 1
    assert "torn was not mirrored" in capsys.readouterr().err


def test_track_sync_helps_with_an_example(u2pl, capsys):
    assert u2pl("track", "sync", "--help") == 0
    assert "Example: u2pl track sync" in capsys.readouterr().out
