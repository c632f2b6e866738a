"""How reliable pixels were in training: their share, their labels, and false negatives, of each class."""

from collections.abc import Sequence
from dataclasses import dataclass

from u2pl.data.prepared import description_of
from u2pl.errors import UserError
from u2pl.evidence.figure_runs import NamedRun
from u2pl.project import Project
from u2pl.runs.frames import series
from u2pl.runs.origin import train_command

MEASURES = ("reliable/share", "reliable/accuracy", "negatives/false")
"""Names below train/ in history.csv of a mean over an epoch's steps; those of each class go on with its name."""
ALL_CLASSES = "train/all_classes"
"""What stands in place of train/ before the same sum over the epoch as a class has, of all classes together."""

Points = list[tuple[int, float]]
"""Epoch, counted from 0, and value."""


@dataclass(frozen=True)
class RunCurves:
    """One run."""

    label: str
    overall: dict[str, Points]
    """Measure -> its values of all classes together, 0 to 1; without points where the method has no such thing."""
    by_class: dict[str, dict[str, Points]]
    """Measure -> class -> its values; epochs without a pixel to count are left out."""
    summed: bool
    """Whether `overall` sums the classes' counts. Of runs from before that was recorded it is the mean of the shares
    in each step, with the pixels whose class is not known."""


@dataclass(frozen=True)
class Reliability:
    """Some runs of one data set."""

    dataset: str
    classes: list[str]
    colors: list[tuple[int, int, int]]
    runs: list[RunCurves]


def reliability(project: Project, runs: Sequence[NamedRun]) -> Reliability:
    """What the runs recorded while they trained; they need not be finished.

    Raises:
        UserError: one recorded nothing of its classes; the message says how to have it recorded.
    """
    description = description_of(project, runs[0].record["dataset"])
    curves = [_curves(run, description.classes) for run in runs]
    return Reliability(description.name, description.classes, description.colors, curves)


def _curves(run: NamedRun, classes: Sequence[str]) -> RunCurves:
    history = series(run.folder)
    summed = any(f"{ALL_CLASSES}/{measure}" in history for measure in MEASURES)
    overall = ALL_CLASSES if summed else "train"
    found = RunCurves(
        run.label,
        {measure: history.get(f"{overall}/{measure}", []) for measure in MEASURES},
        {m: {c: history[k] for c in classes if (k := f"train/{m}/{c}") in history} for m in MEASURES},
        summed,
    )
    if any(found.by_class.values()):
        return found
    raise UserError(f"{run.folder.name} says nothing of the reliability of classes: {_reason(run, history)}")


def _reason(run: NamedRun, history: dict[str, Points]) -> str:
    record, again = run.record, train_command(dict(run.record))
    if "imported" in record:
        return "it was imported, and not trained here. Name a run that u2pl trained."
    if not history:
        return f"no epoch of it has ended yet. Go on with: {again}"
    if not any(name.startswith("train/reliable/") for name in history):
        return (
            f"its method ({record['method']}) has no pseudo-labels, or its warm start is not over. Name a run that has "
            "some."
        )
    if not record["recipe"]["unlabeled_truth"]:
        return (
            "it was trained without opening the masks of unlabelled images. Train one that measures by them and trains "
            f"on none: {again} --set unlabeled_truth=true"
        )
    if "train/reliable/accuracy" not in history:
        return (
            "no unlabelled image of its split has a mask. Name a run of a data set that has masks for them."
        )
    return f"it was trained before u2pl recorded that. Delete {run.folder}, then train it again with: {again}"
