"""Trains one run for every value of a setting, and compares them."""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from u2pl.engine import filed
from u2pl.engine.results import evaluate_run
from u2pl.engine.trainer import Observer, describe, train
from u2pl.errors import UsageError, UserError
from u2pl.files import read_json, write_json
from u2pl.project import Project, slug
from u2pl.settings import Params, RunSpec, parse_value


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
        UsageError: no value, or a value with another number of parts than there are parameters.
    """
    names = tuple(parameter.split(","))
    if not values:
        raise UsageError(f"Say which values to try. Example: u2pl ablate --param {parameter} 0.1 0.2 0.3")
    specs = []
    for value in values:
        parts = value.split(",") if len(names) > 1 else [value]
        if len(parts) != len(names):
            raise UsageError(
                f"{value!r} has {len(parts)} parts for {len(names)} parameters. Example: "
                "u2pl ablate --param r_l,r_h 1,3 3,20"
            )
        changed = dict(zip(names, map(parse_value, parts), strict=True))
        specs.append((value, params.spec(dataset, split, method, seed, (overrides or {}) | changed)))
    first = specs[0][1]
    keys = tuple(params.full_key(name, first.method) for name in names)
    short = "+".join(key.rpartition(".")[2] for key in keys)
    fixed = "".join(f"-{key.rpartition('.')[2]}={value}" for key, value in sorted((overrides or {}).items()))
    name = slug(f"{first.dataset}-{first.split}-{first.method}-by-{short}{fixed}-s{first.seed}")
    return Ablation(name, keys, tuple(specs))


def find_finished(project: Project, fingerprint: str) -> Path | None:
    """A finished run with this fingerprint, whatever its name; None where there is none."""
    for path in sorted(project.runs.glob("*/metrics.json")):
        if read_json(path)["fingerprint"] == fingerprint:
            return path.parent
    return None


def ablate(
    project: Project,
    ablation: Ablation,
    *,
    copy: Path | None = None,
    fresh: bool = False,
    starting: Callable[[str, str], Observer] = lambda value, run: lambda *_: None,
) -> tuple[list[dict[str, Any]], dict[str, UserError]]:
    """Train what is not yet trained, evaluate all, and record the comparison.

    A failed value does not stop the others. The record of an earlier ablation of the same setting keeps the
    values that this one does not try again.

    Args:
        copy: another file that is to hold the comparison.
        starting: called with (value, run name) before each; returns who is told about its steps.

    Returns:
        One dictionary a value (value, run, miou_reported, miou_last, miou_best), and value -> error for those
        that failed.
    """
    rows: list[dict[str, Any]] = []
    failed: dict[str, UserError] = {}
    record = project.runs / ".ablations" / ablation.name / "ablation.json"
    old = read_json(record) if record.is_file() else {}
    kept = [row for row in old.get("runs", []) if row["value"] not in dict(ablation.specs)]
    first = ablation.specs[0][1]
    header = {
        "name": ablation.name,
        "uid": old["uid"] if old else uuid.uuid4().hex,
        "parameter": ",".join(ablation.parameters),
        "method": first.method,
        "dataset": first.dataset,
        "split": first.split,
        "seed": first.seed,
    }
    for value, spec in ablation.specs:
        try:
            _, _, description = describe(project, spec)
            observe = starting(value, description["name"])
            path = find_finished(project, description["fingerprint"]) or train(
                project, spec, fresh=fresh, parent=ablation.name, observe=observe
            )
            metrics = filed.own_evaluation(project, path, partial(evaluate_run, project, path.name))
        except UserError as error:
            if error.exit_code == 130:
                raise
            failed[value] = error
            continue
        miou = {f"miou_{key}": metrics["miou"][key] for key in ("reported", "last", "best")}
        rows.append({"value": value, "run": path.name, **miou})
        write_json(record, {**header, "runs": kept + rows})
    if copy is not None and rows:
        # Without the uid, which is drawn: a stage's output says the same each time.
        write_json(copy, {**{key: value for key, value in header.items() if key != "uid"}, "runs": rows})
    return rows, failed
