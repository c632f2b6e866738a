"""The Typer app: one command a module, each imported only for its words; heavy work is imported inside."""

import errno
from typing import Annotated

import typer

from u2pl import __version__
from u2pl.addresses import hidden
from u2pl.errors import EndedElsewhere, Interrupted, UserError

from . import (
    ablate,
    evaluate,
    figure,
    import_,
    plan,
    predict,
    prepare,
    report,
    splits,
    status,
    table,
    track,
    train,
)
from .terminal import say

app = typer.Typer(
    name="u2pl",
    help="Reproduces U²PL (Semi-Supervised Semantic Segmentation Using Unreliable Pseudo-Labels), table by table.",
    epilog="Example: u2pl prepare --dataset shapes --split 1/8 && u2pl train --dataset shapes --split 1/8",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("prepare")(prepare.prepare)
app.command("prepare-splits", hidden=True)(prepare.prepare)
app.command("train")(train.train)
app.command("import")(import_.import_)
app.command("evaluate")(evaluate.evaluate)
app.command("ablate")(ablate.ablate)
app.add_typer(plan.app, name="plan")
app.command("table")(table.table)
app.command("report")(report.report)
app.command("figure")(figure.figure)
app.command("status")(status.status)
app.command("predict")(predict.predict)
app.add_typer(splits.app, name="splits")
app.add_typer(track.app, name="track")


def _show_version(value: bool) -> None:
    if value:
        say(f"u2pl {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit status; a user's mistake becomes one sentence on stderr."""
    debug = "--debug" in arguments
    # Accepted anywhere, since it is typed after a command has failed.
    words = [word for word in arguments if word != "--debug"]
    try:
        app(args=words, prog_name="u2pl")
    except SystemExit as end:  # how Typer ends every command, and where it has told of mistyped words itself
        return end.code if isinstance(end.code, int) else 1
    except UserError as error:
        if debug:
            raise
        if not isinstance(error, EndedElsewhere):
            say(error if isinstance(error, Interrupted) else f"Error: {error}", err=True)
        return error.exit_code
    except Exception as error:
        if debug:
            raise
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            say(
                f"Error: No space is left on the disk ({error}). Free some, then start the same command again; "
                "preparing and training go on where they stopped.",
                err=True,
            )
            return 1
        say(
            f"Error: {type(error).__name__}: {hidden(str(error))}\n"
            "This is a defect of u2pl or of its environment; run the same command with --debug for the traceback.",
            err=True,
        )
        return 1
    return 0
