import importlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from data import miniature
from data.serving import Server
from PIL import Image

from u2pl.data.catalog import voc
from u2pl.data.inspection import BadFile
from u2pl.data.prepare import prepare
from u2pl.data.prepared import open_split
from u2pl.errors import UserError
from u2pl.project import Project

LISTS = Path(__file__).parents[3] / "shared" / "splits"


@pytest.fixture(scope="session")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """VOC and SBD unpacked in `unpacked/`, and what a server has of them in `served/`."""
    folder = tmp_path_factory.mktemp("voc")
    miniature.make_pascal(folder / "unpacked")
    miniature.make_sbd(folder / "unpacked")
    miniature.serve_voc(folder / "unpacked", folder / "served" / "archives")
    miniature.serve_lists(folder / "served" / "lists")
    return folder


def test_on_a_machine_with_nothing_everything_is_downloaded_and_a_second_time_nothing(
    project: Project, server: Server
) -> None:
    prepared = prepare(project, "voc", "classic-1/4")
    assert prepared.manifest["counts"] == {"train": 20, "labeled": 2, "unlabeled": 18, "val": 4}
    assert (prepared.folder / "labeled.txt").read_text().split() == miniature.LABELED["classic-1/4"]
    own = project.data("voc")
    assert not list((own / "downloads").iterdir()) and not (own / "checked.jsonl").exists()
    # Of the archives only what is used is unpacked.
    assert {p.name for p in (own / "files/VOCdevkit/VOC2012").iterdir()} == {
        "JPEGImages",
        "SegmentationClass",
        "ImageSets",
    }
    assert not (own / "files/benchmark_RELEASE/dataset/img").exists()
    asked = len(server.requests)
    again = prepare(project, "voc", "blender-1/4")
    assert again.read == 0 and len(server.requests) == asked + 2  # the two lists of the other split


def test_downloaded_files_that_were_deleted_are_downloaded_again(project: Project, server: Server) -> None:
    prepare(project, "voc", "classic-1/4")
    shutil.rmtree(project.data("voc") / "files")
    assert prepare(project, "voc", "classic-1/4").manifest["counts"]["train"] == 20
    assert open_split(project, "voc", "classic-1/4").image(miniature.VAL[0]).ndim == 3


def test_masks_of_both_kinds_become_one_folder_of_class_indices(
    project: Project, server: Server, root: Path
) -> None:
    prepare(project, "voc", "blender-1/4", root)
    split = open_split(project, "voc", "blender-1/4")
    sizes = {
        n: (60, 45) if k % 3 else (45, 60)
        for k, n in enumerate([*miniature.TRAIN, *miniature.VAL, *miniature.MORE])
    }
    for name in miniature.TRAIN + miniature.VAL:
        assert np.array_equal(split.mask(name), miniature.scene(name, *sizes[name])[1])
    for name in miniature.MORE:
        mask = miniature.scene(name, *sizes[name])[1]
        assert np.array_equal(split.mask(name), np.where(mask == 255, 0, mask))
    assert len(list((project.data("voc") / "masks").glob("*.png"))) == 24


def test_data_that_lies_somewhere_is_used_in_place_and_said(
    project: Project, server: Server, root: Path
) -> None:
    prepared = prepare(project, "voc", "classic-1/4", root)
    said = " ".join(prepared.found)
    assert str(root / "VOCdevkit/VOC2012") in said and "12 more" in said
    assert not (project.data("voc") / "files").exists()
    split = open_split(project, "voc", "classic-1/4")
    assert split.images[miniature.MORE[0]] == root / f"VOCdevkit/VOC2012/JPEGImages/{miniature.MORE[0]}.jpg"


@pytest.mark.parametrize("place", ["VOCdevkit/VOC2012", "VOCdevkit", "."])
def test_a_ready_made_segmentation_class_aug_serves_instead_of_sbd(
    project: Project, server: Server, root: Path, place: str
) -> None:
    shutil.rmtree(root / "benchmark_RELEASE")
    miniature.make_aug(root / place)
    prepared = prepare(project, "voc", "classic-1/4", root)
    assert prepared.manifest["counts"]["train"] == 20
    assert any(str(root / place / "SegmentationClassAug") in sentence for sentence in prepared.found)


def test_archives_that_lie_in_the_root_are_unpacked(
    project: Project, server: Server, everything: Path
) -> None:
    prepared = prepare(project, "voc", "classic-1/4", everything / "served" / "archives")
    assert prepared.manifest["counts"]["train"] == 20 and len(server.requests) == 2
    assert len(list((everything / "served" / "archives").iterdir())) == 2
    split = open_split(project, "voc", "classic-1/4")
    assert split.image(split.labeled[0]).shape[2] == 3
    assert prepare(project, "voc", "classic-1/4").read == 0


