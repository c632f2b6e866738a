"""Which training images keep their labels: drawing, writing, reading and checking a split."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from pathlib import Path

from u2pl.errors import UsageError, UserError
from u2pl.files import sha256, write_text


@dataclass(frozen=True)
class Lists:
    """The image names of one split; no name stands in two lists."""

    labeled: list[str]
    unlabeled: list[str]
    val: list[str]


def share(split: str) -> Fraction:
    """The share of the images that keeps its labels: 1/8 for "1/8", 1 for "full".

    Raises:
        UsageError: the text is no known kind of split.
    """
    if split == "full":
        return Fraction(1)
    match = re.fullmatch(r"1/([1-9][0-9]{0,5})", split)
    if match and int(match[1]) > 1:
        return Fraction(1, int(match[1]))
    if split.startswith(("classic-", "blender-")):
        raise UsageError(
            f"Split {split!r} is a published list of data set voc. "
            "Take a drawn split here: 1/16, 1/8, 1/4, 1/2 or full."
        )
    raise UsageError(f"No split called {split!r}. Known: 1/16, 1/8, 1/4, 1/2, any other 1/k, and full.")


def draw(
    classes_of: Mapping[str, Collection[int]], without_mask: Collection[str], split: str, seed: int
) -> tuple[list[str], list[str]]:
    """The labelled and the unlabelled names, each sorted; decided by names, classes, split and seed alone.

    ceil(N / k) of the N images with a mask keep it, as many as the published splits have. They are
    the first ones of a seeded order, so that the labelled images of 1/16 are also those of 1/8. At
    the head of the order stand the first image of the rarest class, of the next rarer one if
    that image does not show it, and so on: no class is without a label where there are enough images.

    Args:
        classes_of: of each image with a mask, the classes in it.
        without_mask: images that can only be unlabelled.
        split: "1/8", "full".
        seed: of the order.
    """
    shuffled = sorted(classes_of, key=lambda name: sha256(f"{seed} {name}"))
    images_of = {
        c: [name for name in shuffled if c in classes_of[name]] for c in set().union(*classes_of.values())
    }
    chosen: list[str] = []
    for label in sorted(images_of, key=lambda c: (len(images_of[c]), c)):
        if not any(label in classes_of[name] for name in chosen):
            chosen.append(images_of[label][0])
    order = chosen + [name for name in shuffled if name not in set(chosen)]
    count = ceil(len(order) * share(split))
    return sorted(order[:count]), sorted([*order[count:], *without_mask])


def validate(lists: Lists, known: Collection[str], where: str) -> None:
    """Check that each name is known and stands once, in one list.

    Raises:
        UserError: any does not; `where` names the folder of the lists.
    """
    problems, seen = [], dict[str, str]()
    for part in ("labeled", "unlabeled", "val"):
        for name in getattr(lists, part):
            if name not in known:
                problems.append(f"{part} has {name!r}, which is no image of the data set")
            if name in seen:
                problems.append(f"{name!r} is in {seen[name]} and in {part}")
            seen[name] = part
    if problems:
        more = f" (and {len(problems) - 5} more)" if len(problems) > 5 else ""
        raise UserError(f"{where}: {'; '.join(problems[:5])}{more}. Run u2pl prepare again for this split.")


def text(names: Sequence[str]) -> str:
    """What a list file holds."""
    return "".join(f"{name}\n" for name in names)


def write(folder: Path, lists: Lists) -> dict[str, str]:
    """Write labeled.txt, unlabeled.txt and val.txt where they change; the SHA-256 of each."""
    hashes = {}
    for part in ("labeled", "unlabeled", "val"):
        content = text(getattr(lists, part))
        path = folder / f"{part}.txt"
        if not path.is_file() or path.read_bytes() != content.encode():
            write_text(path, content)
        hashes[part] = sha256(content)
    return hashes


def read(folder: Path) -> Lists:
    """The lists that `write` wrote.

    Raises:
        UserError: one is missing.
    """

    def names(part: str) -> list[str]:
        try:
            return (folder / f"{part}.txt").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError as error:
            raise UserError(f"{error.filename} is missing. Run u2pl prepare again for this split.") from None

    return Lists(names("labeled"), names("unlabeled"), names("val"))
