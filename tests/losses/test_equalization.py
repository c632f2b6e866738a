import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from losses import reference, scenes
from torch import Tensor

from u2pl.losses.equalization import (
    keep_rate,
    sampling,
    true_class_probability,
    update,
    weighted_cross_entropy,
    weights,
)

IGNORE = scenes.IGNORE
seeds = st.integers(0, 10**6)
confidences = st.lists(st.floats(0, 1), min_size=1, max_size=6)
exponents = st.sampled_from([0.0, 0.5, 1.0, 2.0])


def doubles(values: Sequence[float] | Sequence[Sequence[float]]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def close(found: Tensor, expected: object, within: float = 1e-9) -> None:
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found, np.array(expected), rtol=0, atol=within)


def batch_of(seed: int, classes: int, labels: str, kind: str) -> tuple[Tensor, Tensor]:
    """Logits and labels of three images, of which the last has no label of class 0."""
    scene = scenes.make(seed, classes, labels, kind, images=3)
    label = scene.label.clone()
    label[2] = label[2].masked_fill(label[2] == 0, IGNORE)
    return scene.logits[:3], label


def true_probabilities(logits: Tensor, label: Tensor, classes: int) -> list[list[list[float]]]:
    """Of each image and class, the class's probability on each of its pixels."""
    found: list[list[list[float]]] = []
    for image, truth in zip(logits, label, strict=True):
        of_image: list[list[float]] = [[] for _ in range(classes)]
        for scores, y in zip(scenes.pixels(image[None]), truth.flatten().tolist(), strict=True):
            if y != IGNORE:
                of_image[y].append(reference.softmax(scores)[y])
        found.append(of_image)
    return found


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def bank(
    before: Sequence[float], found: list[list[list[float]]], momentum: float, over: str, absent: str
) -> list[float]:
    """Conf after a batch with these probabilities of the true class, by image and class."""
    after = []
    for c, old in enumerate(before):
        present = [image[c] for image in found if image[c]]
        if not present:
            after.append(old if absent == "keep" else momentum * old)
            continue
        pooled = [p for image in present for p in image]
        v = mean([mean(image) for image in present]) if over == "image" else mean(pooled)
        after.append(momentum * old + (1 - momentum) * v)
    return after


# Eq. 4


@given(
    seed=seeds,
    classes=st.integers(2, 6),
    labels=st.sampled_from(scenes.LABELS),
    kind=st.sampled_from(scenes.LOGITS),
)
@settings(max_examples=60, deadline=None)
def test_a_classs_probability_is_summed_over_its_own_pixels_of_each_image(
    seed: int, classes: int, labels: str, kind: str
):
    logits, label = batch_of(seed, classes, labels, kind)
    total, count = true_class_probability(logits, label, IGNORE)
    found = true_probabilities(logits, label, classes)
    close(total, [[math.fsum(p) for p in image] for image in found])
    close(count, [[len(p) for p in image] for image in found], 0)


def test_the_ignored_class_may_be_any_number():
    logits = torch.randn(1, 3, 1, 3, dtype=torch.float64)
    for ignore in (-1, 3, 200):
        total, count = true_class_probability(logits, torch.tensor([[[ignore, 2, ignore]]]), ignore)
        close(total, [[0, 0, reference.softmax(logits[0, :, 0, 1].tolist())[2]]])
        close(count, [[0, 0, 1]], 0)


def test_sums_of_a_true_class_that_is_certain_are_the_counts_and_of_an_impossible_one_nothing():
    logits = torch.full((1, 2, 20, 30), -1e4)
    logits[:, 0] = 1e4
    total, count = true_class_probability(logits, torch.zeros(1, 20, 30, dtype=torch.int64), IGNORE)
    assert total.tolist() == count.tolist() == [[600, 0]]
    total, _ = true_class_probability(logits, torch.ones(1, 20, 30, dtype=torch.int64), IGNORE)
    assert total.tolist() == [[0, 0]]


