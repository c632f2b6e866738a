"""What all settings have in common: unknown keys are refused, and an error names the key and its section."""

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from u2pl.errors import UsageError, unknown

_LARGEST_FACTOR = 100
_LONGEST_SHOWN = 200
"""Characters of a bad value that its error repeats."""


class Settings(BaseModel):
    """Base of all settings: unknown keys are refused, values cannot change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


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
            f"{'.'.join([where, *map(str, e['loc'])])}"
            + (
                " is missing"
                if e["type"] == "missing"
                # Of a rule about several settings the input is all of them.
                else f": {e['msg'].removeprefix('Value error, ')}"
                + (f", not {shown(e['input'])}" if e["loc"] else "")
            )
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