def test_an_archive_in_the_root_that_is_cut_off_is_refused(
    project: Project, server: Server, everything: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(everything / "served" / "archives", tmp_path / "archives"))
    archive = root / voc.SBD.name
    archive.write_bytes(archive.read_bytes()[:-100])
    with pytest.raises(UserError, match=rf"{voc.SBD.name} is not the archive it should be"):
        prepare(project, "voc", "classic-1/4", root)


def test_the_labelled_images_of_a_drawn_classic_split_are_fine_ones(
    project: Project, server: Server, root: Path
) -> None:
    prepared = prepare(project, "voc", "classic-1/2", root, source=["seeded"])
    labeled = (prepared.folder / "labeled.txt").read_text().split()
    assert prepared.split == "classic-1/2-seeded" and prepared.folder.name == "classic-1_2-seeded"
    assert len(labeled) == 4 and set(labeled) < set(miniature.TRAIN)
    assert prepared.manifest["fine"] == {"train": 8, "labeled": 4}
    blender = prepare(project, "voc", "blender-1/2-seeded")
    assert blender.manifest["counts"]["labeled"] == 10
    assert len((blender.folder / "unlabeled.txt").read_text().split()) == 10
    everyone = prepare(project, "voc", "full")
    assert everyone.manifest["counts"]["labeled"] == 20


def test_the_manifest_has_source_sums_and_the_share_of_fine_annotation(
    project: Project, server: Server, root: Path
) -> None:
    manifest = prepare(project, "voc", "blender-1/4", root).manifest
    assert manifest["source"] == "u2pl" and manifest["fine"] == {"train": 8, "labeled": 1}
    assert len(manifest["published"]["labeled"]) == 64
    person = manifest["classes"]["person"]
    assert person["images"] == 20 and person["labeled_images"] == 5


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            lambda root: (root / f"benchmark_RELEASE/dataset/cls/{miniature.MORE[2]}.mat").unlink(),
            rf"1 of the 24 masks of PASCAL VOC are not in .*{miniature.MORE[2]} among them",
        ),
        (
            lambda root: shutil.rmtree(root / "benchmark_RELEASE"),
            r"Found PASCAL VOC 2012 in .*VOC2012, but not.*Missing",
        ),
        (
            lambda root: shutil.rmtree(root / "VOCdevkit"),
            r"no PASCAL VOC 2012 in .* \(it holds benchmark_RELEASE\)",
        ),
        (
            lambda root: (root / "VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt").write_text(
                "2007_000001\n"
            ),
            r"has 1 names in train.txt, not 8\. It is another data set",
        ),
        (
            lambda root: (root / "benchmark_RELEASE/dataset/train.txt").write_text("2009_000200\n"),
            r"augmented training images, not 20",
        ),
    ],
)
def test_what_is_missing_or_of_another_size_is_a_sentence(
    project: Project, server: Server, root: Path, spoil: Callable[[Path], object], said: str
) -> None:
    spoil(root)
    with pytest.raises(UserError, match=said):
        prepare(project, "voc", "classic-1/4", root)
    assert not project.split("voc", "classic-1/4").exists()


def test_the_folder_of_another_data_set_is_not_taken_for_voc(
    project: Project, server: Server, tmp_path: Path
) -> None:
    miniature.make_cityscapes(tmp_path / "city")
    with pytest.raises(UserError, match=r"no PASCAL VOC 2012 .*holds gtFine, leftImg8bit"):
        prepare(project, "voc", "classic-1/4", tmp_path / "city")


def test_truncated_pictures_and_masks_are_told_all_at_once(
    project: Project, server: Server, root: Path
) -> None:
    for path in (
        root / f"VOCdevkit/VOC2012/JPEGImages/{miniature.TRAIN[0]}.jpg",
        root / f"VOCdevkit/VOC2012/SegmentationClass/{miniature.VAL[0]}.png",
        root / f"benchmark_RELEASE/dataset/cls/{miniature.MORE[0]}.mat",
    ):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError) as error:
        prepare(project, "voc", "classic-1/4", root)
    said = str(error.value)
    assert "truncated or damaged image: 1 (VOCdevkit/VOC2012/JPEGImages/2007_000000.jpg" in said
    assert "truncated or damaged mask: 2 (" in said and ".mat" in said


@pytest.mark.parametrize("content", [b"", b"MATLAB 5.0 MAT-file", b"\x00" * 200, b"\xff" * 4000])
def test_any_bytes_for_a_mat_file_are_a_bad_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.mat").write_bytes(content)
    with pytest.raises(BadFile, match="truncated or damaged mask"):
        voc._read_mask(tmp_path / "x.mat")


