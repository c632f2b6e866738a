import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from u2pl.data import audit, train_val
from u2pl.data.description import Description
from u2pl.data.prepare import prepare
from u2pl.data.splits import Lists
from u2pl.errors import UserError
from u2pl.project import Project

CASES = Path(__file__).parents[3] / "shared" / "cases"
needs_cases = pytest.mark.skipif(not CASES.is_dir(), reason="needs ../shared/cases")
THREE = Description(name="three", classes=["a", "b", "c"])
VAL = [f"{k:02}" for k in range(16, 20)]


def change(tiny: Path, names: list[str], values: dict[int, int]) -> None:
    """Give pixels of some masks other values."""
    for name in names:
        mask = np.array(Image.open(tiny / f"masks/{name}.png"))
        table = np.arange(256, dtype=np.uint8)
        table[list(values)] = list(values.values())
        Image.fromarray(table[mask]).save(tiny / f"masks/{name}.png")


def shares(*counts: list[int], pixels: int) -> train_val.PixelShares:
    return train_val.shares(THREE, counts, pixels)


def test_shares_are_of_all_pixels_and_what_is_no_class_is_void() -> None:
    found = shares([1, 0, 2], [3, 0, 0], pixels=8)
    assert found == train_val.PixelShares({"a": 0.5, "b": 0.0, "c": 0.25}, 0.25)
    assert shares(pixels=0).void == 0


def test_the_pixels_of_a_mask_are_told_by_its_head(tmp_path: Path) -> None:
    Image.new("L", (7, 3)).save(tmp_path / "m.png")
    assert train_val.area(tmp_path / "m.png") == 21


def warned(
    train: train_val.PixelShares, val: train_val.PixelShares, labeled: int = 9, **images: int
) -> list[str]:
    return train_val.mask_warnings(THREE, train, val, {"a": 9, "b": 9, "c": 9} | images, labeled)


def test_a_class_of_one_side_of_none_or_without_a_label_is_named() -> None:
    everything = shares([2, 2, 2], pixels=6)
    assert warned(everything, everything) == []
    (only_train,) = warned(everything, shares([2, 0, 2], pixels=4))
    assert only_train.startswith("Classes in training masks, but in no validation mask: b. ")
    (only_val,) = warned(shares([2, 2, 0], pixels=4), everything, c=0)
    assert only_val.startswith("Classes in validation masks, but in no training mask: c. ")
    (nowhere,) = warned(shares([2, 2, 0], pixels=4), shares([2, 2, 0], pixels=4), c=0)
    assert nowhere.startswith("Classes in no mask at all: c. ")
    (bare,) = warned(everything, everything, a=0, c=0)
    assert bare.startswith("Classes without a labelled image in this split: a, c. ")


@pytest.mark.parametrize(
    ("train", "val", "said"), [(0, 25, True), (25, 0, True), (30, 20, False), (9, 0, False), (12, 5, False)]
)
def test_much_void_on_one_side_alone_is_told(train: int, val: int, said: bool) -> None:
    def side(void: int) -> train_val.PixelShares:
        return shares([40, 25, 35 - void], pixels=100)

    found = warned(side(train), side(val))
    assert bool(found) == said
    if said:
        assert "25% of the pixels" in found[0] and "and 0% of those" in found[0] and "255" in found[0]


def test_fewer_labelled_images_than_classes_are_told() -> None:
    everything = shares([2, 2, 2], pixels=6)
    assert warned(everything, everything, labeled=3) == []
    assert "2 labelled images for 3 classes" in warned(everything, everything, labeled=2)[0]


def test_the_same_picture_under_two_names_is_told_where_it_matters() -> None:
    pictures = {"a": "1", "b": "2", "c": "1", "d": "2", "e": "1", "f": "3", "g": "3"}
    masks: dict[str, str | None] = {"a": "m", "b": "m", "c": "other", "f": "m", "g": "m"}
    found = train_val.same_pictures(Lists(["a", "b", "c", "f", "g"], ["d"], ["e"]), pictures, masks)
    assert found == [
        "validation images that are trained on under another name: 1 (e = a)",
        "unlabelled images that are labelled under another name: 1 (d = b)",
        "labelled images that have another mask under another name: 1 (c = a)",
    ]
    assert train_val.same_pictures(Lists(["b"], ["b", "d"], []), pictures, masks, overlap=True) == []
    assert train_val.same_pictures(Lists(["a"], ["b"], ["a", "gone"]), pictures, masks) == []


