"""Kinds of text in plans that reach a command line or a path, checked wherever a plan is read or made."""

import re
import shlex
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import AfterValidator

from u2pl.project import is_inside, is_name


def _safe_name(text: str) -> str:
    if not is_name(text):
        raise ValueError(
            f"{text!r} stands in command lines and file names, so it can have letters, digits and _ . = + , - alone, "
            "the first of them a letter or digit"
        )
    return text


def _inside(text: str) -> str:
    if not is_inside(text):
        raise ValueError(f"{text!r} leads out of the project; a path there is relative and has no ..")
    return text


def _safe_path(text: str) -> str:
    for part in PurePosixPath(_inside(text)).parts:
        _safe_name(part)
    return text


def _shell_words(text: str) -> str:
    if re.search(r"[\x00-\x1f\x7f]", text) or len(text.splitlines()) > 1:
        raise ValueError(f"{text!r} has a line break or control character, which no stage of DVC can pass on")
    if "\\${" in text:
        raise ValueError(f"{text!r} has \\${{, of which DVC would drop the backslash")
    try:
        quoted = shlex.join(shlex.split(text))
    except ValueError:
        quoted = None
    if quoted != text:
        raise ValueError(f"{text!r} is not quoted for a shell as u2pl plan does it")
    return text


SafeName = Annotated[str, AfterValidator(_safe_name)]
"""Of a plan, table, figure or run, or a setting: a word that a shell takes as it is."""
ProjectPath = Annotated[str, AfterValidator(_inside)]
"""A path in the project."""
SafePath = Annotated[str, AfterValidator(_safe_path)]
"""A path in the project of which every part is a `SafeName`: a word that a shell takes as it is."""
ShellWords = Annotated[str, AfterValidator(_shell_words)]
"""Words of a command line, quoted where a shell needs it."""
