"""Opens every picture and mask of a data set once, in parallel, and writes the masks as class indices.

What was found is remembered, file by file, so that nothing is opened twice unless it has changed. A preparation
that is cut off, by a full disk or by Ctrl-C, goes on from its journal.
"""

import json
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, Self

import numpy as np

from u2pl.data.description import Description, Progress
from u2pl.data.inspection import READING, BadFile, colors_of_indices, orientation_of, read_picture, upright
from u2pl.data.layout import Layout
from u2pl.data.pictures import SUFFIXES, write_png
from u2pl.data.problems import Problem
from u2pl.data.records import JournalLine
from u2pl.files import content, sha256, sha256_json
from u2pl.typed_files import fits

Stat = list[int]
"""Size in bytes and time of the last change in ns."""


@dataclass(frozen=True)
class CheckedImage:
    """What one image and its mask were found to be."""

    image: str
    """Path from the root."""
    mask: str | None
    image_sha256: str
    """Of the decoded pixels, since compression may differ from machine to machine."""
    mask_sha256: str | None
    pixels: list[int]
    """Of each class; empty without a mask."""
    stats: list[Stat]
    """Of the image, the mask and the index mask, when they were read."""
    only_image_turned: bool = False
    """Whether the image was turned by its EXIF orientation, and the mask has none."""
    palette: dict[str, list[int]] = field(default_factory=dict)
    """Of a palette mask whose indices must have the same colours in all masks: the colour of each index in it."""


@dataclass(frozen=True)
class DataSetFiles:
    """A data set's files, and the folder that its index masks go to."""

    description: Description
    layout: Layout
    root: Path
    data: Path

    def index_mask(self, name: str) -> Path:
        """Where the mask of a name is written as class indices."""
        return self.data / "masks" / f"{name}.png"

    def relative(self, path: Path) -> str:
        """`path` from the root, also where it lies elsewhere, as unpacked archives do."""
        return Path(os.path.relpath(path, self.root)).as_posix()

    def stats(self, name: str, record: CheckedImage) -> list[Stat]:
        """Of the record's files as they are now; empty where one is missing."""
        paths = [self.root / record.image]
        if record.mask:
            paths += [self.root / record.mask, self.index_mask(name)]
        return _stats(paths)


def _stats(paths: Iterable[Path]) -> list[Stat]:
    try:
        return [[found.st_size, found.st_mtime_ns] for found in (path.stat() for path in paths)]
    except OSError:
        return []


JOURNAL = "checked.jsonl"
"""Name of the file in a data set's folder."""

CHANGING = {"changing": True}
"""A journal's line after which index masks may differ from those that the last finished preparation wrote."""


def is_half_done(journal: Path) -> bool:
    """Whether a preparation that wrote masks was cut off, so that they belong to no data set that was ever checked."""
    try:
        return json.dumps(CHANGING) in content(journal).decode(errors="replace").splitlines()
    except OSError:
        return False


class Journal:
    """Records as they are made, a line each, until the work is done and they stand elsewhere."""

    def __init__(self, path: Path, work: Any):
        """`work` is a JSON value that says what is being done: a journal of other work is not believed."""
        self.path = path
        self.known: dict[str, CheckedImage] = {}
        self._lock = Lock()
        self._head = {"work": sha256_json([READING, work])}
        head, *lines = self._lines() or [None]
        self._goes_on = head == self._head
        self._changing = self._goes_on and CHANGING in lines
        if self._goes_on:
            self.known = {
                line["name"]: CheckedImage(**line["record"]) for line in lines if fits(JournalLine, line)
            }

    def _lines(self) -> list[Any]:
        try:
            texts = content(self.path).decode(errors="replace").splitlines()
        except OSError:
            return []
        values = []
        for text in texts:
            with suppress(ValueError, RecursionError):  # a line whose writer was cut off
                values.append(json.loads(text))
        return values

    def __enter__(self) -> Self:
        self._file = self.path.open("a" if self._goes_on else "w", encoding="utf-8")
        if self._goes_on:
            self._file.write("\n")  # what follows must not become part of a line that was cut off
        else:
            self._write(self._head)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, name: str, record: CheckedImage) -> None:
        """Remember a record; from any thread."""
        with self._lock:
            self._write({"name": name, "record": asdict(record)})

    def changing(self) -> None:
        """Note that index masks are about to be written, which are those of prepared splits too; from any thread."""
        with self._lock:
            if not self._changing:
                self._changing = True
                self._write(CHANGING)

    def _write(self, value: Any) -> None:
        self._file.write(json.dumps(value, ensure_ascii=False) + "\n")
        self._file.flush()

    def forget(self) -> None:
        """The work is done."""
        self.path.unlink(missing_ok=True)


def check(
    files: DataSetFiles,
    names: Collection[str],
    needs_mask: Mapping[str, str],
    known: Mapping[str, CheckedImage],
    journal: Journal,
    progress: Progress,
) -> tuple[dict[str, CheckedImage], list[Problem]]:
    """Of every name the record, and everything that is wrong.

    Args:
        files: where the files are.
        names: images to look at, in the order in which the progress is told.
        needs_mask: names that cannot go without a mask, and what they are ("a validation image").
        known: records from an earlier time, taken where no file has changed since.
        journal: gets each new record.
        progress: told how far it is.
    """
    look = _checker(files, needs_mask, {**known, **journal.known}, journal)
    records: dict[str, CheckedImage] = {}
    problems: list[Problem] = []
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        for done, (name, outcome) in enumerate(zip(names, pool.map(look, names), strict=True), start=1):
            if isinstance(outcome, CheckedImage):
                records[name] = outcome
            else:
                problems += outcome
            progress("checking images", done, len(names))
    finally:
        # After a full disk or Ctrl-C the thousands of images that still wait are not begun.
        pool.shutdown(cancel_futures=True)
    return records, problems + _palette_problems(records.values())


