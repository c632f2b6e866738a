"""Corrected masks as labels of a new split: what is taken, what is refused, and what stays as it was."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import draw_tiny

from u2pl.data import merged
from u2pl.data.prepare import prepare
from u2pl.data.prepared import open_split
from u2pl.errors import UsageError, UserError
from u2pl.labeling import merge as merging
from u2pl.labeling.merge import merge
from u2pl.project import Project

HandIn = Callable[..., Path]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.array(picture)


def test_merged_masks_are_labels_of_a_new_split_and_nothing_else_changes(
    half_labeled: Project, hand_in: HandIn
) -> None:
    folder = hand_in("08", "11")
    pictures, data = half_labeled.root / "pictures", half_labeled.data("tiny")
    before = contents(pictures), contents(folder), contents(data)
    found = merge(half_labeled, "tiny", folder)
    assert (found.onto, found.taken, found.again) == ("full", ["08", "11"], [])
    assert (contents(pictures), contents(folder)) == before[:2]
    after = contents(data)
    assert {name: after[name] for name in before[2]} == before[2], "also source.json, and the earlier split"
    earlier, split = open_split(half_labeled, "tiny", "full"), open_split(half_labeled, "tiny", "round-1")
    assert split.labeled == [*earlier.labeled, "08", "11"]
    assert split.unlabeled == [name for name in earlier.unlabeled if name not in ("08", "11")]
    assert split.val == earlier.val
    assert (split.mask("08") == pixels(half_labeled.root / "true/08.png")).all()
    assert (split.mask("00") == earlier.mask("00")).all()
    assert not earlier.has_mask("08") and not split.has_mask("09")
    manifest, old = split.manifest, earlier.manifest
    assert manifest["counts"] == {"train": 16, "labeled": 10, "unlabeled": 6, "val": 4}
    squares = sum((pixels(half_labeled.root / f"true/{name}.png") == 1).sum() for name in ("08", "11"))
    assert manifest["classes"]["square"]["pixels"] == old["classes"]["square"]["pixels"] + squares
    assert manifest["merged"]["onto"] == "full" and manifest["merged"]["images"] == 2


def test_the_split_is_prepared_again_from_its_record_to_the_same_bytes(
    half_labeled: Project, hand_in: HandIn
) -> None:
    merge(half_labeled, "tiny", hand_in("08"))
    folder = half_labeled.split("tiny", "round-1")
    before = contents(folder)
    assert prepare(half_labeled, "tiny", "round-1").manifest == json.loads(before["manifest.json"])
    assert contents(folder) == before
    with pytest.raises(UsageError, match="corrected masks"):
        prepare(half_labeled, "tiny", "round-1", source=["seeded"])


@pytest.mark.parametrize("fold", ["fold1of3", "fold2of3"])
def test_a_round_onto_a_fold_validates_on_what_the_fold_does(
    half_labeled: Project, hand_in: HandIn, fold: str
) -> None:
    prepare(half_labeled, "tiny", fold)
    base = open_split(half_labeled, "tiny", fold)
    own = {"16", "17", "18", "19"}
    assert not own <= set(base.val), "the data set's own list is another"
    # Images of that list that the fold trains on may be corrected too.
    also = next(iter(own & set(base.labeled)))
    corrected = {f"im{also}": np.ones((64, 64), np.uint8)}
    found = merge(half_labeled, "tiny", hand_in("08", "11", **corrected), onto=fold)
    assert set(found.taken) == {"08", "11", also} and found.again == [also]
    folder = half_labeled.split("tiny", "round-1")
    before = contents(folder)
    prepare(half_labeled, "tiny", "round-1")
    assert contents(folder) == before
    split = open_split(half_labeled, "tiny", "round-1")
    assert split.val == base.val and split.labeled == [*base.labeled, "08", "11"]
    assert split.unlabeled == [name for name in base.unlabeled if name not in ("08", "11")]
    assert (split.mask(also) == 1).all()
    assert split.manifest["counts"] == {"train": 16, "labeled": 10, "unlabeled": 6, "val": 4}
    # A validation image of the fold is one, wherever the data set has it.
    strange = {f"im{base.val[0]}": np.full((64, 64), 2, np.uint8)}
    with pytest.raises(UserError, match="another mask of a validation image"):
        merge(half_labeled, "tiny", hand_in(folder="val", **strange))
    assert merge(half_labeled, "tiny", hand_in("09", folder="more")).onto == "round-1"
    assert open_split(half_labeled, "tiny", "round-2").val == base.val


def test_validation_images_that_come_later_change_no_round(half_labeled: Project, hand_in: HandIn) -> None:
    merge(half_labeled, "tiny", hand_in("08"))
    before = open_split(half_labeled, "tiny", "round-1")
    draw_tiny(half_labeled.root / "more", 16, 5)
    for part in ("images", "masks"):
        (half_labeled.root / f"more/{part}/20.png").rename(half_labeled.root / f"pictures/{part}/20.png")
    with (half_labeled.root / "pictures/val.txt").open("a") as file:
        file.write("20\n")
    prepare(half_labeled, "tiny", "round-1")
    after = open_split(half_labeled, "tiny", "round-1")
    assert (after.val, after.labeled, after.unlabeled) == (before.val, before.labeled, before.unlabeled)
    assert after.manifest["counts"] == before.manifest["counts"]
    prepare(half_labeled, "tiny", "full")
    assert open_split(half_labeled, "tiny", "full").val == [*before.val, "20"]


def test_of_an_image_that_is_merged_twice_the_later_mask_counts_and_the_earlier_round_keeps_its_own(
    half_labeled: Project, hand_in: HandIn
) -> None:
    merge(half_labeled, "tiny", hand_in("08", "09"))
    corrected = np.ones((64, 64), np.uint8)
    found = merge(half_labeled, "tiny", hand_in(folder="again", im08=corrected, im00=corrected * 2))
    assert (found.onto, found.again, found.prepared.split) == ("round-1", ["00", "08"], "round-2")
    first, second = (open_split(half_labeled, "tiny", f"round-{k}") for k in (1, 2))
    assert (first.mask("08") == pixels(half_labeled.root / "true/08.png")).all()
    assert (second.mask("08") == 1).all() and (second.mask("00") == 2).all()
    assert (second.mask("09") == first.mask("09")).all()
    assert set(second.labeled) == set(first.labeled) and len(second.labeled) == 10
    assert len(list((half_labeled.data("tiny") / "merged").glob("08.*.png"))) == 2
    # A round can go on with any earlier split.
    other = merge(half_labeled, "tiny", hand_in("10", folder="other"), onto="full", split="mine")
    assert open_split(half_labeled, "tiny", "mine").labeled == [f"{k:02}" for k in range(8)] + ["10"]
    assert (other.onto, other.elsewhere) == ("full", {"round-1": 2, "round-2": 3})
    assert (
        first.labeled
        == json.loads((half_labeled.split("tiny", "round-1") / merged.RECORD).read_text())["labeled"]
    )
    assert found.elsewhere == {}


def test_everything_wrong_is_said_at_once_and_nothing_is_taken(
    half_labeled: Project, hand_in: HandIn
) -> None:
    whole = np.zeros((64, 64), np.uint8)
    folder = hand_in("08", im09=whole[:32], im10=whole + 7, im11=whole + 255, im16=whole + 1, nobody=whole)
    Image.fromarray(whole).save(folder / "08.bmp")
    (folder / "12.png").write_bytes(b"no picture")
    with pytest.raises(UserError) as error:
        merge(half_labeled, "tiny", folder)
    said = str(error.value)
    for words in (
        "mask of another size than its image: 1 (09.png (64 x 32, image 64 x 64))",
        "mask value that is neither a class nor ignored",
        "mask without a labelled pixel: 1 (11.png)",
        "another mask of a validation image than the one it is scored by: 1 (16.png)",
        "no image of the data set: 1 (nobody.png)",
        "several masks of one image: 1 (08.bmp and 08.png)",
        "truncated or damaged mask",
        "nothing was taken",
    ):
        assert words in said, said
    assert not list((half_labeled.data("tiny") / "merged").glob("*.png"))
    assert not half_labeled.split("tiny", "round-1").exists()


def test_validation_images_whose_masks_agree_are_left_as_they_are(
    half_labeled: Project, hand_in: HandIn
) -> None:
    val = open_split(half_labeled, "tiny", "full").mask("16")
    assert merge(half_labeled, "tiny", hand_in("08", im16=val)).validation == ["16"]
    with pytest.raises(UserError, match=r"Nothing in .* is to be merged"):
        merge(half_labeled, "tiny", hand_in(folder="val", im16=val))


@pytest.mark.parametrize("place", ["u2pl.data.merged.write_png", "u2pl.labeling.merge.prepare"])
def test_a_merge_that_was_cut_off_leaves_no_split_and_is_done_again(
    half_labeled: Project, hand_in: HandIn, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    def cut_off(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    folder = hand_in("08", "09")
    with monkeypatch.context() as patch:
        patch.setattr(place, cut_off)
        with pytest.raises(KeyboardInterrupt):
            merge(half_labeled, "tiny", folder)
    with pytest.raises(UserError, match="is not prepared"):
        open_split(half_labeled, "tiny", "round-1")
    assert not half_labeled.split("tiny", "round-1").exists()
    open_split(half_labeled, "tiny", "full")
    assert merge(half_labeled, "tiny", folder).prepared.split == "round-1"
    assert open_split(half_labeled, "tiny", "round-1").has_mask("09")


@pytest.mark.parametrize("place", ["u2pl.data.prepare.splits.write", "u2pl.data.prepare._class_counts"])
def test_a_split_that_cannot_be_prepared_leaves_no_record(
    half_labeled: Project, hand_in: HandIn, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    def fail(*_: object) -> None:
        raise UserError("The disk is full.")

    monkeypatch.setattr(place, fail)
    mine = half_labeled.split("tiny", "mine")
    with pytest.raises(UserError, match="disk is full"):
        merge(half_labeled, "tiny", hand_in("08"), split="mine")
    assert not mine.exists()
    mine.mkdir()
    (mine / "notes.txt").touch()
    with pytest.raises(UserError, match="disk is full"):
        merge(half_labeled, "tiny", hand_in("08"), split="mine")
    assert [path.name for path in mine.iterdir()] == ["notes.txt"]


def test_a_split_that_was_prepared_keeps_its_record_also_when_the_command_is_cut_off_then(
    half_labeled: Project, hand_in: HandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_off(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("u2pl.data.prepare._warnings", cut_off)
    with pytest.raises(KeyboardInterrupt):
        merge(half_labeled, "tiny", hand_in("08"))
    assert open_split(half_labeled, "tiny", "round-1").has_mask("08")


def test_masks_that_are_gone_or_were_changed_in_the_record_are_noticed(
    half_labeled: Project, hand_in: HandIn
) -> None:
    merge(half_labeled, "tiny", hand_in("08", "09"))
    record = half_labeled.split("tiny", "round-1") / merged.RECORD
    whole = record.read_text()
    (kept,) = (half_labeled.data("tiny") / "merged").glob("08.*.png")
    text = kept.read_bytes()
    kept.unlink()
    with pytest.raises(UserError, match=r"1 corrected masks in .*gone: 08"):
        open_split(half_labeled, "tiny", "round-1")
    kept.write_bytes(text)
    changed = json.loads(whole)
    del changed["masks"]["09"]
    record.write_text(json.dumps(changed))
    with pytest.raises(UserError, match="has changed since split 'round-1'"):
        open_split(half_labeled, "tiny", "round-1")
    for damaged in (whole.replace('"08"', '"../08"'), whole.replace('"sha256": "', '"sha256": "../')):
        record.write_text(damaged)
        with pytest.raises(UserError, match="is not what u2pl writes there"):
            open_split(half_labeled, "tiny", "round-1")


def test_folders_and_names_that_cannot_be(half_labeled: Project, hand_in: HandIn) -> None:
    folder = hand_in("08")
    for words, match in (
        ({"folder": folder / "nowhere"}, "no folder"),
        ({"split": "1/8"}, "need a name of their own"),
        ({"onto": "1/2"}, "is not prepared"),
    ):
        with pytest.raises(UserError, match=match):
            merge(half_labeled, "tiny", **{"folder": folder, **words})
    merge(half_labeled, "tiny", folder, split="mine")
    with pytest.raises(UsageError, match="There is a split 'mine'"):
        merge(half_labeled, "tiny", folder, split="mine")
    (half_labeled.root / "empty").mkdir()
    with pytest.raises(UserError, match="There is no mask in"):
        merge(half_labeled, "tiny", half_labeled.root / "empty")


def coco(path: Path, labels: list[str], drawn: str, name: str = "08.png") -> Path:
    """An export with a square of 20 pixels on one picture."""
    path.mkdir(parents=True)
    categories = [{"id": k, "name": label} for k, label in enumerate(labels, 1)]
    box = [10, 10, 30, 10, 30, 30, 10, 30]
    shape = {"id": 1, "image_id": 1, "category_id": 1 + labels.index(drawn), "segmentation": [box]}
    facts = {
        "images": [{"id": 1, "file_name": name, "width": 64, "height": 64}],
        "annotations": [{**shape, "area": 400, "bbox": [10, 10, 20, 20], "iscrowd": 0}],
        "categories": categories,
    }
    (path / "instances.json").write_text(json.dumps(facts))
    return path


@pytest.mark.parametrize(
    ("labels", "unpainted"),
    [
        (["square", "disc"], 0),  # nobody can paint the background, so that is what is not painted
        (["ground", "square", "disc"], 255),
    ],
)
def test_the_export_of_a_tool_is_merged_and_what_is_not_painted_depends_on_its_labels(
    half_labeled: Project, labels: list[str], unpainted: int
) -> None:
    found = merge(half_labeled, "tiny", coco(half_labeled.root / "export", labels, "square"))
    assert found.taken == ["08"]
    mask = open_split(half_labeled, "tiny", "round-1").mask("08")
    assert (mask[11:29, 11:29] == 1).all()
    assert (mask[:9] == unpainted).all() and (mask[32:] == unpainted).all()


def test_pictures_on_which_nothing_is_drawn_are_left_out(half_labeled: Project) -> None:
    """A tool exports all pictures of a project; one that nobody has opened yet is not all background."""
    folder = coco(half_labeled.root / "export", ["square"], "square")
    facts = json.loads((folder / "instances.json").read_text())
    facts["images"].append({"id": 2, "file_name": "09.png", "width": 64, "height": 64})
    (folder / "instances.json").write_text(json.dumps(facts))
    found = merge(half_labeled, "tiny", folder)
    assert found.taken == ["08"]
    assert not open_split(half_labeled, "tiny", "round-1").has_mask("09")
    facts["annotations"] = []
    (folder / "instances.json").write_text(json.dumps(facts))
    with pytest.raises(UserError, match=r"Nothing in .* is to be merged|There is no mask"):
        merge(half_labeled, "tiny", folder)


def test_an_export_with_other_classes_or_pictures_is_refused(half_labeled: Project) -> None:
    root = half_labeled.root
    with pytest.raises(UserError, match="'boat'"):
        merge(half_labeled, "tiny", coco(root / "a", ["boat"], "boat"))
    with pytest.raises(UserError, match=r"nobody\.png"):
        merge(half_labeled, "tiny", coco(root / "b", ["square"], "square", "nobody.png"))
    assert not list((half_labeled.data("tiny") / "merged").glob("*.png"))


@pytest.mark.parametrize(
    ("background", "labels", "unpainted"),
    [(True, ["a"], 0), (True, ["ground", "a"], 255), (False, ["a"], 255), (False, ["ground"], 255)],
)
def test_unpainted_pixels(half_labeled: Project, background: bool, labels: list[str], unpainted: int) -> None:
    from u2pl.data.prepared import description_of

    description = description_of(half_labeled, "tiny").model_copy(update={"background": background})
    assert merging._unpainted(labels, description.classes, description) == unpainted
