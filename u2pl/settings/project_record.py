"""What a project that `u2pl init` made says of the version it was made by."""

from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from u2pl.errors import UserError
from u2pl.files import read_json
from u2pl.project import Project

RECORD = ".u2pl.json"


class ProjectRecord(TypedDict):
    """The file `RECORD`."""

    version: str
    recipe_version: int
    files: dict[str, str]
    """Path -> SHA-256 of the text that was written."""


def read_record(project: Project) -> ProjectRecord | None:
    """What the project says; None for one that is a clone.

    Raises:
        UserError: the file is damaged.
    """
    path: Path = project.root / RECORD
    remedy = "Take it back from git."
    try:
        return TypeAdapter(ProjectRecord).validate_python(read_json(path, remedy), strict=True)
    except FileNotFoundError:
        return None
    except ValidationError:
        raise UserError(f"{path} is not what u2pl writes there. {remedy}") from None


def check_version(project: Project, recipe_version: int) -> None:
    """Check that a project's settings mean in this version what they meant when it was made.

    Raises:
        UserError: they may not.
    """
    record = read_record(project)
    if record is not None and record["recipe_version"] != recipe_version:
        raise UserError(
            f"{project.root} was made by u2pl {record['version']}, whose settings may give other numbers now. "
            f"See what is different: u2pl init --upgrade. Or go on as before: pip install u2pl=={record['version']}"
        )
