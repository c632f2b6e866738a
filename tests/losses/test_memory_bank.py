import io
from collections import deque
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import Tensor

from u2pl.losses.memory_bank import FALSE, NONE, TRUE, MemoryBank

FEATURES = 3
seeds = st.integers(0, 10**6)
known_or_not = st.sampled_from(["counts read", "counts not read"])


class UnreadBank(MemoryBank):
    """A bank as it works on a device whose counts are not read: only the number of pixels is known."""

    @staticmethod
    def _reads(mask: Tensor) -> bool:
        return False


def make(kind: str, capacities: list[int]) -> MemoryBank:
    return (UnreadBank if kind == "counts not read" else MemoryBank)(capacities, FEATURES)


def pixels(first: int, count: int) -> Tensor:
    """Representations that say which pixel they are: the k-th is (k, k, k)."""
    return torch.arange(first, first + count, dtype=torch.float32)[:, None].expand(count, FEATURES)


def everything(count: int, classes: int) -> Tensor:
    return torch.ones(classes, count, dtype=torch.bool)


def contents(bank: MemoryBank, c: int) -> list[float]:
    """What class c holds, oldest first: the k-th pixel ever pushed lies in the place k of its ring, round and round."""
    pushed, capacity, offset = int(bank.pushed_C[c]), int(bank.capacity_C[c]), int(bank.offset_C[c])
    numbers = range(pushed - int(bank.filled_C[c]), pushed)
    rows = bank.storage[bank.row[[offset + number % capacity for number in numbers]]]
    assert (rows == rows[:, :1]).all()
    return rows[:, 0].tolist()


# What is kept


@given(
    kind=known_or_not,
    seed=seeds,
    capacities=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    pushes=st.lists(
        st.tuples(st.integers(1, 25), st.sampled_from([0.0, 0.1, 0.5, 1.0]), st.booleans()), max_size=12
    ),
)
@settings(max_examples=150, deadline=None)
def test_each_class_keeps_its_newest_like_a_deque_of_limited_length(
    kind: str, seed: int, capacities: list[int], pushes: list[tuple[int, float, bool]]
):
    """Many pushes and few, of nothing, of more than fits; masks in any layout; a capacity of 1."""
    generator = torch.Generator().manual_seed(seed)
    bank = make(kind, capacities)
    queues = [deque[float](maxlen=capacity) for capacity in capacities]
    seen = 1
    for count, density, transposed in pushes:
        z = pixels(seen, count)
        mask = torch.rand(len(capacities), count, generator=generator) < density
        bank.push(z, mask.T.contiguous().T if transposed else mask)
        for c, j in mask.nonzero().tolist():
            queues[c].append(z[j, 0].item())
        seen += count
        assert bank.filled_C.tolist() == [len(queue) for queue in queues]
        assert [contents(bank, c) for c in range(len(queues))] == [list(queue) for queue in queues]


@given(kind=known_or_not, seed=seeds, capacities=st.lists(st.integers(1, 9), min_size=1, max_size=4))
@settings(max_examples=50, deadline=None)
def test_what_is_known_of_a_negative_is_kept_and_goes_with_it(kind: str, seed: int, capacities: list[int]):
    """Counted are the negatives that the bank holds, and not those that were pushed out again."""
    generator = torch.Generator().manual_seed(seed)
    bank = (UnreadBank if kind == "counts not read" else MemoryBank)(capacities, FEATURES, judged=True)
    queues = [deque[int](maxlen=capacity) for capacity in capacities]
    assert bank.false_2C.tolist() == [[0] * len(capacities)] * 2
    for _ in range(6):
        judgement = torch.randint(4, (len(capacities), 7), generator=generator, dtype=torch.uint8)
        bank.push(pixels(0, 7), judgement > NONE, judgement)
        for c, j in (judgement > NONE).nonzero().tolist():
            queues[c].append(int(judgement[c, j]))
        assert bank.false_2C.tolist() == [
            [queue.count(FALSE) for queue in queues],
            [queue.count(FALSE) + queue.count(TRUE) for queue in queues],
        ]


