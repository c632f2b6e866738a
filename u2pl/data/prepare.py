"""Prepares one split of a data set: fetches its files if need be, checks them, decides the lists, writes a manifest.

In data/NAME/ lie `dataset.json` (the description), `source.json` (where the images are, and what was
found in each file: the memory that makes a second split quick), `masks/` and `splits/SPLIT/`. Only the last
is the same on every machine. Data that u2pl downloads or unpacks itself is in `files/`.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from u2pl.data import merged, sources, splits, train_val
from u2pl.data.check import JOURNAL, CheckedImage, DataSetFiles, Journal, check, notes
from u2pl.data.data_set import DataSet, find
from u2pl.data.description import Description, Progress
from u2pl.data.inspection import READING
from u2pl.data.layout import Layout, described
from u2pl.data.lists import read_names
from u2pl.data.problems import Problem, report
from u2pl.data.records import Source
from u2pl.data.sources import Request
from u2pl.errors import UsageError, UserError
from u2pl.files import read_json, sha256_json, sweep, write_json
from u2pl.project import Project
from u2pl.typed_files import read as read_record


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
    found: tuple[str, ...]
    """What was found where, in sentences."""
    train: train_val.PixelShares
    """What the masks of training images show, labelled ones or not."""
    val: train_val.PixelShares
    """What those of validation images show."""
    warnings: tuple[str, ...]
    """What makes numbers mislead, in sentences."""


def prepare(
    project: Project,
    dataset: str,
    split: str,
    root: Path | None = None,
    *,
    source: Sequence[str] = (),
    overlap: bool = False,
    seed: int | None = None,
    progress: Progress = lambda what, done, total: None,
) -> Prepared:
    """Make one split of a data set ready for training; done twice, the second time changes nothing.

    Args:
        project: where to write.
        dataset: a built-in name, a YAML file, or the name of a data set prepared before.
        split: a name that `splits.parse` knows, or any other name for lists from files.
        root: folder of the data set's files, where neither an earlier call nor the YAML file says.
        source: of the lists: a published family or "seeded"; or files: the labelled names, and the unlabelled ones,
            else all others are; empty: the data set's default.
        overlap: in lists from files, labelled images may stand among the unlabelled ones too.
        seed: of a draw; None: params.yaml's.
        progress: told how far it is.

    Raises:
        UserError: the files are not what the description says; every problem at once.
        UsageError: the data set or the split is unknown.
    """
    data_set = find(project, dataset, root)
    request = sources.request(
        project, data_set.description.name, data_set.built_in, split, source, overlap, seed
    )
    data = project.data(data_set.description.name)
    if data_set.root == data.resolve() and not (data_set.built_in and data_set.built_in.draw):
        raise UsageError(
            f"u2pl writes to {data}, so the data set cannot lie there itself. Move it and name its --root."
        )
    data.mkdir(parents=True, exist_ok=True)
    with FileLock(data / ".lock"):
        for folder in (data, *data.glob("splits/*")):
            sweep(folder)
        return _prepare(project, data_set, request, progress)


def _prepare(project: Project, data_set: DataSet, request: Request, progress: Progress) -> Prepared:
    description, data = data_set.description, project.data(data_set.description.name)
    known = _known(data, data_set)
    # Before gigabytes are fetched in vain.
    listed = sources.read(project, description.name, request, progress)
    layout = _layout(data_set, data, known, progress)
    files = DataSetFiles(description, layout, data_set.root, data)
    problems = _list_problems(description, layout)
    # Where the data set's own lists mean no images, theirs cannot be told from others.
    lists = sources.matched(listed, layout, description.name) if listed and not layout.problems else None
    work = [description.model_dump(mode="json", exclude={"root"}), str(data_set.root), data_set.version]
    with Journal(data / JOURNAL, work) as journal:
        names = list(dict.fromkeys([*layout.train, *layout.val]))
        labeled = [name for name in lists.labeled if name not in request.masks] if lists else []
        needs_mask = dict.fromkeys(labeled, "a labelled image")
        validated = [*layout.val, *(lists.val if lists else ())]
        needs_mask |= dict.fromkeys(validated, "a validation image")
        records, more = check(files, names, needs_mask, known, journal, progress)
    problems += more
    if not problems:
        problems = [
            problem
            for side, names_of_side in (("training", layout.train), ("validation", layout.val))
            for problem in _mask_problems(description, side, [records[name] for name in names_of_side])
        ]
    if problems:
        raise UserError(
            report(
                f"Data set {description.name!r} in {data_set.root} cannot be used as it is:",
                problems,
                "Mend these files or the lists, then run the same command again.",
            )
        )
    digest = sha256_json(
        [
            [[n, records[n].image_sha256, records[n].mask_sha256] for n in part]
            for part in (layout.train, layout.val)
        ]
    )
    _write_json(data / "dataset.json", description.model_dump(mode="json", exclude={"root"}))
    _write_json(
        data / "source.json",
        {
            "root": _portable(data_set.root, project.root),
            "version": data_set.version,
            "reading": READING,
            "data": digest,
            **_seeds(project, description.name, request),
            "files": {name: asdict(record) for name, record in records.items()},
        },
    )
    journal.forget()
    merged.check(data, request.masks, names)
    found, records = records, merged.over(records, request.masks, data)
    classes_of = {n: set(np.flatnonzero(records[n].pixels).tolist()) for n in names if records[n].mask}
    lists = lists or sources.drawn(layout, classes_of, request)
    # A fold, and a round that goes on with one, validate on other images than the data set's own list; and to that
    # images may have come since the round was made.
    trained_on = {*layout.train, *lists.labeled, *lists.unlabeled} - set(lists.val)
    trained = [name for name in names if name in trained_on]
    folder = project.split(description.name, request.split)
    hashes = splits.write(folder, lists)
    manifest = {
        "dataset": description.name,
        "split": request.split,
        **sources.origin(request, listed),
        "counts": {
            "train": len(trained),
            "labeled": len(lists.labeled),
            "unlabeled": len(lists.unlabeled),
            "val": len(lists.val),
        },
        **_fine(layout, lists),
        "sha256": hashes,
        "data": digest,
        "classes": _class_counts(
            description, records, {n: classes_of[n] for n in trained if n in classes_of}, lists.labeled
        ),
        "ignore_index": description.ignore_index,
        "background": description.background,
    }
    _write_json(folder / "manifest.json", manifest)
    read = sum(found[name] is not known.get(name) for name in names)
    # Not in the manifest: runs are known by its hash, and would all be stale.
    train, val = (_shares(files, part, records, request) for part in (trained, lists.val))
    warnings = _warnings(description, lists, manifest, records, train, val)
    sentences = (*layout.found, *notes(records.values(), description))
    return Prepared(
        description, request.split, folder, manifest, read, sentences, train, val, tuple(warnings)
    )


def _seeds(project: Project, dataset: str, request: Request) -> dict[str, dict[str, int]]:
    """What source.json says of the seeds that the user said splits are to be drawn with."""
    try:
        seeds = dict(read_record(Source, project.data(dataset) / "source.json").get("seeds", {}))
    except (FileNotFoundError, UserError):
        seeds = {}
    if request.said is not None:
        seeds[project.split(dataset, request.split).name] = request.said
    return {"seeds": seeds} if seeds else {}


def _shares(
    files: DataSetFiles, names: Collection[str], records: Mapping[str, CheckedImage], request: Request
) -> train_val.PixelShares:
    masked = [name for name in names if records[name].mask]
    paths = [
        merged.path_of(files.data, name, request.masks[name])
        if name in request.masks
        else files.index_mask(name)
        for name in masked
    ]
    pixels = sum(map(train_val.area, paths))
    return train_val.shares(files.description, [records[name].pixels for name in masked], pixels)


def _warnings(
    description: Description,
    lists: splits.Lists,
    manifest: Mapping[str, Any],
    records: Mapping[str, CheckedImage],
    train: train_val.PixelShares,
    val: train_val.PixelShares,
) -> list[str]:
    labeled_images = {name: found["labeled_images"] for name, found in manifest["classes"].items()}
    same = train_val.same_pictures(
        lists,
        {name: record.image_sha256 for name, record in records.items()},
        {name: record.mask_sha256 for name, record in records.items()},
        overlap=manifest.get("overlap", False),
    )
    return [
        *(
            f"The same picture under two names, {text}. Take one of each pair out of the lists."
            for text in same
        ),
        *train_val.mask_warnings(description, train, val, labeled_images, len(lists.labeled)),
    ]


def _layout(data_set: DataSet, data: Path, known: Mapping[str, CheckedImage], progress: Progress) -> Layout:
    """Where the files are, after they have been drawn, fetched or unpacked."""
    built, own = data_set.built_in, data / "files"
    if built and built.draw and not _is_intact(data_set, data, known):
        built.draw(data_set.root, progress)
    if built and built.fetch and data_set.root == own.resolve():
        own.mkdir(exist_ok=True)
        built.fetch(own, progress)
    if built and built.locate:
        return built.locate(data_set.root, own, progress)
    return described(data_set.description, data_set.root)


def _fine(layout: Layout, lists: splits.Lists) -> dict[str, Any]:
    """How many images have the more precise annotation, where the data set has two kinds."""
    if layout.fine is None:
        return {}
    fine = set(layout.fine)
    return {
        "fine": {
            "train": sum(name in fine for name in layout.train),
            "labeled": sum(name in fine for name in lists.labeled),
        }
    }


def _portable(root: Path, project: Path) -> str:
    """`root` relative to the project where it lies inside it, so that the project can be moved."""
    return root.relative_to(project).as_posix() if root.is_relative_to(project) else str(root)


def _known(data: Path, data_set: DataSet) -> dict[str, CheckedImage]:
    """What an earlier call found, if it looked at the same files in the same way."""
    try:
        before, described = read_record(Source, data / "source.json"), read_json(data / "dataset.json")
        records = {name: CheckedImage(**record) for name, record in before["files"].items()}
    except (FileNotFoundError, UserError, TypeError):  # the last of a record of another version
        return {}
    same = (
        described == data_set.description.model_dump(mode="json", exclude={"root"})
        and (data.parent.parent / before["root"]) == data_set.root
        and before["version"] == data_set.version
        and before.get("reading") == READING
    )
    return records if same else {}


def _is_intact(data_set: DataSet, data: Path, known: Mapping[str, CheckedImage]) -> bool:
    """Whether a drawn data set is as it was when it was last checked."""
    try:
        names = [
            *read_names(data_set.root / data_set.description.train),
            *read_names(data_set.root / data_set.description.val),
        ]
    except UserError:
        return False
    files = DataSetFiles(
        data_set.description, described(data_set.description, data_set.root), data_set.root, data
    )
    return set(names) == set(known) and all(
        files.stats(name, record) == record.stats for name, record in known.items()
    )


def _list_problems(description: Description, layout: Layout) -> list[Problem]:
    problems = list(layout.problems)
    for listed, names in ((description.train, layout.train), (description.val, layout.val)):
        if not names and not layout.problems:
            problems.append(("empty list", listed))
        problems += [(f"twice in {listed}", name) for name in splits.repeated(names)]
    both = set(layout.train) & set(layout.val)
    return problems + [("in both the training and the validation list", name) for name in sorted(both)]


def _mask_problems(description: Description, side: str, records: list[CheckedImage]) -> list[Problem]:
    """What is wrong with the masks of one side as a whole, where each alone is right."""
    masks = [record.pixels for record in records if record.mask]
    if not masks:
        return [(f"no {side} image has a mask", f"looked in {description.masks}")]
    present = [c for c, name in enumerate(description.classes) if any(pixels[c] for pixels in masks)]
    if len(present) < 2:
        found = description.classes[present[0]] if present else "none"
        return [
            (
                f"fewer than two classes in all {side} masks",
                f"{found}; masks of 0 and 255 need 0 and 1 instead",
            )
        ]
    return []


def _class_counts(
    description: Description,
    records: Mapping[str, CheckedImage],
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
