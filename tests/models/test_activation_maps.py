"""Activation maps against Grad-CAM by autograd, attention against sums over points, and what learns from what."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from u2pl.models.activation_maps import ActivationMapper, activation_maps, attended
from u2pl.models.backbone import Stages


def mapper(**changes: object) -> ActivationMapper:
    torch.manual_seed(0)
    arguments = {
        "classes": 4,
        "background": True,
        "middle_channels": 5,
        "channels": 6,
        "key_channels": 3,
        "stride": 16,
        "fixed_statistics": False,
    }
    return ActivationMapper(**{**arguments, **changes})


def stages(size: int = 4, middle: int | None = None) -> Stages:
    generator = torch.Generator().manual_seed(1)
    low, mid, high = (
        torch.randn(2, channels, side, side, generator=generator).requires_grad_()
        for channels, side in ((3, 4 * size), (5, middle or size), (6, size))
    )
    return Stages(low, mid, high)


REACHED = torch.ones(2, 8, 8, dtype=torch.bool)
ALL = torch.ones(2, 3, dtype=torch.bool)


def test_activation_maps_are_grad_cam_of_a_classifier_behind_a_global_mean():
    features = torch.randn(2, 6, 4, 5, dtype=torch.float64, requires_grad=True)
    classifier = nn.Linear(6, 3).double()
    presence = torch.tensor([[True, False, True], [True, True, True]])
    maps = activation_maps(features.detach(), classifier.weight.detach(), presence)
    scores = classifier(features.mean(dim=(2, 3)))
    for c in range(3):
        (gradient,) = torch.autograd.grad(scores[:, c].sum(), features, retain_graph=True)
        alpha = gradient.mean(dim=(2, 3), keepdim=True)
        cam = (alpha * features).sum(dim=1).relu().detach()
        for b in range(2):
            top = cam[b].max()
            expected = cam[b] / top if presence[b, c] and top > 0 else torch.zeros_like(cam[b])
            torch.testing.assert_close(maps[b, c], expected)
    assert maps.min() >= 0 and maps.max() == 1


def test_a_class_that_is_seen_nowhere_has_an_empty_map():
    maps = activation_maps(
        torch.ones(1, 2, 3, 3), torch.tensor([[-1.0, -1.0]]), torch.ones(1, 1, dtype=torch.bool)
    )
    assert (maps == 0).all()


@pytest.mark.parametrize("some", [True, False])
def test_attention_is_a_mean_over_the_points_in_reach_weighted_by_a_softmax(some: bool):
    rng = np.random.default_rng(0)
    query, key, maps = (rng.normal(size=(1, d, 2, 3)) for d in (4, 4, 2))
    reached = np.array([[[True, False, True], [some, True, True]]])
    found = attended(*(torch.from_numpy(each) for each in (query, key, maps, reached)))
    q, k, m = (each.reshape(each.shape[1], -1) for each in (query, key, maps))
    for i in range(6):
        total = np.zeros(2)
        weight = np.array([np.exp(q[:, i] @ k[:, j] / 2) * reached.ravel()[j] for j in range(6)])
        for j in range(6):
            total += weight[j] / weight.sum() * m[:, j]
        np.testing.assert_allclose(found.numpy().reshape(2, -1)[:, i], total)


def test_where_nothing_is_in_reach_all_points_count_alike():
    query, key, maps = (torch.randn(1, 3, 2, 2) for _ in range(3))
    found = attended(query, key, maps, torch.zeros(1, 2, 2, dtype=torch.bool))
    torch.testing.assert_close(found, maps.mean(dim=(2, 3), keepdim=True).expand_as(maps))


def slow_logits(net: ActivationMapper, seen: Stages, reached: Tensor, presence: Tensor) -> Tensor:
    """At stride 16, maps and features of one size: what is calibrated, then normalised by the batch's statistics."""
    high, middle = seen.high.detach(), seen.middle.detach()
    maps = activation_maps(high, net.classifier.weight.detach(), presence)
    features = torch.cat([middle, high], dim=1)
    query, key = (
        torch.einsum("dk,bkhw->bdhw", each.weight[:, :, 0, 0], features) for each in (net.query, net.key)
    )
    spread = attended(query, key, maps, reached) + maps
    if net.background:
        spread = torch.cat([2 - spread.max(dim=1, keepdim=True).values, spread], dim=1)
    out = torch.einsum("dk,bkhw->bdhw", net.calibration.weight[:, :, 0, 0], spread)
    mean = out.mean(dim=(0, 2, 3), keepdim=True)
    variance = (out - mean).square().mean(dim=(0, 2, 3), keepdim=True)
    return (out - mean) / (variance + 1e-3).sqrt() + net.norm.bias[:, None, None]


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_logits_are_calibrated_maps_normalised_by_the_batch_in_evaluation_mode_too(
    background: bool, training: bool
):
    net = mapper(background=background).train(training)
    with torch.no_grad():
        net.norm.bias += torch.arange(4.0)
    reached = torch.rand(2, 4, 4, generator=torch.Generator().manual_seed(3)) > 0.3
    presence = torch.ones(2, 4 - background, dtype=torch.bool)
    presence[1, 0] = False
    found, seen = net(stages(), reached, presence), stages()
    assert found.score.shape == (2, 4 - background)
    torch.testing.assert_close(found.logits, slow_logits(net, seen, reached, presence))
    torch.testing.assert_close(found.score, net.classifier(seen.high.mean(dim=(2, 3))))


