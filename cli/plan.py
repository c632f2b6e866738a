"""`u2pl plan`: chooses what `dvc repro` regenerates."""

from typing import Annotated

import typer


def plan(
    name: Annotated[str, typer.Argument(help="demo, camvid, or any file in pipelines/plans.")],
    table: Annotated[
        list[str] | None, typer.Option(help="Only this table, by name or number; may be repeated.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Make a plan the active one, and print what `dvc repro` will run.

    Example: u2pl plan demo
    """
    from rich.console import Console
    from rich.table import Table

    from u2pl.planning import resolve
    from u2pl.project import Project

    project = Project.find()
    active = resolve(project, name, table)
    active.write(project)
    if json:
        typer.echo(active.model_dump_json(indent=2))
        return
    stages = Table("stage", "data set", "split", "method", "seed", "what it runs", box=None, pad_edge=False)
    for prepare in active.prepare.values():
        stages.add_row("prepare", prepare.dataset, prepare.split)
    for run_name, run in active.runs.items():
        stages.add_row("train, evaluate", run.dataset, run.split, run.method, str(run.seed), run_name)
    for row in active.ablations.values():
        what = f"{row.param}: {row.values}"
        stages.add_row("ablate", row.dataset, row.split, row.method, str(row.seed), what)
    for table_name in active.tables:
        stages.add_row("table", active.dataset, "", "", "", f"{active.reports}/tables/{table_name}.md")
    stages.add_row("report", active.dataset, "", "", "", f"{active.reports}/index.html")
    Console(soft_wrap=True).print(stages)
    typer.echo(f"The active plan is {name} (pipelines/plan.yaml). Next: dvc repro")
