"""The images of a split that could be labelled next, and what a model makes of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from u2pl.data.description import Progress
from u2pl.data.prepared import Split
from u2pl.exchange.model import Model
from u2pl.labeling.choice import Pool
from u2pl.trust.looked import Look, look


class Candidates(NamedTuple):
    """Images to choose from, and why some are not among them."""

    pool: Pool
    looks: list[Look]
    """Of the pool's images, in its order."""
    unreadable: list[tuple[str, str]]
    """Name and reason."""
    have_masks: bool
    """Whether these are images whose masks are there and count for nothing, as in a benchmark's split."""


def open_names(split: Split) -> tuple[list[str], bool]:
    """Names of the unlabelled images that have no mask; where all have one, all of them, and True."""
    labeled = set(split.labeled)
    unlabeled = [name for name in split.unlabeled if name not in labeled]
    without = [name for name in unlabeled if not split.has_mask(name)]
    return (without, False) if without else (unlabeled, True)


def find(model: Model, split: Split, progress: Progress = lambda what, done, total: None) -> Candidates:
    """Look at all images of a split that could be labelled next, and at the labelled ones.

    Args:
        model: whose uncertainty and features count.
        split: with the labelled and the unlabelled images.
        progress: told how many images were looked at.
    """
    names, have_masks = open_names(split)
    files: Mapping[str, Path] = {name: split.images[name] for name in (*names, *split.labeled)}
    looks, unreadable = look(model, files, progress=progress)
    labeled = set(split.labeled)
    others = [one for one in looks if one.name not in labeled]
    known = [one for one in looks if one.name in labeled]
    return Candidates(pool(others, known), others, unreadable, have_masks)


def pool(looks: list[Look], labeled: list[Look]) -> Pool:
    """Looks at images without labels, and at those with labels, as arrays."""
    size = len((looks or labeled)[0].feature) if looks or labeled else 0
    classes = len((looks or labeled)[0].expected) if looks or labeled else 0
    return Pool(
        [one.name for one in looks],
        np.array([one.entropy for one in looks]),
        np.array([one.expected for one in looks]).reshape(len(looks), classes),
        np.array([one.feature for one in looks], np.float64).reshape(len(looks), size),
        np.array([one.feature for one in labeled], np.float64).reshape(len(labeled), size),
    )
