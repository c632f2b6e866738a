from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from u2pl.auto import masks
from u2pl.auto.masks import IGNORE, class_names, read, understand
from u2pl.data.description import Description
from u2pl.data.inspection import BadFile
from u2pl.errors import UserError
from u2pl.labeling import premasks


def saved(folder: Path, values: Any, name: str = "a", palette: list[int] | None = None) -> Path:
    path = folder / f"{name}.png"
    picture = Image.fromarray(np.array(values, np.uint8))
    if palette is not None:
        picture.putpalette(palette)
    picture.save(path)
    return path


def test_two_values_are_background_and_an_object_whatever_they_are(tmp_path: Path):
    for values in ([[0, 255]], [[0, 1]], [[3, 77]]):
        path = saved(tmp_path, values)
        meaning = understand([path])
        assert (meaning.classes, meaning.background) == (["background", "object"], True)
        assert read(path, meaning).tolist() == [[0, 1]]


def test_255_beside_several_values_is_void_and_numbers_are_names(tmp_path: Path):
    path = saved(tmp_path, [[0, 2, 7, 255]])
    meaning = understand([path])
    assert meaning.classes == ["class 0", "class 2", "class 7"]
    assert read(path, meaning).tolist() == [[0, 1, 2, IGNORE]]
    assert "255" in meaning.notes[0]


@pytest.mark.parametrize(
    ("values", "names", "classes", "indices"),
    [
        ([0, 1, 2], "road car tree", ["road", "car", "tree"], [0, 1, 2]),
        ([0, 2], "road car tree", ["road", "car", "tree"], [0, 2]),
        ([0, 1, 2], "car tree", ["background", "car", "tree"], [0, 1, 2]),
        ([1, 2], "car tree", ["car", "tree"], [0, 1]),
        ([10, 20, 30], "car tree sky", ["car", "tree", "sky"], [0, 1, 2]),
        ([0, 1, 2], "tree background car", ["background", "tree", "car"], [1, 0, 2]),
        ([0, 1, 2], "background car", ["background", "car"], [IGNORE, 0, 1]),
        ([0, 1, 2], "void car tree", ["car", "tree"], [IGNORE, 0, 1]),
    ],
)
def test_names_go_to_values_in_their_order(
    tmp_path: Path, values: list[int], names: str, classes: list[str], indices: list[int]
):
    path = saved(tmp_path, [values])
    meaning = understand([path], [(name, None) for name in names.split()])
    assert meaning.classes == classes
    assert read(path, meaning).tolist() == [indices]


def test_names_that_do_not_fit_are_told(tmp_path: Path):
    with pytest.raises(UserError, match=r"2 class names, and the masks hold the values 0, 5, 9"):
        understand([saved(tmp_path, [[0, 5, 9, 12]])], [("a", None), ("b", None)])


def test_colours_are_classes_and_black_is_the_background(tmp_path: Path):
    path = saved(tmp_path, [[[255, 0, 0], [0, 0, 0], [0, 0, 255], [224, 224, 192]]])
    meaning = understand([path])
    assert meaning.classes[0] == "background"
    assert sorted(meaning.classes[1:]) == ["#0000ff", "#ff0000"]
    found = read(path, meaning)[0]
    assert found[1] == 0 and found[3] == IGNORE
    assert meaning.colors[found[0]] == (255, 0, 0)


def test_colours_with_names(tmp_path: Path):
    (tmp_path / "classes.txt").write_text("road 128 64 128\nsky, 70, 130, 180\n")
    found = class_names(tmp_path)
    assert found is not None
    path = saved(tmp_path, [[[70, 130, 180], [128, 64, 128], [0, 0, 0]]])
    meaning = understand([path], found[1])
    assert meaning.classes == ["road", "sky"]
    assert read(path, meaning).tolist() == [[1, 0, IGNORE]]
    with pytest.raises(UserError, match="does not name"):
        understand([saved(tmp_path, [[[1, 2, 3], [128, 64, 128]]])], found[1])


def test_a_table_of_classes_as_it_is_published_with_data_sets(tmp_path: Path):
    (tmp_path / "class_dict.csv").write_text("name,r,g,b\nAnimal,64,128,64\nArch way,192,0,128\n")
    found = class_names(tmp_path)
    assert found is not None and found[1] == [("Animal", (64, 128, 64)), ("Arch way", (192, 0, 128))]


def test_palettes_that_number_their_colours_anew_in_each_file_count_by_colour(tmp_path: Path):
    red, blue = [255, 0, 0], [0, 0, 255]
    a = saved(tmp_path, [[0, 1]], "a", [*red, *blue])
    b = saved(tmp_path, [[0, 1]], "b", [*blue, *red])
    meaning = understand([a, b])
    assert read(a, meaning).tolist() == read(b, meaning)[:, ::-1].tolist()
    c = saved(tmp_path, [[0, 1]], "c", [*red, *blue])
    assert not understand([a, c]).in_colors


def test_black_and_white_with_shades_between_is_two_classes_even_as_jpeg(tmp_path: Path):
    disk = np.hypot(*np.mgrid[-60:60, -60:60]) < 40
    path = tmp_path / "a.jpg"
    Image.fromarray((255 * disk).astype(np.uint8)).save(path, quality=80)
    soft = tmp_path / "b.png"
    Image.fromarray((255 * disk).astype(np.uint8)).resize((200, 200), Image.Resampling.BICUBIC).save(soft)
    for each in (path, soft):
        meaning = understand([each])
        assert meaning.threshold and meaning.classes == ["background", "object"]
        found = read(each, meaning)
        assert abs(found.mean() - disk.mean()) < 0.01
    assert (read(path, understand([path])) == disk).mean() > 0.99


