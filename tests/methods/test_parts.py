"""However a batch is cut, into parts or over processes, a step is the same step."""

from pathlib import Path

import pytest
import torch
from methods import parting
from torch import Tensor

Found = dict[str, Tensor]


@pytest.fixture(scope="module")
def whole() -> dict[str, Found]:
    """By one process in one part."""
    return {kind: parting.train(kind) for kind in parting.KINDS}


def assert_same(one: Found, other: Found) -> None:
    assert one.keys() == other.keys()
    for key, value in one.items():
        torch.testing.assert_close(
            other[key],
            value,
            rtol=1e-5,
            atol=1e-5,
            equal_nan=True,
            msg=lambda text, key=key: f"{key}: {text}",
        )


@pytest.mark.parametrize("micro_batch", [1, 2])
@pytest.mark.parametrize("kind", parting.KINDS)
def test_the_parts_of_a_batch_add_up_to_it(kind: str, micro_batch: int, whole: dict[str, Found]):
    assert_same(whole[kind], parting.train(kind, micro_batch))


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 4])
def test_several_processes_take_the_steps_of_one(size: int, whole: dict[str, Found], tmp_path: Path):
    """Losses, threshold, centres, bank and weights, of every kind; and in parts too."""
    kinds = [("u2pl", 0), ("groups", 0), ("no bank", 0), ("released", 0)]
    if size == 2:
        kinds = [(kind, 0) for kind in parting.KINDS] + [("u2pl", 1), ("released", 1)]
    torch.multiprocessing.spawn(parting.work, (size, kinds, tmp_path), nprocs=size)
    for rank in range(size):
        found = torch.load(tmp_path / f"{size}-{rank}.pt", weights_only=True)
        assert list(found) == kinds
        for kind in kinds:
            assert_same(whole[kind[0]], found[kind])
