"""What a folder of pictures and some masks is, found out without asking anybody."""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from u2pl.annotations import exports
from u2pl.auto import masks as mask_values
from u2pl.auto.masks import BACKGROUND_NAMES, IGNORE, VOID_NAMES, Meaning
from u2pl.auto.pairing import Pairs, is_ours, pair, pictures_in, sides_from_lists
from u2pl.data.description import Progress, default_color
from u2pl.data.inspection import BadFile, orientation_of, read_picture, upright
from u2pl.data.pictures import Color
from u2pl.data.problems import Problem, count, report, some
from u2pl.errors import UsageError, UserError

Draw = Callable[[tuple[int, int]], NDArray[np.uint8]]
"""(H, W) of the picture -> its class indices, uint8 (H, W), void as IGNORE; raises BadFile."""

LEAST_MASKS = 4
"""To train on two and validate on two."""


@dataclass(frozen=True)
class Understood:
    """A folder as it is taken to be."""

    folder: Path
    images: dict[str, Path]
    """Name -> file, in order; test pictures are not among them."""
    sizes: dict[str, tuple[int, int]]
    """Name -> height and width, as shown."""
    draw: dict[str, Draw]
    """Of the labelled ones."""
    classes: list[str]
    colors: list[Color]
    background: bool
    side: dict[str, str]
    """Name -> train or val, where the folder says; empty where it does not."""
    said: list[str] = field(default_factory=list)
    """What was understood, in sentences."""
    left_out: list[Problem] = field(default_factory=list)
    """Files that are not used, and why."""


