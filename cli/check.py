"""`u2pl check`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import completion
from . import run_options as options
from .progress import counting
from .terminal import console, next_step, say, say_json

if TYPE_CHECKING:
    from u2pl.trust.findings import Trust

_LISTED = 10
"""Lines of each table; the files have the rest."""


def check(
    run: Annotated[
        str,
        typer.Argument(help="Name of a finished run, or its folder.", autocompletion=completion.run_names),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder that receives tables and contact sheets.", show_default="check/ in the run's"
        ),
    ] = None,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Say how far a finished run can be believed, and which images and masks of its data should be looked at.

    Calibration, and below which confidence to look; near duplicates, leaks to the validation images first; masks that
    the network disagrees with most, which may be wrong; unlabelled images unlike those with labels.
    What `u2pl predict --review` needs is written beside the run and into its model file.

    Example: u2pl check shapes-1_8-u2pl-s0
    """
    from u2pl.project import Project

    project = Project.find()

    from u2pl.trust import report

    with counting() as progress:
        found = report.examine(project, run, out=out, progress=progress)
    if json:
        say_json(report.as_json(found))
        return
    _show(found)
    next_step("u2pl", "predict", run, "PHOTOS", "--review")


def _show(found: "Trust") -> None:
    for words in (found.calibration_in_words(), found.threshold_in_words(), found.pixel_in_words()):
        say(words)
        say()
    _show_pairs(found)
    _show_masks(found)
    _show_novel(found)
    for name, reason in found.unreadable:
        say(f"Left out, since it cannot be read: {name} ({reason}).", err=True)
    say(f"Tables and contact sheets are in {found.folder}.")


def _show_pairs(found: "Trust") -> None:
    from rich.table import Table

    pairs = found.near_duplicates
    if not pairs:
        say("Near duplicates between labelled, unlabelled and validation images: none.")
        say()
        return
    table = Table()
    for column in ("image", "nearly the same"):
        table.add_column(column, overflow="fold", ratio=1)
    table.add_column("similarity", justify="right")
    for pair in pairs[:_LISTED]:
        where = ", ".join(filter(None, (pair.lists[1], pair.turned)))
        table.add_row(f"{pair.image} ({pair.lists[0]})", f"{pair.other} ({where})", f"{pair.similarity:.3f}")
    console().print(table)
    say(
        f"{found.leaks_in_words()} Near duplicates: {len(pairs):,}, of which {len(found.leaks):,} with validation "
        "images. "
        f"{_rest(len(pairs), found, 'near_duplicates.csv')}"
    )
    say()


def _show_masks(found: "Trust") -> None:
    from rich.table import Table

    from u2pl.trust.findings import LABELED, VAL

    if not found.masks:
        return
    table = Table()
    table.add_column("mask", overflow="fold", ratio=1)
    for column in ("says", "is rather"):
        table.add_column(column, overflow="fold")
    table.add_column("pixels", justify="right")
    table.add_column("score", justify="right")
    for which in (VAL, LABELED):
        for mask in [mask for mask in found.masks if mask.list == which][:_LISTED]:
            region = mask.regions[0] if mask.regions else None
            table.add_row(
                f"{mask.image} ({mask.list})",
                found.classes[region.given] if region else "-",
                found.classes[region.predicted] if region else "-",
                f"{region.pixels:,}" if region else "-",
                f"{mask.score:.3f}",
            )
        table.add_section()
    console().print(table)
    say(
        "Masks that the network disagrees with most, the lowest score first: either of the two is wrong. It has "
        "learned from the labelled ones, so those of validation images say more. "
        f"{_rest(len(found.masks), found, 'masks.csv')} "
        f"Regions: {found.folder / 'regions.csv'}; pictures: {found.folder / 'masks.png'}."
    )
    say()


def _show_novel(found: "Trust") -> None:
    from rich.table import Table

    if found.novelty_threshold is None:
        say(f"With {found.labeled} labelled images nobody can tell which unlabelled ones are unlike them.")
        say()
        return
    if not found.novel:
        say("Unlabelled images unlike those with labels: none.")
        say()
        return
    table = Table("unlabelled image unlike those with labels")
    table.add_column("times the usual distance", justify="right")
    for novel in found.novel[:_LISTED]:
        table.add_row(novel.image, f"{novel.novelty:.2f}")
    console().print(table)
    say(
        f"Unlabelled images unlike those with labels: {len(found.novel):,} of {found.unlabeled:,}; of 100 usual ones, "
        f"one is told so too. {_rest(len(found.novel), found, 'novel.csv')}"
    )
    say()


def _rest(count: int, found: "Trust", file: str) -> str:
    return f"{'All' if count > _LISTED else 'The same'}: {found.folder / file}."
