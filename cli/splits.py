"""`u2pl splits`: what is to be known of the lists of labelled images."""

from typing import TYPE_CHECKING, Annotated

import typer

from . import completion
from .terminal import console, say, say_json

if TYPE_CHECKING:
    from u2pl.data.audit import Audit

app = typer.Typer(help="Look at the lists of labelled and unlabelled images.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keep `audit` a word of its own: with a single command, Typer would drop it."""


@app.command()
def audit(
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Only this data set's.", autocompletion=completion.known_datasets, show_default="all"
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            help="All lists of a published family: u2pl, unimatch.",
            autocompletion=completion.among("u2pl", "unimatch"),
            show_default="the prepared splits",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the audit as JSON, nothing else.")] = False,
) -> None:
    """Print sizes, overlaps, leaks and label quality of every prepared split, or of a published family's lists.

    Example: u2pl splits audit --source u2pl --dataset voc
    """
    from u2pl.data import audit as library
    from u2pl.data.published import families
    from u2pl.errors import UserError, unknown
    from u2pl.project import Project

    from .progress import counting

    project = Project.find()
    if source is None:
        audits = library.prepared(project, dataset)
    elif source in families():
        with counting() as progress:
            audits = list(library.published_lists(project, source, dataset, progress))
    else:
        raise unknown("published source of lists", source, families())
    if json:
        from dataclasses import asdict

        say_json([asdict(each) for each in audits])
    else:
        _show(audits)
    wrong = [f"{each.dataset} {each.split}: {'; '.join(each.problems)}" for each in audits if each.problems]
    if wrong:
        raise UserError(f"Of {len(audits)} splits {len(wrong)} are not sound:\n  " + "\n  ".join(wrong))


def _show(audits: "list[Audit]") -> None:
    from rich.table import Table

    table = Table("data set", "split", "source", box=None, pad_edge=False)
    headings = ["labelled", "unlabelled", "val", "overlap", "leaked", "twice"]
    with_fine = any(each.fine is not None for each in audits)
    headings += ["fine", "uniform"] if with_fine else []
    for heading in headings:
        table.add_column(heading, justify="right")
    table.add_column("SHA-256")
    table.add_column("classes without a label")
    for each in audits:
        numbers = (each.labeled, each.unlabeled, each.val, each.overlap, each.leaked, each.repeated)
        shares = (each.fine, each.fine_uniform) if with_fine else ()
        table.add_row(
            each.dataset,
            each.split,
            each.source,
            *(f"{number:,}" for number in numbers),
            *("-" if share is None else f"{share:.1%}" for share in shares),
            each.sha256[:12],
            "?" if each.without_label is None else ", ".join(each.without_label) or "none",
            style="red" if each.problems else None,
        )
    # Cut columns could not be compared: a narrow terminal may wrap the lines instead.
    console(width=max(console().width, 140)).print(table)
    if with_fine:
        say(
            "fine: share of the labelled images with VOC's own, precise annotation; uniform: what a uniform draw of "
            "all training images would have. Lists that differ in it cannot be compared: it is worth 1.4 to 4 mIoU."
        )
