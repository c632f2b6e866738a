"""However a batch is cut, into parts or over processes, a step is the same step."""

from pathlib import Path

import pytest
import torch
from methods import parting
from methods.tiny_method import at, build, make_batch, step_of
from torch import Tensor

from u2pl.steps.micro_batch import micro_batches

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
            # Adam divides a gradient by its own size: where that is rounding alone, so is the step.
            atol=1e-4 if key.startswith("state detector.") else 1e-5,
            equal_nan=True,
            msg=lambda text, key=key: f"{key}: {text}",
        )


@pytest.mark.parametrize("micro_batch", [1, 2])
@pytest.mark.parametrize("kind", parting.KINDS)
def test_the_parts_of_a_batch_add_up_to_it(kind: str, micro_batch: int, whole: dict[str, Found]):
    assert_same(whole[kind], parting.train(kind, micro_batch))


@pytest.mark.parametrize("images", range(2, 10))
@pytest.mark.parametrize("at_once", [0, 1, 2, 3, 4])
def test_no_image_is_left_alone_where_batch_norm_needs_two(images: int, at_once: int):
    parts = list(micro_batches(images, at_once, streams=1))
    assert all(part.images >= 2 for part in parts)
    assert [part.first for part in parts] == [
        0,
        *torch.tensor([p.images for p in parts]).cumsum(0)[:-1].tolist(),
    ]
    assert sum(part.images for part in parts) == images
    assert [part.last for part in parts] == [False] * (len(parts) - 1) + [True]


@pytest.mark.parametrize("name", ["suponly", "u2pl"])
def test_an_odd_batch_can_be_taken_one_by_one(name: str):
    """In the warm start too."""
    method = build(name, batch=3, micro_batch=1)
    result = step_of(method, make_batch(images=3), at(0))
    assert result.losses["supervised"].isfinite()


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 4])
def test_several_processes_take_the_steps_of_one(size: int, whole: dict[str, Found], tmp_path: Path):
    """Losses, threshold, centres, bank and weights, of every kind; and in parts too."""
    kinds = [("u2pl", 0), ("groups", 0), ("no bank", 0), ("no negatives", 0), ("released", 0)]
    if size == 2:
        kinds = [(kind, 0) for kind in parting.KINDS] + [("u2pl", 1), ("released", 1)]
    # Forked, they need not import torch again; it has no threads here that would be missed.
    torch.multiprocessing.start_processes(
        parting.work, (size, kinds, tmp_path), nprocs=size, start_method="fork"
    )
    for rank in range(size):
        found = torch.load(tmp_path / f"{size}-{rank}.pt", weights_only=True)
        assert list(found) == kinds
        for kind in kinds:
            assert_same(whole[kind[0]], found[kind])
