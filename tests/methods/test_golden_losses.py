"""No number moves unseen: the losses of every method's first steps are those that are kept in tests/golden."""

import json

import numpy as np
import pytest
from golden import losses
from golden.losses import Losses, first_losses

from u2pl import methods
from u2pl.project import Project

GOLDEN: dict[str, Losses] = json.loads(losses.FILE.read_text(encoding="utf-8"))

TOLERANCE = 2e-3
"""Relative. What processors round differently puts a pixel on the other side of a threshold now and then, one of some
thousand that a loss is a mean of."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return losses.prepare(tmp_path_factory.mktemp("golden"))


def same(ours: list[float], kept: list[float]) -> bool:
    return bool(np.allclose(ours, kept, rtol=TOLERANCE, atol=1e-5))


def test_every_method_has_its_losses_kept():
    assert set(GOLDEN) == set(methods.names())
    for name, terms in GOLDEN.items():
        assert all(max(values) > 1e-3 for values in terms.values()), name


@pytest.mark.slow
@pytest.mark.parametrize("name", methods.names())
def test_the_losses_of_the_first_steps_are_those_that_are_kept(name: str, project: Project):
    """Meant otherwise? python tests/golden/losses.py"""
    found = first_losses(project, name)
    assert found.keys() == GOLDEN[name].keys()
    moved = [term for term, values in found.items() if not same(values, GOLDEN[name][term])]
    assert not moved, {term: (found[term], GOLDEN[name][term]) for term in moved}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "term"), [("lambda_c=0.101", "contrastive"), ("eta=1.02", "unsupervised")]
)
def test_a_hyper_parameter_that_changes_a_little_is_seen(setting: str, term: str, project: Project):
    name, _, value = setting.partition("=")
    found = first_losses(project, "u2pl", **{name: value})
    assert not same(found[term], GOLDEN["u2pl"][term])
    assert same(found["supervised"][:3], GOLDEN["u2pl"]["supervised"][:3])
