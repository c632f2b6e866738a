"""All there is to know of one run: what it is, how it was set, what it reached, where it lies and what to do next."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from u2pl.errors import UserError
from u2pl.files import is_held
from u2pl.pipeline.needed import shown_in
from u2pl.pipeline.status import RunState, RunStatus, one
from u2pl.project import Project
from u2pl.reporting.run_groups import CURVE, Points
from u2pl.runs.disk import checkpoints, size
from u2pl.runs.frames import reported, series, stored
from u2pl.runs.labels import Labels, read_labels
from u2pl.runs.origin import import_command, train_command
from u2pl.runs.records import Metrics, Run, protocol, read_run
from u2pl.runs.scored_classes import counted_classes
from u2pl.runs.stored_evaluation import own_folder


@dataclass(frozen=True)
class Score:
    """An evaluation of the run."""

    protocol: str
    miou: float
    over: str
    """`over 3 of 4 classes` where it leaves some out."""
    is_own: bool
    """By the run's own protocol, as tables show it."""


@dataclass(frozen=True)
class Setting:
    """A setting that differs from params.yaml."""

    key: str
    value: Any
    default: Any = None
    """What params.yaml says; None where it does not know the setting."""


@dataclass(frozen=True)
class RunCard:
    """One run."""

    run: str
    status: RunStatus
    record: Run
    """run.json."""
    changed: list[Setting]
    scores: list[Score]
    best: tuple[float, int] | None
    """mIoU of the best epoch, and which that was, counted from 0."""
    iou: dict[str, float | None]
    """Class -> percent, by the run's own protocol."""
    curve: Points
    """mIoU after each epoch, counted from 0."""
    seconds: float | None
    images_per_second: float | None
    memory_gib: float | None
    """The most in an epoch: of the GPU, or of the process on a CPU."""
    bytes: dict[str, int]
    """What of the folder -> its size."""
    shown_in: list[str]
    """Tables and figures of the active plan."""
    labels: Labels
    files: dict[str, Path]
    """What -> where it lies; only what is there."""
    next: list[str]
    """Command lines."""

    def as_json(self) -> dict[str, Any]:
        """The card in plain values."""
        status = {key: value for key, value in asdict(self.status).items() if key not in ("name", "set")}
        scores = [asdict(score) for score in self.scores]
        return {
            "run": self.run,
            **{
                key: self.record[key]
                for key in ("dataset", "split", "method", "seed", "flavor", "fingerprint")
            },
            "created": self.record["created"],
            "machine": self.record["tags"],
            **{key: self.record[key] for key in ("parent", "imported") if self.record.get(key)},
            "status": status,
            "changed": {each.key: {"value": each.value, "default": each.default} for each in self.changed},
            "settings": {"recipe": self.record["recipe"], "hyper": self.record["hyper"]},
            "scores": scores,
            "best": self.best and {"miou": self.best[0], "epoch": self.best[1]},
            "iou": self.iou,
            "curve": [{"epoch": epoch, "miou": value} for epoch, value in self.curve],
            "seconds": self.seconds,
            "images_per_second": self.images_per_second,
            "memory_gib": self.memory_gib,
            "bytes": self.bytes,
            "shown_in": self.shown_in,
            **self.labels,
            "files": {what: str(path) for what, path in self.files.items()},
            "next": self.next,
        }


def card(project: Project, folder: Path) -> RunCard:
    """The card of the run in a folder.

    Raises:
        UserError: what stands in its files is damaged, or params.yaml cannot be read.
    """
    record = read_run(folder)
    found = one(project, str(folder) if folder.parent != project.runs else folder.name)
    metrics = None
    with suppress(FileNotFoundError):
        metrics = reported(folder)
    miou = metrics["miou"] if metrics else None
    best = None
    if miou and (highest := miou.get("best")) is not None:
        best = highest, int(miou.get("best_epoch") or 0)
    history = series(folder)
    shown: list[str] = []
    with suppress(UserError):  # a damaged plan is no reason to hide a run
        shown = shown_in(project).get(record["name"], [])
    return RunCard(
        run=record["name"],
        status=found.status,
        record=record,
        changed=[
            Setting(key, value, found.defaults.get(key)) for key, value in sorted(found.status.set.items())
        ],
        scores=list(_scores(folder, metrics)),
        best=best,
        iou=metrics["iou"] if metrics and metrics["miou"]["reported"] is not None else {},
        curve=history.get(CURVE, []),
        seconds=metrics["seconds"] if metrics else None,
        images_per_second=metrics["images_per_second"] if metrics else None,
        memory_gib=max((value for _, value in history.get("memory/peak_gib", [])), default=None),
        bytes=_bytes(folder),
        shown_in=shown,
        labels=read_labels(folder),
        files={what: path for what, path in _files(project, folder, record) if path.exists()},
        next=list(_next(folder, record, found.status)),
    )


def _scores(folder: Path, own: Metrics | None) -> Iterable[Score]:
    """Every evaluation of a run, its own first."""
    for metrics in stored(folder) if own else ():
        miou = metrics["miou"]["reported"]
        if miou is not None:
            yield Score(protocol(metrics), miou, counted_classes(metrics), metrics == own)


def _bytes(folder: Path) -> dict[str, int]:
    """The parts of a run's folder, and the whole."""
    weights = sum(map(size, (path for path in folder.glob("*.pt") if path.name in ("weights.pt", "best.pt"))))
    parts = {
        "weights": weights,
        "checkpoints": sum(map(size, checkpoints(folder))),
        "model file": sum(map(size, folder.glob("*.u2pl"))),
        "evaluations and pictures": size(folder / "evaluations") + size(folder / "samples"),
    }
    whole = size(folder)
    parts["other"] = whole - sum(parts.values())
    return {"all": whole, **{what: count for what, count in parts.items() if count}}


def _files(project: Project, folder: Path, record: Run) -> Iterable[tuple[str, Path]]:
    yield "folder", folder
    yield "weights", folder / "weights.pt"
    yield "checkpoint", folder / "last.pt"
    yield "model file", folder / f"{folder.name}.u2pl"
    yield "evaluation", own_folder(folder)
    yield "curve", folder / "history.csv"
    yield "events", folder / "events.jsonl"
    yield "settings", folder / "settings.yaml"
    yield "DVC's copy", project.root / "models" / f"{record['name']}.pt"


def _next(folder: Path, record: Run, status: RunStatus) -> Iterable[str]:
    name = record["name"]
    again = import_command(record) if "imported" in record else train_command(record)
    match status.state:
        case RunState.DONE:
            yield f"u2pl evaluate {name} --worst 10"
            yield f"u2pl predict {name} IMAGES --out DIR"
            yield f"u2pl export {name}"
        case RunState.RUNNING:
            yield f"u2pl status {name} --watch"
        case RunState.STALE:
            yield again if "imported" in record else f"{again} --fresh"
            yield f"u2pl runs compare {name} OTHER"
        case _ if not is_held(folder / "lock"):
            yield again
