"""Mirrors run folders into MLflow, beside training and never inside it.

`events.jsonl` is the truth about a run. A side process (`Sidecar`) copies it while the run goes on, and
`sync` rebuilds any store from the run folders. How far a store has come is written in the store itself
(tag `u2pl.mirrored`), so that mirroring again adds nothing, from whichever process or machine.
"""

import argparse
import json
import math
import os
import re
import select
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, nullcontext, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from u2pl.addresses import SQLITE, HidingStream, hidden, sqlite_address, sqlite_file
from u2pl.errors import UserError, unknown
from u2pl.files import is_held, sha256, write_atomically, write_text
from u2pl.project import Project
from u2pl.records import Ablation, AblationRow, Event, event, read, read_metrics, read_run

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

EXPERIMENT = "u2pl"
METRICS_PER_CALL, PARAMS_PER_CALL = 1000, 100  # MLflow's own limits
POLL_SECONDS, LONGEST_PAUSE_SECONDS = 5.0, 300.0
LAST_MIRROR_SECONDS = 60
"""After which a side process whose run is over gives up, so that a dead store leaves no process behind."""

UID, PARENT, MIRRORED = "u2pl.uid", "u2pl.parent", "u2pl.mirrored"
WHERE = "tracking.json"
"""File of a run folder that says where its MLflow run is: store, experiment, run."""
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # With MLflow's own timeout and retries, one call to a dead server takes four minutes.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


# ---- the store -----------------------------------------------------------------------------------------


def enabled() -> bool:
    """Whether runs start a side process; the environment variable U2PL_TRACKING=none says no."""
    return os.environ.get("U2PL_TRACKING", "").lower() != "none"


def installed() -> bool:
    """Whether there is an MLflow to import; it is not imported."""
    return find_spec("mlflow") is not None