def test_photographs_are_no_masks(tmp_path: Path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3))
    with pytest.raises(UserError, match="looks like a photograph"):
        understand([saved(tmp_path, pixels)])


def test_all_masks_that_cannot_be_read_are_told_at_once(tmp_path: Path):
    for name in "ab":
        (tmp_path / f"{name}.png").write_bytes(b"x")
    with pytest.raises(UserError, match=r"2 of 3 masks"):
        understand([*sorted(tmp_path.glob("*.png")), saved(tmp_path, [[0, 1]], "c")])


def test_one_file_among_many_that_can_be_no_mask_does_not_spoil_the_others(tmp_path: Path):
    paths = [saved(tmp_path, [[0, 1, 2]], f"{k}") for k in range(9)]
    (tmp_path / "x.png").write_bytes(b"")
    saved(tmp_path, np.random.default_rng(0).integers(0, 256, (40, 40, 3)), "y")
    meaning = understand([*paths, tmp_path / "x.png", tmp_path / "y.png"])
    assert meaning.classes == ["class 0", "class 1", "class 2"]
    for name in "xy":
        with pytest.raises(BadFile):
            read(tmp_path / f"{name}.png", meaning)


def test_values_that_were_chosen_for_the_eye_are_classes_up_to_white(tmp_path: Path):
    path = saved(tmp_path, [[0, 128, 255]])
    assert read(path, understand([path])).tolist() == [[0, 1, 2]]
    assert understand([path], [(name, None) for name in "abc"]).classes == ["a", "b", "c"]


def test_masks_of_0_and_1_beside_shaded_ones(tmp_path: Path):
    disk = np.hypot(*np.mgrid[-60:60, -60:60]) < 40
    soft = tmp_path / "soft.jpg"
    Image.fromarray((255 * disk).astype(np.uint8)).save(soft)
    path = saved(tmp_path, [[0, 1, 1]])
    assert read(path, understand([soft, path])).tolist() == [[0, 1, 1]]


def test_labelmes_list_of_classes_begins_with_a_name_for_no_value(tmp_path: Path):
    (tmp_path / "labels.txt").write_text("__ignore__\r\n_background_\r\n\r\ncat\r\ndog\r\n")
    found = class_names(tmp_path)
    assert found is not None
    path = saved(tmp_path, [[0, 1, 2]])
    meaning = understand([path], found[1])
    assert meaning.classes == ["_background_", "cat", "dog"]
    assert read(path, meaning).tolist() == [[0, 1, 2]]
    assert any("1 is cat" in note for note in meaning.notes)


def test_one_class_alone_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="Two classes"):
        understand([saved(tmp_path, [[4, 4]])])


def test_a_value_that_appeared_since_is_refused(tmp_path: Path):
    meaning = understand([saved(tmp_path, [[0, 1, 2]])])
    with pytest.raises(BadFile):
        read(saved(tmp_path, [[0, 9]]), meaning)


@pytest.mark.parametrize(
    ("text", "what"),
    [("a\na\n", "twice"), ("a 1 2 3\nb\n", "some classes alone"), ("a 1 2 300\n", "above 255")],
)
def test_class_files_that_contradict_themselves(tmp_path: Path, text: str, what: str):
    (tmp_path / "classes.txt").write_text(text)
    with pytest.raises(UserError, match=what):
        class_names(tmp_path)


def test_masks_of_0_and_1_beside_masks_of_0_and_255_are_of_one_class(tmp_path: Path):
    a, b = saved(tmp_path, [[0, 1]], "a"), saved(tmp_path, [[0, 255]], "b")
    meaning = understand([a, b])
    assert [read(each, meaning).tolist() for each in (a, b)] == [[[0, 1]]] * 2
    c = saved(tmp_path, [[0, 1, 255]], "c")
    assert read(c, understand([a, b, c])).tolist() == [[0, 1, IGNORE]]


def test_masks_that_were_suggested_say_themselves_how_they_are_read(tmp_path: Path):
    white = [saved(tmp_path, [[0, 255]], f"{k}") for k in range(3)]
    description = Description(name="holes", classes=["background", "object"], background=True)
    premasks.write(tmp_path / "back.png", np.array([[0, 1, 255]], np.uint8), description)
    meaning = understand([*white, tmp_path / "back.png"])
    assert [read(path, meaning).tolist() for path in white] == [[[0, 1]]] * 3
    assert read(tmp_path / "back.png", meaning).tolist() == [[0, 1, IGNORE]]


def test_where_another_program_has_saved_them_nobody_guesses(tmp_path: Path):
    white = [saved(tmp_path, [[0, 255]], f"{k}") for k in range(3)]
    back = saved(tmp_path, [[0, 1, 255]], "back")
    with pytest.raises(UserError, match="prepare --merge"):
        understand([*white, back])
    assert read(back, understand([back, *(saved(tmp_path, [[0, 1]], f"x{k}") for k in range(3))])).tolist()


@given(st.sets(st.integers(0, 254), min_size=2, max_size=40), st.randoms(use_true_random=False))
def test_every_value_of_index_masks_becomes_one_class(values: set[int], random: Any):
    from collections import Counter

    ordered = sorted(values)
    meaning = masks._of_values(Counter({value: random.randint(1, 9) for value in ordered}), {}, [])
    assert [meaning.of[value] for value in ordered] == list(range(len(ordered)))
    assert len(set(meaning.colors)) == len(meaning.classes) == len(set(meaning.classes)) == len(ordered)
