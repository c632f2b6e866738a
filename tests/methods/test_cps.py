"""CPS's losses against sums over pixels in float64, computed from what the two students said."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from methods.slow import IGNORE, full, mean_loss, padded
from methods.tiny_method import (
    EPOCHS,
    PARAMS,
    Pass,
    at,
    build,
    make_batch,
    optimizer,
    step_of,
    train_step,
    watch,
)
from torch import Tensor
from torch.nn import functional

from u2pl.batches.loader import Batch
from u2pl.errors import UsageError
from u2pl.methods.cps import CPS
from u2pl.models.deeplab import DeepLabV3Plus
from u2pl.settings import RunSpec

CUTMIX = pytest.mark.parametrize("cutmix", [True, False])


def cps(**overrides: object) -> CPS:
    method = build("cps", **overrides)
    assert isinstance(method, CPS)
    return method


class Seen:
    """A step, and what both students made of it."""

    def __init__(self, method: CPS, batch: Batch):
        images = len(batch.labeled.image)
        passes = [watch(network) for network in method.students]
        self.result = step_of(method, batch, at(0))
        self.passes: Sequence[Sequence[Pass]] = passes
        assert batch.unlabeled is not None
        self.mixed = passes[0][-1].image[images:]
        self.logits = [full(seen[-1]) for seen in passes]
        self.on_labeled, self.on_unlabeled = zip(*(o.chunk(2) for o in self.logits), strict=True)
        second = batch.extra["partner"]
        self.inside = (self.mixed == second.image).all(dim=1)
        self.valid = torch.where(self.inside, second.valid, batch.unlabeled.valid)
        self.truth = torch.where(self.inside, second.mask, batch.unlabeled.mask)
        plain = [full(seen[0]).argmax(1) for seen in passes]
        if len(passes[0]) > 1:
            self.labels = [torch.where(self.inside, p[images:], p[:images]) for p in plain]
        else:
            self.labels = [p[images:] for p in plain]


@CUTMIX
@pytest.mark.parametrize("replicas", [1, 2])
def test_the_supervised_loss_is_the_sum_of_both_students_mean_losses(cutmix: bool, replicas: int):
    batch = padded(images=4)
    seen = Seen(cps(cutmix=cutmix, batch=4, replicas=replicas), batch)
    expected = sum(mean_loss((logits, batch.labeled.mask), groups=replicas) for logits in seen.on_labeled)
    assert seen.result.losses["supervised"].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("replicas", [1, 2])
def test_with_cutmix_the_students_learn_from_each_other_on_mixed_images_alone(replicas: int):
    """The labels are those of the plain images, mixed by the same boxes; padding has none."""
    seen = Seen(cps(lambda_mixed=2.5, batch=4, replicas=replicas), padded(images=4))
    first, second = (label.where(seen.valid, IGNORE) for label in seen.labels)
    one, other = seen.on_unlabeled
    expected = mean_loss((one, second), groups=replicas) + mean_loss((other, first), groups=replicas)
    assert not torch.equal(first, second)
    assert seen.result.losses["cross"].item() == pytest.approx(2.5 * expected, rel=1e-5)


@pytest.mark.parametrize("replicas", [1, 2])
def test_without_cutmix_they_learn_on_all_images_and_one_mean_is_taken_over_both_kinds(replicas: int):
    batch = padded(images=4)
    seen = Seen(cps(cutmix=False, lambda_plain=0.7, batch=4, replicas=replicas), batch)
    assert torch.equal(seen.mixed, batch.unlabeled.image)
    masks = batch.labeled.valid, batch.unlabeled.valid
    total = 0.0
    for own, other in (seen.logits, seen.logits[::-1]):
        labels = (said.argmax(1).where(ok, IGNORE) for said, ok in zip(other.chunk(2), masks, strict=True))
        total += mean_loss(*zip(own.chunk(2), labels, strict=True), groups=replicas)
    assert seen.result.losses["cross"].item() == pytest.approx(0.7 * total, rel=1e-5)


def test_both_students_see_the_same_images_mixed_by_boxes_of_a_tenth_to_a_half_of_the_area():
    batch = make_batch()
    seen = Seen(cps(), batch)
    ours, theirs = seen.passes
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one.image, other.image)
        assert one.training and other.training
    plain, mixed = ours
    assert torch.equal(plain.image, torch.cat([batch.unlabeled.image, batch.extra["partner"].image]))
    assert torch.equal(mixed.image[:2], batch.labeled.image)
    outside = (seen.mixed == batch.unlabeled.image).all(dim=1)
    assert (seen.inside ^ outside).all()
    assert all(0.1 < share < 0.5 for share in seen.inside.float().mean(dim=(1, 2)))


def test_only_with_cutmix_is_there_a_second_sequence_of_unlabelled_images():
    (partner,) = cps().streams().values()
    assert (partner.labeled, partner.chosen, partner.share, partner.scale) == (False, False, 1.0, None)
    assert cps(cutmix=False).streams() == {}


@CUTMIX
def test_images_of_nothing_but_padding_teach_nothing(cutmix: bool):
    batch = make_batch()
    for stream in (batch.labeled, batch.unlabeled, batch.extra["partner"]):
        stream.valid[:] = False
    losses = step_of(cps(cutmix=cutmix), batch, at(0)).losses
    assert losses["cross"] == 0
    assert losses["supervised"] > 0


@CUTMIX
def test_labels_carry_no_gradient(cutmix: bool):
    """A student's gradient is that of its own losses, as if the other's labels were given."""
    method = cps(cutmix=cutmix, lambda_mixed=1.5, lambda_plain=1.5)
    batch = make_batch()
    seen = Seen(method, batch)
    *labelling, taught = seen.passes[0]
    assert all(not p.output.logits.requires_grad for p in labelling)
    taught.output.logits.retain_grad()
    seen.result.losses["cross"].backward()

    own = taught.output.logits.detach().double().requires_grad_()
    label = seen.labels[1] if cutmix else seen.logits[1].argmax(1)
    large = functional.interpolate(own, label.shape[1:], mode="bilinear", align_corners=True)
    functional.cross_entropy(large[2:] if cutmix else large, label).mul(1.5).backward()
    assert torch.allclose(taught.output.logits.grad.double(), own.grad, atol=1e-8, rtol=1e-4)
    if cutmix:
        assert (taught.output.logits.grad[:2] == 0).all()


@CUTMIX
@pytest.mark.parametrize("loss", ["supervised", "cross"])
def test_either_loss_moves_both_students(cutmix: bool, loss: str):
    method = cps(cutmix=cutmix)
    step_of(method, make_batch(), at(0)).losses[loss].backward()
    for network in method.students:
        assert network.classifier[-1].weight.grad.abs().sum() > 0
        assert network.backbone.stem[0].weight.grad.abs().sum() > 0


def ends(network: DeepLabV3Plus) -> list[Tensor]:
    """A network's first and last weights."""
    return [network.backbone.stem[0].weight.detach().clone(), network.classifier[-1].weight.detach().clone()]


