from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from losses import reference, scenes
from torch import Tensor
from torch.nn.functional import interpolate

from u2pl.losses import enlarged
from u2pl.losses.partition import alpha_t, entropy, gamma_t, percentile, predict, pseudo_label

IGNORE = scenes.IGNORE
seeds = st.integers(0, 10**6)
shares = st.one_of(st.sampled_from([0.0, 0.2, 0.5, 1.0]), st.floats(0, 1))
kinds = st.sampled_from(scenes.LOGITS)
layouts = st.sampled_from(["rows", "channels last", "every other column"])


def laid_out(logits_BCHW: Tensor, layout: str) -> Tensor:
    """The same numbers, in another order in memory."""
    if layout == "channels last":
        return logits_BCHW.contiguous(memory_format=torch.channels_last)
    if layout == "every other column":
        return logits_BCHW.repeat_interleave(2, dim=3)[..., ::2]
    return logits_BCHW


def chunks_of(count: int):
    """Lets `predict` work on so many pixels at once."""
    return mock.patch.object(enlarged, "_PIXELS_AT_ONCE", count)


# Eq. 5 and the argmax of Eq. 6


@given(seed=seeds, classes=st.integers(2, 6), kind=kinds)
@settings(max_examples=40, deadline=None)
def test_entropy_is_equation_5(seed: int, classes: int, kind: str):
    prob = scenes.make(seed, classes, logits=kind).logits.softmax(dim=1)
    expected = [reference.entropy(p) for p in scenes.pixels(prob)]
    np.testing.assert_allclose(entropy(prob).flatten(), expected, rtol=0, atol=1e-9)


def test_a_certain_pixel_has_no_entropy_and_an_undecided_one_log_c():
    prob = torch.tensor([[1.0, 0, 0], [1 / 3, 1 / 3, 1 / 3]], dtype=torch.float64).T.reshape(1, 3, 1, 2)
    logits = torch.tensor([[1e4, -1e4, 0], [7, 7, 7]], dtype=torch.float64).T.reshape(1, 3, 1, 2)
    for result in (entropy(prob), predict(logits).entropy):
        assert result.flatten().tolist() == pytest.approx([0, np.log(3)], abs=1e-12)
    assert predict(logits).confidence.flatten().tolist() == pytest.approx([1, 1 / 3], abs=1e-12)


@given(
    seed=seeds,
    classes=st.integers(1, 6),
    kind=kinds,
    images=st.integers(1, 2),
    size=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    at_once=st.integers(1, 70),
    layout=layouts,
)
@example(seed=0, classes=3, kind="random", images=1, size=(7, 3), at_once=6, layout="channels last")
@example(seed=0, classes=3, kind="random", images=2, size=(3, 8), at_once=5, layout="rows")
@settings(max_examples=120, deadline=None)
def test_predict_is_softmax_equation_5_argmax_and_max(
    seed: int, classes: int, kind: str, images: int, size: tuple[int, int], at_once: int, layout: str
):
    """Also where the height is no multiple of the rows worked on at once, and where a single row is more than that."""
    logits = laid_out(scenes.make(seed, classes, logits=kind, images=images, size=size).logits, layout)
    with chunks_of(at_once):
        label, scores, confidence = predict(logits)
    assert label.shape == scores.shape == confidence.shape == (2 * images, *size)
    distributions = [reference.softmax(s) for s in scenes.pixels(logits)]
    assert label.flatten().tolist() == [reference.argmax(s) for s in scenes.pixels(logits)]
    np.testing.assert_allclose(
        scores.flatten(), [reference.entropy(p) for p in distributions], rtol=0, atol=1e-9
    )
    np.testing.assert_allclose(confidence.flatten(), [max(p) for p in distributions], rtol=0, atol=1e-12)


@given(
    seed=seeds,
    small=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    at_once=st.integers(1, 70),
)
@settings(max_examples=80, deadline=None)
def test_predict_at_another_size_is_that_of_interpolated_logits(
    seed: int, small: tuple[int, int], size: tuple[int, int], at_once: int
):
    logits = scenes.make(seed, 4, size=small).logits
    large = interpolate(logits, size=size, mode="bilinear", align_corners=True)
    with chunks_of(at_once):
        found, expected = predict(logits, size), predict(large)
    sure = large.topk(2, dim=1).values.diff(dim=1)[:, 0].abs() > 1e-9
    assert torch.equal(found.label[sure], expected.label[sure])
    for name in ("entropy", "confidence"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=0, atol=1e-9)


@pytest.mark.parametrize("size", [(70, 1000), (3, 2**15 + 5), (2**15 + 5, 1), (1, 1)])
@pytest.mark.parametrize("layout", ["rows", "channels last"])
def test_predict_in_the_chunks_it_really_takes_is_predict_in_one_piece(size: tuple[int, int], layout: str):
    logits = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    label, scores, confidence = predict(laid_out(logits, layout))
    prob = logits.softmax(dim=1)
    assert torch.equal(label, logits.argmax(dim=1))
    np.testing.assert_allclose(scores, torch.special.entr(prob).sum(dim=1), rtol=0, atol=1e-12)
    np.testing.assert_allclose(confidence, prob.amax(dim=1), rtol=0, atol=1e-12)


