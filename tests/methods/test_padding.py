"""Padding of unlabelled images: it takes no part, unless the recipe lets it (padding_unlabeled)."""

import numpy as np
import pytest
import torch
from methods.tiny_method import (
    CLASSES,
    EPOCH_STEPS,
    EPOCHS,
    at,
    build,
    changed,
    make_batch,
    step_of,
    targets_in,
    watch,
)
from methods.world import (
    IGNORE,
    POINTS,
    World,
    anchors,
    blocks,
    contrast,
    contrasting,
    labeled_negatives,
    random_labels,
)
from torch import Tensor
from torch.nn import functional

from u2pl.methods.mt import MeanTeacher
from u2pl.models.deeplab import upsample

STEP = at(EPOCH_STEPS)
ALPHA = 0.2 * (1 - 1 / EPOCHS)


def padded() -> Tensor:
    """Where the two images are no padding: one has some at the left, the other at the bottom."""
    valid = torch.ones(2, 32, 32, dtype=torch.bool)
    valid[0, :, :12] = False
    valid[1, 20:] = False
    return valid


def entropies(prob_BCHW: Tensor) -> Tensor:
    return -(prob_BCHW * prob_BCHW.log()).sum(dim=1)


@pytest.mark.parametrize("name", ["mt", "cutmix", "u2pl"])
@pytest.mark.parametrize("use", [False, True])
def test_padding_has_no_pseudo_label_and_does_not_count_in_gamma_t_and_lambda_u_unless_it_is_used(
    name: str, use: bool, monkeypatch: pytest.MonkeyPatch
):
    method = build(name) if name == "mt" else build(name, cutmix_probability=0)
    assert isinstance(method, MeanTeacher)
    valid = torch.ones_like(padded()) if use else padded()
    batch = changed(make_batch(), "unlabeled", valid=valid)
    teachers, students = watch(method.teacher), watch(method.student)
    targets = targets_in(method, batch, STEP)
    result = step_of(method, batch, STEP)

    prob = upsample(teachers[0].output.logits, (32, 32)).double().softmax(1)
    entropy, label = entropies(prob), prob.argmax(1)
    gamma = np.percentile(entropy[valid].numpy(), 100 * (1 - ALPHA))
    assert targets.gamma_t.flatten().tolist() == pytest.approx([gamma] * 2, abs=1e-5)
    expected = torch.where(valid & (entropy < gamma), label, IGNORE)
    clear = (entropy - gamma).abs() > 1e-5
    assert torch.equal(targets.pseudo_label[clear], expected[clear])
    assert (targets.pseudo_label[~padded()] != IGNORE).any() == use
    assert torch.equal(targets.unlabeled.label, label.where(valid, IGNORE))

    labelled = (targets.pseudo_label != IGNORE).sum().item()
    assert result.diagnostics["lambda_u"].item() == pytest.approx(valid.sum().item() / labelled, rel=1e-6)
    assert result.diagnostics["reliable/share"].item() == pytest.approx(
        labelled / valid.sum().item(), rel=1e-6
    )
    assert result.diagnostics["reliable/share"].item() == pytest.approx(1 - ALPHA, abs=0.002)
    logits = upsample(students[1].output.logits, (32, 32))[2:].detach().double()
    loss = (
        functional.cross_entropy(logits, targets.pseudo_label, ignore_index=IGNORE) * valid.sum() / labelled
    )
    assert result.losses["unsupervised"].item() == pytest.approx(loss.item(), rel=1e-5)


@pytest.mark.parametrize("source", ["plain", "mixed"])
def test_cutmix_moves_padding_with_its_pixels(source: str, monkeypatch: pytest.MonkeyPatch):
    method = build("cutmix", cutmix_probability=1, entropy_pass=source)
    batch = changed(make_batch(), "unlabeled", valid=padded())
    targets = targets_in(method, batch, STEP)
    boxes = (targets.unlabeled.image != batch.unlabeled.image).any(dim=1)
    valid = torch.where(boxes, padded().roll(-1, 0), padded())
    assert torch.equal(targets.unlabeled.valid, valid)
    assert not torch.equal(valid, padded())
    gamma = np.percentile(targets.unlabeled.entropy[valid].double().numpy(), 100 * (1 - ALPHA))
    assert targets.gamma_t.flatten().tolist() == pytest.approx([gamma] * 2, abs=1e-5)
    assert (targets.pseudo_label[~valid] == IGNORE).all()
    assert (targets.pseudo_label[valid] != IGNORE).float().mean().item() == pytest.approx(
        1 - ALPHA, abs=0.002
    )


