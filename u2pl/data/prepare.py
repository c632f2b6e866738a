"""Checks a data set once and writes what training reads: index masks, lists, a manifest.

In data/NAME/ lie `dataset.json` (the description), `source.json` (where the images are, and what was
found in each file: the memory that makes a second split quick), `masks/` and `splits/SPLIT/`. Only the last
is the same on every machine.
"""

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from u2pl.data import splits
from u2pl.data.catalog import built_in
from u2pl.data.description import (
    BuiltIn,
    Description,
    Progress,
    describe,
    read_description,
    read_mask,
    read_names,
)
from u2pl.data.pictures import BadFile, Finder, read_image, write_png
from u2pl.errors import UsageError, UserError, unknown
from u2pl.files import read_json, sha256, sha256_json, write_json
from u2pl.project import Project

COMING = ("voc", "cityscapes")
EXAMPLES = 4
"""Files named of each kind of problem."""

Stat = list[int]
"""Size in bytes and time of the last change in ns."""


@dataclass(frozen=True)
class Prepared:
    """What `prepare` found and where it lies."""

    description: Description
    split: str
    folder: Path
    """The split's lists and manifest."""
    manifest: Mapping[str, Any]
    read: int
    """Images read this time; the others are known from an earlier time."""


@dataclass(frozen=True)
class Record:
    """What one image and its mask were found to be."""

    image: str
    """Path below the root."""
    mask: str | None
    image_sha256: str
    """Of the decoded pixels, since compression may differ from machine to machine."""
    mask_sha256: str | None
    pixels: list[int]
    """Of each class; empty without a mask."""
    stats: list[Stat]
    """Of the image, the mask and the index mask, when they were read."""


@dataclass(frozen=True)
class _Source:
    """A data set before it is prepared: what it is and where its files are."""

    description: Description
    root: Path
    built_in: BuiltIn | None


def prepare(
    project: Project,
    dataset: str,
    split: str,
    root: Path | None = None,
    seed: int = 2,
    progress: Progress = lambda what, done, total: None,
) -> Prepared:
    """Make one split of a data set ready for training; done twice, the second time changes nothing.

    Args:
        project: where to write.
        dataset: a built-in name, a YAML file, or the name of a data set prepared before.
        split: "1/8" or another 1/k, or "full".
        root: folder of the data set's files, where neither an earlier call nor the YAML file says.
        seed: of the split's draw.
        progress: told how far it is.

    Raises:
        UserError: the files are not what the description says; every problem at once.
        UsageError: the data set or the split is unknown.
    """
    source = _find(project, dataset, root)
    splits.share(split)
    data = project.data(source.description.name)
    if source.root == data.resolve() and not (source.built_in and source.built_in.draw):
        raise UsageError(
            f"u2pl writes to {data}, so the data set cannot lie there itself. Move it and name its --root."
        )
    data.mkdir(parents=True, exist_ok=True)
    with FileLock(data / ".lock"):
        return _prepare(project, source, split, seed, progress)


def _prepare(project: Project, source: _Source, split: str, seed: int, progress: Progress) -> Prepared:
    description, data = source.description, project.data(source.description.name)
    known = _known(data, source)
    if source.built_in and source.built_in.draw and not _is_intact(source, data, known):
        source.built_in.draw(source.root, progress)
    train, val = (read_names(source.root / listed) for listed in (description.train, description.val))
    records, read = _records(source, data, train, val, known, progress)
    digest = sha256_json(
        [[[n, records[n].image_sha256, records[n].mask_sha256] for n in part] for part in (train, val)]
    )
    _write_json(data / "dataset.json", description.model_dump(mode="json", exclude={"root"}))
    _write_json(
        data / "source.json",
        {
            "root": _portable(source.root, project.root),
            "version": source.built_in.version if source.built_in else None,
            "data": digest,
            "files": {name: asdict(record) for name, record in records.items()},
        },
    )
    classes_of = {n: set(np.flatnonzero(records[n].pixels).tolist()) for n in train if records[n].mask}
    labeled, unlabeled = splits.draw(classes_of, [n for n in train if not records[n].mask], split, seed)
    lists = splits.Lists(labeled, unlabeled, val)
    folder = project.split(description.name, split)
    hashes = splits.write(folder, lists)
    manifest = {
        "dataset": description.name,
        "split": split,
        "source": f"seeded {seed}",
        "seed": seed,
        "counts": {
            "train": len(train),
            "labeled": len(labeled),
            "unlabeled": len(unlabeled),
            "val": len(val),
        },
        "sha256": hashes,
        "data": digest,
        "classes": _class_counts(description, records, classes_of, labeled),
        "ignore_index": description.ignore_index,
        "background": description.background,
    }
    _write_json(folder / "manifest.json", manifest)
    return Prepared(description, split, folder, manifest, read)


