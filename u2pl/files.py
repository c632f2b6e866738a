"""Files that are either wholly there or not there at all, and their hashes."""

import csv
import errno
import hashlib
import io
import itertools
import json
import os
import platform
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import psutil
import yaml

from u2pl.errors import UserError
from u2pl.escaping import cell


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary neighbour of `path`, flush it to the disk, then rename it to `path`.

    A reader, or a machine that loses power, sees the old file or the new one, never half of it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Delete what `write_atomically` left in a folder when its process was killed, on this machine.

    For whoever holds the folder's lock; what another process writes just now stays.
    """
    for path in folder.glob(".*.tmp"):
        found = re.fullmatch(r"\..+\.(\d+)\.tmp", path.name)
        if found and path.is_file() and not psutil.pid_exists(int(found[1])):
            path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 `text` to `path` atomically."""

    def write(temporary: Path) -> None:
        temporary.write_text(text, encoding="utf-8")

    write_atomically(path, write)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON to `path` atomically; NaN is refused, since JSON has none."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


class Lines(io.StringIO):
    """What a writer of CSV writes to, a line at a time; they end with a line feed.

    `terminator` is the end that the writer is to know of: it decides which texts are quoted, and a name may have either
    character of it.
    """

    terminator = "\r\n"

    def write(self, line: str) -> int:
        """Take a line."""
        return super().write(line.removesuffix(self.terminator) + "\n")


def write_csv(path: Path, rows: Iterable[Sequence[Any]]) -> None:
    """Write rows, of which the first names the columns, as CSV to `path` atomically, without pandas.

    None is an empty field, and no text is a formula.
    """
    lines = Lines()
    csv.writer(lines, lineterminator=lines.terminator).writerows(map(cell, row) for row in rows)
    write_text(path, lines.getvalue())


def content(path: Path) -> bytes:
    """What an ordinary file holds.

    Raises:
        OSError: it cannot be read, or is a folder, a pipe or a device, of which some would be waited for without end.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "It is no ordinary file", str(path))
    return path.read_bytes()


def read_json(path: Path, remedy: str = "Delete it, then start the same command again.") -> Any:
    """The JSON value in `path`; what JSON has no word for, such as NaN, is not read either.

    Files that u2pl wrote are read through `typed_files`, which checks what stands in them.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: it is no file, cannot be read, or is no JSON; the sentence ends with `remedy`.
    """
    try:
        return json.loads(content(path).decode(), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}). {remedy}") from None
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:  # what no file can be called is not there
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from None
        raise UserError(f"{path} cannot be read ({error.strerror}). {remedy}") from None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


_DEEPEST = 100
"""Levels of lists and mappings in each other that a YAML text may have; of a hundred thousand the parser in C dies."""
_MOST_VALUES = 10**6
"""That a YAML text may stand for, its aliases written out."""

_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Loader(_SafeLoader):
    """YAML's safe loader, the one in C where there is one; for `parse_yaml`, which says what else is refused."""

    KEYS: tuple[str, ...] = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge")
    """What a key may be."""

    def get_single_node(self) -> Any:
        """The text as a tree, which is looked through before values are made of it."""
        node = super().get_single_node()
        if node is not None and _values_in(node, {}, self.KEYS) > _MOST_VALUES:
            raise yaml.YAMLError(f"its aliases stand for more than {_MOST_VALUES:,} values")
        return node


def parse_yaml(text: str | bytes, loader: Any = Loader) -> Any:
    """A YAML text, in UTF-8 if it comes as bytes, as YAML's safe loader reads it.

    Args:
        text: with one document.
        loader: `Loader`, or a kind of it.

    Raises:
        yaml.YAMLError: it is no YAML, or has a key twice, a key that is no text, a value that cannot be, or aliases of
            what they stand in; in one line.
    """
    try:
        if _may_be_deep(text):
            _check_depth(text)
        return yaml.load(text, loader)
    except Exception as error:  # whatever dates and numbers that cannot be do to YAML's constructors
        mark = getattr(error, "problem_mark", None)
        what = " ".join(str(getattr(error, "problem", None) or error or type(error).__name__).split())
        raise yaml.YAMLError(f"line {mark.line + 1}: {what}" if mark else what) from None


