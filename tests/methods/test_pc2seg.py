"""PC²Seg's losses against sums over points in float64, from what its network said; its negatives; its remark."""

from collections.abc import Callable
from math import exp
from subprocess import CompletedProcess as Completed

import numpy as np
import pytest
import torch
from methods.slow import IGNORE, full, mean_loss, padded
from methods.tiny_method import CLASSES, EPOCH_STEPS, EPOCHS, PARAMS, at, build, make_batch, step_of, watch
from torch import Tensor

from u2pl.batches.loader import Batch
from u2pl.methods import Classes
from u2pl.methods.pc2seg import PC2Seg, PC2SegTargets
from u2pl.project import Project
from u2pl.settings import RunSpec, hyper
from u2pl.steps.pixels import aligned
from u2pl.training.step import losses_of, targets_of

SMALL = {"ramp": 0, "anchors_per_image": 12, "negatives_per_anchor": 7, "pool": 48}


def pc2seg(classes: Classes = CLASSES, **overrides: object) -> PC2Seg:
    method = build("pc2seg", classes, **{**SMALL, **overrides})
    assert isinstance(method, PC2Seg)
    return method


class Seen:
    """A step, and what the network made of it."""

    def __init__(self, method: PC2Seg, batch: Batch, index: int = 0):
        self.passes = watch(method.student)
        self.step = at(index)
        self.targets: PC2SegTargets = targets_of(method, batch, self.step)
        (self.losses,) = losses_of(method, self.targets, self.step)
        self.weak, self.trained = self.passes
        self.health = self.targets.diagnostics
        self.images = len(batch.labeled.image)
        self.size = self.weak.output.logits.shape[2:]
        self.truth = [aligned(images.mask, self.size) for images in (batch.labeled, batch.unlabeled)]

    def unit(self, which: int, image: int, point: int) -> np.ndarray:
        """Normalised representation of the weak (0) or the strong (1) pass."""
        z = self.passes[which].output.representation[image].detach().double().flatten(1)[:, point].numpy()
        return z / np.linalg.norm(z)


@pytest.mark.parametrize("replicas", [1, 2])
def test_the_losses_of_a_step_are_those_of_its_outputs(replicas: int):
    batch = padded(images=4)
    seen = Seen(pc2seg(batch=4, replicas=replicas, lambda_cy=0.7, lambda_ct=1.3), batch)
    expected = mean_loss((full(seen.trained)[:4], batch.labeled.mask), groups=replicas)
    assert seen.losses["supervised"].item() == pytest.approx(expected, rel=1e-5)

    p, q = (each.output.logits[4:].detach().double().softmax(dim=1).numpy() for each in seen.passes)
    p, q = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (p, q))
    kept, groups = seen.targets.kept.numpy(), np.split(np.arange(4), replicas)
    apart = np.where(kept, ((p - q) ** 2).sum(axis=1), 0)
    means = [apart[g].sum() / kept[g].sum() for g in groups]
    assert seen.losses["consistency"].item() == pytest.approx(0.7 * np.mean(means), rel=1e-5)

    its = seen.targets.contrast
    table = its.table.double().numpy()
    table = table / np.linalg.norm(table, axis=1, keepdims=True)
    means = []
    for g in groups:
        losses = []
        for b, m in ((b, m) for b in g for m in range(12) if its.usable[b, m]):
            point = int(its.index[b, m])
            anchor = seen.unit(1, 4 + b, point)
            good = exp(anchor @ seen.unit(0, 4 + b, point) / 0.07)
            bad = sum(exp(anchor @ table[j] / 0.07) for j in its.negative[b, m])
            losses.append(-np.log(good / (good + bad)))
        means.append(np.mean(losses))
    assert its.usable.any() and seen.losses["contrastive"].item() == pytest.approx(
        1.3 * np.mean(means), rel=1e-4
    )


def everywhere(seen: Seen, row: Tensor) -> list[tuple[int, int]]:
    """The images, labelled ones first, and points that a row of the pool may have been taken from."""
    z = seen.weak.output.representation.flatten(2)
    return [tuple(place) for place in (z == row[:, None]).all(dim=1).nonzero().tolist()]


def where(seen: Seen, row: Tensor) -> tuple[int, int]:
    """The first of them, nearly always the only one."""
    return everywhere(seen, row)[0]


