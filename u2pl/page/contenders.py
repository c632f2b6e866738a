"""What a click on a cell opens: its runs, one a seed, and how they compare with those of every other cell."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pandas as pd

from u2pl.reporting.paired import TESTED_FROM, paired
from u2pl.reporting.results import Result, TableResults, distinct, split_title
from u2pl.runs.epochs import shown_epoch

CURVES = ("val/miou", "train/reliable/share", "train/reliable/accuracy")
"""Metrics by epoch that are kept of a run; the last two are shares."""


@dataclass(frozen=True)
class Contender:
    """The runs of one cell."""

    label: str
    dataset: str
    split: str
    title: str
    """`1/8 (60 labelled)`."""
    runs: tuple[Result, ...]

    @property
    def key(self) -> tuple[str, ...]:
        """Names of the runs: cells of several tables that show the same ones are one contender."""
        return tuple(run.name for run in self.runs)


def contenders(tables: Iterable[TableResults]) -> list[Contender]:
    """What has finished, each set of runs once, under the label of the first table that shows it."""
    found: dict[tuple[str, ...], Contender] = {}
    for filled in tables:
        for split, by_label in filled.series().items():
            for label, runs in by_label.items():
                title = split_title(split, {label: runs})
                each = Contender(label, filled.table.dataset, split, title, tuple(runs))
                found.setdefault(each.key, each)
    return list(found.values())


def p_values(found: list[Contender]) -> list[tuple[int, int, float]]:
    """Two places in the list, of one data set and split, and the p of their paired t-test, where there is one."""
    tested = []
    for _, several in groupby(
        sorted(range(len(found)), key=lambda k: (_where(found[k]), k)), lambda k: _where(found[k])
    ):
        places = list(several)
        numbers = pd.DataFrame({str(place): _by_seed(found[place]) for place in places})
        if len(numbers) < TESTED_FROM:
            continue
        for index, place in enumerate(places):
            against = paired(numbers, str(place), [str(other) for other in places[index + 1 :]])
            tested += [(place, int(pair.label), pair.p) for pair in against if not math.isnan(pair.p)]
    return tested


def _where(contender: Contender) -> tuple[str, str]:
    return contender.dataset, contender.split


def _by_seed(contender: Contender) -> "pd.Series[float]":
    return pd.Series({run.metrics["seed"]: run.reported for run in contender.runs})


def facts(
    found: list[Contender], usual: Mapping[str, str], own: Mapping[str, Mapping[str, str]]
) -> dict[str, Any]:
    """What the page's script draws and compares, in plain values.

    Args:
        found: what can be opened.
        usual: setting -> the value that most runs have.
        own: run -> its settings that differ from these.
    """
    runs = distinct(run for contender in found for run in contender.runs)
    return {
        "contenders": [
            {
                "label": each.label,
                "dataset": each.dataset,
                "split": each.split,
                "title": each.title,
                "runs": [run.name for run in each.runs],
            }
            for each in found
        ],
        "p": [[one, other, float(f"{p:.3g}")] for one, other, p in p_values(found)],
        "runs": {run.name: _facts(run, own[run.name]) for run in runs},
        "usual": {key: usual[key] for key in sorted({key for values in own.values() for key in values})},
        "classes": {run.metrics["dataset"]: list(run.metrics["iou"]) for run in runs},
    }


def _facts(run: Result, different: Mapping[str, str]) -> dict[str, Any]:
    return {
        **{name: run.metrics[name] for name in ("method", "split", "seed", "dataset")},
        "miou": round(run.reported, 2),
        "curves": {metric: _curve(run, metric) for metric in CURVES if metric in run.history},
        "iou": [None if value is None else round(value, 2) for value in run.metrics["iou"].values()],
        "confusion": _confusion(run),
        "different": dict(different),
    }


def _curve(run: Result, metric: str) -> list[tuple[int, float]]:
    known = run.history[metric].dropna() * (1 if metric == CURVES[0] else 100)
    return [
        (shown_epoch(epoch), round(value, 2))
        for epoch, value in zip(known.index.tolist(), known, strict=True)
    ]


def _confusion(run: Result) -> list[list[int]] | None:
    """Of each class's pixels how many in a thousand are taken for which class; None where it is not known.

    A class without pixels has zeros.
    """
    counts = run.confusion
    if counts is None:
        return None
    of_class = counts.sum(axis="columns").clip(lower=1)
    return (counts.div(of_class, axis="index") * 1000).round().astype(int).to_numpy().tolist()