def default_uri(project: Project) -> str:
    """Address of the store: MLFLOW_TRACKING_URI where it is set, else `mlflow.db` in the project's root.

    A relative SQLite path counts from the root, so that every current folder means the same store.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}mlflow.db"
    found = sqlite_file(uri)
    return sqlite_address(project.root / found[0], found[1]) if found else uri


def _database(uri: str) -> Path | None:
    """The file of a SQLite store, None for any other store."""
    found = sqlite_file(uri)
    return found[0] if found else None


def _artifacts(project: Project) -> Path:
    """Where the files of runs lie, if the store is a database."""
    return project.root / "mlartifacts"


def unusable(uri: str, artifacts: Path) -> str | None:
    """Why a SQLite store cannot be used, in words; None where nothing speaks against it, and for any other store.

    MLflow itself would try for two minutes.
    """
    database = _database(uri)
    if database is None:
        return None
    for folder in (*reversed(database.parents), artifacts):
        if os.path.lexists(folder) and not folder.is_dir():
            return f"{folder} is no folder"
    if not os.path.lexists(database):
        return None
    if database.is_dir():
        return f"{database} is a folder, not a database"
    if not database.exists():
        return f"{database} is a link to a file that is not there"
    if not database.is_file():
        return f"{database} is no file"
    if not all(os.access(path, os.R_OK | os.W_OK) for path in (database, database.parent)):
        return f"{database} or its folder is read-only"
    try:
        with closing(
            sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True, timeout=1)
        ) as opened:
            opened.execute("select count(*) from sqlite_master").fetchone()
    except sqlite3.OperationalError:
        return None  # as while another process writes
    except sqlite3.DatabaseError as error:
        return f"{database} is not a database ({error})"
    return None


def prepare_store(uri: str, artifacts: Path) -> str:
    """Id of the experiment `u2pl` at `uri`; the store and the experiment are created where they are missing.

    MLflow builds a fresh SQLite file in many migrations, and two processes doing so at once, or one killed
    in the middle, leave a file that nobody can open. Hence the lock, and the file made beside its place.

    Args:
        uri: address of the store.
        artifacts: folder for the files of runs, where the store is a database; a server decides for itself.

    Raises:
        UserError: it is `unusable`. Whatever else is wrong, MLflow raises.
    """

    def create(file: Path) -> None:
        _experiment(sqlite_address(file), artifacts)

    if problem := unusable(uri, artifacts):
        raise UserError(problem)
    database = _database(uri)
    if database:
        database.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{database}.lock") if database else nullcontext():
        # SQLite itself leaves an empty file where it is to open one that has been deleted.
        if database and not (database.exists() and database.stat().st_size):
            write_atomically(database, create)
        return _experiment(uri, artifacts)


def _client(uri: str) -> "MlflowClient":
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # Imported here: it costs two seconds of processor time, and only a mirror needs it.
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=uri)


def _experiment(uri: str, artifacts: Path) -> str:
    client = _client(uri)
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(EXPERIMENT)
    if found is None:
        is_database = uri.startswith(("sqlite", "postgresql", "mysql", "mssql"))
        location = artifacts.as_uri() if is_database else None
        try:
            return client.create_experiment(EXPERIMENT, artifact_location=location)
        except MlflowException:
            # A server has no lock of ours: another process may have been quicker.
            found = client.get_experiment_by_name(EXPERIMENT)
            if found is None:
                raise
    return found.experiment_id


# ---- what a run folder says ----------------------------------------------------------------------------


class EventLog:
    """Reads an `events.jsonl` while it grows."""

    def __init__(self, path: Path):
        self.path = path
        self.offset = 0
        self.state = "start"
        """The newest event that is neither a step nor an epoch: start, resume, end, failed, interrupted."""
        self.time = 0
        """Of the newest event, in milliseconds since the epoch; 0 before there is one."""
        self._step: Event | None = None
        self._names: dict[str, str] = {}

    def measurements(self) -> list[Event]:
        """The step and epoch events written since the last call, by step; of equal ones the last.

        What an epoch repeats of the step it ends with is left out. A last line without its end stays for
        the next call, and a line that is no event (its writer was killed) is passed over.
        """
        if not self.path.is_file():
            return []
        with self.path.open("rb") as file:
            file.seek(self.offset)
            written = file.read()
        whole = written[: written.rfind(b"\n") + 1]
        self.offset += len(whole)
        newest: dict[tuple[int, str], Event] = {}
        for each in filter(None, map(event, whole.splitlines())):
            self.time = each["time"]
            if each["event"] == "step":
                self._step = each
            elif each["event"] == "epoch":
                known = self._step["metrics"] if self._step and self._step["step"] == each["step"] else {}
                each["metrics"] = {k: v for k, v in each["metrics"].items() if k not in known}
            else:
                self.state = each["event"]
                continue
            each["metrics"] = self._named(each["metrics"])
            newest[each["step"], each["event"]] = each
        return [newest[key] for key in sorted(newest)]

    def _named(self, metrics: Mapping[str, Any]) -> dict[str, Any]:
        """The metrics by the names that MLflow takes, always the same in one log.

        Of two names that become one, as those of the classes `x!` and `x?`, the later gets a hash of what it was.
        """
        taken = set(self._names.values())
        # First those that stay as they are.
        for name in sorted(metrics.keys() - self._names.keys(), key=lambda name: metric_name(name) != name):
            wanted = metric_name(name)
            self._names[name] = f"{wanted[:240]}-{sha256(name)[:8]}" if wanted in taken else wanted
            taken.add(self._names[name])
        return {self._names[name]: value for name, value in metrics.items()}


def metric_name(name: str) -> str:
    """`name` as MLflow takes it: a relative path of letters, digits and `_.- :`, at most 250 characters."""
    parts = [re.sub(r"[^\w.\- :]", "_", part) for part in name.split("/")]
    return "/".join("_" if part in ("", ".", "..") else part for part in parts)[:250]


def _finite(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in metrics.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }


def _text(value: Any) -> str:
    """A parameter or tag as params.yaml would show it."""
    return value if isinstance(value, str) else json.dumps(value)


def _milliseconds(iso: str) -> int:
    return int(datetime.fromisoformat(iso).timestamp() * 1000)


def _batches(events: Iterable[Event], size: int) -> Iterator[list[Event]]:
    """The events in lists of at most `size` metrics; an event is never divided."""
    batch: list[Event] = []
    count = 0
    for each in events:
        if batch and count + len(each["metrics"]) > size:
            yield batch
            batch, count = [], 0
        batch.append(each)
        count += len(each["metrics"])
    if batch:
        yield batch


# ---- the mirror ----------------------------------------------------------------------------------------


class Store:
    """An opened MLflow store into which run folders are mirrored.

    Raises whatever MLflow raises; after an error take a new one.
    """

    def __init__(self, project: Project, uri: str | None = None):
        self.project = project
        self.uri = uri or default_uri(project)
        self.experiment = prepare_store(self.uri, _artifacts(project))
        self.client = _client(self.uri)
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
            run = self._run(facts["uid"], under, facts["name"], _milliseconds(facts["created"]))
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
                self._say_where(folder, run.info.run_id, facts["fingerprint"])
        return run.info.run_id

    def _say_where(self, folder: Path, run: str, fingerprint: str) -> None:
        """Write into the run folder where its MLflow run is, so that a report can link to it without MLflow."""
        where = {"store": hidden(self.uri, self.uri), "experiment": self.experiment, "run": run}
        text = json.dumps(where | {"fingerprint": fingerprint}, indent=2) + "\n"
        if not (path := folder / WHERE).exists() or path.read_text() != text:
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
        missing = [Param(key, _text(value)) for key, value in params.items() if key not in run.data.params]
        for start in range(0, len(missing), PARAMS_PER_CALL):
            self.client.log_batch(run.info.run_id, params=missing[start : start + PARAMS_PER_CALL])
        changed = [
            RunTag(key, _text(value)) for key, value in tags.items() if run.data.tags.get(key) != _text(value)
        ]
        if changed:
            self.client.log_batch(run.info.run_id, tags=changed)

    def _send(self, run: "Run", events: list[Event], mirrored: dict[str, Any]) -> None:
        """Log the metrics of the events beyond the marks in `mirrored`, and move those with each call."""
        from mlflow.entities import Metric, RunTag

        new = [each for each in events if each["step"] > mirrored[each["event"]]]
        for batch in _batches(new, METRICS_PER_CALL):
            metrics = [
                Metric(name, value, each["time"], each["step"])
                for each in batch
                for name, value in _finite(each["metrics"]).items()
            ]
            for each in batch:
                mirrored[each["event"]] = each["step"]
            self.client.log_batch(run.info.run_id, metrics, tags=[RunTag(MIRRORED, json.dumps(mirrored))])

    def _send_result(self, run: "Run", result: Mapping[str, Any], when: int) -> None:
        from mlflow.entities import Metric

        # A result of an earlier version has no `reported`.
        values = _finite({f"miou_{key}": result["miou"].get(key) for key in ("reported", "last", "best")})
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
            f"The tracking store {hidden(uri, uri)} cannot be opened: {_reason(error, uri)}. "
            "Mend it, or set MLFLOW_TRACKING_URI to another one, then run: u2pl track sync"
        ) from error

    done, problems = {"run": 0, "ablation": 0}, []
    for kind, folder in folders:
        try:
            (store.mirror if kind == "run" else store.mirror_ablation)(folder)
            done[kind] += 1
        except Exception as error:
            # One damaged folder must not hide the others.
            problems.append(f"The {kind} {folder.name} was not mirrored: {_reason(error, uri)}.")
    return Summary(uri, done["run"], done["ablation"], problems)


def _reason(error: Exception, uri: str) -> str:
    """The first line of an error of the store `uri`, with its class if that is not our own."""
    lines = hidden(str(error), uri).strip().splitlines() or ["no reason given"]
    said = lines[0].rstrip(".")
    return said if isinstance(error, UserError) else f"{type(error).__name__}: {said}"


# ---- the side process ----------------------------------------------------------------------------------


class Sidecar:
    """A process that mirrors one folder while its owner works; with U2PL_TRACKING=none, nothing at all.

    Neither `start` nor `close` raises, whatever the store does.
    """

    def __init__(self, folder: Path, process: subprocess.Popen[bytes] | None, problem: str | None = None):
        self._folder = folder
        self._process = process
        self._problem = problem

    @classmethod
    def start(cls, project: Project, folder: Path) -> "Sidecar":
        """Start mirroring `runs/NAME` or `runs/.ablations/NAME`; its run.json or ablation.json must exist.

        It goes on until `close`, or until this process dies.
        """
        if not enabled():
            return cls(folder, None)
        if not installed():
            return cls(
                folder,
                None,
                f"{folder.name} is not tracked, since MLflow is not installed (U2PL_TRACKING=none says that this "
                "is meant); to track it nevertheless: pip install mlflow && u2pl track sync",
            )
        if problem := unusable(default_uri(project), _artifacts(project)):
            return cls(
                folder, None, f"{folder.name} is not tracked: {problem}. Mend that, then run: u2pl track sync"
            )
        try:
            with (folder / "tracking.log").open("ab") as log:
                process = subprocess.Popen(
                    _command(project, folder, POLL_SECONDS, 0), stdin=subprocess.PIPE, stdout=log, stderr=log
                )
        except OSError as error:
            return cls(folder, None, f"Tracking did not start ({error}); run: u2pl track sync")
        return cls(folder, process)

    def close(self, timeout: float = 30) -> str | None:
        """Let the process mirror a last time and end.

        Everything about the run must be written before, since what it finds then decides the run's status.

        Args:
            timeout: seconds after which it is killed.

        Returns:
            A sentence to show where the store is behind the folder, else None.
        """
        process, self._process = self._process, None
        if process is None:
            return self._problem
        late = ""
        try:
            process.communicate(b"end", timeout)
        except subprocess.TimeoutExpired:
            late = f"the store did not answer within {timeout:g} seconds; "
            process.kill()
            process.wait()
        except OSError:
            process.wait()
        if process.returncode == 0:
            return None
        log = self._folder / "tracking.log"
        return f"Tracking is behind for {self._folder.name} ({late}see {log}); run: u2pl track sync"

    def leave(self) -> str | None:
        """As `close`, without waiting: what then goes wrong stands in tracking.log, and `sync` makes up for it."""
        process, self._process = self._process, None
        if process is None:
            return self._problem
        assert process.stdin is not None
        process.stdin.close()
        return None


def sync_ablation(project: Project, name: str, *, wait: bool = True) -> str | None:
    """Mirror a finished ablation from a process of its own; what to show where that failed, else None.

    Args:
        project: in which the ablation was recorded; where it was not, there is nothing to do.
        name: of the ablation.
        wait: False leaves the process to itself, which takes seconds, up to a minute where the store is slow.
    """
    folder = project.runs / ".ablations" / name
    if not (folder / "ablation.json").is_file():
        return None
    sidecar = Sidecar.start(project, folder)
    return sidecar.close() if wait else sidecar.leave()


def _command(project: Project, folder: Path, poll: float, pause: float) -> list[str]:
    """The words that start a side process; see `follow`."""
    words = [str(folder), "--project", str(project.root), "--poll", str(poll), "--pause", str(pause)]
    return [sys.executable, "-m", "u2pl.tracking", *words]


def follow(project: Project, folder: Path, poll: float, pause: float) -> int:
    """Mirror `folder` until standard input says that its owner has ended; 0 if the store is then up to date.

    An error of the store is printed, and tried again after a pause that grows.

    Args:
        project: in which the folder lies.
        folder: a run's or an ablation's.
        poll: seconds between two looks at the folder.
        pause: seconds before the first one.
    """
    source = folder / ("ablation.json" if (folder / "ablation.json").exists() else "events.jsonl")
    store: Store | None = None
    seen: os.stat_result | None = None
    while True:
        # Readable means a word from the owner, or the end of the pipe because it died.
        over = bool(select.select([sys.stdin], [], [], pause)[0])
        if over:
            signal.alarm(LAST_MIRROR_SECONDS)
        stamp = source.stat() if source.exists() else None
        behind = over or store is None or stamp != seen
        if behind:
            try:
                store = store or Store(project)
                (store.mirror if source.suffix == ".jsonl" else store.mirror_ablation)(
                    folder, running=not over
                )
                seen, behind = stamp, False
            except Exception as error:
                reason = _reason(error, default_uri(project))
                print(f"{datetime.now().isoformat(timespec='seconds')} {reason}", flush=True)
                store = None
        pause = min(max(pause, poll) * 2, LONGEST_PAUSE_SECONDS) if behind else poll
        if over:
            return int(behind)
        if behind and _database(default_uri(project)):
            # MLflow holds a database that it has opened until its process ends. Where the file has been deleted
            # or replaced, only a new process sees what lies there now.
            os.execv(sys.executable, _command(project, folder, poll, pause))


def _main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m u2pl.tracking", description="Mirror one folder until stdin ends."
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--project", type=Path, required=True)
    parser.add_argument("--poll", type=float, required=True)
    parser.add_argument("--pause", type=float, required=True)
    arguments = parser.parse_args()
    project = Project(arguments.project)
    # All that MLflow, the libraries below it and Python itself say goes to tracking.log.
    sys.stdout, sys.stderr = (HidingStream(each, default_uri(project)) for each in (sys.stdout, sys.stderr))
    os.setpriority(os.PRIO_PROCESS, 0, 10)
    # Ctrl-C and a supervisor's signal reach the whole process group; the owner saves its state, then calls
    # `close`, and only then is there something final to mirror.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        return follow(project, arguments.folder, arguments.poll, arguments.pause)
    finally:
        sys.stdout.close()
        sys.stderr.close()


if __name__ == "__main__":
    # Taking MLflow's modules down in order takes most of a second, for which the owner would wait.
    os._exit(_main())
