"""`u2pl plan`: chooses what `dvc repro` regenerates, and says what that takes."""

from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from . import completion, plan_run
from .run_options import parse_seeds
from .terminal import console, next_step, say, say_json

if TYPE_CHECKING:
    from u2pl.pipeline import ActivePlan
    from u2pl.project import Project


class Plans(TyperGroup):
    """A group in which every word that is no command is the name of a plan."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[Any, Any, list[str]]:
        """The command that `args` begin with, else the one that chooses a plan."""
        if args and args[0] in self.commands and args[0] != "NAME":
            return super().resolve_command(ctx, args)
        return "NAME", self.commands["NAME"], args

    def list_commands(self, ctx: Any) -> list[str]:
        """The commands; while a shell completes a word, plans in place of the one that stands for them."""
        names = super().list_commands(ctx)
        if not ctx.resilient_parsing:
            return names
        return [*(name for name in names if name != "NAME"), *completion.plans(ctx, "")]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of that name, which of a plan is the one that chooses it."""
        is_plan = ctx.resilient_parsing and cmd_name not in self.commands
        return self.commands["NAME"] if is_plan else super().get_command(ctx, cmd_name)


app = typer.Typer(
    cls=Plans,
    no_args_is_help=True,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    help="""Choose what `dvc repro` regenerates: a plan's name, such as demo, demo-full, camvid, photos or paper.
    `u2pl plan run` runs it on several devices at once.

    Example: u2pl plan demo
    """,
)


app.command("run")(plan_run.run)


@app.command("NAME")
def choose(
    name: Annotated[
        str, typer.Argument(help="Any file in pipelines/plans, such as demo, camvid, photos or paper.")
    ],
    table: Annotated[
        list[str] | None,
        typer.Option(
            help="Only this table, by name or number; may be repeated.",
            autocompletion=completion.tables,
            show_default="all of the plan",
        ),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(
            help="Seeds, such as 0,1,2, of which tables show mean and sd.", show_default="those of the plan"
        ),
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Take a step of each kind of run to know this machine's speed.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Make a plan the active one, and print what `dvc repro` will run, how long, and what is missing.

    Example: u2pl plan paper --table 4 --table 7 --seeds 0,1,2
    """
    from u2pl.pipeline import resolve
    from u2pl.project import Project

    project = Project.find()
    active = resolve(project, name, table, parse_seeds(seeds) if seeds else None)
    if json:
        active.write(project)
        say_json(active.model_dump(mode="json"))
    else:
        _show(project, active, measure=measure)


def _show(project: "Project", active: "ActivePlan", *, measure: bool) -> None:
    from rich.table import Table

    from u2pl.pipeline import places, planned_names, spec_of
    from u2pl.pipeline.departures import of_plan
    from u2pl.settings import Params
    from u2pl.training import estimate

    params, screen = Params.read(project), console(highlight=False)
    if not screen.is_terminal:
        screen.width = 160  # a file has no margin
    called = planned_names(project, active)
    specs, where = {name: spec_of(active.runs[key]) for key, name in called.items()}, places(active, called)
    works = {name: estimate.work(project, params, spec) for name, spec in specs.items()}
    speeds = estimate.speeds(project)
    if measure:
        kinds = {work.kind: specs[name] for name, work in works.items() if work and work.kind not in speeds}
        _measure(project, params, kinds)
        speeds = estimate.speeds(project)

    runs = Table(box=None, pad_edge=False, expand=True)
    runs.add_column("run", overflow="fold", ratio=3)
    runs.add_column("images", justify="right")
    runs.add_column("hours", justify="right")
    runs.add_column("shown in", ratio=2)
    for name, work in works.items():
        takes = (_count(work.images), _hours(work.hours(speeds))) if work else ("?", "")
        runs.add_row(name, *takes, ", ".join(where[name]))
    screen.print(runs)

    known = [work for work in works.values() if work]
    hours = [work.hours(speeds) for work in known]
    shared = sum(len(shown) > 1 for shown in where.values())
    say(
        f"\n{len(specs)} runs for {active.cell_results} cells of {len(active.tables)} tables and "
        f"{len(active.figures)} figures; {shared} runs stand in more than one of them and are trained once."
    )
    passes = f"{_count(sum(work.images for work in known))} image passes (forwards and backwards, of what is trained)"
    unknown = len(works) - len(known)
    but = f"; of {unknown} runs the split has to be prepared first" if unknown else ""
    if None in hours or not hours:
        say(f"Work: {passes}{but}. This machine's speed is not known for all of it: add --measure.")
    else:
        total = sum(hour for hour in hours if hour is not None)
        say(f"Work: {passes}{but}, about {_hours(total)} hours on one device of this machine.")
    departures = of_plan(project, active)
    if departures:
        say("Departures from the paper's recipe, each a footnote of the tables:")
        for text, names in departures.items():
            say(f"  {text} ({len(names)} run{'s' * (len(names) != 1)})")
    missing = _missing(project, active)
    for sentence in missing:
        say(f"Missing: {sentence}")
    active.write(project)  # now that all settings are known to work
    say(f"The active plan is {active.plan} (pipelines/plan.yaml).")
    next_step("dvc", "repro")


def _measure(project: "Project", params: Any, kinds: dict[str, Any]) -> None:
    from u2pl.training import estimate

    from .progress import counting

    with counting() as progress:
        for index, spec in enumerate(kinds.values()):
            progress("measuring speed", index, len(kinds))
            estimate.measure(project, params, spec)
        progress("measuring speed", len(kinds), len(kinds))


def _missing(project: "Project", active: "ActivePlan") -> list[str]:
    """A sentence for each data set and each split of the user's own that is not there yet, and for a missing git."""
    from pathlib import Path
    from shlex import split

    from u2pl.data.data_set import missing
    from u2pl.pipeline.plan_runner import missing_git

    roots: dict[str, str | None] = {}
    for stage in active.prepare.values():
        words = split(stage.args)
        roots[stage.dataset] = words[words.index("--root") + 1] if "--root" in words else None
    found = [
        missing(project, dataset, project.root / Path(root) if root else None)
        for dataset, root in roots.items()
    ]
    made = {stage.folder for stage in active.prepare.values()}
    own = {
        (stage.dataset, stage.split)
        for stage in active.runs.values()
        if stage.folder not in made and not (project.root / stage.folder / "manifest.json").is_file()
    }
    found += [
        f"Split {split!r} of {dataset!r} has lists of your own, which no stage can make. Prepare it: "
        f"u2pl prepare --dataset {dataset} --split {split} --source FILE"
        for dataset, split in sorted(own)
    ]
    found.append(missing_git(project))
    return [sentence for sentence in found if sentence]


def _count(number: int) -> str:
    return f"{number / 1e6:.2f} M" if number >= 10**6 else f"{number / 1e3:.1f} k"


def _hours(hours: float | None) -> str:
    if hours is None:
        return ""
    return f"{hours:,.0f}" if hours >= 10 else f"{hours:.2g}"
