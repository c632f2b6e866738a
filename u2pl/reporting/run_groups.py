"""Runs side by side: those that differ in the seed alone are a group, and groups are compared seed by seed."""

import fnmatch
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from u2pl.errors import UsageError
from u2pl.project import Project
from u2pl.reporting.numbers import signed
from u2pl.reporting.sign_test import DECIDED_FROM, SIGNIFICANT, Differences
from u2pl.runs.frames import folders, in_common, reported, series
from u2pl.runs.origin import train_command
from u2pl.runs.records import Metrics, Run, protocol, read_run
from u2pl.runs.stored_evaluation import run_path

CURVE = "val/miou"
"""What history.csv calls the mIoU after each epoch."""
Points = list[tuple[int, float]]
"""Epoch, counted from 0, and value."""


@dataclass(frozen=True)
class Group:
    """Runs whose settings are the same but for the seed."""

    label: str
    records: dict[int, Run]
    """Seed -> run.json."""
    metrics: dict[int, Metrics] = field(default_factory=dict)
    """Of those that have finished."""
    curves: dict[int, Points] = field(default_factory=dict)
    """mIoU after each epoch; of those that recorded one."""

    @property
    def any_record(self) -> Run:
        """Of any of its runs: they differ in name and seed."""
        return next(iter(self.records.values()))

    @property
    def mious(self) -> dict[int, float]:
        """Seed -> reported mIoU, percent."""
        found = {seed: metrics["miou"]["reported"] for seed, metrics in self.metrics.items()}
        return {seed: miou for seed, miou in found.items() if miou is not None}

    def ious(self, name: str) -> dict[int, float]:
        """Seed -> IoU of a class, percent; without runs in which it nowhere occurs."""
        found = {seed: metrics["iou"].get(name) for seed, metrics in self.metrics.items()}
        return {seed: iou for seed, iou in found.items() if iou is not None}

    @property
    def protocols(self) -> list[str]:
        """How its numbers were measured; mostly one way."""
        return list(dict.fromkeys(protocol(metrics) for metrics in self.metrics.values()))

    @property
    def shown(self) -> list["pd.Series[float]"]:
        """The mIoU by epoch of each finished run, or of all where none is."""
        ended = {seed: points for seed, points in self.curves.items() if seed in self.metrics}
        return [pd.Series(dict(points)) for points in (ended or self.curves).values()]

    @property
    def curve(self) -> Points:
        """The mean of these over the epochs that all of them have, which a line shows."""
        if not self.shown:
            return []
        mean = in_common(self.shown).mean(axis="columns")
        return list(zip(mean.index.tolist(), mean.tolist(), strict=True))


@dataclass(frozen=True)
class Difference:
    """A group against the first one."""

    label: str
    against: str
    paired: Differences | None
    """Over the seeds of which both have a result; None where there is none."""
    unpaired: list[int]
    """Seeds of which one of the two alone has a result."""
    says: str
    """What can be said of it, in a sentence or two."""


@dataclass(frozen=True)
class Comparison:
    """Some groups, of which the first is what the others are compared with."""

    groups: list[Group]
    settings: dict[str, list[Any]]
    """Setting -> its value in each group, of those that differ; `MISSING` where a group has no such setting."""
    classes: list[str]
    differences: list[Difference]
    warnings: list[str]
    """Why numbers cannot be compared as they stand, a sentence each."""


MISSING = "-"


# ---- which runs ----------------------------------------------------------------------------------------


def chosen(project: Project, words: Sequence[str]) -> list[Path]:
    """The folders of the runs that are meant, each once, in the order of the words.

    Args:
        project: where they are.
        words: names or folders of runs; names without their seeds; or patterns such as `shapes-1_8-u2pl-*`.

    Raises:
        UsageError: a word fits no run.
    """
    names = [folder.name for folder in folders(project) if (folder / "run.json").is_file()]
    found: dict[Path, None] = {}
    for word in words:
        if any(character in word for character in "*?["):
            matching = fnmatch.filter(names, word)
            if not matching:
                raise UsageError(f"No run's name fits {word!r}. All of them: u2pl runs")
        else:
            matching = [name for name in names if re.fullmatch(re.escape(word) + r"-s\d+", name)]
        if word in names or not matching:
            found[run_path(project, word)] = None
        else:
            found |= dict.fromkeys(project.runs / name for name in sorted(matching, key=_by_seed))
    return list(found)


