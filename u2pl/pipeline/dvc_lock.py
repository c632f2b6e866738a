"""What DVC's lock files say of the stages that have run: their outputs, and whether these are still there."""

from pathlib import Path
from typing import Annotated, NotRequired

import yaml
from pydantic import AfterValidator
from typing_extensions import TypedDict

from u2pl.files import content, parse_yaml
from u2pl.pipeline.dvc_stages import address
from u2pl.project import Project
from u2pl.typed_files import Count, fits, stays_inside


class LockedOutput(TypedDict):
    """An output in dvc.lock."""

    path: Annotated[str, AfterValidator(stays_inside)]
    md5: NotRequired[str]
    size: NotRequired[Count]


class LockedStage(TypedDict):
    """A stage in dvc.lock."""

    outs: NotRequired[list[LockedOutput]]


def locked(project: Project, stage: str) -> LockedStage | None:
    """What a lock file has of a stage, KIND@KEY; None where there is no such file, or it is being written.

    An entry that DVC did not write so is as good as none.
    """
    where = address(stage)
    try:
        values = parse_yaml(content((project.root / where.file).with_suffix(".lock")))
    except (OSError, yaml.YAMLError):
        return None
    found = values.get("stages") if isinstance(values, dict) else None
    entry = found.get(where.name) if isinstance(found, dict) else None
    return entry if fits(LockedStage, entry) else None


def outputs(project: Project, entry: LockedStage) -> list[tuple[Path, int | None]]:
    """The outputs of a stage in dvc.lock, and the size of those that are files."""
    return [
        (project.root / out["path"], None if out.get("md5", "").endswith(".dir") else out.get("size"))
        for out in entry.get("outs", [])
    ]


def is_recorded(project: Project, name: str) -> bool:
    """Whether a lock file has the stage, with the outputs that are there."""
    entry = locked(project, name)
    return entry is not None and all(
        path.exists() and (size is None or path.is_dir() or path.stat().st_size == size)
        for path, size in outputs(project, entry)
    )
