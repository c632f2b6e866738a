"""Results as data frames of pandas: the runs of a project, their evaluations, a run's history; tidy, in the long form.

Small files are read and nothing else, so that a hundred runs take no time to speak of.
"""

import io
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from u2pl.errors import UserError, reason
from u2pl.escaping import cell, true_text
from u2pl.files import Lines, content, is_held
from u2pl.project import Project
from u2pl.runs.disk import size
from u2pl.runs.events import TAIL_BYTES, Events, RunState
from u2pl.runs.labels import read_labels
from u2pl.runs.records import Metrics, PictureScores, is_complete, protocol, read_metrics, read_run
from u2pl.runs.stored_evaluation import own_folder, run_path
from u2pl.settings import value_text
from u2pl.typed_files import read

RUNS = {
    "run": "string",
    "dataset": "string",
    "split": "string",
    "method": "string",
    "seed": "Int64",
    "flavor": "string",
    "settings": "string",
    "state": "string",
    "epoch": "Int64",
    "epochs": "Int64",
    "miou": "float64",
    "protocol": "string",
    "seconds": "float64",
    "started": "datetime64[ms, UTC]",
    "finished": "datetime64[ms, UTC]",
    "bytes": "int64",
    "tags": "string",
    "note": "string",
    "parent": "string",
    "fingerprint": "string",
    "problem": "string",
}
"""Columns of `runs` -> their types."""
RESULTS = {
    "run": "string",
    "dataset": "string",
    "split": "string",
    "method": "string",
    "seed": "int64",
    "protocol": "string",
    "class": "string",
    "measure": "string",
    "value": "float64",
}
"""Columns of `results` -> their types."""
HISTORY = {"run": "string", "epoch": "int64", "step": "Int64", "measure": "string", "value": "float64"}
"""Columns of `history` -> their types."""
_IDENTITY = ("dataset", "split", "method", "seed")
_END_BYTES = 1024
"""As much of the end of a finished run's events.jsonl holds the time when it ended."""

Rows = Iterable[Mapping[str, Any]]


def frame(rows: Rows, columns: Mapping[str, str]) -> pd.DataFrame:
    """Rows as a frame of these columns and types; what a row does not say is missing there."""
    found = list(rows)
    return pd.DataFrame(
        {name: pd.Series([row.get(name) for row in found], dtype=kind) for name, kind in columns.items()}
    )


def csv(found: pd.DataFrame, float_format: str | None = None) -> str:
    """A frame as CSV for spreadsheets: what is missing is an empty field, and no text is a formula."""
    texts = found.select_dtypes(exclude=["number", "bool", "datetimetz"])
    safe = found.assign(**{str(name): column.map(cell) for name, column in texts.items()})
    lines = Lines()
    safe.rename(columns=cell).to_csv(
        lines, index=False, float_format=float_format, lineterminator=lines.terminator
    )
    return lines.getvalue()


# ---- runs ----------------------------------------------------------------------------------------------


def runs(project: Project | str | Path | None = None) -> pd.DataFrame:
    """A row a folder in runs/, by name, whatever state it is in: no run that is damaged hides the others.

    `state` is a word of `u2pl status` (done, running, interrupted, failed, waiting), or damaged; whether a run is stale
    is not asked. `settings` is what was set, as `key=value` with commas between. `miou` is that of the checkpoint the
    run is reported by, in percent, and missing before it is done. `epoch` is the one it is in, counted from 1.
    `problem` says why a run failed or cannot be read.

    Args:
        project: or a folder in it; None: that of the current folder.

    Raises:
        UserError: there is no project.
    """
    return frame(map(_run_row, folders(_project(project))), RUNS)


def folders(project: Project) -> list[Path]:
    """The folders of the project's runs, whatever they hold, by name."""
    with suppress(FileNotFoundError):
        return sorted(p for p in project.runs.iterdir() if p.is_dir() and not p.name.startswith("."))
    return []


def _run_row(folder: Path) -> dict[str, Any]:
    held = is_held(folder / "lock")
    row = {"run": folder.name, "bytes": size(folder), **_labels(folder)}
    try:
        found = row | _recorded(folder, held=held)
        return found | {"problem": found["problem"] or row["problem"]}
    except UserError as error:
        problem = str(error)
    except FileNotFoundError:
        problem = f"{folder / 'run.json'} is missing: this is no run's folder."
    # Whatever a file brings about that is not what this version writes.
    except (OSError, LookupError, TypeError, ValueError, ArithmeticError) as error:
        problem = f"{folder} cannot be read ({type(error).__name__}: {error})."
    if held:  # it is about to begin
        return row | {"state": RunState.RUNNING.value}
    return row | {"state": RunState.DAMAGED.value, "problem": problem}


