"""Makes an ordinary data set of a folder as it was understood: links to the pictures, masks of class indices, lists."""

import os
import re
import shutil
import unicodedata
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml
from filelock import FileLock
from numpy.typing import NDArray

from u2pl.auto.folder import LEAST_MASKS, Understood
from u2pl.data import splits
from u2pl.data.catalog import built_in
from u2pl.data.check import sha256_of_pixels
from u2pl.data.description import Progress
from u2pl.data.inspection import BadFile
from u2pl.data.pictures import write_png
from u2pl.data.problems import Problem, count, report
from u2pl.errors import UserError
from u2pl.files import read_json, sha256_json, write_json, write_text
from u2pl.project import Project
from u2pl.settings import Params

FOLDS, FOLDS_BELOW = 3, 100
"""Folds where there are fewer labels than that: of a quarter of them no mIoU could be told."""
SEEDS = 3
_HELD_OUT = 4
"""Of more labels one in so many is held out ..."""
_MOST_HELD_OUT = 150
"""... but no more than these."""
_LEAST_GIVEN = 5
"""Masks of pictures that validate, as the folder says; of fewer no mIoU can be told, and they are taken like others."""
_LONGEST = 60
RECORD, UNFINISHED = "folder.json", "unfinished"
"""Which folder a data set is of, and the hash of what it held."""


@dataclass(frozen=True)
class DataSet:
    """A data set that `u2pl auto` made, and how methods are to be compared on it."""

    name: str
    folder: Path
    """dataset.yaml, images/, masks/ and the lists; the state and the answer too."""
    labeled: int
    """Pictures with a usable mask, those that validate included."""
    unlabeled: int
    val: int
    """Pictures that validate; where there are folds, of the first."""
    is_val_given: bool
    """Whether the folder says who validates."""
    splits: tuple[str, ...]
    """`full`, on which seeds differ, or the folds."""
    shares: dict[str, float]
    """Class -> share of the labelled pixels."""
    left_out: list[Problem]
    is_new: bool
    """Whether it is the first time that the folder is seen as it is now."""
    before: str | None
    """The data set that the folder was before it changed."""

    @property
    def description(self) -> Path:
        """Its YAML file."""
        return self.folder / "dataset.yaml"

    @property
    def has_folds(self) -> bool:
        """Whether every label validates once."""
        return len(self.splits) > 1

    @property
    def repeats(self) -> int:
        """How often a method can be compared with another, at most: on each fold, or with so many seeds."""
        return len(self.splits) if self.has_folds else SEEDS


def make(project: Project, found: Understood, progress: Progress = lambda what, done, total: None) -> DataSet:
    """Write the data set of a folder below auto/, unless it is there already.

    A folder that has changed since becomes another data set, NAME-2: what was found out about the first stays.

    Raises:
        UserError: too few masks can be used.
    """
    masks, problems = _look_at_masks(found, progress)
    if len(masks) < LEAST_MASKS:
        raise UserError(
            report(
                f"{count(len(masks), 'usable mask')} in {found.folder}, and {LEAST_MASKS} are the least:",
                [*found.left_out, *problems],
                "Mend these, or label a few more pictures, then start the same command again.",
            )
        )
    classes_of = {name: {*np.flatnonzero(mask.pixels).tolist()} for name, mask in masks.items()}
    seed = Params.read(project).values["splits"]["seed"]
    val, kinds, is_given = _held_out(found, classes_of, seed)
    train = [name for name in found.images if name not in set(val)]
    digest = sha256_json(
        [
            [found.classes, found.background, sorted(val)],
            [[name, path.stat().st_size] for name, path in found.images.items()],
            [[name, mask.sha256] for name, mask in masks.items()],
        ]
    )
    project.auto.mkdir(exist_ok=True)
    with FileLock(project.auto / ".lock"):
        name, before, is_new = _name(project, found.folder, digest)
        folder = project.auto / name
        if is_new:
            known = {"folder": str(found.folder.resolve())}
            write_json(folder / RECORD, known | {"digest": UNFINISHED})
            _write(folder, found, masks, train, val, name)
            write_json(folder / RECORD, known | {"digest": digest})
    pixels = np.sum([mask.pixels for mask in masks.values()], axis=0)
    shares = dict(zip(found.classes, (pixels / pixels.sum()).tolist(), strict=True))
    return DataSet(
        name=name,
        folder=folder,
        labeled=len(masks),
        unlabeled=len(found.images) - len(masks),
        val=len(val),
        is_val_given=is_given,
        splits=kinds,
        shares=shares,
        left_out=[*found.left_out, *problems],
        is_new=is_new,
        before=before,
    )