def test_images_of_nothing_but_padding_give_no_loss_and_no_nan():
    for flavor in ("paper", "released"):
        method = build("u2pl", flavor=flavor, replicas=1, warm_start_epochs=0)
        batch = changed(make_batch(), "unlabeled", valid=torch.zeros(2, 32, 32, dtype=torch.bool))
        result = step_of(method, batch, at(0))
        assert result.losses["unsupervised"] == 0
        sum(result.losses.values()).backward()
        assert all(loss.isfinite() for loss in result.losses.values())
        assert all(p.grad is None or p.grad.isfinite().all() for p in method.student.parameters())


def test_a_replica_of_nothing_but_padding_counts_as_0_in_the_mean_and_leaves_the_others_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
):
    method = build("cutmix", cutmix_probability=0, batch=4, replicas=2)
    assert isinstance(method, MeanTeacher)
    batch = make_batch(images=4)
    batch.unlabeled.valid[2:] = False
    students = watch(method.student)
    targets = targets_in(method, batch, STEP)
    loss = step_of(method, batch, STEP).losses["unsupervised"]
    logits = upsample(students[1].output.logits, (32, 32))[4:6].detach().double()
    weight = targets.pseudo_label[:2].numel() / (targets.pseudo_label[:2] != IGNORE).sum()
    expected = weight * functional.cross_entropy(logits, targets.pseudo_label[:2], ignore_index=IGNORE)
    assert (targets.pseudo_label[2:] == IGNORE).all()
    assert loss.item() == pytest.approx((expected.item() + 0) / 2, rel=1e-5)


@pytest.mark.parametrize("negatives", ["unreliable", "reliable", "all"])
@pytest.mark.parametrize("of", ["reliable", "lowest"])
@pytest.mark.parametrize("use", [False, True])
def test_padding_is_neither_anchor_nor_negative_unless_it_is_used(
    use: bool, of: str, negatives: str, monkeypatch: pytest.MonkeyPatch
):
    inside = torch.ones(4, POINTS, POINTS, dtype=torch.bool)
    inside[:, 0] = False
    inside = blocks(inside)
    labels = random_labels(0, 1, 2, 3, images=4, seed=1)
    world = World(labels, random_labels(0, 1, 2, 3, images=4, seed=2), valid=inside | use)
    points = world.points()
    settings = {"anchors": of, "negatives": negatives, "at_threshold": True, "delta_p": 0}
    (drawn,) = contrast(contrasting(**settings), world, monkeypatch)
    assert drawn.used == set(range(CLASSES.count))

    low, high = world.threshold(0, 0.22), world.threshold(0, 1 - 0.22)
    padding = {p.number for p in points if not p.labeled and p.number % POINTS**2 < POINTS}
    real = {p.number for p in points if use or p.number not in padding}
    reliable = {"reliable": lambda h: h < high, "lowest": lambda h: h <= low}[of]
    chosen = {"unreliable": lambda h: h >= high, "reliable": lambda h: h <= low, "all": lambda h: True}[
        negatives
    ]
    for c in drawn.used:
        region = {p.number for p in points if p.label == c and reliable(p.entropy)}
        unlabeled = {p.number for p in points if not p.labeled and chosen(p.entropy) and p.rank(c) >= 1}
        assert drawn.anchors[c] == region & real
        assert drawn.met[c] == labeled_negatives(points, c) | (unlabeled & real)
    assert (padding & set.union(*drawn.met) != set()) == use
    assert (padding & set.union(*drawn.anchors) != set()) == use


def test_ignored_pixels_of_labelled_images_are_neither_anchors_nor_negatives(monkeypatch: pytest.MonkeyPatch):
    """Their padding, where the recipe labels it `ignore`: whether such a pixel is of a class is unknown."""
    world = World(random_labels(0, 1, 2, 3, IGNORE, images=2), random_labels(0, 1, 2, 3, images=2))
    points = world.points()
    (drawn,) = contrast(contrasting(), world, monkeypatch)
    ignored = {p.number for p in points if p.labeled and p.label == IGNORE}
    assert ignored
    assert ignored.isdisjoint(set.union(*drawn.anchors, *drawn.met))
    assert drawn.anchors == [anchors(points, c) for c in range(CLASSES.count)]
