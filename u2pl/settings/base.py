"""What all settings have in common: unknown keys are refused, and an error names the key and its section."""

import functools
import inspect
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from u2pl.errors import UsageError, unknown

_LARGEST_FACTOR = 100
_LONGEST_SHOWN = 200
"""Characters of a bad value that its error repeats."""


class Settings(BaseModel):
    """Base of all settings: unknown keys are refused, values cannot change after loading.

    `class TeacherSettings(Settings, section="teacher")` is a group that methods share: what is declared in its body has
    its home in that section of params.yaml. What a class without one declares is at home in the method's own section.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    remark: ClassVar[str] = ""
    """What must be known of a method before its numbers are used, a sentence; printed where it is trained."""

    _section: ClassVar[str | None] = None

    def __init_subclass__(cls, *, section: str | None = None, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        cls._section = section


@functools.cache
def homes(cls: type[Settings]) -> Mapping[str, str | None]:
    """Setting -> the section of params.yaml that is its home; None: that of the method.

    A class that declares a setting of its group anew, with a narrower type, does not move it.
    """
    bases = [base for base in cls.__mro__ if issubclass(base, Settings)]
    found = {}
    for key in cls.model_fields:
        sections = [base._section for base in bases if key in inspect.get_annotations(base)]
        found[key] = next(filter(None, sections), None)
    return found


S = TypeVar("S", bound=Settings)


def load(cls: type[S], values: Mapping[str, Any], where: str) -> S:
    """`values` as a `cls`.

    Raises:
        UsageError: a key is unknown (the nearest known one is named), missing, or has a bad value;
            `where` says which section it stands in.
    """
    for key in values:
        if key not in cls.model_fields:
            raise unknown(f"setting of {where}", key, cls.model_fields)
        # To pydantic true is the number 1.
        if isinstance(values[key], bool) and cls.model_fields[key].annotation in (int, float):
            raise UsageError(
                f"Bad setting: {where}.{key}: Input should be a number, not {values[key]}. "
                "Mend it in params.yaml or with --set."
            )
    try:
        return cls(**values)
    except ValidationError as error:
        problems = "; ".join(
            f"{homes(cls).get(str(e['loc'][0])) or where}.{e['loc'][0]} is missing"
            if e["type"] == "missing"
            # Of a rule about several settings the input is all of them.
            else f"{'.'.join([where, *map(str, e['loc'])])}: {e['msg'].removeprefix('Value error, ')}"
            + (f", not {shown(e['input'])}" if e["loc"] else "")
            for e in error.errors()
        )
        raise UsageError(f"Bad setting: {problems}. Mend it in params.yaml or with --set.") from None


def shown(value: Any) -> str:
    """A value as an error repeats it."""
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}... ({len(text):,} characters)"


def _is_a_range(ends: tuple[float, float]) -> tuple[float, float]:
    if not 0 < ends[0] <= ends[1] <= _LARGEST_FACTOR:
        raise ValueError(f"a range needs 0 < low <= high <= {_LARGEST_FACTOR}")
    return ends


Range = Annotated[tuple[float, float], AfterValidator(_is_a_range)]
"""Least and greatest factor."""
