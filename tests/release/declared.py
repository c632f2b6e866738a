"""An environment that has what a wheel declares and nothing else, made of links to what is installed here."""

import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Iterable, Mapping
from email import message_from_bytes
from importlib.metadata import Distribution, distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def closure(requirements: Iterable[str]) -> dict[str, Distribution]:
    """What is installed here of the requirements, of theirs, and so on, by name."""
    found: dict[str, Distribution] = {}
    waiting = [(Requirement(text), "") for text in requirements]
    seen = set()
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        installed = found.setdefault(name, distribution(name))
        for wanted in {"", *requirement.extras} - {each for who, each in seen if who == name}:
            seen.add((name, wanted))
            waiting += [(Requirement(text), wanted) for text in installed.requires or []]
    return found


def make_environment(folder: Path, wheel: Path, constraints: Path) -> Path:
    """The `bin` of a new environment in which pip has installed the wheel.

    pip may fetch nothing, finds what the requirements need already there, and fails where something is missing or
    of a version that is not allowed. It is not in the environment itself.
    """
    venv.create(folder, symlinks=True)
    _link(closure(_requirements(wheel)), folder)
    python = folder / "bin" / "python"
    words = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-index"]
    done = subprocess.run(
        [*words, "--constraint", str(constraints), str(wheel)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return python.parent


def _requirements(wheel: Path) -> list[str]:
    """What a wheel says that it needs."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
        return message_from_bytes(archive.read(name)).get_all("Requires-Dist") or []


def _link(wanted: Mapping[str, Distribution], folder: Path) -> None:
    """Link to what some distributions have in site-packages; their programs get the environment's interpreter."""
    files = {canonicalize_name(each.name): each.files or [] for each in distributions()}
    not_wanted = {file.parts[0] for name in files.keys() - wanted.keys() for file in files[name]}
    site = Path(sysconfig.get_path("purelib", "venv", vars={"base": str(folder)}))
    for name, each in wanted.items():
        assert files[name], f"{name} does not say which files it has"
        tops = {file.parts[0] for file in files[name]} - {".."}
        for top in tops - not_wanted:  # a folder at once
            _link_once(Path(str(each.locate_file(top))), site / top)
        for file in files[name]:
            if file.parts[0] == ".." and file.parent.name == "bin":
                _copy_program(Path(str(each.locate_file(file))), folder / "bin" / file.name)
            elif file.parts[0] in tops & not_wanted:
                _link_once(Path(str(each.locate_file(file))), site / file)


def _link_once(source: Path, target: Path) -> None:
    if not target.is_symlink() and source.exists():  # what was compiled may have gone
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(source)


def _copy_program(source: Path, target: Path) -> None:
    first, _, rest = source.read_bytes().partition(b"\n")
    if first.startswith(b"#!"):
        first = f"#!{target.parent}/python".encode()
    target.write_bytes(first + b"\n" + rest)
    target.chmod(0o755)
