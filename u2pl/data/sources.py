"""Where the lists of a split come from: a published family, files of the user's own, or a draw."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from u2pl.data import lists, merged, published, splits
from u2pl.data.description import Progress
from u2pl.data.layout import OTHER_MASK, BuiltIn, Layout
from u2pl.data.problems import Problem, report
from u2pl.data.records import MergedFacts, chosen_seed
from u2pl.errors import UsageError, UserError, unknown
from u2pl.project import Project
from u2pl.settings import Params

SEEDED, FILES, MERGED = "seeded", "files", "merged"
"""The sources of splits drawn here, of the user's own lists, and of a round's; the others are published families."""
LARGEST_SEED = 2**63 - 1


@dataclass(frozen=True)
class Request:
    """A split as asked for."""

    split: str
    """Its name, and that of its folder."""
    source: str
    """A published family, or "seeded", or "files"."""
    seed: int
    said: int | None = None
    """The seed, where the user said it, now or when the split was prepared before."""
    files: Sequence[Path] = ()
    overlap: bool = False
    round: merged.Merged | None = None
    """What a round's split is made of."""

    @property
    def masks(self) -> Mapping[str, merged.MergedMask]:
        """Corrected masks by image."""
        return self.round["masks"] if self.round else {}


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
    if seed is not None:
        check_seed(seed, "--seed")
    of_round = merged.recorded(project.split(dataset, split))
    if of_round:
        if words or overlap or seed is not None:
            raise UsageError(
                f"{split!r} is a split of corrected masks, whose lists are kept with it. Leave out --source, --overlap "
                "and --seed, or take another name for --split."
            )
        return Request(split, MERGED, 0, round=of_round)
    known = [SEEDED, *published.families()]
    if words and not set(words) & set(known) and (len(words) > 1 or _is_path(words[0])):
        if len(words) > 2:
            raise UsageError(
                "--source takes one file (the labelled images) or two (the unlabelled ones second)."
            )
        if seed is not None:
            raise UsageError("Lists from files are not drawn. Leave out --seed.")
        splits.check_own_name(split)
        return Request(split, FILES, 0, files=[Path(word) for word in words], overlap=overlap)
    if len(words) > 1:
        raise UsageError(f"Lists come from one source or from files, not from {' and '.join(words)}.")
    if overlap:
        raise UsageError("--overlap is for lists of your own: --source FILE.")
    source = words[0] if words else None
    if splits.fold(split):
        if source not in (None, SEEDED):
            raise UsageError(
                f"The folds of {split!r} are drawn here, and {source!r} has none. Leave out --source."
            )
        return _drawn(project, dataset, split, seed)
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
        return Request(split, chosen, 0)
    return _drawn(project, dataset, split, seed)


def _drawn(project: Project, dataset: str, split: str, seed: int | None) -> Request:
    # What the user once said holds for this split until they say something else.
    said = seed if seed is not None else chosen_seed(project, dataset, split)
    drawn = said if said is not None else Params.read(project).values["splits"]["seed"]
    check_seed(drawn, "splits.seed in params.yaml")
    return Request(split, SEEDED, drawn, said=said)


def check_seed(seed: Any, where: str) -> None:
    """Refuse what is no seed of a draw.

    Raises:
        UsageError: it is no integer, or one that not every program can hold.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= LARGEST_SEED:
        raise UsageError(
            f"The seed of a drawn split is a whole number from 0 to {LARGEST_SEED}, not {seed!r}. "
            f"Set {where} to another, such as 2."
        )


def _is_path(word: str) -> bool:
    # No name of a source is as long as what no system can look up.
    return any(sign in word for sign in "./\\") or len(word) > 80 or Path(word).exists()


@dataclass(frozen=True)
class Listed:
    """Lists that are not drawn here, as their files have them."""

    where: str
    labeled: list[str]
    unlabeled: list[str] | None
    """None: all other training images."""
    val: list[str] | None = None
    """None: the data set's own."""
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
    if request.round:
        of_round = request.round
        return Listed(f"split {request.split!r}", of_round["labeled"], of_round["unlabeled"], of_round["val"])
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
    image = lists.among(known, layout.names, layout.ending)
    labeled = lists.matched(listed.labeled, image, layout.wrong_mask)
    if listed.unlabeled is None:
        chosen = set(labeled.names)
        unlabeled = lists.Matched([name for name in layout.train if name not in chosen])
    else:
        unlabeled = lists.matched(listed.unlabeled, image, layout.wrong_mask)
    val = layout.val if listed.val is None else listed.val
    found = splits.Lists(labeled.names, unlabeled.names, val)
    problems: list[Problem] = [
        ("no image of the data set", line) for line in (*labeled.strange, *unlabeled.strange)
    ]
    problems += [(OTHER_MASK, where) for where in (*labeled.other_masks, *unlabeled.other_masks)]
    problems += splits.problems(found, set(known), overlap=listed.overlap)
    if listed.count not in (None, len(found.labeled)) or not found.labeled:
        problems.append(("wrong number of labelled images", f"{len(found.labeled)} in {listed.where}"))
    if problems:
        raise UserError(
            report(
                f"The lists of {listed.where} are not lists of {dataset!r} that one can use:",
                problems,
                "Mend the lists, or take the data set they are made for. Where labelled images are meant to stand "
                "among the unlabelled ones too, add --overlap.",
            )
        )
    return found


def _lines(path: Path) -> list[str]:
    words = f"{', '.join(published.families())}, {SEEDED}"
    return lists.read_lines(path, f"--source takes {words}, or a UTF-8 text with one image name a line.")


def origin(request: Request, listed: Listed | None) -> dict[str, Any]:
    """Where the lists come from, as the manifest says it."""
    if listed is None:
        return {"source": f"{SEEDED} {request.seed}", "seed": request.seed}
    return {
        "source": request.source,
        **listed.origin,
        **({"overlap": True} if listed.overlap else {}),
        **({"merged": _merged(request.round)} if request.round else {}),
    }


def _merged(of_round: merged.Merged) -> MergedFacts:
    masks = of_round["masks"]
    return {"onto": of_round["onto"], "images": len(masks), "sha256": merged.digest(masks)}


def drawn(layout: Layout, classes_of: Mapping[str, Collection[int]], request: Request) -> splits.Lists:
    """A split whose labels are drawn from a pool, by default all training images with a mask; or a fold of all masks.

    Args:
        layout: of the data set.
        classes_of: of each image with a mask, the classes in it.
        request: of a drawn split.
    """
    fold = splits.fold(request.split)
    if fold:
        val = splits.folds(classes_of, fold.of, request.seed)[fold.number - 1]
        labeled = sorted(classes_of.keys() - {*val})
        bare = [name for name in layout.train if name not in classes_of]
        if not val or not labeled:
            raise UserError(
                f"{len(classes_of)} images with a mask are too few for {fold.of} folds. Take fewer, such as fold1of2."
            )
        return splits.Lists(labeled, sorted(bare), val)
    pool = splits.parse(request.split).pool
    names = layout.train if pool is None else layout.pools[pool]
    chosen = {name: classes_of[name] for name in names if name in classes_of}
    others = [name for name in layout.train if name not in chosen]
    return splits.Lists(*splits.draw(chosen, others, request.split, request.seed), layout.val)