@given(
    seed=seeds,
    capacities=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    pushes=st.lists(st.integers(1, 25), max_size=8),
)
@settings(max_examples=40, deadline=None)
def test_reading_the_counts_changes_no_row_that_is_ever_drawn(
    seed: int, capacities: list[int], pushes: list[int]
):
    generator = torch.Generator().manual_seed(seed)
    banks = [make(kind, capacities) for kind in ("counts read", "counts not read")]
    for count in pushes:
        z, mask = (
            torch.randn(count, FEATURES, generator=generator),
            torch.rand(len(capacities), count, generator=generator) < 0.4,
        )
        for bank in banks:
            bank.push(z, mask)
    read, unread = banks
    for name in ("row", "pushed_C"):
        assert torch.equal(getattr(read, name), getattr(unread, name))
    for name in ("storage", "length", "uses"):
        assert torch.equal(getattr(read, name)[:-1], getattr(unread, name)[:-1])


@given(kind=known_or_not, seed=seeds, first=st.integers(1, 19))
@settings(max_examples=40, deadline=None)
def test_image_after_image_and_the_whole_batch_at_once_leave_the_same(kind: str, seed: int, first: int):
    """Algorithm 1 goes through the images, a step through the batch."""
    generator = torch.Generator().manual_seed(seed)
    z, mask = pixels(0, 20), torch.rand(2, 20, generator=generator) < 0.6
    at_once, one_by_one = make(kind, [4, 15]), make(kind, [4, 15])
    at_once.push(z, mask)
    one_by_one.push(z[:first], mask[:, :first])
    one_by_one.push(z[first:], mask[:, first:])
    for c in range(2):
        assert contents(at_once, c) == contents(one_by_one, c)


@given(
    kind=known_or_not,
    seed=seeds,
    capacities=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    pushes=st.lists(st.integers(1, 25), min_size=1, max_size=8),
)
@settings(max_examples=100, deadline=None)
def test_a_pixel_of_several_classes_is_stored_once_and_rows_that_no_ring_holds_are_taken_again(
    kind: str, seed: int, capacities: list[int], pushes: list[int]
):
    generator = torch.Generator().manual_seed(seed)
    bank, first = make(kind, capacities), 0
    for count in pushes:
        bank.push(pixels(first, count), torch.rand(len(capacities), count, generator=generator) < 0.6)
        first += count
        held = [pixel for c in range(len(capacities)) for pixel in contents(bank, c)]
        used = bank.uses[:-1].nonzero()[:, 0]
        assert len(used) == len(set(held))
        assert bank.uses[:-1].sum() == len(held)
        assert sorted(bank.storage[used, 0].tolist()) == sorted(set(held))
        torch.testing.assert_close(bank.length[used], bank.storage[used].norm(dim=1))


def test_a_bank_of_an_earlier_version_which_had_a_row_for_each_place_goes_on():
    bank, later = MemoryBank([4, 2], FEATURES), MemoryBank([4, 2], FEATURES)
    storage = torch.zeros(7, FEATURES)
    storage[:3], storage[4:6] = pixels(0, 3), torch.stack([pixels(2, 1)[0], pixels(1, 1)[0]])
    later.load_state_dict({"storage": storage, "pushed_C": torch.tensor([3, 3])})
    bank.push(pixels(0, 3), everything(3, 2))
    for pushed in (later, bank):
        pushed.push(pixels(3, 2), torch.tensor([[True, True], [False, True]]))
    for c in range(2):
        assert contents(later, c) == contents(bank, c)


def test_a_push_of_no_pixels_changes_nothing():
    bank = MemoryBank([3, 5], FEATURES)
    bank.push(pixels(1, 2), everything(2, 2))
    bank.push(pixels(0, 0), everything(0, 2))
    assert [contents(bank, c) for c in range(2)] == [[1, 2], [1, 2]]


