"""Which training images keep their labels: naming, drawing, reading and checking a split."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import NamedTuple

from u2pl.data.problems import Problem
from u2pl.errors import UsageError, UserError
from u2pl.files import content, sha256, write_text

PARTS = ("labeled", "unlabeled", "val")

_NAME = re.compile(r"(?:([a-z]+)-)?(full|1/[1-9][0-9]{0,5})(?:-([a-z][a-z0-9]*))?")
_FOLD = re.compile(r"fold([1-9][0-9]?)of([2-9]|[1-9][0-9])")
_OWN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True)
class Lists:
    """The image names of one split; no name stands in two lists, but for a declared overlap."""

    labeled: list[str]
    unlabeled: list[str]
    val: list[str]


class Fold(NamedTuple):
    """`fold2of3`: the second third of all images with a mask is validated on, the other two are the labelled ones."""

    number: int
    """From 1."""
    of: int


class Name(NamedTuple):
    """What a split's name says: `classic-1/8-unimatch` is an eighth of pool classic, by unimatch's lists."""

    pool: str | None
    """The part of the training images that labels are taken from; None: all of them."""
    share: Fraction
    """Of the pool's images, those that keep their labels."""
    source: str | None
    """Where the lists come from; None: what the data set's default is."""

    @property
    def published(self) -> str:
        """The name without its source, as published lists are called."""
        share = "full" if self.share == 1 else f"1/{self.share.denominator}"
        return f"{self.pool}-{share}" if self.pool else share


def parse(split: str) -> Name:
    """The parts of a split's name.

    Raises:
        UsageError: the text is no known kind of split.
    """
    match = _NAME.fullmatch(split)
    if match is None or match[2] == "1/1":
        raise UsageError(
            f"No split called {split!r}. Known: 1/16, 1/8, 1/4, 1/2, any other 1/k (k to 999999), and full; with a "
            "pool of labels in front (voc: classic-1/16, blender-1/16), and -seeded, -u2pl or -unimatch behind to "
            "choose the source; fold1of3 to fold3of3, or of any other number of folds."
        )
    return Name(match[1], Fraction(1) if match[2] == "full" else Fraction(match[2]), match[3])


def fold(split: str) -> Fold | None:
    """The fold that a split's name means; None where it means another split."""
    match = _FOLD.fullmatch(split)
    found = Fold(int(match[1]), int(match[2])) if match else None
    return found if found and found.number <= found.of else None


def is_own_name(split: str) -> bool:
    """Whether a name means neither a fold nor what `parse` knows, so that it is one for lists of the user's own."""
    return not _NAME.fullmatch(split) and fold(split) is None


def check_own_name(split: str) -> None:
    """Check the name of a split whose lists are the user's own.

    Raises:
        UsageError: it cannot be a folder's name, or it means a drawn or a published split.
    """
    # In a folder's name 1/8 is 1_8.
    if not is_own_name(split.replace("_", "/")) or not _OWN_NAME.fullmatch(split):
        raise UsageError(
            f"Lists of your own need a name of their own, not {split!r}, which means a drawn or published split or "
            "cannot be a folder's name. Example: --split mine --source labeled.txt"
        )


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
        split: "1/8", "full"; its pool has been chosen from already.
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
    count = ceil(len(order) * parse(split).share)
    return sorted(order[:count]), sorted([*order[count:], *without_mask])


def folds(classes_of: Mapping[str, Collection[int]], count: int, seed: int) -> list[list[str]]:
    """Images with a mask in so many parts, each sorted, no part larger than need be, every class spread over them.

    In a seeded order, those that show the rarest class first, each image goes to the part that has the fewest images
    of the rarest class that it shows, and of those to the smallest one; full parts take none.

    Args:
        classes_of: of each image with a mask, the classes in it.
        count: of parts.
        seed: of the order.
    """
    shuffled = sorted(classes_of, key=lambda name: sha256(f"{seed} {name}"))
    images = {c: sum(c in found for found in classes_of.values()) for c in set().union(*classes_of.values())}
    # An image that is all void shows none.
    rarest = {
        name: min(found, key=lambda c: (images[c], c), default=-1) for name, found in classes_of.items()
    }
    parts: list[list[str]] = [[] for _ in range(count)]
    full = ceil(len(classes_of) / count)
    of_class = [dict.fromkeys([*images, -1], 0) for _ in range(count)]
    for name in sorted(shuffled, key=lambda name: images.get(rarest[name], len(shuffled))):
        open_ = [k for k in range(count) if len(parts[k]) < full]
        k = min(open_, key=lambda k: (of_class[k][rarest[name]], len(parts[k])))
        parts[k].append(name)
        for shown in classes_of[name] or [-1]:
            of_class[k][shown] += 1
    return [sorted(part) for part in parts]


def problems(lists: Lists, known: Collection[str], *, overlap: bool = False) -> list[Problem]:
    """What is wrong with the lists: a name that is no image, stands twice, or stands in two lists.

    Args:
        lists: of one split.
        known: the images there are.
        overlap: labelled images may stand among the unlabelled ones too.
    """
    found: list[Problem] = []
    seen = {part: set(getattr(lists, part)) for part in PARTS}
    for part in PARTS:
        names = getattr(lists, part)
        found += [(f"no image of the data set, but in {part}", name) for name in names if name not in known]
        found += [(f"twice in {part}", name) for name in repeated(names)]
    pairs = [("labeled", "val"), ("unlabeled", "val"), *([] if overlap else [("labeled", "unlabeled")])]
    for a, b in pairs:
        found += [(f"in {a} and in {b}", name) for name in sorted(seen[a] & seen[b])]
    return found


def repeated(names: Sequence[str]) -> list[str]:
    """The names that stand more than once, each once, in the order of their second place."""
    seen: set[str] = set()
    again: dict[str, None] = {}
    for name in names:
        if name in seen:
            again[name] = None
        seen.add(name)
    return list(again)


def text(names: Sequence[str]) -> str:
    """What a list file holds."""
    return "".join(f"{name}\n" for name in names)


def write(folder: Path, lists: Lists) -> dict[str, str]:
    """Write labeled.txt, unlabeled.txt and val.txt where they change; the SHA-256 of each."""
    hashes = {}
    for part in ("labeled", "unlabeled", "val"):
        wanted = text(getattr(lists, part))
        path = folder / f"{part}.txt"
        if not path.is_file() or path.read_bytes() != wanted.encode():
            write_text(path, wanted)
        hashes[part] = sha256(wanted)
    return hashes


def read(folder: Path) -> Lists:
    """The lists that `write` wrote.

    Raises:
        UserError: one is missing, or is no text.
    """

    def names(part: str) -> list[str]:
        try:
            return content(folder / f"{part}.txt").decode().splitlines()
        except FileNotFoundError as error:
            raise UserError(f"{error.filename} is missing. Run u2pl prepare again for this split.") from None
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"{folder / part}.txt cannot be read ({error}). Run u2pl prepare again for this split."
            ) from None

    return Lists(names("labeled"), names("unlabeled"), names("val"))
