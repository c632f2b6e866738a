import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from data import miniature
from data.serving import Server
from PIL import Image

from u2pl.data.catalog import cityscapes
from u2pl.data.inspection import BadFile
from u2pl.data.prepare import prepare
from u2pl.data.prepared import open_split
from u2pl.errors import UserError
from u2pl.project import Project


@pytest.fixture(scope="session")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cityscapes")
    miniature.make_cityscapes(folder / "unpacked")
    miniature.zip_cityscapes(folder / "unpacked", folder / "zipped")
    miniature.serve_lists(folder / "served" / "lists")
    return folder


def test_label_ids_become_train_ids_and_every_other_id_is_void(
    project: Project, server: Server, root: Path
) -> None:
    prepared = prepare(project, "cityscapes", "1/4", root)
    assert prepared.manifest["counts"] == {"train": 16, "labeled": 4, "unlabeled": 12, "val": 4}
    split = open_split(project, "cityscapes", "1/4")
    assert len(split.classes) == 19 and not split.background
    for name in (*split.labeled, *split.val):
        _, mask = miniature.scene(name, 64, 40)
        expected = np.select([mask == 0, mask == 1, mask == 15], [0, 13, 18], 255)
        assert np.array_equal(split.mask(name), expected)


def test_the_table_of_train_ids_is_that_of_cityscapes() -> None:
    used = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
    assert [int(cityscapes.TRAIN_IDS[k]) for k in used] == list(range(19))
    assert {int(cityscapes.TRAIN_IDS[k]) for k in range(256) if k not in used} == {255}
    assert list(cityscapes.CLASSES)[13] == "car"


def test_the_archives_need_not_be_unpacked(project: Project, server: Server, everything: Path) -> None:
    prepare(project, "cityscapes", "1/4", everything / "zipped")
    files = {p.name for p in (project.data("cityscapes") / "files").rglob("*.png")}
    assert all(name.endswith(("_leftImg8bit.png", "_labelIds.png")) and "bonn" not in name for name in files)
    assert len(files) == 40
    assert prepare(project, "cityscapes", "1/4").read == 0


def test_an_archive_that_was_replaced_is_unpacked_again_and_one_that_is_gone_is_not_missed(
    project: Project, server: Server, everything: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(everything / "zipped", tmp_path / "zips"))
    whole = root / "leftImg8bit_trainvaltest.zip"
    whole.rename(root / "kept")
    with zipfile.ZipFile(whole, "w") as archive, zipfile.ZipFile(root / "kept") as kept:
        for name in kept.namelist()[:9]:
            archive.writestr(name, kept.read(name))
    with pytest.raises(UserError, match="not 16"):
        prepare(project, "cityscapes", "1/4", root)
    (root / "kept").replace(whole)
    assert prepare(project, "cityscapes", "1/4", root).manifest["counts"]["train"] == 16
    for path in root.iterdir():
        path.unlink()
    assert prepare(project, "cityscapes", "1/4").read == 0


def test_the_root_may_have_any_name(
    project: Project, server: Server, everything: Path, tmp_path: Path
) -> None:
    shutil.copytree(everything / "unpacked", tmp_path / "test")
    prepare(project, "cityscapes", "1/4", tmp_path / "test")


def test_pictures_without_masks_can_be_unlabelled_and_validation_ones_cannot(
    project: Project, server: Server, root: Path
) -> None:
    split = prepare(project, "cityscapes", "1/4", root)
    unlabeled = (split.folder / "unlabeled.txt").read_text().split()
    for name in unlabeled:
        (root / f"gtFine/train/{name.split('_')[0]}/{name}_gtFine_labelIds.png").unlink()
    prepare(project, "cityscapes", "1/4", root)
    assert not any(open_split(project, "cityscapes", "1/4").has_mask(name) for name in unlabeled)
    next((root / "gtFine/val").rglob("*_labelIds.png")).unlink()
    with pytest.raises(UserError, match="missing mask of a validation image: 1"):
        prepare(project, "cityscapes", "1/4", root)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            lambda root: shutil.rmtree(root / "gtFine"),
            r"no gtFine in .*holds leftImg8bit.*gtFine_trainvaltest\.zip",
        ),
        (lambda root: shutil.rmtree(root / "leftImg8bit/train/ulm"), "has 9 training images, not 16"),
        (lambda root: shutil.rmtree(root / "leftImg8bit/val"), "has 0 validation images, not 4"),
    ],
)
def test_what_is_missing_is_a_sentence(
    project: Project, server: Server, root: Path, spoil: Callable[[Path], object], said: str
) -> None:
    spoil(root)
    with pytest.raises(UserError, match=said):
        prepare(project, "cityscapes", "1/4", root)


@pytest.mark.parametrize("value", [34, 100, 254])
def test_a_value_that_is_no_label_id_is_a_bad_file(tmp_path: Path, value: int) -> None:
    Image.fromarray(np.full((4, 4), value, np.uint8)).save(tmp_path / "x.png")
    with pytest.raises(BadFile, match=f"no label id.*{value}"):
        cityscapes.read_mask(tmp_path / "x.png")


def test_a_colour_picture_is_no_mask(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "x.png")
    with pytest.raises(BadFile, match="no label ids"):
        cityscapes.read_mask(tmp_path / "x.png")