def _palette_problems(records: Iterable[CheckedImage]) -> list[Problem]:
    """Indices that have different colours in different masks, and so may be different classes."""
    first: dict[str, tuple[list[int], str | None]] = {}
    problems: dict[str, Problem] = {}
    for record in records:
        for index, color in record.palette.items():
            known, where = first.setdefault(index, (color, record.mask))
            if color != known:
                problems.setdefault(
                    index,
                    (
                        "palette masks that give one index different colours (name the classes' `colors` in the "
                        "description, or add `palette: indices` where the indices count nevertheless)",
                        f"index {index} is {tuple(known)} in {where} and {tuple(color)} in {record.mask}",
                    ),
                )
    return list(problems.values())


def notes(records: Iterable[CheckedImage], description: Description) -> tuple[str, ...]:
    """What was taken for granted and might be meant otherwise, in sentences."""
    turned = [record.image for record in records if record.only_image_turned]
    if not turned:
        return ()
    images = "1 image is" if len(turned) == 1 else f"{len(turned):,} images are"
    taken, other = "as shown", "as stored, add `mask_orientation: stored` to the description"
    if description.mask_orientation == "stored":
        taken, other = "as stored", "as shown, leave `mask_orientation: stored` out of the description"
    return (
        f"{images} turned by an EXIF orientation that the mask does not have ({turned[0]}). The masks were taken to "
        f"lie over the images {taken}; where they were drawn over them {other}.",
    )


def _checker(
    files: DataSetFiles, needs_mask: Mapping[str, str], known: Mapping[str, CheckedImage], journal: Journal
) -> Callable[[str], CheckedImage | list[Problem]]:
    """A function that checks the files of one name and writes its index mask."""
    layout, description = files.layout, files.description

    def look(name: str) -> CheckedImage | list[Problem]:
        found, found_masks = layout.images(name), layout.masks(name)
        problems = []
        if not found:
            problems.append(("missing image", name))
        if not found_masks and name in needs_mask:
            problems.append((f"missing mask of {needs_mask[name]}", name))
        problems += [
            (f"several {kind}s for one name", ", ".join(path.name for path in paths))
            for kind, paths in (("image", found), ("mask", found_masks))
            if len(paths) > 1
        ]
        if problems:
            return problems
        record = known.get(name)
        paths = [files.relative(path) for path in (*found, *found_masks)]
        if (
            record
            and [record.image, *([record.mask] if record.mask else [])] == paths
            and files.stats(name, record) == record.stats
        ):
            return record
        outcome = read(name, found[0], found_masks[0] if found_masks else None)
        if isinstance(outcome, CheckedImage):
            journal.add(name, outcome)
        return outcome

    def read(name: str, image: Path, mask: Path | None) -> CheckedImage | list[Problem]:
        problems: list[Problem] = []
        pixels = indices = None
        only_image_turned = False
        palette: dict[str, list[int]] = {}
        try:
            pixels, orientation = read_picture(image)
        except BadFile as error:
            problems.append(_problem(error, files))
        try:
            indices = layout.read_mask(mask) if mask else None
            if mask and mask.suffix.lower() in SUFFIXES:
                if pixels is not None and orientation != 1:
                    only_image_turned = orientation_of(mask) == 1
                if description.palette == "consistent":
                    palette = {str(k): list(color) for k, color in colors_of_indices(mask).items()}
        except BadFile as error:
            problems.append(_problem(error, files))
        if pixels is not None and indices is not None:
            if only_image_turned and description.mask_orientation == "stored":
                indices = upright(indices, orientation)
            if pixels.shape[:2] != indices.shape:
                is_turned = only_image_turned and pixels.shape[1::-1] == indices.shape
                problems.append(_size_problem(name, pixels, indices, description if is_turned else None))
        if problems or pixels is None:
            return problems
        written = files.index_mask(name)
        if indices is not None and written != mask:
            journal.changing()
            write_png(written, indices)
        return CheckedImage(
            image=files.relative(image),
            mask=files.relative(mask) if mask else None,
            image_sha256=sha256_of_pixels(pixels),
            mask_sha256=None if indices is None else sha256_of_pixels(indices),
            pixels=[]
            if indices is None
            else np.bincount(indices.reshape(-1), minlength=256)[: len(description.classes)].tolist(),
            stats=_stats([image, *([mask, written] if mask else [])]),
            only_image_turned=only_image_turned,
            palette=palette,
        )

    return look


def _size_problem(name: str, pixels: np.ndarray, indices: np.ndarray, turning: Description | None) -> Problem:
    """Image and mask of two sizes; `turning` where they would be of one if the mask were turned or were not."""
    sizes = [f"{width} x {height}" for height, width in (pixels.shape[:2], indices.shape)]
    kind = "mask of another size than its image"
    if turning and turning.mask_orientation == "stored":
        kind += " as stored (leave `mask_orientation: stored` out of the description where masks fit images as shown)"
    elif turning:
        kind += (
            " as shown (add `mask_orientation: stored` to the description where masks fit images as stored)"
        )
    return kind, f"{name} ({sizes[1]}, image {sizes[0]})"


def sha256_of_pixels(pixels: np.ndarray) -> str:
    """A hash of decoded pixels and their shape."""
    return sha256(repr(pixels.shape).encode() + pixels.tobytes())


def _problem(error: BadFile, files: DataSetFiles) -> Problem:
    detail = f" ({error.detail})" if error.detail else ""
    return error.kind, f"{files.relative(error.path)}{detail}"
