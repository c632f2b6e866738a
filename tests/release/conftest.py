"""A release, and an environment with it, are made once, by one of the processes that test."""

from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock
from release.declared import make_environment
from release.packed import Packed
from tiny import REPOSITORY


def _once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """The folder `name` of all processes, after one of them has made it."""
    shared = factory.getbasetemp()
    if shared.name.startswith("popen-"):  # each process of pytest-xdist has a folder in that of all
        shared = shared.parent
    with FileLock(shared / f"{name}.lock"):
        if not (shared / f"{name}.done").exists():
            make(shared / name)
            (shared / f"{name}.done").touch()
    return shared / name


@pytest.fixture(scope="session")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Packed:
    """The sdist and the wheel."""
    return Packed(_once(tmp_path_factory, "packed", lambda folder: Packed(folder).make()))


@pytest.fixture(scope="session")
def programs(packed: Packed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment that has the wheel, what it declares and nothing else."""

    def make(folder: Path) -> None:
        make_environment(folder, packed.wheel, REPOSITORY / "constraints.txt")

    return _once(tmp_path_factory, "environment", make) / "bin"
