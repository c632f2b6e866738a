from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from u2pl.auto.pairing import looks_flat, pair, sides_from_lists
from u2pl.data.lists import read_names


def photo(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(str(path))).integers(0, 256, (24, 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def mask(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((24, 20), np.uint8)
    pixels[5:9] = 1
    Image.fromarray(pixels).save(path)


LAYOUTS = {
    "two folders": ("images/a.jpg", "masks/a.png", "a"),
    "a mask folder beside the pictures": ("a.jpg", "masks/a.png", "a"),
    "an ending": ("a.jpg", "a_mask.png", "a"),
    "an ending with a blank": ("a.jpg", "a mask.png", "a"),
    "a beginning": ("a.jpg", "mask_a.png", "a"),
    "folders and endings": ("images/a.jpg", "labels/a_label.png", "a"),
    "both have endings": ("rgb/a_rgb.png", "gt/a_gt.png", "a_rgb"),
    "of VOC": ("JPEGImages/a.jpg", "SegmentationClass/a.png", "a"),
    "sides inside": ("images/train/a.jpg", "masks/train/a.png", "train/a"),
    "sides outside": ("train/images/a.jpg", "train/masks/a.png", "images/a"),
    "sides in the name": ("train/a.jpg", "trainannot/a.png", "a"),
    "capital letters": ("Images/A.JPG", "Masks/a.PNG", "A"),
    "only the flat one of a pair": ("a.jpg", "a.png", "a"),
    "a folder without a telling name": ("photos/a.jpg", "out/a.png", "a"),
    "a mask elsewhere that has the only such name": ("day/one/a.jpg", "masks/a.png", "one/a"),
}


@pytest.mark.parametrize(("image", "label", "name"), LAYOUTS.values(), ids=LAYOUTS.keys())
def test_a_mask_is_found_however_people_lay_their_folders_out(
    tmp_path: Path, image: str, label: str, name: str
):
    photo(tmp_path / image)
    mask(tmp_path / label)
    found = pair(tmp_path)
    assert found.images == {name: tmp_path / image}
    assert found.masks == {name: tmp_path / label}
    assert not found.alone


def test_pictures_without_a_mask_stay_and_masks_without_a_picture_are_told(tmp_path: Path):
    for name in "abc":
        photo(tmp_path / "images" / f"{name}.jpg")
    for name in "bx":
        mask(tmp_path / "masks" / f"{name}.png")
    found = pair(tmp_path)
    assert list(found.images) == ["a", "b", "c"]
    assert list(found.masks) == ["b"]
    assert found.alone == [tmp_path / "masks/x.png"]


def test_the_same_name_in_two_folders_is_two_pictures_each_with_its_own_mask(tmp_path: Path):
    for side in ("day", "night"):
        photo(tmp_path / side / "images/a.jpg")
        mask(tmp_path / side / "masks/a.png")
    found = pair(tmp_path)
    assert found.masks == {f"{s}/images/a": tmp_path / s / "masks/a.png" for s in ("day", "night")}


def test_a_picture_with_two_masks_has_none(tmp_path: Path):
    photo(tmp_path / "a.jpg")
    mask(tmp_path / "a_mask.png")
    mask(tmp_path / "masks/a.png")
    found = pair(tmp_path)
    assert not found.masks
    assert set(found.several) == {"a"}


def test_pictures_of_one_name_and_two_suffixes_keep_them(tmp_path: Path):
    photo(tmp_path / "a.jpg")
    photo(tmp_path / "a.bmp")
    assert sorted(pair(tmp_path).images) == ["a_bmp", "a_jpg"]


def test_no_two_pictures_have_one_name_and_every_name_can_stand_in_a_list(tmp_path: Path):
    for name in ("a.jpg", "a.bmp", "a_jpg.jpg", " lead.jpg", "line\nbreak.jpg", "trail .jpg"):
        photo(tmp_path / name)
    found = pair(tmp_path)
    assert len(found.images) == 6
    (tmp_path / "all.txt").write_text("".join(f"{name}\n" for name in found.images))
    assert sorted(read_names(tmp_path / "all.txt")) == sorted(found.images)


def test_linked_folders_are_followed_and_circles_are_not(tmp_path: Path):
    photo(tmp_path / "pictures/images/a.jpg")
    mask(tmp_path / "elsewhere/a.png")
    (tmp_path / "pictures/masks").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "pictures/again").symlink_to(tmp_path / "pictures")
    found = pair(tmp_path / "pictures")
    assert (list(found.images), list(found.masks)) == (["a"], ["a"])


def test_what_predict_wrote_is_passed_over_and_a_test_bench_is_no_test(tmp_path: Path):
    photo(tmp_path / "test_bench/a.jpg")
    photo(tmp_path / "test_images/b.jpg")
    for kind in ("overlays", "colors", "masks"):
        mask(tmp_path / f"predictions/{kind}/a.png")
    found = pair(tmp_path)
    assert not found.masks and len(found.images) == 2
    assert found.side == {"test_images/b": "test"}


def test_hidden_files_and_thumbnails_are_passed_over(tmp_path: Path):
    photo(tmp_path / "a.jpg")
    photo(tmp_path / ".thumbs/b.jpg")
    photo(tmp_path / "._a.jpg")
    assert list(pair(tmp_path).images) == ["a"]


def test_folders_called_train_val_and_test_are_sides(tmp_path: Path):
    for side in ("train", "valid", "test"):
        photo(tmp_path / side / f"{side}.jpg")
    assert pair(tmp_path).side == {"train/train": "train", "valid/valid": "val", "test/test": "test"}


def test_lists_say_who_validates_by_names_or_by_paths(tmp_path: Path):
    (tmp_path / "train.txt").write_text("images/a.jpg masks/a.png\nb\nnobody\n")
    (tmp_path / "val.txt").write_text("c.jpg\n")
    found = sides_from_lists(tmp_path, ["images/a", "images/b", "images/c"])
    assert found == {"images/a": "train", "images/b": "train", "images/c": "val"}
    (tmp_path / "val.txt").unlink()
    assert sides_from_lists(tmp_path, ["images/a"]) == {}


def test_a_photograph_does_not_look_like_a_mask_and_damage_is_no_traceback(tmp_path: Path):
    photo(tmp_path / "a.png")
    mask(tmp_path / "b.png")
    (tmp_path / "c.png").write_bytes(b"no picture")
    assert [looks_flat(tmp_path / f"{name}.png") for name in "abc"] == [False, True, False]
