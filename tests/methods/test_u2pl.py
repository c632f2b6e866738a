"""U²PL's contrastive part against the paper's equations, pixel by pixel."""

from collections import deque

import numpy as np
import pytest
import torch
from losses import reference
from methods.tiny_method import (
    CLASSES,
    EPOCHS,
    at,
    build,
    changed,
    make_batch,
    optimizer,
    spy,
    step_of,
    train_step,
    warm_steps,
    watch,
)
from torch import Tensor

from u2pl.errors import UsageError
from u2pl.losses import contrastive, partition
from u2pl.losses.memory_bank import MemoryBank
from u2pl.methods import Classes
from u2pl.methods.u2pl import U2PL, aligned
from u2pl.models.deeplab import rows, upsample
from u2pl.models.dropout import ChannelDropout


def u2pl(**overrides: object) -> U2PL:
    """Without mixing and dropout unless asked for, so that a test can compute what the method computes."""
    method = build("u2pl", **{"cutmix_probability": 0, **overrides})
    assert isinstance(method, U2PL)
    for module in method.student.modules():
        if isinstance(module, ChannelDropout):
            module.p = 0
    return method


def trained(**overrides: object) -> U2PL:
    """After a few supervised steps, with a teacher that is more certain than they would make it.

    To be looked at in the second step behind the warm start: in the first one it may become the student's copy again.
    """
    method = u2pl(**overrides)
    sgd = optimizer(method, lr=0.05)
    for index in range(4):
        train_step(method, sgd, index, make_batch())
    sgd.zero_grad()
    with torch.no_grad():
        method.teacher.classifier[-1].weight.mul_(10)
    return method


class Reconstruction:
    """One step's sets from the teacher's outputs alone, by the reference equations."""

    def __init__(self, method: U2PL, negatives: str = "unreliable"):
        s, batch, ignore = method.settings, make_batch(), CLASSES.ignore_index
        self.step = at(warm_steps(method) + 1)
        with torch.no_grad():
            output = method.teacher(torch.cat([batch.labeled.image, batch.unlabeled.image]))
            large = rows(upsample(output.logits[2:], (32, 32)).softmax(1)).double().tolist()
        self.z = rows(output.representation).tolist()
        prob = rows(output.logits.softmax(1)).double().tolist()

        entropy = [reference.entropy(p) for p in large]
        alpha = reference.alpha_t(s.alpha0, self.step.epoch, EPOCHS)
        gamma = float(np.percentile(entropy, 100 * (1 - alpha)))
        pseudo = [reference.pseudo_label(p, h, gamma, ignore) for p, h in zip(large, entropy, strict=True)]
        label = corners(batch.labeled.mask) + corners(torch.tensor(pseudo))
        high = corners(torch.tensor(entropy, dtype=torch.float64))
        low = float(np.percentile(entropy, 100 * alpha))
        chosen = [{"unreliable": h > gamma, "reliable": h < low, "all": True}[negatives] for h in high]

        half, self.classes = len(high), range(CLASSES.count)
        labeled, chosen = [True] * half + [False] * half, [False] * half + chosen
        self.anchors = [reference.all_anchors(label, prob, labeled, s.delta_p, c) for c in self.classes]
        self.negatives = [
            set(reference.negatives(label, prob, labeled, chosen, s.r_l, s.r_h, c)) for c in self.classes
        ]
        self.at_a_threshold = {
            half + j for j, h in enumerate(high) if min(abs(h - gamma), abs(h - low)) < 1e-6
        }
        """Pixels that single precision may put on the other side."""

    def agree(self, mask: Tensor, expected: list[set[int]]) -> bool:
        """Whether a (C, P) mask holds the expected pixels of every class, but for rounding."""
        return all(
            set(mask[c].nonzero().flatten().tolist()) ^ expected[c] <= self.at_a_threshold
            for c in self.classes
        )


