"""`u2pl ablate`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import completion
from . import run_options as options
from .terminal import console, next_step, say, say_json

if TYPE_CHECKING:
    from u2pl.errors import UserError
    from u2pl.project import Project
    from u2pl.reporting.seeds import ValueOverSeeds
    from u2pl.training.ablation import Ablation
    from u2pl.training.machine import Machine
    from u2pl.training.trainer import Observer

    Failed = Mapping[tuple[str, int], UserError]
    """(value, seed) -> why it has no result."""


def ablate(
    values: Annotated[
        list[str], typer.Argument(help="Values to try; parts joined by commas for several parameters.")
    ],
    param: Annotated[
        str,
        typer.Option(
            help="Setting to vary: alpha0, contrast.tau, recipe.lr, or several: r_l,r_h.",
            autocompletion=completion.parameters,
        ),
    ],
    dataset: options.Dataset = None,
    split: options.Split = None,
    method: options.Method = None,
    seed: options.Seed = None,
    seeds: options.Seeds = None,
    set_: options.Set = [],  # noqa: B006
    batch: options.Batch = None,
    micro_batch: options.MicroBatch = None,
    nproc: options.Nproc = 1,
    device: options.Device = "auto",
    recompute: options.Recompute = False,
    compiled: options.Compiled = False,
    workers: options.Workers = None,
    save_every: options.SaveEvery = None,
    limit_batches: options.LimitBatches = None,
    weights: options.Weights = None,
    from_: options.From = None,
    fresh: options.Fresh = False,
    compare: Annotated[
        bool, typer.Option("--compare", help="Train nothing: compare the runs that have finished.")
    ] = False,
    record: Annotated[
        Path | None, typer.Option(help="File that receives the comparison as JSON.", show_default="none")
    ] = None,
    json: options.Json = False,
) -> None:
    """Train one run for each value of a setting and compare them; finished runs of the same settings are reused.

    Over several seeds each value has a mean and a standard deviation. The best value gets a star if, against every
    other, its mean difference seed by seed exceeds their standard deviation and twice its standard error.

    Example: u2pl ablate --param alpha0 0.1 0.2 0.3 --seeds 0,1,2
    """
    from u2pl.errors import UsageError
    from u2pl.project import Project
    from u2pl.training import ablation as engine
    from u2pl.training import place

    from .targets import check_target, is_comparison

    project = Project.find()
    check_target(project, record, "--record", is_comparison)
    if compare and fresh:
        raise UsageError("--compare trains nothing, so nothing is to be moved aside. Leave --fresh out.")
    if place.started():
        raise UsageError("torchrun is for u2pl train. Here --nproc starts the processes, run by run.")
    given = options.training(
        project, set_=set_, batch=batch, micro_batch=micro_batch, limit_batches=limit_batches,
        weights=weights, from_=from_, dataset=dataset,
        seed=seed, seeds=seeds, recompute=recompute, compiled=compiled, workers=workers, save_every=save_every,
    )  # fmt: skip
    plans = [
        engine.plan_ablation(
            given.params, param, values,
            dataset=dataset, split=split, method=method, seed=each, overrides=given.overrides,
        )
        for each in given.seeds
    ]  # fmt: skip
    rows, failed = _compared(
        project, plans, given.machine, nproc, fresh=fresh, train=not compare, record=record
    )
    _show(plans, rows, failed, record, json=json)


def _compared(
    project: "Project",
    plans: "Sequence[Ablation]",
    machine: "Machine",
    processes: int,
    *,
    fresh: bool,
    train: bool,
    record: Path | None,
) -> "tuple[list[dict[str, Any]], Failed]":
    """The rows of all seeds, each with its own, and what failed."""
    from contextlib import ExitStack

    from u2pl.errors import EndedElsewhere, Interrupted
    from u2pl.tracking.sidecar import sync_ablation
    from u2pl.training import ablation as engine

    from .progress import training

    found: list[dict[str, Any]] = []
    failed: dict[tuple[str, int], UserError] = {}
    for plan in plans:
        seed = plan.specs[0][1].seed
        with ExitStack() as stack:

            def starting(value: str, name: str, stack: ExitStack = stack) -> "Observer":
                stack.close()  # the bar of the value before
                return stack.enter_context(training(name))

            try:
                rows, lost = engine.ablate(
                    project, plan, copy=record if len(plans) == 1 else None, fresh=fresh, train=train,
                    machine=machine, processes=processes, starting=starting,
                )  # fmt: skip
            except (Interrupted, EndedElsewhere) as error:
                if len(plans) == 1 or error.exit_code != Interrupted.exit_code:
                    raise
                raise Interrupted(f"{error} It goes on with seed {seed}.".lstrip()) from None
            finally:
                # A stage of the pipeline need not wait for MLflow, which takes longer than the comparison.
                warning = sync_ablation(project, plan.name, wait=train)
        if warning:
            say(f"Warning: {warning}", err=True)
        found += [{**row, "seed": seed} for row in rows]
        failed |= {(value, seed): error for value, error in lost.items()}
    return found, failed


def _show(
    plans: "Sequence[Ablation]",
    rows: list[dict[str, Any]],
    failed: "Failed",
    record: Path | None,
    *,
    json: bool,
) -> None:
    from u2pl.errors import UserError
    from u2pl.files import write_json
    from u2pl.reporting.seeds import clearly_best, highest, over_seeds, verdict
    from u2pl.training import ablation as engine

    found = over_seeds(rows)
    best = clearly_best(found)
    summary = {"values": [each.as_json() for each in found], "best": best.value if best else None}
    comparison = engine.comparison(plans, rows, summary)
    if record is not None and rows and len(plans) > 1:
        write_json(record, comparison)
    names = {
        (value, seed): value if len(plans) == 1 else f"{value} with seed {seed}" for value, seed in failed
    }
    if json:
        say_json({**comparison, "failed": {names[key]: str(error) for key, error in failed.items()}})
    else:
        _print_table(plans, rows, found, best, failed)
        if found:
            say(verdict(found))
    if failed:
        reasons = "\n  ".join(f"{names[key]}: {error}" for key, error in failed.items())
        total = sum(len(plan.specs) for plan in plans)
        raise UserError(
            f"{len(failed)} of {total} {'values' if len(plans) == 1 else 'runs'} failed:\n  {reasons}"
        )
    if not json:
        leader = highest(found).value
        next_step("u2pl", "evaluate", next(row["run"] for row in rows if row["value"] == leader))


def _print_table(
    plans: "Sequence[Ablation]",
    rows: Sequence[Mapping[str, Any]],
    found: "Sequence[ValueOverSeeds]",
    best: "ValueOverSeeds | None",
    failed: "Failed",
) -> None:
    """One row a value."""
    from statistics import fmean

    from rich.table import Table

    first = plans[0]
    table = Table(title=first.name if len(plans) == 1 else first.name.rpartition("-")[0])
    for column in (",".join(first.parameters), "mIoU %", "best %", "run"):
        table.add_column(column, justify="right" if "%" in column else "left", overflow="fold")
    for each in found:
        own = [row for row in rows if row["value"] == each.value]
        over = " ".join(dict.fromkeys(row["over"] for row in own if "over" in row))
        words = [each.text, over, "*" if each is best else ""]
        table.add_row(
            each.value,
            " ".join(filter(None, words)),
            f"{fmean(row['miou_best'] for row in own):.2f}",
            "\n".join(row["run"] for row in own),
        )
    for value in dict.fromkeys(value for value, _ in failed):
        lost = [seed for other, seed in failed if other == value]
        of = "" if len(plans) == 1 else f" (seed {', '.join(map(str, lost))})"
        table.add_row(value, f"failed{of}", "", "")
    console().print(table)
