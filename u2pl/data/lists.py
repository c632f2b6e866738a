"""Lists of images as people write them: one a line, a name or a path to a picture, a mask's path behind it or not.

Every list is read here: those that define a data set, those that say which images keep their labels, and those of
data sets that come with u2pl.
"""

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath

from u2pl.data.pictures import SUFFIXES, plain
from u2pl.errors import UserError
from u2pl.project import is_inside

LARGEST = 64 * 2**20
"""Bytes of a list; the longest that are published have a hundredth of it."""
LONGEST = 4096
"""Characters of a line; no path is longer."""
REMEDY = "It holds one image name a line; write it as UTF-8 text, or name the right folder with --root."

_LINE_ENDS = re.compile(r"\r\n|\r|\n")


def read_lines(path: Path, remedy: str = REMEDY) -> list[str]:
    """The lines of a list, without the blanks around them; blank lines are left out.

    Args:
        path: of a text file in UTF-8, with a byte order mark or without, and line ends of any system.
        remedy: what to do if it is not, for the error.

    Raises:
        UserError: it is missing, or no such file, or a line leads out of the data set's folder by `..`.
    """

    def refused(why: str) -> UserError:
        return UserError(f"The list {path} cannot be read ({why}). {remedy}")

    try:
        if path.is_dir():
            raise refused("it is a folder")
        if path.exists() and not path.is_file():
            raise refused("it is no ordinary file")
        if path.stat().st_size > LARGEST:
            raise refused(f"it has {path.stat().st_size:,} bytes, more than any list of names")
        content = path.read_bytes()
    except (OSError, ValueError) as error:  # of a path with a zero byte in it there is a ValueError
        raise refused(str(error)) from None
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise refused("its text is UTF-16, not UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        at = content.count(b"\n", 0, error.start) + 1
        raise refused(f"line {at} is not UTF-8 text") from None
    lines = [line.strip() for line in _LINE_ENDS.split(text)]
    for number, line in enumerate(lines, start=1):
        strange = next((c for c in line if c != "\t" and unicodedata.category(c) in ("Cc", "Zl", "Zp")), None)
        if strange is not None:
            raise refused(f"line {number} has a control character, U+{ord(strange):04X}")
        if len(line) > LONGEST:
            raise refused(f"line {number} has {len(line):,} characters, more than any path")
        if ".." in re.split(r"[\\/\s]", line):
            raise UserError(
                f"{path}: the name {line!r} in line {number} leads out of the data set's folder. Mend the list."
            )
    return [line for line in lines if line]


def read_names(path: Path) -> list[str]:
    """The names in a list that has nothing but names, a picture's suffix taken off.

    Raises:
        UserError: as `read_lines`; or a name leads out of the data set's folder.
    """
    lines = read_lines(path)
    check_inside(path, lines)
    return [stem(line) for line in lines]


def check_inside(path: Path, lines: Iterable[str]) -> None:
    """Refuse absolute paths, in either column, in a list whose names are paths below the data set's folder.

    Raises:
        UserError: there is one.
    """
    for line in lines:
        if not is_inside(line) or any(_is_absolute(word) for word in line.split()):
            raise UserError(
                f"{path}: the name {line!r} leads out of the data set's folder. Write it relative to that folder."
            )


def _is_absolute(path: str) -> bool:
    return bool(PureWindowsPath(path).anchor)


def stem(path: str) -> str:
    """A path without the suffix of a picture, if it has one."""
    suffix = Path(path).suffix
    return path[: -len(suffix)] if suffix.lower() in SUFFIXES else path


class Pattern:
    """Where a data set's pictures lie: a folder, or a path with `{name}` in it. Tells the name in a path."""

    def __init__(self, pattern: str):
        pattern = pattern if "{name}" in pattern else f"{pattern.rstrip('/')}/{{name}}"
        parts = _parts(stem(pattern))
        folders = next(k for k, part in enumerate(parts) if "{name}" in part)
        whole, *shorter = (_expression("/".join(parts[k:])) for k in range(folders + 1))
        self._whole, self._shorter = whole, shorter

    def names(self, path: str, *, anywhere: bool = False) -> Iterator[str]:
        """The names that a path may mean, the likeliest first; the file need not be there.

        Args:
            path: with a picture's suffix or without, from the data set's folder or from any folder of the pattern.
            anywhere: it may begin above the data set's folder too.
        """
        tails = list(_tails(stem(path)))
        tries = [(self._whole, tails[0]), *((shorter, tails[0]) for shorter in self._shorter)]
        tries += [(self._whole, tail) for tail in tails[1:]] if anywhere else []
        yield from (match["name"] for expression, tail in tries if (match := expression.fullmatch(tail)))


def _expression(pattern: str) -> re.Pattern[str]:
    first, *others = map(re.escape, pattern.split("{name}"))
    return re.compile(f"{first}(?P<name>.+){'(?P=name)'.join(others)}")


def _parts(path: str) -> list[str]:
    return [part for part in re.split(r"[\\/]", path) if part not in ("", ".")]


def whole(path: str) -> str:
    """A picture's path as a name: no suffix, and `/` between folders, whatever system it was written on."""
    return next(_tails(stem(path)))


def _tails(path: str) -> Iterator[str]:
    """`a/b/c` as `a/b/c`, `b/c` and `c`.

    Folders with a blank are taken off an absolute path alone: another may be a name and the folder of its mask.
    """
    parts = _parts(path)
    yield "/".join(parts)
    for k in range(1, len(parts)):
        if _is_absolute(path) or not any(character.isspace() for character in "".join(parts[:k])):
            yield "/".join(parts[k:])


def tails(path: str, ending: str = "", *, anywhere: bool = True) -> Iterator[str]:
    """The names that a path may mean where nothing is known of its folders.

    Args:
        path: with a picture's suffix or without.
        ending: what the data set's picture files have between name and suffix.
        anywhere: folders in front of the name may be left out.
    """
    bare = stem(path)
    for tail in _tails(bare) if anywhere else [whole(path)]:
        yield tail.removesuffix(ending)


Image = Callable[[str, bool], str | None]
"""(path, whether it may begin anywhere) -> the name of the image it means; None if there is no such image."""
WrongMask = Callable[[str, str], str | None]
"""(name, path) -> what the mask of the image is instead of this one, in words; None if it is this one."""


@dataclass(frozen=True)
class Matched:
    """What the lines of a list mean."""

    names: list[str] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)
    """Lines that mean no image."""
    other_masks: list[str] = field(default_factory=list)
    """Of lines whose mask is not the one that the data set has: the image, and both masks."""