def corners(values: Tensor) -> list:
    """Of two maps of 32 x 32, in one row, the values at 8 x 8 points whose outermost are the corners."""
    at = torch.linspace(0, 31, 8).round().long()
    return values.reshape(2, 32, 32)[:, at][:, :, at].flatten().tolist()


@pytest.mark.parametrize("at_once", [2**14, 7])
@pytest.mark.parametrize("negatives", ["unreliable", "reliable", "all"])
def test_anchors_and_negatives_are_the_sets_of_the_paper(
    negatives: str, at_once: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(contrastive, "_PIXELS_AT_ONCE", at_once)
    method = trained(negatives=negatives)
    expected = Reconstruction(method, negatives)
    pushed = spy(monkeypatch, MemoryBank, "push")
    centred = spy(monkeypatch, contrastive, "centers")
    result = step_of(method, make_batch(), expected.step)
    (_, representation, negative_mask, _), (_, anchor_mask, _) = pushed[0], centred[0]
    assert representation.tolist() == expected.z
    assert expected.agree(negative_mask, expected.negatives)
    assert expected.agree(anchor_mask, expected.anchors)
    found = anchor_mask.sum(dim=1)
    assert result.class_counts["contrast/anchors"].tolist() == [found.tolist(), [1] * CLASSES.count]
    assert result.diagnostics["contrast/anchors"] == found.sum()
    assert result.diagnostics["contrast/anchor_classes"] == (found > 0).sum()
    assert len(expected.at_a_threshold) < 5
    half = len(expected.z) // 2
    assert sum(j >= half for c in expected.classes for j in expected.negatives[c]) > 10
    assert sum(j >= half for c in expected.classes for j in expected.anchors[c]) > 10


def test_the_contrastive_loss_is_equation_4_on_what_was_drawn(monkeypatch: pytest.MonkeyPatch):
    method = trained()
    pushed = spy(monkeypatch, MemoryBank, "push")
    centred = spy(monkeypatch, contrastive, "centers")
    drawn = spy(monkeypatch, contrastive, "info_nce")
    averaged = spy(monkeypatch, contrastive, "mean_over_classes")
    hidden = watch(method.student.representer[-2])
    loss = step_of(method, make_batch(), at(warm_steps(method) + 1)).losses["contrastive"]

    ((_, z_PD, negative_CP, _),) = pushed
    z_teacher, z_student = z_PD.tolist(), rows(method.student.representer[-1](hidden[0].output)).double()
    ((anchor, positive, table, index, tau, *_),) = drawn
    negative = table[index]
    ((_, use, divisor),) = averaged
    assert anchor.shape == (4, method.settings.M, 8)
    assert negative.shape == (4, method.settings.M, method.settings.N, 8)
    assert divisor == 4
    assert use.sum() > 1
    for c, capacity in enumerate(method.bank.capacity_C.tolist()):
        candidates = centred[0][1][c].nonzero().flatten().tolist()
        queue = deque((tuple(z_teacher[j]) for j in negative_CP[c].nonzero().flatten()), maxlen=capacity)
        assert use[c].item() == bool(candidates and queue)
        if use[c]:
            assert positive[c].tolist() == pytest.approx(reference.center(z_teacher, candidates), abs=1e-5)
            assert torch.cdist(anchor[c].double(), z_student[candidates]).amin(dim=1).max() < 1e-5
            assert {tuple(n) for n in negative[c].flatten(0, 1).tolist()} <= set(queue)
    drawn_rows = (anchor.tolist(), positive.tolist(), negative.tolist(), use.tolist())
    expected = reference.contrast(reference.joint, *drawn_rows, tau)
    assert expected > 0
    assert loss.item() == pytest.approx(method.settings.lambda_c * expected, rel=1e-5)


def test_the_contrastive_loss_moves_the_student_and_neither_the_classifier_nor_the_teacher():
    method = trained()
    step_of(method, make_batch(), at(warm_steps(method) + 1)).losses["contrastive"].backward()
    assert method.student.representer[-1].weight.grad.abs().sum() > 0
    assert method.student.backbone.stem[0].weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in method.student.classifier.parameters())
    assert all(p.grad is None for p in method.teacher.parameters())


