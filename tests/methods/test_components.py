"""The components of Table 6 and the binary loss (App. C): what is left where one is off, and what is refused."""

import logging

import pytest
import torch
from methods.tiny_method import (
    CLASSES,
    EPOCH_STEPS,
    EPOCHS,
    at,
    build,
    make_batch,
    optimizer,
    step_of,
    train_step,
    watch,
)
from methods.world import (
    World,
    anchors,
    contrast,
    contrasting,
    labeled_negatives,
    negatives,
    random_labels,
    unlabeled_negatives,
)

from u2pl.errors import UsageError
from u2pl.losses import contrastive
from u2pl.methods import Classes
from u2pl.methods.mt import MeanTeacher
from u2pl.methods.u2pl import U2PL

every_class = range(CLASSES.count)


def a_world(seed: int = 1) -> World:
    """One labelled and one unlabelled image with all classes."""
    return World(
        random_labels(0, 1, 2, 3, 255, seed=seed), random_labels(0, 1, 2, 3, seed=seed + 1), seed=seed
    )


def test_lambda_c_of_0_trains_exactly_as_cutmix_does_without_a_second_look_of_the_teacher():
    """Beyond the warm start, in which nothing differs anyway."""
    runs = {}
    for name, zero in (("cutmix", {}), ("u2pl", {"lambda_c": 0})):
        method = build(name, warm_start_epochs=0, cutmix_probability=0.5, **zero)
        assert isinstance(method, MeanTeacher)
        sgd, looks = optimizer(method, lr=0.05), watch(method.teacher)
        losses = [train_step(method, sgd, index, make_batch(index)) for index in range(4)]
        shared = {
            key: value
            for key, value in method.student.state_dict().items()
            if not key.startswith("representer")
        }
        runs[name] = (losses, shared)
        assert [(len(look.image), look.training) for look in looks] == [(2, False)] * 4
    assert runs["u2pl"][0] == runs["cutmix"][0]
    assert list(runs["u2pl"][0][0]) == ["supervised", "unsupervised"]
    assert runs["u2pl"][1].keys() == runs["cutmix"][1].keys()
    assert all(torch.equal(value, runs["cutmix"][1][key]) for key, value in runs["u2pl"][1].items())


def test_lambda_c_of_0_keeps_no_bank_and_refuses_and_warns_of_nothing_that_only_the_contrast_needs(
    caplog: pytest.LogCaptureFixture,
):
    with caplog.at_level(logging.WARNING):
        method = build("u2pl", lambda_c=0, r_l=0)
        build("u2pl", lambda_c=0, r_l=4, r_h=4)
        build("u2pl", lambda_c=0, alpha0=0)
    assert not caplog.records
    assert not [name for name in method.state_dict() if name.startswith("bank")]


def test_mt_and_cutmix_without_mixing_are_the_same_method():
    """App. A: the only difference between the two is CutMix."""
    runs = []
    for name, never in (("mt", {}), ("cutmix", {"cutmix_probability": 0})):
        # Without dropout: whether to mix is drawn, so what is drawn after it differs.
        method = build(name, warm_start_epochs=0, dropout=0, **never)
        sgd = optimizer(method, lr=0.05)
        runs.append([train_step(method, sgd, index, make_batch(index)) for index in range(3)])
    assert runs[0] == runs[1]


def test_without_a_memory_bank_negatives_are_those_of_the_step_and_nothing_is_kept(
    monkeypatch: pytest.MonkeyPatch,
):
    """Table 6, without Q_c."""
    worlds = [a_world(seed) for seed in (1, 5)]
    for memory_bank in (True, False):
        method = contrasting(memory_bank=memory_bank)
        for step, world in enumerate(worlds):
            points = world.points()
            outcome = contrast(method, world, monkeypatch)
            (drawn,) = outcome
            assert drawn.used == set(every_class)
            for c in every_class:
                earlier = {-1} if memory_bank and step else set()
                assert drawn.met[c] == negatives(points, c) | earlier
                assert drawn.anchors[c] == anchors(points, c)
            expected = sum(drawn.info_nce(c) for c in every_class) / 4
            assert outcome.loss == pytest.approx(0.1 * expected, rel=1e-5)
        if memory_bank:
            kept = sum(len(negatives(world.points(), c)) for world in worlds for c in every_class)
            assert method.bank is not None and method.bank.pushed_C.sum() == kept
        else:
            assert not [name for name in method.state_dict() if name.startswith("bank")]


