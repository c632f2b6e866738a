"""Every file that is read back: whole files are read as they are, others are refused in a sentence."""

import json
import string
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import written
from hypothesis import given
from hypothesis import strategies as st

from u2pl import typed_files
from u2pl.data.records import Manifest, Source
from u2pl.errors import UserError
from u2pl.files import read_json
from u2pl.project import is_inside
from u2pl.runs import records

RUN = written.run("tiny-1_4-mt-s0")
ROW = {"value": "0.1", "run": RUN["name"], "miou_reported": 50.0, "miou_last": None, "miou_best": 51}
SPLIT = {"dataset": "tiny", "split": "1/4", "method": "mt", "seed": 0}
MANIFEST = {
    "dataset": "tiny",
    "split": "1/4",
    "source": "seeded 0",
    "seed": 0,
    "counts": {"train": 16, "labeled": 4, "unlabeled": 12, "val": 4},
    "sha256": {"labeled": "0", "unlabeled": "1", "val": "2"},
    "data": "3",
    "classes": {"ground": {"pixels": 1, "images": 1, "labeled_images": 1}},
    "ignore_index": 255,
    "background": True,
}
FILE = {
    "image": "a.png",
    "mask": None,
    "image_sha256": "0",
    "mask_sha256": None,
    "pixels": [],
    "stats": [[1, 2]],
}
WHOLE = {
    "run.json": (records.Run, RUN),
    "metrics.json": (records.Metrics, written.metrics(RUN)),
    "ablation.json": (
        records.Ablation,
        {**SPLIT, "name": "a", "parameter": "p", "uid": "0" * 32, "runs": [ROW]},
    ),
    "manifest.json": (Manifest, MANIFEST),
    "source.json": (Source, {"root": "/x", "version": None, "data": "0", "files": {"a/b": FILE}}),
    "tracking.json": (
        records.TrackedRun,
        {"store": "sqlite:///x", "experiment": "1", "run": "0a", "fingerprint": "0" * 16},
    ),
}
KINDS = pytest.mark.parametrize("name", list(WHOLE))


def write(folder: Path, name: str, value: Any) -> Path:
    path = folder / name
    path.write_text(json.dumps(value))
    return path


def leaves(value: Any, where: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value of a nested one, its own first."""
    yield where
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in below:
        yield from leaves(each, (*where, key))


def replaced(value: Any, where: tuple[Any, ...], new: Any) -> Any:
    if not where:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[where[0]] = replaced(copy[where[0]], where[1:], new)
    return copy


@KINDS
def test_a_whole_file_is_read_as_it_is_with_what_a_later_version_may_add(tmp_path: Path, name: str):
    kind, value = WHOLE[name]
    later = {**value, "of a later version": [1, {"a": None}]}
    assert typed_files.read(kind, write(tmp_path, name, later)) == later


FREE = {"overrides", "hyper", "flavor", "parameter"}
"""Under these anything may stand, or any text."""


@KINDS
def test_no_field_may_have_another_type(tmp_path: Path, name: str):
    kind, value = WHOLE[name]
    wrong = 0
    for where in leaves(value):
        if set(where) & FREE or where[-2:-1] in (("recipe",), ("tags",)):
            continue
        path = write(tmp_path, name, replaced(value, where, {"no": ["such"]} if where else []))
        with pytest.raises(UserError, match=rf"^{path} is not what u2pl writes there \(.*\)\. .*\.$"):
            typed_files.read(kind, path)
        wrong += 1
    assert wrong >= 5


@KINDS
def test_no_field_may_be_missing(tmp_path: Path, name: str):
    kind, value = WHOLE[name]
    optional = {("manifest.json", "seed"), ("metrics.json", "flavor")}
    for key in value:
        if (name, key) in optional:
            continue
        path = write(tmp_path, name, {k: v for k, v in value.items() if k != key})
        with pytest.raises(UserError, match=f"{key}: Field required"):
            typed_files.read(kind, path)


PATHS = ["/etc", "..", "../x", "a/../../b", "a\\b", "C:\\x", ".hidden", "", "a\0b", "a\nb", "x" * 300]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("run.json", ("name",)),
        ("run.json", ("parent",)),
        ("run.json", ("fingerprint",)),
        ("run.json", ("uid",)),
        ("run.json", ("dataset",)),
        ("run.json", ("facts", "dataset")),
        ("metrics.json", ("name",)),
        ("metrics.json", ("fingerprint",)),
        ("ablation.json", ("name",)),
        ("ablation.json", ("runs", 0, "run")),
        ("manifest.json", ("dataset",)),
        ("tracking.json", ("run",)),
    ],
)
def test_a_name_is_never_a_path(tmp_path: Path, name: str, where: tuple[Any, ...], path: str):
    kind, value = WHOLE[name]
    with pytest.raises(UserError, match="is not what u2pl writes there"):
        typed_files.read(kind, write(tmp_path, name, replaced(value, where, path)))


@given(st.text(st.characters(codec="utf-8"), max_size=40))
def test_what_passes_for_a_folders_name_is_one_folder_below_its_parent(text: str):
    try:
        name = typed_files._is_folder_name(text)
    except ValueError:
        return
    path = Path("parent") / name
    assert path.parent == Path("parent")
    assert path.name == text
    assert not set(text) & {"/", "\\", "\0", "\n"}


@given(st.lists(st.text(string.ascii_letters + "./\\:", min_size=1, max_size=6), max_size=5).map("/".join))
def test_what_stays_inside_stays_inside(text: str):
    if is_inside(text):
        root = Path("/a/b")
        assert Path(root / text.replace("\\", "/")).parts[:3] == root.parts
        assert ".." not in text.replace("\\", "/").split("/")


@pytest.mark.parametrize(
    "text", ["", "{", "[1,", '{"a": NaN}', '{"a": Infinity}', "[" * 100_000, "1" * 5000, "\ufeff{}"]
)
def test_what_is_no_json_is_refused_in_a_sentence(tmp_path: Path, text: str):
    path = tmp_path / "run.json"
    path.write_text(text)
    with pytest.raises(UserError, match=rf"^{path} is damaged"):
        read_json(path)


def test_what_is_no_text_is_refused_in_a_sentence(tmp_path: Path):
    path = tmp_path / "run.json"
    path.write_bytes(b"\xff\xfe{}")
    with pytest.raises(UserError, match=rf"^{path} is damaged"):
        read_json(path)


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: __import__("os").mkfifo(path)])
def test_a_folder_or_a_pipe_in_a_files_place_is_refused_at_once(tmp_path: Path, make: Callable[[Path], None]):
    path = tmp_path / "run.json"
    make(path)
    with pytest.raises(UserError, match=rf"^{path} cannot be read \(It is no ordinary file\)"):
        read_json(path)


LINE = {"time": 1, "event": "step", "step": 1, "epoch": 0, "metrics": {"loss": 1.5}}


@pytest.mark.parametrize(
    "changes",
    [{"time": "1"}, {"metrics": []}, {"metrics": {"a": "b"}}, {"step": -1}, {"epoch": None}, {"event": 3}],
)
def test_a_line_that_is_no_event_is_passed_over(changes: dict[str, Any]):
    assert records.parse_event(json.dumps(LINE)) == LINE
    assert records.parse_event(json.dumps(LINE | changes)) is None
    assert records.parse_event(json.dumps(LINE)[:-3]) is None
    assert records.parse_event("[]") is None
