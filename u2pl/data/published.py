"""Published split lists: fetched from their authors' repositories, and believed only if their SHA-256 is the known one.

published.yaml says which there are. A fetched list is kept in data/lists/FAMILY/, where a copy made by hand may
be put as well.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from filelock import FileLock
from pydantic import Field

from u2pl.data import lists
from u2pl.data.description import Progress
from u2pl.data.fetch import Remote, download
from u2pl.errors import UsageError, unknown
from u2pl.project import Project
from u2pl.settings import Settings

SHA256 = r"^[0-9a-f]{64}$"


class ValList(Settings):
    """A family's list of validation images."""

    path: str
    sha256: str = Field(pattern=SHA256)


class PublishedSplit(Settings):
    """The two lists of one split."""

    folder: str
    images: int = Field(gt=0)
    """How many keep their labels."""
    labeled: str = Field(pattern=SHA256)
    unlabeled: str = Field(pattern=SHA256)
    overlap: bool = False
    """Whether labelled images stand among the unlabelled ones too."""


class PublishedDataSet(Settings):
    """What a family has for one data set."""

    val: ValList
    fine: str | None = None
    """The split whose labelled images are all those with the more precise annotation."""
    splits: dict[str, PublishedSplit]


class Family(Settings):
    """Split lists that belong together."""

    title: str
    address: str
    page: str
    data_sets: dict[str, PublishedDataSet]


@cache
def families() -> Mapping[str, Family]:
    """Every published family by its name as a source."""
    values: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("published.yaml").read_text())
    return {name: Family(**family) for name, family in values.items()}


class Lines(NamedTuple):
    """The lines of a split's lists as published."""

    labeled: list[str]
    unlabeled: list[str]


def find(source: str, dataset: str, split: str) -> PublishedSplit:
    """The entry of a published split; nothing is fetched.

    Args:
        source: name of a family.
        dataset: name of a data set.
        split: as in `splits.Name.published`.

    Raises:
        UsageError: there is no such list; those there are, are named.
    """
    family = families()[source]
    if dataset not in family.data_sets:
        raise UsageError(
            f"Source {source!r} has no lists for {dataset!r}, only for {', '.join(family.data_sets)}. "
            "Draw one: --source seeded"
        )
    known = family.data_sets[dataset].splits
    if split not in known:
        error = unknown(f"{dataset} list of source {source!r}", split, known)
        raise UsageError(f"{error} Or draw one: --source seeded")
    return known[split]


def read(
    project: Project, source: str, dataset: str, split: str, progress: Progress
) -> tuple[Lines, PublishedSplit]:
    """The lists of a published split and what is known of it, from the project's copy or from their repository.

    Raises:
        UsageError: there is no such list.
        UserError: it cannot be fetched, or its content is not what was published.
    """
    entry = find(source, dataset, split)

    def lines(part: str, sha256: str) -> list[str]:
        return _lines(project, source, f"{entry.folder}/{part}.txt", sha256, progress)

    return Lines(lines("labeled", entry.labeled), lines("unlabeled", entry.unlabeled)), entry


def read_val(project: Project, source: str, dataset: str, progress: Progress) -> list[str]:
    """The lines of a family's list of validation images; raises as `read` does."""
    val = families()[source].data_sets[dataset].val
    return _lines(project, source, val.path, val.sha256, progress)


def _lines(project: Project, source: str, path: str, sha256: str, progress: Progress) -> list[str]:
    family = families()[source]
    place = project.root / "data" / "lists" / source / path
    remote = Remote(f"{family.address}/{path}", f"sha256:{sha256}", text=True)
    instead = (
        f"A copy of {family.page} does it too: put its folders into {project.root / 'data' / 'lists' / source}. "
        "Without a network: --source seeded draws a split, --source FILE takes lists of your own."
    )
    place.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(project.root / "data" / "lists" / ".lock"):  # two commands may want the same list
        download(remote, place, progress, instead)
    return lists.read_lines(place)
