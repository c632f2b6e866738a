"""What a budget allows: which methods, how often, for how many steps; in arithmetic alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Curve = Sequence[tuple[int, float]]
"""(epoch from 1, mIoU in percent) of each look at the validation images."""
BASELINE = "suponly"
CANDIDATES: dict[str, float] = {"u2pl": 2.6, "cutmix": 2.0, "ael": 2.4, "pc2seg": 3.0}
"""Method -> how many times as long as the baseline's its steps take (docs/results.md), the most
promising first: on photographs U²PL and CutMix gained, on synthetic images AEL and PC²Seg too."""

LEAST = {"cpu": 60, "cuda": 480}
MOST = {"cpu": 3000, "cuda": 40000}
_LADDER = ((4, 3, 800), (3, 3, 800), (2, 3, 600), (1, 3, 400), (1, 2, 300), (1, 1, LEAST["cpu"]))
"""Methods beside the baseline, repeats, and the steps a run on a CPU should have at least before time goes into so
many: what comes first is better. That a gain is seen twice counts for more than another method."""
_MORE = {"cpu": 1, "cuda": 8}
"""Times as many steps as on a CPU."""
RESERVE = 0.12
"""Share of the budget for what comes after training: how sure the model is, what to label next, the page."""
_SLACK = 0.9
"""Estimates of time are short by a tenth or so."""
LOOKS = 9
"""At the validation images in a run."""


@dataclass(frozen=True)
class Costs:
    """What this machine takes, in seconds, all of it at work."""

    step: float
    """A step of the baseline."""
    look: float
    """All validation images once."""
    start: float = 8.0
    """To start a run, and to end it."""


@dataclass(frozen=True)
class Portfolio:
    """What is to be trained."""

    methods: tuple[str, ...]
    """The baseline first."""
    repeats: int
    """Seeds or folds: of all methods the first, of the baseline and the best one the others."""
    steps: int


def work(methods: Sequence[str], repeats: int) -> tuple[float, int]:
    """Of these methods the steps in units of the baseline's, for each step of a run; and the number of runs.

    Which method is repeated is known after the first round alone: the most expensive one is reckoned with.
    """
    costs = [CANDIDATES[method] for method in methods if method != BASELINE]
    first = 1 + sum(costs)
    again = 1 + max(costs) if costs else 1.0
    runs = len(methods) + (repeats - 1) * (2 if costs else 1)
    return first + (repeats - 1) * again, runs


def steps_within(methods: Sequence[str], repeats: int, seconds: float, costs: Costs) -> int:
    """The steps that each run may take."""
    units, runs = work(methods, repeats)
    left = seconds * (1 - RESERVE) * _SLACK - runs * (costs.start + LOOKS * costs.look)
    return max(0, int(left / (units * costs.step)))


def choose(
    seconds: float, costs: Costs, *, device: str, repeats: int, unlabeled: int, known: Sequence[str]
) -> Portfolio | None:
    """The best portfolio that a budget allows; None where it allows none.

    Args:
        seconds: of the budget.
        costs: of this machine.
        device: cpu or cuda.
        repeats: the most there can be: folds, or seeds.
        unlabeled: images; without any there is nothing to compare with the baseline.
        known: methods that the project has.
    """
    candidates = [method for method in CANDIDATES if method in known] if unlabeled else []
    for number, often, enough in _LADDER:
        methods = (BASELINE, *candidates[:number])
        steps = steps_within(methods, min(often, repeats), seconds, costs)
        if steps >= enough * _MORE[device]:
            return Portfolio(methods, min(often, repeats), min(MOST[device], steps))
    return None


def least_seconds(costs: Costs, *, device: str, unlabeled: int, known: Sequence[str]) -> float:
    """The smallest budget for which `choose` finds something."""
    methods = (BASELINE, *[m for m in CANDIDATES if m in known][:1]) if unlabeled else (BASELINE,)
    units, runs = work(methods, 1)
    needed = LEAST[device] * units * costs.step + runs * (costs.start + LOOKS * costs.look)
    return needed / ((1 - RESERVE) * _SLACK) + 1


def extended(
    done: Portfolio, seconds: float, costs: Costs, *, repeats: int, unlabeled: int, known: Sequence[str]
) -> Portfolio:
    """A portfolio that has finished, with the further repeats and methods that the rest of a larger budget allows.

    Args:
        done: all of it has finished.
        seconds: that are left for training.
        costs: of this machine.
        repeats: the most there can be.
        unlabeled: images.
        known: methods that the project has.
    """
    candidates = [method for method in CANDIDATES if method in known] if unlabeled else []
    had, _ = work(done.methods, done.repeats)
    for number, often, _ in _LADDER:
        methods = (*done.methods, *[m for m in candidates if m not in done.methods])[: number + 1]
        more = Portfolio(methods, max(done.repeats, min(often, repeats)), done.steps)
        units, runs = work(more.methods, more.repeats)
        new = runs - work(done.methods, done.repeats)[1]
        takes = (units - had) * done.steps * costs.step + new * (costs.start + LOOKS * costs.look)
        if len(methods) >= len(done.methods) and takes <= _SLACK * seconds:
            return more
    return done


def cannot_win(own: Curve, rivals: Mapping[str, Curve], epochs: int) -> str | None:
    """Why a run of which these are the mIoUs so far cannot become the best; None where it can.

    Past half of its epochs it is hoped to go on rising as steeply as it did over its last two looks at the validation
    images, or to rise as much as the rival that has risen most since the same epoch, whichever is more; and a point
    beyond that. Where even so it stays below what a rival has already, it is lost. Its own slope alone would be unjust:
    a teacher that has just begun to average lags behind, and all networks rise when the learning rate comes down.

    Args:
        own: (epoch from 1, mIoU in percent) of each look.
        rivals: of other runs the same.
        epochs: of a whole run.
    """
    if len(own) < 3 or own[-1][0] < _SURE * epochs or own[-1][0] >= epochs:
        return None
    (before, low), (now, value) = own[-3], own[-1]
    ahead = {name: curve for name, curve in rivals.items() if curve and curve[-1][0] >= now}
    if not ahead:
        return None
    rises = [curve[-1][1] - _at(curve, now) for curve in ahead.values()]
    hoped = value + max(0.0, (value - low) / (now - before) * (epochs - now), *rises) + _HOPE
    name, best = max(((name, curve[-1][1]) for name, curve in ahead.items()), key=lambda each: each[1])
    if hoped >= best:
        return None
    return (
        f"{value:.1f} % mIoU after {now} of {epochs} epochs: even if it rose as it did, or as the others did from "
        f"there, and a point more, it would end at {hoped:.1f}, and {name} has {best:.1f} already"
    )


def _at(curve: Curve, epoch: int) -> float:
    """What a run had at an epoch: at its last look until then, or at its first one."""
    return next((value for look, value in reversed(curve) if look <= epoch), curve[0][1])


_SURE = 0.5
_HOPE = 1.0
