"""What the values or colours of masks mean where nobody says: classes, background and void."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from u2pl.data.description import VOID, default_color
from u2pl.data.inspection import BadFile, read_raw_mask
from u2pl.data.pictures import Color
from u2pl.errors import UserError
from u2pl.files import content
from u2pl.labeling.premasks import Said, said

IGNORE = 255
"""Of the class indices that masks are written as."""
VOID_NAMES = {"void", "ignore", "ignored", "unlabeled", "unlabelled", "__ignore__", "dontcare", "don't care"}
BACKGROUND_NAMES = {"background", "_background_", "bg", "other"}
_MOST = 254
"""Classes that masks can hold beside void."""
_BORDER: Color = (224, 224, 192)
"""PASCAL VOC's colour of void."""
_NEAR = 40
"""How far from black or white a pixel of a black-and-white mask may lie that was scaled or saved with loss."""
_NEARLY_ALL = 0.97
_BAD = 0.2
"""Share of masks that may be none before all are refused."""
_SCALED = 32
"""Values that were chosen for the eye, as 0, 128 and 255, begin here; where they were, 255 is one of them."""

Key = int | Color
"""A value of index masks, or a colour."""


@dataclass(frozen=True)
class Meaning:
    """How masks are read."""

    classes: list[str]
    colors: list[Color]
    of: Mapping[Key, int]
    """Value or colour -> class index, or IGNORE."""
    background: bool
    threshold: bool = False
    """Whether masks are black and white with shades between, which the middle parts."""
    in_colors: bool = False
    notes: list[str] = field(default_factory=list)
    """What was taken for granted, in sentences."""


@dataclass(frozen=True)
class _Seen:
    """What one mask file holds."""

    pixels: Counter[Key]
    palette: Mapping[int, Color]
    shaded: bool


def read(path: Path, meaning: Meaning) -> NDArray[np.uint8]:
    """A mask as class indices, uint8 (H, W), void as IGNORE.

    Raises:
        BadFile: it cannot be read, or holds what `meaning` does not know.
    """
    if (own := said(path)) is not None:
        meaning = _of_premask(own, meaning)
    if meaning.threshold:
        grey = _grey(path)
        return (grey > (0 if grey.max() <= 1 else 127)).astype(np.uint8)  # some may hold 0 and 1
    values = _values(path, in_colors=meaning.in_colors)
    present, places = np.unique(values, return_inverse=True)
    keys = [_key(value, meaning.in_colors) for value in present.tolist()]
    strange = [key for key in keys if key not in meaning.of]
    if strange:
        raise BadFile("mask value that no other mask has", path, str(strange[0]))
    classes = np.array([meaning.of[key] for key in keys], dtype=np.uint8)
    return classes[places].reshape(values.shape)


def understand(paths: Sequence[Path], names: Sequence[tuple[str, Color | None]] = ()) -> Meaning:
    """What the values of masks mean, from all of them.

    Two values are background (the smaller one, or black) and a class. 255 beside others is void, and so is PASCAL VOC's
    border colour. Palette masks count by their indices if each index has one colour in all of them, else by their
    colours. Shades of grey of which nearly all pixels are nearly black or white are two classes. A
    few files that cannot be masks are passed over here; `read` refuses them.

    Args:
        paths: of masks, at least one.
        names: of the classes, in the order of their values, or with their colours; empty: they are called by number.

    Raises:
        UserError: they do not fit the names, or many of them are no masks, which are named.
    """
    # What `u2pl suggest` wrote says itself how it is to be read, and may have other values.
    paths = [path for path in paths if said(path) is None] or paths
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        seen = list(pool.map(_look, paths))
    bad = [found for found in seen if isinstance(found, BadFile)]
    if len(bad) > _BAD * len(paths):
        from u2pl.data.problems import report

        raise UserError(
            report(
                f"{len(bad)} of {len(paths)} masks cannot be used:",
                [(error.kind, f"{error.path} {error.detail}".strip()) for error in bad],
                "Mend, replace or move them, then start the same command again.",
            )
        )
    masks = [found for found in seen if isinstance(found, _Seen)]
    shaded = sum(mask.shaded for mask in masks)
    plain = [mask for mask in masks if not mask.shaded]
    if shaded and all(set(mask.pixels) <= {0, 1, 255} for mask in plain):
        return _two(names, f"{shaded} masks hold shades of grey, nearly all black or white: parted at 128.")
    masks = plain
    pixels: Counter[Key] = sum((mask.pixels for mask in masks), Counter())
    if len(pixels) > _MOST + 2:
        raise UserError(
            f"The masks hold {len(pixels):,} different values together. Save them as PNG with a value or a colour a "
            f"class, {_MOST} classes at most."
        )
    in_colors = any(isinstance(key, tuple) for key in pixels)
    palette: dict[int, Color] = {}
    if not in_colors:
        palette, agree = _palette([mask.palette for mask in masks])
        in_colors = not agree
    _refuse_two_kinds(masks)
    if set(pixels) == {0, 1, 255} and not any(set(mask.pixels) >= {1, 255} for mask in masks):
        note = "Some masks hold 0 and 1, others 0 and 255: 255 was taken for 1, since no mask holds both."
        classes = [name for name, _ in names] if len(names) == 2 else ["background", "object"]
        return _meaning(classes, [None, None], {0: 0, 1: 1, 255: 1}, [note])
    if in_colors:
        pixels = sum((_in_colors(mask) for mask in masks), Counter())
        return _of_colors(pixels, names)
    return _of_values(pixels, palette, names)