def test_without_a_single_reliable_pixel_training_goes_on():
    """alpha_0 = 1: in the first epoch after the warm start of 0 epochs, no pixel has a pseudo-label."""
    result = step_of(u2pl(alpha0=1, warm_start_epochs=0), make_batch(), at(0))
    assert result.losses["unsupervised"].item() == 0
    assert result.diagnostics["reliable/share"].item() == 0
    assert all(loss.isfinite() for loss in result.losses.values())


def test_with_alpha_0_of_0_unlabelled_pixels_are_no_negatives(monkeypatch: pytest.MonkeyPatch):
    method = trained(alpha0=0)
    pushed = spy(monkeypatch, MemoryBank, "push")
    result = step_of(method, make_batch(), at(warm_steps(method) + 1))
    negative_CP = pushed[0][2]
    assert negative_CP[:, negative_CP.shape[1] // 2 :].sum() == 0
    assert negative_CP.any()
    assert result.diagnostics["reliable/share"].item() > 0.99


def test_the_share_of_unreliable_pixels_falls_with_dynamic_partition_and_stays_without():
    for dpa, expected in ((True, [0.2, 0.15, 0.1, 0.05]), (False, [0.2] * 4)):
        method = build("mt", warm_start_epochs=0, dpa=dpa)
        alphas = [
            step_of(method, make_batch(), at(5 * epoch)).diagnostics["alpha_t"] for epoch in range(EPOCHS)
        ]
        assert alphas == pytest.approx(expected)


def test_cutmix_mixes_images_labels_and_entropies_with_the_same_boxes(monkeypatch: pytest.MonkeyPatch):
    method = build("cutmix", cutmix_probability=1)
    seen = spy(monkeypatch, type(method.student), "forward")
    batch = make_batch()
    step_of(method, batch, at(warm_steps(method)))
    mixed = seen[-1][1][2:]
    swapped = (mixed == batch.unlabeled.image.roll(-1, 0)).all(dim=1)
    kept = (mixed == batch.unlabeled.image).all(dim=1)
    assert (swapped | kept).all()
    assert swapped.float().mean(dim=(1, 2)).tolist() == pytest.approx([0.5, 0.5], abs=0.05)


@pytest.mark.parametrize("probability", [0, 0.3, 1])
def test_a_batch_is_mixed_as_a_whole_in_the_given_share_of_the_steps(probability: float):
    method = build("cutmix", cutmix_probability=probability)
    pseudo = method.pseudo_labels(make_batch(), at(5))
    changed = [
        (method.augmented(pseudo, at(index)).image != pseudo.image).flatten(1).any(dim=1)
        for index in range(200)
    ]
    mixed = torch.stack(changed)
    assert torch.equal(mixed.all(dim=1), mixed.any(dim=1))
    assert mixed.float().mean().item() == pytest.approx(probability, abs=0.1 if 0 < probability < 1 else 0)


def test_all_that_is_known_of_a_pixel_is_mixed_with_it():
    method = build("cutmix", cutmix_probability=1)
    batch = make_batch()
    batch = changed(batch, "unlabeled", valid=torch.rand(2, 32, 32) < 0.5)
    pseudo = method.pseudo_labels(batch, at(5))
    mixed = method.augmented(pseudo, at(5))
    swapped = (mixed.image == pseudo.image.roll(-1, 0)).all(dim=1)
    assert swapped.float().mean().item() == pytest.approx(0.5, abs=0.05)
    assert len(pseudo) == 5
    for before, after in zip(pseudo[1:], mixed[1:], strict=True):
        assert torch.equal(after, torch.where(swapped, before.roll(-1, 0), before))


def test_the_teacher_copies_the_student_in_the_warm_start_and_then_follows_ever_slower():
    method = build("mt")
    start, decays = warm_steps(method), []
    for index in (0, start - 1, start, start + 1, start + 4, start + 1000):
        with torch.no_grad():
            for ours, theirs in zip(method.teacher.parameters(), method.student.parameters(), strict=True):
                ours.fill_(1.0)
                theirs.fill_(0.0)
        method.after_update(at(index))
        decays.append(next(method.teacher.parameters()).flatten()[0].item())
    assert decays == pytest.approx([0, 0, 0, 1 / 2, 4 / 5, 0.99])


def test_the_teacher_may_be_the_students_average_from_the_first_step_on():
    """And no copy is made of the student, whatever it has become by the end of the warm start."""
    method = build("mt", warm_teacher="average")
    start, decays = warm_steps(method), []
    for index in (0, 1, start - 1, start, start + 1, 1000):
        with torch.no_grad():
            for ours, theirs in zip(method.teacher.parameters(), method.student.parameters(), strict=True):
                ours.fill_(1.0)
                theirs.fill_(0.0)
        if index == start:
            step_of(method, make_batch(), at(index))
        method.after_update(at(index))
        decays.append(next(method.teacher.parameters()).flatten()[0].item())
    assert decays == pytest.approx([0, 1 / 2, 4 / 5, 5 / 6, 6 / 7, 0.99])


def test_the_student_is_judged_in_the_warm_start_and_the_teacher_afterwards():
    method = build("u2pl", warm_start_epochs=2)
    assert [method.evaluated(epoch)[0] for epoch in range(4)] == ["student", "student", "teacher", "teacher"]


def test_the_queue_of_a_background_class_has_a_size_of_its_own():
    sizes = {
        background: build("u2pl", Classes(4, 255, background=background)).bank.capacity_C.tolist()
        for background in (True, False)
    }
    assert sizes == {True: [60, 40, 40, 40], False: [40, 40, 40, 40]}


@pytest.mark.parametrize(("classes", "r_l", "r_h"), [(2, 2, 20), (2, 3, 20), (4, 4, 20), (4, 3, 3)])
def test_ranks_that_leave_no_negative_are_refused_with_a_setting_that_works(classes: int, r_l: int, r_h: int):
    few = Classes(classes, 255, background=False)
    with pytest.raises(UsageError, match=r"--set r_l=1 --set r_h=\d+$") as caught:
        build("u2pl", few, r_l=r_l, r_h=r_h)
    mended = dict(word.split("=") for word in str(caught.value).split() if word[:2] == "r_" and "=" in word)
    method = build("u2pl", few, r_l=int(mended["r_l"]), r_h=int(mended["r_h"]))
    result = step_of(method, make_batch(classes=classes), at(warm_steps(method)))
    assert result.losses["contrastive"].isfinite()


def test_labels_are_taken_at_the_points_on_which_features_lie_when_corners_are_aligned():
    label = torch.arange(9 * 13).reshape(1, 9, 13)
    small = aligned(label, torch.Size((3, 4)))
    assert small[0].tolist() == [[0, 4, 8, 12], [52, 56, 60, 64], [104, 108, 112, 116]]
    assert torch.allclose(upsample(small[None].double(), (9, 13))[0], label.double())


def test_gamma_is_taken_over_the_whole_batch_and_not_image_by_image():
    method = trained()
    pseudo = method.pseudo_labels(make_batch(), at(5))
    gamma = method.threshold(pseudo, 0.8)
    with torch.no_grad():
        logits = method.teacher(make_batch().unlabeled.image, represent=False).logits
    entropy = partition.entropy(upsample(logits, (32, 32)).softmax(1))
    assert gamma.shape == (2, 1, 1)
    assert gamma.flatten().tolist() == pytest.approx(
        [entropy.flatten().double().quantile(0.8).item()] * 2, abs=1e-6
    )
