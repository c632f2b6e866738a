from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from u2pl.data.description import (
    Description,
    default_color,
    describe,
    read_description,
    read_mask,
    remembered,
)
from u2pl.data.inspection import BadFile
from u2pl.data.pictures import Finder, read_image
from u2pl.errors import UserError
from u2pl.files import write_json
from u2pl.project import is_inside

SIGNS = Description(
    name="signs", classes=["other", "stop"], colors=[(10, 20, 30), (200, 0, 0)], ignore_color=(0, 0, 0)
)


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_yaml_file_of_ten_lines_describes_a_data_set(tmp_path: Path) -> None:
    text = "name: mine\nclasses: [sky, sea]\nimages: photos\nmasks: 'gt/{name}_gt'\nignore_index: 9\nval: v.txt\n"
    found = read_description(written(tmp_path / "mine.yaml", text))
    assert (found.name, found.classes, found.ignore_index, found.background) == (
        "mine",
        ["sky", "sea"],
        9,
        False,
    )
    assert found.colors == [(0, 0, 0), (128, 0, 0)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: mine\nclasses: [a, b]\ncolours: []", "Did you mean 'colors'"),
        ("name: mine", "classes: Field required"),
        ("name: mine\nclasses: [a, a]", "a class name stands twice"),
        ("name: mine\nclasses: [yes, no]", "valid string"),
        ("name: mine\nclasses: [a, b]\nignore_index: 1", "ignore_index 1 is also a class"),
        ("name: mine\nclasses: [a, b]\ncolors: [[0, 0, 0]]", "1 colors for 2 classes"),
        ("name: mine\nclasses: [a, b]\ncolors: [[0, 0, 0], [0, 0, 0]]", "same color"),
        ("name: mine\nclasses: [a, b]\ncolors: [[0, 0, 0], [0, 0, 256]]", "from 0 to 255"),
        ("name: ../mine\nclasses: [a, b]", "name: "),
        ("name: mine\nclasses: [a, b]\nimages: ../elsewhere", "stay inside"),
        ("name: mine\nclasses: [a, b]\ntrain: /etc/passwd", "stay inside"),
        ("- a\n- b", "must hold keys"),
        ("name: [", "not a YAML file"),
        ("name: !!python/object/apply:os.getcwd []", "not a YAML file"),
        ("name: mine\nclasses: [a, b]\nname: yours", "line 3: the key 'name' stands there twice"),
        ("name: mine\nclasses: [a, b]\n255: void", "called '255'"),
    ],
)
def test_a_wrong_description_is_refused_in_a_sentence(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UserError) as error:
        read_description(written(tmp_path / "mine.yaml", text))
    assert said in str(error.value)
    assert "\n    " not in str(error.value).split("Mend")[-1]


def test_a_description_that_is_not_utf_8_is_refused_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes("name: mine\nclasses: [Bäume, See]\n".encode("latin-1"))
    with pytest.raises(UserError, match="not a YAML file that can be read"):
        read_description(path)


@given(st.integers(0, 255), st.integers(0, 255))
def test_default_colors_are_distinct(a: int, b: int) -> None:
    assert (default_color(a) == default_color(b)) == (a == b)


@pytest.mark.parametrize("path", ["..", "a/../../b", "/a", "C:\\a", "C:a", "\\\\server\\a", "..\\a", "", "."])
def test_a_path_that_could_leave_the_root_is_not_inside(path: str) -> None:
    assert not is_inside(path)


@pytest.mark.parametrize("path", ["a", "a/b c", "Straße/été 1", "a..b", "12:30"])
def test_names_may_hold_spaces_folders_and_other_alphabets(path: str) -> None:
    assert is_inside(path)


def test_files_are_found_by_name_whatever_their_suffix_and_way_to_write_an_accent(tmp_path: Path) -> None:
    (tmp_path / "images/sub").mkdir(parents=True)
    for name in ("a.b.JPG", "sub/cafe\u0301.png"):
        (tmp_path / "images" / name).touch()
    finder = Finder(tmp_path, "images")
    assert [path.name for path in finder.find("a.b")] == ["a.b.JPG"]
    assert len(finder.find("sub/caf\u00e9")) == 1
    assert finder.find("a") == []


def test_a_pattern_tells_image_and_mask_in_one_folder_apart(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.png", "a_gt.png"):
        (tmp_path / name).touch()
    assert [path.name for path in Finder(tmp_path, "{name}.jpg").find("a")] == ["a.jpg"]
    assert [path.name for path in Finder(tmp_path, "{name}_gt").find("a")] == ["a_gt.png"]


def saved(path: Path, pixels: object, mode: str | None = None) -> Path:
    picture = Image.fromarray(np.asarray(pixels, dtype=np.uint8))
    (picture.convert(mode) if mode else picture).save(path)
    return path


def test_a_colour_mask_is_mapped_through_the_colours(tmp_path: Path) -> None:
    colors = [[[10, 20, 30], [200, 0, 0]], [[0, 0, 0], [200, 0, 0]]]
    assert read_mask(saved(tmp_path / "m.png", colors), SIGNS).tolist() == [[0, 1], [255, 1]]
    assert read_mask(saved(tmp_path / "m.png", colors, "RGBA"), SIGNS).tolist() == [[0, 1], [255, 1]]


def test_a_colour_that_is_no_class_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=r"mask colour .*\(1, 2, 3\)"):
        read_mask(saved(tmp_path / "m.png", [[[10, 20, 30], [1, 2, 3]]]), SIGNS)


