"""Which pictures of a folder are images, which are masks, and which belong together: told by names, then by content."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from u2pl.data.pictures import SUFFIXES, plain

_MASK = (
    *(
        "mask",
        "masks",
        "label",
        "labels",
        "labelids",
        "annotation",
        "annotations",
        "annot",
        "gt",
        "groundtruth",
    ),
    *("seg", "segmentation", "segmentations", "segmentationclass", "segmentationclassaug", "truth"),
)
_IMAGE = (
    *("image", "images", "img", "imgs", "photo", "photos", "picture", "pictures", "rgb", "jpegimages"),
    *("leftimg8bit", "input", "inputs", "frame", "frames"),
)
_SIDES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_ENDING = re.compile(r"(annot|masks?|labels?)$")
"""Of folders such as `trainannot`."""
_BEFORE = re.compile(rf"^({'|'.join(_MASK)})[ _.-]+")
_BEHIND = re.compile(rf"[ _.-]+({'|'.join(_MASK)})$")
_IMAGE_BEHIND = re.compile(rf"[ _.-]+({'|'.join(_IMAGE)})$")
_LOOKED_AT = 6
"""Pictures of a folder by which it is told whether they are masks, where no name tells."""
_FLAT = 64
"""Most colours of a picture that looks like a mask."""


@dataclass(frozen=True)
class Pairs:
    """The images of a folder by name, and of some a mask."""

    images: dict[str, Path]
    """Name -> file; a name is the path below the folder without suffix, and without a folder that all share."""
    masks: dict[str, Path]
    side: dict[str, str]
    """Name -> train, val or test, of those that lie in a folder called so."""
    alone: list[Path] = field(default_factory=list)
    """Masks that belong to no image."""
    several: dict[str, list[Path]] = field(default_factory=dict)
    """Names with more than one mask, which then count for none."""


@dataclass(frozen=True)
class _File:
    path: Path
    folders: tuple[str, ...]
    """Below the folder, in lower case, without words that say what lies in them."""
    stem: str
    is_mask: bool
    side: str


def pictures_in(folder: Path) -> list[Path]:
    """The files below a folder that are called like pictures, sorted.

    Hidden files and folders are passed over, and so are projects of ours, whose pictures are made of others, and
    suggestions of what to label, whose masks nobody has looked at yet.
    """
    found = []
    seen = {folder.resolve()}
    for above, folders, files in os.walk(folder, followlinks=True):
        below = [Path(above, name) for name in folders if not name.startswith(".")]
        new = [path for path in below if path.resolve() not in seen and not is_ours(path)]
        seen |= {path.resolve() for path in new}  # links may lead in a circle
        folders[:] = [path.name for path in new]
        found += [
            path
            for name in files
            if not name.startswith(".")
            and (path := Path(above, name)).suffix.lower() in SUFFIXES
            and path.is_file()
        ]
    return sorted(found)


def is_ours(folder: Path) -> bool:
    """Whether a folder is a project, or what `u2pl auto`, `suggest` or `predict` wrote."""
    is_project = (folder / "params.yaml").is_file() and (folder / "dvc.yaml").is_file()
    written = is_project or any((folder / name).is_file() for name in ("suggestion.json", "folder.json"))
    return written or all((folder / name).is_dir() for name in ("overlays", "colors", "masks"))


def pair(folder: Path, files: Collection[Path] | None = None, *, masks: bool = True) -> Pairs:
    """Tell images from masks, and find the mask of each image.

    A picture is a mask where a folder above it, or an end of its own name, says so (`masks/a.png`, `a_mask.png`); or
    it is the flat one of two pictures of one name and different suffixes (`a.jpg`, `a.png`); or, where no name says
    anything, all of its folder look flat. A mask belongs to the image whose path is the same without such words, else
    to the only one of its name.

    Args:
        folder: of pictures.
        files: those of `pictures_in` that count; None: all.
        masks: whether there may be any; else all are images.
    """
    files = pictures_in(folder) if files is None else files
    found = [_file(path, folder, masks=masks) for path in files]
    if masks:
        found = _twins(found)
        if not any(file.is_mask for file in found):
            found = _flat_folders(found)
    images = [file for file in found if not file.is_mask]
    names = _names(folder, [file.path for file in images])
    return _matched(found, images, names)


def _file(path: Path, folder: Path, *, masks: bool) -> _File:
    *above, _ = path.relative_to(folder).parts
    kept: list[str] = []
    is_mask, side = False, ""
    for part in above:
        words = [word for word in re.split(r"[ _.-]+", plain(part).lower()) if word]
        words = [piece for word in words for piece in _pieces(word)]
        is_mask |= any(word in _MASK for word in words)
        if all(word in _SIDES or word in _MASK or word in _IMAGE for word in words):  # not of test_bench
            side = next((_SIDES[word] for word in words if word in _SIDES), side)
        rest = [word for word in words if word not in (*_MASK, *_IMAGE)]
        if rest:
            kept.append("_".join(rest))
    stem = plain(path.stem).lower()
    short = _BEFORE.sub("", _BEHIND.sub("", stem))
    if short and short != stem:
        is_mask, stem = True, short
    stem = _IMAGE_BEHIND.sub("", stem) or stem
    return _File(path, tuple(kept), stem, masks and is_mask, side)


def _pieces(word: str) -> list[str]:
    """`trainannot` as `train` and `annot`."""
    found = _ENDING.search(word)
    head = word[: found.start()] if found else ""
    return [head, word[len(head) :]] if head in _SIDES else [word]


def _twins(files: list[_File]) -> list[_File]:
    """Of two pictures of one name beside each other the flat one is the mask."""
    together: dict[tuple[Path, str], list[_File]] = defaultdict(list)
    for file in files:
        if not file.is_mask:
            together[file.path.parent, file.path.stem].append(file)
    masks = set()
    for twins in together.values():
        if len(twins) == 2:
            flat = [file for file in twins if looks_flat(file.path)]
            masks |= {file.path for file in flat} if len(flat) == 1 else set()
    return [_as_mask(file) if file.path in masks else file for file in files]


def _flat_folders(files: list[_File]) -> list[_File]:
    """Folders whose pictures look like masks, beside others whose pictures do not and are called alike."""
    by_folder: dict[Path, list[_File]] = defaultdict(list)
    for file in files:
        by_folder[file.path.parent].append(file)
    flat = {
        where
        for where, inside in by_folder.items()
        if all(looks_flat(file.path) for file in inside[:: max(1, len(inside) // _LOOKED_AT)][:_LOOKED_AT])
    }
    stems = {file.stem for where, inside in by_folder.items() if where not in flat for file in inside}
    masks = {where for where in flat if any(file.stem in stems for file in by_folder[where])}
    # What the folder is called says nothing, and is in the way of finding the image.
    return [_as_mask(file, file.folders[:-1]) if file.path.parent in masks else file for file in files]


def _as_mask(file: _File, folders: tuple[str, ...] | None = None) -> _File:
    return _File(file.path, file.folders if folders is None else folders, file.stem, True, file.side)


def looks_flat(path: Path) -> bool:
    """Whether a picture has few colours, as masks do; one that cannot be read has not."""
    try:
        with Image.open(path) as picture:
            if picture.format == "JPEG":
                return False
            if picture.mode in ("P", "1"):
                return True
            picture.thumbnail((256, 256), Image.Resampling.NEAREST)
            pixels = np.asarray(picture)
    except Exception:  # Pillow fails in many ways; whoever needs the pixels says what is wrong
        return False
    colors = pixels.reshape(-1, pixels.shape[2]) if pixels.ndim == 3 else pixels.reshape(-1, 1)
    return len(np.unique(colors, axis=0)) <= _FLAT


def _names(folder: Path, images: Iterable[Path]) -> dict[Path, str]:
    """File -> its name; of two files that differ in the suffix alone both keep it."""
    relative = {path: path.relative_to(folder) for path in images}
    above = {path.parts[0] if len(path.parts) > 1 else "" for path in relative.values()}
    shared = len(above) == 1 and above != {""}
    if shared:
        relative = {path: Path(*name.parts[1:]) for path, name in relative.items()}
    stems = {path: _listable(name.with_suffix("")) for path, name in relative.items()}
    common = Counter(stem.lower() for stem in stems.values())
    names: dict[Path, str] = {}
    taken: set[str] = set()
    for path, stem in stems.items():
        base = name = stem if common[stem.lower()] == 1 else f"{stem}_{path.suffix[1:]}"
        number = 1
        while name.lower() in taken:
            number += 1
            name = f"{base}-{number}"
        taken.add(name.lower())
        names[path] = name
    return names


def _listable(path: Path) -> str:
    """A path as a name that a list can hold: no blanks at the ends of its parts, no control characters."""
    parts = [
        re.sub(r"[\x00-\x1f\x7f\x85\u2028\u2029]", "_", plain(part)).strip() or "_" for part in path.parts
    ]
    return str(PurePosixPath(*parts))


def _matched(files: list[_File], images: list[_File], names: dict[Path, str]) -> Pairs:
    by_key: dict[tuple[tuple[str, ...], str], list[str]] = defaultdict(list)
    by_stem: dict[str, list[str]] = defaultdict(list)
    for file in images:
        by_key[file.folders, file.stem].append(names[file.path])
        by_stem[file.stem].append(names[file.path])
    masks: dict[str, list[Path]] = defaultdict(list)
    alone = []
    for file in files:
        if file.is_mask:
            places = by_key.get((file.folders, file.stem)) or by_stem.get(file.stem) or []
            if len(places) == 1:
                masks[places[0]].append(file.path)
            else:
                alone.append(file.path)
    return Pairs(
        images={names[file.path]: file.path for file in images},
        masks={name: paths[0] for name, paths in masks.items() if len(paths) == 1},
        side={names[file.path]: file.side for file in images if file.side},
        alone=alone,
        several={name: paths for name, paths in masks.items() if len(paths) > 1},
    )


def sides_from_lists(folder: Path, names: Collection[str]) -> dict[str, str]:
    """Name -> train or val, as train.txt and val.txt in the folder say; empty where they are not there.

    Raises:
        UserError: a list cannot be read.
    """
    from u2pl.data import lists

    found: dict[str, str] = {}
    known = {plain(name).lower(): name for name in names}
    last = {key.rpartition("/")[2]: name for key, name in known.items()}
    for side in ("train", "val"):
        path = folder / f"{side}.txt"
        if path.is_file():
            for line in lists.read_lines(path):
                name = next(filter(None, _listed(line, known, last)), None)
                if name is not None:
                    found.setdefault(name, side)
    return found if "val" in found.values() else {}


def _listed(line: str, known: dict[str, str], last: dict[str, str]) -> Iterator[str | None]:
    from u2pl.data import lists

    for text in (line, *line.split()[:1]):
        for tail in lists.tails(plain(text).lower()):
            yield known.get(tail)
        yield last.get(PurePosixPath(lists.stem(text.lower())).name)
