from io import BytesIO

import cv2
import numpy as np
import pytest
from PIL import Image

from u2pl.trust import near_duplicates as module
from u2pl.trust.near_duplicates import TURNS, near_duplicates, similarity, thumbnail, turned


def scene(seed: int, size: tuple[int, int] = (120, 160)) -> np.ndarray:
    """Sky above, road below as in every other one, and twenty boxes of its own."""
    rng = np.random.default_rng(seed)
    picture = np.zeros((*size, 3), np.uint8)
    picture[: size[0] // 2] = 200
    picture[size[0] // 2 :] = 90
    for _ in range(20):
        y, x = rng.integers(0, size[0] - 20), rng.integers(0, size[1] - 20)
        height, width = rng.integers(6, 20, 2)
        picture[y : y + height, x : x + width] = rng.integers(0, 256, 3)
    return picture


def changed(kind: str, picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape[:2]
    if kind == "smaller":
        return cv2.resize(picture, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    if kind == "brighter":
        return (1.2 * picture.astype(float) + 10).clip(0, 255).astype(np.uint8)
    if kind == "mirrored":
        return np.ascontiguousarray(picture[:, ::-1])
    if kind == "turned":
        return np.ascontiguousarray(np.rot90(picture))
    if kind == "cropped":
        return picture[height // 20 : -height // 20, width // 20 : -width // 20]
    encoded = BytesIO()
    Image.fromarray(picture).save(encoded, "JPEG", quality=40)
    return np.array(Image.open(encoded))


KINDS = ["smaller", "brighter", "mirrored", "turned", "cropped", "compressed"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_copy_is_found_among_others_of_its_kind(kind: str) -> None:
    lists = {
        "a": {f"{k}": thumbnail(scene(k)) for k in range(12)},
        "b": {f"{k}": thumbnail(changed(kind, scene(k)) if k == 3 else scene(100 + k)) for k in range(12)},
    }
    (pair,) = near_duplicates(lists, [("a", "b")])
    assert (pair.image, pair.other, pair.lists) == ("3", "3", ("a", "b"))
    assert 0.8 <= pair.similarity <= 1
    said = {"mirrored": "mirrored", "turned": "turned right"}.get(kind, "")
    assert pair.turned == said


def test_of_one_list_with_itself_every_pair_is_told_once_and_no_picture_is_its_own_twin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    same = {"x": thumbnail(scene(0)), "y": thumbnail(scene(1)), "z": thumbnail(scene(0))}
    for rows in (1, 1024):
        monkeypatch.setattr(module, "_ROWS", rows)
        (pair,) = near_duplicates({"a": same}, [("a", "a")])
        assert (pair.image, pair.other) == ("x", "z") and pair.similarity == pytest.approx(1, abs=1e-5)


def test_the_most_alike_come_first_and_of_the_first_pair_of_lists() -> None:
    lists = {
        "val": {"v": thumbnail(scene(0))},
        "train": {"same": thumbnail(scene(0)), "cropped": thumbnail(changed("cropped", scene(0)))},
        "more": {"same too": thumbnail(scene(0))},
    }
    told: list[tuple[str, int, int]] = []
    found = near_duplicates(lists, [("val", "train"), ("val", "more")], lambda *words: told.append(words))
    assert [pair.other for pair in found] == ["same", "cropped", "same too"]
    assert told[-1] == ("comparing images", 2, 2)


def test_turns_are_what_they_are_called() -> None:
    picture = np.arange(64.0 * 64, dtype=np.float32).reshape(64, 64)
    by_name = dict(zip(TURNS, range(8), strict=True))
    assert np.array_equal(turned(picture, by_name["mirrored"]), picture[:, ::-1])
    assert np.array_equal(turned(picture, by_name["upside down"]), picture[::-1])
    assert np.array_equal(turned(picture, by_name["turned by half"]), picture[::-1, ::-1])
    assert np.array_equal(turned(picture, by_name["turned left"]), np.rot90(picture))
    assert len({turned(picture, k).tobytes() for k in range(8)}) == 8


def test_pictures_of_one_colour_and_empty_lists_are_no_twins() -> None:
    plain = thumbnail(np.full((30, 40, 3), 77, np.uint8))
    assert not near_duplicates({"a": {"x": plain}, "b": {"y": plain}}, [("a", "b")])
    assert not near_duplicates({"a": {}, "b": {"y": plain}}, [("a", "b"), ("b", "a"), ("a", "a")])
    assert similarity(plain, plain)[0] < 0.8


def test_a_picture_with_many_that_are_alike_is_compared_with_the_nearest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "NEAREST", 2)
    others = {f"{k}": thumbnail(changed("brighter", scene(0)) if k else scene(0)) for k in range(6)}
    found = near_duplicates({"a": {"x": thumbnail(scene(0))}, "b": others}, [("a", "b")])
    assert found and found[0].other == "0"
