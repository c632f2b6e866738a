"""Tags and a note that somebody gave a run: labels.json in its folder, which no number depends on."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated

import filelock
from pydantic import Field
from typing_extensions import TypedDict

from u2pl.errors import UsageError
from u2pl.files import write_json
from u2pl.typed_files import fits, read

FILE = "labels.json"
Tag = Annotated[str, Field(pattern=r"^\w[\w.=+-]*$", max_length=60)]
"""A word that stands in a command line without quotes, and in a list with commas."""
NOTE_LENGTH = 2000
"""Characters of a note at most."""


class Labels(TypedDict):
    """labels.json."""

    tags: list[Tag]
    note: Annotated[str, Field(max_length=NOTE_LENGTH)]


def read_labels(folder: Path) -> Labels:
    """What a run's folder says; no tag and no note where nobody has given it any.

    Raises:
        UserError: labels.json is damaged.
    """
    try:
        return read(Labels, folder / FILE)
    except FileNotFoundError:
        return {"tags": [], "note": ""}


def add_tags(folder: Path, tags: Iterable[str]) -> Labels:
    """Give a run tags, in the order in which they are given; one that it has stays where it is.

    Raises:
        UsageError: one is no word.
    """
    tags = list(tags)
    for tag in tags:
        check_tag(tag)
    return _change(folder, lambda found: {**found, "tags": list(dict.fromkeys([*found["tags"], *tags]))})


def remove_tags(folder: Path, tags: Iterable[str]) -> Labels:
    """Take tags off a run.

    Raises:
        UsageError: it has not got one of them.
    """
    tags = list(tags)

    def without(found: Labels) -> Labels:
        for tag in tags:
            if tag not in found["tags"]:
                has = f"It has: {', '.join(found['tags'])}." if found["tags"] else "It has none."
                raise UsageError(f"{folder.name} has no tag {tag[:100]!r}. {has}")
        return {**found, "tags": [tag for tag in found["tags"] if tag not in tags]}

    return _change(folder, without)


def write_note(folder: Path, text: str) -> Labels:
    """Give a run a note in place of the one before; an empty text is none.

    Raises:
        UsageError: it is too long.
    """
    text = text.strip()
    if len(text) > NOTE_LENGTH:
        raise UsageError(f"A note has {NOTE_LENGTH} characters at most, not {len(text)}. Shorten it.")
    return _change(folder, lambda found: {**found, "note": text})


def check_tag(text: str) -> None:
    """Check a tag that was typed.

    Raises:
        UsageError: it is none.
    """
    if not fits(Tag, text):
        raise UsageError(
            "A tag is a word of letters, digits and _ . = + - alone, of 60 characters at most, whose first is a letter "
            f"or digit, not {text[:100]!r}. Example: good"
        )


def _change(folder: Path, change: Callable[[Labels], Labels]) -> Labels:
    """Read, change and write labels.json, which two commands at once do one after the other."""
    with filelock.FileLock(folder / "labels.lock"):
        before = read_labels(folder)
        after = change(before)
        if after != before:
            write_json(folder / FILE, after)
    return after