def matched(lines: Iterable[str], image: Image, wrong_mask: WrongMask | None = None) -> Matched:
    """The images that lines mean.

    A name may hold blanks and look like two, so that a line is tried as a whole first; then every way to read it as
    an image and its mask, of which the images that there are decide.

    Args:
        lines: as `read_lines` gives them.
        image: finds an image.
        wrong_mask: compares a mask that a line names with the one that the data set has; None: that is not known here.
    """
    found = Matched()
    for line in lines:
        name = image(line, False)
        ways = list(_pairs(line, image, wrong_mask)) if name is None else []
        if ways:
            name, mask, wrong = min(ways, key=lambda way: way[2] is not None)  # the first that is right
            if wrong is not None:
                found.other_masks.append(f"{name}: {mask} in the list, {wrong}")
        elif name is None:
            name = image(line, True)
        if name is None:
            found.strange.append(line)
        else:
            found.names.append(name)
    return found


def _pairs(line: str, image: Image, wrong_mask: WrongMask | None) -> Iterator[tuple[str, str, str | None]]:
    """Every way to read a line as an image that there is and a mask: name, mask, and what is wrong with the mask.

    Those whose first column ends as pictures do come first. Of two columns that do not, the mask must be the right one,
    and must be known: the line may as well be the name of an image that is missing.
    """
    gaps = re.finditer(r"\s+", line)
    columns = [(line[: gap.start()], line[gap.end() :]) for gap in gaps]
    for path, mask in sorted(columns, key=lambda pair: not _is_picture(pair[0])):
        name = image(path, True) if wrong_mask or _is_picture(path) else None
        if name is not None:
            wrong = wrong_mask(name, mask) if wrong_mask else None
            if wrong is None or _is_picture(path) or _is_picture(mask):
                yield name, mask, wrong


def _is_picture(path: str) -> bool:
    return Path(path).suffix.lower() in SUFFIXES


def among(
    known: Collection[str],
    names: Callable[[str, bool], Iterable[str]] = lambda path, anywhere: (),
    ending: str = "",
) -> Image:
    """Finds images among those whose names are known.

    Args:
        known: names.
        names: those that a path may mean, as far as the data set's own layout tells.
        ending: as for `tails`.
    """
    by_plain = {plain(name): name for name in known}

    def image(path: str, anywhere: bool) -> str | None:
        tried = (plain(path), *names(path, anywhere), *tails(path, ending, anywhere=anywhere))
        return next((by_plain[key] for key in map(plain, tried) if key in by_plain), None)

    return image
