"""A method of another kind on the interface: several strong views."""

import pytest
import torch
from methods.sketches import UniMatch
from methods.tiny_method import CLASSES, EPOCH_STEPS, EPOCHS, PARAMS, at, make_batch
from torch import nn

from u2pl.methods import Method
from u2pl.settings import RunSpec, Settings
from u2pl.training.learner import Learner

TERMS = {
    UniMatch: {"supervised", "views"},
}
SKETCHES = pytest.mark.parametrize("sketch", TERMS, ids=lambda sketch: sketch.__name__)


def learner_of(sketch: type[Method], micro_batch: int = 0, batch_norm: str = "fixed") -> Learner:
    torch.manual_seed(0)
    sets = {"batch": 4, "micro_batch": micro_batch, "batch_norm": batch_norm, "lr": 0.03}
    sets = {f"recipe.{key}": value for key, value in sets.items()}
    recipe = PARAMS.resolve(RunSpec("tiny", "1/4", "suponly", 0, sets), bfloat16=False).recipe
    method = sketch(CLASSES, recipe, Settings()).train()
    return Learner(method, recipe, EPOCHS * EPOCH_STEPS, torch.device("cpu"))


@SKETCHES
def test_every_loss_counts_and_a_gradient_reaches_every_part_of_what_is_trained(sketch: type[Method]):
    learner = learner_of(sketch)
    result = learner.step(make_batch(images=4), at(0))
    assert set(result.losses) == TERMS[sketch]
    assert all(loss > 0 for loss in result.losses.values())
    trained = [*learner.method.students, *(m for m in learner.method.children() if isinstance(m, nn.Conv2d))]
    for part in (part for network in trained for part in ([*network.children()] or [network])):
        parameters = list(part.parameters())
        assert not parameters or any(p.grad is not None and p.grad.any() for p in parameters), type(part)


@SKETCHES
def test_it_learns(sketch: type[Method]):
    learner = learner_of(sketch, batch_norm="batch")
    losses = [learner.step(make_batch(images=4), at(0)).losses["supervised"].item() for _ in range(8)]
    assert losses[-1] < 0.9 * losses[0]


@SKETCHES
def test_the_supervised_loss_is_that_of_the_batch_however_it_is_cut(sketch: type[Method]):
    """Of what draws its own channels to drop, no more can be said."""
    one, other = (
        learner_of(sketch, micro_batch=size).step(make_batch(images=4), at(0)).losses["supervised"]
        for size in (0, 2)
    )
    assert other.item() == pytest.approx(one.item(), rel=1e-5)
