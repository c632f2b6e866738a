import json
import os
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from u2pl.data.inspection import upright
from u2pl.data.prepare import prepare
from u2pl.data.prepared import open_split
from u2pl.errors import UsageError, UserError
from u2pl.project import Project

SHARED = Path(__file__).parents[3] / "shared"
"""Where the real photographs lie, beside the project."""


def contents(folder: Path) -> dict[Path, tuple[bytes, int]]:
    """Bytes and time of change of every file."""
    return {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in sorted(folder.rglob("*")) if p.is_file()}


def described(tiny: Path, **changes: object) -> str:
    """The tiny data set's description with some keys changed."""
    path = tiny / "tiny.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **changes}))
    return str(path)


def test_a_prepared_split_is_opened_by_the_name_of_the_data_set(project: Project, tiny: Path) -> None:
    prepare(project, str(tiny / "tiny.yaml"), "1/4")
    split = open_split(project, "tiny", "1/4")
    assert split.classes == ["ground", "square", "disc", "bar"] and split.background
    assert (len(split.labeled), len(split.unlabeled), len(split.val)) == (4, 12, 4)
    name = split.labeled[0]
    assert split.image(name).tolist() == np.array(Image.open(tiny / f"images/{name}.png")).tolist()
    assert split.mask(name).tolist() == np.array(Image.open(tiny / f"masks/{name}.png")).tolist()
    assert all(split.has_mask(name) for name in split.unlabeled)


def test_the_manifest_counts_the_masks(project: Project, tiny: Path) -> None:
    prepared = prepare(project, str(tiny / "tiny.yaml"), "1/4", seed=5)
    masks = {p.stem: np.array(Image.open(p)) for p in (tiny / "masks").iterdir() if p.stem < "16"}
    found = prepared.manifest["classes"]["disc"]
    labeled = (prepared.folder / "labeled.txt").read_text().split()
    assert found == {
        "pixels": sum(int((mask == 2).sum()) for mask in masks.values()),
        "images": sum(bool((mask == 2).any()) for mask in masks.values()),
        "labeled_images": sum(bool((masks[name] == 2).any()) for name in labeled),
    }
    assert prepared.manifest["counts"] == {"train": 16, "labeled": 4, "unlabeled": 12, "val": 4}
    assert (prepared.manifest["source"], prepared.manifest["ignore_index"]) == ("seeded 5", 255)
    content = (prepared.folder / "labeled.txt").read_bytes()
    assert prepared.manifest["sha256"]["labeled"] == sha256(content).hexdigest()


def test_preparing_twice_changes_nothing(project: Project, tiny: Path) -> None:
    first = prepare(project, str(tiny / "tiny.yaml"), "1/4")
    before = contents(project.root / "data")
    assert first.read == 20
    assert prepare(project, "tiny", "1/4").read == 0
    assert contents(project.root / "data") == before


def test_a_second_split_reads_no_image_again_and_only_what_changed(project: Project, tiny: Path) -> None:
    prepare(project, str(tiny / "tiny.yaml"), "1/4")
    assert prepare(project, "tiny", "1/2").read == 0
    Image.fromarray(np.zeros((64, 64, 3), dtype=np.uint8)).save(tiny / "images/03.png")
    (project.data("tiny") / "masks/05.png").unlink()
    assert prepare(project, "tiny", "1/2").read == 2


def test_the_split_folder_is_the_same_wherever_the_images_and_the_project_lie(
    tmp_path: Path, tiny: Path
) -> None:
    folders = []
    for place in ("here", "there"):
        root = tmp_path / place
        shutil.copytree(tiny, root / "pictures")
        (root / "project").mkdir()
        project = Project(root / "project")
        folders.append(prepare(project, str(root / "pictures/tiny.yaml"), "1/4", seed=2).folder)
    files = [{p.name: p.read_bytes() for p in folder.iterdir()} for folder in folders]
    assert files[0] == files[1] and set(files[0]) == {
        "labeled.txt",
        "unlabeled.txt",
        "val.txt",
        "manifest.json",
    }
    assert str(tmp_path).encode() not in b"".join(files[0].values())


