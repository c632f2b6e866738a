"""Where the files of a data set lie: its names, and the picture and the mask of each."""

import errno
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from u2pl.data import lists
from u2pl.data.description import Description, Progress, read_mask
from u2pl.data.pictures import Finder, plain
from u2pl.data.problems import Problem
from u2pl.errors import UserError


@dataclass(frozen=True)
class Layout:
    """The files of a data set, before any is opened."""

    train: list[str]
    val: list[str]
    images: Callable[[str], list[Path]]
    """The pictures of a name: none where it is missing, several where it is not clear which is meant."""
    masks: Callable[[str], list[Path]]
    """Likewise; a training image may have none."""
    read_mask: Callable[[Path], NDArray[np.uint8]]
    """The class indices in a mask file, uint8 (H, W); raises BadFile."""
    pools: Mapping[str, Collection[str]] = field(default_factory=dict)
    """Parts of the training images that a drawn split can take its labels from: `classic-1/8` from "classic"."""
    fine: Collection[str] | None = None
    """The training images with the more precise annotation, where a data set has two kinds."""
    ending: str = ""
    """What follows a name in the names of its picture files, and so in other people's lists."""
    names: Callable[[str, bool], Iterable[str]] = lambda path, anywhere: ()
    """(a picture's path, whether it may begin above the data set) -> names it may mean, told by where pictures lie."""
    wrong_mask: lists.WrongMask | None = None
    """Tells whether a mask that a list names is that of the image; None where lists have masks of another kind."""
    found: tuple[str, ...] = ()
    """What was found where, in sentences."""
    problems: tuple[Problem, ...] = ()
    """Lines of the data set's own lists that mean no image, or not the image's mask."""


OTHER_MASK = "another mask in the list than the data set has"
"""Kind of a problem."""


def described(description: Description, root: Path) -> Layout:
    """The files of a data set that lies as its description says."""
    images, masks = Finder(root, description.images), Finder(root, description.masks)
    picture, mask = lists.Pattern(description.images), lists.Pattern(description.masks)

    def names(path: str, anywhere: bool) -> Iterator[str]:
        yield lists.whole(path)
        yield from picture.names(path, anywhere=anywhere)

    def image(path: str, anywhere: bool) -> str | None:
        return next((name for name in names(path, anywhere) if _files(images, name)), None)

    def wrong_mask(name: str, path: str) -> str | None:
        found = _files(masks, name)
        suffix = path.removeprefix(lists.stem(path)).lower()
        is_named = plain(name) in map(plain, mask.names(path, anywhere=True))
        if is_named and any(suffix in ("", file.suffix.lower()) for file in found):
            return None
        has = ", ".join(file.relative_to(root).as_posix() for file in found)
        return f"{has} by `masks: {description.masks}`" if found else f"none in `masks: {description.masks}`"

    problems: list[Problem] = []

    def listed(name: str) -> list[str]:
        lines = lists.read_lines(root / name)
        lists.check_inside(root / name, lines)
        found = lists.matched(lines, image, wrong_mask)
        problems.extend(("missing image", line) for line in found.strange)
        problems.extend((OTHER_MASK, f"{name}, {where}") for where in found.other_masks)
        return found.names

    return Layout(
        train=listed(description.train),
        val=listed(description.val),
        images=images.find,
        masks=masks.find,
        read_mask=partial(read_mask, description=description),
        names=names,
        wrong_mask=wrong_mask,
        problems=tuple(problems),
    )


def _files(finder: Finder, name: str) -> list[Path]:
    """What the finder finds; nothing where the name is longer than any file's."""
    try:
        return finder.find(name)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return []


@dataclass(frozen=True)
class BuiltIn:
    """A data set that comes with u2pl."""

    description: Description
    draw: Callable[[Path, Progress], None] | None = None
    """Makes all of it in a folder; None where the files come from elsewhere."""
    locate: Callable[[Path, Path, Progress], Layout] | None = None
    """Finds the files in a folder of the user's, and unpacks archives that lie there into a second folder, ours.
    None where they lie as the description says."""
    read_mask: Callable[[Path], NDArray[np.uint8]] | None = None
    """Its masks as class indices; None where the description says how they are read."""
    fetch: Callable[[Path, Progress], None] | None = None
    """Downloads what `locate` then finds in the folder; done already, it returns at once."""
    source: str = "seeded"
    """Where the lists of a split come from unless the user says: a published family, or a seeded draw."""
    pools: tuple[str, ...] = ()
    """Names of the layout's pools."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """How many images there are: in "train" and "val", and in each pool."""
    needs: str = ""
    """What the user has to bring and where it is to be had."""
    version: int = 1
    """Raise it when `draw` draws something else, or masks are converted to something else."""


def only(path: Path) -> list[Path]:
    """`path` as `Layout.images` gives it: a list of one, or of none where there is no such file."""
    return [path] if path.is_file() else []


def folders(root: Path, depth: int, skip: Collection[str]) -> Iterator[Path]:
    """`root` and the folders below it, nearest first, to a depth; those called as in `skip` are not looked into."""
    level = [root]
    for remaining in range(depth, -1, -1):
        yield from level
        if not remaining:
            return
        level = [
            below
            for folder in level
            if folder == root or folder.name not in skip
            for below in _subfolders(folder)
        ]


def _subfolders(folder: Path) -> list[Path]:
    try:
        found = [Path(entry.path) for entry in os.scandir(folder) if entry.is_dir()]
    except OSError:  # not ours to look into
        return []
    return sorted(path for path in found if not path.name.startswith("."))


def check_count(what: str, where: Path, found: int, expected: int) -> None:
    """Refuse a data set of the wrong size.

    Raises:
        UserError: it is; most often another year's, or a copy that is not whole.
    """
    if found != expected:
        raise UserError(
            f"{where} has {found:,} {what}, not {expected:,}. It is another data set or not all of it: copy or unpack "
            "it again, or name another folder with --root."
        )
