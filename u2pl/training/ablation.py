"""Trains one run for every value of a setting, and compares them; loads torch only to train or to evaluate."""

import json
import os
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from u2pl.errors import EndedElsewhere, UsageError, UserError
from u2pl.files import sweep, write_json
from u2pl.project import Project, kept_name, readable_name, safe_name
from u2pl.runs import scored_classes, stored_evaluation
from u2pl.runs.origin import train_command
from u2pl.runs.records import Ablation as AblationRecord
from u2pl.runs.records import AblationRow, Metrics, is_complete, read_metrics, read_run
from u2pl.runs.staleness import facts
from u2pl.settings import Params, RunSpec, device, differences, parse_value, run_arguments
from u2pl.training.machine import Machine
from u2pl.typed_files import read

if TYPE_CHECKING:
    from u2pl.training.trainer import Observer


@dataclass(frozen=True)
class Ablation:
    """One setting (or several that change together), and the runs that differ in it."""

    name: str
    parameters: tuple[str, ...]
    specs: tuple[tuple[str, RunSpec], ...]
    """(value as typed, run) in the order given."""


def plan_ablation(
    params: Params,
    parameter: str,
    values: Sequence[str],
    *,
    dataset: str | None = None,
    split: str | None = None,
    method: str | None = None,
    seed: int | None = None,
    overrides: dict[str, Any] | None = None,
) -> Ablation:
    """Resolve the words of `u2pl ablate` into runs.

    Args:
        parameter: a setting, or several joined by commas (`r_l,r_h`).
        values: a value each, with as many parts (`3,20`).

    Raises:
        UsageError: no value, a value with another number of parts than there are parameters, values that are one run,
            or a parameter that is named twice or set to something too.
    """
    names = tuple(parameter.split(","))
    if not values:
        raise UsageError(f"Say which values to try. Example: u2pl ablate --param {parameter} 0.1 0.2 0.3")
    fixed = params.spec(dataset, split, method, seed, overrides)
    keys = tuple(params.full_key(name, fixed.method) for name in names)
    for key in keys:
        if keys.count(key) > 1:
            raise UsageError(f"--param names {key} twice. Name each setting once.")
        if key in fixed.overrides:
            raise UsageError(f"{key} is what --param varies, so --set cannot fix it. Leave one of them out.")
    specs: list[tuple[str, RunSpec]] = []
    for value in values:
        parts = value.split(",") if len(names) > 1 else [value]
        if len(parts) != len(names):
            raise UsageError(
                f"{value!r} has {len(parts)} parts for {len(names)} parameters. Example: "
                "u2pl ablate --param r_l,r_h 1,3 3,20"
            )
        changed = dict(zip(keys, map(parse_value, parts), strict=True))
        spec = replace(fixed, overrides={**fixed.overrides, **changed})
        same = next((known for known, other in specs if other == spec), None)
        if same is not None:
            raise UsageError(f"{same!r} and {value!r} are the same run. Name each value once.")
        specs.append((value, spec))
    short = "+".join(key.rpartition(".")[2] for key in keys)
    rest = [f"{key.rpartition('.')[2]}={value}" for key, value in sorted((overrides or {}).items())]
    parts, end = [fixed.dataset, fixed.split, fixed.method, f"by-{short}", *rest], f"s{fixed.seed}"
    said = [fixed.dataset, fixed.split, fixed.method, keys, sorted(map(str, fixed.overrides.items()))]
    name, former = readable_name(parts, end, json.dumps(said)), safe_name("-".join([*parts, end]))
    return Ablation(kept_name(_records(Project(params.root)), name, former), keys, tuple(specs))


def find_finished(project: Project, fingerprint: str) -> Path | None:
    """A finished run with this fingerprint, whatever its name; None where there is none."""
    for path in sorted(project.runs.glob("*/metrics.json")):
        with suppress(OSError, UserError):  # a damaged run is none to take the result of
            if read_metrics(path.parent)["fingerprint"] == fingerprint:
                return path.parent
    return None


def find_comparable(project: Project, params: Params, spec: RunSpec) -> Path:
    """The finished run of today's settings, whatever its name, found without torch (see `staleness.facts`).

    Of precision `auto` it takes whichever was chosen when the run began, on this machine or another.

    Raises:
        UserError: there is none; the command that trains it is named.
    """
    name = params.name_of(spec)
    own = project.runs / name
    others = (path.parent for path in sorted(project.runs.glob("*/metrics.json")) if path.parent != own)
    for path in (own, *others):
        if not is_complete(path) or not (path / "run.json").is_file():
            continue
        try:
            recorded = read_run(path)["facts"]
        except UserError:
            if path == own:
                raise
            continue
        # What is told apart at a glance first: of a hundred runs few are worth a closer look.
        if any(recorded.get(key) != getattr(spec, key) for key in ("dataset", "split", "method", "seed")):
            continue
        if not differences(recorded, facts(project, params, spec, recorded)):
            return path

    run = {key: getattr(spec, key) for key in ("dataset", "split", "method", "seed", "overrides")}
    raise UserError(
        f"There is no finished run {name} of today's settings. Train it: {train_command(run)} --fresh"
    )


