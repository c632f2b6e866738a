"""Prepares one split of a data set: finds or fetches its files, checks them, decides the lists, writes a manifest.

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

from u2pl.data import sides, sources, splits
from u2pl.data.catalog import built_in
from u2pl.data.check import JOURNAL, Journal, Place, Record, check, notes
from u2pl.data.description import Description, Progress, read_description, remembered
from u2pl.data.inspection import READING
from u2pl.data.layout import BuiltIn, Layout, described
from u2pl.data.lists import read_names
from u2pl.data.problems import Problem, report
from u2pl.data.records import Source
from u2pl.data.sources import Request
from u2pl.errors import UsageError, UserError, unknown
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
    train: sides.Shares
    """What the masks of training images show, labelled ones or not."""
    val: sides.Shares
    """What those of validation images show."""
    warnings: tuple[str, ...]
    """What makes numbers mislead, in sentences."""


@dataclass(frozen=True)
class _Source:
    """A data set before it is prepared: what it is and where its files are."""

    description: Description
    root: Path
    built_in: BuiltIn | None

    @property
    def version(self) -> int | None:
        return self.built_in.version if self.built_in else None


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
    data_set = _find(project, dataset, root)
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


def _prepare(project: Project, source: _Source, request: Request, progress: Progress) -> Prepared:
    description, data = source.description, project.data(source.description.name)
    known = _known(data, source)
    # Before gigabytes are fetched in vain.
    listed = sources.read(project, description.name, request, progress)
    layout = _layout(source, data, known, progress)
    place = Place(description, layout, source.root, data)
    problems = _list_problems(description, layout)
    # Where the data set's own lists mean no images, theirs cannot be told from others.
    lists = sources.matched(listed, layout, description.name) if listed and not layout.problems else None
    work = [description.model_dump(mode="json", exclude={"root"}), str(source.root), source.version]
    with Journal(data / JOURNAL, work) as journal:
        names = list(dict.fromkeys([*layout.train, *layout.val]))
        needs_mask = dict.fromkeys(lists.labeled if lists else [], "a labelled image")
        needs_mask |= dict.fromkeys(layout.val, "a validation image")
        records, more = check(place, names, needs_mask, known, journal, progress)
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
                f"Data set {description.name!r} in {source.root} cannot be used as it is:",
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
            "root": _portable(source.root, project.root),
            "version": source.version,
            "reading": READING,
            "data": digest,
            **_seeds(project, description.name, request),
            "files": {name: asdict(record) for name, record in records.items()},
        },
    )
    journal.forget()
    classes_of = {n: set(np.flatnonzero(records[n].pixels).tolist()) for n in layout.train if records[n].mask}
    lists = lists or sources.drawn(layout, classes_of, request)
    folder = project.split(description.name, request.split)
    hashes = splits.write(folder, lists)
    manifest = {
        "dataset": description.name,
        "split": request.split,
        **sources.origin(request, listed),
        "counts": {
            "train": len(layout.train),
            "labeled": len(lists.labeled),
            "unlabeled": len(lists.unlabeled),
            "val": len(lists.val),
        },
        **_fine(layout, lists),
        "sha256": hashes,
        "data": digest,
        "classes": _class_counts(description, records, classes_of, lists.labeled),
        "ignore_index": description.ignore_index,
        "background": description.background,
    }
    _write_json(folder / "manifest.json", manifest)
    read = sum(records[name] is not known.get(name) for name in names)
    # Not in the manifest: runs are known by its hash, and would all be stale.
    train, val = (_shares(place, part, records) for part in (layout.train, layout.val))
    warnings = _warnings(description, lists, manifest, records, train, val)
    found = (*layout.found, *notes(records.values(), description))
    return Prepared(description, request.split, folder, manifest, read, found, train, val, tuple(warnings))


def _seeds(project: Project, dataset: str, request: Request) -> dict[str, dict[str, int]]:
    """What source.json says of the seeds that the user said splits are to be drawn with."""
    try:
        seeds = dict(read_record(Source, project.data(dataset) / "source.json").get("seeds", {}))
    except (FileNotFoundError, UserError):
        seeds = {}
    if request.said is not None:
        seeds[project.split(dataset, request.split).name] = request.said
    return {"seeds": seeds} if seeds else {}


def _shares(place: Place, names: Collection[str], records: Mapping[str, Record]) -> sides.Shares:
    masked = [name for name in names if records[name].mask]
    pixels = sum(sides.area(place.index_mask(name)) for name in masked)
    return sides.shares(place.description, [records[name].pixels for name in masked], pixels)


def _warnings(
    description: Description,
    lists: splits.Lists,
    manifest: Mapping[str, Any],
    records: Mapping[str, Record],
    train: sides.Shares,
    val: sides.Shares,
) -> list[str]:
    labeled_images = {name: found["labeled_images"] for name, found in manifest["classes"].items()}
    same = sides.same_pictures(
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
        *sides.mask_warnings(description, train, val, labeled_images, len(lists.labeled)),
    ]


def _layout(source: _Source, data: Path, known: Mapping[str, Record], progress: Progress) -> Layout:
    """Where the files are, after they have been drawn, fetched or unpacked."""
    built, own = source.built_in, data / "files"
    if built and built.draw and not _is_intact(source, data, known):
        built.draw(source.root, progress)
    if built and built.fetch and source.root == own.resolve():
        own.mkdir(exist_ok=True)
        built.fetch(own, progress)
    if built and built.locate:
        return built.locate(source.root, own, progress)
    return described(source.description, source.root)


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


def missing(project: Project, dataset: str, root: Path | None) -> str | None:
    """What has to happen before a data set can be prepared, in a sentence; None: nothing."""
    try:
        source = _find(project, dataset, root)
    except UserError as error:
        return str(error)
    data = project.data(source.description.name)
    is_fetched = source.built_in and source.built_in.fetch and source.root == (data / "files").resolve()
    if not is_fetched or (data / "source.json").is_file():
        return None
    return (
        f"{dataset} is not here yet: the first `u2pl prepare` downloads it, or takes a copy of yours: "
        f"u2pl prepare --dataset {dataset} --root FOLDER"
    )


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
        description = remembered(data / "dataset.json")
    else:
        raise unknown("data set", dataset, {*built, *_prepared_names(project)})
    if root is None:
        fetched = data / "files" if dataset in built and built[dataset].fetch else None
        if (data / "source.json").is_file():
            root = project.root / read_record(Source, data / "source.json")["root"]
        if fetched and root in (None, fetched):  # which need not be there: it is fetched again
            return _Source(description, fetched.resolve(), built[dataset])
        if root is None:
            needs = built[dataset].needs if dataset in built else ""
            raise UsageError(
                f"Where does {dataset} lie? Add --root FOLDER, the folder that holds "
                + (
                    needs
                    or f"{description.images}, {description.masks}, {description.train} and {description.val}."
                )
            )
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
        before, described = read_record(Source, data / "source.json"), read_json(data / "dataset.json")
        records = {name: Record(**record) for name, record in before["files"].items()}
    except (FileNotFoundError, UserError, TypeError):  # the last of a record of another version
        return {}
    same = (
        described == source.description.model_dump(mode="json", exclude={"root"})
        and (data.parent.parent / before["root"]) == source.root
        and before["version"] == source.version
        and before.get("reading") == READING
    )
    return records if same else {}


def _is_intact(source: _Source, data: Path, known: Mapping[str, Record]) -> bool:
    """Whether a drawn data set is as it was when it was last checked."""
    try:
        names = [
            *read_names(source.root / source.description.train),
            *read_names(source.root / source.description.val),
        ]
    except UserError:
        return False
    place = Place(source.description, described(source.description, source.root), source.root, data)
    return set(names) == set(known) and all(
        place.stats(name, record) == record.stats for name, record in known.items()
    )


def _list_problems(description: Description, layout: Layout) -> list[Problem]:
    problems = list(layout.problems)
    for listed, names in ((description.train, layout.train), (description.val, layout.val)):
        if not names and not layout.problems:
            problems.append(("empty list", listed))
        problems += [(f"twice in {listed}", name) for name in splits.repeated(names)]
    both = set(layout.train) & set(layout.val)
    return problems + [("in both the training and the validation list", name) for name in sorted(both)]


def _mask_problems(description: Description, side: str, records: list[Record]) -> list[Problem]:
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
