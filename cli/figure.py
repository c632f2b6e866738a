"""`u2pl figure`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from . import completion
from . import run_options as options
from .terminal import say, say_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from u2pl.data.description import Progress
    from u2pl.evidence.figure_runs import NamedRun
    from u2pl.project import Project


class _Request(NamedTuple):
    """What a figure is made from."""

    project: "Project"
    runs: "list[NamedRun]"
    options: dict[str, Any]
    """Those that were given, by name."""
    progress: "Progress"


def _fig1(request: _Request) -> "Figure":
    from u2pl.evidence import figure_runs, unlabeled
    from u2pl.reporting import paper_figures

    run = figure_runs.load(request.project, request.runs[0])
    return paper_figures.class_reliability_figure(
        unlabeled.class_reliability(run, progress=request.progress, **request.options)
    )


def _fig2(request: _Request) -> "Figure":
    from u2pl.evidence import figure_runs, unlabeled
    from u2pl.reporting import paper_figures

    run = figure_runs.load(request.project, request.runs[0])
    return paper_figures.image_reliability_figure(
        unlabeled.image_reliability(run, progress=request.progress, **request.options)
    )


def _fig4(request: _Request) -> "Figure":
    from u2pl.evidence import comparison, figure_runs
    from u2pl.reporting import paper_figures

    runs = [figure_runs.load(request.project, run) for run in request.runs]
    return paper_figures.comparison_figure(
        comparison.compare(runs, progress=request.progress, **request.options)
    )


def _figA2(request: _Request) -> "Figure":
    from u2pl.evidence import features, figure_runs
    from u2pl.reporting import paper_figures

    runs = [figure_runs.load(request.project, run) for run in request.runs]
    return paper_figures.embedding_figure(features.embed(runs, progress=request.progress, **request.options))


def _reliability(request: _Request) -> "Figure":
    from u2pl.evidence import history
    from u2pl.reporting import paper_figures

    return paper_figures.reliability_curves_figure(history.reliability(request.project, request.runs))


@dataclass(frozen=True)
class _Kind:
    """A figure that can be asked for."""

    draw: Callable[[_Request], "Figure"]
    least: int
    most: int | None
    """Runs; None: any number."""
    options: frozenset[str] = frozenset()

    @property
    def runs(self) -> str:
        """How many runs it takes, in words."""
        if self.most is None:
            return f"{self.least} runs or more" if self.least > 1 else "one run or more"
        return "one run" if self.most == 1 else f"{self.most} runs"


_FORMATS = ("png", "svg", "pdf")
_COMPARISON = _Kind(_fig4, 2, None, frozenset({"images"}))
KINDS = {
    "fig1": _Kind(_fig1, 1, 1, frozenset({"alpha", "images"})),
    "fig2": _Kind(_fig2, 1, 1, frozenset({"alpha", "images", "image"})),
    "fig4": _COMPARISON,
    "figA1": _COMPARISON,  # the same of Cityscapes, whose runs say so themselves
    "figA2": _Kind(_figA2, 2, 2, frozenset({"images"})),
    "reliability": _Kind(_reliability, 1, None),
}


def figure(
    name: Annotated[
        str,
        typer.Argument(
            help=f"{', '.join(KINDS)}.".replace(", reliability", " or reliability"),
            autocompletion=completion.among(*KINDS),
        ),
    ],
    runs: Annotated[
        list[str],
        typer.Argument(help="Names of finished runs, or their folders.", autocompletion=completion.run_names),
    ],
    into: Annotated[
        Path | None,
        typer.Option(help="Folder that receives the figure.", show_default="reports/figures of the project"),
    ] = None,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            help="png, svg or pdf, repeatable.",
            autocompletion=completion.among(*_FORMATS),
            show_default="png and svg",
        ),
    ] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option(
            "--label",
            help="What the figure calls a run, one for each in the same order.",
            show_default="made of the run's settings",
        ),
    ] = None,
    alpha: Annotated[
        float | None,
        typer.Option(help="fig1, fig2: share of unreliable pixels.", show_default="the run's alpha0"),
    ] = None,
    images: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Use so many images, evenly spread over the list.",
            show_default="the figure's own number",
        ),
    ] = None,
    image: Annotated[
        str | None,
        typer.Option(help="fig2: name of an unlabelled image.", show_default="one that shows much"),
    ] = None,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Draw a figure of the paper, or the reliability of pixels over training, from runs of yours.

    Example: u2pl figure fig4 shapes-1_8-suponly-s0 shapes-1_8-u2pl-negatives=all-s0 shapes-1_8-u2pl-s0
    """
    from u2pl.project import Project

    from .progress import counting

    given = {"alpha": alpha, "images": images, "image": image}
    options = {word: value for word, value in given.items() if value is not None}
    kind = _checked(name, runs, formats or [], options)
    project = Project.find()

    from u2pl.evidence import figure_runs
    from u2pl.reporting import paper_figures

    found = figure_runs.find(project, runs, labels or [])
    with counting() as progress:
        drawn = kind.draw(_Request(project, found, options, progress))
    folder = into if into is not None else project.root / "reports" / "figures"
    paths = paper_figures.write(drawn, folder, name, formats or ["png", "svg"])
    if json:
        say_json({"figure": name, "runs": [run.folder.name for run in found], "files": [*map(str, paths)]})
        return
    say(f"Wrote {', '.join(map(str, paths))}. What it shows and how it was made: docs/figures.md")


def _checked(name: str, runs: Sequence[str], formats: Sequence[str], options: dict[str, Any]) -> _Kind:
    """The kind of figure, if the words fit it."""
    from u2pl.errors import UsageError, unknown

    if name not in KINDS:
        raise unknown("figure", name, KINDS)
    kind = KINDS[name]
    if len(runs) < kind.least or (kind.most is not None and len(runs) > kind.most):
        raise UsageError(
            f"{name} takes {kind.runs}, not {len(runs)}. Example: u2pl figure {name} "
            + " ".join(["RUN"] * kind.least)
        )
    for word in options:
        if word not in kind.options:
            fitting = ", ".join(other for other, each in KINDS.items() if word in each.options)
            raise UsageError(f"{name} has no use for --{word}. Leave it out; it belongs to {fitting}.")
    for word in formats:
        if word not in _FORMATS:
            raise unknown("format", word, _FORMATS)
    return kind
