"""Masks that people corrected, laid over a data set's own in the split of a round: `merged.json` beside its lists.

They belong to that split alone, so that earlier splits, and runs trained on them, stay what they were. The files, in
data/NAME/merged/, are called by their content and never written again: an image that is merged once more gets a second
file, and only splits made from then on show it.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

from u2pl.data import splits
from u2pl.data.check import CheckedImage, sha256_of_pixels
from u2pl.data.pictures import write_png
from u2pl.errors import UserError
from u2pl.files import sha256_json, write_json
from u2pl.typed_files import Count, ImageName, SplitName, read

RECORD = "merged.json"
"""In the folder of a round's split."""


@with_config(ConfigDict(extra="forbid"))
class MergedMask(TypedDict):
    """A corrected mask."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Of its class indices."""
    pixels: list[Count]
    """Of each class."""


@with_config(ConfigDict(extra="forbid"))
class Merged(TypedDict):
    """merged.json: what a round's split is made of."""

    onto: SplitName
    """The split whose labels it goes on with."""
    labeled: list[ImageName]
    unlabeled: list[ImageName]
    val: list[ImageName]
    """Those of the split it goes on with, which a fold has not from the data set's own list."""
    masks: dict[ImageName, MergedMask]
    """Of this round and of those before it."""


def recorded(split: Path) -> Merged | None:
    """What a split's folder says of corrected masks; None: it is no round's.

    Raises:
        UserError: the record is damaged.
    """
    try:
        return read(Merged, split / RECORD, "Merge the corrected masks again.")
    except FileNotFoundError:
        return None


def record(split: Path, merged: Merged) -> None:
    """Write what a round's split is made of, before the split is prepared."""
    write_json(split / RECORD, merged)


def withdraw(split: Path) -> None:
    """Take back the record of a split that could not be prepared, and what lists there are; a prepared one stays."""
    if (split / "manifest.json").is_file():
        return
    for name in (RECORD, *(f"{part}.txt" for part in splits.PARTS)):
        (split / name).unlink(missing_ok=True)
    with suppress(OSError):  # it is not there, or not empty
        split.rmdir()


def path_of(data: Path, name: str, mask: MergedMask) -> Path:
    """Where a corrected mask lies, below the folder of the data set."""
    return data / "merged" / f"{name}.{mask['sha256'][:16]}.png"


def keep(data: Path, name: str, indices: NDArray[np.uint8], classes: int) -> MergedMask:
    """Write a corrected mask below the folder of the data set, unless it lies there.

    Args:
        data: folder of the data set.
        name: of the image.
        indices: (H, W) class indices and void.
        classes: how many there are.
    """
    pixels = np.bincount(indices.reshape(-1), minlength=256)[:classes].tolist()
    mask: MergedMask = {"sha256": sha256_of_pixels(indices), "pixels": pixels}
    path = path_of(data, name, mask)
    if not path.is_file():
        write_png(path, indices)
    return mask


def digest(masks: Mapping[str, MergedMask]) -> str:
    """A hash of all corrected masks of a split; its manifest has it."""
    return sha256_json({name: mask["sha256"] for name, mask in sorted(masks.items())})


def over(
    records: Mapping[str, CheckedImage], masks: Mapping[str, MergedMask], data: Path
) -> dict[str, CheckedImage]:
    """What was found in a data set's files, with the corrected masks in place of its own."""
    laid = dict(records)
    for name, mask in masks.items():
        if name in laid:
            laid[name] = replace(
                laid[name],
                mask=path_of(data, name, mask).relative_to(data).as_posix(),
                mask_sha256=mask["sha256"],
                pixels=mask["pixels"],
            )
    return laid


def check(data: Path, masks: Mapping[str, MergedMask], known: Iterable[str]) -> None:
    """See that the corrected masks are there, and their images.

    Raises:
        UserError: one is not.
    """
    names = set(known)
    missing = [
        name for name, mask in masks.items() if name not in names or not path_of(data, name, mask).is_file()
    ]
    if missing:
        raise UserError(
            f"{len(missing)} corrected masks in {data / 'merged'}, or their images, are gone: "
            f"{', '.join(missing[:5])}. Put them back, or merge the corrected masks again: u2pl prepare --merge FOLDER"
        )