@given(
    seed=seeds,
    classes=st.integers(2, 6),
    labels=st.sampled_from(scenes.LABELS),
    kind=st.sampled_from(scenes.LOGITS),
    momentum=st.sampled_from([0.0, 0.3, 0.999]),
    over=st.sampled_from(["image", "pixel"]),
    absent=st.sampled_from(["keep", "zero"]),
)
@settings(max_examples=120, deadline=None)
def test_the_bank_moves_towards_the_mean_over_images_or_over_pixels(
    seed: int, classes: int, labels: str, kind: str, momentum: float, over: str, absent: str
):
    logits, label = batch_of(seed, classes, labels, kind)
    before = torch.rand(classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    sums = true_class_probability(logits, label, IGNORE)
    after = update(before, *sums, momentum=momentum, mean=over, absent=absent)
    found = true_probabilities(logits, label, classes)
    close(after, bank(before.tolist(), found, momentum, over, absent))


@pytest.mark.parametrize(
    ("over", "absent", "expected"),
    [
        ("image", "keep", [0.5, 0.3, 0.6]),
        ("image", "zero", [0.5, 0.3, 0.3]),
        ("pixel", "keep", [0.34, 0.3, 0.6]),
        ("pixel", "zero", [0.34, 0.3, 0.3]),
    ],
)
def test_an_image_with_few_pixels_of_a_class_counts_as_much_as_one_with_many_or_as_its_pixels(
    over: str, absent: str, expected: list[float]
):
    """Class 0 is in two images, class 1 in one, class 2 in none."""
    total, count = doubles([[0.9, 0, 0], [0.9, 2, 0]]), doubles([[1, 0, 0], [9, 10, 0]])
    after = update(doubles([0.5, 0.4, 0.6]), total, count, momentum=0.5, mean=over, absent=absent)
    close(after, expected)


@pytest.mark.parametrize("over", ["image", "pixel"])
def test_a_batch_without_labels_leaves_the_bank_or_lets_it_sink(over: str):
    before, nothing = doubles([0.25, 1.0]), torch.zeros(3, 2, dtype=torch.float64)
    kept, sunk = (
        update(before, nothing, nothing, momentum=0.9, mean=over, absent=absent)
        for absent in ("keep", "zero")
    )
    assert torch.equal(kept, before)
    close(sunk, [0.225, 0.9])


@given(confidence=st.floats(0, 1, width=32), momentum=st.floats(0, 1, exclude_max=True))
@example(confidence=1.0, momentum=0.999)
@settings(max_examples=80, deadline=None)
def test_in_single_precision_a_confidence_never_exceeds_1(confidence: float, momentum: float):
    """Beyond it a root of what is lacking would be no number."""
    logits = torch.zeros(2, 2, 40, 40)
    logits[:, 1] = 200
    sums = true_class_probability(logits, torch.ones(2, 40, 40, dtype=torch.int64), IGNORE)
    for over in ("image", "pixel"):
        before = torch.tensor([confidence, confidence])
        after = update(before, *sums, momentum=momentum, mean=over, absent="keep")
        assert after.dtype == torch.float32
        assert 0 <= after[1] <= 1
        assert after[0] == before[0]


# Eq. 9


def drawing(confidence: Sequence[float], power: float, among: Sequence[bool]) -> list[float]:
    """softmax((1 - Conf)^power) over some of the classes."""
    weight = [math.exp((1 - x) ** power) if may else 0.0 for x, may in zip(confidence, among, strict=True)]
    return [w / math.fsum(weight) for w in weight]


@given(confidence=confidences, power=exponents)
@settings(max_examples=60, deadline=None)
def test_classes_are_drawn_by_equation_9(confidence: list[float], power: float):
    everything = [True] * len(confidence)
    close(sampling(doubles(confidence), power), drawing(confidence, power, everything))
    close(sampling(doubles(confidence)), drawing(confidence, 1, everything))


@given(data=st.data(), confidence=confidences, power=exponents)
@settings(max_examples=60, deadline=None)
def test_classes_that_are_left_out_are_never_drawn_and_the_others_as_if_there_were_no_more(
    data: st.DataObject, confidence: list[float], power: float
):
    among = data.draw(st.lists(st.booleans(), min_size=len(confidence), max_size=len(confidence)))
    among[data.draw(st.integers(0, len(confidence) - 1))] = True
    share = sampling(doubles(confidence), power, torch.tensor(among))
    close(share, drawing(confidence, power, among))
    assert not share[~torch.tensor(among)].any()


def test_the_class_learned_worst_is_the_likeliest_and_equal_ones_are_equally_likely():
    share = sampling(doubles([0.9, 0.1, 0.5, 0.5]))
    assert share.argmax() == 1 and share.argmin() == 0
    assert share[2] == share[3]
    assert share.sum().item() == pytest.approx(1)


# Adaptive equalization sampling


def rates(confidence: Sequence[float], beta: float) -> list[float]:
    most = max(1 - x for x in confidence)
    return [((1 - x) / most) ** beta if most > 0 else 1.0 for x in confidence]


@given(confidence=confidences, beta=exponents)
@example(confidence=[1.0, 1.0], beta=1.0)
@example(confidence=[1.0, 0.0], beta=0.0)
@example(confidence=[1.0, 1 - 2**-53], beta=2.0)
@settings(max_examples=80, deadline=None)
def test_of_a_class_pixels_are_kept_as_it_lacks_confidence_beside_the_worst(
    confidence: list[float], beta: float
):
    close(keep_rate(doubles(confidence), beta), rates(confidence, beta))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 3.0])