def _by_seed(name: str) -> tuple[str, int]:
    shorter, _, seed = name.rpartition("-s")
    return (shorter, int(seed)) if seed.isdecimal() else (name, 0)


def grouped(paths: Iterable[Path]) -> list[Group]:
    """Runs by their settings, the seed left out; all by themselves where they differ in nothing else.

    Raises:
        UserError: the files of one are damaged.
    """
    groups: list[Group] = []
    keys: list[str] = []
    for path in paths:
        run = read_run(path)
        key = json.dumps(
            {name: value for name, value in run["facts"].items() if name != "seed"}, sort_keys=True
        )
        # Two runs of one seed, called otherwise, are two groups.
        same = (g for k, g in zip(keys, groups, strict=True) if k == key and run["seed"] not in g.records)
        group = next(same, None)
        if group is None:
            group = Group("", {})
            groups.append(group)
            keys.append(key)
        group.records[run["seed"]] = run
        _read(group, path, run)
    if len(groups) == 1:
        groups = [_alone(groups[0], seed) for seed in groups[0].records]
    return _labelled(groups)


def _read(group: Group, path: Path, run: Run) -> None:
    """Add what a run has reached."""
    with suppress(FileNotFoundError):
        metrics = reported(path)
        if metrics["fingerprint"] == run["fingerprint"]:  # or it is the result of another run
            group.metrics[run["seed"]] = metrics
    if points := series(path).get(CURVE):
        group.curves[run["seed"]] = points


def _alone(group: Group, seed: int) -> Group:
    def own(values: Mapping[int, Any]) -> dict[int, Any]:
        return {seed: values[seed]} if seed in values else {}

    return Group("", own(group.records), own(group.metrics), own(group.curves))


def _labelled(groups: Sequence[Group]) -> list[Group]:
    """The groups under the names of their runs, without the seed where there are several."""
    labels: list[str] = []
    for group in groups:
        names = [run["name"] for run in group.records.values()]
        shorter = {re.sub(r"-s\d+$", "", name) for name in names}
        label = (
            names[0] if len(names) == 1 else shorter.pop() if len(shorter) == 1 else f"{names[0]} and others"
        )
        labels.append(label if label not in labels else f"{label} ({len(labels) + 1})")
    return [Group(label, g.records, g.metrics, g.curves) for label, g in zip(labels, groups, strict=True)]


# ---- what they differ in -------------------------------------------------------------------------------


def compare(groups: Sequence[Group]) -> Comparison:
    """What the groups' settings, results and classes differ in.

    Raises:
        UsageError: there are fewer than two, or they are of different data sets.
    """
    if len(groups) < 2:
        raise UsageError("Name two runs or more to compare. All of them: u2pl runs")
    datasets = list(dict.fromkeys(group.any_record["dataset"] for group in groups))
    if len(datasets) > 1:
        raise UsageError(
            f"The runs are of different data sets: {', '.join(datasets)}. Name runs of one of them alone."
        )
    classes = dict.fromkeys(name for group in groups for m in group.metrics.values() for name in m["iou"])
    return Comparison(
        list(groups),
        differing(groups),
        list(classes),
        [difference(group, groups[0], len(groups) - 1) for group in groups[1:]],
        list(_warnings(groups)),
    )


def differing(groups: Sequence[Group]) -> dict[str, list[Any]]:
    """Dotted setting -> its value in each group, of those in which they differ."""
    by_seed = all(len(group.records) == 1 for group in groups)
    found = [_flat(group, by_seed=by_seed) for group in groups]
    names = dict.fromkeys(name for each in found for name in each)
    rows = {name: [each.get(name, MISSING) for each in found] for name in names}
    return {name: row for name, row in rows.items() if any(value != row[0] for value in row[1:])}


