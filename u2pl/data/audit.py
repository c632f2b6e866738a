"""What is to be known of a split before its numbers are compared with anybody's: sizes, overlaps, label quality."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from u2pl.data import published, splits, train_val
from u2pl.data.description import Progress
from u2pl.data.records import Manifest, Source
from u2pl.errors import UserError
from u2pl.files import sha256
from u2pl.project import Project
from u2pl.typed_files import read


@dataclass(frozen=True)
class Audit:
    """One split."""

    dataset: str
    split: str
    source: str
    labeled: int
    unlabeled: int
    val: int
    overlap: int
    """Images that are labelled and unlabelled."""
    leaked: int
    """Validation images that are labelled or unlabelled."""
    repeated: int
    """Names that stand more than once in a list."""
    fine: float | None
    """Share of the labelled images with the more precise annotation; None where the data set has one kind."""
    fine_uniform: float | None
    """The same if the labelled images were a uniform draw of all training images."""
    without_label: list[str] | None
    """Classes that no labelled image shows; None where no mask was looked at."""
    sha256: str
    """Of the list of labelled images."""
    problems: list[str] = field(default_factory=list)


def prepared(project: Project, dataset: str | None = None) -> list[Audit]:
    """An audit of every prepared split, of one data set or of all, from its lists and manifest.

    Raises:
        UserError: there is none.
    """
    manifests = [
        path
        for path in sorted((project.root / "data").glob("*/splits/*/manifest.json"))
        if dataset in (None, path.parents[2].name)
    ]
    if not manifests:
        of = f" of {dataset!r}" if dataset else ""
        raise UserError(
            f"No split{of} is prepared yet. Prepare one with u2pl prepare, or audit published lists: "
            "u2pl splits audit --source u2pl"
        )
    audits = []
    for path in manifests:
        manifest = read(Manifest, path)
        try:
            lists = splits.read(path.parent)
        except UserError as error:
            lists, problems = splits.Lists([], [], []), [str(error)]
        else:
            problems = [
                f"{part}.txt was edited"
                for part in splits.PARTS
                if sha256(splits.text(getattr(lists, part))) != manifest["sha256"][part]
            ]
            problems += _same_pictures(path.parents[2] / "source.json", manifest, lists)
        fine = manifest.get("fine")
        audits.append(
            _audit(
                manifest["dataset"],
                manifest["split"],
                manifest["source"],
                lists,
                fine=fine and (fine["labeled"] / max(1, len(lists.labeled)), _uniform(manifest)),
                without_label=[
                    name for name, found in manifest["classes"].items() if not found["labeled_images"]
                ],
                overlap=manifest.get("overlap", False),
                problems=problems,
            )
        )
    return audits


def _same_pictures(source: Path, manifest: Mapping[str, Any], lists: splits.Lists) -> list[str]:
    """What `train_val.same_pictures` says, where what was found in the files is known and is that of the split."""
    if not source.is_file():
        return []
    known = read(Source, source)
    if known["data"] != manifest["data"]:
        return []
    pictures = {name: record["image_sha256"] for name, record in known["files"].items()}
    masks = {name: record["mask_sha256"] for name, record in known["files"].items()}
    return train_val.same_pictures(lists, pictures, masks, overlap=manifest.get("overlap", False))


def published_lists(
    project: Project, source: str, dataset: str | None, progress: Progress
) -> Iterator[Audit]:
    """An audit of every list of a published family, from the lists alone; those that are not here yet are fetched.

    Raises:
        UserError: the family has no lists for the data set, or one cannot be fetched.
    """
    family = published.families()[source]
    if dataset is not None and dataset not in family.data_sets:
        raise UserError(
            f"Source {source!r} has no lists for {dataset!r}, only for {', '.join(family.data_sets)}."
        )
    for name in [dataset] if dataset else family.data_sets:
        entry = family.data_sets[name]
        val = _stems(published.read_val(project, source, name, progress))
        fine: set[str] | None = None
        if entry.fine:
            fine = set(_stems(published.read(project, source, name, entry.fine, progress)[0].labeled))
        for split in entry.splits:
            lines, known = published.read(project, source, name, split, progress)
            lists = splits.Lists(_stems(lines.labeled), _stems(lines.unlabeled), val)
            pool = {*lists.labeled, *lists.unlabeled}
            shares = fine and (
                sum(image in fine for image in lists.labeled) / len(lists.labeled),
                len(fine & pool) / len(pool),
            )
            count = known.images
            wrong = (
                [f"{len(lists.labeled)} labelled instead of {count}"] if len(lists.labeled) != count else []
            )
            yield _audit(
                name, split, source, lists, fine=shares or None, overlap=known.overlap, problems=wrong
            )


def _stems(lines: Sequence[str]) -> list[str]:
    """The first path of every line, without folders and suffix: enough to tell the images of one data set apart."""
    paths = [line.split()[0] for line in lines]
    return [path.rpartition("/")[2].rpartition(".")[0] or path.rpartition("/")[2] for path in paths]


def _audit(
    dataset: str,
    split: str,
    source: str,
    lists: splits.Lists,
    *,
    fine: tuple[float, float] | None,
    without_label: list[str] | None = None,
    overlap: bool,
    problems: list[str],
) -> Audit:
    labeled, unlabeled, val = (set(getattr(lists, part)) for part in splits.PARTS)
    repeated = sum(len(splits.repeated(getattr(lists, part))) for part in splits.PARTS)
    both, leaked = len(labeled & unlabeled), len((labeled | unlabeled) & val)
    found = [
        *problems,
        *([f"{both} images are labelled and unlabelled"] if both and not overlap else []),
        *([f"{leaked} validation images are trained on"] if leaked else []),
        *([f"{repeated} names stand twice"] if repeated else []),
    ]
    return Audit(
        dataset=dataset,
        split=split,
        source=source,
        labeled=len(lists.labeled),
        unlabeled=len(lists.unlabeled),
        val=len(lists.val),
        overlap=both,
        leaked=leaked,
        repeated=repeated,
        fine=fine and fine[0],
        fine_uniform=fine and fine[1],
        without_label=without_label,
        sha256=sha256(splits.text(lists.labeled)),
        problems=found,
    )


def _uniform(manifest: Mapping[str, Any]) -> float:
    return float(manifest["fine"]["train"] / manifest["counts"]["train"])


def fine_sentence(manifest: Mapping[str, Any]) -> str:
    """How many labelled images of a prepared split have the more precise annotation, beside a uniform draw."""
    fine, labeled = manifest["fine"]["labeled"], manifest["counts"]["labeled"]
    return (
        f"{fine:,} of the {labeled:,} labelled images ({fine / labeled:.0%}) have the fine annotation; of a uniform "
        f"draw it would be {_uniform(manifest):.0%}."
    )
