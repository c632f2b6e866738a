"""`u2pl plan run`: runs the active plan, several stages at a time."""

from typing import Annotated

import typer

from .terminal import say


def run(
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Stages that run side by side.",
            show_default="as many as --gpus names, or else one",
        ),
    ] = None,
    gpus: Annotated[
        str | None,
        typer.Option(
            help="GPUs to share out, one to each stage that runs: 0,1,2,3.",
            show_default="with several --jobs those that are visible, else what `u2pl train` takes",
        ),
    ] = None,
) -> None:
    """Run the stages of the active plan side by side and go on past failures; what is done already costs little.

    Ctrl-C lets what runs save its state, and starts nothing more; the same command goes on from there.

    Example: u2pl plan run --jobs 2
    """
    from u2pl.errors import Interrupted
    from u2pl.pipeline import ActivePlan
    from u2pl.pipeline.plan_runner import run_plan
    from u2pl.pipeline.scheduling import State
    from u2pl.pipeline.stage_process import log_of
    from u2pl.pipeline.workers import Workers
    from u2pl.project import Project
    from u2pl.reporting.headline import headlines
    from u2pl.reporting.results import collect_all

    from .plan_progress import showing

    project = Project.find()
    workers = Workers.of(jobs, gpus)
    if workers.warning:
        say(f"Warning: {workers.warning}", err=True)
    with showing(project) as (observe, tick):
        entries = run_plan(project, workers, observe=observe, tick=tick)
    of = {state: [name for name, entry in entries.items() if entry.state is state] for state in State}
    for name in of[State.FAILED]:
        say(f"{name} failed: {entries[name].sentence}\n  Its output: {log_of(project, name)}")
    for name in of[State.BLOCKED]:
        say(f"{name} is blocked: it {entries[name].sentence}.")
    counts = f"done {len(of[State.DONE])}, failed {len(of[State.FAILED])}, blocked {len(of[State.BLOCKED])}"
    if of[State.WAITING]:
        raise Interrupted(
            f"Stopped: {counts}, not finished {len(of[State.WAITING])}. Go on with: u2pl plan run"
        )
    say(f"Of {len(entries)} stages: {counts}.")
    if of[State.FAILED]:
        say("Mend what is named, then start the same command again: it does what is left.")
        raise typer.Exit(1)
    for sentence in headlines(collect_all(project, ActivePlan.read(project))):
        say(sentence)
    say("See the tables with: u2pl status, or in the folder of reports.")
