"""Which images can be labelled next, and what is known of them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from u2pl.data.prepared import open_split
from u2pl.labeling.candidates import open_names, pool
from u2pl.project import Project


def look(name: str, value: float) -> Any:
    """What of a look is made use of here."""
    expected, feature = np.array([value, 1 - value]), np.full(3, value, np.float32)
    return SimpleNamespace(name=name, entropy=value, expected=expected, feature=feature)


def test_images_without_a_mask_are_asked_for_and_where_all_have_one_the_unlabelled_ones(
    half_labeled: Project, tiny_template: Path
) -> None:
    split = open_split(half_labeled, "tiny", "full")
    assert open_names(split) == (split.unlabeled, False)
    whole = open_split(Project(tiny_template), "tiny", "1/4")
    assert open_names(whole) == (whole.unlabeled, True)
    # With --overlap a labelled image may be an unlabelled one too.
    split.unlabeled.append(split.labeled[0])
    assert split.labeled[0] not in open_names(split)[0]


def test_looks_become_arrays_also_where_there_are_none() -> None:
    some = pool([look("a", 0.25), look("b", 0.5)], [look("c", 1.0)])
    assert some.names == ["a", "b"] and some.entropy.tolist() == [0.25, 0.5]
    assert some.expected.tolist() == [[0.25, 0.75], [0.5, 0.5]]
    assert some.features.shape == (2, 3) and some.labeled.tolist() == [[1.0] * 3]
    none = pool([], [])
    assert none.features.shape == none.labeled.shape == (0, 0)
    assert pool([look("a", 0.25)], []).labeled.shape == (0, 3)