def _refuse_two_kinds(masks: Sequence[_Seen]) -> None:
    """Refuse masks of which 255 seems to mean the object in most and void in others.

    Raises:
        UserError: they are such.
    """
    white = sum(set(mask.pixels) == {0, 255} for mask in masks)
    both = [mask for mask in masks if {1, 255} <= set(mask.pixels) <= {0, 1, 255}]
    if both and white > len(masks) / 2:
        raise UserError(
            f"{white} masks hold 0 and 255, and {len(both)} others 0, 1 and 255: in those 255 seems to be the object, "
            "in these void. Save all with the same values. Masks that u2pl suggest wrote come back with: "
            "u2pl prepare --merge"
        )


def _of_premask(own: Said, meaning: Meaning) -> Meaning:
    """How a mask that `u2pl suggest` wrote is read, by the names of its classes."""
    place = {name: k for k, name in enumerate(meaning.classes)}
    of: dict[Key, int] = {own.blank: IGNORE}
    keys: Sequence[Key] = own.values
    of |= {value: place[name] for value, name in zip(keys, own.classes, strict=True) if name in place}
    return replace(meaning, of=of, in_colors=own.in_colors, threshold=False)


def _look(path: Path) -> _Seen | BadFile:
    try:
        values, palette = read_raw_mask(path)
    except BadFile as error:
        if "with loss" not in error.kind:
            return error
        try:
            grey = _grey(path)
        except BadFile as worse:
            return worse
        return _Seen(Counter(), {}, True) if _is_two_shades(grey) else error
    colors: dict[int, Color] = {}
    if palette is not None:
        colors = {k: tuple(color) for k, color in enumerate(palette.tolist())}
    if values.ndim == 3 and (values[..., :1] == values).all():
        values = values[..., 0]  # grey, saved in colour
    flat = _codes(values) if values.ndim == 3 else values.reshape(-1)
    present, counts = np.unique(flat, return_counts=True)
    if values.ndim == 2 and palette is None and _has_shades(present) and _is_two_shades(values):
        return _Seen(Counter(), {}, True)
    if len(present) > _MOST + 2:
        return BadFile("mask that looks like a photograph", path, f"{len(present):,} values")
    keys = (_key(value, values.ndim == 3) for value in present.tolist())
    return _Seen(
        Counter(dict(zip(keys, counts.tolist(), strict=True))),
        {k: colors[k] for k in present.tolist() if k in colors},
        False,
    )


def _grey(path: Path) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as picture:
            return np.asarray(ImageOps.exif_transpose(picture).convert("L"))
    except Exception as error:  # Pillow fails in many ways on damaged files
        raise BadFile("truncated or damaged mask", path, str(error).partition("\n")[0]) from None


def _has_shades(present: NDArray[Any]) -> bool:
    """Whether there are greys on both sides of the middle, as scaling leaves them; the numbers of classes are small."""
    dark, bright = ((present > low) & (present < low + 88) for low in (_NEAR, 127))
    return bool(present[-1] <= 255 and dark.sum() >= 4 and bright.sum() >= 4)


def _is_two_shades(grey: NDArray[Any]) -> bool:
    ends = (grey <= _NEAR) | (grey >= 255 - _NEAR)
    return bool(ends.mean() >= _NEARLY_ALL and (grey >= 255 - _NEAR).any())


def _values(path: Path, *, in_colors: bool) -> NDArray[Any]:
    """Integers (H, W): values, or codes of colours."""
    values, palette = read_raw_mask(path)
    if not in_colors:
        return values[..., 0] if values.ndim == 3 else values
    if values.ndim == 3:
        return _codes(values).reshape(values.shape[:2])
    if palette is not None:
        if values.max() >= len(palette):
            raise BadFile("mask value that its palette has no colour for", path, str(values.max()))
        return _codes(palette[values]).reshape(values.shape)
    return _codes(np.repeat(values[..., None], 3, axis=2)).reshape(values.shape)