def test_a_changed_image_makes_another_manifest_and_the_old_split_is_refused(
    project: Project, tiny: Path
) -> None:
    old = prepare(project, str(tiny / "tiny.yaml"), "1/4").manifest["data"]
    Image.fromarray(np.zeros((64, 64, 3), dtype=np.uint8)).save(tiny / "images/03.png")
    assert prepare(project, "tiny", "1/2").manifest["data"] != old
    with pytest.raises(UserError, match=r"changed since.*u2pl prepare --dataset tiny --split 1/4"):
        open_split(project, "tiny", "1/4")


def test_every_problem_is_told_at_once_in_groups(project: Project, tiny: Path) -> None:
    (tiny / "images/00.png").unlink()
    for name in ("01", "02"):
        path = tiny / f"images/{name}.png"
        path.write_bytes(path.read_bytes()[:3000])
    Image.new("L", (5, 5)).save(tiny / "masks/03.png")
    Image.new("L", (64, 64), 77).save(tiny / "masks/04.png")
    shutil.copy(tiny / "images/06.png", tiny / "images/06.bmp")
    (tiny / "masks/17.png").unlink()
    (tiny / "train.txt").write_text((tiny / "train.txt").read_text() + "07\n16\n")
    with pytest.raises(UserError) as error:
        prepare(project, str(tiny / "tiny.yaml"), "1/4")
    said = str(error.value)
    for part in (
        "missing image: 1 (00)",
        "truncated or damaged image: 2 (images/01.png",
        "mask of another size than its image: 1 (03 (5 x 5, image 64 x 64))",
        "mask value that is neither a class nor ignored: 1 (masks/04.png (77; classes are 0 to 3",
        "several images for one name: 1 (06.bmp, 06.png)",
        "missing mask of a validation image: 1 (17)",
        "twice in train.txt: 1 (07)",
        "in both the training and the validation list: 1 (16)",
    ):
        assert part in said
    assert said.endswith("run the same command again.")
    assert not project.split("tiny", "1/4").exists()


def test_images_without_a_mask_can_only_be_unlabelled(project: Project, tiny: Path) -> None:
    bare = [f"{k:02}" for k in range(4, 16)]
    for name in bare:
        (tiny / f"masks/{name}.png").unlink()
    prepare(project, str(tiny / "tiny.yaml"), "1/2")
    split = open_split(project, "tiny", "1/2")
    assert len(split.labeled) == 2 and set(bare) < set(split.unlabeled)
    assert not split.has_mask("04") and split.has_mask("00")
    prepare(project, "tiny", "full")
    assert open_split(project, "tiny", "full").unlabeled == bare


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda tiny: shutil.rmtree(tiny / "masks"), "missing mask of a validation image: 4"),
        (
            lambda tiny: [(tiny / f"masks/{k:02}.png").unlink() for k in range(16)],
            "no training image has a mask",
        ),
        (lambda tiny: (tiny / "val.txt").write_text("\n"), "empty list: 1 (val.txt)"),
        (lambda tiny: (tiny / "val.txt").unlink(), "cannot be read"),
        (
            lambda tiny: [Image.new("L", (64, 64), 255).save(tiny / f"masks/{k:02}.png") for k in range(16)],
            "fewer than two classes",
        ),
    ],
)
def test_a_data_set_one_cannot_train_on_is_refused(
    project: Project, tiny: Path, spoil: Callable[[Path], object], said: str
) -> None:
    spoil(tiny)
    with pytest.raises(UserError) as error:
        prepare(project, str(tiny / "tiny.yaml"), "1/4")
    assert said in str(error.value)


