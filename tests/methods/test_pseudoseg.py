"""PseudoSeg's losses against sums over points in float64, computed from what its network said."""

import numpy as np
import pytest
import torch
from methods.slow import IGNORE, full, mean_loss, padded, softmax
from methods.tiny_method import CLASSES, PARAMS, Pass, at, build, changed, make_batch, step_of, watch
from torch import Tensor
from torch.nn import functional

from u2pl.batches.loader import Batch
from u2pl.batches.strong_view import StrongDraws, strong_view
from u2pl.losses.calibration import fused, mean_square
from u2pl.methods import Classes
from u2pl.methods.pseudoseg import PseudoSeg, present
from u2pl.settings import RunSpec
from u2pl.steps.pixels import aligned
from u2pl.training.step import targets_of


def pseudoseg(classes: Classes = CLASSES, **overrides: object) -> PseudoSeg:
    method = build("pseudoseg", classes, **overrides)
    assert isinstance(method, PseudoSeg)
    return method


class Seen:
    """A step, and what the network made of it."""

    def __init__(self, method: PseudoSeg, batch: Batch):
        images, groups = len(batch.labeled.image), method.recipe.replicas
        self.passes = watch(method.student)
        self.result = step_of(method, batch, at(0))
        weak, mapped, trained = self.passes
        assert batch.unlabeled is not None
        draws = StrongDraws.draw(method.settings, images, at(0).generator)
        self.strong = strong_view(batch.unlabeled.image, batch.unlabeled.valid, draws)
        self.decoder, self.score = weak.output.logits, mapped.output.further["score"]
        self.maps = functional.interpolate(
            mapped.output.logits, self.decoder.shape[2:], mode="bilinear", align_corners=True
        )
        square = mean_square(self.decoder, self.maps).view(groups, -1).mean(dim=1, keepdim=True)
        square = square.expand(-1, images // groups).flatten()
        self.label = fused(self.decoder, self.maps, square, method.settings.temperature)
        self.kept = aligned(self.strong.kept, self.decoder.shape[2:])
        self.truth = aligned(batch.unlabeled.mask, self.decoder.shape[2:])
        self.trained = trained
        self.on_labeled, self.on_strong = trained.output.logits.chunk(2)

    def parts(self) -> tuple[Pass, Pass, Pass]:
        return self.passes[0], self.passes[1], self.passes[2]


@pytest.mark.parametrize("replicas", [1, 2])
def test_the_losses_of_a_step_are_those_of_its_outputs(replicas: int):
    batch = padded(images=4)
    seen = Seen(pseudoseg(batch=4, replicas=replicas, lambda_consistency=0.7), batch)
    losses, mask = seen.result.losses, batch.labeled.mask
    expected = mean_loss((full(seen.trained)[:4], mask), groups=replicas)
    assert losses["supervised"].item() == pytest.approx(expected, rel=1e-5)

    further = seen.trained.output.further
    maps = functional.interpolate(
        further["maps"].detach(), mask.shape[1:], mode="bilinear", align_corners=True
    )
    assert losses["attention"].item() == pytest.approx(mean_loss((maps, mask), groups=replicas), rel=1e-5)

    score = further["score"].detach().double().numpy()
    there = np.array([[(mask[b] == c).any() for c in (1, 2, 3)] for b in range(4)])
    wrong = np.where(there, np.log1p(np.exp(-score)), np.log1p(np.exp(score)))
    assert there.any() and not there.all()
    assert losses["classifier"].item() == pytest.approx(wrong.mean(), rel=1e-5)

    log_p = np.log(softmax(seen.on_strong.detach()))
    label, kept = np.moveaxis(seen.label.double().numpy(), 1, -1), seen.kept.numpy()
    each = np.where(kept, -(label * log_p).sum(axis=-1), 0)
    means = [each[g].sum() / kept[g].sum() for g in np.split(np.arange(4), replicas)]
    assert losses["consistency"].item() == pytest.approx(0.7 * np.mean(means), rel=1e-5)


def test_the_weak_view_is_seen_in_both_modes_and_the_strong_one_beside_the_labelled_images():
    batch = padded()
    seen = Seen(pseudoseg(), batch)
    weak, mapped, trained = seen.parts()
    assert torch.equal(weak.image, batch.unlabeled.image) and weak.training
    assert torch.equal(mapped.image, batch.unlabeled.image) and not mapped.training
    assert torch.equal(trained.image[:2], batch.labeled.image) and trained.training
    assert torch.equal(trained.image[2:], seen.strong.image)
    assert not torch.allclose(seen.strong.image, batch.unlabeled.image)
    assert not (seen.strong.kept & ~batch.unlabeled.valid).any()


def test_after_a_step_the_network_is_in_training_mode_again_and_its_maps_always_were():
    method = pseudoseg()
    method.student.mapper.norm.register_forward_hook(lambda norm, *_: modes.append(norm.training))
    modes: list[bool] = []
    step_of(method, make_batch(), at(0))
    assert modes == [True, True]
    assert all(module.training for module in method.student.modules())


def gradients(method: PseudoSeg, batch: Batch, loss: str) -> dict[str, Tensor]:
    """Of every parameter that a loss moves."""
    step_of(method, batch, at(0)).losses[loss].backward()
    return {
        name: p.grad for name, p in method.student.named_parameters() if p.grad is not None and p.grad.any()
    }


def test_each_loss_teaches_what_it_is_to_teach():
    attention = {
        f"further.mapper.{name}" for name in ("query.weight", "key.weight", "calibration.weight", "norm.bias")
    }
    assert gradients(pseudoseg(), make_batch(), "attention").keys() == attention
    of_classifier = gradients(pseudoseg(), make_batch(), "classifier").keys()
    assert {
        "further.mapper.classifier.weight",
        "further.mapper.classifier.bias",
        "backbone.stem.0.weight",
    } <= of_classifier
    assert not {n for n in of_classifier if n.startswith(("classifier.", "aspp.", "low."))} | (
        of_classifier & attention
    )
    for loss in ("supervised", "consistency"):
        moved = gradients(pseudoseg(), make_batch(), loss)
        assert {"classifier.4.weight", "aspp.branches.0.0.weight", "backbone.stem.0.weight"} <= moved.keys()
        assert not {name for name in moved if name.startswith("further.")}


def test_the_fused_labels_carry_no_gradient_and_the_loss_on_them_reaches_the_strong_view_alone():
    method = pseudoseg()
    seen = Seen(method, make_batch())
    assert all(not p.output.logits.requires_grad for p in seen.passes[:2])
    seen.trained.output.logits.retain_grad()
    seen.result.losses["consistency"].backward()
    gradient = seen.trained.output.logits.grad
    assert (gradient[:2] == 0).all()
    p, weight = seen.on_strong.detach().softmax(dim=1), seen.kept[:, None] / seen.kept.sum()
    torch.testing.assert_close(gradient[2:], (p - seen.label) * weight, atol=1e-7, rtol=1e-4)


def test_the_classes_of_a_labelled_image_are_those_of_its_crop_and_the_attention_keeps_to_what_is_kept():
    method, batch = pseudoseg(), padded()
    targets = targets_of(method, batch, at(0))
    (forward,) = targets.forwards
    assert torch.equal(forward.options["presence"], targets.presence)
    assert torch.equal(forward.options["reached"], batch.labeled.valid)
    calls: list[dict] = []
    method.student.register_forward_pre_hook(lambda _, args, named: calls.append(named), with_kwargs=True)
    seen = Seen(method, batch)
    assert torch.equal(calls[1]["reached"], seen.strong.kept)
    assert calls[1].get("presence") is None


def test_what_is_ignored_or_a_background_is_no_class_of_an_image():
    label = torch.tensor([[[0, 0], [2, IGNORE]], [[3, 3], [1, 1]], [[IGNORE] * 2] * 2])
    expected = [[False, True, False], [True, False, True], [False] * 3]
    assert present(label, range(1, 4)).tolist() == expected


def test_health_says_how_sure_the_labels_are_and_how_often_each_prediction_is_right():
    batch = padded()
    seen = Seen(pseudoseg(), batch)
    health, kept = seen.result.diagnostics, seen.kept.numpy()
    judged = kept & (seen.truth != IGNORE).numpy()
    for name, logits in (("fused", seen.label), ("decoder", seen.decoder), ("maps", seen.maps)):
        right = (logits.argmax(1) == seen.truth).numpy()[judged].mean()
        assert health[f"{name}/accuracy"].item() == pytest.approx(right, rel=1e-5)
    sure = seen.label.amax(dim=1).numpy()[kept].mean()
    assert health["fused/confidence"].item() == pytest.approx(sure, rel=1e-5)
    assert health["presence/empty"] == (seen.score < 0).all(dim=1).float().mean()


@pytest.mark.parametrize("bias", [-50.0, 50.0])
def test_images_without_any_predicted_class_are_counted_and_break_nothing(bias: float):
    method = pseudoseg()
    with torch.no_grad():
        method.student.mapper.classifier.bias.fill_(bias)
    result = step_of(method, make_batch(), at(0))
    assert result.diagnostics["presence/empty"] == (bias < 0)
    assert all(loss.isfinite() for loss in result.losses.values())


def test_images_of_nothing_but_padding_teach_nothing():
    batch = make_batch()
    for stream in (batch.labeled, batch.unlabeled):
        stream.valid[:] = False
    losses = step_of(pseudoseg(), batch, at(0)).losses
    assert losses["consistency"] == 0
    assert all(loss.isfinite() for loss in losses.values())


@pytest.mark.parametrize(("count", "background"), [(2, True), (2, False), (19, False), (21, True)])
@pytest.mark.parametrize("stride", [8, 32])
def test_any_classes_with_and_without_a_background_and_any_stride(count: int, background: bool, stride: int):
    batch = make_batch(classes=count)
    method = pseudoseg(Classes(count, IGNORE, background), output_stride=stride)
    assert method.student.mapper.classifier.out_features == count - background
    torch.stack(list(step_of(method, batch, at(0)).losses.values())).sum().backward()
    assert all(p.grad.isfinite().all() for p in method.student.parameters() if p.grad is not None)


def test_one_class_in_all_images_and_ignored_labels_are_borne():
    batch = make_batch()
    for fill in (1, 0, IGNORE):
        losses = step_of(
            pseudoseg(), changed(batch, "labeled", mask=torch.full_like(batch.labeled.mask, fill)), at(0)
        ).losses
        assert all(loss.isfinite() for loss in losses.values())


def test_attention_and_calibration_do_not_decay_and_learn_as_fast_as_the_heads():
    method = pseudoseg(weight_decay=0.1, lr=0.2, head_lr_multiplier=3)
    (sgd,) = method.optimizers()
    decays = {
        id(p): (group["weight_decay"], group["lr"]) for group in sgd.param_groups for p in group["params"]
    }
    mapper = method.student.mapper
    assert {decays[id(p)] for p in mapper.undecayed()} == {(0.0, 0.2 * 3)}
    assert decays[id(mapper.classifier.weight)] == (0.1, 0.2 * 3)
    assert decays[id(method.student.backbone.stem[0].weight)] == (0.1, 0.2)
    assert id(mapper.norm.weight) not in decays


def test_the_square_that_is_cut_out_has_the_released_code_s_100_pixels_of_voc_s_crops():
    run = PARAMS.resolve(RunSpec("voc", "1/4", "pseudoseg"))
    assert round(run.hyper["cutout"] * run.recipe.crop) == 50