@pytest.mark.parametrize(("replicas", "pool"), [(1, 48), (2, 48), (1, 4096)])
def test_negatives_are_known_or_valid_points_of_other_images_of_the_same_group(replicas: int, pool: int):
    """Of a pool that is larger than the images, too."""
    batch = padded(images=4)
    batch.labeled.mask[0] = IGNORE
    batch.labeled.mask[0, 20:24, 20:24] = 1
    seen = Seen(pc2seg(batch=4, replicas=replicas, pool=pool), batch)
    its, valid = seen.targets.contrast, aligned(batch.unlabeled.valid, seen.size)
    met = set()
    for b, m in its.usable.nonzero().tolist():
        assert seen.targets.kept[b].flatten()[its.index[b, m]]
        for j in its.negative[b, m]:
            # Where all of the last layer's inputs are 0, several points have the same features.
            possible = [
                image
                for image, point in everywhere(seen, its.table[j])
                if image != 4 + b
                and image % 4 // (4 // replicas) == b // (4 // replicas)
                and (seen.truth[0][image] != IGNORE if image < 4 else valid[image - 4]).flatten()[point]
            ]
            assert possible
            met.update(possible)
    assert len(met) == 8


def test_the_pool_is_no_larger_than_it_may_be_and_images_give_equally_many():
    seen = Seen(pc2seg(pool=21), make_batch())
    images = [where(seen, row)[0] for row in seen.targets.contrast.table]
    assert sorted(images) == [0] * 5 + [1] * 5 + [2] * 5 + [3] * 5


def test_debiased_negatives_are_seldom_of_the_anchor_s_class():
    """Where labels of labelled images are known and the anchor's is certain, none is."""
    method, batch = pc2seg(pool=400, negatives_per_anchor=50), make_batch()
    with torch.no_grad():
        method.student.classifier[-1].weight.zero_()
        method.student.classifier[-1].bias.copy_(torch.tensor([0.0, 200.0, 0.0, 0.0]))
    seen = Seen(method, batch)
    its = seen.targets.contrast
    assert its.usable.any()
    for row in its.negative[its.usable].unique():
        image, point = where(seen, its.table[row])
        assert image < 2 and seen.truth[0][image].flatten()[point] != 1


@pytest.mark.parametrize("rule", ["other_image", "uniform", "uncertainty", "debiased"])
def test_other_rules_draw_from_where_they_say(rule: str):
    seen = Seen(pc2seg(negatives=rule, pool=1000, negatives_per_anchor=60), make_batch())
    its = seen.targets.contrast
    own = [where(seen, its.table[j])[0] == 2 for j in its.negative[0].unique()]
    assert any(own) == (rule != "other_image")
    assert seen.losses["contrastive"].isfinite()


def test_the_weak_views_are_seen_without_gradient_beside_the_labelled_images_as_the_strong_ones_are_with():
    batch = padded()
    seen = Seen(pc2seg(), batch)
    assert seen.weak.training and seen.trained.training
    assert torch.equal(seen.weak.image, torch.cat([batch.labeled.image, batch.unlabeled.image]))
    assert torch.equal(seen.trained.image[:2], batch.labeled.image)
    assert not torch.allclose(seen.trained.image[2:], batch.unlabeled.image)
    assert not seen.weak.output.logits.requires_grad and not seen.weak.output.representation.requires_grad


def test_the_contrast_reaches_the_projection_and_the_encoder_and_no_classifier_the_consistency_no_projection():
    for loss, moved, still in (
        ("contrastive", "further.projector.3.weight", "classifier.4.weight"),
        ("consistency", "classifier.4.weight", "further.projector.3.weight"),
    ):
        method = pc2seg()
        step_of(method, make_batch(), at(0)).losses[loss].backward()
        gradient = {name: p.grad for name, p in method.student.named_parameters()}
        assert gradient[moved].any() and gradient["backbone.stem.0.weight"].any()
        assert gradient[still] is None or not gradient[still].any()


def test_only_the_strong_view_learns_from_the_comparisons():
    seen = Seen(pc2seg(), make_batch())
    for tensor in (seen.trained.output.logits, seen.trained.output.representation):
        tensor.retain_grad()
    (seen.losses["consistency"] + seen.losses["contrastive"]).backward()
    for tensor in (seen.trained.output.logits, seen.trained.output.representation):
        assert (tensor.grad[:2] == 0).all() and tensor.grad[2:].any()


def test_both_weights_rise_over_a_share_of_the_run():
    steps = 0.5 * EPOCHS * EPOCH_STEPS
    batch = make_batch()
    for index in (0, 4, 10, 19):
        factor = exp(-5 * (1 - min(index, steps) / steps) ** 2)
        full_weight, risen = (Seen(pc2seg(ramp=ramp), batch, index) for ramp in (0, 0.5))
        assert risen.health["ramp"] == pytest.approx(factor)
        for loss in ("consistency", "contrastive"):
            assert risen.losses[loss].item() == pytest.approx(
                factor * full_weight.losses[loss].item(), rel=1e-5
            )
        assert torch.equal(risen.losses["supervised"], full_weight.losses["supervised"])


