"""The runs that a figure shows: found by name, labelled, and loaded with network and data."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from u2pl.data.prepared import Split, open_split
from u2pl.errors import UsageError
from u2pl.models.deeplab import DeepLabV3Plus
from u2pl.project import Project
from u2pl.runs.records import Run, read_run
from u2pl.runs.results import load_network
from u2pl.runs.stored_evaluation import run_path
from u2pl.settings import Recipe


@dataclass(frozen=True)
class NamedRun:
    """A run that exists, finished or not."""

    folder: Path
    label: str
    """What a figure calls it."""
    record: Run
    """Contents of run.json."""


@dataclass(frozen=True)
class LoadedRun(NamedRun):
    """A finished run with the network it is reported by."""

    split: Split
    network: DeepLabV3Plus
    recipe: Recipe

    def whole(self) -> "LoadedRun":
        """The same run on whole images: a centre crop would leave pixels out, and pad small pictures.

        Windows stay windows.
        """
        if self.recipe.evaluation != "center":
            return self
        return replace(self, recipe=self.recipe.model_copy(update={"evaluation": "whole"}))


def find(project: Project, names: Sequence[str], labels: Sequence[str] = ()) -> list[NamedRun]:
    """The runs of these names or folders.

    Args:
        project: where they are.
        names: at least one; one may stand twice.
        labels: one a run, or none: then method and overrides, and what else tells two runs apart.

    Raises:
        UsageError: there is no such run, the runs are of different data sets, or there is not one label for each.
    """
    if labels and len(labels) != len(names):
        raise UsageError(
            f"{_count(len(names), 'run')} and {_count(len(labels), 'label')}: give each run one with --label, "
            "in the same order, or none."
        )
    folders = [run_path(project, name) for name in names]
    runs = [read_run(folder) for folder in folders]
    datasets = list(dict.fromkeys(run["dataset"] for run in runs))
    if len(datasets) > 1:
        raise UsageError(
            f"The runs are of different data sets: {', '.join(datasets)}. Name runs of one of them alone."
        )
    labels = list(labels) or default_labels(runs)
    return [NamedRun(*each) for each in zip(folders, labels, runs, strict=True)]


def load(project: Project, run: NamedRun) -> LoadedRun:
    """A run with its network and its data.

    Raises:
        UserError: the run is not finished, its weights are damaged, or its split is not prepared here.
    """
    split = open_split(project, run.record["dataset"], run.record["split"])
    network, recipe = load_network(run.folder, len(split.classes))
    return LoadedRun(run.folder, run.label, run.record, split, network, recipe)


def default_labels(runs: Sequence[Run]) -> list[str]:
    """A label for each run.json: "u2pl, negatives=all"; of two that would read the same, split and seed too."""
    labels = []
    for run in runs:
        changed = [f"{key.rpartition('.')[2]}={value}" for key, value in run["overrides"].items()]
        labels.append(", ".join([run["method"], *changed]))
    times = Counter(labels)
    return [
        label if times[label] == 1 else f"{label}, {run['split']}, seed {run['seed']}"
        for label, run in zip(labels, runs, strict=True)
    ]


def evenly_spaced(names: Sequence[str], count: int | None) -> list[str]:
    """At most `count` of the names, evenly spread over the list; all where that is None."""
    if count is None or count >= len(names):
        return list(names)
    return [names[k * len(names) // count] for k in range(count)]


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'s' * (number != 1)}"