def _values_in(node: Any, known: dict[int, int], keys: tuple[str, ...]) -> int:
    """How many values a tree stands for, every alias counted as what it names; 0 in `known`: being looked at."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if (found := known.get(id(node))) is not None:
        if not found:
            raise yaml.MarkedYAMLError(problem="a value is part of itself", problem_mark=node.start_mark)
        return found
    known[id(node)] = 0
    if isinstance(node, yaml.MappingNode):
        _check_keys(node, keys)
    parts = [part for item in node.value for part in (item if isinstance(item, tuple) else (item,))]
    known[id(node)] = 1 + sum(_values_in(part, known, keys) for part in parts)
    return known[id(node)]


def _check_keys(mapping: Any, keys: tuple[str, ...]) -> None:
    seen = set()
    for key, _ in mapping.value:
        if key.tag not in keys:
            what = f"the key {key.value!r}" if isinstance(key, yaml.ScalarNode) else "a key"
            raise yaml.MarkedYAMLError(
                problem=f"{what} is no text; write it in quotes", problem_mark=key.start_mark
            )
        if key.value in seen:
            raise yaml.MarkedYAMLError(
                problem=f"the key {key.value!r} stands there twice", problem_mark=key.start_mark
            )
        seen.add(key.value)


def _may_be_deep(text: str | bytes) -> bool:
    """Whether a text could be nested so deep that YAML's parser would not survive it; cheap, and seldom true."""
    line, opening = (b"\n", (b"[", b"{")) if isinstance(text, bytes) else ("\n", ("[", "{"))
    return sum(map(text.count, opening)) > _DEEPEST or max(map(len, text.split(line))) > 10 * _DEEPEST  # type: ignore[arg-type]


def _check_depth(text: str | bytes) -> None:
    depth = 0
    event: Any
    for event in yaml.parse(text, _SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise yaml.MarkedYAMLError(
                problem=f"more than {_DEEPEST} lists and mappings in each other",
                problem_mark=event.start_mark,
            )


def free(path: Path) -> Path:
    """`path`, or where something lies there the first of `path.2`, `path.3` and so on where nothing does."""
    if not os.path.lexists(path):
        return path
    places = (path.with_name(f"{path.name}.{number}") for number in itertools.count(2))
    return next(place for place in places if not os.path.lexists(place))


def is_held(lock: Path) -> bool:
    """Whether a process holds the lock; a file that is missing is not created.

    To find out, a free lock is held for an instant. A lock that this user may not open, or that lies on a disk that
    is read-only, cannot be asked: it counts as not held.
    """
    try:
        if not lock.exists():
            return False
        with filelock.FileLock(lock, blocking=False):
            return False
    except filelock.Timeout:
        return True
    except OSError:  # after Timeout, which is one
        return False


def sha256(data: bytes | str) -> str:
    """Hexadecimal SHA-256 of bytes, or of a text's UTF-8 bytes."""
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()


def sha256_json(value: Any) -> str:
    """Hexadecimal SHA-256 of a JSON value, independent of the order of its keys."""
    return sha256(json.dumps(value, sort_keys=True, ensure_ascii=False))


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of what a file holds; raises OSError where it cannot be read."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "It is no ordinary file", str(path))
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_holder(folder: Path) -> None:
    """Say in a folder with a lock that this process holds it."""
    write_text(folder / "holder", f"{platform.node()} {os.getpid()}\n")


def holder(folder: Path) -> tuple[str, str] | None:
    """Host and process that `write_holder` wrote down; None where that cannot be read."""
    try:
        host, pid = content(folder / "holder").decode().split()
    except (OSError, ValueError):
        return None
    return host, pid


def holder_in_words(folder: Path) -> str:
    """` (process 12 on host)`, or nothing where that is not known."""
    found = holder(folder)
    return f" (process {found[1]} on {found[0]})" if found else ""


@contextmanager
def claimed(folder: Path, lock: str, refusal: str) -> Iterator[None]:
    """Hold a folder by a lock file in it, and say there which process holds it.

    Args:
        folder: made where it is not there.
        lock: name of the file.
        refusal: what to say where another process holds it, with `{holder}` where that one is named.

    Raises:
        UserError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Whoever asks whether it is held holds it for an instant.
    held = filelock.FileLock(folder / lock, timeout=1)
    try:
        held.acquire()
    except filelock.Timeout:
        raise UserError(refusal.format(holder=holder_in_words(folder))) from None
    try:
        write_holder(folder)
        yield
    finally:
        held.release()