def _labels(folder: Path) -> dict[str, str]:
    """What somebody labelled the run with; what is wrong with that hides nothing else."""
    try:
        labels = read_labels(folder)
    except UserError as error:
        return {"tags": "", "note": "", "problem": str(error)}
    return {"tags": ", ".join(labels["tags"]), "note": labels["note"], "problem": ""}


def _recorded(folder: Path, *, held: bool) -> dict[str, Any]:
    """What a run's own files say of it."""
    run, done = read_run(folder), not held and is_complete(folder)
    metrics = reported(folder) if done else None
    log = Events.read(folder / "events.jsonl", _END_BYTES if done else TAIL_BYTES)
    row: dict[str, Any] = {
        **{key: run[key] for key in _IDENTITY},  # type: ignore[literal-required]
        **{key: run[key] for key in ("flavor", "parent", "fingerprint")},
        "settings": ", ".join(f"{key}={value_text(value)}" for key, value in run["overrides"].items()),
        "state": log.state(held=held, done=done).value,
        "epoch": log.where(run).get("epoch"),
        "epochs": run["recipe"]["epochs"],
        "started": _utc(datetime.fromisoformat(run["created"])),
        "problem": log.failure or "",
    }
    if metrics is None:
        return row
    ended = log.newest and log.newest[-1]["event"] == "end"
    return row | {
        "epoch": metrics["epochs"],
        "miou": metrics["miou"]["reported"],
        "protocol": protocol(metrics),
        "seconds": metrics["seconds"],
        "finished": datetime.fromtimestamp(log.time / 1000, UTC) if ended else None,
        "problem": "",
    }


def _utc(time: datetime) -> datetime:
    return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)


# ---- evaluations ---------------------------------------------------------------------------------------


def results(project: Project | str | Path | None = None) -> pd.DataFrame:
    """Every evaluation of every run of the project: a row for its mIoU (`class` is missing), and one for each class.

    By the run's own protocol, by others, and on folders of pictures, which the protocol then names. `measure` is
    `miou` or `iou`, and of the run's own protocol also `miou_last` and `miou_best`, of its last and best epoch; `value`
    is in percent, and missing for a class that nowhere occurs. Runs that are damaged or not finished are left out; of
    runs that have no folder here what lies under results/ is told.

    Args:
        project: or a folder in it; None: that of the current folder.

    Raises:
        UserError: there is no project.
    """
    where = _project(project)
    found = [each for folder in folders(where) for each in stored(folder)]
    known = {each["name"] for each in found}
    for path in sorted(where.results.glob("*/metrics.json")):
        with suppress(OSError, UserError):
            if (metrics := read_metrics(path.parent))["name"] not in known:
                found.append(metrics)
                known.add(metrics["name"])
    return evaluations(found)


def evaluations(found: Iterable[Metrics | PictureScores]) -> pd.DataFrame:
    """What some metrics.json say, as `results` tells it."""
    return frame((row for metrics in found for row in _scores(metrics)), RESULTS)


def reported(folder: Path) -> Metrics:
    """The result of a finished run by its own protocol: as evaluated since, else as its training left it.

    Raises:
        FileNotFoundError: it is not finished.
        UserError: run.json or metrics.json is damaged.
    """
    trained, own = read_metrics(folder), own_folder(folder)
    with suppress(OSError, UserError):
        if (own / "stamp.json").is_file():  # whole
            since = read_metrics(own)
            return since if since["fingerprint"] == trained["fingerprint"] else trained
    return trained


def stored(folder: Path) -> Iterator[Metrics | PictureScores]:
    """Those stored in a run's folder, its own first."""
    try:
        run, own = read_run(folder), own_folder(folder)
        yield reported(folder)
    except (OSError, UserError):
        return
    others: list[tuple[Path, Any]] = [(path, Metrics) for path in folder.glob("evaluations/*/metrics.json")]
    others += [(path, PictureScores) for path in folder.glob("evaluations/pictures/*/*/metrics.json")]
    for path, kind in sorted(others, key=lambda each: each[0]):
        with suppress(OSError, UserError):
            if path.parent != own and (found := read(kind, path))["fingerprint"] == run["fingerprint"]:
                yield found


