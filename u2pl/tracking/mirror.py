"""Brings the MLflow runs of run folders and ablations up to date; doing it again adds nothing."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from u2pl.errors import UserError, unknown
from u2pl.files import is_held, sha256, write_text
from u2pl.project import Project
from u2pl.runs.records import Ablation, AblationRow, Event, Report, read_metrics, read_run
from u2pl.settings import value_text
from u2pl.tracking import described, examples, inputs, machine_load, models
from u2pl.tracking.addresses import HidingStream, hidden
from u2pl.tracking.described import NOTE, page_address
from u2pl.tracking.events import EventLog, finite, in_batches, metric_name, milliseconds
from u2pl.tracking.store import artifacts_of, client_of, default_uri, installed, prepare_store
from u2pl.typed_files import read

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, Run

METRICS_PER_CALL, PARAMS_PER_CALL = 1000, 100  # MLflow's own limits
UID, PARENT, MIRRORED = "u2pl.uid", "u2pl.parent", "u2pl.mirrored"
TRACKED_RUN = "tracking.json"
"""File of a run folder that says where its MLflow run is: store, experiment, run."""
EXAMPLES, COMPARISON = "examples.png", "comparison.json"
COMPARISON_IS_A_TABLE = json.dumps([{"path": COMPARISON, "type": "table"}])
"""What MLflow's page looks for among a run's tags."""


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
        self._logs: dict[Path, EventLog] = {}
        self._reports: dict[str, tuple[str, set[str]]] | None = None
        """Path of each report in the store -> its address there, and what may be names of runs in it."""

    def mirror_folder(self, folder: Path, running: bool | None = None) -> str:
        """Bring whatever a folder describes up to date: a run, an ablation or a report; see the methods for each."""
        if (folder / "ablation.json").exists():
            return self.mirror_ablation(folder, running)
        return (
            self.mirror_report(folder) if (folder / "report.json").exists() else self.mirror(folder, running)
        )

    def mirror(self, folder: Path, running: bool | None = None) -> str:
        """Bring the MLflow run of a run folder up to date, but for its model, and return its id.

        A (metric, step) is sent once: a resumed run that repeats steps keeps the points already there.

        Args:
            folder: `runs/NAME`.
            running: whether its trainer lives; None asks the folder's lock.
        """
        facts = read_run(folder)
        parent = self._ablation(facts["parent"]) if facts["parent"] else None
        with FileLock(folder / "tracking.lock"):
            run = self._run(facts["uid"], facts["parent"], facts["name"], milliseconds(facts["created"]))
            # Asked before the events are read: metrics.json is written after the last of them, whose time counts.
            metrics = read_metrics(folder) if (folder / "metrics.json").exists() else None
            tags = described.tags(facts) | {NOTE: described.note(facts, metrics, self._pages(facts["name"]))}
            if parent:
                tags["mlflow.parentRunId"] = parent.info.run_id
            self._describe(run, described.parameters(facts), tags)
            self._log_inputs(run, inputs.of_run(self.project, folder, facts))
            mirrored = {"step": -1, "epoch": -1, "system": -1, "files": {}}
            mirrored |= json.loads(run.data.tags.get(MIRRORED, "{}"))
            log, load = self._log(folder / "events.jsonl"), self._log(folder / machine_load.FILE)
            self._send(run, [*log.measurements(), *load.measurements()], mirrored)
            if metrics:
                self._send_result(run, metrics, log.time)
            names = ("settings.yaml", "labeled.txt", "unlabeled.txt", "val.txt", "metrics.json")
            self._upload(run, [folder / name for name in names], mirrored)
            self._upload_examples(run, examples.of_run(folder), mirrored)
            self._set_status(run, _status(folder, metrics is not None, log.state, running), log.time)
            self._write_tracked_run(folder, run.info.run_id, facts["fingerprint"])
        return run.info.run_id

    def mirror_model(self, folder: Path) -> None:
        """Log the network of a finished run that is mirrored as a model, unless it was or that is not wanted."""
        if not models.due(folder):
            return
        facts = read_run(folder)
        run = self._run(facts["uid"], facts["parent"], facts["name"], milliseconds(facts["created"]))
        if models.MODEL not in run.data.tags:
            validation = inputs.of_run(self.project, folder, facts)[-1:]
            models.log_model(
                self.client,
                self.experiment,
                self.project,
                folder,
                run.info.run_id,
                next(iter(validation), None),
            )

    def _write_tracked_run(self, folder: Path, run: str, fingerprint: str) -> None:
        """Write into the run folder where its MLflow run is, so that a report can link to it without MLflow."""
        where = {"store": hidden(self.uri, self.uri), "experiment": self.experiment, "run": run}
        text = json.dumps(where | {"fingerprint": fingerprint}, indent=2) + "\n"
        if not (path := folder / TRACKED_RUN).exists() or path.read_text() != text:
            write_text(path, text)

    def mirror_ablation(self, folder: Path, running: bool | None = None) -> str:
        """Bring an ablation up to date, one run that refers to those of its values, and return its id.

        Runs trained for it are its children; those that were only reused stay what they are, and are linked.

        Args:
            folder: `runs/.ablations/NAME`.
            running: whether the ablation is still at work; None asks the folder's lock.
        """
        facts = read(Ablation, folder / "ablation.json")
        parent = self._ablation(facts["name"])
        assert parent is not None
        addresses = {}
        for entry in facts["runs"]:
            child = self.project.runs / entry["run"]
            if not (child / "run.json").exists():
                continue
            run_id = self.mirror(child)
            addresses[entry["run"]] = page_address(self.experiment, run_id)
            # Not with the other tags of the run: its own mirror knows of no ablation.
            self._describe(
                self.client.get_run(run_id),
                {},
                {metric_name(f"u2pl.ablation/{facts['name']}"): entry["value"]},
            )
        self._delete_copies(facts["name"])
        note = described.ablation_note(
            facts["parameter"],
            facts["runs"],
            addresses,
            self._pages(*(entry["run"] for entry in facts["runs"])),
        )
        with FileLock(folder / "tracking.lock"):
            self._describe(parent, {}, {NOTE: note, "mlflow.loggedArtifacts": COMPARISON_IS_A_TABLE})
            self._send_values(parent, facts["runs"])
            mirrored = json.loads(parent.data.tags.get(MIRRORED, '{"files": {}}'))
            self._upload(parent, [folder / "ablation.json"], mirrored)
            text = json.dumps(described.comparison(facts), indent=2)
            self._upload_made(
                parent, COMPARISON, sha256(text)[:12], lambda path: path.write_text(text), mirrored
            )
            finished = all(entry.get("miou_last") is not None for entry in facts["runs"])
            self._set_status(parent, _status(folder, finished, "start", running), int(time.time() * 1000))
        return parent.info.run_id

    def _delete_copies(self, ablation: str) -> None:
        """Delete what earlier versions made for an ablation of runs that it had only reused: a second MLflow run."""
        for run in self.client.search_runs([self.experiment], f"tags.`{PARENT}` = '{ablation}'"):
            name = run.data.tags.get("u2pl.name", "")
            original = self.project.runs / name
            if not name or not (original / "run.json").exists():
                continue
            facts = read_run(original)
            if facts["uid"] == run.data.tags.get(UID) and facts["parent"] != ablation:
                self.client.delete_run(run.info.run_id)

    def mirror_report(self, folder: Path) -> str:
        """Bring a report's page up to date, one run that holds it, let the runs on it say so, and return its id.

        Args:
            folder: `runs/.reports/NAME`.

        Raises:
            UserError: the page is gone.
        """
        facts = read(Report, folder / "report.json")
        page = self.project.root / facts["page"]
        if not page.is_file():
            raise UserError(f"There is no {page}. Write it again with u2pl report, or delete {folder}")
        with FileLock(folder / "tracking.lock"):
            written = int(page.stat().st_mtime * 1000)
            run = self._run(facts["uid"], None, facts["page"], written)
            address = page_address(self.experiment, run.info.run_id, page.name)
            note = f"The page that `u2pl report` wrote: [{page.name}]({address})"
            tags = {"u2pl.kind": "report", "u2pl.page": facts["page"], NOTE: note}
            self._describe(run, {}, tags)
            mirrored = json.loads(run.data.tags.get(MIRRORED, '{"files": {}}'))
            self._upload(run, [page], mirrored)
            self._set_status(run, "FINISHED", written)
        self._reports = None
        for path in sorted(self.project.runs.glob("*/run.json")):
            with suppress(UserError):  # a damaged folder is told of where it is mirrored
                self._describe_again(path.parent)
        return run.info.run_id

    def _describe_again(self, folder: Path) -> None:
        """Let what stands in the store of a run say which pages show it."""
        facts = read_run(folder)
        if not (pages := self._pages(facts["name"])):
            return
        found = self._find(facts["uid"], facts["parent"])
        if found is not None:
            metrics = read_metrics(folder) if (folder / "metrics.json").exists() else None
            self._describe(found, {}, {NOTE: described.note(facts, metrics, pages)})

    def _pages(self, *names: str) -> dict[str, str]:
        """Path of each report in the store that shows one of the runs -> its address there."""
        if self._reports is None:
            found = self.client.search_runs([self.experiment], "tags.`u2pl.kind` = 'report'")
            self._reports = {}
            for run in found:
                page = self.project.root / run.data.tags["u2pl.page"]
                if page.is_file():
                    address = page_address(self.experiment, run.info.run_id, page.name)
                    self._reports[run.data.tags["u2pl.page"]] = (address, described.shown_by(page))
        return {
            page: address for page, (address, shown) in self._reports.items() if not shown.isdisjoint(names)
        }

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

    def _log(self, path: Path) -> EventLog:
        return self._logs.setdefault(path, EventLog(path))

    def _run(self, uid: str, under: str | None, name: str, started: int) -> "Run":
        """The MLflow run of `uid`, which was trained for the ablation `under`; created where it is missing."""
        found = self._find(uid, under)
        if found is None:
            tags = {UID: uid} | ({PARENT: under} if under else {})
            self._ids[uid, under] = self.client.create_run(self.experiment, started, tags, name).info.run_id
            found = self.client.get_run(self._ids[uid, under])
        return found

    def _find(self, uid: str, under: str | None) -> "Run | None":
        if (uid, under) not in self._ids:
            found = self.client.search_runs([self.experiment], f"tags.`{UID}` = '{uid}'")
            matching = [run.info.run_id for run in found if run.data.tags.get(PARENT) == under]
            if not matching:
                return None
            self._ids[uid, under] = matching[0]
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

    def _upload(self, run: "Run", paths: list[Path], mirrored: dict[str, Any]) -> None:
        """Log those of the files that exist and differ from what was logged before."""
        from mlflow.entities import RunTag

        changed = False
        for path in filter(Path.exists, paths):
            digest = sha256(path.read_bytes())[:12]
            if mirrored["files"].get(path.name) != digest:
                self.client.log_artifact(run.info.run_id, str(path))
                mirrored["files"][path.name] = digest
                changed = True
        if changed:
            self.client.log_batch(run.info.run_id, tags=[RunTag(MIRRORED, json.dumps(mirrored))])

    def _upload_made(
        self, run: "Run", name: str, digest: str, write: Callable[[Path], Any], mirrored: dict[str, Any]
    ) -> None:
        """Log a file that is made for the store alone, where what it is made of has changed."""
        if mirrored["files"].get(name) != digest:
            with TemporaryDirectory() as folder:
                write(Path(folder) / name)
                self.client.log_artifact(run.info.run_id, str(Path(folder) / name))
            mirrored["files"][name] = digest
            self._describe(run, {}, {MIRRORED: json.dumps(mirrored)})

    def _upload_examples(self, run: "Run", pictures: list[Path], mirrored: dict[str, Any]) -> None:
        """Log the run's examples as one picture."""
        there = [path for path in pictures if path.is_file()]
        digest = sha256(b"".join(sha256(path.read_bytes()).encode() for path in there))[:12]
        if there and mirrored["files"].get(EXAMPLES) != digest and (sheet := examples.grid(pictures)):
            self._upload_made(run, EXAMPLES, digest, sheet.save, mirrored)

    def _log_inputs(self, run: "Run", data_sets: "list[DatasetInput]") -> None:
        known = {each.dataset.digest for each in (run.inputs.dataset_inputs if run.inputs else ())}
        new = [each for each in data_sets if each.dataset.digest not in known]
        if new:
            self.client.log_inputs(run.info.run_id, new)

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
    notes: list[str]
    """One for each finished run that was, but whose network could not be read."""