def understand(folder: Path, progress: Progress = lambda what, done, total: None) -> Understood:
    """Find images, their masks, and what the masks' values mean.

    Annotations that tools have exported are read before pictures are taken for masks. Every picture is opened once:
    those that are damaged are left out, with a word.

    Args:
        folder: anywhere; nothing is written to it.
        progress: told how many pictures were opened.

    Raises:
        UsageError: it is no folder.
        UserError: there is no picture, or not enough masks, or they cannot be understood.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder. Name a folder of pictures, some of them with masks.")
    if is_ours(folder):
        raise UsageError(f"{folder} was made by u2pl. Name the folder that the pictures come from.")
    found = [
        export
        for export in exports.find(folder)
        if not any(map(is_ours, set(export.path.parents) - {folder, *folder.parents}))
    ]
    files = pictures_in(folder)
    if not files:
        raise UserError(
            f"There is no picture in {folder}. Name a folder of pictures, some of them with masks."
        )
    pairs = pair(folder, files)
    named = mask_values.class_names(folder)
    draw: dict[str, Draw]
    annotated = sum(len(export.pictures) for export in found)
    if found and annotated >= len(pairs.masks):
        draw, classes, colors, background, said, problems = _of_exports(found, pairs)
        if pairs.masks:
            said.append(f"{count(len(pairs.masks), 'mask picture')} beside them: not used.")
    else:
        if not pairs.masks:
            raise UserError(_no_masks(folder, pairs))
        meaning = mask_values.understand(list(pairs.masks.values()), named[1] if named else ())
        draw = {name: partial(_draw, path, meaning, pairs.images[name]) for name, path in pairs.masks.items()}
        classes, colors, background = meaning.classes, meaning.colors, meaning.background
        said, problems = _said_of_masks(meaning, pairs, named[0] if named else None), []
        if found:
            said.append(
                f"{found[0].format} is there too, for {count(annotated, 'picture')}: not used, masks are more."
            )
    listed = sides_from_lists(folder, pairs.images)
    side = listed or pairs.side
    test = [name for name in pairs.images if side.get(name) == "test"]
    images = {name: path for name, path in sorted(pairs.images.items()) if name not in set(test)}
    if listed and (extra := [name for name in images if name not in listed]):
        said.append(f"{count(len(extra), 'picture')} in neither train.txt nor val.txt: unlabelled.")
    if test:
        said.append(f"{count(len(test), 'picture')} in a folder called test: left alone.")
    problems += [("mask that belongs to no picture", path.name) for path in pairs.alone if not found]
    problems += [
        (
            "picture with several masks, taken as unlabelled",
            f"{name}: {', '.join(path.name for path in paths)}",
        )
        for name, paths in pairs.several.items()
        if not found
    ]
    sizes, bad = _opened(images, progress)
    problems += bad
    images = {name: path for name, path in images.items() if name in sizes}
    known = Understood(
        folder, images, sizes, {n: draw[n] for n in images if n in draw}, classes, colors, background,
        {n: s for n, s in side.items() if n in images and s in ("train", "val")} if "val" in side.values() else {},
        said, problems,
    )  # fmt: skip
    _check(known)
    return known


def _check(found: Understood) -> None:
    if len(found.draw) < LEAST_MASKS:
        raise UserError(
            report(
                f"{count(len(found.draw), 'usable mask')} in {found.folder}, and {LEAST_MASKS} are the least: to "
                f"train on some, and to look at others{':' if found.left_out else '.'}",
                found.left_out,
                "Label a few more pictures, or mend what is named, then start the same command again.",
            )
        )


def _no_masks(folder: Path, pairs: Pairs) -> str:
    alone = f" {count(len(pairs.alone), 'mask')} belong to no picture." if pairs.alone else ""
    return (
        f"No picture in {folder} has a mask.{alone} Masks are pictures of the same name, in a folder called masks, or "
        "with _mask behind their name; or an export of labelme, CVAT, COCO, Label Studio or YOLO."
    )


def _said_of_masks(meaning: Meaning, pairs: Pairs, names: Path | None) -> list[str]:
    kind = "black and white" if meaning.threshold else "colours" if meaning.in_colors else "values"
    where = f"named by {names.name}" if names else "not named anywhere: classes.txt in the folder can"
    return [f"Masks are pictures whose {kind} are the classes; these are {where}.", *meaning.notes]


def _draw(path: Path, meaning: Meaning, image: Path, size: tuple[int, int]) -> NDArray[np.uint8]:
    indices = mask_values.read(path, meaning)
    if indices.shape != size and indices.shape == size[::-1] and orientation_of(path) == 1:
        # Drawn over the photograph as stored, which its EXIF orientation turns.
        indices = upright(indices, orientation_of(image))
    if indices.shape != size:
        raise BadFile(
            "mask of another size than its picture",
            path,
            f"{indices.shape[1]} x {indices.shape[0]}, picture {size[1]} x {size[0]}",
        )
    return indices


def _of_exports(
    found: Sequence[exports.Export], pairs: Pairs
) -> tuple[dict[str, Draw], list[str], list[Color], bool, list[str], list[Problem]]:
    """What exports of annotation tools say of the pictures; of a picture in several the first counts."""
    names = list(dict.fromkeys(name for export in found for name in export.classes))
    void = [name for name in names if name.strip().lower() in VOID_NAMES]
    background = [name for name in names if name.strip().lower() in BACKGROUND_NAMES]
    kept = [name for name in names if name not in (*void, *background)]
    classes = mask_values.unique([*(background[:1] or ["background"]), *kept])
    index = {name: k for k, name in enumerate([background[0] if background else "", *kept])}
    index |= dict.fromkeys(background, 0) | dict.fromkeys(void, IGNORE)
    index.pop("", None)
    # Where somebody paints the background, what is not painted is not labelled.
    unpainted = IGNORE if background else 0
    draw: dict[str, Draw] = {}
    problems: list[Problem] = []
    for export in found:
        matched = exports.match(export, pairs.images)
        problems += matched.problems
        for picture, name in matched.names.items():
            draw.setdefault(name, partial(_draw_export, export, picture, index, unpainted))
    said = [
        f"Labels are of {', '.join(dict.fromkeys(e.format for e in found))}: "
        f"{some([e.path.name for e in found])}. Pixels under no object are "
        f"{'not labelled, since there is a class ' + background[0] if background else 'background'}. Pictures on which "
        "nothing is drawn count as unlabelled: whether anybody looked at them, no export says."
    ]
    return draw, classes, [default_color(k) for k in range(len(classes))], True, said, problems


def _draw_export(
    export: exports.Export, picture: str, index: Mapping[str, int], unpainted: int, size: tuple[int, int]
) -> NDArray[np.uint8]:
    return export.mask(picture, index, size, unpainted)


def _opened(
    images: Mapping[str, Path], progress: Progress
) -> tuple[dict[str, tuple[int, int]], list[Problem]]:
    """Heights and widths of the pictures that can be read, and why the others cannot."""

    def look(path: Path) -> tuple[int, int] | BadFile:
        try:
            height, width = read_picture(path).pixels.shape[:2]
        except BadFile as error:
            return error
        return height, width

    sizes: dict[str, tuple[int, int]] = {}
    problems: list[Problem] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done, (name, found) in enumerate(zip(images, pool.map(look, images.values()), strict=True), 1):
            if isinstance(found, BadFile):
                problems.append((found.kind, images[name].name))
            else:
                sizes[name] = found
            progress("opening pictures", done, len(images))
    return sizes, problems
