import numpy as np
import pytest

from u2pl.trust import novelty
from u2pl.trust.novelty import distances, fit, neighbour_of


def around(center: list[float], count: int, seed: int) -> np.ndarray:
    return (np.array(center) + np.random.default_rng(seed).normal(0, 0.1, (count, 3))).astype(np.float32)


def test_distances_are_those_of_directions_to_the_neighbour_that_is_asked_for() -> None:
    reference = np.array([[1, 0], [0, 3], [-2, 0]], np.float32)
    found = [distances(np.array([[5, 0]], np.float32), reference, k)[0] for k in (1, 2, 3)]
    assert found == pytest.approx([0, 2**0.5, 2])


def test_pieces_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, reference = around([1, 0, 0], 50, 0), around([1, 0, 0], 30, 1)
    whole = distances(rows, reference, 2)
    monkeypatch.setattr(novelty, "_ROWS", 7)
    assert np.allclose(distances(rows, reference, 2), whole, atol=1e-6)


def test_usual_images_pass_and_others_do_not() -> None:
    usual = fit(around([1, 0, 0], 200, 0), around([1, 0, 0], 100, 1))
    assert usual is not None and usual.neighbour == 10
    assert (usual.scores(around([1, 0, 0], 1000, 2)) > 1).mean() < 0.04
    assert (usual.scores(around([0, 1, 0], 50, 3)) > 1).all()
    # Length says nothing, only direction does.
    assert usual.scores(np.array([[7, 0, 0]], np.float32))[0] < 1


def test_few_images() -> None:
    assert fit(around([1, 0, 0], 4, 0), around([1, 0, 0], 100, 1)) is None
    for held_out in (0, 3):
        usual = fit(around([1, 0, 0], 5, 0), around([1, 0, 0], held_out, 1))
        assert usual is not None and usual.neighbour == 1
        assert usual.scores(np.array([[0, 1, 0]], np.float32))[0] > 1
        # An image with labels held against the others, not against itself.
        assert usual.threshold > 0.01
    same = fit(np.ones((6, 3), np.float32), np.ones((30, 3), np.float32))
    assert same is not None and np.isfinite(same.scores(np.ones((1, 3), np.float32))).all()


def test_of_many_a_thousand_are_kept_in_half_precision() -> None:
    usual = fit(around([1, 0, 0], 2500, 0), around([1, 0, 0], 30, 1))
    assert usual is not None and usual.reference.shape == (1000, 3) and usual.reference.dtype == np.float16
    assert [neighbour_of(n) for n in (5, 38, 200, 1000, 5000)] == [1, 1, 10, 50, 50]
