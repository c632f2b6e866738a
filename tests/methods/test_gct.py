"""A step of GCT against its eight steps taken one after the other, with three optimisers."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from methods.slow import IGNORE, full, padded
from methods.tiny_method import EPOCH_STEPS, EPOCHS, at, build, make_batch, step_of, targets_in, watch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from u2pl.batches.loader import Batch
from u2pl.losses import flaws
from u2pl.losses.ramp import sigmoid_ramp
from u2pl.methods.gct import GCT
from u2pl.models.deeplab import upsample
from u2pl.models.flaw_detector import FlawDetector, MixedNorm
from u2pl.training.learner import Learner

SIZE = (32, 32)


def gct(**overrides: object) -> GCT:
    """With a detector that finds much wrong, here and there."""
    method = build("gct", **overrides)
    assert isinstance(method, GCT)
    last = method.detector.convolutions[-1]
    with torch.no_grad():
        last.weight.mul_(20)
        last.bias.fill_(0.5)
    return method


def literally(method: GCT, batch: Batch, index: int) -> dict[str, float]:
    """The eight steps as they are told, which change the method's networks; the losses of each.

    Means are over valid pixels, which are all where there is no padding.
    """
    s, students = method.settings, method.students
    optimizers = method.optimizers()
    factor = (1 - index / (EPOCHS * EPOCH_STEPS)) ** method.recipe.poly_power
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] *= factor
    images = torch.cat([batch.labeled.image, batch.unlabeled.image])
    valid = torch.cat([batch.labeled.valid, batch.unlabeled.valid])[:, None]
    label, half = batch.labeled.mask, len(batch.labeled.image)
    with torch.no_grad():  # 1
        said = [student(images, represent=False).logits for student in students]
    prob = [upsample(logits, SIZE).softmax(1) for logits in said]
    found = [method.detector(images, logits=logits).logits for logits in said]  # 2
    h = [flaws.handled(flaw.detach()) for flaw in found]  # 3
    h = [torch.where(flaw > s.xi, 1.0, flaw) for flaw in h]
    q = [  # 4
        torch.where(h[1] >= h[0], prob[0], prob[1]),
        torch.where(h[0] >= h[1], prob[1], prob[0]),
    ]
    both_bad = ((h[0] > s.xi) & (h[1] > s.xi)).float()
    ramp = sigmoid_ramp(index, s.ramp_epochs * EPOCH_STEPS)
    losses: dict[str, float] = {}

    def note(name: str, loss: Tensor) -> Tensor:
        losses[name] = losses.get(name, 0) + loss.item()
        return loss

    method.detector.requires_grad_(False)  # 5
    for student, optimizer, wanted in zip(students, optimizers, q, strict=False):
        logits = student(images, represent=False).logits
        p = upsample(logits, SIZE).softmax(1)
        flaw = method.detector(images, logits=logits).logits
        known = label != IGNORE
        nll = -p[:half].gather(1, label.where(known, 0)[:, None])[:, 0].log()
        loss = note("supervised", nll[known].mean())
        distance = ((p - wanted) ** 2).mean(1, keepdim=True)
        loss = loss + note("consistency", ramp * s.lambda_dc * distance[valid].mean())
        loss = loss + note("correction", s.lambda_fc * (both_bad * flaw**2)[valid].mean())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    method.detector.requires_grad_(True)  # 6
    targets = [flaws.target(p[:half], label, IGNORE) for p in prob]  # 7
    if s.flaw_map == "clamped":  # on the data, so that the gradient is that of what is clamped
        for flaw in found:
            flaw.data.clamp_(min=0)
    errors = [((flaw[:half] - g) ** 2)[valid[:half]].mean() for flaw, g in zip(found, targets, strict=True)]
    loss = note("detection", s.lambda_d * torch.stack(errors).mean())  # 8
    optimizers[2].zero_grad()
    loss.backward()
    optimizers[2].step()
    return losses


@pytest.mark.parametrize("flaw_map", ["raw", "clamped"])
@pytest.mark.parametrize(("index", "ramp_epochs"), [(0, 0), (3, 2)])
def test_one_backward_pass_does_what_three_optimisers_do_one_after_the_other(
    flaw_map: str, index: int, ramp_epochs: int
):
    sets: dict[str, Any] = {"batch_norm": "fixed", "dropout": 0.0, "batch": 4, "xi": 0.5, "lr": 0.01}
    ours = gct(**sets, flaw_map=flaw_map, ramp_epochs=ramp_epochs, detector_lr=0.01)
    # As the engine lays it out: where two flaws are equal but for rounding, who learns is.
    theirs, batch = copy.deepcopy(ours).to(memory_format=torch.channels_last), padded(images=4)
    learner = Learner(ours, ours.recipe, EPOCHS * EPOCH_STEPS, torch.device("cpu"))
    ours.train()
    result = learner.step(batch, at(index))
    expected = literally(theirs, batch, index)
    assert result.losses.keys() == expected.keys()
    for name, loss in result.losses.items():
        assert loss.item() == pytest.approx(expected[name], rel=1e-4), name
        assert loss > 0, name
    reference = theirs.state_dict()
    for name, value in ours.state_dict().items():
        if value.is_floating_point():
            atol = 2e-3 if name.startswith("detector.") else 1e-5  # a fifth of a step of Adam's
            assert torch.allclose(value, reference[name], rtol=1e-4, atol=atol), name
    parts = [name for name, _ in ours.detector.named_parameters()]
    pairs = [(ours.detector.get_parameter(name), theirs.detector.get_parameter(name)) for name in parts]
    apart = torch.cat([((one - other).abs() > 1e-5).flatten() for one, other in pairs])
    assert apart.float().mean() < 0.01


def test_each_loss_moves_its_own_networks_alone():
    method = gct(ramp_epochs=0, xi=0.3)
    for name, moved in (
        ("supervised", {"student", "second"}),
        ("consistency", {"student", "second"}),
        ("correction", {"student", "second"}),
        ("detection", {"detector"}),
    ):
        method.zero_grad()
        step_of(method, make_batch(), at(0)).losses[name].backward()
        found = {
            key.partition(".")[0]
            for key, p in method.named_parameters()
            if p.grad is not None and p.grad.any()
        }
        assert found == moved, name


def test_what_is_taught_carries_no_gradient():
    method, batch = gct(ramp_epochs=0), make_batch()
    passes = [watch(network) for network in method.students]
    step_of(method, batch, at(0))
    for before, taught in passes:
        assert not before.output.logits.requires_grad and taught.output.logits.requires_grad
        assert before.training and taught.training
        assert torch.equal(before.image, taught.image)


def test_the_optimisers_are_the_students_and_adam_for_the_detector_in_this_order():
    method = gct(detector_lr=3e-4)
    first, second, detector = method.optimizers()
    for optimizer, network in ((first, method.student), (second, method.second), (detector, method.detector)):
        theirs = {id(p) for group in optimizer.param_groups for p in group["params"]}
        assert theirs == {id(p) for p in network.parameters()}
    assert isinstance(detector, torch.optim.Adam)
    assert detector.param_groups[0]["lr"] == 3e-4 and detector.param_groups[0]["betas"] == (0.9, 0.99)
    learner = Learner(method, method.recipe, 100, torch.device("cpu"))
    learner.step(make_batch(), at(50))
    assert learner.groups[-1]["lr"] == pytest.approx(3e-4 * 0.5**method.recipe.poly_power)


def test_padding_teaches_nothing_but_counts_as_void_for_the_detectors_target():
    method, batch = gct(ramp_epochs=0), make_batch()
    for stream in (batch.labeled, batch.unlabeled):
        stream.valid[:] = False
    losses = step_of(method, batch, at(0)).losses
    assert losses["supervised"] > 0
    assert losses["consistency"] == losses["correction"] == losses["detection"] == 0


@pytest.mark.parametrize("classes", [2, 19])
def test_it_works_with_two_and_with_nineteen_classes(classes: int):
    from u2pl.methods import Classes

    method = build("gct", Classes(classes, IGNORE, background=False))
    result = step_of(method, make_batch(classes=classes), at(0))
    assert all(loss.isfinite() for loss in result.losses.values())


def test_health_says_who_learns_where_and_how_often_the_first_is_right():
    batch = padded()
    method = gct(xi=0.4)
    passes = [watch(network) for network in method.students]
    detected = watch(method.detector)
    diagnostics = targets_in(method, batch, at(0)).diagnostics
    valid = torch.cat([batch.labeled.valid, batch.unlabeled.valid]).numpy()
    h = [flaws.handled(p.output.logits).numpy()[:, 0] for p in detected[:2]]
    h = [np.where(flaw > 0.4, 1, flaw) for flaw in h]
    expected = {
        "flaws/first_learns": (h[1] < h[0])[valid].mean(),
        "flaws/second_learns": (h[0] < h[1])[valid].mean(),
        "flaws/both_bad": ((h[0] > 0.4) & (h[1] > 0.4))[valid].mean(),
    }
    first, second = (full(seen[0])[2:].argmax(1).numpy() for seen in passes)
    own, truth = batch.unlabeled.valid.numpy(), batch.unlabeled.mask.numpy()
    expected["students/agree"] = (first == second)[own].mean()
    expected["students/accuracy"] = (first == truth)[own & (truth != IGNORE)].mean()
    assert {name: value.item() for name, value in diagnostics.items()} == pytest.approx(expected, abs=1e-6)
    assert 0 < expected["flaws/first_learns"] < 1


def test_the_first_student_is_evaluated():
    method = gct()
    assert all(method.evaluated(epoch) == ("student", method.student) for epoch in range(EPOCHS))


# ---- the detector --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("side", "sizes"),
    [
        (513, [256, 128, 127, 63, 62, 31, 30, 15]),
        (769, [384, 192, 191, 95, 94, 47, 46, 23]),
        (92, [46, 23, 22, 11, 10, 5, 4, 2]),
        (32, [48, 24, 23, 11, 10, 5, 4, 2]),
    ],
)
def test_the_detectors_maps_have_the_sizes_of_the_originals(side: int, sizes: list[int]):
    """And pictures too small for it are enlarged."""
    detector = FlawDetector(21, fixed_statistics=False)
    found: list[int] = []
    for convolution in detector.convolutions:
        convolution.register_forward_hook(lambda _module, _given, output: found.append(output.shape[-1]))
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():  # shapes without numbers
        output = detector(torch.empty(2, 3, side, side), logits=torch.empty(2, 21, side // 4, side // 4))
    assert found == sizes
    assert output.logits.shape == (2, 1, side, side)
    assert sum(p.numel() for p in detector.parameters()) == pytest.approx(8.3e6, rel=0.02)


def test_half_of_the_channels_are_normalised_over_the_batch_and_half_in_each_image():
    x = 3 + 2 * torch.randn(4, 6, 5, 7, generator=torch.Generator().manual_seed(0))
    norm = MixedNorm(6)
    y, a = norm(x).detach().numpy(), x.numpy()
    first = (a[:, :3] - a[:, :3].mean((0, 2, 3), keepdims=True)) / a[:, :3].std((0, 2, 3), keepdims=True)
    second = (a[:, 3:] - a[:, 3:].mean((2, 3), keepdims=True)) / a[:, 3:].std((2, 3), keepdims=True)
    assert np.allclose(y, np.concatenate([first, second], 1), atol=1e-4)
    assert norm.batch.affine and len(list(norm.parameters())) == 2
    assert (norm(torch.randn(2, 6, 1, 1))[:, 3:] == 0).all()


def test_fixed_statistics_stay_what_they_are():
    for fixed, kind in ((False, "batch"), (True, "fixed")):
        method = gct(batch_norm=kind)
        before = method.detector.norms[0].batch.running_mean.clone()
        step_of(method, make_batch(), at(0))
        assert torch.equal(before, method.detector.norms[0].batch.running_mean) == fixed
