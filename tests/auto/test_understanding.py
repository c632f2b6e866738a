import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from folders import SIDE, draw_folder
from PIL import Image

from u2pl.auto import data_set
from u2pl.auto.folder import understand
from u2pl.auto.masks import IGNORE
from u2pl.data.lists import read_names
from u2pl.data.prepare import prepare
from u2pl.data.prepared import open_split
from u2pl.errors import UsageError, UserError
from u2pl.project import Project


def test_a_folder_becomes_an_ordinary_data_set_in_folds_and_is_left_as_it_was(
    project: Project, tmp_path: Path
):
    folder = draw_folder(tmp_path / "holes", 12, 6)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    made = data_set.make(project, understand(folder))
    assert (made.name, made.labeled, made.unlabeled) == ("holes", 6, 6)
    assert made.splits == ("fold1of3", "fold2of3", "fold3of3")
    assert made.shares["object"] == pytest.approx(400 / SIDE**2, abs=1e-6)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    for split in made.splits:
        prepare(project, str(made.description), split)
    splits = [open_split(project, "holes", split) for split in made.splits]
    assert sorted(name for split in splits for name in split.val) == [f"p{k:02}" for k in range(6)]
    for split in splits:
        assert sorted([*split.labeled, *split.val]) == [f"p{k:02}" for k in range(6)]
        assert split.unlabeled == [f"p{k:02}" for k in range(6, 12)]
    mask = splits[0].mask("p00")
    assert mask.max() == 1 and mask.sum() == 400


def test_many_labels_are_held_out_instead(project: Project, tmp_path: Path):
    made = data_set.make(project, understand(draw_folder(tmp_path / "holes", 110, 104)))
    assert made.splits == ("full",)
    assert made.val == 26
    assert len(read_names(made.folder / "train.txt")) == 84


def test_the_folders_own_lists_decide_who_validates(project: Project, tmp_path: Path):
    folder = draw_folder(tmp_path / "holes", 14, 12)
    (folder / "train.txt").write_text("".join(f"p{k:02}\n" for k in [0, 1, 2, 3, 4, 13]))
    (folder / "val.txt").write_text("".join(f"p{k:02}\n" for k in [6, 7, 8, 9, 10, 12]))
    found = understand(folder)
    made = data_set.make(project, found)
    assert read_names(made.folder / "val.txt") == ["p06", "p07", "p08", "p09", "p10"]
    assert made.splits == ("full",) and made.is_val_given
    assert any("neither" in sentence for sentence in found.said)


def test_of_too_few_that_validate_no_miou_could_be_told(project: Project, tmp_path: Path):
    folder = draw_folder(tmp_path / "holes", 14, 12)
    (folder / "val.txt").write_text("p00\np13\n")
    made = data_set.make(project, understand(folder))
    assert made.has_folds and not made.is_val_given


def test_val_txt_is_the_first_fold(project: Project, tmp_path: Path):
    made = data_set.make(project, understand(draw_folder(tmp_path / "holes", 12, 10)))
    prepare(project, str(made.description), made.splits[0])
    assert open_split(project, made.name, made.splits[0]).val == read_names(made.folder / "val.txt")


def test_a_folder_of_the_users_is_never_taken_for_one_of_ours(project: Project, tmp_path: Path):
    folder = draw_folder(project.auto / "golf", 8, 5)
    made = data_set.make(project, understand(folder))
    assert made.name == "golf-2"
    assert len(list((folder / "images").iterdir())) == 8
    with pytest.raises(UsageError, match="made by u2pl"):
        understand(made.folder)


def test_what_a_start_left_that_was_cut_off_is_made_anew(project: Project, tmp_path: Path):
    folder = draw_folder(tmp_path / "holes", 8, 5)
    made = data_set.make(project, understand(folder))
    record = json.loads((made.folder / "folder.json").read_text())
    (made.folder / "folder.json").write_text(json.dumps({**record, "digest": "unfinished"}))
    (made.folder / "masks/p00.png").write_bytes(b"half")
    again = data_set.make(project, understand(folder))
    assert (again.name, again.is_new) == ("holes", True)
    with Image.open(again.folder / "masks/p00.png") as picture:
        assert picture.size == (SIDE, SIDE)


@pytest.mark.parametrize(
    ("name", "plain"), [("Fotos München 2", "Fotos_Munchen_2"), ("- dash", "dash"), ("照片", "pictures")]
)
def test_folders_of_any_name_become_data_sets(project: Project, tmp_path: Path, name: str, plain: str):
    made = data_set.make(project, understand(draw_folder(tmp_path / name, 8, 5)))
    assert made.name == plain
    assert prepare(project, str(made.description), made.splits[0]).description.name == plain


def test_an_annotation_among_many_masks_is_not_what_counts(tmp_path: Path):
    folder = draw_folder(tmp_path / "holes", 8, 6)
    size = {"imageHeight": SIDE, "imageWidth": SIDE, "imageData": None}
    shape = {"label": "cat", "points": [[0, 0], [9, 0], [9, 9]], "shape_type": "polygon"}
    document = {"version": "5", "shapes": [shape], "imagePath": "p07.jpg", **size}
    (folder / "images/p07.json").write_text(json.dumps(document))
    found = understand(folder)
    assert len(found.draw) == 6
    assert any("labelme is there too" in sentence for sentence in found.said)


def test_seen_again_it_is_the_same_data_set_and_changed_another_one(project: Project, tmp_path: Path):
    folder = draw_folder(tmp_path / "holes", 12, 6)
    first = data_set.make(project, understand(folder))
    again = data_set.make(project, understand(folder))
    assert (first.is_new, again.is_new, again.name, again.before) == (True, False, "holes", None)
    Image.fromarray(np.eye(SIDE, dtype=np.uint8)).save(folder / "masks/p06.png")
    Image.open(folder / "masks/p06.png").point(lambda v: 255 * v).save(folder / "masks/p06.png")
    second = data_set.make(project, understand(folder))
    assert (second.name, second.before, second.labeled) == ("holes-2", "holes", 7)
    assert (first.folder / "masks/p05.png").is_file()


