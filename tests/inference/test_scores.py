import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from u2pl.inference import scores

IGNORE = 255


def reference_iou(prediction: Tensor, label: Tensor, classes: int) -> list[float]:
    """TP / (TP + FP + FN) of each class in percent, pixel by pixel; NaN where that is 0 / 0."""
    pairs = [
        (p, y)
        for p, y in zip(prediction.flatten().tolist(), label.flatten().tolist(), strict=True)
        if y != IGNORE
    ]
    result = []
    for c in range(classes):
        right = sum(p == c and y == c for p, y in pairs)
        either = sum(p == c or y == c for p, y in pairs)
        result.append(100 * right / either if either else math.nan)
    return result


@given(
    seed=st.integers(0, 10**6),
    classes=st.integers(2, 6),
    void=st.sampled_from([0.0, 0.3, 1.0]),
    used=st.integers(1, 6),
)
@settings(max_examples=60, deadline=None)
def test_iou_is_true_positives_over_union(seed: int, classes: int, void: float, used: int):
    generator = torch.Generator().manual_seed(seed)
    prediction, label = torch.randint(0, min(used, classes), (2, 3, 4, 5), generator=generator)
    label[torch.rand(label.shape, generator=generator) < void] = IGNORE
    confusion = scores.confusion(prediction, label, classes, IGNORE)
    expected = reference_iou(prediction, label, classes)
    assert scores.iou(confusion).tolist() == pytest.approx(expected, abs=1e-9, nan_ok=True)
    present = [value for value in expected if value == value]
    mean = sum(present) / len(present) if present else math.nan
    assert scores.miou(confusion) == pytest.approx(mean, abs=1e-9, nan_ok=True)


@given(seed=st.integers(0, 10**6), classes=st.integers(2, 6), images=st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_the_images_of_a_batch_are_counted_each_for_itself(seed: int, classes: int, images: int):
    generator = torch.Generator().manual_seed(seed)
    prediction, label = torch.randint(0, classes, (2, images, 5, 7), generator=generator)
    label[torch.rand(label.shape, generator=generator) < 0.3] = IGNORE
    label[0] = IGNORE
    counts = scores.confusions(prediction, label, classes, IGNORE)
    expected = torch.zeros(images, classes, classes, dtype=torch.int64)
    for k, (p, y) in enumerate(zip(prediction, label, strict=True)):
        for guess, truth in zip(p.flatten().tolist(), y.flatten().tolist(), strict=True):
            if truth != IGNORE:
                expected[k, truth, guess] += 1
    assert counts.dtype == torch.int64 and torch.equal(counts, expected)
    assert torch.equal(scores.confusion(prediction, label, classes, IGNORE), counts.sum(0))
    assert torch.equal(scores.confusions(prediction, label.byte(), classes, IGNORE), counts)
    ious = torch.stack([scores.iou(one) for one in counts])
    torch.testing.assert_close(scores.iou(counts), ious, rtol=0, atol=0, equal_nan=True)
    assert scores.iou(counts)[0].isnan().all(), "without labels there is no IoU"


def test_an_ignored_index_that_is_no_class_number_is_ignored_as_well():
    """0 to 3 are classes; 4, the next bin, is not special, and 0 or a negative number can be the ignored one."""
    for ignore_index in (4, 0, -1, -100):
        label = torch.tensor([[1, 2, ignore_index]])
        counts = scores.confusions(torch.tensor([[1, 3, 3]]), label, 4, ignore_index)[0]
        assert counts.nonzero().tolist() == [[1, 1], [2, 3]]


def test_rows_are_true_classes_and_columns_predictions():
    confusion = scores.confusion(torch.tensor([2, 2, 0]), torch.tensor([1, 1, 0]), 3, IGNORE)
    assert confusion.tolist() == [[1, 0, 0], [0, 0, 2], [0, 0, 0]]


def test_ignored_pixels_count_neither_as_right_nor_as_wrong():
    prediction, label = torch.tensor([0, 1, 1]), torch.tensor([0, IGNORE, 1])
    assert scores.confusion(prediction, label, 2, IGNORE).sum() == 2


def test_a_class_that_is_predicted_and_nowhere_true_counts_as_0_and_one_that_is_neither_does_not_count():
    confusion = scores.confusion(torch.tensor([0, 1]), torch.tensor([0, 0]), 3, IGNORE)
    assert scores.iou(confusion).tolist() == pytest.approx([50, 0, math.nan], nan_ok=True)
    assert scores.miou(confusion) == 25


def test_a_class_that_nowhere_occurs_can_count_as_0():
    confusion = scores.confusion(torch.tensor([0, 1]), torch.tensor([0, 1]), 4, IGNORE)
    assert (scores.miou(confusion), scores.miou(confusion, absent_as_zero=True)) == (100, 50)


def test_where_every_class_occurs_the_two_means_agree():
    confusion = torch.tensor([[5, 1], [2, 4]])
    assert scores.miou(confusion) == scores.miou(confusion, absent_as_zero=True)


def test_the_mean_is_taken_over_the_data_set_and_not_over_images():
    """One image all right, one with a single pixel of the class, wrong: not (100 + 0) / 2."""
    images = [([1] * 9 + [0], [1] * 9 + [0]), ([0] * 10, [1] + [0] * 9)]
    total = sum(scores.confusion(torch.tensor(p), torch.tensor(y), 2, IGNORE) for p, y in images)
    assert scores.iou(total)[1].item() == 90