class _Mask(NamedTuple):
    """What is kept of a mask: all masks at once may be more than memory holds."""

    sha256: str
    pixels: NDArray[np.int64]
    """(C,) of each class."""


def _look_at_masks(found: Understood, progress: Progress) -> tuple[dict[str, _Mask], list[Problem]]:
    def look(name: str) -> _Mask | Problem:
        try:
            mask = _drawn(found, name)
        except BadFile as error:
            return error.kind, f"{error.path.name} {error.detail}".strip()
        except UserError as error:
            return "annotation that does not fit its picture", f"{name}: {error}"
        pixels = np.bincount(mask.reshape(-1), minlength=256)[: len(found.classes)]
        if not pixels.any():
            return "mask that is all void", name
        return _Mask(sha256_of_pixels(mask), pixels)

    masks: dict[str, _Mask] = {}
    problems: list[Problem] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done, (name, mask) in enumerate(zip(found.draw, pool.map(look, found.draw), strict=True), 1):
            if isinstance(mask, _Mask):
                masks[name] = mask
            else:
                problems.append(mask)
            progress("reading masks", done, len(found.draw))
    return masks, problems


def _drawn(found: Understood, name: str) -> NDArray[np.uint8]:
    return found.draw[name](found.sizes[name])


def _held_out(
    found: Understood, classes_of: Mapping[str, Collection[int]], seed: int
) -> tuple[list[str], tuple[str, ...], bool]:
    """The pictures that validate, the splits to train on, and whether the folder says so.

    Folds are drawn by the seed that `u2pl prepare` draws them by, so that val.txt is the first one.
    """
    given = [name for name in classes_of if found.side.get(name) == "val"]
    if len(given) >= _LEAST_GIVEN and len(classes_of) - len(given) >= 2:
        return given, ("full",), True
    labels = len(classes_of)
    if labels < FOLDS_BELOW:
        folds = min(FOLDS, labels // 2)
        names = tuple(f"fold{k}of{folds}" for k in range(1, folds + 1))
        return splits.folds(classes_of, folds, seed)[0], names, False
    parts = max(_HELD_OUT, -(-labels // _MOST_HELD_OUT))
    return splits.folds(classes_of, parts, seed)[0], ("full",), False


def _name(project: Project, folder: Path, digest: str) -> tuple[str, str | None, bool]:
    """Name of the data set, that of the folder as it was before, and whether it has still to be written."""
    params, here = Params.read(project), str(folder.resolve())
    base = plain_name(folder)
    if base in built_in() or params.section(base) != "custom":
        base = f"my-{base}"
    before, number = None, 1
    while True:
        name = base if number == 1 else f"{base}-{number}"
        there = project.auto / name
        known = _known(there)
        if known == {"folder": here, "digest": digest}:
            return name, before, False
        if known == {"folder": here, "digest": UNFINISHED}:
            shutil.rmtree(there)  # what was left by a start that was cut off, and has been marked as ours
            continue
        if known is None and not there.exists() and not project.data(name).exists():
            return name, before, True
        if known and known.get("folder") == here:
            before = name
        number += 1


def plain_name(folder: Path) -> str:
    """What is called after a folder: letters of ASCII, digits and `_.-`, as names of data sets are."""
    text = unicodedata.normalize("NFKD", folder.resolve().name).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", text).strip("_.-")[:_LONGEST] or "pictures"


def _known(folder: Path) -> dict[str, str] | None:
    """Which folder a data set is of, and its hash; None where none of ours is there."""
    with suppress(OSError, UserError):
        found = read_json(folder / RECORD)
        return found if isinstance(found, dict) else None
    return None


def _write(
    folder: Path,
    found: Understood,
    masks: Collection[str],
    train: list[str],
    val: list[str],
    name: str,
) -> None:
    for each, path in found.images.items():
        _link(path.resolve(), folder / "images" / f"{each}{path.suffix.lower()}")

    def write(name: str) -> None:
        write_png(folder / "masks" / f"{name}.png", _drawn(found, name))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(write, masks):
            pass
    write_text(folder / "train.txt", splits.text(train))
    write_text(folder / "val.txt", splits.text(val))
    values = {
        "name": name,
        "classes": found.classes,
        "colors": [list(color) for color in found.colors],
        "background": found.background,
        "palette": "indices",
    }
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, default_flow_style=None, width=100)
    write_text(
        folder / "dataset.yaml",
        f"# {found.folder.resolve().name} as u2pl auto has understood it; docs/data.md says what else can stand here.\n"
        "# images/ are links to the pictures; masks/ hold class numbers, 255 is void.\n" + text,
    )


def _link(file: Path, link: Path) -> None:
    """Make a file appear at another place: as a link where the system has them, else as a copy."""
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    try:
        link.symlink_to(file)
    except OSError:
        shutil.copyfile(file, link)