def test_without_a_memory_bank_a_class_without_negatives_in_the_step_adds_nothing(
    monkeypatch: pytest.MonkeyPatch,
):
    """Table 6. With the bank, those of an earlier step serve."""
    full, bare = a_world(1), a_world(5)
    # Nobody takes the second world's pixels for class 0, and all its unlabelled ones are far from it.
    bare.teacher.logits[0, 0] = torch.where(bare.labels[0, ::4, ::4] == 0, 30.0, -30.0)
    bare.teacher.logits[1, 0] = 30
    for memory_bank, used in ((True, {0, 1, 2, 3}), (False, {1, 2, 3})):
        method = contrasting(memory_bank=memory_bank, delta_p=0)
        contrast(method, full, monkeypatch)
        (drawn,) = contrast(method, bare, monkeypatch)
        assert negatives(bare.points(), 0) == set()
        assert drawn.used == used


def test_without_probability_rank_thresholds_every_class_but_the_likeliest_is_unlikely(
    monkeypatch: pytest.MonkeyPatch,
):
    """Table 6, without PRT: r_l = 1 and r_h = C, whatever they are set to."""
    world = a_world()
    points = world.points()
    (without,) = contrast(contrasting(prt=False, r_l=2, r_h=3), world, monkeypatch)
    (same,) = contrast(contrasting(prt=True, r_l=1, r_h=4), world, monkeypatch)
    (other,) = contrast(contrasting(prt=True, r_l=3, r_h=4), world, monkeypatch)
    expected = [labeled_negatives(points, c, 1) | unlabeled_negatives(points, c, 1, 4) for c in every_class]
    assert without.met == same.met == expected
    assert other.met == [
        labeled_negatives(points, c, 3) | unlabeled_negatives(points, c, 3, 4) for c in every_class
    ]
    assert other.met != expected


def test_without_rank_thresholds_no_ranks_are_refused():
    build("u2pl", Classes(2, 255, background=False), prt=False, r_l=3, r_h=3)


def test_all_pixels_become_negatives_whatever_their_entropy(monkeypatch: pytest.MonkeyPatch):
    """Table 4's last column, and Table 6 without `Unreliable`."""
    world = a_world()
    points = world.points()
    (drawn,) = contrast(contrasting(negatives="all"), world, monkeypatch)
    assert drawn.met == [
        labeled_negatives(points, c) | {p.number for p in points if not p.labeled and p.rank(c) >= 1}
        for c in every_class
    ]


def test_without_dynamic_partition_the_thresholds_use_alpha_0_in_every_epoch():
    """Table 6, without DPA."""
    for dpa, shares in ((True, [0.8, 0.85, 0.9, 0.95]), (False, [0.8] * 4)):
        method = build("u2pl", dpa=dpa, warm_start_epochs=0)
        for epoch in range(EPOCHS):
            health = step_of(method, make_batch(), at(EPOCH_STEPS * epoch)).diagnostics
            assert health["reliable/share"].item() == pytest.approx(shares[epoch], abs=0.002)


def test_the_binary_loss_is_equation_a1_on_what_was_drawn(monkeypatch: pytest.MonkeyPatch):
    """Tables A3 and A4: the same anchors, centres and negatives, another comparison."""
    world = a_world()
    joint = contrast(contrasting(contrast="L_c"), world, monkeypatch)
    outcome = contrast(contrasting(contrast="L_b"), world, monkeypatch, loss="binary")
    (drawn,), (other,) = outcome, joint
    assert drawn.used == other.used == set(every_class)
    assert torch.equal(drawn.anchor_CMD, other.anchor_CMD)
    assert torch.equal(drawn.negative_CMND, other.negative_CMND)
    assert torch.equal(drawn.centers, other.centers)
    assert outcome.loss == pytest.approx(0.1 * sum(drawn.binary(c) for c in every_class) / 4, rel=1e-5)
    assert joint.loss == pytest.approx(0.1 * sum(other.info_nce(c) for c in every_class) / 4, rel=1e-5)
    assert outcome.moved == joint.moved


