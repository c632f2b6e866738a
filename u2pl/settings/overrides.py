"""Settings from the command line: NAME=VALUE."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from u2pl.errors import UsageError
from u2pl.files import Loader, parse_yaml
from u2pl.settings.base import shown


def parse_value(text: str) -> Any:
    """A value from the command line, read as YAML: `0.3` a number, `true` a truth, `[1, 2]` a list.

    Unlike in YAML 1.1, `1e-3` is a number.
    """
    try:
        return parse_yaml(text, _ValueLoader)
    except yaml.YAMLError:
        return text


def value_text(value: Any) -> str:
    """A value as typed on the command line and written in params.yaml; the other way round than `parse_value`."""
    return value if isinstance(value, str) else json.dumps(value)


class _ValueLoader(Loader):
    """YAML's safe loader, for which a number needs no point before its exponent."""


_ValueLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def parse_overrides(pairs: list[str]) -> dict[str, Any]:
    """`["u2pl.alpha0=0.3"]` as {"u2pl.alpha0": 0.3}.

    Raises:
        UsageError: one is no NAME=VALUE, or a name has two values.
    """
    overrides = []
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise UsageError(f"--set takes NAME=VALUE, not {pair!r}. Example: --set u2pl.alpha0=0.3")
        overrides.append((key.strip(), parse_value(value.strip())))
    return once(overrides)


def merged(*parts: Mapping[str, Any]) -> dict[str, Any]:
    """Overrides that were said in several places.

    Raises:
        UsageError: a name has two values.
    """
    return once(pair for part in parts for pair in part.items())


def once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Settings by name, each said once, or twice alike.

    Raises:
        UsageError: one is said twice, with different values.
    """
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found and found[key] != value:
            raise UsageError(
                f"{key} is set twice, to {shown(found[key])} and to {shown(value)}. Leave one of them out."
            )
        found[key] = value
    return found
