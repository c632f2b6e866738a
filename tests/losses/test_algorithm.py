from collections import deque

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from losses import reference, scenes
from losses.algorithm import Taken, expected, rows, step
from losses.reference import Hyper
from losses.scenes import IGNORE, Scene

from u2pl.losses import contrastive
from u2pl.losses.memory_bank import MemoryBank


def check_partition(scene: Scene, taken: Taken, alpha: float | None) -> None:
    """Labels and unreliable pixels are Eqs. 6 and 15's, but for pixels whose entropy is the threshold itself."""
    distributions = [reference.softmax(s) for s in scenes.pixels(scene.logits[len(scene.label) :])]
    entropies = [reference.entropy(p) for p in distributions]
    valid = scene.valid.flatten().tolist()
    threshold = torch.inf if alpha is None else reference.gamma_t(entropies, valid, alpha)
    count = scene.label.numel()
    assert taken.label_P[:count].tolist() == scene.label.flatten().tolist()
    assert not taken.unreliable_P[:count].any()
    decided = zip(taken.label_P[count:].tolist(), taken.unreliable_P[count:].tolist(), strict=True)
    for (label, unreliable), p, h, counts in zip(decided, distributions, entropies, valid, strict=True):
        if abs(h - threshold) > 1e-9 or not counts:
            assert label == (reference.pseudo_label(p, h, threshold, IGNORE) if counts else IGNORE)
            assert unreliable == (counts and h > threshold)


any_steps = {
    "seed": st.integers(0, 10**6),
    "classes": st.integers(2, 6),
    "labels": st.sampled_from(scenes.LABELS),
    "logits": st.sampled_from(scenes.LOGITS),
    "features": st.sampled_from(scenes.FEATURES),
    "padded": st.sampled_from([0.0, 0.3]),
    "alpha": st.sampled_from([None, 0.0, 0.2, 0.5, 1.0]),
    "r": st.sampled_from([(3, 20), (1, 3), (0, 2), (1, 20), (2, 3)]),
    "delta_p": st.sampled_from([0.0, 0.3, 0.9]),
    "capacity": st.sampled_from([1, 4, 50]),
    "draws": st.sampled_from([(1, 1), (3, 5), (40, 3), (2, 60)]),
    "kind": st.sampled_from(["L_c", "L_b"]),
}


@given(**any_steps)
@example(
    seed=0,
    classes=2,
    labels="all",
    logits="random",
    features="random",
    padded=0.0,
    alpha=0.2,
    r=(3, 20),
    delta_p=0.3,
    capacity=50,
    draws=(3, 5),
    kind="L_c",
)
@settings(max_examples=120, deadline=None)
def test_steps_are_algorithm_1(
    seed: int,
    classes: int,
    labels: str,
    logits: str,
    features: str,
    padded: float,
    alpha: float | None,
    r: tuple[int, int],
    delta_p: float,
    capacity: int,
    draws: tuple[int, int],
    kind: str,
):
    """Three in a row, the first with an empty bank."""
    loss, compare = {
        "L_c": (contrastive.info_nce, reference.joint),
        "L_b": (contrastive.binary, reference.pairwise),
    }[kind]
    hyper = Hyper(delta_p, *r, tau=0.5)
    capacities = [capacity + c for c in range(classes)]
    bank = MemoryBank(capacities, 4).double()
    queues = [deque(maxlen=length) for length in capacities]
    generator = torch.Generator().manual_seed(seed)
    for number in range(3):
        scene = scenes.make(seed + number, classes, labels, logits, features, padded)
        if not scene.valid.any():
            continue
        result, taken = step(scene, bank, hyper, alpha, *draws, generator, loss)
        check_partition(scene, taken, alpha)
        assert result.item() == pytest.approx(expected(scene, taken, bank, queues, hyper, compare), abs=1e-9)
        assert bank.filled_C.tolist() == [len(queue) for queue in queues]


def test_in_the_first_step_the_batchs_own_negatives_are_used():
    """Algorithm 1 pushes before it samples, so that an empty bank is no obstacle."""
    scene, bank = scenes.make(0, 4, images=3), MemoryBank([100] * 4, 4).double()
    loss, taken = step(scene, bank, Hyper(0.3, 1, 4, 0.5), 0.5, 5, 5, torch.Generator().manual_seed(0))
    assert taken.use_C.all()
    assert loss.item() > 0


@pytest.mark.parametrize("labels", ["ignored", "absent"])
def test_a_class_that_nobody_has_is_left_out_but_counted_in_the_mean(labels: str):
    scene = scenes.make(1, 3, labels)
    bank = MemoryBank([100] * 3, 4).double()
    loss, taken = step(scene, bank, Hyper(0.3, 1, 3, 0.5), 1.0, 5, 5, torch.Generator().manual_seed(0))
    # With alpha 1 no unlabelled pixel is reliable, so anchors come from labels alone.
    assert taken.use_C.tolist() == ([False] * 3 if labels == "ignored" else [True, True, False])
    if labels == "ignored":
        assert loss.item() == 0


def test_the_gradient_goes_to_the_drawn_pixels_of_the_used_classes():
    scene = scenes.make(1, 3, "absent")
    scene.student.requires_grad_()
    bank = MemoryBank([100] * 3, 4).double()
    loss, taken = step(scene, bank, Hyper(0.3, 1, 3, 0.5), 0.2, 5, 5, torch.Generator().manual_seed(0))
    loss.backward()
    touched = rows(scene.student.grad).abs().sum(dim=1).nonzero().flatten()
    assert set(touched.tolist()) == set(taken.anchor_CM[taken.use_C].flatten().tolist())


def test_with_fewer_classes_than_r_l_reliable_labels_alone_give_negatives():
    """C not above r_l: Eq. 15 is empty, Eq. 14 takes every other class."""
    scene, bank = scenes.make(0, 2), MemoryBank([100] * 2, 4).double()
    step(scene, bank, Hyper(0.3, 3, 20, 0.5), 1.0, 2, 2, torch.Generator().manual_seed(0))
    label = scene.label.flatten()
    assert bank.filled_C.tolist() == [int((label == 1).sum()), int((label == 0).sum())]
