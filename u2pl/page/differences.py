"""Where the settings of a run differ from those of most runs of a page."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from u2pl.reporting.results import Result
from u2pl.settings import value_text


@dataclass(frozen=True)
class Settings:
    """What decided a run's numbers: where it differs from the others, and all of it."""

    different: list[tuple[str, str, str]]
    """Setting, value, and the value that most runs have."""
    everything: list[tuple[str, str]]


def _settings(result: Result) -> dict[str, str]:
    """Full name of a setting -> its value, in words."""
    sections = {"recipe": result.metrics["recipe"], result.method: result.metrics["hyper"]}
    return {
        f"{section}.{key}": value_text(value)
        for section, values in sections.items()
        for key, value in values.items()
    }


def usual_settings(results: Iterable[Result]) -> dict[str, str]:
    """The value that most runs have, for every setting that a run has."""
    counts: dict[str, Counter[str]] = {}
    for result in results:
        for key, value in _settings(result).items():
            counts.setdefault(key, Counter())[value] += 1
    return {key: values.most_common(1)[0][0] for key, values in counts.items()}


def settings_of(result: Result, usual: Mapping[str, str]) -> Settings:
    """The settings of a run beside the usual ones."""
    own = _settings(result)
    return Settings([(k, v, usual[k]) for k, v in own.items() if v != usual[k]], list(own.items()))