def test_without_labels_those_classes_are_there_whose_probability_is_half_or_more():
    net, seen = mapper(), stages()
    found = net(seen, REACHED, None)
    presence = net.scores(seen).sigmoid() >= 0.5
    assert 0 < presence.sum() < presence.numel()
    torch.testing.assert_close(found.logits, net(seen, REACHED, presence).logits)


def test_the_maps_teach_attention_and_calibration_alone_and_the_scores_the_encoder_and_the_classifier():
    net, seen = mapper(), stages()
    found = net(seen, REACHED, ALL)
    found.logits.square().mul(torch.rand_like(found.logits)).sum().backward(retain_graph=True)
    assert all(p.grad is not None and p.grad.any() for p in net.undecayed())
    assert net.classifier.weight.grad is None
    assert all(stage.grad is None for stage in seen)
    net.zero_grad()
    found.score.sum().backward()
    assert net.classifier.weight.grad.any() and seen.high.grad.any()
    assert seen.middle.grad is None and all(p.grad is None or not p.grad.any() for p in net.undecayed())


@pytest.mark.parametrize(("stride", "size", "points"), [(8, 9, 5), (8, 8, 4), (16, 5, 5), (32, 3, 3)])
def test_maps_are_at_stride_16_and_coarser_ones_stay(stride: int, size: int, points: int):
    net = mapper(stride=stride)
    found = net(stages(size, 5 if stride == 32 else None), REACHED, ALL)
    assert found.logits.shape == (2, 4, points, points)
    assert found.logits.isfinite().all()


def test_pooling_keeps_corners_where_they_are():
    net = mapper(stride=8)
    ramp = torch.arange(9.0).expand(1, 1, 9, 9)
    pooled = net._pooled(ramp)
    torch.testing.assert_close(pooled[0, 0, 0, 1:-1], torch.tensor([2.0, 4.0, 6.0]))


def test_with_fixed_statistics_an_image_s_maps_do_not_depend_on_the_others():
    net, seen = mapper(fixed_statistics=True).train(), stages()
    whole = net(seen, REACHED, ALL).logits
    alone = net(Stages(*(stage[:1] for stage in seen)), REACHED[:1], ALL[:1]).logits
    torch.testing.assert_close(whole[:1], alone)
    assert not torch.allclose(mapper().train()(seen, REACHED, ALL).logits, whole)


def test_what_no_map_explains_is_scored_2_as_background():
    """Fixed statistics, which are those of nothing yet, leave a shift that the batch's would take away."""
    net, nowhere = mapper(fixed_statistics=True).train(), torch.zeros(2, 3, dtype=torch.bool)
    found = net(stages(), REACHED, nowhere).logits
    expected = 2 * net.calibration.weight[:, 0, 0, 0] / (1 + 1e-3) ** 0.5
    torch.testing.assert_close(found, expected[:, None, None].expand_as(found))


def test_the_norm_has_no_factor_and_nothing_of_the_attention_decays():
    net = mapper()
    assert not net.norm.weight.requires_grad and (net.norm.eps, net.norm.momentum) == (1e-3, 0.001)
    undecayed = {id(p) for p in net.undecayed()}
    left = [name for name, p in net.named_parameters() if p.requires_grad and id(p) not in undecayed]
    assert left == ["classifier.weight", "classifier.bias"]