def ablate(
    project: Project,
    ablation: Ablation,
    *,
    copy: Path | None = None,
    fresh: bool = False,
    train: bool = True,
    machine: Machine = Machine(),  # noqa: B008
    processes: int = 1,
    starting: Callable[[str, str], "Observer"] = lambda value, run: lambda *_: None,
) -> tuple[list[dict[str, Any]], dict[str, UserError]]:
    """Train what is not yet trained, evaluate all, and record the comparison.

    A failed value does not stop the others. The record of an earlier ablation of the same setting keeps the
    values that this one does not try again; so it does where two of them are at work at the same time.

    Args:
        copy: another file that is to hold the comparison.
        fresh: move runs of other settings aside.
        train: False compares the runs that have finished; a value without one fails. Where all have been evaluated,
            torch is not loaded.
        machine: how the work is done; no number depends on it.
        processes: that share each batch of a run.
        starting: called with (value, run name) before each that may be trained; returns who is told about its steps.

    Returns:
        One dictionary a value (value, run, miou_reported, miou_last, miou_best, and `over` how many classes where
        it is not over all), and value -> error for those that failed.
    """
    rows: list[dict[str, Any]] = []
    failed: dict[str, UserError] = {}
    params = Params.read(project)
    for value, spec in ablation.specs:
        try:
            if train:
                path = _trained(project, ablation, value, spec, fresh, machine, processes, starting)
            else:
                path = find_comparable(project, params, spec)
            metrics = stored_evaluation.own_evaluation(project, path, partial(_evaluated, project, path))
        except UserError as error:
            if error.exit_code == 130:
                raise
            failed[value] = error
            if record_of(project, ablation).is_file():
                _record(project, ablation, rows, failed)
            continue
        miou = {f"miou_{key}": metrics["miou"][key] for key in ("reported", "last", "best")}
        over = scored_classes.counted_classes(metrics)
        rows.append({"value": value, "run": path.name, **miou, **({"over": over} if over else {})})
        _record(project, ablation, rows, failed)
    if copy is not None and rows:
        write_json(copy, {**_header(ablation), "runs": rows})
    return rows, failed


def _trained(
    project: Project,
    ablation: Ablation,
    value: str,
    spec: RunSpec,
    fresh: bool,
    machine: Machine,
    processes: int,
    starting: Callable[[str, str], "Observer"],
) -> Path:
    from u2pl.training import trainer

    resolved, _, description = trainer.describe(project, spec)
    found = find_finished(project, description["fingerprint"])
    if processes > 1 and found is None:
        from u2pl.training.launcher import launch

        trainer.check_processes(resolved.recipe, processes)
        words = [
            *run_arguments(spec),
            *machine.arguments,
            "--device",
            device.chosen(),
            "--parent",
            ablation.name,
        ]
        code = launch(["train", *words, *(["--fresh"] if fresh else [])], processes)
        if code:
            raise EndedElsewhere(code)  # they have said why
        return project.runs / resolved.name
    observe = starting(value, description["name"])
    return found or trainer.train(
        project, spec, fresh=fresh, parent=ablation.name, machine=machine, observe=observe
    )


def _evaluated(project: Project, path: Path) -> Metrics:
    from u2pl.runs.results import evaluate_run

    return evaluate_run(project, path.name)


def _header(ablation: Ablation) -> dict[str, Any]:
    first = ablation.specs[0][1]
    return {
        "name": ablation.name,
        "parameter": ",".join(ablation.parameters),
        "method": first.method,
        "dataset": first.dataset,
        "split": first.split,
        "seed": first.seed,
    }


def comparison(
    ablations: Sequence[Ablation], rows: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]
) -> dict[str, Any]:
    """Ablations that differ in their seeds alone, as one comparison.

    It is read like that of one seed, the first: `runs` has a row for each value and each seed, which says its own.

    Args:
        ablations: one a seed.
        rows: those of all of them, each with its `seed`.
        summary: what the runs of each value come to.
    """
    first, seeds = ablations[0], [ablation.specs[0][1].seed for ablation in ablations]
    name = f"{first.name.removesuffix(f's{seeds[0]}')}s{','.join(map(str, seeds))}"
    return {**_header(first), "name": safe_name(name), "seeds": seeds, **summary, "runs": list(rows)}


def record_of(project: Project, ablation: Ablation) -> Path:
    """Where the comparison is recorded, and mirrored from."""
    return _records(project) / ablation.name / "ablation.json"


def _records(project: Project) -> Path:
    return project.runs / ".ablations"


def _record(
    project: Project, ablation: Ablation, rows: Sequence[dict[str, Any]], failed: Collection[str]
) -> None:
    """Put the rows in their places in the record, and take those of failed values out.

    Held by one process from reading to writing: tables that share a record may be made side by side.
    """
    path = record_of(project, ablation)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name("ablation.lock")):
        sweep(path.parent)
        uid, before = uuid.uuid4().hex, list[AblationRow]()
        if os.path.lexists(path):
            old = read(AblationRecord, path)
            uid, before = old["uid"], old["runs"]
        known: dict[str, Any] = {row["value"]: row for row in before if row["value"] not in failed}
        known |= {row["value"]: row for row in rows}
        write_json(path, {**_header(ablation), "uid": uid, "runs": list(known.values())})
