"""A prepared split: its lists, and its pictures and masks by name."""

from dataclasses import dataclass

from u2pl.data import merged, splits
from u2pl.data.catalog import built_in
from u2pl.data.check import JOURNAL, is_half_done
from u2pl.data.description import Description, remembered
from u2pl.data.image_set import ImageSet
from u2pl.data.inspection import READING
from u2pl.data.records import Manifest, Source
from u2pl.errors import UserError
from u2pl.files import sha256
from u2pl.project import Project
from u2pl.typed_files import read


@dataclass(frozen=True, kw_only=True)
class Split(ImageSet):
    """A data set of which some training images have lost their labels."""

    split: str
    labeled: list[str]
    unlabeled: list[str]
    manifest: Manifest
    """What `u2pl prepare` measured: see docs/data.md."""


def description_of(project: Project, dataset: str) -> Description:
    """The classes and colours of a data set that was prepared, or comes with u2pl.

    Raises:
        UserError: it is neither.
    """
    path, known = project.data(dataset) / "dataset.json", built_in()
    if path.is_file():
        return remembered(path)
    if dataset in known:
        return known[dataset].description
    raise UserError(
        f"The classes and colours of {dataset!r} are not known here: {path} is missing. Prepare the data set with "
        "u2pl prepare, or copy that file from where the run was trained."
    )


def open_split(project: Project, dataset: str, split: str) -> Split:
    """The split that `u2pl prepare` wrote.

    Raises:
        UserError: it is not prepared, or the lists or the data have changed since.
    """
    command = f"u2pl prepare --dataset {dataset} --split {split}"
    data, folder = project.data(dataset), project.split(dataset, split)
    try:
        source = read(Source, data / "source.json")
        description = remembered(data / "dataset.json")
        manifest = read(Manifest, folder / "manifest.json")
    except FileNotFoundError:
        raise UserError(f"Split {split!r} of {dataset!r} is not prepared. Run: {command}") from None
    lists = splits.read(folder)
    if is_half_done(data / JOURNAL):
        raise UserError(
            f"A preparation of {dataset!r} was not finished, and has changed its masks. Run: {command}"
        )
    if dataset not in built_in() and source.get("reading") != READING:
        raise UserError(
            f"{dataset!r} was prepared by a version that read some masks otherwise, without a word. Have it looked at "
            f"again; a run whose masks were right stays as it is. Run: {command}"
        )
    if manifest["split"] != split:
        raise UserError(f"{folder} holds split {manifest['split']!r}, not {split!r}. Run: {command}")
    if manifest["data"] != source["data"]:
        raise UserError(
            f"The files of {dataset!r} have changed since split {split!r} was prepared. Run: {command}"
        )
    if any(sha256(splits.text(getattr(lists, part))) != known for part, known in manifest["sha256"].items()):
        raise UserError(f"The lists in {folder} were edited after they were prepared. Run: {command}")
    of_round = merged.recorded(folder) if "merged" in manifest else None
    corrected = of_round["masks"] if of_round else {}
    if "merged" in manifest and manifest["merged"]["sha256"] != merged.digest(corrected):
        raise UserError(
            f"{folder / merged.RECORD} has changed since split {split!r} was prepared. Run: {command}"
        )
    records = source["files"]
    merged.check(data, corrected, records)
    if splits.problems(lists, records, overlap=manifest.get("overlap", False)):
        raise UserError(f"The lists in {folder} do not fit the data set any more. Run: {command}")
    root = project.root / source["root"]
    return Split(
        dataset=dataset,
        split=split,
        classes=description.classes,
        colors=description.colors,
        ignore_index=description.ignore_index,
        background=description.background,
        labeled=lists.labeled,
        unlabeled=lists.unlabeled,
        val=lists.val,
        manifest=manifest,
        images={name: root / record["image"] for name, record in records.items()},
        masks={name: data / "masks" / f"{name}.png" for name, record in records.items() if record["mask"]}
        | {name: merged.path_of(data, name, mask) for name, mask in corrected.items()},
    )
