"""What a step takes, tried out before a long run."""

import copy

import pytest
import torch
from methods.tiny_method import EPOCH_STEPS, EPOCHS, at, build, make_batch
from training.test_learner import CPU, START, learner, take

from u2pl.batches.loader import Batch
from u2pl.errors import UserError
from u2pl.training import memory
from u2pl.training.learner import Learner

LAST = at(EPOCHS * EPOCH_STEPS - 1)


def test_a_trial_leaves_everything_as_it_was():
    tried, plain = learner(), learner()
    before = copy.deepcopy(tried.state_dict())
    memory.try_step(tried, make_batch(), LAST)
    after = tried.state_dict()
    assert all(torch.equal(value, after["method"][name]) for name, value in before["method"].items())
    (old,), (new,) = before["optimizers"], after["optimizers"]
    for number, state in old["state"].items():
        assert torch.equal(state["momentum_buffer"], new["state"][number]["momentum_buffer"])
    assert all(p.grad is None for p in tried.method.parameters())
    assert tried.method.recipe == plain.method.recipe
    ours, theirs = take(tried), take(plain)
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def peaks(monkeypatch: pytest.MonkeyPatch, fixed: int, each: int, room: int) -> list[int]:
    """A device on which a step takes so many bytes; how many images went at once in each step taken."""
    taken: list[int] = []
    original = Learner.step

    def step(self, batch, place):
        taken.append(self.method.recipe.micro_batch)
        return original(self, batch, place)

    monkeypatch.setattr(Learner, "step", step)
    monkeypatch.setattr(memory, "peak", lambda device: fixed + each * taken[-1])
    monkeypatch.setattr(memory, "available", lambda device: room)
    return taken


def eight() -> Learner:
    method = build("u2pl", batch=8)
    return Learner(method, method.recipe, EPOCHS * EPOCH_STEPS, CPU)


def test_a_step_that_fits_is_taken_whole_and_the_largest_that_would_fit_is_named(
    monkeypatch: pytest.MonkeyPatch,
):
    taken = peaks(monkeypatch, fixed=100, each=10, room=305)
    trial = memory.try_step(eight(), make_batch(images=8), LAST)
    assert taken == [1, 2, 8]
    assert (trial.peak, trial.available, trial.at_once, trial.largest) == (180, 305, 16, 40)
    assert trial.metrics()["memory/largest"] == 40


def test_a_step_that_will_not_fit_is_not_tried_and_the_largest_part_that_does_is_named(
    monkeypatch: pytest.MonkeyPatch,
):
    """The line through one and two images at once says that 8 + 8 take 180 bytes, 4 + 4 take 140."""
    taken = peaks(monkeypatch, fixed=100, each=10, room=150)
    with pytest.raises(UserError, match=r"16 images at once would take .* --micro-batch 4"):
        memory.try_step(eight(), make_batch(images=8), LAST)
    assert taken == [1, 2]


def test_where_not_even_one_image_fits_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch):
    def full(self, batch, place):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(Learner, "step", full)
    with pytest.raises(UserError, match=r"--set crop=.*--recompute"):
        memory.try_step(eight(), make_batch(images=8), LAST)


def test_without_unlabelled_images_twice_as_many_labelled_ones_go_at_once(monkeypatch: pytest.MonkeyPatch):
    """The line must be one of images, or a run is refused for memory that it would not take."""
    seen: list[int] = []
    method = build("suponly", batch=7)
    method.student.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    peaks(monkeypatch, fixed=100, each=10, room=145)
    trial = memory.try_step(
        Learner(method, method.recipe, EPOCHS * EPOCH_STEPS, CPU), labeled_only(make_batch(images=7)), LAST
    )
    assert seen == [2, 2, 3, 4, 3, 7]
    assert (trial.peak, trial.at_once, trial.largest) == (140, 8, 8)


def labeled_only(batch: Batch) -> Batch:
    return Batch(batch.labeled, None)


def test_a_larger_step_is_seen_to_take_more():
    """Real bytes: resident memory on a CPU."""
    peaks = []
    for size in (32, 512):
        one = learner()
        memory.reset(CPU)
        one.method.train()
        one.step(make_batch(size=size), at(START))
        peaks.append(memory.peak(CPU))
    assert peaks[1] > peaks[0] + 20e6
