import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from u2pl.data import lists
from u2pl.data.prepare import prepare
from u2pl.data.prepared import open_split
from u2pl.errors import UsageError, UserError
from u2pl.project import Project

CASE = Path(__file__).parents[3] / "shared" / "cases" / "09-two-columns"
CITY = "leftImg8bit/train/ulm/ulm_000001_000019_leftImg8bit.png"


def meant(line: str, known: list[str], ending: str = "") -> lists.Matched:
    return lists.matched([line], lists.among(known, ending=ending))


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("2007_000032", "2007_000032"),
        ("2007_000032.jpg", "2007_000032"),
        ("JPEGImages/2007_000032.jpg SegmentationClass/2007_000033.png", "2007_000032"),
        (CITY, "ulm_000001_000019"),
        (f"{CITY} gtFine/train/ulm/ulm_000001_000019_gtFine_labelTrainIds.png", "ulm_000001_000019"),
        ("a b", "a b"),
        ("images/a b.png masks/a b.png", "a b"),
        ("images/a b.png\tmasks/a b.mat", "a b"),
        ("/data/images/sub/c.PNG", "sub/c"),
        ("C:\\my data\\images\\sub\\c.png", "sub/c"),
        ("./sub//c.png", "sub/c"),
        ("a.png b.png", "a.png b"),
        ("JPEGImages\\2007_000032.jpg", "2007_000032"),
        ("e\u0301t\u00e9", "\u00e9t\u00e9"),
    ],
)
def test_a_line_of_anybodys_list_finds_its_image(line: str, name: str) -> None:
    known = [
        "2007_000032",
        "2007_000033",
        "ulm_000001_000019",
        "a",
        "a b",
        "sub/c",
        "a.png b",
        "\u00e9t\u00e9",
    ]
    assert meant(line, known, "_leftImg8bit") == lists.Matched([name])


@pytest.mark.parametrize("line", ["x", "b/y.png", "x.png a.png", "x masks/a.png", "a copy.png", "a copy"])
def test_a_line_that_means_no_image_is_told_and_not_taken_for_one_of_its_words(line: str) -> None:
    assert meant(line, ["a"]) == lists.Matched(strange=[line])


