"""`u2pl suggest`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import completion
from . import run_options as options
from .terminal import console, next_step, say, say_json

if TYPE_CHECKING:
    from u2pl.labeling.suggestion import Suggestion

_CRITERIA = ("random", "suggestive", "score", "entropy", "coreset")


def suggest(
    run: Annotated[
        str | None,
        typer.Argument(
            help="A finished run.",
            autocompletion=completion.run_names,
            show_default="that which was finished last",
        ),
    ] = None,
    number: Annotated[int, typer.Option("-n", "--number", min=1, help="How many images.")] = 20,
    by: Annotated[
        str,
        typer.Option(
            help=f"How they are chosen: {', '.join(_CRITERIA)}.", autocompletion=completion.among(*_CRITERIA)
        ),
    ] = "random",
    seed: Annotated[int, typer.Option(min=0, help="Seed of --by random; the others draw nothing.")] = 0,
    blank: Annotated[
        float,
        typer.Option(min=0, max=1, help="Share of the pixels left blank in the masks, the least sure ones."),
    ] = 0.2,
    out: Annotated[
        Path | None, typer.Option(help="Folder that is made.", show_default="suggestions/RUN in the project")
    ] = None,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Choose the unlabelled images to label next, with masks to start from, for people and their labelling tools.

    Example: u2pl suggest shapes-1_8-u2pl-s0 -n 20
    """
    from dataclasses import asdict

    from u2pl.errors import unknown
    from u2pl.labeling.choice import CRITERIA
    from u2pl.project import Project

    if by not in CRITERIA:
        raise unknown("criterion", by, CRITERIA)
    project = Project.find()

    from u2pl.labeling import suggestion

    from .progress import counting

    run = suggestion.newest_run(project) if run is None else run
    with counting() as progress:
        found = suggestion.suggest(
            project, run, number, by=by, seed=seed, out=out, blank=blank, progress=progress
        )
    if json:
        images = [{**asdict(image), "file": str(image.file)} for image in found.images]
        facts = {
            "folder": str(found.folder),
            "dataset": found.dataset,
            "split": found.split,
            "run": found.run,
            "by": found.by,
            "candidates": found.candidates,
            "candidates_have_masks": found.have_masks,
            "blank": found.blank,
            "images": images,
            "unreadable": [{"name": name, "reason": reason} for name, reason in found.unreadable],
        }
        say_json(facts)
    else:
        _show(found)
        next_step("u2pl", "prepare", "--dataset", found.dataset, "--merge", _shown(found.folder / "masks"))
    for name, reason in found.unreadable:
        say(f"Warning: {name} cannot be read ({reason}) and was left out.", err=True)


def _show(found: "Suggestion") -> None:
    from rich.table import Table

    from u2pl.labeling.choice import CRITERIA, DEFAULT

    table = Table(title=f"{found.dataset}: to label next, by {found.run}")
    table.add_column("", justify="right")
    table.add_column("image", overflow="fold")
    table.add_column("why", overflow="fold")
    for image in found.images:
        table.add_row(str(image.rank), image.name, image.why)
    console().print(table)
    say(f"{len(found.images)} of {found.candidates} images, by {found.by}: {CRITERIA[found.by][1]}.")
    if found.by == DEFAULT:
        say(
            "They are drawn since no other way was shown to teach more (docs/labeling.md). To let the model choose: "
            "--by suggestive"
        )
    if found.have_masks:
        say(
            f"All unlabelled images of split {found.split} have masks, as in a benchmark: these are images whose masks "
            "were not opened."
        )
    say(f"{_shown(found.folder)} holds:")
    for name, what in (
        (
            "contact_sheet.png",
            "all of them, each beside the model's prediction; hatched is what it is not sure of",
        ),
        ("images/", "the pictures"),
        ("masks/", f"masks to start from, {found.blank:.0%} of the pixels left blank"),
        ("cvat/", "the same to import into CVAT"),
        ("label_studio/", "the same to import into Label Studio"),
        ("list.txt, list.csv", "names, ranks and reasons"),
    ):
        say(f"  {name}: {what}")
    say("Correct the masks, there or in a copy; then take them as labels.")


def _shown(path: Path) -> str:
    """A path as it is typed from here."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
