"""`u2pl auto`."""

import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from u2pl.reporting.durations import duration

from . import run_options as options
from .terminal import next_step, say, say_json

if TYPE_CHECKING:
    from u2pl.auto.data_set import DataSet
    from u2pl.auto.folder import Understood
    from u2pl.auto.portfolio import Curve
    from u2pl.auto.race import Contender, Event
    from u2pl.auto.session import Session
    from u2pl.pipeline.workers import Workers
    from u2pl.project import Project


def auto(
    folder: Annotated[
        Path, typer.Argument(help="Pictures, some of them with masks or annotations of a labelling tool.")
    ],
    budget: Annotated[
        str,
        typer.Option(help="How long it may take: 30m, 2h, 1h30m. More, another time, goes on from there."),
    ] = "1h",
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1, help="Runs that train side by side.", show_default="one a GPU; else two cores, two runs"
        ),
    ] = None,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """From a folder of pictures and some masks to an answer: what unlabelled pictures help, and with which method.

    Says what it takes the folder for, trains the labelled pictures alone and the best methods that the budget allows,
    and writes one page: what was gained, class by class, how sure that is, the network, and what to label next. Nothing
    is written to the folder. Ctrl-C leaves the best so far; the same command goes on.

    Example: u2pl auto photos --budget 2h
    """
    seconds = parse_budget(budget)

    import warnings

    from PIL import Image

    from u2pl.errors import UsageError

    from .heavy import heavy_imports

    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder. Name a folder of pictures, some of them with masks.")
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    with heavy_imports():
        from u2pl.auto.session import open_session

    from u2pl.auto.folder import understand

    from .progress import counting

    began = time.monotonic()

    def tell(found: "Understood", data_set: "DataSet") -> None:
        if not json:
            _say_understood(found, data_set)

    workers = _workers(jobs)
    with ExitStack() as stack:
        with counting() as progress:
            understood = understand(folder, progress)
            project = _project(folder)
            opened = stack.enter_context(
                open_session(project, understood, seconds, workers.jobs, progress, tell)
            )
        for warning in opened.warnings:
            say(f"Warning: {warning}", err=True)
        if not json:
            _say_plan(opened, seconds)
        facts = _race(opened, seconds, workers, device, quiet=json)
    if json:
        say_json(facts)
        return
    say(f"Took {duration(time.monotonic() - began)} now. The answer: {facts['page']}")
    if facts["model"]:
        next_step(*facts["predict"])


def _race(
    opened: "Session", seconds: float, workers: "Workers", device: str, *, quiet: bool
) -> "dict[str, Any]":
    """Train what is left, and say what came out.

    Raises:
        Interrupted: somebody asked for an end.
    """
    from u2pl.auto import answer
    from u2pl.auto.session import check_baseline
    from u2pl.errors import Interrupted

    from .progress import counting

    answer.write(opened, budget=seconds)
    with _watching(opened) as (observe, tick):

        def note(event: "Event") -> None:
            observe(event)
            if event.what == "finished":
                answer.write(opened, budget=seconds)

        asked = opened.train(workers, device, note, tick)
    check_baseline(opened)
    with counting() as progress:
        facts = answer.write(opened, budget=seconds, whole=not asked, progress=progress)
    if not quiet:
        for sentence in answer.sentences(facts):
            say(sentence)
    if asked:
        raise Interrupted(f"Stopped. The best so far is in {facts['page']}; the same command goes on.")
    return facts


def parse_budget(text: str) -> float:
    """`2h`, `1h30m` or `45m` in seconds.

    Raises:
        UsageError: it is no duration, or none at all.
    """
    from u2pl.errors import UsageError

    match = re.fullmatch(r"\s*(?:(\d{1,4})\s*h)?\s*(?:(\d{1,5})\s*m(?:in)?)?\s*(?:(\d{1,6})\s*s)?\s*", text)
    hours, minutes, seconds = (int(part or 0) for part in match.groups()) if match else (0, 0, 0)
    total = 3600.0 * hours + 60 * minutes + seconds
    if not total:
        raise UsageError(f"--budget takes a duration such as 30m, 2h or 1h30m, not {text!r}.")
    return total


def _project(folder: Path) -> "Project":
    """The project one is in, or the one that an earlier start has made for the folder, or a new one."""
    from contextlib import suppress

    from u2pl.auto.data_set import plain_name
    from u2pl.errors import UserError
    from u2pl.pipeline.new_project import make
    from u2pl.project import Project

    with suppress(UserError):
        return Project.find()
    home = Path(f"{plain_name(folder)}-u2pl")
    if home.resolve().is_relative_to(folder.resolve()):
        home = folder.resolve().parent / home  # nothing is written to the pictures
    if not (home / "params.yaml").is_file():
        for note in make(home).notes:
            say(note, err=True)
        say(f"There is no project here. Made one, where everything is kept: {home}", err=True)
    return Project.find(home)


