from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from u2pl.data.catalog import shapes
from u2pl.data.prepare import prepare
from u2pl.project import Project

Drawn = list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]
CLASSES = len(shapes.CLASSES)


@pytest.fixture(scope="module")
def train() -> Drawn:
    return [shapes.draw_one(k) for k in range(shapes.TRAIN)]


@pytest.fixture(scope="module")
def val() -> Drawn:
    return [shapes.draw_one(shapes.TRAIN + k) for k in range(shapes.VAL)]


def miou(truth: NDArray[np.uint8], prediction: NDArray[np.integer]) -> float:
    """Mean over the classes of intersection over union in percent, of the pixels that are not void."""
    valid = truth != shapes.VOID
    ious = []
    for c in range(CLASSES):
        t, p = (truth == c) & valid, (prediction == c) & valid
        ious.append((t & p).sum() / (t | p).sum())
    return 100 * float(np.mean(ious))


def test_drawing_again_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "TRAIN", 6)
    monkeypatch.setattr(shapes, "VAL", 2)
    hashes = []
    for place in ("a", "b"):
        shapes.draw(tmp_path / place, lambda what, done, total: None)
        files = sorted((tmp_path / place).rglob("*.*"))
        hashes.append([(path.name, sha256(path.read_bytes()).hexdigest()) for path in files])
    assert hashes[0] == hashes[1] and len(hashes[0]) == 2 * 8 + 2


def test_a_picture_does_not_depend_on_the_others(train: Drawn) -> None:
    assert all(np.array_equal(a, b) for a, b in zip(shapes.draw_one(7), train[7], strict=True))
    assert not np.array_equal(train[7][0], train[8][0])


def test_classes_are_as_frequent_as_wanted(train: Drawn) -> None:
    masks = np.stack([mask for _, mask in train])
    share = np.array([(masks == c).mean() for c in range(CLASSES)])
    assert 0.55 < share[0] < 0.7 and 0.005 < (masks == shapes.VOID).mean() < 0.05
    rare = [shapes.CLASSES.index(name) for name in ("ring", "cross")]
    assert max(share[rare]) < min(np.delete(share, rare)) and min(share) > 0.01


def test_a_pixels_colour_does_not_tell_its_class(train: Drawn, val: Drawn) -> None:
    def bins(drawn: Drawn) -> NDArray[np.int64]:
        return np.stack([image for image, _ in drawn]).astype(np.int64) // 32 @ (64, 8, 1)

    masks, truth = (np.stack([mask for _, mask in drawn]) for drawn in (train, val))
    valid = masks != shapes.VOID
    seen = np.bincount(bins(train)[valid] * CLASSES + masks[valid], minlength=512 * CLASSES)
    by_class = seen.reshape(512, CLASSES)
    constant = max(miou(truth, np.full_like(truth, c)) for c in range(CLASSES))
    for weights in (1, 1 / by_class.sum(axis=0)):  # the likeliest class; the same with every class as likely
        assert miou(truth, (by_class * weights).argmax(axis=1)[bins(val)]) < constant + 2


def test_a_damaged_or_missing_picture_is_drawn_again(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shapes, "TRAIN", 40)
    monkeypatch.setattr(shapes, "VAL", 4)
    data = prepare(project, "shapes", "1/4").folder.parents[1]
    assert prepare(project, "shapes", "1/2").read == 0
    intact = {p.name: p.read_bytes() for p in (data / "images").iterdir()}
    (data / "images/train_003.png").write_bytes(b"")
    (data / "images/train_004.png").unlink()
    prepare(project, "shapes", "1/2")
    assert {p.name: p.read_bytes() for p in (data / "images").iterdir()} == intact
    (data / "train.txt").unlink()
    assert prepare(project, "shapes", "1/2").manifest["counts"]["train"] == 40