def test_a_palette_mask_may_be_said_to_mean_its_indices_whatever_their_colours(tmp_path: Path) -> None:
    palette = Image.fromarray(np.array([[0, 1, 255]], dtype=np.uint8))
    palette.putpalette([90, 90, 90, 7, 7, 7, *range(254), *range(254), *range(254)])
    palette.save(tmp_path / "m.png")
    with Image.open(tmp_path / "m.png") as saved_as:
        assert saved_as.mode == "P"
    indices = SIGNS.model_copy(update={"palette": "indices"})
    assert read_mask(tmp_path / "m.png", indices).tolist() == [[0, 1, 255]]
    with pytest.raises(BadFile, match=r"palette: indices.*index 0 is \(90, 90, 90\);.*other, \(10, 20, 30\)"):
        read_mask(tmp_path / "m.png", SIGNS)


def test_a_sixteen_bit_index_mask_is_read_without_loss(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 1]], dtype=np.uint16)).save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png", SIGNS).tolist() == [[0, 1]]
    Image.fromarray(np.array([[0, 256]], dtype=np.uint16)).save(tmp_path / "m.png")
    with pytest.raises(BadFile, match="256"):
        read_mask(tmp_path / "m.png", SIGNS)


def test_a_value_that_is_no_class_is_refused_with_the_values_that_are(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=r"7; classes are 0 to 1, ignored is 255"):
        read_mask(saved(tmp_path / "m.png", [[0, 7]]), SIGNS)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK", "LA"])
def test_pictures_of_every_mode_become_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    Image.new("RGB", (5, 4), (255, 255, 255)).convert(mode).save(path)
    pixels: NDArray[np.uint8] = read_image(path)
    assert pixels.shape == (4, 5, 3) and pixels.dtype == np.uint8 and (pixels > 250).all()


def test_a_picture_of_sixteen_bits_is_refused_rather_than_clipped(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 60000]], dtype=np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(BadFile, match="more than 8 bits"):
        read_image(tmp_path / "a.png")


def test_a_photograph_is_turned_as_its_camera_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (5, 4)).save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").shape == (5, 4, 3)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "webp"])
def test_a_truncated_picture_is_an_error_that_names_the_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(BadFile, match="truncated or damaged image") as error:
        read_image(path)
    assert str(path) in str(error.value)


ZERO_IS_VOID = Description(name="land", classes=["field", "road"], zero="void")


def test_zero_may_be_void_and_the_classes_start_at_one(tmp_path: Path) -> None:
    assert read_mask(saved(tmp_path / "m.png", [[0, 1, 2, 255]]), ZERO_IS_VOID).tolist() == [[255, 0, 1, 255]]
    with pytest.raises(BadFile, match="3; classes are 1 to 2, ignored is 255"):
        read_mask(saved(tmp_path / "m.png", [[0, 3]]), ZERO_IS_VOID)
    void_by_both = Description(name="land", classes=["field", "road"], zero="void", ignore_index=0)
    assert void_by_both.ignore_index == 255


def test_mask_values_may_be_given_classes_one_by_one(tmp_path: Path) -> None:
    values = {0: "void", 1: "field", 7: "road", 300: "road"}
    land = Description(name="land", classes=["field", "road"], values=values)
    Image.fromarray(np.array([[0, 1, 7, 300, 255]], np.uint16)).save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png", land).tolist() == [[255, 0, 1, 1, 255]]
    with pytest.raises(BadFile, match=r"2; classes are 1, 7, 300, ignored is 255"):
        read_mask(saved(tmp_path / "m.png", [[0, 2]]), land)


def test_masks_that_seem_to_start_at_one_are_refused_with_the_key_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="add `zero: void`"):
        read_mask(saved(tmp_path / "m.png", [[0, 1, 2]]), SIGNS)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"ignore_index": 0}, "write zero: void instead"),
        ({"ignore_index": 1}, "write with values: what each means"),
        ({"zero": "void", "values": {0: "void"}}, "leave one out"),
        ({"values": {0: "a", 1: "c"}}, "'c' is no class"),
        ({"values": {0: "a", 1: "void"}}, "no value to 'b'"),
        ({"values": {-1: "a", 1: "b"}}, "0 to 65535"),
        ({"classes": ["a", "void"], "values": {0: "a", 1: "void"}}, "the class 'void'"),
        ({"palette": "colors"}, "needs the classes' colors"),
        ({"palette": "colours"}, "'automatic', 'colors', 'indices' or 'consistent'"),
        ({"mask_orientation": "turned"}, "'shown' or 'stored'"),
    ],
)
def test_a_description_that_contradicts_itself_on_masks_is_refused(
    keys: dict[str, object], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        describe({"name": "x", "classes": ["a", "b"], **keys}, "x.yaml")


def test_that_no_colours_were_given_is_known_when_the_description_is_read_again(tmp_path: Path) -> None:
    own = [default_color(0), default_color(1)]
    for keys, palette in (({}, "consistent"), ({"colors": []}, "consistent"), ({"colors": own}, "automatic")):
        first = Description(name="x", classes=["a", "b"], **keys)  # type: ignore[arg-type]
        write_json(tmp_path / "dataset.json", first.model_dump(mode="json", exclude={"root"}))
        again = remembered(tmp_path / "dataset.json")
        assert first.colors == again.colors == own
        assert first == again and again.palette == palette


def test_colours_that_an_earlier_version_chose_are_not_taken_for_given(tmp_path: Path) -> None:
    values = {"name": "x", "classes": ["a", "b"]}
    given = [[0, 0, 0], [128, 0, 1]]
    for colors, palette in (([[0, 0, 0], [128, 0, 0]], "consistent"), (given, "automatic")):
        write_json(tmp_path / "dataset.json", {**values, "colors": colors})
        assert remembered(tmp_path / "dataset.json").palette == palette