def _workers(jobs: int | None) -> "Workers":
    from u2pl.pipeline.workers import Workers, cores, visible_gpus

    return Workers.of(jobs or len(visible_gpus()) or min(2, cores()), None)


def _say_understood(found: "Understood", data_set: "DataSet") -> None:
    from rich.table import Table

    from u2pl.data.problems import count, report

    from .terminal import console

    say(
        f"{found.folder}: {count(len(found.images), 'picture')}, {data_set.labeled} with a mask, "
        f"{data_set.unlabeled} without."
    )
    for sentence in found.said:
        say(sentence)
    if data_set.before:
        say(f"The folder has changed since {data_set.before}, which is kept. This is {data_set.name}.")
    table = Table("class")
    table.add_column("% of labelled pixels", justify="right")
    for name, share in data_set.shares.items():
        table.add_row(name, f"{100 * share:.2f}")
    console().print(table)
    if data_set.left_out:
        say(report("Not used:", data_set.left_out, "The rest is."))
    if data_set.has_folds:
        if found.side:
            say(
                "Too few pictures that validate, as the folder says, have a mask: they are taken like the others."
            )
        say(
            f"So few labels are scored in folds: one of {len(data_set.splits)} parts validates, the others train."
        )
    elif data_set.is_val_given:
        say(f"{count(data_set.val, 'picture')} validate, as the folder says.")
    else:
        say(f"{count(data_set.val, 'labelled picture')} are held out to validate; the others train.")


def _say_plan(opened: "Session", seconds: float) -> None:
    race = opened.race
    portfolio, spent = race.state.portfolio, race.state.seconds
    names = ", ".join(opened.titles.get(method, method) for method in portfolio.methods)
    again = (
        f"; then labelled pictures alone and the best method on {portfolio.repeats - 1} more {opened.unit}s"
        if portfolio.repeats > 1 and len(portfolio.methods) > 1
        else f" on {portfolio.repeats} {opened.unit}s" * (portfolio.repeats > 1)
    )
    say(f"In {duration(seconds)} there is time for {names}, some {portfolio.steps} steps each{again}.")
    if not opened.data_set.unlabeled:
        say("No picture is without a mask, so there is nothing that other methods could learn from.")
    if spent:
        say(f"{duration(spent)} of it are spent already, {len(race.finished())} runs finished.")
    say(
        f"These are ordinary runs of data set {opened.data_set.name} ({opened.data_set.description}), with settings in "
        f"{opened.project.relative(opened.project.data(opened.data_set.name) / 'recipes')}; all in one plan: "
        f"u2pl plan {opened.plan.stem}"
    )


@contextmanager
def _watching(
    opened: "Session",
) -> "Iterator[tuple[Callable[[Event], None], Callable[[Mapping[str, Contender]], None]]]":
    """Show on stderr what happens and how far it is; gives the observer and the tick of a race."""
    from .progress import Lines

    race = opened.race
    curves: dict[str, Curve] = {}
    newest: dict[str, Mapping[str, Contender]] = {"running": {}}

    def standing() -> str:
        parts = []
        for run, contender in newest["running"].items():
            curve = curves.get(run) or []
            seen = f" {curve[-1][1]:.1f} % at epoch {curve[-1][0]}/{contender.epochs}" if curve else ""
            parts.append(f"{contender.title}{seen}")
        left = max(0.0, race.budget - race.state.seconds)
        return f"{time.strftime('%H:%M:%S')} {'; '.join(parts) or 'starting'}; at most {duration(left)} more training"

    def observe(event: "Event") -> None:
        sentence = f": {event.sentence}" if event.sentence else ""
        lines.say(f"{time.strftime('%H:%M:%S')} {event.contender.title} {event.what}{sentence}")

    def tick(running: "Mapping[str, Contender]") -> None:
        newest["running"] = running
        if lines.is_due():
            curves.update({run: race.curve(contender) for run, contender in running.items()})
        lines.tick()
        time.sleep(0.2)

    lines = Lines(standing)
    if not sys.stderr.isatty():
        yield observe, tick
        return
    from rich.live import Live
    from rich.text import Text

    from .terminal import console, one_line

    with Live(console=console(stderr=True), refresh_per_second=2, transient=True) as place:
        shown = 0.0

        def show(running: "Mapping[str, Contender]") -> None:
            nonlocal shown
            newest["running"] = running
            if time.monotonic() - shown > 2:
                curves.update({run: race.curve(contender) for run, contender in running.items()})
                place.update(Text(one_line(standing())))
                shown = time.monotonic()
            time.sleep(0.2)

        yield observe, show
