from collections import deque

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import Tensor

from u2pl.losses.memory_bank import MemoryBank

FEATURES = 3


def pixels(first: int, count: int) -> Tensor:
    """Representations that say which pixel they are: the k-th is (k, k, k)."""
    return torch.arange(first, first + count, dtype=torch.float32)[:, None].expand(count, FEATURES)


def contents(bank: MemoryBank, c: int) -> set[float]:
    """What class c holds, found by drawing so often that nothing is missed."""
    if bank.filled_C[c] == 0:
        return set()
    draw = bank.sample(1, 60 * int(bank.filled_C.max()), torch.Generator().manual_seed(0))
    return set(draw[c, 0, :, 0].tolist())


@given(
    seed=st.integers(0, 10**6),
    capacities=st.lists(st.integers(1, 9), min_size=2, max_size=4),
    pushes=st.lists(st.integers(0, 25), max_size=6),
    density=st.sampled_from([0.0, 0.3, 1.0]),
)
@settings(max_examples=60, deadline=None)
def test_each_class_keeps_its_newest_like_a_deque_of_limited_length(
    seed: int, capacities: list[int], pushes: list[int], density: float
):
    generator = torch.Generator().manual_seed(seed)
    bank = MemoryBank(capacities, FEATURES)
    queues = [deque[float](maxlen=capacity) for capacity in capacities]
    seen = 1
    for count in pushes:
        z = pixels(seen, count)
        mask = torch.rand(count, len(capacities), generator=generator) < density
        bank.push(z, mask)
        for j, c in mask.nonzero().tolist():
            queues[c].append(z[j, 0].item())
        seen += count
    assert bank.filled_C.tolist() == [len(queue) for queue in queues]
    for c, queue in enumerate(queues):
        assert contents(bank, c) == set(queue)


def test_more_pixels_in_one_push_than_fit_leave_the_newest():
    bank = MemoryBank([4, 2], FEATURES)
    bank.push(pixels(0, 100), torch.ones(100, 2, dtype=torch.bool))
    assert contents(bank, 0) == {96, 97, 98, 99}
    assert contents(bank, 1) == {98, 99}


def test_an_empty_class_is_sampled_as_zeros_beside_a_full_one():
    bank = MemoryBank([4, 4], FEATURES)
    bank.push(pixels(7, 1), torch.tensor([[False, True]]))
    draw = bank.sample(2, 5)
    assert draw.shape == (2, 2, 5, FEATURES)
    assert draw[0].eq(0).all()
    assert draw[1].eq(7).all()


def test_every_negative_is_drawn_equally_often_and_anchors_draw_their_own():
    bank = MemoryBank([3, 10], FEATURES)
    bank.push(pixels(0, 10), torch.ones(10, 2, dtype=torch.bool))
    draw = bank.sample(100, 200, torch.Generator().manual_seed(0))[1, :, :, 0]
    assert chisquare(draw.flatten().long().bincount(minlength=10).numpy()).pvalue > 0.01
    assert len(draw.unique(dim=0)) == 100


def test_what_is_stored_is_a_copy_without_a_gradient():
    z = torch.ones(2, FEATURES, requires_grad=True)
    bank = MemoryBank([2], FEATURES)
    bank.push(z * 1, torch.ones(2, 1, dtype=torch.bool))
    with torch.no_grad():
        z.zero_()
    assert contents(bank, 0) == {1}
    assert not bank.sample(1, 1).requires_grad


def test_a_half_precision_representation_is_stored_in_single_precision():
    bank = MemoryBank([2], FEATURES)
    bank.push(torch.full((1, FEATURES), 0.5, dtype=torch.bfloat16), torch.ones(1, 1, dtype=torch.bool))
    assert bank.sample(1, 1).dtype == torch.float32
    assert contents(bank, 0) == {0.5}


def test_a_restored_bank_goes_on_as_the_old_one_would_have():
    old, new = MemoryBank([3, 5], FEATURES), MemoryBank([3, 5], FEATURES)
    old.push(pixels(0, 7), torch.ones(7, 2, dtype=torch.bool))
    new.load_state_dict(old.state_dict())
    for bank in (old, new):
        bank.push(pixels(7, 2), torch.ones(2, 2, dtype=torch.bool))
    first, second = (bank.sample(4, 6, torch.Generator().manual_seed(1)) for bank in (old, new))
    assert torch.equal(first, second)
    assert contents(new, 0) == {6, 7, 8}


def test_a_bank_of_other_capacities_does_not_take_the_state_in_silence():
    with pytest.raises(RuntimeError, match="size mismatch"):
        MemoryBank([4, 5], FEATURES).load_state_dict(MemoryBank([3, 5], FEATURES).state_dict())


def test_sampling_allocates_what_it_draws_and_not_what_the_bank_holds():
    bank = MemoryBank([50_000, 50_000], FEATURES)
    bank.push(pixels(1, 50_000), torch.ones(50_000, 2, dtype=torch.bool))
    with torch.profiler.profile(profile_memory=True) as profile:
        bank.sample(2, 4)
    assert max(event.cpu_memory_usage for event in profile.key_averages()) < 10_000
