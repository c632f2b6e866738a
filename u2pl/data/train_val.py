"""Training and validation images side by side: what their masks show, and what in it makes numbers mislead."""

import struct
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from u2pl.data.description import Description
from u2pl.data.problems import some
from u2pl.data.splits import Lists

MUCH_VOID = 0.1
"""Share of void pixels from which it is worth a word that the other side has far less."""
FAR_LESS = 1 / 3


@dataclass(frozen=True)
class PixelShares:
    """Of all pixels in the masks of one side, which are of what, 0 to 1."""

    classes: Mapping[str, float]
    void: float


def area(mask: Path) -> int:
    """Pixels of a PNG, from its head alone."""
    with mask.open("rb") as file:
        width, height = struct.unpack(">II", file.read(24)[16:])
    return int(width * height)


def shares(description: Description, counts: Sequence[Sequence[int]], pixels: int) -> PixelShares:
    """What the masks of one side show.

    Args:
        description: names the classes.
        counts: of each mask the pixels of each class.
        pixels: of all these masks together, void ones too.
    """
    sums = [sum(count) for count in zip(*counts, strict=True)] or [0] * len(description.classes)
    whole = max(1, pixels)
    found = {name: count / whole for name, count in zip(description.classes, sums, strict=True)}
    return PixelShares(found, 1 - sum(sums) / whole if pixels else 0.0)


def mask_warnings(
    description: Description,
    train: PixelShares,
    val: PixelShares,
    labeled_images: Mapping[str, int],
    labeled: int,
) -> list[str]:
    """What is odd in the masks of a split, a sentence each.

    Args:
        description: of the data set.
        train: what the masks of training images show, labelled ones or not.
        val: what those of validation images show.
        labeled_images: of each class, the labelled images that show it.
        labeled: how many labelled images there are.
    """
    here = {name for name, share in train.classes.items() if share}
    there = {name for name, share in val.classes.items() if share}
    kinds = [
        (
            here - there,
            "in training masks, but in no validation mask",
            "Their IoU cannot be measured, and the mIoU is over the other classes, unless they are predicted.",
        ),
        (
            there - here,
            "in validation masks, but in no training mask",
            "They cannot be learned, and each is 0 in the mIoU.",
        ),
        ({*description.classes} - here - there, "in no mask at all", "No number says anything about them."),
        (
            {name for name in here if not labeled_images[name]},
            "without a labelled image in this split",
            "They cannot be learned from its labels.",
        ),
    ]
    found = [
        f"Classes {what}: {', '.join(name for name in description.classes if name in names)}. {so}"
        for names, what, so in kinds
        if names
    ]
    less, more = sorted([("training", train.void), ("validation", val.void)], key=lambda side: side[1])
    if more[1] >= MUCH_VOID and less[1] <= more[1] * FAR_LESS:
        found.append(
            f"{more[1]:.0%} of the pixels in {more[0]} masks are void, and {less[1]:.0%} of those in {less[0]} masks. "
            f"See whether the value {description.ignore_index} is meant for a class in one of them."
        )
    if labeled < len(description.classes):
        found.append(
            f"The split has {labeled} labelled images for {len(description.classes)} classes. "
            "Take a larger share to learn them all."
        )
    return found


def same_pictures(
    lists: Lists,
    pictures: Mapping[str, str],
    masks: Mapping[str, str | None],
    *,
    overlap: bool = False,
) -> list[str]:
    """Which images of a split are the same picture under two names, where that matters, in words.

    Args:
        lists: of the split.
        pictures: name -> what tells the decoded pixels of the image.
        masks: the same of its mask.
        overlap: labelled images may be unlabelled ones too.
    """
    trained = [*lists.labeled, *lists.unlabeled]
    labeled = _first(lists.labeled, pictures)
    contradicting = [
        (name, other)
        for name, other in _twins(lists.labeled, labeled, pictures)
        if masks[name] != masks[other]
    ]
    kinds = [
        (
            "validation images that are trained on under another name",
            _twins(lists.val, _first(trained, pictures), pictures),
        ),
        (
            "unlabelled images that are labelled under another name",
            [] if overlap else _twins(lists.unlabeled, labeled, pictures),
        ),
        ("labelled images that have another mask under another name", contradicting),
    ]
    return [f"{what}: {some([f'{a} = {b}' for a, b in pairs])}" for what, pairs in kinds if pairs]


def _first(names: Iterable[str], pictures: Mapping[str, str]) -> dict[str, str]:
    """Picture -> the first name that has it."""
    found: dict[str, str] = {}
    for name in names:
        if name in pictures:
            found.setdefault(pictures[name], name)
    return found


def _twins(
    names: Collection[str], named: Mapping[str, str], pictures: Mapping[str, str]
) -> list[tuple[str, str]]:
    """Names whose picture has another name in `named`, each with that one."""
    others = ((name, named.get(pictures[name], name)) for name in names if name in pictures)
    return [(name, other) for name, other in others if other != name]