def test_more_pixels_in_one_push_than_fit_leave_the_newest():
    bank = MemoryBank([4, 2], FEATURES)
    bank.push(pixels(0, 100), everything(100, 2))
    assert contents(bank, 0) == [96, 97, 98, 99]
    assert contents(bank, 1) == [98, 99]


def test_what_is_filled_grows_to_the_capacity_and_no_further():
    bank = MemoryBank([3, 10], FEATURES)
    filled = []
    for _ in range(4):
        bank.push(pixels(0, 2), torch.tensor([[True, True], [False, True]]))
        filled.append(bank.filled_C.tolist())
    assert filled == [[2, 1], [3, 2], [3, 3], [3, 4]]


def test_a_push_allocates_no_new_storage():
    bank = MemoryBank([3, 5], FEATURES)
    where = bank.storage.data_ptr()
    for count in (1, 2, 9):
        bank.push(pixels(0, count), everything(count, 2))
    bank.load_state_dict(MemoryBank([3, 5], FEATURES).state_dict())
    assert bank.storage.data_ptr() == where


def test_what_is_stored_is_a_copy_without_a_gradient():
    z = torch.ones(2, FEATURES, requires_grad=True)
    bank = MemoryBank([2], FEATURES)
    bank.push(z * 1, everything(2, 1))
    with torch.no_grad():
        z.zero_()
    assert contents(bank, 0) == [1, 1]
    assert not bank.storage.requires_grad


def test_a_half_precision_representation_is_stored_in_single_precision():
    bank = MemoryBank([2], FEATURES)
    bank.push(torch.full((1, FEATURES), 0.5, dtype=torch.bfloat16), everything(1, 1))
    assert bank.storage.dtype == torch.float32
    assert contents(bank, 0) == [0.5]


# What is drawn


def drawn(bank: MemoryBank, anchors: int, negatives: int, seed: int = 0) -> Tensor:
    """Which pixels, (C, anchors, negatives)."""
    return bank.storage[bank.sample(anchors, negatives, torch.Generator().manual_seed(seed))][..., 0]


@given(
    kind=known_or_not,
    seed=seeds,
    capacities=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    pushes=st.lists(st.integers(1, 9), max_size=4),
)
@settings(max_examples=60, deadline=None)
def test_a_class_draws_what_it_holds_and_nothing_else(
    kind: str, seed: int, capacities: list[int], pushes: list[int]
):
    """Not the other classes' rows, not the places that are still free, not the spare row."""
    generator = torch.Generator().manual_seed(seed)
    bank = make(kind, capacities)
    held = [deque[float](maxlen=capacity) for capacity in capacities]
    for push, count in enumerate(pushes):
        z, mask = (
            pixels(1 + 100 * push, count),
            torch.rand(len(capacities), count, generator=generator) < 0.5,
        )
        bank.push(z, mask)
        for c, j in mask.nonzero().tolist():
            held[c].append(z[j, 0].item())
    index = bank.sample(2, 60, generator)
    assert index.shape == (len(capacities), 2, 60)
    assert index.dtype == torch.int64
    for c, queue in enumerate(held):
        assert ((index[c] < len(bank.storage) - 1) == bool(queue)).all()
        # 120 draws of at most 6: missing one has a probability below 1e-8.
        assert set(bank.storage[index[c]].flatten().tolist()) == (set(queue) or {0.0})


@pytest.mark.parametrize("kind", ["counts read", "counts not read"])
def test_an_empty_class_is_drawn_as_zeros_beside_a_full_one(kind: str):
    bank = make(kind, [4, 4])
    bank.push(pixels(7, 1), torch.tensor([[False], [True]]))
    assert drawn(bank, 2, 5).tolist() == [[[0] * 5] * 2, [[7] * 5] * 2]


def test_an_empty_bank_is_drawn_as_zeros():
    assert drawn(MemoryBank([4, 4], FEATURES), 2, 5).eq(0).all()