def _find(project: Project, dataset: str, root: Path | None) -> _Source:
    """The data set that `dataset` means, and the folder it lies in."""
    built = built_in()
    if dataset.lower().endswith((".yaml", ".yml")):
        path = Path(dataset)
        description = read_description(path)
        if description.name in built:
            raise UsageError(
                f"{path}: the name {description.name!r} is that of a built-in data set. Take another."
            )
        return _Source(description, _folder(root or path.parent / (description.root or ".")), None)
    data = project.data(dataset)
    if dataset in built:
        description = built[dataset].description
        if built[dataset].draw:
            if root:
                raise UsageError(f"{dataset} is drawn by u2pl and has no --root. Leave it out.")
            return _Source(description, data, built[dataset])
    elif (data / "dataset.json").is_file():
        description = describe(read_json(data / "dataset.json"), str(data / "dataset.json"))
    elif dataset in COMING:
        raise UsageError(
            f"Data set {dataset!r} is not built in yet. Describe your copy of it in a YAML file "
            "(docs/data.md shows one) and run: u2pl prepare --dataset FILE.yaml"
        )
    else:
        raise unknown("data set", dataset, {*built, *COMING, *_prepared_names(project)})
    if root is None:
        if not (data / "source.json").is_file():
            raise UsageError(
                f"Where does {dataset} lie? Add --root FOLDER, the folder that holds {description.images}, "
                f"{description.masks}, {description.train} and {description.val}."
            )
        root = project.root / read_json(data / "source.json")["root"]
    return _Source(description, _folder(root), built.get(dataset))


def _prepared_names(project: Project) -> list[str]:
    return [path.parent.name for path in (project.root / "data").glob("*/dataset.json")]


def _folder(path: Path) -> Path:
    if not path.is_dir():
        raise UserError(f"There is no folder {path}. Name the data set's folder with --root.")
    return path.resolve()


def _portable(root: Path, project: Path) -> str:
    """`root` relative to the project where it lies inside it, so that the project can be moved."""
    return root.relative_to(project).as_posix() if root.is_relative_to(project) else str(root)


def _known(data: Path, source: _Source) -> dict[str, Record]:
    """What an earlier call found, if it looked at the same files in the same way."""
    try:
        before, described = read_json(data / "source.json"), read_json(data / "dataset.json")
    except (FileNotFoundError, ValueError):
        return {}
    version = source.built_in.version if source.built_in else None
    same = (
        described == source.description.model_dump(mode="json", exclude={"root"})
        and (data.parent.parent / before["root"]) == source.root
        and before["version"] == version
    )
    if not same:
        return {}
    return {name: Record(**record) for name, record in before["files"].items()}


def _index_mask(data: Path, name: str) -> Path:
    return data / "masks" / f"{name}.png"


def _stats(source: _Source, data: Path, name: str, record: Record) -> list[Stat]:
    """Of the record's files as they are now; empty where one is missing."""
    paths = [source.root / record.image]
    if record.mask:
        paths += [source.root / record.mask, _index_mask(data, name)]
    return _stat(paths)


def _stat(paths: Iterable[Path]) -> list[Stat]:
    try:
        return [[found.st_size, found.st_mtime_ns] for found in (path.stat() for path in paths)]
    except OSError:
        return []


def _is_intact(source: _Source, data: Path, known: Mapping[str, Record]) -> bool:
    """Whether a drawn data set is as it was when it was last checked."""
    try:
        names = [
            *read_names(source.root / source.description.train),
            *read_names(source.root / source.description.val),
        ]
    except UserError:
        return False
    return set(names) == set(known) and all(
        _stats(source, data, name, record) == record.stats for name, record in known.items()
    )


def _records(
    source: _Source,
    data: Path,
    train: list[str],
    val: list[str],
    known: Mapping[str, Record],
    progress: Progress,
) -> tuple[dict[str, Record], int]:
    """A record of every image, and how many were read for it.

    Raises:
        UserError: anything is wrong with the lists or the files; all of it.
    """
    problems = _list_problems(source.description, train, val)
    names = list(dict.fromkeys([*train, *val]))
    check = _checker(source, data, known, needs_mask=set(val))
    records: dict[str, Record] = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done, (name, outcome) in enumerate(zip(names, pool.map(check, names), strict=True), start=1):
            if isinstance(outcome, Record):
                records[name] = outcome
            else:
                problems += outcome
            progress("checking", done, len(names))
    if not problems:
        problems = _mask_problems(source.description, [records[name] for name in train])
    if problems:
        raise UserError(_report(source, problems))
    return records, sum(records[name] is not known.get(name) for name in names)


Problem = tuple[str, str]
"""A kind of problem, and where it is."""