@pytest.mark.parametrize(
    ("pattern", "path", "names"),
    [
        ("photos", "photos/a.png", ["a", "photos/a"]),
        ("photos", "photos\\sub\\a.jpg", ["sub/a", "photos/sub/a"]),
        ("photos/", "elsewhere/photos/a", ["elsewhere/photos/a", "a"]),
        ("photos", "elsewhere/a.png", ["elsewhere/a"]),
        ("2012/photos", "photos/a.png", ["a", "photos/a"]),
        ("photos/{name}_rgb", "a_rgb.png", ["a"]),
        ("photos/{name}_rgb.jpg", "photos/b/a_rgb.jpg", ["b/a", "photos/b/a"]),
        ("{name}/{name}_rgb", "a/a_rgb.png", ["a"]),
        ("{name}/{name}_rgb", "a/b_rgb.png", []),
        ("x.y/{name}", "x_y/a", ["x_y/a"]),
    ],
)
def test_the_pattern_of_a_data_set_tells_the_name_in_a_path(
    pattern: str, path: str, names: list[str]
) -> None:
    assert list(lists.Pattern(pattern).names(path, anywhere=True)) == names


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a\nb\n".encode("utf-16"), "UTF-16"),
        ("a\n\xe9t\xe9\n".encode("latin-1"), "line 2 is not UTF-8"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "not UTF-8"),
        (b"a\n\x00b\n", r"line 2 has a control character, U\+0000"),
        (b"a\x1b[31m\n", r"control character, U\+001B"),
        ("a\u2028b\n".encode(), r"control character, U\+2028"),
        (b"a" * 5000, "line 1 has 5,000 characters"),
        (b"a\n../../secret\n", "line 2 leads out"),
        (b"a.png ..\\b.png\n", "leads out"),
    ],
)
def test_what_is_no_list_is_refused_in_a_sentence_that_names_it(
    tmp_path: Path, content: bytes, said: str
) -> None:
    path = tmp_path / "train.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=said) as error:
        lists.read_lines(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_folder_nothing_and_a_file_too_large_are_no_lists(tmp_path: Path) -> None:
    for path, said in (
        (tmp_path, "it is a folder"),
        (tmp_path / "x", "No such file"),
        (tmp_path / "\0", "null"),
    ):
        with pytest.raises(UserError, match=said):
            lists.read_lines(path)
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(lists.LARGEST + 1)  # takes no space
    with pytest.raises(UserError, match="67,108,865 bytes"):
        lists.read_lines(tmp_path / "huge")


def test_a_list_may_have_blank_lines_line_ends_of_any_system_a_mark_and_suffixes(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_bytes("\ufeffa 1.png \r\n\r\n \nb\rsub/é\t\n".encode())
    assert lists.read_names(tmp_path / "train.txt") == ["a 1", "b", "sub/é"]


@pytest.mark.parametrize("line", ["/a", "C:\\a", "\\\\server\\a", "a.png /masks/a.png", "."])
def test_a_name_cannot_leave_the_data_set(tmp_path: Path, line: str) -> None:
    (tmp_path / "train.txt").write_text(f"b\n{line}\n")
    with pytest.raises(UserError, match="leads out"):
        lists.read_names(tmp_path / "train.txt")


# ---- lists that define a data set --------------------------------------------------------------------------


def rewritten(tiny: Path, change: Callable[[str], str], end: str = "\n", **keys: str) -> str:
    """The tiny data set with other lines in both lists, and other keys in its description."""
    for part in ("train.txt", "val.txt"):
        names = (tiny / part).read_text().split()
        (tiny / part).write_bytes("".join(change(name) + end for name in names).encode())
    path = tiny / "tiny.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **keys}))
    return str(path)


@pytest.mark.parametrize(
    ("change", "end"),
    [
        (lambda n: f"images/{n}.png masks/{n}.png", "\r\n"),
        (lambda n: f"{n}.jpg\t{n}.png ", "\n"),
        (lambda n: f"images\\{n}.png masks\\{n}.png", "\r\n"),
        (lambda n: f"./images/{n}", "\r"),
        (lambda n: f"mine/images/{n}.png mine/masks/{n}.png", "\n"),
        (lambda n: f"{n} masks/{n}", "\n"),
        (lambda n: f"{n} masks/{n}.png", "\n"),
    ],
)
def test_the_lists_of_a_data_set_may_be_written_in_any_of_these_ways(
    project: Project, tiny: Path, change: Callable[[str], str], end: str
) -> None:
    plainly = prepare(project, str(tiny / "tiny.yaml"), "1/4").manifest
    assert prepare(project, rewritten(tiny, change, end), "1/4").manifest == plainly


def test_lists_may_name_the_files_that_a_pattern_finds(project: Project, tiny: Path) -> None:
    for path in [*(tiny / "images").iterdir()]:
        path.rename(tiny / "images" / f"{path.stem}_rgb.png")
    path = rewritten(
        tiny,
        lambda n: f"images/{n}_rgb.png masks/{n}.png",
        images="images/{name}_rgb",
        masks="masks/{name}.png",
    )
    (tiny / "mine.txt").write_text("images/03_rgb.png masks/03.png\n05_rgb.png\n")
    prepare(project, path, "mine", source=[str(tiny / "mine.txt")])
    assert open_split(project, "tiny", "mine").labeled == ["03", "05"]


def test_a_list_that_names_another_mask_than_the_data_set_has_is_refused_with_both(
    project: Project, tiny: Path
) -> None:
    lines = "images/00.png masks/01.png\nimages/02.png gt/02.png\n03.png 03.jpg\n04.png masks/04.png\n"
    (tiny / "masks/04.png").unlink()
    (tiny / "train.txt").write_text(lines + "05\n")
    with pytest.raises(UserError) as error:
        prepare(project, str(tiny / "tiny.yaml"), "full")
    said = str(error.value)
    assert "another mask in the list than the data set has: 4" in said
    for part in (
        "00: masks/01.png in the list, masks/00.png by `masks: masks`",
        "02: gt/02.png in the list, masks/02.png",
        "03: 03.jpg in the list, masks/03.png",
        "04: masks/04.png in the list, none",
    ):
        assert part in said
    with pytest.raises(UserError, match=r"05: 06\.png in the list, masks/05\.png"):
        (tiny / "train.txt").write_text("05\n06\n")
        (tiny / "mine.txt").write_text("05.png 06.png\n")
        prepare(project, str(tiny / "tiny.yaml"), "mine", source=[str(tiny / "mine.txt")])


def test_of_names_with_blanks_those_that_exist_decide(project: Project, tiny: Path) -> None:
    for part in ("images", "masks"):
        for old, new in (("00", "a"), ("01", "a b"), ("02", "a b.png c d")):
            (tiny / part / f"{old}.png").rename(tiny / part / f"{new}.png")
    (tiny / "train.txt").write_text("a b.png c d.png\na b.png a b.png\na.png\n03 04\n")
    with pytest.raises(UserError, match=r"missing image: 1 \(03 04\)"):
        prepare(project, str(tiny / "tiny.yaml"), "full")
    (tiny / "train.txt").write_text("a b.png c d.png\nimages/a b.png masks/a b.png\na a.png\n")
    prepare(project, str(tiny / "tiny.yaml"), "full")
    assert open_split(project, "tiny", "full").labeled == ["a", "a b", "a b.png c d"]


def test_a_missing_image_and_one_of_another_folder_are_named_by_their_lines(
    project: Project, tiny: Path
) -> None:
    (tiny / "train.txt").write_text("images/77.png masks/77.png\nother/03.png\n" + "x" * 300 + "/y\n04\n")
    with pytest.raises(UserError) as error:
        prepare(project, str(tiny / "tiny.yaml"), "full")
    assert "missing image: 3 (images/77.png masks/77.png; other/03.png; xxx" in str(error.value)


def test_one_image_in_two_spellings_stands_twice(project: Project, tiny: Path) -> None:
    (tiny / "train.txt").write_text("03\nimages/03.png\n04\n")
    with pytest.raises(UserError, match=r"twice in train\.txt: 1 \(03\)"):
        prepare(project, str(tiny / "tiny.yaml"), "full")


# ---- words about splits ------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["1/0", "1/-2", "0/4", "1/99999999", "", " ", "1/8\n", "\u0661/8"])
def test_a_split_that_cannot_be_is_refused(project: Project, tiny: Path, split: str) -> None:
    with pytest.raises(UsageError, match="No split called"):
        prepare(project, str(tiny / "tiny.yaml"), split)


@pytest.mark.parametrize("seed", [-1, 2**63, True, 1.5])
def test_a_seed_that_cannot_be_is_refused(project: Project, tiny: Path, seed: int) -> None:
    with pytest.raises(UsageError, match=r"from 0 to 9223372036854775807, not .*--seed"):
        prepare(project, str(tiny / "tiny.yaml"), "1/4", seed=seed)
    assert prepare(project, str(tiny / "tiny.yaml"), "1/4", seed=2**63 - 1).manifest["seed"] == 2**63 - 1


def test_the_name_of_lists_of_ones_own_is_no_longer_than_a_folders(project: Project, tiny: Path) -> None:
    with pytest.raises(UsageError, match="name of their own"):
        prepare(project, str(tiny / "tiny.yaml"), "m" * 300, source=[str(tiny / "train.txt")])
    with pytest.raises(UserError, match="cannot be read"):
        prepare(project, str(tiny / "tiny.yaml"), "mine", source=["m" * 300])


# ---- a data set as it is found ------------------------------------------------------------------------------


@pytest.mark.skipif(not CASE.is_dir(), reason="needs ../shared/cases")
def test_lists_of_two_columns_and_carriage_returns_prepare_a_data_set(
    project: Project, tmp_path: Path
) -> None:
    case = Path(shutil.copytree(CASE, tmp_path / "case"))
    prepare(project, str(case / "d.yaml"), "full")
    split = open_split(project, "09_two_columns", "full")
    assert split.labeled == [f"im{k:02}" for k in range(12)] and split.val == [
        f"im{k}" for k in range(12, 16)
    ]
    for name in (*split.labeled, *split.val):
        assert np.array_equal(split.mask(name), np.array(Image.open(case / f"masks/{name}.png")))
    prepare(project, str(case / "d.yaml"), "mine", source=[str(case / "lab.txt")])
    assert open_split(project, "09_two_columns", "mine").labeled == ["im00", "im03"]
