"""`u2pl models`; and the model that a command was given by its file or its run."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .terminal import console, say, say_json

if TYPE_CHECKING:
    from u2pl.exchange.model import Model
    from u2pl.exchange.model_file import Facts


def named_model(text: str) -> "Model":
    """The network in a model file, or, of any other name, that of a finished run of the project."""
    from u2pl.exchange import model
    from u2pl.exchange.model_file import is_model_file

    if is_model_file(text):
        return model.load(text)
    from u2pl.project import Project

    return model.Model.of_run(Project.find(), text)


def models(
    where: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Model files, or folders of some.", show_default="the current folder and the project's runs"
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print all that the files say, as JSON.")] = False,
) -> None:
    """List model files: what each is for, and how good it is. Of a single file its model card is shown.

    Example: u2pl models shapes-1_8-u2pl-s0.u2pl
    """
    from u2pl.errors import UserError
    from u2pl.exchange import model_file

    paths = _found(where)
    if len(paths) == 1 and where and not where[0].is_dir():
        facts = model_file.read_facts(paths[0])
        say_json(facts) if json else say(facts["card"])
        return
    found, damaged = [], []
    for path in paths:
        try:
            found.append((path, model_file.read_facts(path)))
        except UserError as error:
            damaged.append(str(error))
    if json:
        say_json([{"file": str(path), **facts} for path, facts in found])
    elif found:
        _show(found)
    else:
        say("There is no model file here. A finished training writes one; of an older run: u2pl export RUN")
    for sentence in damaged:
        say(sentence, err=True)


def _found(where: list[Path] | None) -> list[Path]:
    from u2pl.errors import UserError
    from u2pl.exchange.model_file import SUFFIX
    from u2pl.project import Project

    if where is None:
        try:
            runs = [Project.find().runs]
        except UserError:
            runs = []
        folders = [Path(), *(folder for root in runs for folder in sorted(root.glob("*/")))]
        return [path for folder in folders for path in sorted(folder.glob(f"*{SUFFIX}"))]
    found = []
    for path in where:
        found += sorted(path.rglob(f"*{SUFFIX}")) if path.is_dir() else [path]
    return found


def _show(found: "list[tuple[Path, Facts]]") -> None:
    from rich.table import Table

    table = Table()
    table.add_column("file", overflow="fold")
    for column in ("method", "data set"):
        table.add_column(column)
    for column in ("classes", "labelled", "mIoU %", "MB"):
        table.add_column(column, justify="right")
    for path, facts in found:
        origin, score = facts["provenance"], facts["score"]
        reported = score and score["miou"]["reported"]
        table.add_row(
            str(path),
            origin["method"],
            f"{origin['dataset']} {origin['split']}",
            str(len(facts["classes"])),
            "-" if origin["labeled"] is None else str(origin["labeled"]),
            "-" if reported is None else f"{reported:.2f}",
            f"{path.stat().st_size / 1e6:.1f}",
        )
    console().print(table)