def sync(project: Project, uri: str | None = None, runs: list[str] | None = None) -> Summary:
    """Mirror run folders, reports and ablations into the store at `uri`; doing it again changes nothing.

    Args:
        project: whose `runs/` is mirrored.
        uri: address of the store; None takes `default_uri`.
        runs: names of runs; None takes all of them, and all reports and ablations.

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
    folders = [("run", known[name]) for name in (known if runs is None else runs)]
    if runs is None:
        # In this order: a run names the reports that show it, an ablation its runs and those reports.
        folders += [("report", path.parent) for path in sorted(project.runs.glob(".reports/*/report.json"))]
        folders += [
            ("ablation", path.parent) for path in sorted(project.runs.glob(".ablations/*/ablation.json"))
        ]
    uri = uri or default_uri(project)
    with hiding(uri):
        store, done, problems = opened(project, uri), {"run": 0, "report": 0, "ablation": 0}, list[str]()
        notes: list[str] = []
        for kind, folder in folders:
            try:
                store.mirror_folder(folder)
                done[kind] += 1
                if kind == "run":
                    notes += _model_note(store, folder)
            except Exception as error:
                # One damaged folder must not hide the others.
                problems.append(f"The {kind} {folder.name} was not mirrored: {reason(error, uri)}.")
    return Summary(uri, done["run"], done["ablation"], problems, notes)


def _model_note(store: Store, folder: Path) -> list[str]:
    """Log a run's model; a sentence where there is none to be made, as of a run of an earlier version."""
    try:
        store.mirror_model(folder)
    except UserError as error:
        return [f"The model of {folder.name} was not logged: {reason(error, store.uri)}."]
    return []


