"""Brings the MLflow runs of run folders and ablations up to date; doing it again adds nothing."""

import json
import sys
import time
from collections.abc import Mapping
from contextlib import closing, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from u2pl.errors import UserError, unknown
from u2pl.files import is_held, sha256, write_text
from u2pl.project import Project
from u2pl.runs.records import Ablation, AblationRow, Event, read_metrics, read_run
from u2pl.settings import value_text
from u2pl.tracking.addresses import HidingStream, hidden
from u2pl.tracking.events import EventLog, finite, in_batches, milliseconds
from u2pl.tracking.store import artifacts_of, client_of, default_uri, installed, prepare_store
from u2pl.typed_files import read

if TYPE_CHECKING:
    from mlflow.entities import Run

METRICS_PER_CALL, PARAMS_PER_CALL = 1000, 100  # MLflow's own limits
UID, PARENT, MIRRORED = "u2pl.uid", "u2pl.parent", "u2pl.mirrored"
TRACKED_RUN = "tracking.json"
"""File of a run folder that says where its MLflow run is: store, experiment, run."""


class Store:
    """An opened MLflow store into which run folders are mirrored.

    Raises whatever MLflow raises; after an error take a new one.
    """

    def __init__(self, project: Project, uri: str | None = None):
        self.project = project
        self.uri = uri or default_uri(project)
        self.experiment = prepare_store(self.uri, artifacts_of(project))
        self.client = client_of(self.uri)
        self._ids: dict[tuple[str, str | None], str] = {}
        self._logs: dict[tuple[Path, str | None], EventLog] = {}

    def mirror(self, folder: Path, ablation: str | None = None, running: bool | None = None) -> str:
        """Bring the MLflow run of a run folder up to date and return its id.

        A (metric, step) is sent once: a resumed run that repeats steps keeps the points already there.

        Args:
            folder: `runs/NAME`.
            ablation: the ablation to stand under, as a second run if it is not the one it was trained for.
            running: whether its trainer lives; None asks the folder's lock.
        """
        facts = read_run(folder)
        under = ablation or facts["parent"]
        log = self._logs.setdefault((folder, under), EventLog(folder / "events.jsonl"))
        tags = facts["tags"] | {"u2pl.kind": "run", "u2pl.name": facts["name"]}
        tags["u2pl.fingerprint"] = facts["fingerprint"]
        if under and (parent := self._ablation(under)):
            tags["mlflow.parentRunId"] = parent.info.run_id
        params = {key: facts[key] for key in ("dataset", "split", "method", "seed")}
        for section, values in (("recipe", facts["recipe"]), (facts["method"], facts["hyper"])):
            params |= {f"{section}.{key}": value for key, value in values.items()}

        with FileLock(folder / "tracking.lock"):
            run = self._run(facts["uid"], under, facts["name"], milliseconds(facts["created"]))
            self._describe(run, params, tags)
            mirrored = json.loads(run.data.tags.get(MIRRORED, '{"step": -1, "epoch": -1, "files": {}}'))
            # Asked before the events are read: metrics.json is written after the last of them, whose time counts.
            metrics = folder / "metrics.json"
            finished = metrics.exists()
            self._send(run, log.measurements(), mirrored)
            if finished:
                self._send_result(run, read_metrics(folder), log.time)
            names = ("settings.yaml", "labeled.txt", "unlabeled.txt", "val.txt", "metrics.json")
            samples = sorted((folder / "samples").glob("*.png"))
            self._upload(run, [*(folder / name for name in names), *samples], folder, mirrored)
            self._set_status(run, _status(folder, finished, log.state, running), log.time)
            if under == facts["parent"]:
                self._write_tracked_run(folder, run.info.run_id, facts["fingerprint"])
        return run.info.run_id

    def _write_tracked_run(self, folder: Path, run: str, fingerprint: str) -> None:
        """Write into the run folder where its MLflow run is, so that a report can link to it without MLflow."""
        where = {"store": hidden(self.uri, self.uri), "experiment": self.experiment, "run": run}
        text = json.dumps(where | {"fingerprint": fingerprint}, indent=2) + "\n"
        if not (path := folder / TRACKED_RUN).exists() or path.read_text() != text:
            write_text(path, text)

    def mirror_ablation(self, folder: Path, running: bool | None = None) -> str:
        """Bring an ablation up to date, one parent run and one child a value, and return the parent's id.

        A run trained for the ablation is the child itself. Of a run that was only reused, and is finished,
        the parent gets a copy, since an MLflow run has one parent.

        Args:
            folder: `runs/.ablations/NAME`.
            running: whether the ablation is still at work; None asks the folder's lock.
        """
        facts = read(Ablation, folder / "ablation.json")
        parent = self._ablation(facts["name"])
        assert parent is not None
        for entry in facts["runs"]:
            child = self.project.runs / entry["run"]
            if not (child / "run.json").exists():
                continue
            trained_here = read_run(child)["parent"] == facts["name"]
            if trained_here or (child / "metrics.json").exists():
                self.mirror(child, facts["name"])
        with FileLock(folder / "tracking.lock"):
            self._send_values(parent, facts["runs"])
            mirrored = json.loads(parent.data.tags.get(MIRRORED, '{"files": {}}'))
            self._upload(parent, [folder / "ablation.json"], folder, mirrored)
            finished = all(entry.get("miou_last") is not None for entry in facts["runs"])
            self._set_status(parent, _status(folder, finished, "start", running), int(time.time() * 1000))
        return parent.info.run_id

    def _ablation(self, name: str) -> "Run | None":
        """The parent run of an ablation, with its parameters; None where no folder describes it."""
        folder = self.project.runs / ".ablations" / name
        if not (folder / "ablation.json").exists():
            return None
        facts = read(Ablation, folder / "ablation.json")
        params = {key: facts[key] for key in ("parameter", "method", "dataset", "split", "seed")}
        with FileLock(folder / "tracking.lock"):
            run = self._run(facts["uid"], None, facts["name"], int(time.time() * 1000))
            self._describe(run, params, {"u2pl.kind": "ablation", "u2pl.name": facts["name"]})
        return run

    def _run(self, uid: str, under: str | None, name: str, started: int) -> "Run":
        """The MLflow run of `uid` under the ablation `under`, created where it is missing."""
        if (uid, under) not in self._ids:
            found = self.client.search_runs([self.experiment], f"tags.`{UID}` = '{uid}'")
            matching = [run.info.run_id for run in found if run.data.tags.get(PARENT) == under]
            tags = {UID: uid} | ({PARENT: under} if under else {})
            self._ids[uid, under] = (
                matching[0]
                if matching
                else self.client.create_run(self.experiment, started, tags, name).info.run_id
            )
        return self.client.get_run(self._ids[uid, under])

    def _describe(self, run: "Run", params: Mapping[str, Any], tags: Mapping[str, Any]) -> None:
        from mlflow.entities import Param, RunTag

        # MLflow refuses to change a parameter, and a folder never changes one.
        missing = [
            Param(key, value_text(value)) for key, value in params.items() if key not in run.data.params
        ]
        for start in range(0, len(missing), PARAMS_PER_CALL):
            self.client.log_batch(run.info.run_id, params=missing[start : start + PARAMS_PER_CALL])
        changed = [
            RunTag(key, value_text(value))
            for key, value in tags.items()
            if run.data.tags.get(key) != value_text(value)
        ]
        if changed:
            self.client.log_batch(run.info.run_id, tags=changed)

    def _send(self, run: "Run", events: list[Event], mirrored: dict[str, Any]) -> None:
        """Log the metrics of the events beyond the marks in `mirrored`, and move those with each call."""
        from mlflow.entities import Metric, RunTag

        new = [each for each in events if each["step"] > mirrored[each["event"]]]
        for batch in in_batches(new, METRICS_PER_CALL):
            metrics = [
                Metric(name, value, each["time"], each["step"])
                for each in batch
                for name, value in finite(each["metrics"]).items()
            ]
            for each in batch:
                mirrored[each["event"]] = each["step"]
            self.client.log_batch(run.info.run_id, metrics, tags=[RunTag(MIRRORED, json.dumps(mirrored))])

    def _send_result(self, run: "Run", result: Mapping[str, Any], when: int) -> None:
        from mlflow.entities import Metric

        # A result of an earlier version has no `reported`.
        values = finite({f"miou_{key}": result["miou"].get(key) for key in ("reported", "last", "best")})
        new = [
            Metric(name, value, when, result["steps"])
            for name, value in values.items()
            if run.data.metrics.get(name) != value
        ]
        if new:
            self.client.log_batch(run.info.run_id, new)

    def _send_values(self, parent: "Run", entries: list[AblationRow]) -> None:
        """Log each value's mIoU on the ablation's own run, with its place in the list as the step."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        new = []
        for name in ("miou_reported", "miou_last", "miou_best"):
            history = self.client.get_metric_history(parent.info.run_id, name)
            known = {point.step: point.value for point in sorted(history, key=lambda point: point.timestamp)}
            for step, entry in enumerate(entries):
                value: Any = entry.get(name)
                if value is not None and known.get(step) != value:
                    new.append(Metric(name, value, now, step))
        if new:
            self.client.log_batch(parent.info.run_id, new)

    def _upload(self, run: "Run", paths: list[Path], folder: Path, mirrored: dict[str, Any]) -> None:
        """Log those of the files that exist and differ from what was logged before."""
        from mlflow.entities import RunTag

        changed = False
        for path in filter(Path.exists, paths):
            relative = path.relative_to(folder)
            digest = sha256(path.read_bytes())[:12]
            if mirrored["files"].get(str(relative)) != digest:
                inside = None if relative.parent == Path() else relative.parent.as_posix()
                self.client.log_artifact(run.info.run_id, str(path), inside)
                mirrored["files"][str(relative)] = digest
                changed = True
        if changed:
            self.client.log_batch(run.info.run_id, tags=[RunTag(MIRRORED, json.dumps(mirrored))])

    def _set_status(self, run: "Run", status: str, when: int) -> None:
        if status == run.info.status:
            return
        if status == "RUNNING":
            self.client.update_run(run.info.run_id, status)
        else:
            self.client.set_terminated(run.info.run_id, status, when or None)


def _status(folder: Path, finished: bool, state: str, running: bool | None) -> str:
    """MLflow's status of a run or an ablation: FINISHED, FAILED, RUNNING or KILLED."""
    if finished:
        return "FINISHED"
    if state == "failed":
        return "FAILED"
    if state == "interrupted":
        return "KILLED"
    if running is None:
        running = is_held(folder / "lock")
    return "RUNNING" if running else "KILLED"


