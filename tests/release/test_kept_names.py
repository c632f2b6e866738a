"""Names that a version promises are there in every later one of the same minor version: docs/promises.md."""

import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from release.keep import KEPT, SPEAKING, names

import u2pl as library

MINOR = library.__version__.rpartition(".")[0]
VERSIONS = sorted(path.name.removesuffix(".json") for path in KEPT.glob(f"{MINOR}.*.json"))


def missing(before: Any, now: Any, where: str = "") -> Iterator[str]:
    """What was there before and is no more, by its place."""
    if isinstance(before, dict):
        for key, value in before.items():
            if not isinstance(now, dict) or key not in now:
                yield f"{where}/{key}"
            else:
                yield from missing(value, now[key], f"{where}/{key}")
    elif isinstance(before, list):
        items = now if isinstance(now, list) else []
        for item in before:
            if isinstance(item, str):
                yield from [] if item in items else [f"{where}/{item}"]
            else:
                yield from missing(item, items[0] if items else None, f"{where}[]")


def test_what_is_missing_is_found():
    before = {"a": [{"b": None}], "c": ["x", "y"], "d": {}}
    assert list(missing(before, {**before, "e": 1})) == []
    assert list(missing(before, {"a": [{}], "c": ["y"]})) == ["/a[]/b", "/c/x", "/d"]


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
def test_no_command_option_setting_or_key_has_gone(
    version: str, tmp_path: Path, u2pl: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("U2PL_ROOT", raising=False)
    with tarfile.open(KEPT / f"{library.__version__}.tar.xz") as archive:
        archive.extractall(tmp_path / "kept", filter="data")
    answers = {}
    for words in SPEAKING:
        done = u2pl(*words.split(), "--json", cwd=tmp_path / "kept")
        assert done.returncode == 0, words + done.stderr
        answers[words] = json.loads(done.stdout)
    before = json.loads((KEPT / f"{version}.json").read_text())
    assert list(missing(before, names(answers))) == []
