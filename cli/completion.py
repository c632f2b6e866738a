"""What a shell may complete a word to: names that are there now, found from files and without torch.

Where they cannot be found, as outside a project, there is nothing to complete and no error.
"""

from collections.abc import Callable, Iterable
from functools import wraps
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from u2pl.settings import Params

Completer = Callable[[typer.Context, str], list[str]]


def _starting(names: Callable[[typer.Context, str], Iterable[str]]) -> Completer:
    """Of the names those that begin with what was typed."""

    @wraps(names)
    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        try:
            return [name for name in names(ctx, incomplete) if name.startswith(incomplete)]
        except Exception:  # a line in the middle of being typed is no place for sentences
            return []

    return complete


@_starting
def methods(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """Methods that can be trained."""
    return _params().listed_methods


@_starting
def datasets(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """Data sets that are prepared."""
    from u2pl.project import Project

    return sorted(
        {path.parents[2].name for path in Project.find().root.glob("data/*/splits/*/manifest.json")}
    )


@_starting
def known_datasets(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """Data sets that can be prepared by their name."""
    from importlib.util import find_spec
    from pathlib import Path

    catalog = find_spec("u2pl.data.catalog")  # not imported, which would bring numpy
    folders = (catalog.submodule_search_locations if catalog else None) or []
    files = (path.stem for folder in folders for path in Path(folder).glob("[!_]*.py"))
    return sorted({*files, *datasets(ctx, "")})


@_starting
def splits(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """Prepared splits of the data set that was named."""
    from u2pl.files import read_json
    from u2pl.project import Project

    named = ctx.params.get("dataset") or _params().default("dataset")
    found = Project.find().data(named).glob("splits/*/manifest.json")
    return sorted(read_json(path)["split"] for path in found)


@_starting
def settings(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """Settings of the method that was named: short names, and with their sections once a point was typed."""
    return [f"{name}=" for name in _setting_names(ctx, incomplete)]


@_starting
def parameters(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """As `settings`, to be varied: the last of those that commas part."""
    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in _setting_names(ctx, last)]


@_starting
def run_names(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """Runs that have a folder."""
    from u2pl.project import Project

    return sorted(path.parent.name for path in Project.find().runs.glob("*/run.json"))


@_starting
def removed_names(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """Runs that were removed and can be brought back."""
    from u2pl.project import Project

    return sorted({path.parents[1].name for path in Project.find().runs.glob(".removed/*/*/run.json")})


@_starting
def models(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """Model files in the folder that was typed so far, and runs."""
    from pathlib import Path

    folder = incomplete[: incomplete.rfind("/") + 1]
    files = [f"{folder}{path.name}" for path in sorted(Path(folder or ".").glob("*.u2pl"))]
    return [*files, *run_names(ctx, "")]


@_starting
def plans(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """Plans of the project."""
    return _in_pipelines("plans")


@_starting
def tables(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """Tables of the project."""
    return _in_pipelines("tables")


@_starting
def devices(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """Words for a device; how many GPUs there are is not asked, which takes seconds."""
    return ["auto", "cpu", "cuda", "cuda:0"]


def among(*words: str) -> Completer:
    """These words."""
    return _starting(lambda ctx, incomplete: words)


def _params() -> "Params":
    from u2pl.project import Project
    from u2pl.settings import Params

    return Params.read(Project.find())


def _setting_names(ctx: typer.Context, incomplete: str) -> list[str]:
    params = _params()
    names = params.names(ctx.params.get("method") or params.default("method"))
    return sorted(name for name in names if ("." in name) == ("." in incomplete))


def _in_pipelines(folder: str) -> list[str]:
    from u2pl.project import Project

    return sorted(path.stem for path in (Project.find().pipelines / folder).glob("*.yaml"))