def test_a_preparation_that_changed_masks_and_failed_leaves_no_split_that_opens(
    project: Project, tiny: Path, tmp_path: Path
) -> None:
    prepare(project, str(tiny / "tiny.yaml"), "1/4")
    other = Path(shutil.copytree(tiny, tmp_path / "other"))
    for path in (other / "masks").iterdir():
        Image.fromarray((np.array(Image.open(path)) + 1) % 4).save(path)
    cut = other / "images/03.png"
    cut.write_bytes(cut.read_bytes()[:500])
    with pytest.raises(UserError, match="truncated"):
        prepare(project, "tiny", "1/4", root=other)
    with pytest.raises(UserError, match=r"not finished, and has changed its masks.*u2pl prepare"):
        open_split(project, "tiny", "1/4")
    prepare(project, "tiny", "1/4")
    split = open_split(project, "tiny", "1/4")
    assert all(
        np.array_equal(split.mask(n), np.array(Image.open(tiny / f"masks/{n}.png"))) for n in split.images
    )


def test_a_preparation_that_failed_before_it_changed_anything_does_no_harm(
    project: Project, tiny: Path
) -> None:
    prepare(project, str(tiny / "tiny.yaml"), "1/4")
    (tiny / "images/03.png").unlink()
    with pytest.raises(UserError, match="missing image"):
        prepare(project, "tiny", "1/4")
    assert open_split(project, "tiny", "1/4").mask("05").shape == (64, 64)


def test_what_was_read_before_a_failure_is_not_read_again_also_the_second_time(
    project: Project, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from u2pl.data import check

    prepare(project, str(tiny / "tiny.yaml"), "1/4")
    for path in (tiny / "images").iterdir():
        os.utime(path, ns=(1, 1))
    (tiny / "masks/05.png").write_bytes(b"no picture")
    read: list[Path] = []
    original = check.read_picture
    monkeypatch.setattr(check, "read_picture", lambda path: (read.append(path), original(path))[1])
    counts = []
    for _ in range(2):
        with pytest.raises(UserError, match="damaged mask"):
            prepare(project, "tiny", "1/4")
        counts.append(len(read))
        read.clear()
    assert counts == [20, 1]


def test_names_may_hold_spaces_accents_and_folders(project: Project, tiny: Path) -> None:
    for part in ("images", "masks"):
        (tiny / part / "été 1").mkdir()
        (tiny / part / "00.png").rename(tiny / part / "été 1/a b.png")
    (tiny / "train.txt").write_text((tiny / "train.txt").read_text().replace("00\n", "été 1/a b\n"))
    prepare(project, str(tiny / "tiny.yaml"), "full")
    split = open_split(project, "tiny", "full")
    assert split.mask("été 1/a b").shape == (64, 64) and "été 1/a b" in split.labeled


def test_colour_masks_become_index_masks(project: Project, tiny: Path) -> None:
    colors = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255]], dtype=np.uint8)
    before = {p.stem: np.array(Image.open(p)) for p in (tiny / "masks").iterdir()}
    for name, mask in before.items():
        Image.fromarray(np.where(mask[..., None] < 4, colors[mask % 4], 99).astype(np.uint8)).save(
            tiny / f"masks/{name}.png"
        )
    prepare(project, described(tiny, colors=colors.tolist(), ignore_color=[99, 99, 99]), "1/4")
    split = open_split(project, "tiny", "1/4")
    assert all(np.array_equal(split.mask(name), mask) for name, mask in before.items())


def test_a_changed_description_is_noticed(project: Project, tiny: Path) -> None:
    prepare(project, str(tiny / "tiny.yaml"), "1/4")
    with pytest.raises(UserError, match="neither a class nor ignored"):
        prepare(project, described(tiny, classes=["ground", "square"]), "1/4")


def test_a_project_that_holds_its_data_can_be_moved(project: Project, tiny: Path, tmp_path: Path) -> None:
    shutil.move(tiny, project.root / "pictures")
    prepare(project, str(project.root / "pictures/tiny.yaml"), "1/4")
    shutil.move(project.root, tmp_path / "moved")
    moved = Project(tmp_path / "moved")
    split = open_split(moved, "tiny", "1/4")
    assert split.image(split.val[0]).shape == (64, 64, 3)
    assert prepare(moved, "tiny", "1/2").read == 0