@pytest.mark.parametrize("names", [[f"{k:02}" for k in range(16)], VAL])
def test_masks_of_one_class_are_refused_on_either_side(
    project: Project, tiny: Path, names: list[str]
) -> None:
    change(tiny, names, {1: 255, 2: 255, 3: 255})
    side = "validation" if names == VAL else "training"
    with pytest.raises(UserError, match=f"fewer than two classes in all {side} masks: 1 .ground; .*0 and 1"):
        prepare(project, str(tiny / "tiny.yaml"), "1/4")


def test_what_is_odd_is_said_and_the_manifest_stays_as_it_was(project: Project, tiny: Path) -> None:
    sound = prepare(project, str(tiny / "tiny.yaml"), "full")
    assert sound.warnings == () and 0 < sound.val.void < 0.1
    assert sum(sound.train.classes.values()) + sound.train.void == pytest.approx(1)
    change(tiny, VAL, {0: 255})
    shutil.copy(tiny / "images/03.png", tiny / "images/17.png")
    odd = prepare(project, str(tiny / "tiny.yaml"), "full")
    said = " ".join(odd.warnings)
    for part in ("(17 = 03)", "in no validation mask: ground", "of the pixels in validation masks are void"):
        assert part in said
    assert odd.manifest.keys() == sound.manifest.keys() and odd.manifest["counts"] == sound.manifest["counts"]
    assert odd.manifest["classes"] == sound.manifest["classes"]


def test_the_audit_finds_the_same_picture_under_two_names_unless_the_data_have_changed(
    project: Project, tiny: Path
) -> None:
    Image.open(tiny / "images/03.png").save(tiny / "images/17.bmp")
    (tiny / "images/17.png").unlink()
    prepare(project, str(tiny / "tiny.yaml"), "1/4")
    (found,) = audit.prepared(project)
    assert found.problems == ["validation images that are trained on under another name: 1 (17 = 03)"]
    source = project.data("tiny") / "source.json"
    source.write_text(json.dumps(json.loads(source.read_text()) | {"data": "another"}))
    assert audit.prepared(project)[0].problems == []
    source.unlink()
    assert audit.prepared(project)[0].problems == []


def test_a_declared_overlap_may_be_under_another_name(project: Project, tiny: Path) -> None:
    shutil.copy(tiny / "images/03.png", tiny / "images/04.png")
    (tiny / "mine.txt").write_text("".join(f"{k:02}\n" for k in range(4)))
    words = {"source": [str(tiny / "mine.txt")]}
    assert "unlabelled images that are labelled under another name: 1 (04 = 03)" in " ".join(
        prepare(project, str(tiny / "tiny.yaml"), "mine", **words).warnings
    )
    assert len(audit.prepared(project)[0].problems) == 1
    assert prepare(project, "tiny", "mine", overlap=True, **words).warnings == ()
    assert audit.prepared(project)[0].problems == []


@needs_cases
def test_validation_masks_of_0_and_255_are_refused(project: Project, tmp_path: Path) -> None:
    case = shutil.copytree(CASES / "07-val-0-255", tmp_path / "case")
    with pytest.raises(UserError, match="fewer than two classes in all validation masks"):
        prepare(project, f"{case}/d.yaml", "full")


@needs_cases
def test_validation_images_that_are_training_images_too_are_told(project: Project, tmp_path: Path) -> None:
    case = shutil.copytree(CASES / "20-leak", tmp_path / "case")
    told = "validation images that are trained on under another name: 4 (im12 = im00; im13 = im01; "
    assert told in " ".join(prepare(project, f"{case}/d.yaml", "full").warnings)
    assert told in audit.prepared(project)[0].problems[0]
