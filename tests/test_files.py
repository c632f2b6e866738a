import json
import math
import os
from pathlib import Path

import pytest
import yaml

from u2pl.data.description import read_description
from u2pl.errors import UserError
from u2pl.files import (
    content,
    parse_yaml,
    read_json,
    sha256,
    sha256_json,
    sha256_of,
    sweep,
    write_atomically,
    write_json,
    write_text,
)
from u2pl.pipeline.files import read_yaml
from u2pl.pipeline.plans import Plan
from u2pl.project import Project
from u2pl.settings import Params


def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path):
    path = tmp_path / "file"
    path.write_text("old")

    def fail(temporary: Path) -> None:
        temporary.write_text("half of the n")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_atomically(path, fail)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("file", "old")]


def test_the_old_file_is_readable_until_the_new_one_is_whole(tmp_path: Path):
    path = tmp_path / "file"
    path.write_text("old")
    seen = []

    def write(temporary: Path) -> None:
        temporary.write_text("new")
        seen.append(path.read_text())

    write_atomically(path, write)
    assert [*seen, path.read_text()] == ["old", "new"]


def test_folders_on_the_way_are_made_and_text_is_utf_8(tmp_path: Path):
    write_text(tmp_path / "a" / "b" / "c", "U²PL")
    assert (tmp_path / "a" / "b" / "c").read_bytes() == "U²PL".encode()


def test_json_is_read_back_and_has_no_nan(tmp_path: Path):
    path = tmp_path / "value.json"
    write_json(path, {"ä": [1, 2.5, None]})
    assert read_json(path) == {"ä": [1, 2.5, None]}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"miou": math.nan})
    assert json.loads(path.read_text()) == {"ä": [1, 2.5, None]}


def test_a_hash_of_json_does_not_depend_on_the_order_of_keys():
    assert sha256_json({"a": 1, "b": 2}) == sha256_json({"b": 2, "a": 1})
    assert sha256_json({"a": 1}) != sha256_json({"a": 2})
    assert sha256("ä") == sha256("ä".encode())


BOMB = "\n".join(
    [
        f"k0: &k0 [{', '.join('x' * 10)}]",
        *(f"k{n}: &k{n} [{', '.join([f'*k{n - 1}'] * 10)}]" for n in range(1, 8)),
    ]
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("lr: 1\nlr: 2", "line 2: the key 'lr' stands there twice"),
        ("lr: 1\n'lr': 1", "line 2: the key 'lr' stands there twice"),
        ("recipe:\n  a: {b: 1, c: 2, b: 3}", "line 2: the key 'b' stands there twice"),
        ("[{a: 1, a: 1}]", "the key 'a' stands there twice"),
        ("1: one", "line 1: the key '1' is no text"),
        ("no: one", "the key 'no' is no text"),
        ("null: one", "the key 'null' is no text"),
        ("[a, b]: one", "a key is no text"),
        ("a: &a [*a]", "line 1: a value is part of itself"),
        ("a: &a {b: *a}", "a value is part of itself"),
        (BOMB, "its aliases stand for more than 1,000,000 values"),
        ("[" * 500_000 + "]" * 500_000, "more than 100 lists and mappings in each other"),
        ("- " * 500_000, "more than 100 lists and mappings in each other"),
        ("a: !!python/object/apply:os.getcwd []", "line 1: could not determine a constructor"),
        ("a: !!python/name:os.getcwd", "could not determine a constructor"),
        (b"a: caf\xe9", "UTF-8"),
        ("a: 1\n---\na: 2", "another document"),
        ("a: 2020-13-45", "month"),
        ("a: " + "9" * 5000, "digits"),
        ("a: !!timestamp x", ""),
        ("a: [1", "line 2"),
        ("a: \udc80", "surrogates"),
    ],
)
def test_yaml_that_is_ambiguous_or_dangerous_is_refused_in_a_line(text: str | bytes, says: str):
    with pytest.raises(yaml.YAMLError) as caught:
        parse_yaml(text)
    assert says in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("\ufeffa: ü", {"a": "ü"}),
        ("\ufeffa: ü".encode(), {"a": "ü"}),
        (
            "a: &a {b: 1, c: 2}\nd: {<<: *a, c: 3}\ne: {<<: *a}",
            {"a": {"b": 1, "c": 2}, "d": {"b": 1, "c": 3}, "e": {"b": 1, "c": 2}},
        ),
        ("a: &a [1]\nb: [*a, *a]", {"a": [1], "b": [[1], [1]]}),
        ("{a: {b: 1}, c: {b: 1}}", {"a": {"b": 1}, "c": {"b": 1}}),
        ("- {a: 1}\n- {a: 1}", [{"a": 1}, {"a": 1}]),
        ("'1': one", {"1": "one"}),
        (f"[{', '.join(['[]'] * 500)}]", [[]] * 500),
    ],
)
def test_other_yaml_is_read_as_ever(text: str | bytes, value: object):
    assert parse_yaml(text) == value


def test_what_killed_writers_left_is_swept_and_nothing_else(tmp_path: Path):
    dead, alive = f".a.json.{2**22 + 1}.tmp", f".a.json.{os.getpid()}.tmp"
    others = [alive, ".a.json.tmp", ".a.12x.tmp", "a.json.4194305.tmp", ".a.json.4194305.tmp.gz"]
    for name in (dead, *others):
        (tmp_path / name).touch()
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / dead).touch()
    sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*others, "inner"}
    assert (tmp_path / "inner" / dead).exists()


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["pipe", "folder"])
def test_what_is_no_ordinary_file_is_refused_at_once_and_never_waited_for(tmp_path: Path, make):
    make(tmp_path / "x")
    for read in (content, sha256_of):
        with pytest.raises(OSError, match="It is no ordinary file"):
            read(tmp_path / "x")
    for name in ("params.yaml", "dvc.yaml"):
        make(tmp_path / name)
    with pytest.raises(UserError, match="no ordinary file"):
        Params.read(Project(tmp_path))
    with pytest.raises(UserError, match="no ordinary file"):
        read_description(tmp_path / "x")
    with pytest.raises(UserError, match="no ordinary file"):
        read_yaml(Plan, tmp_path / "x", "Mend it.")