def _codes(rgb: NDArray[Any]) -> NDArray[np.int64]:
    codes: NDArray[np.int64] = rgb.reshape(-1, 3).astype(np.int64) @ (65536, 256, 1)
    return codes


def _key(value: int, in_colors: bool) -> Key:
    return (value >> 16, value >> 8 & 255, value & 255) if in_colors else value


def _in_colors(mask: _Seen) -> Counter[Key]:
    found: Counter[Key] = Counter()
    for key, count in mask.pixels.items():
        if isinstance(key, int):
            key = mask.palette.get(key, (key, key, key)) if mask.palette else (key, key, key)
        found[key] += count
    return found


def _palette(palettes: Iterable[Mapping[int, Color]]) -> tuple[dict[int, Color], bool]:
    """Index -> colour, and whether all masks agree on it."""
    found: dict[int, Color] = {}
    for palette in palettes:
        for index, color in palette.items():
            if found.setdefault(index, color) != color:
                return {}, False
    return found, True


def _two(names: Sequence[tuple[str, Color | None]], note: str) -> Meaning:
    classes = [name for name, _ in names] if len(names) == 2 else ["background", *(n for n, _ in names[:1])]
    if len(classes) < 2:
        classes = ["background", "object"]
    return Meaning(classes, [default_color(0), default_color(1)], {}, True, threshold=True, notes=[note])


def _of_values(
    pixels: Mapping[Key, int], palette: Mapping[int, Color], names: Sequence[tuple[str, Color | None]]
) -> Meaning:
    values = sorted(key for key in pixels if isinstance(key, int))
    notes: list[str] = []
    void: set[int] = set()
    words = [name for name, _ in names]
    is_class = len(words) == len(values) or min(filter(None, values), default=255) >= _SCALED
    if 255 in values and len(values) > 2 and not is_class:
        void.add(255)
        notes.append("255 was taken for void.")
    kept = [value for value in values if value not in void]
    if len(kept) < 2:
        raise UserError(
            f"All masks hold the value {kept[0] if kept else 255} alone. Two classes at least are needed."
        )
    if not words:
        classes = [f"class {value}" for value in kept]
        if len(kept) == 2:
            classes = ["background", "object"]
    elif len(words) > max(kept) and words:
        classes, kept = words, list(range(len(words)))  # also those that do not occur
    elif len(words) == len(kept):
        classes = words
    elif (
        len(words) == len(kept) - 1 and kept[0] == 0 and {w.strip().lower() for w in words} & BACKGROUND_NAMES
    ):
        classes, kept = words, kept[1:]
        void.add(0)
        notes.append(
            "0 was taken for void, since every other value has a name, and one of them is background."
        )
    elif len(words) == len(kept) - 1 and kept[0] == 0:
        classes = ["background", *words]
        notes.append("0 was taken for background, since there is a name for every other value.")
    elif len(words) == max(kept) and kept[0] > 0:
        classes, kept = words, list(range(1, len(words) + 1))
    else:
        raise UserError(
            f"There are {len(words)} class names, and the masks hold the values {', '.join(map(str, kept[:12]))}"
            f"{', ...' if len(kept) > 12 else ''}. Name the classes in the order of their values, one a line."
        )
    if words:
        notes.append(f"{', '.join(f'{v} is {name}' for v, name in zip(kept[:12], classes, strict=False))}.")
    of: dict[Key, int] = dict.fromkeys(void, IGNORE)
    of |= {value: k for k, value in enumerate(kept)}
    return _meaning(classes, [palette.get(value) for value in kept], of, notes)


def _of_colors(pixels: Mapping[Key, int], names: Sequence[tuple[str, Color | None]]) -> Meaning:
    colors: list[Color] = sorted((key for key in pixels if isinstance(key, tuple)), key=lambda c: -pixels[c])
    notes: list[str] = []
    named = {color: name for name, color in names if color is not None}
    of: dict[Key, int] = {}
    if named:
        strange = [color for color in colors if color not in named and color != _BORDER]
        if len(strange) > 1 or (strange and strange != [(0, 0, 0)]):
            raise UserError(
                f"The masks hold the colour {strange[0]}, which classes.txt does not name. Add it there."
            )
        if strange:
            of[0, 0, 0] = IGNORE
            notes.append("Black has no name and was taken for void.")
        order, classes = list(named), list(named.values())
    else:
        order = [color for color in colors if color != _BORDER]
        if (0, 0, 0) in order:
            order = [(0, 0, 0), *(color for color in order if color != (0, 0, 0))]
        classes = ["#{:02x}{:02x}{:02x}".format(*color) for color in order]
        if order[0] == (0, 0, 0):
            classes[0] = "background"
        words = [name for name, _ in names]
        if words:
            raise UserError(
                "The masks are in colours, and classes.txt does not say which colour is which class. "
                "Write a line a class: name red green blue, such as: road 128 64 128"
            )
    if len(order) < 2:
        raise UserError("All masks hold one colour alone. Two classes at least are needed.")
    if _BORDER in colors and _BORDER not in named:
        of[_BORDER] = IGNORE
        notes.append("The border colour of PASCAL VOC was taken for void.")
    of |= {color: k for k, color in enumerate(order)}
    return _meaning(classes, list(order), of, notes, in_colors=True)