@dataclass(frozen=True)
class Registered:
    """A version of a registered model."""

    run: str
    miou: float
    version: str


def register_best(project: Project, name: str, runs: Sequence[str], uri: str | None = None) -> Registered:
    """Make the best of some runs, which are mirrored, a version of the registered model `name`, called `best` there.

    Args:
        project: that has the runs.
        name: of the registered model, made where there is none.
        runs: their names; those that have not finished do not count.
        uri: address of the store; None takes `default_uri`.

    Raises:
        UserError: none has finished, they cannot be compared, or the store refuses.
    """
    folder, miou = models.best_of([project.runs / run for run in runs])
    uri = uri or default_uri(project)
    with hiding(uri):
        store = opened(project, uri)
        try:
            run_id = store.mirror(folder)
            store.mirror_model(folder)
            version = models.register(store.client, name, run_id)
        except UserError as error:
            raise UserError(f"{folder.name} was not registered: {reason(error, uri)}.") from None
        except Exception as error:
            raise UserError(
                f"{folder.name} was not registered as {name!r}: {reason(error, uri)}. Take a name without / and :, or "
                "mend the store, then do this again."
            ) from error
    return Registered(folder.name, miou, version)


@contextmanager
def hiding(uri: str) -> Iterator[None]:
    """MLflow, and what it stands on, tell of their troubles in words of their own: without the store's secrets."""
    with (
        closing(HidingStream(sys.stdout, uri)) as stdout,
        closing(HidingStream(sys.stderr, uri)) as stderr,
        redirect_stdout(stdout),
        redirect_stderr(stderr),
    ):
        yield


def opened(project: Project, uri: str) -> Store:
    """The store at an address.

    Raises:
        UserError: it cannot be opened.
    """
    try:
        return Store(project, uri)
    except Exception as error:
        raise UserError(
            f"The tracking store {hidden(uri, uri)} cannot be opened: {reason(error, uri)}. "
            "Mend it, or set MLFLOW_TRACKING_URI to another one, then run: u2pl track sync"
        ) from error


def reason(error: Exception, uri: str) -> str:
    """The first line of an error of the store `uri`, with its class if that is not our own."""
    lines = hidden(str(error), uri).strip().splitlines() or ["no reason given"]
    message = lines[0].rstrip(".")
    return message if isinstance(error, UserError) else f"{type(error).__name__}: {message}"