@given(seed=seeds, classes=st.integers(2, 40), layout=layouts, at_once=st.integers(1, 70))
@settings(max_examples=40, deadline=None)
def test_of_several_equal_top_logits_the_smallest_class_is_predicted(
    seed: int, classes: int, layout: str, at_once: int
):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.rand(1, classes, 6, 9, generator=generator)
    logits[torch.rand(logits.shape, generator=generator) < 0.5] = 2
    with chunks_of(at_once):
        label, *_ = predict(laid_out(logits, layout))
    top = logits == logits.amax(dim=1, keepdim=True)
    first = torch.where(top, torch.arange(classes)[:, None, None], classes).amin(dim=1)
    assert torch.equal(label, first)


@given(seed=seeds, scale=st.sampled_from([1e-6, 1.0, 30.0, 1e4, 1e30]))
@settings(max_examples=40, deadline=None)
def test_entropies_in_single_precision_are_finite_and_from_0_to_log_c(seed: int, scale: float):
    logits = scale * torch.randn(1, 5, 4, 4, generator=torch.Generator().manual_seed(seed))
    scores = predict(logits)[1]
    assert scores.dtype == torch.float32
    assert ((scores >= 0) & (scores <= np.log(5) + 1e-6)).all()
    expected = [reference.entropy(reference.softmax(s)) for s in scenes.pixels(logits)]
    np.testing.assert_allclose(scores.flatten(), expected, rtol=0, atol=2e-6)