@pytest.mark.parametrize("pushed", [3, 10, 17])
def test_every_negative_is_drawn_equally_often_whether_the_ring_is_partly_full_full_or_overwritten(
    pushed: int,
):
    bank = MemoryBank([2, 10], FEATURES)
    bank.push(pixels(0, pushed), everything(pushed, 2))
    negatives = drawn(bank, 100, 200)[1].flatten().long()
    counts = negatives.bincount(minlength=pushed)[-min(pushed, 10) :]
    assert counts.sum() == len(negatives)
    assert chisquare(counts.numpy()).pvalue > 0.01


def test_anchors_draw_their_own_negatives():
    bank = MemoryBank([10, 10], FEATURES)
    bank.push(pixels(0, 10), everything(10, 2))
    negatives = drawn(bank, 100, 200)
    assert len(negatives.flatten(0, 1).unique(dim=0)) == 200


@pytest.mark.parametrize(("number", "expected"), [(0.0, 5), (1 - 2**-24, 7), (1.0, 7)])
def test_the_extreme_random_numbers_draw_the_first_and_the_last_place(number: float, expected: int):
    bank = MemoryBank([5, 3], FEATURES)
    bank.push(pixels(0, 9), everything(9, 2))
    with mock.patch.object(torch, "rand", lambda shape, **_: torch.full(shape, number)):
        assert bank.sample(1, 2)[1].tolist() == [[bank.row[expected]] * 2]


def test_equal_seeds_draw_equal_negatives():
    bank = MemoryBank([5, 3], FEATURES)
    bank.push(pixels(0, 9), everything(9, 2))
    assert torch.equal(drawn(bank, 4, 6, seed=3), drawn(bank, 4, 6, seed=3))
    assert not torch.equal(drawn(bank, 4, 6, seed=3), drawn(bank, 4, 6, seed=4))


def test_sampling_allocates_what_it_draws_and_not_what_the_bank_holds():
    bank = MemoryBank([50_000, 50_000], FEATURES)
    bank.push(pixels(1, 50_000), everything(50_000, 2))
    with torch.profiler.profile(profile_memory=True) as profile:
        bank.sample(2, 4)
    assert max(event.cpu_memory_usage for event in profile.key_averages()) < 10_000


# What a checkpoint carries


@given(kind=known_or_not, pushed=st.integers(0, 20))
@settings(max_examples=20, deadline=None)
def test_a_restored_bank_goes_on_as_the_old_one_would_have(kind: str, pushed: int):
    old, new = make(kind, [3, 5]), make(kind, [3, 5])
    old.push(pixels(0, pushed + 1), everything(pushed + 1, 2))
    file = io.BytesIO()
    torch.save(old.state_dict(), file)
    file.seek(0)
    new.load_state_dict(torch.load(file))
    for bank in (old, new):
        bank.push(pixels(pushed + 1, 2), everything(2, 2))
    assert torch.equal(drawn(old, 4, 6), drawn(new, 4, 6))
    assert [contents(new, c) for c in range(2)] == [contents(old, c) for c in range(2)]
    assert contents(new, 0) == [*range(max(0, pushed), pushed + 3)]


def test_a_bank_of_other_capacities_does_not_take_the_state_in_silence():
    with pytest.raises(RuntimeError, match="size mismatch"):
        MemoryBank([4, 5], FEATURES).load_state_dict(MemoryBank([3, 5], FEATURES).state_dict())


def test_of_a_bank_that_an_earlier_version_saved_nothing_is_known():
    old, new = MemoryBank([3, 5], FEATURES), MemoryBank([3, 5], FEATURES, judged=True)
    old.push(pixels(0, 2), everything(2, 2))
    new.load_state_dict(old.state_dict())
    assert torch.equal(new.filled_C, old.filled_C)
    assert new.false_2C.tolist() == [[0, 0], [0, 0]]
