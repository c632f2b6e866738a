"""`u2pl predict`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from u2pl.engine.predictor import Summary


def predict(
    run: Annotated[str, typer.Argument(help="Name of a finished run, or its folder.")],
    images: Annotated[list[Path], typer.Argument(help="Images, or folders of images.")],
    out: Annotated[Path, typer.Option(help="Folder that receives masks/, colors/ and overlays/.")],
    window: Annotated[
        int | None, typer.Option(min=32, help="Side of the windows; default: large images alone have some.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a summary as JSON, nothing else.")] = False,
) -> None:
    """Segment any images at their own size: class indices, palette pictures and overlays.

    Example: u2pl predict shapes-1_8-u2pl-s0 photos --out predictions
    """
    from u2pl.errors import UserError
    from u2pl.project import Project

    project = Project.find()

    from u2pl.engine import predictor

    from .progress import counting

    with counting() as progress:
        summary = predictor.predict(project, run, images, out, window=window, progress=progress)
    if json:
        from json import dumps

        skipped = [{"file": str(path), "reason": reason} for path, reason in summary.skipped]
        facts = {"out": str(out), "images": summary.images, "pixels": summary.pixels, "skipped": skipped}
        print(dumps(facts, indent=2, ensure_ascii=False))
    elif summary.images:
        _show(summary)
    if summary.skipped:
        from u2pl.data.problems import report

        raise UserError(
            report(
                f"{len(summary.skipped)} of {summary.images + len(summary.skipped)} files could not be read:",
                [(reason, str(path)) for path, reason in summary.skipped],
                f"The other {summary.images} are in {out}." if summary.images else "Nothing was written.",
            )
        )


def _show(summary: "Summary") -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("class")
    table.add_column("% of pixels", justify="right")
    total = sum(summary.pixels.values())
    for name, count in summary.pixels.items():
        table.add_row(escape(name), f"{100 * count / total:.1f}")
    Console().print(table)
    print(
        f"{summary.images} images: class indices in {summary.folder / 'masks'}, in colour in "
        f"{summary.folder / 'colors'}, over the pictures in {summary.folder / 'overlays'}."
    )
