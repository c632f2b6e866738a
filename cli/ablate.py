"""`u2pl ablate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .terminal import console, say

if TYPE_CHECKING:
    from u2pl.training.trainer import Observer


def ablate(
    values: Annotated[
        list[str], typer.Argument(help="Values to try; parts joined by commas for several parameters.")
    ],
    param: Annotated[
        str, typer.Option(help="Setting to vary: alpha0, contrast.tau, recipe.lr, or several: r_l,r_h.")
    ],
    dataset: Annotated[str | None, typer.Option(help="Data set that was prepared.")] = None,
    split: Annotated[str | None, typer.Option(help="Which images keep their labels.")] = None,
    method: Annotated[str | None, typer.Option(help="Method whose setting it is.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights, order and augmentation.")] = None,
    set_: Annotated[list[str], typer.Option("--set", help="Override a setting in every run.")] = [],  # noqa: B006
    fresh: Annotated[bool, typer.Option("--fresh", help="Move runs of other settings aside.")] = False,
    compare: Annotated[
        bool, typer.Option("--compare", help="Train nothing: compare the runs that have finished.")
    ] = False,
    record: Annotated[Path | None, typer.Option(help="File that receives the comparison as JSON.")] = None,
) -> None:
    """Train one run for each value of a setting and compare them; finished runs of the same settings are reused.

    Example: u2pl ablate --param alpha0 0.1 0.2 0.3
    """
    from u2pl.errors import UsageError, UserError
    from u2pl.project import Project
    from u2pl.settings import Params, parse_overrides

    project = Project.find()
    from contextlib import ExitStack

    from u2pl.tracking.sidecar import sync_ablation
    from u2pl.training import ablation as engine

    from .progress import training
    from .targets import check_target, is_comparison

    check_target(project, record, "--record", is_comparison)
    if compare and fresh:
        raise UsageError("--compare trains nothing, so nothing is to be moved aside. Leave --fresh out.")
    plan = engine.plan_ablation(
        Params.read(project), param, values,
        dataset=dataset, split=split, method=method, seed=seed, overrides=parse_overrides(set_),
    )  # fmt: skip
    with ExitStack() as stack:

        def starting(value: str, name: str) -> "Observer":
            stack.close()  # the bar of the value before
            return stack.enter_context(training(name))

        try:
            rows, failed = engine.ablate(
                project, plan, copy=record, fresh=fresh, train=not compare, starting=starting
            )
        finally:
            # A stage of the pipeline need not wait for MLflow, which takes longer than the comparison.
            warning = sync_ablation(project, plan.name, wait=not compare)
    if warning:
        say(f"Warning: {warning}", err=True)

    from rich.table import Table

    table = Table(title=plan.name)
    for column in (",".join(plan.parameters), "mIoU %", "best %", "run"):
        table.add_column(column, justify="right" if "%" in column else "left")
    best = max((row["miou_reported"] for row in rows), default=0.0)
    for row in rows:
        miou, mark = row["miou_reported"], " *" if row["miou_reported"] == best else ""
        over = f" {row['over']}" if "over" in row else ""
        table.add_row(row["value"], f"{miou:.2f}{over}{mark}", f"{row['miou_best']:.2f}", row["run"])
    for value in failed:
        table.add_row(value, "failed", "", "")
    console().print(table)
    if failed:
        reasons = "\n  ".join(f"{value}: {error}" for value, error in failed.items())
        raise UserError(f"{len(failed)} of {len(plan.specs)} values failed:\n  {reasons}")
    say(f"Next: u2pl evaluate {max(rows, key=lambda row: row['miou_reported'])['run']}")