def test_the_students_start_and_stay_different_are_both_trained_and_both_saved():
    method = cps()
    sgd = optimizer(method)
    before = [ends(network) for network in method.students]
    for index in range(3):
        train_step(method, sgd, index, make_batch(index))
    after = [ends(network) for network in method.students]
    for one, other in ((before[0], before[1]), (after[0], after[1]), *zip(before, after, strict=True)):
        assert not any(torch.equal(*pair) for pair in zip(one, other, strict=True))
    state = method.state_dict()
    for name in method.student.state_dict():
        assert {f"student.{name}", f"second.{name}"} <= set(state)


def test_the_first_student_is_evaluated_in_every_epoch():
    method = cps()
    assert all(method.evaluated(epoch) == ("student", method.student) for epoch in range(EPOCHS))


def test_weights_that_make_both_students_the_same_are_refused(tmp_path: Path):
    """As those of a whole run do; a backbone's leave the heads to chance."""
    torch.save({"state": cps().student.state_dict()}, tmp_path / "run.pt")
    with pytest.raises(UsageError, match=r"two students that differ.*run\.pt.*--weights imagenet$"):
        cps(weights=str(tmp_path / "run.pt"))
    torch.save(cps().second.backbone.state_dict(), tmp_path / "backbone.pt")
    method = cps(weights=str(tmp_path / "backbone.pt"))
    pairs = zip(method.student.backbone.parameters(), method.second.backbone.parameters(), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)
    assert not torch.equal(method.student.classifier[-1].weight, method.second.classifier[-1].weight)


@CUTMIX
def test_health_says_how_far_the_students_agree_and_how_often_the_first_is_right(cutmix: bool):
    batch = padded()
    seen = Seen(cps(cutmix=cutmix), batch)
    valid, truth = (seen.valid, seen.truth) if cutmix else (batch.unlabeled.valid, batch.unlabeled.mask)
    first, second = (label.numpy() for label in seen.labels)
    judged = (valid & (truth != IGNORE)).numpy()
    agree, right = (first == second)[valid.numpy()], (first == truth.numpy())[judged]
    assert 0 < agree.mean() < 1
    assert seen.result.diagnostics["students/agree"].item() == pytest.approx(agree.mean(), rel=1e-6)
    assert seen.result.diagnostics["students/accuracy"].item() == pytest.approx(right.mean(), rel=1e-6)


def test_the_weights_of_cps_s_code_are_those_of_the_recipes():
    for dataset, mixed, plain in (("voc", 1.0, 1.5), ("cityscapes", 5.0, 6.0)):
        hyper = PARAMS.resolve(RunSpec(dataset, "1/4", "cps")).hyper
        assert (hyper["lambda_mixed"], hyper["lambda_plain"]) == (mixed, plain)