def test_health_says_how_right_and_how_much_alike_the_views_are_and_how_many_negatives_are_false():
    batch = padded()
    seen = Seen(pc2seg(pool=200), batch)
    weak, strong = (each.output.logits[2:].argmax(1) for each in seen.passes)
    kept, valid, truth = seen.targets.kept, aligned(batch.unlabeled.valid, seen.size), seen.truth[1]
    judged = valid & (truth != IGNORE)
    assert seen.health["weak/accuracy"].item() == pytest.approx((weak == truth)[judged].float().mean().item())
    assert seen.health["views/agree"].item() == pytest.approx((weak == strong)[kept].float().mean().item())
    its, false = seen.targets.contrast, []
    assert seen.health["contrast/anchors"] == its.usable.sum()
    for b, m in its.usable.nonzero().tolist():
        own = truth[b].flatten()[its.index[b, m]]
        for j in its.negative[b, m]:
            image, point = where(seen, its.table[j])
            other = seen.truth[image // 2][image % 2].flatten()[point]
            if own != IGNORE and other != IGNORE:
                false.append(bool(own == other))
    assert seen.health["negatives/false"].item() == pytest.approx(np.mean(false))


@pytest.mark.parametrize("stream", ["labeled", "unlabeled", "both"])
def test_images_without_labels_or_of_nothing_but_padding_break_nothing(stream: str):
    batch = make_batch()
    if stream != "unlabeled":
        batch.labeled.mask[:] = IGNORE
    if stream != "labeled":
        batch.unlabeled.valid[:] = False
    method = pc2seg()
    result = step_of(method, batch, at(0))
    torch.stack(list(result.losses.values())).sum().backward()
    assert all(loss.isfinite() for loss in result.losses.values())
    assert all(p.grad.isfinite().all() for p in method.student.parameters() if p.grad is not None)
    if stream != "labeled":
        assert result.losses["consistency"] == result.losses["contrastive"] == 0
        assert result.diagnostics["contrast/anchors"] == 0


def test_an_anchor_without_negatives_does_not_count():
    """The only image with known pixels can be compared with itself alone."""
    batch = make_batch()
    batch.labeled.mask[:] = IGNORE
    batch.unlabeled.valid[1] = False
    for rule, none in (("debiased_other", True), ("debiased", False)):
        result = step_of(pc2seg(negatives=rule, pool=1000), batch, at(0))
        assert (result.diagnostics["contrast/anchors"] == 0) == none
        assert (result.losses["contrastive"] == 0) == none


@pytest.mark.parametrize("count", [2, 19])
def test_any_number_of_classes(count: int):
    method = pc2seg(Classes(count, IGNORE, background=False))
    losses = step_of(method, make_batch(classes=count), at(0)).losses
    assert all(loss.isfinite() and loss > 0 for loss in losses.values())


def test_the_projection_is_not_asked_for_where_images_are_only_segmented():
    network = pc2seg().student.eval()
    output = network(torch.zeros(1, 3, 32, 32))
    assert output.representation is None and "representer" not in "".join(network.state_dict())


def test_its_settings_say_that_it_is_a_reconstruction_and_others_say_nothing():
    settings = {name: hyper.find(name) for name in ("pc2seg", "pseudoseg", "u2pl")}
    assert "reconstruction, not verified against the authors' code" in settings["pc2seg"].remark
    assert settings["pseudoseg"].remark == settings["u2pl"].remark == ""


@pytest.mark.slow
def test_training_says_it_first_and_the_run_is_scored_without_what_is_for_training_alone(
    u2pl: Callable[..., Completed], tiny_project: Project
):
    words = ["--dataset", "tiny", "--split", "1/4", "--set", "epochs=1"]
    trained = u2pl("train", "--method", "pc2seg", *words, cwd=tiny_project.root)
    assert trained.returncode == 0, trained.stderr
    assert trained.stderr.startswith(
        "PC²Seg is a reconstruction, not verified against the authors' code, which was never published.\n"
    )
    scored = u2pl("evaluate", "tiny-1_4-pc2seg-epochs=1-s0", cwd=tiny_project.root)
    assert scored.returncode == 0, scored.stderr
    other = u2pl("train", "--method", "pseudoseg", *words, cwd=tiny_project.root)
    assert other.returncode == 0 and "reconstruction" not in other.stderr
    assert u2pl("evaluate", "tiny-1_4-pseudoseg-epochs=1-s0", cwd=tiny_project.root).returncode == 0


def test_nothing_is_cut_out_on_cityscapes():
    cut = {
        name: PARAMS.resolve(RunSpec(name, "1/4", "pc2seg")).hyper["cutout"] for name in ("voc", "cityscapes")
    }
    assert cut["voc"] > 0 and cut["cityscapes"] == 0
