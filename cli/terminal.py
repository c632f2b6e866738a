"""What commands show: every name that somebody else chose is plain text there, never markup or control characters."""

from functools import cache
from typing import TYPE_CHECKING, Any

import typer

from u2pl.escaping import command_line, json_text, one_line, printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TextColumn

__all__ = ["column", "console", "next_step", "one_line", "say", "say_json"]


def say(text: object = "", *, err: bool = False) -> None:
    """Print a line, or several, on stdout or stderr."""
    typer.echo(printable(str(text)), err=err)


def next_step(*words: str) -> None:
    """Print the command to go on with on a line of its own, which can be pasted into any shell."""
    say(f"Next: {command_line(*words)}")


def say_json(value: Any) -> None:
    """Print `value` as JSON."""
    typer.echo(json_text(value))


@cache
def _class() -> "type[Console]":
    from rich.console import Console
    from rich.text import Text

    class Plain(Console):
        """A console for which a string is text; what is to have a style is a `Text`."""

        def render_str(self, text: str, **options: Any) -> Text:
            return super().render_str(printable(text), **options)

    return Plain


def console(**options: Any) -> "Console":
    """A Rich console for names in tables, titles and lines; options as Rich's own."""
    return _class()(markup=False, emoji=False, **options)


def column(template: str) -> "TextColumn":
    """A column of a progress bar; what fills it must be `one_line`."""
    from rich.progress import TextColumn

    return TextColumn(template, markup=False)
