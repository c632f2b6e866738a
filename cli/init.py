"""`u2pl init`."""

from pathlib import Path
from typing import Annotated

import typer

from .terminal import next_step, say


def init(
    folder: Annotated[Path, typer.Argument(help="Folder that becomes a project; made if need be.")] = Path(),
    upgrade: Annotated[
        bool, typer.Option("--upgrade", help="Show what this version of u2pl has otherwise than the project.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --upgrade: take it over.")] = False,
) -> None:
    """Make a project: settings, pipeline and plans, with git and DVC set up, in which every command works.

    Nothing of it changes with the package; --upgrade shows what a newer version has otherwise, and with --yes takes it
    over. A file that you have changed stays, with the new one beside it.

    Example: u2pl init boats
    """
    from u2pl.errors import UsageError
    from u2pl.pipeline import new_project

    if yes and not upgrade:
        raise UsageError("--yes is for --upgrade. Add it, or leave --yes out.")
    if upgrade:
        _upgrade(folder, yes)
        return
    made = new_project.make(folder)
    for note in made.notes:
        say(f"Note: {note}", err=True)
    say(f"{made.folder.resolve()} is a project now: settings in params.yaml, plans in pipelines/plans/.")
    say("Describe your own images in example.yaml, or begin with drawn ones:")
    if folder.resolve() != Path.cwd():
        next_step("cd", str(folder))  # on a line of its own: not every shell knows &&
    next_step("u2pl", "prepare", "--dataset", "shapes", "--split", "1/8")


def _upgrade(folder: Path, yes: bool) -> None:
    from u2pl.pipeline import new_project
    from u2pl.project import Project

    project = Project.find(folder)
    found = new_project.changes(project)
    for change in found:
        own = " (you have changed this file)" if change.is_own else ""
        say(f"{change.name}{own}:")
        for line in change.lines:
            say(line)
    if not yes:
        say(
            f"{len(found)} files differ. Take them over: u2pl init --upgrade --yes"
            if found
            else "Nothing to take over. Where only the version is another: u2pl init --upgrade --yes"
        )
        return
    for path in new_project.upgrade(project, found):
        say(f"{path} is as you changed it; what is new is in {path.name}.new beside it.")
    say(
        "The project is of this version now. Runs whose settings changed have to be trained again: u2pl status"
    )
