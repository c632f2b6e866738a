"""U²PL on AEL: which pixels have pseudo-labels and which take part in the contrastive loss, from entropies alone."""

import copy

import numpy as np
import pytest
import torch
from methods.slow import IGNORE, full, pixel_losses
from methods.tiny_method import (
    EPOCH_STEPS,
    EPOCHS,
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
from methods.world import POINTS, World, contrast, contrasting, random_labels
from torch import Tensor

from u2pl.losses.memory_bank import MemoryBank
from u2pl.methods.ael import AEL, AELTargets
from u2pl.methods.u2pl_ael import U2PLAEL
from u2pl.settings import RunSpec
from u2pl.training.step import targets_of

STEP = 2 * EPOCH_STEPS
"""In the third of four epochs, where alpha_t is half of alpha_0."""
ALPHA0, ALPHA = 0.2, 0.1

FILTERS = pytest.mark.parametrize("entropy_filter", ["highest", "lowest"])


def u2pl_ael(**overrides: object) -> U2PLAEL:
    method = build("u2pl-ael", **overrides)
    assert isinstance(method, U2PLAEL)
    return method


def targets_in(method: U2PLAEL, images: int = 2) -> AELTargets:
    """Of a step over images with some padding."""
    batch = make_batch(images=images)
    assert batch.unlabeled is not None
    batch.unlabeled.valid[0, :9] = False
    batch.extra["partner"].valid[1, :, 20:] = False
    targets = targets_of(method, batch, at(STEP))
    assert isinstance(targets, AELTargets)
    return targets


def percentile(targets: AELTargets, share: float, groups: int = 1) -> Tensor:
    """The entropy below which a share of each group's valid pixels lies, (B, 1, 1)."""
    maps = zip(targets.unlabeled.entropy.chunk(groups), targets.unlabeled.valid.chunk(groups), strict=True)
    found = [np.percentile(entropy[valid].double().numpy(), 100 * share) for entropy, valid in maps]
    return torch.tensor(found).repeat_interleave(len(targets.pseudo_label) // groups)[:, None, None]


def assert_but_for_rounding(targets: AELTargets, gamma: Tensor, ours: Tensor, expected: Tensor) -> None:
    """Where an entropy is not all but a threshold's."""
    clear = (targets.unlabeled.entropy - gamma).abs() > 1e-6
    assert clear.float().mean() > 0.99
    assert torch.equal(ours[clear], expected[clear])


# ---- pseudo-labels -------------------------------------------------------------------------------------------------


@FILTERS
@pytest.mark.parametrize("dpa", [True, False])
@pytest.mark.parametrize("replicas", [1, 2])
def test_the_pixels_of_highest_or_of_lowest_entropy_have_no_pseudo_label(
    entropy_filter: str, dpa: bool, replicas: int
):
    """Eq. 6 drops those of gamma_t and more; the released code the alpha_t of lowest entropy instead."""
    method = u2pl_ael(entropy_filter=entropy_filter, dpa=dpa, batch=4, replicas=replicas)
    targets = targets_in(method, images=4)
    alpha, entropy = ALPHA if dpa else ALPHA0, targets.unlabeled.entropy
    share = 1 - alpha if entropy_filter == "highest" else alpha
    gamma = percentile(targets, share, replicas)
    kept = targets.unlabeled.valid & (entropy < gamma if entropy_filter == "highest" else entropy >= gamma)
    assert_but_for_rounding(targets, gamma, targets.pseudo_label, targets.unlabeled.label.where(kept, IGNORE))
    assert kept.sum() / targets.unlabeled.valid.sum() == pytest.approx(1 - alpha, abs=0.005)
    assert (targets.pseudo_label[~targets.unlabeled.valid] == IGNORE).all()


@FILTERS
def test_a_pseudo_label_must_pass_aels_threshold_too(entropy_filter: str):
    plain, sure = (targets_in(u2pl_ael(entropy_filter=entropy_filter, threshold=t)) for t in (0.0, 0.6))
    assert torch.equal(plain.unlabeled.entropy, sure.unlabeled.entropy)
    labels = sure.pseudo_label
    unsure = labels != plain.pseudo_label
    assert (labels[unsure] == IGNORE).all()
    assert unsure.any()
    # Of four classes the likeliest has less than 0.6 wherever the entropy exceeds that of (0.6, 0.4/3 x 3).
    limit = -(0.6 * np.log(0.6) + 0.4 * np.log(0.4 / 3))
    assert (labels[sure.unlabeled.entropy > limit] == IGNORE).all()


def test_the_student_learns_the_pseudo_labels_that_are_left():
    """Those without keep their share of the weights, as in AEL; here all pixels weigh the same."""
    method = u2pl_ael(equalization=False, reweighting=False)
    seen, twin = watch(method.student), copy.deepcopy(method)
    loss = step_of(method, make_batch(), at(STEP)).losses["unsupervised"]
    target = targets_of(twin, make_batch(), at(STEP)).pseudo_label
    expected = pixel_losses(full(seen[0])[2:], target).mean()
    assert (target == IGNORE).float().mean() == pytest.approx(ALPHA, abs=0.005)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_with_nothing_filtered_and_nothing_contrasted_it_trains_exactly_as_ael_does():
    runs = []
    for name, off in (("ael", {}), ("u2pl-ael", {"lambda_c": 0, "alpha0": 0, "entropy_filter": "lowest"})):
        method = build(name, confidence_start="zero", dropout=0.3, **off)
        assert isinstance(method, AEL)
        sgd = optimizer(method, lr=0.05)
        losses = [train_step(method, sgd, index, make_batch(index)) for index in range(4)]
        runs.append((losses, method.student.classifier.state_dict(), method.confidence_C))
    (losses, student, bank), (same_losses, same_student, same_bank) = runs
    assert losses == same_losses
    assert all(torch.equal(value, same_student[key]) for key, value in student.items())
    assert torch.equal(bank, same_bank)


# ---- the contrastive loss ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"flavor": "released", "replicas": 1, "lambda_c": 0.1}], ids=str)
def test_of_one_partition_the_contrastive_loss_is_that_of_u2pl(
    settings: dict, monkeypatch: pytest.MonkeyPatch
):
    labels = [random_labels(0, 1, 2, 3, images=2, seed=seed) for seed in (1, 2)]
    many = {"M": 200, "N": 4, "queue": 500, "queue_background": 500, **settings}
    ours, theirs = u2pl_ael(**many), contrasting(**many)
    banks: list[MemoryBank | None] = [ours.bank, theirs.bank]
    losses, points = zip(
        *((o.loss, o.moved) for o in (contrast(m, World(*labels), monkeypatch) for m in (ours, theirs))),
        strict=True,
    )
    assert losses[0] == losses[1] > 0
    assert points[0] == points[1] and len(points[0]) > POINTS
    for one, other in zip(*(bank.state_dict().values() for bank in banks if bank is not None), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("first", [0, 2])
def test_there_is_a_contrastive_loss_from_the_given_epoch_on(first: int):
    method = u2pl_ael(contrast_from=first)
    for epoch in range(EPOCHS):
        losses = step_of(method, make_batch(), at(epoch * EPOCH_STEPS)).losses
        assert ("contrastive" in losses) == (epoch >= first)
        assert {"supervised", "unsupervised"} <= set(losses)


def test_the_contrast_waits_for_the_end_of_a_warm_start():
    method = u2pl_ael(warm_start_epochs=1, contrast_from=0)
    assert set(step_of(method, make_batch(), at(0)).losses) == {"supervised"}
    assert "contrastive" in step_of(method, make_batch(), at(warm_steps(method))).losses


@FILTERS
@pytest.mark.parametrize("contrast_dpa", [True, False])
@pytest.mark.parametrize("anchors", ["reliable", "lowest"])
def test_anchors_and_negatives_follow_alpha_t_or_keep_to_alpha_0(
    entropy_filter: str, contrast_dpa: bool, anchors: str
):
    """Pixels that the lowest filter drops are neither; padding is neither anyway."""
    for negatives in ("unreliable", "reliable", "all"):
        method = u2pl_ael(
            entropy_filter=entropy_filter, contrast_dpa=contrast_dpa, anchors=anchors, negatives=negatives
        )
        targets = targets_in(method)
        entropy, valid, label = targets.unlabeled.entropy, targets.unlabeled.valid, targets.unlabeled.label
        share = ALPHA if contrast_dpa else ALPHA0
        assert targets.alpha_t == pytest.approx(share)
        low, high = percentile(targets, share), percentile(targets, 1 - share)
        assert targets.gamma_t.flatten().tolist() == pytest.approx(high.flatten().tolist(), abs=1e-6)

        taking_part = valid
        if entropy_filter == "lowest":
            taking_part = targets.pseudo_label != IGNORE
            assert (valid & ~taking_part).sum() > 100
        chosen = {"unreliable": entropy > high, "reliable": entropy < low, "all": valid}[negatives]
        anchor = {"reliable": entropy < high, "lowest": entropy <= low}[anchors]
        for ours, expected in (
            (method.contrast.negative_pixels(targets), chosen & taking_part),
            (method.contrast.anchor_labels(targets), label.where(anchor & taking_part, IGNORE)),
        ):
            clear = torch.minimum((entropy - low).abs(), (entropy - high).abs()) > 1e-6
            assert torch.equal(ours[clear], expected[clear])
            assert clear.float().mean() > 0.99


# ---- settings ------------------------------------------------------------------------------------------------------


def hyper(dataset: str, name: str, flavor: str) -> dict:
    return dict(PARAMS.resolve(RunSpec(dataset, "1/4", name, 0, {"recipe.flavor": flavor})).hyper)


def test_the_released_flavour_has_the_values_of_its_own_code_where_they_differ_from_those_of_u2pl_and_ael():
    ours = hyper("cityscapes", "u2pl-ael", "released")
    assert ours["lambda_c"] == 0.1 / 8
    assert (ours["entropy_filter"], ours["contrast_dpa"], ours["contrast_from"]) == ("lowest", False, 20)
    assert (ours["warm_teacher"], ours["first_epoch"], ours["warm_start_epochs"]) == ("average", "average", 0)
    others = {**hyper("cityscapes", "u2pl", "released"), **hyper("cityscapes", "ael", "released")}
    differing = {
        key: (ours[key], others[key]) for key in ours.keys() & others.keys() if ours[key] != others[key]
    }
    assert differing == {"lambda_c": (0.0125, 0.25), "label_mode": ("eval", "train")}
    assert hyper("cityscapes", "u2pl", "released")["first_epoch"] == "share"


@pytest.mark.parametrize("dataset", ["voc", "cityscapes"])
def test_what_it_shares_with_ael_and_u2pl_has_the_same_values_in_the_flavour_of_the_paper(dataset: str):
    ours = hyper(dataset, "u2pl-ael", "paper")
    others = {**hyper(dataset, "u2pl", "paper"), **hyper(dataset, "ael", "paper")}
    assert {key for key in ours.keys() & others.keys() if ours[key] != others[key]} == set()
    assert ours["contrast_from"] == {"voc": 1, "cityscapes": 20}[dataset]
    assert (ours["entropy_filter"], ours["contrast_dpa"]) == ("highest", True)
