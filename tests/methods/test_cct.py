"""CCT's losses against sums over points in float64, computed from what its decoders said."""

from typing import Any

import numpy as np
import pytest
import torch
from methods.slow import IGNORE, full, mean_loss, padded, softmax
from methods.tiny_method import (
    CLASSES,
    EPOCH_STEPS,
    EPOCHS,
    PARAMS,
    at,
    build,
    make_batch,
    step_of,
    targets_in,
    watch,
)
from torch import Tensor

from u2pl.batches.loader import Batch
from u2pl.errors import UsageError
from u2pl.losses.ramp import sigmoid_ramp
from u2pl.methods import Classes
from u2pl.methods.cct import CCT
from u2pl.settings import RunSpec

EACH = dict.fromkeys(("f_noise", "f_drop", "dropout", "g_cutout", "con_msk", "obj_msk", "i_vat"), 1)


def cct(classes: Classes = CLASSES, **overrides: Any) -> CCT:
    method = build("cct", classes, **overrides)
    assert isinstance(method, CCT)
    return method


class Seen:
    """A step, and what the decoders made of it."""

    def __init__(self, method: CCT, batch: Batch, index: int = 0):
        passes = watch(method.student)
        self.result = step_of(method, batch, at(index))
        (self.taught,) = passes
        images = len(batch.labeled.image)
        self.logits = full(self.taught)
        self.wanted = softmax(self.taught.output.logits[images:].detach())
        decoded = [value for key, value in self.taught.output.further.items() if key.isdigit()]
        self.decoded: list[Tensor] = [d.detach() for d in decoded]
        self.points = self.wanted.shape[1:3]

    def consistency(self, batch: Batch, groups: int) -> float:
        """The mean over decoders, groups, classes and the points that lie on valid pixels."""
        valid = batch.unlabeled.valid.numpy()
        (height, width), (h, w) = valid.shape[1:], self.points
        y, x = (np.rint(np.linspace(0, n - 1, k)).astype(int) for n, k in ((height, h), (width, w)))
        at_points = valid[:, y[:, None], x]
        errors = [((softmax(d) - self.wanted) ** 2).mean(axis=-1) for d in self.decoded]
        total = 0.0
        for some in np.split(np.arange(len(valid)), groups):
            counted = sum(float(e[some][at_points[some]].sum()) for e in errors)
            pixels = valid[some].sum() * (h * w) / (height * width)
            total += counted / pixels / len(errors)
        return total / groups


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("index", [0, 7, 19])
def test_both_losses_are_those_of_the_outputs(groups: int, index: int):
    batch = padded(images=4)
    seen = Seen(cct(batch=4, replicas=groups, decoders=EACH, weight=7.0, ramp=0.5), batch, index)
    losses = seen.result.losses
    expected = mean_loss((seen.logits[:4], batch.labeled.mask), groups=groups)
    assert losses["supervised"].item() == pytest.approx(expected, rel=1e-5)
    weight = 7 * sigmoid_ramp(index, 0.5 * EPOCHS * EPOCH_STEPS)
    assert losses["consistency"].item() == pytest.approx(weight * seen.consistency(batch, groups), rel=1e-4)
    assert seen.result.diagnostics["consistency/weight"] == weight


def test_every_perturbation_gives_another_prediction():
    """Without masks that leave all or nothing."""
    method = cct(decoders=EACH)
    with torch.no_grad():
        for decoder in method.student.further["decoders"]:
            decoder.load_state_dict(method.student.classifier[-1].state_dict())
    seen = Seen(method, make_batch(size=64))
    names = [*EACH]
    plain = [
        name
        for name, d in zip(names, seen.decoded, strict=True)
        if np.allclose(softmax(d), seen.wanted, atol=1e-6)
    ]
    assert set(plain) <= {"g_cutout"}, "no outline was ragged enough"
    for k, one in enumerate(seen.decoded):
        assert not any(torch.equal(one, other) for other in seen.decoded[:k])


def test_decoders_of_one_kind_draw_each_for_itself_and_every_step_anew():
    method, batch = cct(decoders={"f_noise": 2, "dropout": 2}), make_batch()
    with torch.no_grad():
        first, *others = method.student.further["decoders"]
        for decoder in others:
            decoder.load_state_dict(first.state_dict())
    now, later, again = (Seen(method, batch, index).decoded for index in (0, 1, 0))
    assert not torch.equal(now[0], now[1]) and not torch.equal(now[2], now[3])
    assert not torch.equal(now[0], later[0]) and not torch.equal(now[2], later[2])
    assert all(torch.equal(*pair) for pair in zip(now, again, strict=True))


