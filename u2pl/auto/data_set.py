"""Makes an ordinary data set of a folder as it was understood: links to the pictures, masks of class indices, lists."""

import os
import shutil
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from filelock import FileLock
from numpy.typing import NDArray

from u2pl.auto.folder import LEAST_MASKS, Understood, count
from u2pl.auto.masks import IGNORE
from u2pl.data import splits
from u2pl.data.catalog import built_in
from u2pl.data.description import Progress
from u2pl.data.inspection import BadFile, read_picture
from u2pl.data.pictures import write_png
from u2pl.data.problems import Problem, report
from u2pl.errors import UserError
from u2pl.files import read_json, sha256, sha256_json, write_json, write_text
from u2pl.project import Project, safe_name
from u2pl.settings import Params

FOLDS, FOLDS_BELOW = 3, 100
"""Folds where there are fewer labels than that: of a quarter of them no mIoU could be told."""
_HELD_OUT = 4
"""Of more labels one in so many is held out ..."""
_MOST_HELD_OUT = 150
"""... but no more than these."""


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
    """Pictures that validate; where there are folds, of each."""
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


def make(project: Project, found: Understood, progress: Progress = lambda what, done, total: None) -> DataSet:
    """Write the data set of a folder below auto/, unless it is there already.

    A folder that has changed since becomes another data set, NAME-2: what was found out about the first stays.

    Raises:
        UserError: too few masks can be used.
    """
    masks, problems = _read_masks(found, progress)
    if len(masks) < LEAST_MASKS:
        raise UserError(
            report(
                f"{count(len(masks), 'usable mask')} in {found.folder}, and {LEAST_MASKS} are the least:",
                [*found.left_out, *problems],
                "Mend these, or label a few more pictures, then start the same command again.",
            )
        )
    classes_of = {name: {*np.unique(mask).tolist()} - {IGNORE} for name, mask in masks.items()}
    val, kinds = _held_out(found, classes_of)
    train = [name for name in found.images if name not in set(val)]
    digest = sha256_json(
        [
            [found.classes, found.background, sorted(val)],
            [[name, path.stat().st_size] for name, path in found.images.items()],
            [[name, sha256(repr(mask.shape).encode() + mask.tobytes())] for name, mask in masks.items()],
        ]
    )
    project.auto.mkdir(exist_ok=True)
    with FileLock(project.auto / ".lock"):
        name, before, is_new = _name(project, found.folder, digest)
        folder = project.auto / name
        if is_new:
            _write(folder, found, masks, train, val, name)
            write_json(folder / "folder.json", {"folder": str(found.folder.resolve()), "digest": digest})
    pixels = np.zeros(256, dtype=np.int64)
    for mask in masks.values():
        pixels += np.bincount(mask.reshape(-1), minlength=256)
    pixels = pixels[: len(found.classes)]
    shares = dict(zip(found.classes, (pixels / pixels.sum()).tolist(), strict=True))
    return DataSet(
        name=name,
        folder=folder,
        labeled=len(masks),
        unlabeled=len(found.images) - len(masks),
        val=len(val),
        splits=kinds,
        shares=shares,
        left_out=[*found.left_out, *problems],
        is_new=is_new,
        before=before,
    )


def _read_masks(found: Understood, progress: Progress) -> tuple[dict[str, NDArray[np.uint8]], list[Problem]]:
    def read(name: str) -> NDArray[np.uint8] | Problem:
        try:
            height, width = read_picture(found.images[name]).pixels.shape[:2]
            mask = found.draw[name]((height, width))
        except BadFile as error:
            return error.kind, f"{error.path.name} {error.detail}".strip()
        return mask if (mask != IGNORE).any() else ("mask that is all void", name)

    masks: dict[str, NDArray[np.uint8]] = {}
    problems: list[Problem] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done, (name, mask) in enumerate(zip(found.draw, pool.map(read, found.draw), strict=True), 1):
            if isinstance(mask, tuple):
                problems.append(mask)
            else:
                masks[name] = mask
            progress("reading masks", done, len(found.draw))
    return masks, problems


def _held_out(
    found: Understood, classes_of: Mapping[str, Collection[int]]
) -> tuple[list[str], tuple[str, ...]]:
    """The pictures that validate, and the splits to train on."""
    given = [name for name in classes_of if found.side.get(name) == "val"]
    if len(given) >= 2 and len(classes_of) - len(given) >= 2:
        return given, ("full",)
    labels = len(classes_of)
    if labels < FOLDS_BELOW:
        folds = min(FOLDS, labels // 2)
        return splits.folds(classes_of, folds, 0)[0], tuple(f"fold{k}of{folds}" for k in range(1, folds + 1))
    parts = max(_HELD_OUT, -(-labels // _MOST_HELD_OUT))
    return splits.folds(classes_of, parts, 0)[0], ("full",)


def _name(project: Project, folder: Path, digest: str) -> tuple[str, str | None, bool]:
    """Name of the data set, that of the folder as it was before, and whether it has still to be written."""
    params = Params.read(project)
    base = safe_name(folder.resolve().name).strip("._") or "pictures"
    if base in built_in() or params.section(base) != "custom":
        base = f"my-{base}"
    before, number = None, 1
    while True:
        name = base if number == 1 else f"{base}-{number}"
        there = project.auto / name
        known = _known(there)
        if known == {"folder": str(folder.resolve()), "digest": digest}:
            return name, before, False
        if known is None and not there.exists() and not project.data(name).exists():
            return name, before, True
        if known and known.get("folder") == str(folder.resolve()):
            before = name
        if known is None and there.is_dir() and not (there / "dataset.yaml").exists():
            shutil.rmtree(there)  # what a writer left that was killed
            continue
        number += 1


def _known(folder: Path) -> dict[str, str] | None:
    with suppress(OSError, UserError):
        found = read_json(folder / "folder.json")
        return found if isinstance(found, dict) else None
    return None


def _write(
    folder: Path,
    found: Understood,
    masks: Mapping[str, NDArray[np.uint8]],
    train: list[str],
    val: list[str],
    name: str,
) -> None:
    for each, path in found.images.items():
        _link(path.resolve(), folder / "images" / f"{each}{path.suffix.lower()}")
    for each, mask in masks.items():
        write_png(folder / "masks" / f"{each}.png", mask)
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
