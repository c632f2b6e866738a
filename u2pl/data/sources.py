"""Where the lists of a split come from: a published family, files of the user's own, or a draw."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from u2pl.data import published, splits
from u2pl.data.description import Progress
from u2pl.data.layout import BuiltIn, Layout
from u2pl.data.problems import Problem, report
from u2pl.errors import UsageError, UserError, unknown
from u2pl.project import Project
from u2pl.settings import Params

SEEDED, FILES = "seeded", "files"
"""The sources of splits drawn here and of the user's own lists; the others are published families."""


@dataclass(frozen=True)
class Request:
    """A split as asked for."""

    split: str
    """Its name, and that of its folder."""
    source: str
    """A published family, or "seeded", or "files"."""
    seed: int
    files: Sequence[Path] = ()
    overlap: bool = False


def request(
    project: Project,
    dataset: str,
    built_in: BuiltIn | None,
    split: str,
    words: Sequence[str],
    overlap: bool,
    seed: int | None,
) -> Request:
    """The split that the words of a command mean.

    Args:
        project: whose params.yaml has the seed where none is given.
        dataset: name of the data set.
        built_in: the data set, where it comes with u2pl.
        split: its name.
        words: a source, or one or two files; empty: the data set's default.
        overlap: labelled images may stand among the unlabelled ones too.
        seed: of a draw.

    Raises:
        UsageError: a word is unknown, or two contradict each other.
    """
    known = [SEEDED, *published.families()]
    if words and not set(words) & set(known) and (len(words) > 1 or _is_path(words[0])):
        if len(words) > 2:
            raise UsageError(
                "--source takes one file (the labelled images) or two (the unlabelled ones second)."
            )
        if seed is not None:
            raise UsageError("Lists from files are not drawn. Leave out --seed.")
        splits.check_own_name(split)
        return Request(split, FILES, 0, [Path(word) for word in words], overlap)
    if len(words) > 1:
        raise UsageError(f"Lists come from one source or from files, not from {' and '.join(words)}.")
    if overlap:
        raise UsageError("--overlap is for lists of your own: --source FILE.")
    source = words[0] if words else None
    name = splits.parse(split)
    pools, default = (built_in.pools, built_in.source) if built_in else ((), SEEDED)
    if name.pool is not None and name.pool not in pools:
        raise UsageError(
            f"Data set {dataset!r} has no pool of images called {name.pool!r}, which {split!r} "
            f"takes its labels from. Take {', '.join(f'{p}-1/8' for p in pools) or '1/16, 1/8, 1/4 or full'} instead."
        )
    for given in (source, name.source):
        if given is not None and given not in known:
            raise unknown("source of lists", given, known)
    if source and name.source and source != name.source:
        raise UsageError(f"Split {split!r} names the source {name.source!r}, --source another: {source!r}.")
    chosen = source or name.source or default
    if name.share == 1 and not name.pool and not name.source and source in (None, SEEDED):
        chosen = SEEDED  # every label is kept: nothing is chosen, and nobody publishes a list of it
    elif source and not name.source and source != default:
        split = f"{split}-{source}"
    if chosen != SEEDED:
        if seed is not None:
            raise UsageError(
                f"The lists of source {chosen!r} are not drawn. Leave out --seed, or add --source seeded."
            )
        published.find(chosen, dataset, name.published)
    drawn = seed if seed is not None else Params.read(project).values["splits"]["seed"]
    return Request(split, chosen, drawn)


def _is_path(word: str) -> bool:
    return any(sign in word for sign in "./\\") or Path(word).exists()


@dataclass(frozen=True)
class Listed:
    """Lists that are not drawn here, as their files have them."""

    where: str
    labeled: list[str]
    unlabeled: list[str] | None
    """None: all other training images."""
    count: int | None = None
    """Of labelled images, where that is known."""
    overlap: bool = False
    origin: Mapping[str, Any] = field(default_factory=dict)
    """What the manifest says of it."""


def read(project: Project, dataset: str, request: Request, progress: Progress) -> Listed | None:
    """Read the user's lists, or fetch published ones; None where the split is drawn.

    Raises:
        UserError: they cannot be had.
    """
    if request.source == SEEDED:
        return None
    if request.source == FILES:
        labeled, *others = map(_lines, request.files)
        where = ", ".join(map(str, request.files))
        return Listed(where, labeled, others[0] if others else None, overlap=request.overlap)
    name = splits.parse(request.split).published
    found, entry = published.read(project, request.source, dataset, name, progress)
    sums = {"labeled": entry.labeled, "unlabeled": entry.unlabeled}
    return Listed(
        f"split {request.split!r}",
        found.labeled,
        found.unlabeled,
        count=entry.images,
        overlap=entry.overlap,
        origin={"published": sums},
    )


def matched(listed: Listed, layout: Layout, dataset: str) -> splits.Lists:
    """The images that lists mean.

    Raises:
        UserError: they are not lists of this data set, or contradict themselves; all that is wrong.
    """
    known = [*layout.train, *layout.val]
    labeled, strange = splits.matched(listed.labeled, known, layout.ending)
    if listed.unlabeled is None:
        chosen = set(labeled)
        unlabeled = [name for name in layout.train if name not in chosen]
    else:
        unlabeled, more = splits.matched(listed.unlabeled, known, layout.ending)
        strange += more
    lists = splits.Lists(labeled, unlabeled, layout.val)
    problems: list[Problem] = [("no image of the data set", line) for line in strange]
    problems += splits.problems(lists, set(known), overlap=listed.overlap)
    if listed.count not in (None, len(labeled)) or not labeled:
        problems.append(("wrong number of labelled images", f"{len(labeled)} in {listed.where}"))
    if problems:
        raise UserError(
            report(
                f"The lists of {listed.where} are not lists of {dataset!r} that one can use:",
                problems,
                "Mend the lists, or take the data set they are made for. Where labelled images are meant to stand "
                "among the unlabelled ones too, add --overlap.",
            )
        )
    return lists


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"The list {path} cannot be read ({error}). --source takes {', '.join(published.families())}, {SEEDED}, or "
            "a file with one image name a line."
        ) from None


def origin(request: Request, listed: Listed | None) -> dict[str, Any]:
    """Where the lists come from, as the manifest says it."""
    if listed is None:
        return {"source": f"{SEEDED} {request.seed}", "seed": request.seed}
    return {"source": request.source, **listed.origin, **({"overlap": True} if listed.overlap else {})}


def drawn(layout: Layout, classes_of: Mapping[str, Collection[int]], request: Request) -> splits.Lists:
    """A split whose labels are drawn from a pool, by default all images with a mask."""
    pool = splits.parse(request.split).pool
    chosen = classes_of if pool is None else {n: classes_of[n] for n in layout.pools[pool] if n in classes_of}
    others = [name for name in layout.train if name not in chosen]
    return splits.Lists(*splits.draw(chosen, others, request.split, request.seed), layout.val)