@dataclass(frozen=True)
class Summary:
    """What `sync` did."""

    uri: str
    runs: int
    ablations: int
    problems: list[str]
    """One sentence for each folder that could not be mirrored."""


def sync(project: Project, uri: str | None = None, runs: list[str] | None = None) -> Summary:
    """Mirror run folders and ablations into the store at `uri`; doing it again changes nothing.

    Args:
        project: whose `runs/` is mirrored.
        uri: address of the store; None takes `default_uri`.
        runs: names of runs; None takes all of them, and all ablations.

    Raises:
        UsageError: a run has no folder.
        UserError: MLflow is not installed, or the store cannot be opened.
    """
    if not installed():
        raise UserError(
            "MLflow is not installed, so there is no tracking store to bring up to date. "
            "Install it, then do this again: pip install mlflow && u2pl track sync"
        )
    known = {path.parent.name: path.parent for path in sorted(project.runs.glob("*/run.json"))}
    for name in runs or ():
        if name not in known:
            raise unknown("run", name, known)
    uri = uri or default_uri(project)
    ablations = sorted(project.runs.glob(".ablations/*/ablation.json")) if runs is None else []
    folders = [("run", known[name]) for name in (known if runs is None else runs)]
    folders += [("ablation", path.parent) for path in ablations]
    # MLflow, and what it stands on, tell of their troubles in words of their own.
    with (
        closing(HidingStream(sys.stdout, uri)) as stdout,
        closing(HidingStream(sys.stderr, uri)) as stderr,
        redirect_stdout(stdout),
        redirect_stderr(stderr),
    ):
        return _sync(project, uri, folders)


def _sync(project: Project, uri: str, folders: list[tuple[str, Path]]) -> Summary:
    """Mirror folders of the kinds `run` and `ablation`."""
    try:
        store = Store(project, uri)
    except Exception as error:
        raise UserError(
            f"The tracking store {hidden(uri, uri)} cannot be opened: {reason(error, uri)}. "
            "Mend it, or set MLFLOW_TRACKING_URI to another one, then run: u2pl track sync"
        ) from error

    done, problems = {"run": 0, "ablation": 0}, []
    for kind, folder in folders:
        try:
            (store.mirror if kind == "run" else store.mirror_ablation)(folder)
            done[kind] += 1
        except Exception as error:
            # One damaged folder must not hide the others.
            problems.append(f"The {kind} {folder.name} was not mirrored: {reason(error, uri)}.")
    return Summary(uri, done["run"], done["ablation"], problems)


def reason(error: Exception, uri: str) -> str:
    """The first line of an error of the store `uri`, with its class if that is not our own."""
    lines = hidden(str(error), uri).strip().splitlines() or ["no reason given"]
    message = lines[0].rstrip(".")
    return message if isinstance(error, UserError) else f"{type(error).__name__}: {message}"
