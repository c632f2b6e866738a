"""The YAML files in pipelines/."""

from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import ValidationError

from u2pl.errors import UserError, unknown
from u2pl.files import content, parse_yaml
from u2pl.project import Project, is_name
from u2pl.settings import Settings
from u2pl.typed_files import problems

S = TypeVar("S", bound=Settings)


def read_yaml(cls: type[S], path: Path, remedy: str) -> S:
    """The YAML file `path` as a `cls`.

    Raises:
        UserError: it is not YAML, or does not describe a `cls`; the sentence ends with `remedy`.
    """
    try:
        return cls.model_validate(parse_yaml(content(path)))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}). {remedy}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {error}. {remedy}") from None
    except ValidationError as error:
        raise UserError(f"{path}: {problems(error, most=None)}. {remedy}") from None


def read_named(cls: type[S], project: Project, kind: str, name: str) -> S:
    """The file pipelines/KINDs/NAME.yaml as a `cls`.

    Raises:
        UsageError: there is none of that name.
        UserError: it does not describe a `cls`.
    """
    folder = f"{kind}s"
    known = names(project, folder)
    if name not in known:
        raise unknown(kind, name, known)
    path = project.pipelines / folder / f"{name}.yaml"
    if not is_name(name):
        raise UserError(
            f"{path} has a name that cannot stand in a command line. Rename it, of letters, digits and "
            "_ . = + , - alone, the first of them a letter or digit."
        )
    return read_yaml(cls, path, "Mend the file, then make the plan again.")


def names(project: Project, folder: str) -> list[str]:
    """Names of the YAML files in pipelines/FOLDER, sorted."""
    return sorted(path.stem for path in (project.pipelines / folder).glob("*.yaml"))