@given(seed=seeds, scale=st.sampled_from([1e-6, 1.0, 30.0, 1e4, 1e30]), classes=st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_confidences_in_single_precision_are_from_1_over_c_to_1(seed: int, scale: float, classes: int):
    logits = scale * torch.randn(1, classes, 4, 4, generator=torch.Generator().manual_seed(seed))
    confidence = predict(logits).confidence
    assert confidence.dtype == torch.float32
    assert ((confidence >= 1 / classes - 1e-6) & (confidence <= 1)).all()
    expected = [max(reference.softmax(s)) for s in scenes.pixels(logits)]
    np.testing.assert_allclose(confidence.flatten(), expected, rtol=0, atol=1e-6)


def test_predict_leaves_the_logits_as_they_were():
    logits = torch.randn(2, 3, 4, 5)
    before = logits.clone()
    with chunks_of(7):
        predict(logits)
    assert torch.equal(logits, before)


# Eq. 7


@given(alpha0=st.floats(0, 1), epoch=st.integers(0, 79))
def test_alpha_t_is_equation_7(alpha0: float, epoch: int):
    assert alpha_t(alpha0, epoch, 80) == pytest.approx(reference.alpha_t(alpha0, epoch, 80), abs=1e-12)


def test_alpha_t_falls_from_alpha_0_towards_0():
    assert [alpha_t(0.2, epoch, 4) for epoch in range(4)] == pytest.approx([0.2, 0.15, 0.1, 0.05])


# gamma_t


@given(seed=seeds, count=st.integers(1, 40), alpha=shares, ties=st.booleans())
@settings(max_examples=80, deadline=None)
def test_gamma_t_is_numpys_percentile(seed: int, count: int, alpha: float, ties: bool):
    values = torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    values = (values * 4).round() if ties else values
    result = gamma_t(values, torch.ones(count, dtype=torch.bool), alpha).item()
    assert result == pytest.approx(np.percentile(values.numpy(), 100 * (1 - alpha)), abs=1e-9)
    assert result == pytest.approx(reference.gamma_t(values.tolist(), [True] * count, alpha), abs=1e-9)


@given(seed=seeds, share=shares, density=st.sampled_from([0.0, 0.05, 0.4, 1.0]))
@settings(max_examples=80, deadline=None)
def test_only_valid_values_count_whatever_the_others_are(seed: int, share: float, density: float):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(2, 4, 5, generator=generator, dtype=torch.float64)
    valid = torch.rand(values.shape, generator=generator) < density
    expected = np.percentile(values[valid].numpy(), 100 * share) if valid.any() else np.nan
    for other in (values, -torch.inf, torch.inf, torch.nan):
        result = percentile(torch.where(valid, values, other), valid, share)
        np.testing.assert_allclose(result, expected, rtol=0, atol=1e-9)


def test_the_threshold_of_alpha_0_is_the_highest_entropy_and_that_of_alpha_1_the_lowest():
    values, valid = (
        torch.tensor([[3.0, 1.0, 2.0, 9.0, 0.0]]),
        torch.tensor([[True, True, True, False, False]]),
    )
    assert gamma_t(values, valid, 0.0).item() == 3
    assert gamma_t(values, valid, 1.0).item() == 1


def test_the_share_may_be_a_tensor():
    values = torch.arange(5.0)
    share = torch.tensor(0.25, dtype=torch.float64)
    assert percentile(values, torch.ones(5, dtype=torch.bool), share).item() == 1


def test_a_threshold_has_the_precision_of_the_entropies_and_no_dimension():
    for dtype in (torch.float32, torch.float64):
        gamma = gamma_t(torch.rand(2, 3, 3, dtype=dtype), torch.ones(2, 3, 3, dtype=torch.bool), 0.3)
        assert gamma.dtype == dtype
        assert gamma.shape == ()


def test_without_a_valid_value_no_pixel_is_below_or_above_the_threshold():
    values = torch.rand(1, 2, 2)
    gamma = gamma_t(values, torch.zeros_like(values, dtype=torch.bool), 0.2)
    assert not (values < gamma).any()
    assert not (values > gamma).any()
    assert (pseudo_label(torch.zeros(1, 2, 2, dtype=torch.int64), values, gamma, IGNORE) == IGNORE).all()


def test_more_than_two_to_the_24_values_are_not_refused():
    count = 2**24 + 1
    values = torch.arange(2, dtype=torch.float16).repeat_interleave(count // 2 + 1)[:count]
    valid = torch.ones(1, dtype=torch.bool).expand(count)
    assert percentile(values, valid, 0.25).item() == 0
    assert percentile(values, valid, 0.75).item() == 1


# Eq. 6


@given(
    seed=seeds,
    classes=st.integers(2, 6),
    alpha=shares,
    kind=kinds,
    padded=st.sampled_from([0.0, 0.3]),
)
@settings(max_examples=80, deadline=None)
def test_pseudo_labels_from_logits_are_equation_6(
    seed: int, classes: int, alpha: float, kind: str, padded: float
):
    scene = scenes.make(seed, classes, logits=kind, padded=padded)
    logits, valid = scene.logits[len(scene.label) :], scene.valid
    label, scores, _ = predict(logits)
    gamma = gamma_t(scores, valid, alpha)
    result = pseudo_label(label.where(valid, IGNORE), scores, gamma, IGNORE).flatten().tolist()

    distributions = [reference.softmax(s) for s in scenes.pixels(logits)]
    entropies = [reference.entropy(p) for p in distributions]
    if not valid.any():
        assert result == [IGNORE] * len(result)
        return
    threshold = reference.gamma_t(entropies, valid.flatten().tolist(), alpha)
    assert gamma.item() == pytest.approx(threshold, abs=1e-9)
    for got, p, h, counts in zip(result, distributions, entropies, valid.flatten().tolist(), strict=True):
        # Of equal entropies, which pixel is at the threshold itself is a matter of rounding.
        if abs(h - threshold) > 1e-9:
            assert got == (reference.pseudo_label(p, h, threshold, IGNORE) if counts else IGNORE)


@pytest.mark.parametrize(("alpha", "unreliable"), [(0.0, 1), (0.2, 20), (0.5, 50), (1.0, 100)])
def test_the_share_alpha_of_highest_entropy_gets_no_pseudo_label(alpha: float, unreliable: int):
    """As Eq. 6 asks for an entropy below gamma_t, the one highest is left out even with alpha 0."""
    margin = torch.linspace(0.1, 4, 100, dtype=torch.float64)
    label, scores, _ = predict(torch.stack([margin, -margin]).reshape(1, 2, 10, 10))
    gamma = gamma_t(scores, torch.ones_like(scores, dtype=torch.bool), alpha)
    ignored = (pseudo_label(label, scores, gamma, IGNORE) == IGNORE).flatten()
    assert ignored.tolist() == [True] * unreliable + [False] * (100 - unreliable)


def test_where_all_pixels_are_equally_uncertain_none_is_reliable_and_none_unreliable():
    label, scores, _ = predict(torch.zeros(1, 4, 3, 3))
    gamma = gamma_t(scores, torch.ones_like(scores, dtype=torch.bool), 0.2)
    assert (pseudo_label(label, scores, gamma, IGNORE) == IGNORE).all()
    assert not (scores > gamma).any()


def test_below_the_threshold_every_pixel_keeps_its_label():
    label, scores, _ = predict(torch.randn(2, 3, 4, 4))
    assert torch.equal(pseudo_label(label, scores, scores.max() + 1, IGNORE), label)


def test_a_threshold_for_each_image_holds_for_that_image_alone():
    label, scores = torch.ones(2, 1, 2, dtype=torch.int64), torch.tensor([[[0.1, 0.5]], [[0.1, 0.5]]])
    gamma = torch.tensor([0.2, 0.6])[:, None, None]
    assert pseudo_label(label, scores, gamma, IGNORE).flatten().tolist() == [1, IGNORE, 1, 1]