def _meaning(
    classes: Sequence[str],
    colors: Sequence[Color | None],
    of: dict[Key, int],
    notes: list[str],
    *,
    in_colors: bool = False,
) -> Meaning:
    """Take classes called void out, put the background first, and give colours to those that lack one."""
    void = [k for k, name in enumerate(classes) if name.strip().lower() in VOID_NAMES]
    kept = [k for k in range(len(classes)) if k not in void]
    background = [k for k in kept if classes[k].strip().lower() in BACKGROUND_NAMES]
    if background and kept[0] != background[0]:
        kept = [background[0], *(k for k in kept if k != background[0])]
    place = {old: new for new, old in enumerate(kept)}
    chosen: list[Color] = []
    for k in kept:
        color = colors[k]
        if color is None or color in chosen:
            color = next(c for c in map(default_color, range(256)) if c not in chosen and c not in colors)
        chosen.append(color)
    if len(kept) > _MOST:
        raise UserError(f"There are {len(kept)} classes, and {_MOST} are the most. Join some.")
    if len(kept) < 2:
        raise UserError("There is one class beside void. Two classes at least are needed.")
    return Meaning(
        unique([classes[k] for k in kept]),
        chosen,
        {key: IGNORE if k == IGNORE else place.get(k, IGNORE) for key, k in of.items()},
        bool(background),
        in_colors=in_colors,
        notes=notes,
    )


def unique(names: Sequence[str]) -> list[str]:
    """Names that differ, and none is `void`, which means something else in a description."""
    found: list[str] = []
    for name in names:
        base = name = name.strip() or "class"
        number = 1
        while name in found or name == VOID:
            number += 1
            name = f"{base} {number}"
        found.append(name)
    return found


_NAMES_FILES = ("classes.txt", "class_dict.csv", "labelmap.txt", "labels.txt", "label_names.txt")
_RGB = re.compile(r"^(.*?)[\s,;:]+(\d{1,3})[\s,;]+(\d{1,3})[\s,;]+(\d{1,3})[\s,;:]*$")
_RGB_FIRST = re.compile(r"^(\d{1,3})[\s,;]+(\d{1,3})[\s,;]+(\d{1,3})[\s,;:]+(.+)$")


def class_names(folder: Path) -> tuple[Path, list[tuple[str, Color | None]]] | None:
    """The classes that a file in the folder names, and their colours where it says; None where there is no such file.

    A line a class, in the order of the masks' values: `road`, or `road 128 64 128`, with commas or blanks. Lines that
    begin with # and a head such as `name,r,g,b` are passed over.

    Raises:
        UserError: it is no text, names a class twice, or has colours for some classes alone.
    """
    path = next((folder / name for name in _NAMES_FILES if (folder / name).is_file()), None)
    if path is None:
        return None
    try:
        lines = content(path).decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}). Write it as UTF-8 text, a class a line.") from None
    found: list[tuple[str, Color | None]] = []
    for line in filter(None, map(str.strip, lines)):
        if line.startswith("#") or re.fullmatch(r"name\W+r(ed)?\W+g(reen)?\W+b(lue)?", line, re.IGNORECASE):
            continue
        if behind := _RGB.match(line):
            found.append((behind[1].strip(), _color(path, line, behind.groups()[1:])))
        elif front := _RGB_FIRST.match(line):
            found.append((front[4].strip(), _color(path, line, front.groups()[:3])))
        else:
            found.append((line.rstrip(":"), None))
    if found and found[0][0] == "__ignore__":
        found = found[1:]  # labelme's name for -1, which no mask holds
    names = [name for name, _ in found]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{path} names {twice!r} twice. Name each class once.")
    if len({color is None for _, color in found}) > 1:
        raise UserError(f"{path} has colours for some classes alone. Give each one, or none.")
    return (path, found) if found else None


def _color(path: Path, line: str, numbers: Sequence[str]) -> Color:
    red, green, blue = map(int, numbers)
    if max(red, green, blue) > 255:
        raise UserError(f"{path}: the colour in {line!r} has a value above 255. Mend it.")
    return red, green, blue
