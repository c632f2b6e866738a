"""The blocks of a Markdown document that can be executed: what is typed, what is run, what is saved as a file."""

import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_FENCED = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NAMED = re.compile(r"# (\S+\.(?:py|yaml|txt))\n")


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    language: str
    text: str
    line: int
    """Of the document, where it begins."""

    @property
    def file(self) -> str | None:
        """The file that it is to be saved as: a comment with nothing but its name is its first line."""
        named = _NAMED.match(self.text) if self.language in ("python", "yaml") else None
        return named[1] if named else None

    @property
    def commands(self) -> list[tuple[str, list[str]]]:
        """What is typed behind each `$ ` of a console, and the lines that are shown as its output."""
        found: list[tuple[str, list[str]]] = []
        for line in self.text.splitlines():
            if line.startswith("$ "):
                found.append((line.removeprefix("$ "), []))
            elif found and found[-1][0].endswith("\\"):
                found[-1] = (f"{found[-1][0][:-1].rstrip()} {line.strip()}", [])
            elif found and line.strip():
                found[-1][1].append(line)
        return found


def blocks(text: str) -> Iterator[Block]:
    """The fenced blocks of a document, in order."""
    return (part for part in parts(text) if isinstance(part, Block))


def parts(text: str) -> Iterator[str | Block]:
    """A document as prose and blocks in turn."""
    end = 0
    for found in _FENCED.finditer(text):
        yield text[end : found.start()]
        yield Block(found[1], found[2], text.count("\n", 0, found.start()) + 1)
        end = found.end()
    yield text[end:]


def environment() -> dict[str, str]:
    """What a reader has set who has just installed u2pl: its programs are found, and no setting of ours is known."""
    foreign = {name: value for name, value in os.environ.items() if not name.startswith("U2PL_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**foreign, "PATH": path, "U2PL_TRACKING": "none"}


def shows(output: str, shown: list[str]) -> str | None:
    """The first line of what a document shows that does not follow in the output; None where all do.

    Numbers may be others, the frames of tables are passed over, and `...` is anything.
    """
    said = iter([_plain(line) for line in output.splitlines()])
    for line in shown:
        words = [re.escape(_plain(part)) for part in line.split("...")]
        wanted = re.compile(".*".join(words).strip())
        if wanted.pattern not in ("", ".*") and not any(wanted.fullmatch(found) for found in said):
            return line
    return None


def _plain(line: str) -> str:
    line = re.sub(r"[\u2500-\u257f|]", " ", line)
    return " ".join(re.sub(r"\d+(?:[.,]\d+)*", "0", line).split())
