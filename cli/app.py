"""The Typer app: one command a module, each imported only for its words; heavy work is imported inside."""

import errno
import io
import os
import sys
from typing import Annotated

import typer

from u2pl import __version__, interrupts
from u2pl.errors import EndedElsewhere, Interrupted, UserError, is_out_of_memory
from u2pl.tracking.addresses import hidden

from . import (
    ablate,
    auto,
    check,
    doctor,
    evaluate,
    export,
    figure,
    import_,
    init,
    models,
    plan,
    predict,
    prepare,
    report,
    runs,
    splits,
    status,
    suggest,
    table,
    track,
    train,
)
from .help import Command
from .terminal import say

app = typer.Typer(
    name="u2pl",
    help="Reproduces U²PL (Semi-Supervised Semantic Segmentation Using Unreliable Pseudo-Labels), table by table.",
    epilog="Example: u2pl prepare --dataset shapes --split 1/8 && u2pl train --dataset shapes --split 1/8",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command("init")(init.init)
app.command("auto")(auto.auto)
app.command("prepare", cls=Command)(prepare.prepare)
app.command("prepare-splits", hidden=True)(prepare.prepare)
app.command("train", cls=Command)(train.train)
app.command("import")(import_.import_)
app.command("evaluate")(evaluate.evaluate)
app.command("ablate", cls=Command)(ablate.ablate)
app.add_typer(plan.app, name="plan")
app.command("table")(table.table)
app.command("report")(report.report)
app.command("figure")(figure.figure)
app.command("status")(status.status)
app.command("predict")(predict.predict)
app.command("check")(check.check)
app.command("suggest")(suggest.suggest)
app.command("export")(export.export)
app.command("models")(models.models)
app.command("doctor")(doctor.doctor)
app.add_typer(runs.app, name="runs")
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
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # What a terminal's encoding lacks is written out, as `\u2020`.
            stream.reconfigure(errors="backslashreplace")
    debug = "--debug" in arguments
    # Accepted anywhere, since it is typed after a command has failed.
    words = [word for word in arguments if word != "--debug"]
    try:
        app(args=words, prog_name="u2pl")
    except SystemExit as end:  # how Typer ends every command, and where it has told of mistyped words itself
        if _was_interrupted(end) and not debug:
            return _interrupted()
        return end.code if isinstance(end.code, int) else 1
    except UserError as error:
        if debug:
            raise
        if not isinstance(error, EndedElsewhere):
            say(error if isinstance(error, Interrupted) else f"Error: {error}", err=True)
        return error.exit_code
    except KeyboardInterrupt:
        return _interrupted()
    except Exception as error:
        if debug or interrupts.came():  # an import has made something else of Ctrl-C: see `__main__`
            raise
        sentence = _sentence(error)
        say(
            f"Error: {hidden(sentence)}"
            if sentence
            else f"Error: {type(error).__name__}: {hidden(str(error))}\n"
            "This is a defect of u2pl or of its environment; run the same command with --debug for the traceback.",
            err=True,
        )
        return 1
    return 0


def _interrupted() -> int:
    say("Stopped. Start the same command again to go on.", err=True)
    return Interrupted.exit_code


def _was_interrupted(end: SystemExit) -> bool:
    """Whether it was Ctrl-C that ended the command: Typer makes an end with 130 of it, and says nothing."""
    cause: BaseException | None = end
    while cause is not None and not isinstance(cause, KeyboardInterrupt):
        cause = cause.__cause__ or cause.__context__
    return end.code == Interrupted.exit_code and cause is not None


_ON_DISK = {
    errno.EACCES: "Give yourself the right to it, or set U2PL_ROOT to another copy of the project",
    errno.EROFS: "Make the disk writable, or set U2PL_ROOT to another copy of the project",
    errno.ENOENT: "If it is a result, make it again; if it was moved, put it back",
    errno.ENOTDIR: "A file lies where a folder should: move it away",
    errno.EEXIST: "A file lies where a folder should: move it away",
    errno.EISDIR: "A folder lies where a file should: move it away",
    errno.ENAMETOOLONG: "Take shorter names",
    errno.EMFILE: "Raise the limit on open files (ulimit -n)",
}
"""What to do about what the system says of a file."""


def _sentence(error: Exception) -> str | None:
    """What the user can do about an error that the machine has caused; None for a defect."""
    if is_out_of_memory(error):
        return (
            f"There is not enough memory ({type(error).__name__}). "
            "Use a smaller --micro-batch, --recompute or a smaller --set crop=... in training, --evaluation sliding in "
            "an evaluation, or end other programs."
        )
    if not isinstance(error, OSError):
        return None
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"No space is left on the disk ({error}). Free some, then start the same command again; "
            "preparing and training go on where they stopped."
        )
    # Of a renaming the new name is the one that the user knows.
    path = error.filename2 or error.filename
    if path is None or not error.strerror:
        return None
    remedy = _ON_DISK.get(error.errno or 0, "Look after that file or its disk")
    name = os.fsdecode(path) if isinstance(path, str | bytes) else str(path)
    return f"Cannot read or write {name}: {error.strerror}. {remedy}, then start the same command again."