def test_all_is_kept_of_the_worst_class_and_of_perfect_classes_where_there_is_no_other(
    beta: float, dtype: torch.dtype
):
    assert keep_rate(torch.tensor([0.75, 0.2, 0.5], dtype=dtype), beta)[1] == 1
    assert keep_rate(torch.ones(3, dtype=dtype), beta).tolist() == [1, 1, 1]
    assert keep_rate(torch.zeros(3, dtype=dtype), beta).tolist() == [1, 1, 1]
    just_below = torch.tensor([1, 1 - torch.finfo(dtype).eps], dtype=dtype)
    assert keep_rate(just_below, beta).tolist() == [0 if beta else 1, 1]


def test_with_beta_0_all_classes_are_kept_whole():
    assert keep_rate(doubles([0, 0.5, 1]), 0.0).tolist() == [1, 1, 1]


# The weights of pixels


@given(seed=seeds, gamma=exponents, valid_share=st.sampled_from([0.0, 0.6, 1.0]))
@settings(max_examples=60, deadline=None)
def test_a_pixel_weighs_its_confidence_to_the_gamma_where_it_is_kept(
    seed: int, gamma: float, valid_share: float
):
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    confidence, rate, draw = rand(2, 4, 5), rand(3), rand(4, 5)
    rate[0], confidence[0, 0] = 1, 0
    predicted = torch.randint(3, (2, 4, 5), generator=generator)
    valid = rand(2, 4, 5) < valid_share
    found = weights(confidence, predicted, valid, rate_C=rate, draw_HW=draw, gamma=gamma)
    expected = np.zeros((2, 4, 5))
    for b, y, x in np.ndindex(2, 4, 5):
        if valid[b, y, x] and draw[y, x] < rate[predicted[b, y, x]]:
            expected[b, y, x] = float(confidence[b, y, x]) ** gamma
    close(found, expected, 1e-12)


def test_with_rates_of_1_every_valid_pixel_is_kept_and_with_rates_of_0_none():
    confidence, predicted = torch.rand(2, 3, 4), torch.zeros(2, 3, 4, dtype=torch.int64)
    valid = torch.rand(2, 3, 4) < 0.7
    just_below_1 = 1 - torch.finfo(torch.float32).eps / 2
    for draw in (0.0, 0.5, just_below_1):
        for rate, kept in ((1.0, valid), (0.0, torch.zeros_like(valid))):
            found = weights(
                confidence,
                predicted,
                valid,
                rate_C=torch.tensor([rate]),
                draw_HW=torch.full((3, 4), draw),
                gamma=0.0,
            )
            assert torch.equal(found, kept.float())


