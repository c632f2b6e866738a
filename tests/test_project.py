"""Names that a shell, DVC and a file system take as they are."""

import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from u2pl.errors import UserError
from u2pl.project import NAME_BYTES, Project, is_inside, is_name, safe_name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("shapes-1/8-u2pl-s0", "shapes-1_8-u2pl-s0"),
        ("shapes-1/8-u2pl-alpha0=0.3-s0", "shapes-1_8-u2pl-alpha0=0.3-s0"),
        ("a-weights=my weights/é.pt-s0", "a-weights=my_weights_é.pt-s0"),
        ("a-by-r_l+r_h-s0", "a-by-r_l+r_h-s0"),
    ],
)
def test_ordinary_values_have_the_names_they_always_had(text: str, name: str):
    assert safe_name(text) == name


@given(st.text(min_size=1))
def test_every_name_is_a_word_to_a_shell_and_fits_a_file_system(text: str):
    name = safe_name(text)
    assert is_name(name) and len(name.encode()) <= NAME_BYTES
    assert not set(name) & set("$`\\\"' \t\n;&|<>(){}[]*?!~#/") and shlex.split(name) == [name]


def test_two_values_with_characters_that_are_replaced_keep_two_names():
    values = [
        "w (1).pt",
        "w [1].pt",
        "w {1}.pt",
        "w_(1).pt",
        "w__1_.pt",
        "w$1",
        "w`1",
        "w\n1",
        ".w",
        "-w",
        "=w",
    ]
    assert len({safe_name(value) for value in values[:3] + values[4:]}) == len(values) - 1


def test_words_that_are_no_utf_8_have_names_too():
    """As a shell hands them over: every byte of its own that is no UTF-8 is one character."""
    first, second = (safe_name(f"tiny-{end}") for end in ("\udcff", "\udcfe"))
    assert is_name(first) and is_name(second) and first != second


def test_two_long_values_keep_two_names():
    first, second = (safe_name("é" * 300 + end) for end in "ab")
    assert first != second and len(first.encode()) <= NAME_BYTES


@pytest.mark.parametrize(
    "path", ["..", "a/../../b", "/etc", "C:\\x", "C:x", "\\\\host\\share", "a\\..\\..\\b", "", "/"]
)
def test_a_path_that_leads_out_is_known_on_every_system(path: str):
    assert not is_inside(path)


@pytest.mark.parametrize("path", ["reports", "results/runs", "a..b/c"])
def test_a_path_inside_is_known(path: str):
    assert is_inside(path)


def test_a_current_folder_that_is_gone_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("U2PL_ROOT", raising=False)
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(UserError, match="The current folder is gone"):
        Project.find()
