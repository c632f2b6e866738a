"""Finds what annotation tools exported into a folder, and the pictures that it is of."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from u2pl.annotations import coco, cvat, label_studio, labelme, yolo
from u2pl.annotations.export import Export, Object, files, first_come, json_of, text_of
from u2pl.data.pictures import plain
from u2pl.data.problems import Problem
from u2pl.errors import UserError

__all__ = ["Export", "Matched", "Object", "find", "match", "plain_classes"]

HEAD = 4096
"""Bytes in which XML says what it is."""
_JSON_OF: tuple[tuple[Callable[[Any], bool], Callable[[Path, Any], Export]], ...] = (
    (coco.is_one, coco.read),
    (label_studio.is_one, label_studio.read),
)


def find(folder: Path) -> list[Export]:
    """All exports in a folder and below it; other files are passed over without a word.

    labelme's files are one export together. Archives are not opened.

    Raises:
        UserError: a file is an export, but damaged or of a kind that is not read.
    """
    found: list[Export] = []
    documents: list[tuple[Path, Any]] = []
    names: list[Path] = []
    for path in files(folder):
        if path.suffix == ".json":
            value = _json(path)
            if labelme.is_one(value):
                documents.append((path, value))
            elif label_studio.is_short(value):
                raise UserError(f"{path} does not say what is what. Export as JSON, and not as JSON-MIN.")
            found += [read(path, value) for is_one, read in _JSON_OF if is_one(value)]
        elif path.suffix == ".xml" and cvat.is_images((text_of(path) or b"")[:HEAD]):
            found += _if_any(cvat.read_images(path))
        elif path.name == cvat.LABELS:
            found += _if_any(cvat.read_masks(path))
        elif path.suffix in {".yaml", ".yml"} or path.name == yolo.NAMES:
            names.append(path)
    if documents:
        found.append(labelme.read(folder, documents))
    return found + _yolo(names, folder)


def _if_any(export: Export | None) -> list[Export]:
    return [] if export is None else [export]


def _json(path: Path) -> Any:
    """The value in a file that looks like an export; None of others."""
    text = text_of(path) or b""
    begin = text.lstrip()[:1]

    def has(*keys: bytes) -> bool:
        return all(b'"' + key + b'"' in text for key in keys)

    if begin == b"{":
        looks = has(b"shapes", b"imagePath") or has(b"shapes", b"shape_type")
        looks = looks or (has(b"images") and (has(b"annotations") or has(b"categories")))
    else:
        looks = (
            has(b"annotations", b"data")
            or has(b"annotations", b"result")
            or has(b"annotator", b"annotation_id")
        )
        looks = begin == b"[" and looks
    return json_of(path) if looks else None


def _yolo(names: Sequence[Path], root: Path) -> list[Export]:
    """One export of each folder with labels; what lies above or comes as YAML says the names."""
    found: list[Export] = []
    for source in sorted(names, key=lambda path: (len(path.parts), path.name == yolo.NAMES, path)):
        if not any(source.is_relative_to(export.path) for export in found):
            found += _if_any(yolo.read(source, root))
    return found


def plain_classes(exports: Iterable[Export]) -> list[str]:
    """The classes of several exports, each once, in the order in which they come."""
    return first_come(name for export in exports for name in export.classes)


# ---- pictures --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Matched:
    """Which file each picture of an export is.

    Attributes:
        names: picture -> key of its file.
        problems: pictures that are none of the files, or may be several.
    """

    names: dict[str, str]
    problems: list[Problem]


def match(export: Export, files: Mapping[str, Path]) -> Matched:
    """Find the files of an export's pictures: by as much of the path as they share, by name, or by name without suffix.

    Args:
        export: names its pictures as the tool does, which knows other folders than this machine's.
        files: key -> file.
    """
    by_name: dict[str, list[str]] = {}
    by_stem: dict[str, list[str]] = {}
    for key, file in files.items():
        by_name.setdefault(plain(file.name), []).append(key)
        by_stem.setdefault(plain(file.stem), []).append(key)
    found: dict[str, str] = {}
    problems: list[Problem] = []
    for picture in export.pictures:
        path = PurePosixPath(plain(picture.replace("\\", "/")))
        keys = by_name.get(path.name) or by_stem.get(path.name) or by_stem.get(path.stem) or []
        near = _nearest(path.parent, {key: files[key] for key in keys})
        if len(near) == 1:
            found[picture] = near[0]
        elif near:
            problems.append(
                (f"pictures in {export.format} that may be several files", f"{picture}: {', '.join(near)}")
            )
        else:
            problems.append((f"pictures in {export.format} that are none of the files", picture))
    return _one_each(export, found, problems)


def _nearest(parent: PurePosixPath, files: Mapping[str, Path]) -> list[str]:
    """Of files the keys of those that share most of the folders, counted from the last."""
    if len(files) < 2:
        return list(files)
    shared: dict[str, int] = {}
    for key, file in files.items():
        pairs = zip(
            reversed(parent.parts), reversed([plain(part) for part in file.parent.parts]), strict=False
        )
        shared[key] = next(
            (k for k, (a, b) in enumerate(pairs) if a != b), min(len(parent.parts), len(file.parent.parts))
        )
    most = max(shared.values())
    return [key for key, count in shared.items() if count == most]


def _one_each(export: Export, found: Mapping[str, str], problems: Sequence[Problem]) -> Matched:
    """A file that several pictures would be is nobody's."""
    pictures: dict[str, list[str]] = {}
    for picture, key in found.items():
        pictures.setdefault(key, []).append(picture)
    double = [
        (f"files that several pictures in {export.format} would be", f"{key}: {', '.join(names)}")
        for key, names in pictures.items()
        if len(names) > 1
    ]
    return Matched(
        {names[0]: key for key, names in pictures.items() if len(names) == 1}, [*problems, *double]
    )