def test_a_split_that_is_not_prepared_is_an_error_with_the_command(project: Project) -> None:
    with pytest.raises(UserError, match=r"u2pl prepare --dataset shapes --split 1/8$"):
        open_split(project, "shapes", "1/8")


def test_lists_edited_by_hand_are_noticed(project: Project, tiny: Path) -> None:
    folder = prepare(project, str(tiny / "tiny.yaml"), "1/4").folder
    (folder / "labeled.txt").write_text("00\n")
    with pytest.raises(UserError, match="edited"):
        open_split(project, "tiny", "1/4")


def test_an_image_that_is_gone_is_an_error_that_names_the_file(project: Project, tiny: Path) -> None:
    prepare(project, str(tiny / "tiny.yaml"), "1/4")
    split = open_split(project, "tiny", "1/4")
    (tiny / "images/16.png").unlink()
    with pytest.raises(UserError, match=r"missing image: .*16\.png"):
        split.image("16")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("voc", "1/8"), r"called '1/8'.*blender-1/8.*--source seeded"),
        (("cityscapes", "1/8"), r"registration.*leftImg8bit_trainvaltest\.zip.*gtFine_trainvaltest\.zip"),
        (("shapes", "classic-1/8"), "no pool of images called 'classic'"),
        (("camvit", "1/8"), "Did you mean 'camvid'"),
        (("camvid", "1/8"), "--root"),
        (("facade", "1/8"), "--root"),
        (("shapes", "1/8x"), "No split called"),
        (("nowhere.yaml", "1/8"), "There is no file"),
    ],
)
def test_an_unknown_data_set_or_split_is_a_sentence(
    project: Project, words: tuple[str, str], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        prepare(project, *words)
    assert not (project.root / "data").exists()


def test_a_description_cannot_take_the_name_of_a_built_in_data_set(project: Project, tiny: Path) -> None:
    with pytest.raises(UsageError, match="built-in"):
        prepare(project, described(tiny, name="shapes"), "1/4")


def test_a_data_set_may_not_lie_where_its_masks_are_written(project: Project, tiny: Path) -> None:
    shutil.copytree(tiny, project.data("tiny"))
    with pytest.raises(UsageError, match="Move it"):
        prepare(project, str(project.data("tiny") / "tiny.yaml"), "1/4")


def test_a_new_file_in_the_catalog_is_a_new_data_set(
    project: Project, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from u2pl.data import catalog

    (tmp_path / "catalog").mkdir()
    (tmp_path / "catalog/tiny.py").write_text(
        "from u2pl.data.description import Description\nfrom u2pl.data.layout import BuiltIn\n"
        "DATASET = BuiltIn(Description(name='tiny', classes=['ground', 'square', 'disc', 'bar']))\n"
    )
    monkeypatch.setattr(catalog, "__path__", [*catalog.__path__, str(tmp_path / "catalog")])
    prepare(project, "tiny", "1/4", root=tiny)
    assert len(open_split(project, "tiny", "1/4").labeled) == 4


def in_folders(root: Path, classes: int, void: int) -> Path:
    """A data set as `camvid` and `facade` lie; in each mask are all classes and void."""
    names = {"train.txt": [f"street {k}" for k in range(8)], "val.txt": [f"house {k}" for k in range(3)]}
    for part in ("images", "masks"):
        (root / part).mkdir(parents=True)
    rng = np.random.default_rng(3)
    values = [*range(classes), void]
    for k, name in enumerate([*names["train.txt"], *names["val.txt"]]):
        mask = np.roll(np.tile(np.array(values, np.uint8), (12, 2)), k, axis=1)
        Image.fromarray(mask).save(root / "masks" / f"{name}.png")
        picture = rng.integers(0, 256, (*mask.shape, 3), dtype=np.uint8)
        Image.fromarray(picture).save(root / "images" / f"{name}.jpg")
    for file, lines in names.items():
        (root / file).write_text("".join(f"{line}\n" for line in lines))
    return root


@pytest.mark.parametrize(("name", "classes", "void"), [("camvid", 11, 11), ("facade", 8, 255)])
def test_photographs_in_folders_are_prepared_by_the_name_of_their_data_set(
    project: Project, tmp_path: Path, name: str, classes: int, void: int
) -> None:
    root = in_folders(tmp_path / "photographs", classes, void)
    prepared = prepare(project, name, "1/4", root=root)
    assert prepared.manifest["counts"] == {"train": 8, "labeled": 2, "unlabeled": 6, "val": 3}
    split = open_split(project, name, "1/4")
    assert (len(split.classes), len(split.colors), split.ignore_index) == (classes, classes, void)
    assert not split.background
    for image in (split.labeled[0], split.val[0]):
        assert np.array_equal(split.mask(image), np.array(Image.open(root / f"masks/{image}.png")))
    Image.fromarray(np.full((12, 2 * classes + 2), classes + 1, np.uint8)).save(root / "masks/street 0.png")
    with pytest.raises(UserError, match=f"classes are 0 to {classes - 1}, ignored is {void}"):
        prepare(project, name, "1/4", root=root)


@pytest.mark.parametrize(
    ("name", "counts", "height", "width"),
    [
        ("camvid", {"train": 367, "labeled": 46, "unlabeled": 321, "val": 101}, 360, 480),
        ("facade", {"train": 600, "labeled": 75, "unlabeled": 525, "val": 145}, 210, 280),
    ],
)
def test_real_photographs_are_prepared_from_where_they_lie(
    project: Project, name: str, counts: dict[str, int], height: int, width: int
) -> None:
    if not (SHARED / name).is_dir():
        pytest.skip(f"needs the real photographs in ../shared/{name}")
    prepared = prepare(project, name, "1/8", root=SHARED / name)
    assert prepared.manifest["counts"] == counts
    assert all(found["labeled_images"] for found in prepared.manifest["classes"].values())
    split = open_split(project, name, "1/8")
    assert split.image(split.val[0]).shape == (height, width, 3)
    known = {*range(len(split.classes)), split.ignore_index}
    assert set(np.unique(split.mask(split.val[0])).tolist()) <= known and not split.background
    assert json.loads((project.data(name) / "source.json").read_text())["root"] == os.fspath(
        (SHARED / name).resolve()
    )


def turned(path: Path, orientation: int) -> None:
    """Give a picture an EXIF orientation, and leave its pixels as they are."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    with Image.open(path) as picture:
        picture.load()
    picture.save(path, exif=exif)


@pytest.mark.parametrize("orientation", [3, 6])
def test_masks_of_turned_images_lie_over_them_as_the_description_says(
    project: Project, tiny: Path, orientation: int
) -> None:
    before = {k: np.array(Image.open(tiny / f"masks/{k}.png")) for k in ("03", "05")}
    turned(tiny / "images/03.png", orientation)
    turned(tiny / "images/05.png", orientation)
    turned(tiny / "masks/05.png", orientation)
    for choice, other in (("shown", "as stored, add"), ("stored", "as shown, leave")):
        path = described(tiny, mask_orientation=choice)
        for _ in range(2):  # also where nothing is read again
            (note,) = prepare(project, path, "1/4").found
            assert note.startswith("1 image is turned by an EXIF orientation") and "(images/03.png)" in note
            assert f"over the images as {choice}" in note and f"{other} `mask_orientation: stored`" in note
        split = open_split(project, "tiny", "1/4")
        assert np.array_equal(
            split.mask("03"), upright(before["03"], orientation) if choice == "stored" else before["03"]
        )
        assert np.array_equal(split.mask("05"), upright(before["05"], orientation))


def test_where_a_mask_fits_its_image_only_turned_the_key_that_turns_it_is_named(
    project: Project, tiny: Path
) -> None:
    for part in ("images", "masks"):
        with Image.open(tiny / part / "03.png") as picture:
            cut = picture.crop((0, 0, 64, 40))
        cut.save(tiny / part / "03.png")
    turned(tiny / "images/03.png", 6)
    said = r"as shown \(add `mask_orientation: stored`.*03 \(64 x 40, image 40 x 64\)"
    with pytest.raises(UserError, match=said):
        prepare(project, described(tiny), "1/4")
    prepare(project, described(tiny, mask_orientation="stored"), "1/4")
    assert open_split(project, "tiny", "1/4").mask("03").shape == (64, 40)
    with Image.open(tiny / "masks/03.png") as picture:
        upright_mask = picture.transpose(Image.Transpose.ROTATE_270)
    upright_mask.save(tiny / "masks/03.png")
    with pytest.raises(UserError, match=r"as stored \(leave `mask_orientation: stored` out"):
        prepare(project, "tiny", "1/4")


def in_palette(path: Path, colors: list[tuple[int, int, int]]) -> None:
    """Give a mask a palette of 256 colours, the given ones first."""
    picture = Image.open(path)
    picture.load()
    picture.putpalette([value for color in [*colors, *[(7, 7, 7)] * (256 - len(colors))] for value in color])
    picture.save(path)


def test_an_index_of_different_colours_in_different_masks_is_refused_where_no_colours_are_given(
    project: Project, tiny: Path
) -> None:
    colors = [(0, 0, 0), (9, 0, 0), (0, 9, 0), (0, 0, 9)]
    paths = sorted((tiny / "masks").iterdir())
    before = {path.stem: np.array(Image.open(path)) for path in paths}
    for path in paths:
        in_palette(path, colors)
    prepare(project, described(tiny), "1/4")
    assert prepare(project, "tiny", "1/2").read == 0
    in_palette(paths[5], [colors[0], colors[2], colors[1], colors[3]])
    for again in range(2):  # the second time both masks are known
        with pytest.raises(UserError) as error:
            prepare(project, "tiny", "1/2")
        assert "palette: indices" in str(error.value) and f"in masks/{paths[5].name}" in str(error.value), (
            again
        )
        assert "is (9, 0, 0) in masks/00.png and (0, 9, 0)" in str(error.value)
    prepare(project, described(tiny, palette="indices"), "1/4")
    split = open_split(project, "tiny", "1/4")
    assert all(np.array_equal(split.mask(name), mask) for name, mask in before.items())


def test_a_data_set_that_was_read_in_another_way_is_read_again(
    project: Project, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(project, str(tiny / "tiny.yaml"), "1/4")
    source = project.data("tiny") / "source.json"
    facts = json.loads(source.read_text())
    del facts["reading"]  # as earlier versions wrote it, with records of fewer keys
    for record in facts["files"].values():
        del record["only_image_turned"], record["palette"]
    source.write_text(json.dumps(facts))
    manifest = (project.split("tiny", "1/4") / "manifest.json").read_bytes()
    with pytest.raises(
        UserError, match=r"prepared by a version that read some masks otherwise.*u2pl prepare"
    ):
        open_split(project, "tiny", "1/4")
    assert prepare(project, "tiny", "1/4").read == 20
    assert open_split(project, "tiny", "1/4").manifest == json.loads(manifest)
    assert prepare(project, "tiny", "1/4").read == 0
    (tiny / "masks/05.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match="damaged mask"):
        prepare(project, "tiny", "1/4")
    journal = project.data("tiny") / "checked.jsonl"
    head = journal.read_text().splitlines()[0]
    from u2pl.data import check

    monkeypatch.setattr(check, "READING", check.READING + 1)
    with pytest.raises(UserError, match="damaged mask"):
        prepare(project, "tiny", "1/4")
    assert journal.read_text().splitlines()[0] != head


def test_pipes_and_folders_called_like_pictures_are_told(project: Project, tiny: Path) -> None:
    for path in (tiny / "images/03.png", tiny / "masks/05.png"):
        path.unlink()
    os.mkfifo(tiny / "images/03.png")
    (tiny / "masks/05.png").mkdir()
    os.mkfifo(tiny / "images/06.bmp")
    with pytest.raises(UserError) as error:
        prepare(project, str(tiny / "tiny.yaml"), "1/4")
    assert "image that is no regular file: 1 (images/03.png)" in str(error.value)
    assert "mask that is no regular file: 1 (masks/05.png)" in str(error.value)
    assert "06" not in str(error.value)
