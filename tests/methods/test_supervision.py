"""The loss on true labels, of hard pixels and of an auxiliary head, against the rule written out in float64."""

import numpy as np
import pytest
import torch
from methods.slow import IGNORE, full, padded, pixel_losses
from methods.tiny_method import (
    PARAMS,
    at,
    build,
    make_batch,
    optimizer,
    step_of,
    train_step,
    warm_steps,
    watch,
)
from torch import Tensor

from u2pl import methods
from u2pl.models.deeplab import AUXILIARY, upsample
from u2pl.settings import RunSpec

HARD = {"loss": "ohem", "ohem_threshold": 0.3, "ohem_kept": 0.2}


def hard_loss(logits: Tensor, label: Tensor, *, least: float, kept: float, groups: int = 1) -> float:
    """The mean over groups of the mean loss of the pixels that count."""
    means = []
    for some, its in zip(logits.chunk(groups), label.chunk(groups), strict=True):
        loss = pixel_losses(some, its)
        known, q = its.numpy() != IGNORE, np.exp(-loss)
        count = max(1, round(kept * q.size))
        theta = np.inf if count > known.sum() else max(least, np.sort(q, axis=None)[count - 1])
        means.append(loss[known & (q <= theta)].mean())
    return float(np.mean(means))


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(("least", "kept"), [(0.3, 0.01), (0.05, 0.3), (0.2, 0.99)])
@pytest.mark.parametrize("name", ["suponly", "mt", "u2pl"])
def test_both_heads_learn_from_the_pixels_that_are_hard_for_each(
    name: str, least: float, kept: float, groups: int
):
    """By the threshold, by the floor, and where fewer pixels than the floor have a label."""
    sets = {"loss": "ohem", "ohem_threshold": least, "ohem_kept": kept, "auxiliary": 0.4}
    method, batch = build(name, batch=4, replicas=groups, **sets), padded(images=4)
    seen = watch(method.student)
    losses = step_of(method, batch, at(0)).losses
    expected = 0.0
    for weight, logits in ((1.0, full(seen[-1])), (0.4, seen[-1].output.further[AUXILIARY].detach())):
        large = upsample(logits, (32, 32))[:4]
        expected += weight * hard_loss(large, batch.labeled.mask, least=least, kept=kept, groups=groups)
    assert losses["supervised"].item() == pytest.approx(expected, rel=1e-5)


def test_two_students_mine_each_for_itself():
    method, batch = build("cps", batch=4, **HARD), make_batch(images=4)
    passes = [watch(network) for network in method.students]
    loss = step_of(method, batch, at(0)).losses["supervised"].item()
    each = [hard_loss(full(p[-1])[:4], batch.labeled.mask, least=0.3, kept=0.2) for p in passes]
    assert each[0] != each[1]
    assert loss == pytest.approx(sum(each), rel=1e-5)


def test_easy_pixels_get_no_gradient():
    method, batch = build("suponly", **HARD), make_batch()
    seen = watch(method.student)
    losses = step_of(method, batch, at(0)).losses
    large = upsample(seen[-1].output.logits, (32, 32))
    output = seen[-1].output._replace(logits=large)
    (gradient,) = torch.autograd.grad(
        method.supervision.loss(output, labels_of(method, batch.labeled.mask)), large
    )
    q = np.exp(-pixel_losses(large.detach(), batch.labeled.mask))
    easy = torch.from_numpy(q > max(0.3, np.sort(q, axis=None)[round(0.2 * q.size) - 1]))
    assert 0.05 < easy.float().mean() < 0.9
    moved = gradient.abs().sum(1) > 0
    known = batch.labeled.mask != IGNORE
    assert not moved[easy].any() and moved[~easy & known].all()
    assert losses["supervised"] > 0


def labels_of(method: methods.Method, mask: Tensor):
    from u2pl.steps.micro_batch import MicroBatch

    return method.labels(mask).of(MicroBatch(0, len(mask), slice(0, len(mask)), True, len(mask)))


@pytest.mark.parametrize("name", methods.names())
def test_every_method_mines_and_has_an_auxiliary_head(name: str):
    """The head learns from the labelled images alone; no teacher and no evaluation computes it."""
    method, batch = build(name, **HARD, auxiliary=0.4, dropout=0.0), make_batch()
    start = warm_steps(method)
    head = method.student.further[AUXILIARY]
    before = head[-1].weight.detach().clone()
    losses = train_step(method, optimizer(method), start, batch)
    assert losses["supervised"].isfinite() and not torch.equal(before, head[-1].weight)
    method.train()
    assert AUXILIARY in method.student(batch.labeled.image, represent=False).further
    if hasattr(method, "teacher"):
        assert AUXILIARY not in method.teacher.train()(batch.labeled.image, represent=False).further
    _, network = method.eval().evaluated(3)
    assert network(batch.labeled.image, represent=False).further == {}


@pytest.mark.parametrize("auxiliary", [0.0, 0.4])
def test_labels_that_are_all_ignored_teach_nothing(auxiliary: float):
    method, batch = build("suponly", **HARD, auxiliary=auxiliary), make_batch()
    batch.labeled.mask[:] = IGNORE
    losses = train_step(method, optimizer(method), 0, batch)
    assert losses["supervised"] == 0
    assert all(value.isfinite().all() for value in method.state_dict().values())


def test_without_a_weight_there_is_no_head_and_the_network_is_what_it_was():
    names = build("suponly").student.state_dict().keys()
    assert not [name for name in names if name.startswith("further.")]
    with_head = build("suponly", auxiliary=0.4).student.state_dict().keys()
    assert {name for name in with_head if not name.startswith("further.")} == set(names)


def test_recipes_have_them_where_the_papers_have():
    for dataset, method, sets, expected in (
        ("voc", "u2pl", {}, ("ce", 0.0)),
        ("cityscapes", "suponly", {}, ("ohem", 0.4)),
        ("cityscapes", "cps", {}, ("ohem", 0.4)),
        ("voc", "ael", {"recipe.flavor": "released"}, ("ohem", 0.4)),
        ("voc", "u2pl-ael", {"recipe.flavor": "released"}, ("ce", 0.0)),
    ):
        recipe = PARAMS.resolve(RunSpec(dataset, "1/4", method, 0, sets)).recipe
        assert (recipe.loss, recipe.auxiliary) == expected


def test_a_run_records_the_loss_only_where_it_is_another_than_before_it_could_be_set():
    old = PARAMS.resolve(RunSpec("voc", "1/4", "u2pl")).recipe.recorded()
    assert not {"loss", "auxiliary", "ohem_kept", "ohem_threshold"} & set(old)
    new = PARAMS.resolve(RunSpec("cityscapes", "1/4", "u2pl")).recipe.recorded()
    assert (new["loss"], new["auxiliary"]) == ("ohem", 0.4)
