"""`u2pl predict`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import completion
from . import run_options as options
from .terminal import console, say, say_json

if TYPE_CHECKING:
    from u2pl.exchange.predictor import Summary
    from u2pl.trust.review import Review

_LISTED = 10
"""Images that a review names on the terminal."""


def predict(
    model: Annotated[
        str,
        typer.Argument(help="A model file NAME.u2pl, or a finished run.", autocompletion=completion.models),
    ],
    images: Annotated[list[Path], typer.Argument(help="Images, or folders of images.")],
    out: Annotated[Path, typer.Option(help="Folder that receives masks/, colors/ and overlays/.")] = Path(
        "predictions"
    ),
    window: Annotated[
        int | None,
        typer.Option(min=32, help="Side of the windows.", show_default="large images alone have some"),
    ] = None,
    review: Annotated[
        bool,
        typer.Option(
            "--review",
            help="Say which predictions should be looked at first, and why: review/ beside them. Needs u2pl check.",
        ),
    ] = False,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Segment any images at their own size: class indices, palette pictures and overlays.

    A model file works anywhere; of a run one must be in its project.
    With --review, images unlike those with labels and images that are probably segmented poorly come first.

    Example: u2pl predict shapes-1_8-u2pl-s0.u2pl photos
    """
    from u2pl.errors import UserError

    from .models import named_model

    reviewer = None
    if review:
        from u2pl.trust.review import Reviewer, check_place, facts_for

        check_place(out)
        reviewer = Reviewer(facts_for(model))
    network = named_model(model)

    import warnings

    from PIL import Image

    from u2pl.exchange import predictor

    from .progress import counting

    # Pillow warns of photographs of 90 million pixels and more; those of twice as many it refuses, and they are listed.
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    with counting() as progress:
        summary = predictor.predict(
            network, images, out, window=window, observe=reviewer.see if reviewer else None, progress=progress
        )
    reviewed = None
    if reviewer is not None:
        reviewed = reviewer.review()
        reviewer.write(reviewed, network, out, window=window, printable=_printable)
    if json:
        skipped = [{"file": _printable(path), "reason": reason} for path, reason in summary.skipped]
        facts = {
            "out": _printable(out),
            "images": summary.images,
            "pixels": summary.pixels,
            "shares": summary.shares,
            "skipped": skipped,
        }
        if reviewed is not None:
            facts["review"] = _review_facts(reviewed)
        say_json(facts)
    elif summary.images:
        _show(summary)
        if reviewed is not None:
            _show_review(reviewed, out)
    if summary.skipped:
        from u2pl.data.problems import report

        raise UserError(
            report(
                f"{len(summary.skipped)} of {summary.images + len(summary.skipped)} files could not be read:",
                [(reason, _printable(path)) for path, reason in summary.skipped],
                "Mend or replace them and start the same command again; "
                + (f"the rest is in {_printable(out)}." if summary.images else "nothing was written."),
            )
        )


def _show(summary: "Summary") -> None:
    from rich.table import Table

    table = Table("class")
    table.add_column("% of pixels", justify="right")
    for name, share in summary.shares.items():
        table.add_row(name, f"{100 * share:.1f}")
    console().print(table)
    masks, colors, overlays = (_printable(summary.folder / kind) for kind in ("masks", "colors", "overlays"))
    images = "1 image" if summary.images == 1 else f"{summary.images:,} images"
    say(f"{images}: class indices in {masks}, in colour in {colors}, over the pictures in {overlays}.")


def _review_facts(review: "Review") -> dict[str, Any]:
    images = [{**each._asdict(), "file": _printable(each.file)} for each in review.images]
    return {"look": review.look, "words": review.words, "images": images}


def _show_review(review: "Review", out: Path) -> None:
    from rich.table import Table

    from u2pl.exchange.predictor import REVIEW

    say(review.words)
    count = f"{review.look:,} of {len(review.images):,}"
    if review.look:
        table = Table("look at", "because it is or has")
        for each in review.images[: min(review.look, _LISTED)]:
            table.add_row(_printable(each.file), "; ".join(each.reasons))
        console().print(table)
    names, sheet = (_printable(out / name) for name in REVIEW)
    say(f"{count} should be looked at: all in order in {names}, the first as pictures in {sheet}.")


def _printable(path: Path) -> str:
    """The path as text; of a name that is not UTF-8, as old archives have, the strange bytes are replaced."""
    return str(path).encode(errors="surrogateescape").decode(errors="replace")