def test_who_learns_from_what():
    """The main decoder from labels alone, the others from it alone, the encoder from both."""
    method, batch = cct(decoders=EACH), make_batch()
    main, others = method.student.classifier[-1], method.student.further["decoders"]
    losses = step_of(method, batch, at(5)).losses
    losses["supervised"].backward(retain_graph=True)
    assert main.weight.grad.any() and method.student.backbone.stem[0].weight.grad.any()
    assert all(decoder.weight.grad is None for decoder in others)
    method.zero_grad()
    losses["consistency"].backward()
    assert main.weight.grad is None
    assert all(decoder.weight.grad.any() for decoder in others)
    assert method.student.backbone.stem[0].weight.grad.any()


def test_labelled_images_are_perturbed_nowhere_and_padding_teaches_nothing():
    method, batch = cct(), make_batch()
    seen = Seen(method, batch)
    assert all(len(d) == len(batch.unlabeled.image) for d in seen.decoded)
    batch.unlabeled.valid[:] = False
    losses = step_of(method, batch, at(0)).losses
    assert losses["consistency"] == 0 and losses["supervised"] > 0


def test_objects_are_what_the_main_decoder_sees_outside_the_context():
    seen = Seen(cct(context=[1, 3]), make_batch())
    label = seen.logits[2:].argmax(1)
    expected = (label != 1) & (label != 3)
    assert torch.equal(seen.taught.output.further["foreground"], expected)


def test_a_context_that_cannot_be_is_refused():
    with pytest.raises(
        UsageError, match=r"context names class 4, and there are 4 classes.*--set context=\[0\]"
    ):
        cct(context=[0, 4])
    with pytest.raises(UsageError, match="context names every class"):
        cct(context=[0, 1, 2, 3])


@pytest.mark.parametrize(
    ("decoders", "message"),
    [
        ({}, "at least one decoder"),
        ({"f_noise": 0}, "at least one decoder"),
        ({"f_noise": -1}, "greater than"),
        ({"blur": 1}, "f_noise"),
    ],
)
def test_decoders_that_cannot_be_are_refused(decoders: dict[str, int], message: str):
    with pytest.raises(UsageError, match=message):
        cct(decoders=decoders)


def test_decoders_are_named_on_the_command_line_like_any_setting():
    from u2pl.settings import parse_overrides

    value = parse_overrides(["cct.decoders={f_noise: 3, i_vat: 1}"])
    resolved = PARAMS.resolve(RunSpec("tiny", "1/4", "cct", 0, value))
    assert resolved.hyper["decoders"] == {"f_noise": 3, "i_vat": 1}
    assert len(cct(decoders={"f_noise": 3, "i_vat": 1}).student.further["decoders"]) == 4


@pytest.mark.parametrize("classes", [2, 19])
def test_it_works_with_two_and_with_nineteen_classes(classes: int):
    method = cct(Classes(classes, IGNORE, background=False), decoders=EACH)
    result = step_of(method, make_batch(classes=classes), at(0))
    assert all(loss.isfinite() and loss > 0 for loss in result.losses.values())


def test_health_says_how_far_the_decoders_agree():
    batch = padded()
    method = cct(decoders={"f_noise": 1, "obj_msk": 1})
    passes = watch(method.student)
    diagnostics = targets_in(method, batch, at(0)).diagnostics
    output = passes[0].output
    valid, truth = batch.unlabeled.valid.numpy(), batch.unlabeled.mask.numpy()
    label = full(passes[0])[2:].argmax(1).numpy()
    assert diagnostics["decoders/objects"].item() == pytest.approx((label != 0)[valid].mean(), abs=1e-6)
    judged = valid & (truth != IGNORE)
    assert diagnostics["decoders/accuracy"].item() == pytest.approx((label == truth)[judged].mean(), abs=1e-6)
    main = output.logits[2:].argmax(1).numpy()
    h = main.shape[1]
    rows = np.rint(np.linspace(0, 31, h)).astype(int)
    at_points = valid[:, rows[:, None], rows]
    same = [(output.further[k].argmax(1).numpy() == main)[at_points] for k in ("0", "1")]
    assert diagnostics["decoders/agree"].item() == pytest.approx(np.concatenate(same).mean(), abs=1e-6)


def test_the_main_decoder_is_evaluated_without_the_others():
    method = cct().eval()
    kind, network = method.evaluated(2)
    assert kind == "student"
    assert network(torch.zeros(1, 3, 32, 32), represent=False).further == {}
    names = [name for name in network.state_dict() if "decoders" in name]
    assert names and all(name.startswith("further.") for name in names)


def test_flavours_and_recipes():
    released = PARAMS.resolve(RunSpec("voc", "1/4", "cct", 0, {"recipe.flavor": "released"}))
    assert sum(released.hyper["decoders"].values()) == 30
    assert released.recipe.padding_label == "ignore"
    assert 0 in PARAMS.resolve(RunSpec("cityscapes", "1/4", "cct")).hyper["context"]