def _checker(
    source: _Source, data: Path, known: Mapping[str, Record], needs_mask: Collection[str]
) -> Callable[[str], Record | list[Problem]]:
    """A function that checks the files of one name and writes its index mask."""
    description, root = source.description, source.root
    images, masks = Finder(root, description.images), Finder(root, description.masks)

    def check(name: str) -> Record | list[Problem]:
        found, found_masks = images.find(name), masks.find(name)
        problems = []
        if not found:
            problems.append(("missing image", name))
        if not found_masks and name in needs_mask:
            problems.append(("missing mask of a validation image", name))
        problems += [
            (f"several {kind}s for one name", ", ".join(path.name for path in paths))
            for kind, paths in (("image", found), ("mask", found_masks))
            if len(paths) > 1
        ]
        if problems:
            return problems
        record = known.get(name)
        paths = [path.relative_to(root).as_posix() for path in (*found, *found_masks)]
        if (
            record
            and [record.image, *([record.mask] if record.mask else [])] == paths
            and _stats(source, data, name, record) == record.stats
        ):
            return record
        return _read(name, found[0], found_masks[0] if found_masks else None)

    def _read(name: str, image: Path, mask: Path | None) -> Record | list[Problem]:
        problems: list[Problem] = []
        pixels = indices = None
        try:
            pixels = read_image(image)
        except BadFile as error:
            problems.append(_problem(error, root))
        try:
            indices = read_mask(mask, description) if mask else None
        except BadFile as error:
            problems.append(_problem(error, root))
        if pixels is not None and indices is not None and pixels.shape[:2] != indices.shape:
            sizes = [f"{width} x {height}" for height, width in (pixels.shape[:2], indices.shape)]
            problems.append(("mask of another size than its image", f"{name} ({sizes[1]}, image {sizes[0]})"))
        if problems or pixels is None:
            return problems
        written = _index_mask(data, name)
        if indices is not None and written != mask:
            write_png(written, indices)
        return Record(
            image=image.relative_to(root).as_posix(),
            mask=mask.relative_to(root).as_posix() if mask else None,
            image_sha256=sha256(repr(pixels.shape).encode() + pixels.tobytes()),
            mask_sha256=None if indices is None else sha256(repr(indices.shape).encode() + indices.tobytes()),
            pixels=[]
            if indices is None
            else [int((indices == c).sum()) for c in range(len(description.classes))],
            stats=_stat([image, *([mask, written] if mask else [])]),
        )

    return check


def _problem(error: BadFile, root: Path) -> Problem:
    detail = f" ({error.detail})" if error.detail else ""
    return error.kind, f"{error.path.relative_to(root)}{detail}"


def _list_problems(description: Description, train: list[str], val: list[str]) -> list[Problem]:
    problems = []
    for listed, names in ((description.train, train), (description.val, val)):
        if not names:
            problems.append(("empty list", listed))
        problems += [(f"twice in {listed}", name) for name, count in Counter(names).items() if count > 1]
    both = set(train) & set(val)
    return problems + [("in both the training and the validation list", name) for name in sorted(both)]


def _mask_problems(description: Description, train: list[Record]) -> list[Problem]:
    """What is wrong with the masks as a whole, where each alone is right."""
    masks = [record.pixels for record in train if record.mask]
    if not masks:
        return [("no training image has a mask", f"looked in {description.masks}")]
    present = [c for c, name in enumerate(description.classes) if any(pixels[c] for pixels in masks)]
    if len(present) < 2:
        found = description.classes[present[0]] if present else "none"
        return [
            (
                "fewer than two classes in all training masks",
                f"{found}; masks of 0 and 255 need 0 and 1 instead",
            )
        ]
    return []


def _report(source: _Source, problems: list[Problem]) -> str:
    groups: dict[str, list[str]] = {}
    for kind, where in problems:
        groups.setdefault(kind, []).append(where)
    lines = [
        f"  {kind}: {len(places)} ({'; '.join(places[:EXAMPLES])}{'; ...' if len(places) > EXAMPLES else ''})"
        for kind, places in groups.items()
    ]
    return "\n".join(
        [
            f"Data set {source.description.name!r} in {source.root} cannot be used as it is:",
            *lines,
            "Mend these files or the lists, then run the same command again.",
        ]
    )


def _class_counts(
    description: Description,
    records: Mapping[str, Record],
    classes_of: Mapping[str, Collection[int]],
    labeled: Collection[str],
) -> dict[str, dict[str, int]]:
    """Of each class: pixels and images among the training images with a mask, and labelled images."""
    return {
        class_name: {
            "pixels": sum(records[name].pixels[c] for name in classes_of),
            "images": sum(c in present for present in classes_of.values()),
            "labeled_images": sum(c in classes_of[name] for name in labeled),
        }
        for c, class_name in enumerate(description.classes)
    }


def _write_json(path: Path, value: Any) -> None:
    """Write `value` unless the file holds it already, so that its time of change means a change."""
    if not path.is_file() or read_json(path) != value:
        write_json(path, value)