@pytest.mark.parametrize("loss", ["L_c", "L_b"])
def test_tau_is_the_temperature_of_either_loss(loss: str, monkeypatch: pytest.MonkeyPatch):
    world = a_world()
    name = {"L_c": "info_nce", "L_b": "binary"}[loss]
    outcome = contrast(contrasting(contrast=loss, tau=0.1), world, monkeypatch, loss=name)
    (drawn,) = outcome
    expected = sum(getattr(drawn, name)(c, tau=0.1) for c in every_class) / 4
    assert outcome.loss == pytest.approx(0.1 * expected, rel=1e-4)


def test_delta_p_is_the_probability_that_an_anchor_must_exceed(monkeypatch: pytest.MonkeyPatch):
    world = a_world()
    for delta_p in (0, 0.3, 0.6):
        (drawn,) = contrast(contrasting(delta_p=delta_p), world, monkeypatch)
        expected = [anchors(world.points(), c, delta_p) for c in every_class]
        assert drawn.anchors == expected
        assert drawn.used == {c for c in every_class if expected[c]}


def test_eta_weights_the_unsupervised_loss_alone():
    losses = []
    for eta in (1.0, 2.5):
        method = build("u2pl", eta=eta)
        torch.manual_seed(0)
        losses.append(step_of(method, make_batch(), at(EPOCH_STEPS)).losses)
    assert losses[1]["unsupervised"].item() == pytest.approx(2.5 * losses[0]["unsupervised"].item(), rel=1e-6)
    assert losses[1]["supervised"] == losses[0]["supervised"]
    assert losses[1]["contrastive"] == losses[0]["contrastive"]


# ---- settings that leave a component without effect ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"r_l": 0}, "r_l = 0 no labelled pixel is a negative"),
        ({"alpha0": 0}, "alpha0 = 0 no unlabelled pixel is a negative"),
        ({"alpha0": 0, "negatives": "reliable"}, "alpha0 = 0 no unlabelled pixel is a negative"),
    ],
)
def test_settings_without_negatives_of_one_kind_are_warned_of_and_they_are_told_right(
    settings: dict, sentence: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    with caplog.at_level(logging.WARNING):
        method = build("u2pl", **settings)
    (record,) = caplog.records
    assert sentence in record.getMessage()
    assert "Use: --set " in record.getMessage()
    assert isinstance(method, U2PL)
    with monkeypatch.context() as patch:
        labeled = spy_result(patch, "labeled_negative_mask")
        unlabeled = spy_result(patch, "unlabeled_negative_mask")
        step_of(method, make_batch(), at(EPOCH_STEPS))
    silent, other = (labeled, unlabeled) if "r_l" in settings else (unlabeled, labeled)
    assert not silent[0].any()
    assert other[0].any()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"flavor": "released", "replicas": 1},
        {"r_l": 0, "prt": False},
        {"r_l": 0, "labeled_negatives": False},
        {"alpha0": 0, "negatives": "all"},
    ],
)
def test_no_warning_where_all_components_act(settings: dict, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        build("u2pl", **settings)
    assert not caplog.records


@pytest.mark.parametrize("name", ["mt", "cutmix", "u2pl"])
def test_statistics_from_passes_in_evaluation_mode_are_refused(name: str):
    with pytest.raises(UsageError, match=r"teacher_mode=eval.*Use: --set teacher_mode=train$"):
        build(name, teacher_statistics="passes", teacher_mode="eval")
    build(name, teacher_statistics="passes", teacher_mode="train")


@pytest.mark.parametrize(("batch", "replicas"), [(3, 2), (4, 3), (2, 2), (6, 4), (4, 4)])
def test_replicas_that_do_not_cut_the_batch_into_pairs_or_more_are_refused(batch: int, replicas: int):
    with pytest.raises(
        UsageError, match=rf"recipe.*{replicas} replicas do not cut a batch of {batch} into equal groups"
    ):
        build("u2pl", batch=batch, replicas=replicas)


@pytest.mark.parametrize(("batch", "replicas"), [(2, 1), (3, 1), (4, 2), (6, 3), (16, 4)])
def test_replicas_of_two_images_or_more_are_accepted(batch: int, replicas: int):
    assert build("u2pl", batch=batch, replicas=replicas).recipe.replicas == replicas


def spy_result(patch: pytest.MonkeyPatch, name: str) -> list[torch.Tensor]:
    """Everything that a function of `contrastive` returns from now on."""
    results: list[torch.Tensor] = []
    original = getattr(contrastive, name)

    def call(*arguments):
        results.append(original(*arguments))
        return results[-1]

    patch.setattr(contrastive, name, call)
    return results
