import json
import math
from pathlib import Path

import pytest

from u2pl.files import read_json, sha256, sha256_json, write_atomically, write_json, write_text


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