def test_all_images_are_kept_by_the_same_draw():
    draw = torch.rand(8, 9)
    found = weights(
        torch.full((3, 8, 9), 0.5),
        torch.ones(3, 8, 9, dtype=torch.int64),
        torch.ones(3, 8, 9, dtype=torch.bool),
        rate_C=torch.tensor([0.0, 0.5]),
        draw_HW=draw,
        gamma=2.0,
    )
    assert torch.equal(found, torch.where(draw < 0.5, 0.25, 0.0).expand(3, 8, 9))


def test_what_is_said_of_an_invalid_pixel_does_not_matter():
    valid = torch.tensor([[[True, False]]])
    found = weights(
        torch.tensor([[[0.5, torch.nan]]]),
        torch.tensor([[[1, 0]]]),
        valid,
        rate_C=torch.ones(2),
        draw_HW=torch.zeros(1, 2),
        gamma=1.0,
    )
    assert found.tolist() == [[[0.5, 0]]]


# Eq. 12


@given(
    seed=seeds,
    classes=st.integers(2, 6),
    labels=st.sampled_from(scenes.LABELS),
    kind=st.sampled_from(scenes.LOGITS),
)
@settings(max_examples=60, deadline=None)
def test_of_each_image_the_weighted_cross_entropies_are_summed(
    seed: int, classes: int, labels: str, kind: str
):
    logits, target = batch_of(seed, classes, labels, kind)
    weight = torch.rand(target.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = weighted_cross_entropy(logits, target, weight, IGNORE)
    expected = [
        math.fsum(
            w * reference.cross_entropy([scores], [y], IGNORE)
            for scores, y, w in zip(
                scenes.pixels(logits[i : i + 1]),
                target[i].flatten().tolist(),
                weight[i].flatten().tolist(),
                strict=True,
            )
        )
        for i in range(3)
    ]
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-9)


def test_an_image_whose_pixels_are_all_ignored_has_a_loss_of_zero_and_a_gradient_of_zero():
    logits = torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([[[IGNORE, IGNORE], [IGNORE, IGNORE]], [[0, 1], [2, 0]]])
    loss = weighted_cross_entropy(logits, target, torch.ones(2, 2, 2, dtype=torch.float64), IGNORE)
    loss.sum().backward()
    assert loss[0] == 0 and loss[1] > 0
    assert torch.equal(logits.grad[0], torch.zeros(3, 2, 2, dtype=torch.float64))


@given(seed=seeds, classes=st.integers(2, 5))
@settings(max_examples=20, deadline=None)
def test_the_gradient_is_the_weight_times_p_less_the_target_and_nothing_where_it_is_ignored(
    seed: int, classes: int
):
    logits, target = batch_of(seed, classes, "all", "random")
    weight = torch.rand(target.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    weight[:, 0] = 0
    scale = doubles([1.0, -2.0, 0.5])
    logits = logits.clone().requires_grad_()
    (scale * weighted_cross_entropy(logits, target, weight, IGNORE)).sum().backward()
    expected = np.zeros(logits.shape)
    for b, y, x in np.ndindex(*target.shape):
        truth = int(target[b, y, x])
        if truth != IGNORE:
            slope = np.array(reference.softmax(logits[b, :, y, x].tolist()))
            slope[truth] -= 1
            expected[b, :, y, x] = float(scale[b] * weight[b, y, x]) * slope
    close(logits.grad, expected, 1e-12)


def test_the_gradient_is_that_of_finite_differences():
    logits, target = batch_of(0, 3, "all", "random")
    weight = torch.rand(target.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda scores: weighted_cross_entropy(scores, target, weight, IGNORE), logits.clone().requires_grad_()
    )