def test_a_mat_file_with_other_values_is_a_bad_file(tmp_path: Path) -> None:
    from scipy.io import savemat

    for values in (np.full((4, 4), 21, np.uint8), np.zeros((4, 4)), np.zeros((2, 4, 4), np.uint8)):
        savemat(tmp_path / "x.mat", {"GTcls": {"Segmentation": values}})
        with pytest.raises(BadFile):
            voc._read_mask(tmp_path / "x.mat")


def test_a_full_disk_half_way_leaves_nothing_that_looks_whole_and_a_second_call_goes_on(
    project: Project, server: Server, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from u2pl.data import check

    written: list[Path] = []

    def write(path: Path, pixels: object) -> None:
        if len(written) == 9:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"\x89PNG half of it")
            raise OSError(28, "No space left on device", str(path))
        written.append(path)
        original(path, pixels)

    original = check.write_png
    monkeypatch.setattr(check, "write_png", write)
    with pytest.raises(OSError, match="No space left"):
        prepare(project, "voc", "classic-1/4", root)
    assert (
        not project.split("voc", "classic-1/4").exists()
        and not (project.data("voc") / "source.json").exists()
    )
    monkeypatch.setattr(
        check, "write_png", lambda path, pixels: (written.append(path), original(path, pixels))
    )
    prepare(project, "voc", "classic-1/4", root)
    assert len(written) == 24 and len(set(written)) == 24
    split = open_split(project, "voc", "classic-1/4")
    assert all(split.mask(name).shape == split.image(name).shape[:2] for name in split.images)


def test_the_download_is_where_torchvision_has_it() -> None:
    importlib.import_module("u2pl.models")  # makes torchvision importable beside any torch
    from torchvision.datasets import SBDataset
    from torchvision.datasets.voc import DATASET_YEAR_DICT

    assert (voc.VOC.url, voc.VOC.checksum) == (
        DATASET_YEAR_DICT["2012"]["url"],
        f"md5:{DATASET_YEAR_DICT['2012']['md5']}",
    )
    assert (voc.SBD.url, voc.SBD.checksum) == (SBDataset.url, f"md5:{SBDataset.md5}")


def test_the_colours_are_those_of_voc() -> None:
    colors = dict(zip(voc.CLASSES, voc.DESCRIPTION.colors, strict=True))
    assert colors["background"] == (0, 0, 0) and colors["aeroplane"] == (128, 0, 0)
    assert colors["person"] == (192, 128, 128) and colors["tvmonitor"] == (0, 64, 128)


# ---- the real names and counts -----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(not LISTS.is_dir(), reason="needs the published lists in ../shared/splits")
def test_with_the_real_names_the_real_counts_and_lists_fit(project: Project, tmp_path: Path) -> None:
    """12,031 links to one small picture: the numbers, lists and sums are the real ones, nothing is patched."""

    def names(path: str) -> list[str]:
        return [
            line.split()[0].split("/")[-1].split(".")[0] for line in (LISTS / path).read_text().splitlines()
        ]

    fine, val, pool = (
        names(f"u2pl/pascal/{path}") for path in ("1464/labeled.txt", "val.txt", "1464/unlabeled.txt")
    )
    pascal = tmp_path / "VOC2012"
    for name in ("JPEGImages", "SegmentationClassAug", "ImageSets/Segmentation"):
        (pascal / name).mkdir(parents=True)
    Image.new("RGB", (6, 4), (90, 60, 30)).save(tmp_path / "one.jpg")
    Image.fromarray(np.array([[0, 15, 255, 1, 0, 0]] * 4, np.uint8)).save(tmp_path / "one.png")
    for name in (*fine, *val, *pool):
        os.link(tmp_path / "one.jpg", pascal / "JPEGImages" / f"{name}.jpg")
        os.link(tmp_path / "one.png", pascal / "SegmentationClassAug" / f"{name}.png")
    for part, listed in (("train", fine), ("val", val)):
        (pascal / "ImageSets/Segmentation" / f"{part}.txt").write_text("\n".join(listed))
    (project.root / "data").mkdir()
    (project.root / "data/lists").symlink_to(LISTS.resolve())
    counts = {}
    for split in ("classic-1/16", "blender-1/2", "blender-1/16-unimatch"):
        manifest = prepare(project, "voc", split, pascal).manifest
        counts[split] = (
            manifest["counts"]["labeled"],
            manifest["counts"]["unlabeled"],
            manifest["fine"]["labeled"],
        )
    assert counts == {
        "classic-1/16": (92, 10490, 92),
        "blender-1/2": (5291, 5291, 1464),
        "blender-1/16-unimatch": (662, 9920, 93),
    }
    assert json.loads((project.data("voc") / "source.json").read_text())["root"] == str(pascal)