def _flat(group: Group, *, by_seed: bool) -> dict[str, Any]:
    """All settings of a group by dotted names; the seed too where there is no more than one run anywhere."""
    run = group.any_record
    found: dict[str, Any] = {key: run[key] for key in ("dataset", "split", "method")}
    if by_seed:
        found["seed"] = run["seed"]
    for section in ("recipe", "hyper"):
        _flatten(run[section], "" if section == "hyper" else "recipe.", found)
    found["recipe_version"] = run["facts"]["recipe_version"]
    return found


def _flatten(values: Mapping[str, Any], prefix: str, into: dict[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, Mapping):
            _flatten(value, f"{prefix}{key}.", into)
        else:
            into[f"{prefix}{key}"] = value


def _warnings(groups: Sequence[Group]) -> Iterable[str]:
    first = groups[0].any_record
    if len({group.any_record["split"] for group in groups}) > 1:
        yield "The splits differ: a seed does not stand for the same labelled images in them."
    elif len({str(group.any_record["facts"].get("data")) for group in groups}) > 1:
        yield (
            f"The lists or images of {first['dataset']} {first['split']} were others when these runs were trained: "
            "their numbers are not of the same data."
        )
    if len({group.any_record["facts"]["recipe_version"] for group in groups}) > 1:
        yield "The runs are of versions of u2pl that give other numbers for the same settings."
    how = list(dict.fromkeys(p.partition(",")[0] for group in groups for p in group.protocols))
    if len(how) > 1:
        yield f"The numbers are measured by different protocols: {'; '.join(how)}."
    for group in groups:
        for run in (run for seed, run in group.records.items() if seed not in group.mious):
            again = f"u2pl evaluate {run['name']}" if "imported" in run else train_command(run)
            yield f"{run['name']} has no result. Go on with: {again}"


# ---- what can be said of it ----------------------------------------------------------------------------


def difference(group: Group, against: Group, comparisons: int = 1) -> Difference:
    """A group's mIoU against another's, seed by seed, and what can be said of it.

    Args:
        group: the one.
        against: the other.
        comparisons: how many are made at once, since of many one has a small p by chance.
    """
    pair = _paired(group.mious, against.mious)
    return Difference(
        group.label,
        against.label,
        pair,
        sorted(group.mious.keys() ^ against.mious.keys()),
        _says(group, against, pair, comparisons),
    )


def _paired(ours: Mapping[int, float], base: Mapping[int, float]) -> Differences | None:
    """Seed -> number of two groups, subtracted over the seeds that both have; None where they share none."""
    shared = sorted(ours.keys() & base.keys())
    return Differences(tuple(ours[seed] - base[seed] for seed in shared)) if shared else None


def _says(group: Group, against: Group, pair: Differences | None, comparisons: int) -> str:
    if pair is None:
        if group.mious and against.mious:
            a, b = (next(iter(each.mious.values())) for each in (group, against))
            if len(group.mious) == len(against.mious) == 1:
                return (
                    f"{signed(a - b)} points between two runs of different seeds. The seed alone may make as much; "
                    "train both with the same seeds."
                )
            return "They have no seed in common, so nothing is paired. Train both with the same seeds."
        return "There is nothing to compare before both have a result."
    mean = signed(pair.mean)
    if pair.interval is None:
        return (
            f"{mean} points with one seed: it cannot be told from chance. Train both with more seeds; "
            f"from {DECIDED_FROM} on there is a test that can say something."
        )
    low, high = pair.interval
    said = f"{mean} points on average over {pair.seeds} seeds (95 % interval {signed(low)} to {signed(high)})"
    if pair.seeds < DECIDED_FROM:
        return (
            f"{said}. Too few seeds for any statement: with {pair.seeds} pairs the smallest p that a sign-flip test "
            f"can give is {pair.least_p:g}, and below {SIGNIFICANT} it comes with {DECIDED_FROM}."
        )
    p = pair.p
    said += f"; p = {p:.3f} by the exact sign-flip test, two-sided."
    said += (
        " Chance alone would seldom make so much."
        if p < SIGNIFICANT
        else " Chance alone may well make as much: no difference is shown."
    )
    if comparisons > 1:
        said += f" Of {comparisons} comparisons at once some have a small p by chance; {SIGNIFICANT / comparisons:.3g} "
        said += "is the limit that allows for that."
    return said


# ---- the numbers side by side --------------------------------------------------------------------------


@dataclass(frozen=True)
class ScoreRow:
    """The mIoU or a class, of each group."""

    name: str
    means: list[float | None]
    """Over the seeds, percent; None where nothing was measured."""
    sds: list[float | None]
    """Over the seeds (n - 1); None for fewer than two."""
    differences: list[float | None]
    """Of each group but the first from the first: over the seeds that both have; of the means where they share none."""


def score_rows(found: Comparison) -> list[ScoreRow]:
    """The mIoU, then every class."""
    values = {"mIoU": [group.mious for group in found.groups]}
    values |= {name: [group.ious(name) for group in found.groups] for name in found.classes}
    return [_score_row(name, numbers) for name, numbers in values.items()]


def _score_row(name: str, numbers: Sequence[Mapping[int, float]]) -> ScoreRow:
    by_seed = pd.DataFrame({number: pd.Series(each, dtype=float) for number, each in enumerate(numbers)})
    means, sds = _known(by_seed.mean()), _known(by_seed.std())
    differences: list[float | None] = []
    for each, mean in zip(numbers[1:], means[1:], strict=True):
        pair = _paired(each, numbers[0])
        if pair is not None:
            differences.append(pair.mean)
        else:
            differences.append(None if mean is None or means[0] is None else mean - means[0])
    return ScoreRow(name, means, sds, differences)


def _known(values: "pd.Series[float]") -> list[float | None]:
    """The values; None for those that are missing."""
    return [None if pd.isna(value) else float(value) for value in values]


def as_json(found: Comparison) -> dict[str, Any]:
    """A comparison in plain values."""
    labels = [group.label for group in found.groups]
    return {
        "groups": [
            {
                "label": group.label,
                "runs": [run["name"] for run in group.records.values()],
                "seeds": list(group.records),
                "miou": {str(seed): value for seed, value in group.mious.items()},
                "protocols": group.protocols,
                "curve": [{"epoch": epoch, "miou": value} for epoch, value in group.curve],
            }
            for group in found.groups
        ],
        "settings": {
            key: {label: value for label, value in zip(labels, row, strict=True) if value != MISSING}
            for key, row in found.settings.items()
        },
        "scores": [
            {
                "name": row.name,
                "mean": dict(zip(labels, row.means, strict=True)),
                "sd": dict(zip(labels, row.sds, strict=True)),
                "difference": dict(zip(labels[1:], row.differences, strict=True)),
            }
            for row in score_rows(found)
        ],
        "differences": [_as_json(each) for each in found.differences],
        "warnings": found.warnings,
    }


def _as_json(each: Difference) -> dict[str, Any]:
    pair = each.paired
    return {
        "label": each.label,
        "against": each.against,
        "pairs": pair.seeds if pair else 0,
        "unpaired_seeds": each.unpaired,
        "differences": list(pair.values) if pair else [],
        "mean": pair.mean if pair else None,
        "interval_95": list(pair.interval) if pair and pair.interval else None,
        "p": pair.p if pair else None,
        "least_p": pair.least_p if pair else None,
        "says": each.says,
    }


def side_by_side(found: Comparison) -> pd.DataFrame:
    """The numbers for a spreadsheet: a row for the mIoU and one a class, with a column a group and a difference."""
    labels = [group.label for group in found.groups]
    heads = [*labels, *(f"{label} - {labels[0]}" for label in labels[1:])]
    rows = [[row.name, *row.means, *row.differences] for row in score_rows(found)]
    return pd.DataFrame(rows, columns=["percent", *heads])
