"""Takes corrected masks back: reads a folder of them, checks all, and prepares the split of the next round.

The folder holds PNG masks called like the images, or what a labelling tool exported. It is only read. Nothing is taken
if anything in it is wrong.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from u2pl.annotations import exports
from u2pl.annotations.exports import Export
from u2pl.data import lists, merged, splits
from u2pl.data.check import sha256_of_pixels
from u2pl.data.data_set import find
from u2pl.data.description import VOID, Description, Progress, read_mask
from u2pl.data.inspection import BadFile
from u2pl.data.pictures import SUFFIXES
from u2pl.data.prepare import Prepared, prepare
from u2pl.data.prepared import Split, description_of, open_split
from u2pl.data.problems import Problem, report
from u2pl.data.records import Manifest
from u2pl.errors import UsageError, UserError
from u2pl.labeling import premasks, suggestion
from u2pl.project import Project
from u2pl.typed_files import read

Indices = NDArray[np.uint8]

_ABOVE = 3
"""Folders above that of the masks that may be those of a suggestion."""


class Given(NamedTuple):
    """A corrected mask, as it was found."""

    where: str
    """The file, or the export and the picture in it."""
    indices: Indices
    """(H, W) class indices and void."""


class Checked(NamedTuple):
    """What is in a folder, all of it right."""

    given: dict[str, Given]
    """Image -> its mask."""
    agreeing: list[str]
    """Validation images whose masks agree."""
    empty: list[str]
    """Images of an export on which nothing is drawn."""


@dataclass(frozen=True)
class Outcome:
    """What was merged."""

    prepared: Prepared
    """The split of the round."""
    onto: str
    """The split that it goes on with."""
    why_onto: str
    """How that was known, in words."""
    taken: list[str]
    """Images whose masks were taken."""
    again: list[str]
    """Of these, those that had been labelled before."""
    validation: list[str]
    """Validation images in the folder whose masks agree with those that are there, so that nothing was to be done."""
    empty: list[str]
    """Images of an export on which nothing is drawn, so that nobody knows whether they were looked at: left out."""
    untouched: list[str]
    """Images whose mask is the pre-mask as it was suggested."""
    elsewhere: dict[str, int]
    """Split -> how many images have a corrected mask there, but none in this split."""
    run: str | None
    """The run that suggested them, where that is known."""


def merge(
    project: Project,
    dataset: str,
    folder: Path,
    *,
    onto: str | None = None,
    split: str | None = None,
    root: Path | None = None,
    progress: Progress = lambda what, done, total: None,
) -> Outcome:
    """Take corrected masks as labels, in a new split.

    Its labelled images are those of an earlier split and the merged ones; its unlabelled ones are the rest of that
    split; the validation images stay.

    Args:
        project: where to write.
        dataset: its name, or the YAML file that describes it.
        folder: PNG masks called like the images, or the export of a labelling tool.
        onto: the earlier split; None: that of the suggestion that the folder belongs to, else the newest one.
        split: name of the new one; None: round-1, round-2 and so on.
        root: folder of the data set's files, as for `prepare`.
        progress: told how far it is.

    Raises:
        UserError: something in the folder is no mask that can be taken; all that is wrong.
        UsageError: the folder is not there, or the new split is.
    """
    if not folder.is_dir():
        raise UsageError(
            f"There is no folder {folder}. Name the folder with the corrected masks after --merge."
        )
    if suggestion.recorded(folder):
        raise UsageError(
            f"{folder} is what u2pl suggest wrote, with masks in several forms. Name the one that was corrected, "
            f"such as {folder / 'masks'}, or the folder of the labelling tool's export."
        )
    name = find(project, dataset, root).description.name
    data = project.data(name)
    suggested = _suggested(folder, name)
    base, why = _onto(project, name, onto, suggested)
    before = open_split(project, name, base)
    (data / "merged").mkdir(exist_ok=True)
    with FileLock(data / "merged" / ".lock"):
        target = _name(project, name, split)
        given, validation, empty = _checked(folder, before, description_of(project, name), progress)
        if not given:
            raise UserError(
                f"Nothing in {folder} is to be merged: {len(empty)} images have nothing drawn on them, and "
                f"{len(validation)} are validation images whose masks agree with those that are there. Name the folder "
                "with masks of training images."
            )
        known = merged.recorded(project.split(name, base))
        masks = {
            image: merged.keep(data, image, found.indices, len(before.classes))
            for image, found in given.items()
        }
        labeled = list(dict.fromkeys([*before.labeled, *sorted(given)]))
        has_label = set(labeled)
        record: merged.Merged = {
            "onto": base,
            "labeled": labeled,
            "unlabeled": [image for image in before.unlabeled if image not in has_label],
            "val": before.val,
            "masks": {**(known["masks"] if known else {}), **masks},
        }
        elsewhere = _elsewhere(project, name, record)
        place = project.split(name, target)
        merged.record(place, record)
        try:
            prepared = prepare(project, dataset, target, root, progress=progress)
        except BaseException:
            merged.withdraw(place)
            raise
    hashes = suggested["premasks"] if suggested else {}
    return Outcome(
        prepared,
        base,
        why,
        sorted(given),
        sorted(set(given) & set(before.labeled)),
        validation,
        empty,
        [image for image, found in given.items() if hashes.get(image) == sha256_of_pixels(found.indices)],
        elsewhere,
        suggested["run"] if suggested else None,
    )


def _suggested(folder: Path, dataset: str) -> suggestion.Record | None:
    """The suggestion that a folder, or one above it, belongs to."""
    for path in list(folder.resolve().parents)[:_ABOVE]:
        found = suggestion.recorded(path)
        if found:
            return found if found["dataset"] == dataset else None
    return None


def _onto(
    project: Project, dataset: str, said: str | None, suggested: suggestion.Record | None
) -> tuple[str, str]:
    """The split whose labels go on, and how that is known.

    Raises:
        UserError: none is prepared.
    """
    if said is not None:
        return said, "as --onto says"
    if suggested:
        return suggested["split"], f"which {suggested['run']} was trained on, whose suggestions these are"
    newest: tuple[int, str] | None = None
    for path in (project.data(dataset) / "splits").glob("*/manifest.json"):
        newest = max(newest or (0, ""), (path.stat().st_mtime_ns, read(Manifest, path)["split"]))
    if newest is None:
        raise UserError(
            f"No split of {dataset!r} is prepared, so nobody knows which images are labelled already. Run: u2pl "
            f"prepare --dataset {dataset}"
        )
    return newest[1], "the newest prepared one; --onto names another"


def _elsewhere(project: Project, dataset: str, record: merged.Merged) -> dict[str, int]:
    """Rounds whose corrected masks would be missed, as where two people label by suggestions of one run."""
    found = {}
    for path in sorted((project.data(dataset) / "splits").glob("*/manifest.json")):
        other = merged.recorded(path.parent)
        missed = set(other["masks"]) - set(record["masks"]) if other else set()
        if missed:
            found[read(Manifest, path)["split"]] = len(missed)
    return found


def _name(project: Project, dataset: str, said: str | None) -> str:
    """The name of the new split.

    Raises:
        UsageError: there is such a split, or no split can be called so.
    """
    folder = project.data(dataset) / "splits"
    if said is None:
        numbers = [
            int(found[1])
            for path in folder.glob("round-*/manifest.json")
            if (found := re.fullmatch(r"round-(\d{1,6})", path.parent.name))
        ]
        return f"round-{max(numbers, default=0) + 1}"
    splits.check_own_name(said)
    if (project.split(dataset, said) / "manifest.json").is_file():
        raise UsageError(
            f"There is a split {said!r} of {dataset!r} already, and runs may have been trained on it. Take another "
            "name for --split, or leave it out."
        )
    return said


# ---- what is in the folder -------------------------------------------------------------------------------


def _checked(folder: Path, split: Split, description: Description, progress: Progress) -> Checked:
    """All masks of a folder.

    Raises:
        UserError: all that is wrong.
    """
    found = exports.find(folder)
    given: dict[str, Given] = {}
    agreeing: list[str] = []
    empty: list[str] = []
    pieces, problems = (
        _of_exports(found, split, description) if found else _of_pictures(folder, split, description)
    )
    if not pieces and not problems:
        raise UserError(
            f"There is no mask in {folder}: no PNG, and no export of a labelling tool that is known (COCO, CVAT, "
            "labelme, Label Studio, YOLO polygons). Name the folder with the corrected masks after --merge."
        )
    val = set(split.val)
    for done, piece in enumerate(pieces, 1):
        name = piece.picture
        progress("checking corrected masks", done, len(pieces))
        try:
            indices = piece.read(name)
        except BadFile as error:
            detail = f" ({error.detail})" if error.detail else ""
            problems.append((error.kind, f"{piece.where}{detail}"))
            continue
        except UserError as error:  # of an export, which says where
            problems.append(("annotations that do not fit the data set", str(error)))
            continue
        if indices is None:
            empty.append(name)
            continue
        shape = split.image(name).shape[:2]
        if indices.shape != shape:
            sizes = [f"{width} x {height}" for height, width in (indices.shape, shape)]
            problems.append(
                ("mask of another size than its image", f"{piece.where} ({sizes[0]}, image {sizes[1]})")
            )
        elif name in val:
            if np.array_equal(indices, split.mask(name)):
                agreeing.append(name)
            else:
                problems.append(
                    (
                        "another mask of a validation image than the one it is scored by",
                        piece.where,
                    )
                )
        elif (indices == split.ignore_index).all():
            problems.append(("mask without a labelled pixel", piece.where))
        elif name in given:
            problems.append(("several masks of one image", f"{given[name].where} and {piece.where}"))
        else:
            given[name] = Given(piece.where, indices)
    if problems:
        raise UserError(
            report(
                f"The masks in {folder} cannot be merged into {split.dataset!r}; nothing was taken:",
                problems,
                "Mend these or move them elsewhere, then run the same command again.",
            )
        )
    return Checked(given, agreeing, empty)


class _Piece(NamedTuple):
    """A mask that was found, before it is read."""

    picture: str
    """Its image."""
    where: str
    read: Callable[[str], Indices | None]
    """Gives the mask (H, W) of an image, by its name; None where nothing is drawn. Raises UserError."""


def _of_pictures(folder: Path, split: Split, description: Description) -> tuple[list[_Piece], list[Problem]]:
    reading, image_of = premasks.readable(description), lists.among(split.images)
    pieces: list[_Piece] = []
    problems: list[Problem] = []
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in inside.parts)
        if path.suffix.lower() not in SUFFIXES or path.is_dir() or hidden:
            continue
        name = image_of(inside.as_posix(), True)
        if name is None:
            problems.append(("no image of the data set", inside.as_posix()))
        else:
            pieces.append(_Piece(name, inside.as_posix(), partial(_pictured, path, reading)))
    return pieces, problems


def _pictured(path: Path, reading: Description, name: str) -> Indices:
    return read_mask(path, reading)


def _of_exports(
    found: Sequence[Export], split: Split, description: Description
) -> tuple[list[_Piece], list[Problem]]:
    pieces: list[_Piece] = []
    problems: list[Problem] = []
    for export in found:
        matched = exports.match(export, split.images)
        problems += matched.problems
        for picture, name in matched.names.items():
            where = f"{export.format} {export.path.name}: {picture}"
            pieces.append(_Piece(name, where, partial(_exported, export, picture, split, description)))
    return pieces, problems


def _exported(
    export: Export, picture: str, split: Split, description: Description, name: str
) -> Indices | None:
    classes = {VOID: split.ignore_index} | {one: index for index, one in enumerate(split.classes)}
    height, width = split.image(name).shape[:2]
    mask = export.mask(
        picture, classes, (height, width), _unpainted(export.classes, split.classes, description)
    )
    return mask if any(export.objects(picture, (height, width))) else None


def _unpainted(labels: Sequence[str], classes: Sequence[str], description: Description) -> int:
    """What a pixel means that no object covers.

    Void, where class 0 can be painted in the tool or is no background; else the background, which is what nobody
    paints.
    """
    return 0 if description.background and classes[0] not in labels else description.ignore_index
