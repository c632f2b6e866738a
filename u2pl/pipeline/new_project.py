"""Makes a project in a folder: settings, pipeline, plans; and shows what a newer version would change in one."""

import difflib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import u2pl
from u2pl.errors import UsageError, UserError
from u2pl.files import sha256, write_json, write_text
from u2pl.project import Project
from u2pl.settings import RECIPE_VERSION
from u2pl.settings.project_record import RECORD, ProjectRecord, read_record

FILES = ("params.yaml", "dvc.yaml", ".dvcignore", "pipelines/**/*.yaml", "pipelines/plots/*.json")
"""What a project is made of, as patterns; setup.py puts the same into the wheel."""
_GENERATED = ("pipelines/plan.yaml", "pipelines/dvc.yaml")
"""Written anew by every `u2pl plan`, so nobody's change to them matters."""
_IGNORED = (
    "# What u2pl makes, and can make again.\n"
    "/data/\n/runs/\n/models/\n/results/\n/reports/\n/auto/\n/suggestions/\n/mlflow.db*\n/mlartifacts/\n"
)
_EXAMPLE = """\
# A data set of your own; see docs/data.md of u2pl for what more can be said. Change it, then:
# u2pl prepare --dataset example.yaml && u2pl train --dataset boats
name: boats
classes: [background, water, boat]
background: true
images: images # a folder with NAME.jpg, NAME.png, ...
masks: masks # NAME.png: class indices, a palette, or colours; images without one are unlabelled
train: train.txt # a NAME a line
val: val.txt
root: ../boats # relative to this file
"""


@dataclass(frozen=True)
class Made:
    """What `make` did."""

    folder: Path
    notes: list[str]
    """What could not be done, a sentence each."""


@dataclass(frozen=True)
class Change:
    """A file that a newer version has otherwise."""

    name: str
    lines: list[str]
    """The difference, as `diff -u` shows it."""
    is_own: bool
    """Whether somebody has changed the project's file since it was written."""


def template() -> dict[str, str]:
    """Relative path -> text of the files of a new project."""
    packed = Path(u2pl.__file__).parent / "project_files"
    root = packed if packed.is_dir() else Path(u2pl.__file__).parents[1]
    return {
        path.relative_to(root).as_posix(): path.read_text(encoding="utf-8")
        for pattern in FILES
        for path in sorted(root.glob(pattern))
    }


def make(folder: Path) -> Made:
    """Make a project; git and DVC are set up where they are not yet.

    Raises:
        UsageError: there is a project already, or a file lies where one is to be written.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file. Name a folder: u2pl init FOLDER")
    if folder.resolve().name == u2pl.__name__:
        raise UsageError(
            "A folder called u2pl would hide the package from scripts beside it. Take another name: u2pl init work"
        )
    files = template() | {"example.yaml": _EXAMPLE}
    there = [name for name in files if (folder / name).exists()]
    if {"params.yaml", "dvc.yaml"} <= {*there}:
        raise UsageError(
            f"{folder} holds a project already. What this version would change in it: u2pl init --upgrade"
        )
    if there:
        raise UsageError(
            f"{folder} has a {there[0]} already, which a project would replace. Name an empty folder: u2pl init FOLDER"
        )
    for name, text in files.items():
        write_text(folder / name, text)
    ignore = folder / ".gitignore"
    before = ignore.read_text(encoding="utf-8") if ignore.is_file() else ""
    if _IGNORED not in before:
        write_text(ignore, before + _IGNORED)
    _record(folder, files)
    return Made(folder, list(_set_up(folder)))


def _record(folder: Path, files: dict[str, str]) -> None:
    record: ProjectRecord = {
        "version": u2pl.__version__,
        "recipe_version": RECIPE_VERSION,
        "files": {name: sha256(text) for name, text in files.items() if name != "example.yaml"},
    }
    write_json(folder / RECORD, record)


def _set_up(folder: Path) -> Iterator[str]:
    """Set up git and DVC; a sentence for what could not be."""
    dvc = Path(sys.executable).with_name("dvc")
    for name, program, done in (
        ("git", shutil.which("git"), _is_in_git(folder)),
        ("dvc", str(dvc) if dvc.is_file() else shutil.which("dvc"), (folder / ".dvc").is_dir()),
    ):
        if done:
            continue
        if program is None:
            yield f"There is no {name} here. With it: {name} init"
            continue
        words = [program, "init", "--quiet"]
        if name == "dvc" and not (folder / ".git").exists():
            words.append("--subdir" if _is_in_git(folder) else "--no-scm")
        try:
            subprocess.run(words, cwd=folder, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
            yield f"{name} init failed ({said[-1] if said else type(error).__name__}). Start it yourself: {name} init"


def _is_in_git(folder: Path) -> bool:
    return any((above / ".git").exists() for above in (folder.resolve(), *folder.resolve().parents))


def changes(project: Project) -> list[Change]:
    """What this version has otherwise than the project.

    Raises:
        UserError: it was not made by `make`.
    """
    record = read_record(project)
    if record is None:
        raise UserError(
            f"{project.root} was not made by u2pl init, so it is not known which version it is of. In a clone: git pull"
        )
    found = []
    for name, text in template().items():
        path = project.root / name
        before = path.read_text(encoding="utf-8") if path.is_file() else ""
        if name in _GENERATED or before == text or record["files"].get(name) == sha256(text):
            continue
        lines = difflib.unified_diff(
            before.splitlines(), text.splitlines(), name, f"{name} of u2pl {u2pl.__version__}", lineterm=""
        )
        is_own = path.is_file() and sha256(before) != record["files"].get(name)
        found.append(Change(name, list(lines), is_own))
    return found


def upgrade(project: Project, found: list[Change]) -> list[Path]:
    """Take over what this version has otherwise; a file that somebody has changed gets a NAME.new beside it.

    Returns:
        The files beside which there is a new one.
    """
    files = template()
    kept = []
    for change in found:
        path = project.root / change.name
        if change.is_own:
            kept.append(path)
            path = path.with_name(f"{path.name}.new")
        write_text(path, files[change.name])
    _record(project.root, files)
    return kept
