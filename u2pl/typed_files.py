"""Files that are read back as typed data: every field is of its type, and names are never paths.

A folder may come from anywhere, and what stands in its files is put together to paths, commands and queries. So
nothing is believed that has not the type, and the alphabet, of what u2pl writes there.
"""

import functools
import re
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, TypeGuard, TypeVar

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from u2pl.errors import UserError
from u2pl.files import read_json
from u2pl.project import is_inside

T = TypeVar("T")


def _is_folder_name(text: str) -> str:
    """`text`, if it can be the name of one visible folder."""
    if not re.fullmatch(r"[^./\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]*", text) or len(text.encode()) > 255:
        raise ValueError("is no name of a folder")
    return text


def stays_inside(path: str) -> str:
    """`path`, if it is a relative one that stays in its folder."""
    if not is_inside(path) or "\0" in path:
        raise ValueError("leads out of its folder")
    return path


def _is_a_time(text: str) -> str:
    datetime.fromisoformat(text)
    return text


FolderName = Annotated[str, AfterValidator(_is_folder_name)]
"""Of a run or an ablation."""
DatasetName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=200)]
SplitName = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_./-]*$", max_length=200), AfterValidator(stays_inside)
]
MethodName = Annotated[str, Field(pattern=r"^\w[\w-]*$")]
ImageName = Annotated[str, AfterValidator(stays_inside)]
Fingerprint = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
MlflowId = Annotated[str, Field(pattern=r"^[0-9A-Za-z][\w.-]*$", max_length=100)]
Uid = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Time = Annotated[str, AfterValidator(_is_a_time)]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


@functools.cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def read(kind: type[T], path: Path, remedy: str = "Delete it, then start the same command again.") -> T:
    """The JSON file `path` as a `kind`, fields that `kind` does not know included.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: it is no JSON, or not of that kind; the sentence ends with `remedy`.
    """
    value: T = read_json(path, remedy)
    adapter: TypeAdapter[T] = _adapter(kind)  # type: ignore[arg-type]
    try:
        adapter.validate_python(value, strict=True)
    except ValidationError as error:
        raise UserError(f"{path} is not what u2pl writes there ({problems(error)}). {remedy}") from None
    return value


def fits(kind: type[T], value: Any) -> TypeGuard[T]:
    """Whether a value is a `kind`."""
    try:
        _adapter(kind).validate_python(value, strict=True)  # type: ignore[arg-type]
    except ValidationError:
        return False
    return True


def problems(error: ValidationError, most: int | None = 3) -> str:
    """What pydantic found wrong, each with the place where it stands.

    Args:
        error: of a model or a type.
        most: so many are told one by one; None: all.
    """
    found = [
        ": ".join(filter(None, [".".join(map(str, each["loc"])), each["msg"].removeprefix("Value error, ")]))
        for each in error.errors(include_url=False)
    ]
    left = 0 if most is None else max(0, len(found) - most)
    return "; ".join(found[:most]) + (f"; and {left} more" if left else "")
