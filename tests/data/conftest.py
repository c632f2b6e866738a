"""Miniatures of the built-in data sets, and the server that u2pl takes for theirs."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from data import miniature
from data.serving import Server, serving


@pytest.fixture
def server(everything: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Serves `served/` of a module's miniatures, which u2pl takes for the real data sets."""
    with serving(everything / "served") as server:
        miniature.patch(monkeypatch, everything / "served", server.address)
        yield server


@pytest.fixture
def root(everything: Path, tmp_path: Path) -> Path:
    """A copy of the unpacked miniatures, the test's own."""
    return Path(shutil.copytree(everything / "unpacked", tmp_path / "mine"))
