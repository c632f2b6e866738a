"""Command lines that documents and help texts show, read as the programs that they call read them; none is run."""

import importlib.util
import re
import shlex
import warnings
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import typer
from dvc.cli import parse_args
from dvc.cli.parser import DvcParserError
from tiny import REPOSITORY
from typer.main import get_command
from u2pl_cli.app import app

PLACEHOLDER = re.compile(r"[A-Z][A-Z_-]*|\.\.\.|(?<==)\.\.\.")
UNDERSTOOD_BY_THE_SHELL = {"cat", "cd", "ls", "mkdir", "printf", "pwd", "source"}
OTHERS = {"git", "pip"}
"""Programs of others that are named and not looked into."""


class BadLineError(Exception):
    """What is shown is no command that there is."""


def commands(line: str) -> Iterator[list[str]]:
    """The words of each command of a shell's line: without comments, what is set before it, and where output goes."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="();<>|&")
    lexer.whitespace_split = True
    words: list[str] = []
    tokens = iter([*lexer, ";"])
    for token in tokens:
        if set(token) <= set("<>"):
            next(tokens)
        elif set(token) <= set("();|&"):
            while words and re.fullmatch(r"\w+=.*", words[0]):
                words = words[1:]
            if words:
                yield words
            words = []
        else:
            words.append(token)


def every_command(group: Any = None, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The words of every command of u2pl's, and the command; of groups those in them."""
    for name, command in (group or get_command(app)).commands.items():
        if hasattr(command, "commands"):
            yield from every_command(command, (*words, name))
        else:
            yield (*words, name), command


def check(line: str, *, mention: bool = False, files: Collection[str] = ()) -> None:
    """Read a line as the shell and the programs that it calls would.

    Args:
        line: of a console.
        mention: a text speaks of the command, and need not name all that must be given.
        files: that the reader has made; others are those of the repository.

    Raises:
        BadLineError: a program, command, option, value, target or file is none that there is.
    """
    if (
        mention
    ):  # what may be left out is left out, and of several words that may stand there the first stands
        line = re.sub(r"\[[^]]*\]|(?<=\w)\|[\w|]+| \.\.\.$", "", line)
    for first, *words in commands(line):
        program = Path(first).name
        if program == "u2pl":
            _u2pl(words, mention=mention)
        elif program == "torchrun":
            _u2pl(words[words.index("u2pl_cli") + 1 :], mention=mention)
        elif program == "dvc":
            _dvc(words)
        elif program == "mlflow":
            _mlflow(words)
        elif program == "make":
            _make(words)
        elif program == "docker":
            _docker(words)
        elif program in ("python", "python3"):
            _python(words, files)
        elif program not in UNDERSTOOD_BY_THE_SHELL | OTHERS:
            raise BadLineError(f"{line}: nothing is known of {first!r}")


def parse(line: str) -> None:
    """As `check`, of a whole line of u2pl's."""
    ((first, *words),) = commands(line)
    assert first == "u2pl", line
    _u2pl(words, mention=False)


def _u2pl(words: list[str], *, mention: bool) -> None:
    if words[:1] in (["COMMAND"], ["--install-completion"]):  # the latter does so where it is read
        return
    line = f"u2pl {' '.join(words)}"
    command, context = get_command(app), None
    try:
        while hasattr(command, "commands") and words and not words[0].startswith("-"):
            context = command.make_context(command.name, [words[0]], parent=context, resilient_parsing=True)
            name, command, words = command.resolve_command(context, words)
            if command is None:
                raise BadLineError(f"{line}: there is no command {name!r}")
        try:
            command.make_context(command.name, list(words), parent=context)
        except typer.BadParameter:
            # A word in capitals stands for whatever may stand there, a number too.
            numbers = [PLACEHOLDER.sub("1", word) for word in words]
            command.make_context(command.name, numbers, parent=context)
    except typer.Exit:  # --help, --version
        return
    except Exception as error:
        if mention and type(error).__name__ in ("MissingParameter", "BadOptionUsage", "NoArgsIsHelpError"):
            return
        if isinstance(error, BadLineError):
            raise
        raise BadLineError(f"{line}: {getattr(error, 'message', error)}") from error


def _dvc(words: list[str]) -> None:
    try:
        parse_args(words)
    except DvcParserError as error:
        raise BadLineError(f"dvc {' '.join(words)}: {error}") from error


def _mlflow(words: list[str]) -> None:
    import click

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what MLflow is made of
        from mlflow.cli import cli

    line, command, context = f"mlflow {' '.join(words)}", cli, None
    try:
        while isinstance(command, click.Group):
            context = command.make_context(command.name, words[:1], parent=context, resilient_parsing=True)
            _, command, words = command.resolve_command(context, words)
            if command is None:
                raise BadLineError(f"{line}: there is no such command")
        if words:
            command.make_context(command.name, list(words), parent=context)
    except click.ClickException as error:
        raise BadLineError(f"{line}: {error.message}") from error


WITH_A_VALUE = {
    "-v",
    "--volume",
    "--user",
    "--entrypoint",
    "--shm-size",
    "--tag",
    "--build-arg",
    "--time",
    "--gpus",
}
"""Options of Docker that documents show."""
FLAGS = {"--rm", "-it"}


def _docker(words: list[str]) -> None:
    """Docker's own words as far as documents show them, and those of the command in the container."""
    line = f"docker {' '.join(words)}"
    verb, rest, said = words[0], words[1:], {}
    while rest and rest[0].startswith("-"):
        name, *rest = rest
        if name in WITH_A_VALUE and rest:
            said[name], *rest = rest
        elif name not in FLAGS:
            raise BadLineError(f"{line}: nothing is known of {name!r}")
    if verb == "run" and rest[:1] == ["u2pl"]:
        check(shlex.join([said.get("--entrypoint", "u2pl"), *rest[1:]]))
    elif verb == "build":
        known = re.findall(
            r"^ARG (\w+)", (REPOSITORY / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE
        )
        if (name := said.get("--build-arg", known[0]).partition("=")[0]) not in known:
            raise BadLineError(f"{line}: the Dockerfile has no argument {name!r}")
    elif verb != "stop":
        raise BadLineError(f"{line}: nothing is known of it")


def _make(words: list[str]) -> None:
    targets = re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    wrong = [word for word in words if "=" not in word and word not in targets]
    if wrong:
        raise BadLineError(f"make {' '.join(words)}: there is no target {wrong[0]!r}")


def _python(words: list[str], files: Collection[str]) -> None:
    if words[0] == "-m":
        if importlib.util.find_spec(words[1]) is None:
            raise BadLineError(f"python {' '.join(words)}: there is no module {words[1]!r}")
        return
    if words[0] in files:
        return
    script = REPOSITORY / words[0]
    if not script.is_file():
        raise BadLineError(f"python {' '.join(words)}: there is no such file")
    # Options that several share are declared by a module beside them.
    text = "\n".join(path.read_text(encoding="utf-8") for path in script.parent.glob("*.py"))
    wrong = [word for word in words[1:] if word.startswith("--") and word.partition("=")[0] not in text]
    if wrong:
        raise BadLineError(f"python {' '.join(words)}: it has no option {wrong[0]!r}")
