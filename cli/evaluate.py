"""`u2pl evaluate`."""

from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    run: Annotated[str, typer.Argument(help="Name of a finished run, or its folder.")],
    into: Annotated[
        Path | None, typer.Option(help="Results folder that receives a folder of the run's name.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the metrics as JSON.")] = False,
) -> None:
    """Score the network a finished run is reported by on the validation images, class by class.

    Example: u2pl evaluate shapes-1_8-u2pl-s0
    """
    from u2pl.engine.results import evaluate_run, run_path
    from u2pl.project import Project

    project = Project.find()
    metrics = evaluate_run(project, run, into)
    if json:
        import json as json_module

        print(json_module.dumps(metrics, indent=2, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table

    protocol = metrics["protocol"]
    how = f"{protocol['network']}, {protocol['checkpoint']} checkpoint, {protocol['evaluation']}"
    table = Table(title=f"{metrics['name']}: {how}")
    table.add_column("class")
    table.add_column("IoU %", justify="right")
    for name, value in metrics["iou"].items():
        table.add_row(name, "-" if value is None else f"{value:.2f}")
    table.add_section()
    table.add_row("mIoU", f"{metrics['miou']['reported']:.2f}")
    Console().print(table)
    print(f"Pictures are in {run_path(project, run) / 'samples'}. Next: u2pl report")