def test_another_folder_of_the_same_name_and_names_of_data_sets_that_come_along(
    project: Project, tmp_path: Path
):
    assert data_set.make(project, understand(draw_folder(tmp_path / "a/holes", 8, 4))).name == "holes"
    other = data_set.make(project, understand(draw_folder(tmp_path / "b/holes", 8, 5)))
    assert (other.name, other.before) == ("holes-2", None)
    assert data_set.make(project, understand(draw_folder(tmp_path / "voc", 8, 4))).name == "my-voc"


def test_what_cannot_be_used_is_left_out_with_a_word(project: Project, tmp_path: Path):
    folder = draw_folder(tmp_path / "holes", 12, 8)
    (folder / "images/p11.jpg").write_bytes(b"damaged")
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(folder / "masks/p00.png")
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(folder / "masks/nobody.png")
    found = understand(folder)
    made = data_set.make(project, found)
    kinds = {kind for kind, _ in made.left_out}
    assert kinds == {
        "truncated or damaged image",
        "mask of another size than its picture",
        "mask that belongs to no picture",
    }
    assert (made.labeled, made.unlabeled) == (7, 4)


def test_masks_drawn_over_a_photograph_as_it_is_stored_are_turned_with_it(project: Project, tmp_path: Path):
    folder = draw_folder(tmp_path / "holes", 6, 6)
    picture = Image.open(folder / "images/p00.jpg").resize((40, 24))
    exif = Image.Exif()
    exif[0x0112] = 6  # shown, it stands upright
    picture.save(folder / "images/p00.jpg", exif=exif)
    stored = np.zeros((24, 40), np.uint8)
    stored[:, :10] = 255
    Image.fromarray(stored).save(folder / "masks/p00.png")
    made = data_set.make(project, understand(folder))
    mask = np.asarray(Image.open(made.folder / "masks/p00.png"))
    assert mask.shape == (40, 24)
    assert mask[:10].all() and not mask[10:].any()


def test_annotations_of_a_tool_are_read_and_what_nobody_painted_is_background(
    project: Project, tmp_path: Path
):
    folder = draw_folder(tmp_path / "holes", 8, 0)
    for k in range(5):
        shape = {"label": "hole", "points": [[0, 0], [20, 0], [20, 10], [0, 10]], "shape_type": "polygon"}
        document = {
            "version": "5.0.1",
            "flags": {},
            "shapes": [{**shape, "group_id": None, "flags": {}}],
            "imagePath": f"p{k:02}.jpg",
            "imageData": None,
            "imageHeight": SIDE,
            "imageWidth": SIDE,
        }
        (folder / "images" / f"p{k:02}.json").write_text(json.dumps(document))
    found = understand(folder)
    assert found.classes == ["background", "hole"]
    made = data_set.make(project, found)
    assert (made.labeled, made.unlabeled) == (5, 3)
    mask = np.asarray(Image.open(made.folder / "masks/p00.png"))
    assert 180 <= mask.sum() <= 240
    assert mask[:9, :19].all() and not mask[12:].any()


def test_where_the_tool_has_a_background_class_the_rest_is_not_labelled(project: Project, tmp_path: Path):
    folder = draw_folder(tmp_path / "holes", 6, 0)
    for k in range(4):
        shapes = [
            {"label": label, "points": [[x, 0], [x + 20, 0], [x + 20, 60], [x, 60]], "shape_type": "polygon"}
            for label, x in (("Background", 0), ("hole", 30))
        ]
        size = {"imageHeight": SIDE, "imageWidth": SIDE, "imageData": None}
        document = {"version": "5", "shapes": shapes, "imagePath": f"p{k:02}.jpg", **size}
        (folder / "images" / f"p{k:02}.json").write_text(json.dumps(document))
    made = data_set.make(project, understand(folder))
    mask = np.asarray(Image.open(made.folder / "masks/p00.png"))
    assert (mask[30, 10], mask[30, 40], mask[30, 25]) == (0, 1, IGNORE)
    assert yaml.safe_load(made.description.read_text())["classes"] == ["Background", "hole"]


@pytest.mark.parametrize("masks", [0, 3])
def test_too_few_masks_are_refused_with_what_to_do(tmp_path: Path, masks: int):
    with pytest.raises(UserError, match=r"Masks are pictures of the same name|Label a few more"):
        understand(draw_folder(tmp_path / "holes", 6, masks))


def test_what_is_no_folder_or_an_empty_one(tmp_path: Path):
    with pytest.raises(UsageError, match="no folder"):
        understand(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no picture"):
        understand(tmp_path)


def test_projects_and_suggestions_in_the_folder_are_not_taken_for_pictures(tmp_path: Path):
    folder = draw_folder(tmp_path / "holes", 8, 5)
    project, suggested = folder / "holes-u2pl", folder / "suggestions/run"
    for inner in (project, suggested):
        draw_folder(inner, 3, 3)
    for name in ("params.yaml", "dvc.yaml"):
        (project / name).touch()
    (suggested / "suggestion.json").touch()
    (suggested / "cvat").mkdir()
    image = '<image id="0" name="p07.jpg" width="64" height="64"></image>'
    xml = f"<annotations><version>1.1</version>{image}</annotations>"
    (suggested / "cvat/annotations.xml").write_text(xml)
    found = understand(folder)
    assert len(found.images) == 8 and len(found.draw) == 5
    with pytest.raises(UsageError, match="made by u2pl"):
        understand(project)