def _scores(metrics: Metrics | PictureScores) -> Iterator[dict[str, Any]]:
    shared: dict[str, Any] = {key: metrics[key] for key in _IDENTITY}  # type: ignore[literal-required]
    shared |= {"run": metrics["name"], "protocol": protocol(metrics)}
    named = {"reported": "miou", "last": "miou_last", "best": "miou_best"}
    for key, measure in named.items():
        if (value := metrics["miou"].get(key)) is not None:
            yield {**shared, "measure": measure, "value": value}
    if metrics["miou"]["reported"] is not None:
        for name, value in metrics["iou"].items():
            yield {**shared, "class": name, "measure": "iou", "value": value}


def confusion(folder: Path) -> pd.DataFrame | None:
    """The scored pixels of an evaluation: a row a true class, a column a predicted one, named alike and in one order.

    Args:
        folder: that holds its confusion.csv; earlier versions wrote none.

    Returns:
        None where there is none.

    Raises:
        UserError: it is damaged.
    """
    path = folder / "confusion.csv"
    if not path.is_file():
        return None
    try:
        # A class may be called `NA`, or 7.
        found = _read_csv(path, dtype="string", na_filter=False)
        found = found.set_index(found.columns[0]).rename(index=true_text)
        if found.empty or list(found.index) != list(found.columns):
            raise ValueError("not as many rows as columns of the same classes")
        return found.rename_axis(index="truth", columns="prediction").astype("int64")
    except (ValueError, LookupError, TypeError, OverflowError, pd.errors.ParserWarning) as error:
        raise UserError(
            f"{path} is damaged ({type(error).__name__}: {reason(error)}). Move it elsewhere; "
            "the confusion matrix is shown from it alone."
        ) from None


def _read_csv(path: Path, **options: Any) -> pd.DataFrame:
    with warnings.catch_warnings(action="error", category=pd.errors.ParserWarning):  # of too many fields
        return pd.read_csv(io.BytesIO(content(path)), index_col=False, **options).rename(columns=true_text)


# ---- history -------------------------------------------------------------------------------------------


def history(run: str | Path, project: Project | str | Path | None = None) -> pd.DataFrame:
    """What a run recorded at the end of each epoch, counted from 0: a row a measure that the epoch has.

    Args:
        run: its name, or its folder.
        project: or a folder in it; None: that of the current folder.

    Raises:
        UserError: there is no such run, or its history.csv is damaged.
    """
    return histories([run_path(_project(project), str(run))])


def histories(of: Iterable[Path]) -> pd.DataFrame:
    """The histories of the runs in some folders, as `history` tells one; a folder without history.csv has none.

    Raises:
        UserError: one is damaged.
    """
    found = [_long(folder.name, epochs(folder)) for folder in of]
    return pd.concat([frame([], HISTORY), *found], ignore_index=True)


def _long(run: str, wide: pd.DataFrame) -> pd.DataFrame:
    known = [name for name in ("epoch", "step") if name in wide.reset_index()]
    long = wide.reset_index().melt(known, var_name="measure").dropna(subset="value")
    return long.assign(run=run).reindex(columns=list(HISTORY)).astype(HISTORY)


def epochs(folder: Path) -> pd.DataFrame:
    """What the run in a folder recorded: a row an epoch (from 0), a column a measure, missing where it has none.

    Of an epoch that stands there twice the later line counts. Before one has ended there is neither row nor column.

    Raises:
        UserError: history.csv is damaged.
    """
    path, nothing = folder / "history.csv", pd.DataFrame(index=pd.Index([], dtype="int64", name="epoch"))
    if not path.is_file():
        return nothing
    try:
        found = (
            _read_csv(path)
            .astype({"epoch": "int64"})
            .drop_duplicates("epoch", keep="last")
            .set_index("epoch")
        )
        return found.astype("float64")
    except pd.errors.EmptyDataError:  # no epoch has ended yet
        return nothing
    except (ValueError, KeyError, TypeError, OverflowError, pd.errors.ParserWarning) as error:
        raise UserError(
            f"{path} is damaged ({type(error).__name__}: {error}). Move it elsewhere; curves are drawn from it alone."
        ) from None


def series(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Measure -> (epoch from 0, value) for each epoch that has one, of the run in a folder.

    Raises:
        UserError: history.csv is damaged.
    """
    return {
        str(name): list(zip(known.index.tolist(), known.tolist(), strict=True))
        for name, column in epochs(folder).items()
        if name != "step" and len(known := column.dropna())
    }


def in_common(seeds: Sequence["pd.Series[float]"]) -> pd.DataFrame:
    """The curves of several seeds, each a value by epoch: a row for each epoch that all have, a column a seed."""
    return pd.concat(seeds, axis="columns", join="inner").dropna().sort_index()


def _project(given: Project | str | Path | None) -> Project:
    return given if isinstance(given, Project) else Project.find(None if given is None else Path(given))
