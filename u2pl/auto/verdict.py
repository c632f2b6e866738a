"""What the finished runs say: what unlabelled images gained, which method to take, and how sure that is."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pandas as pd

from u2pl.auto.portfolio import BASELINE
from u2pl.reporting.numbers import spread_text
from u2pl.reporting.paired import Paired, paired

_LIKELY = 0.05
"""p-value below which chance is an unlikely explanation."""


@dataclass(frozen=True)
class Scored:
    """A finished run."""

    run: str
    method: str
    repeat: int
    miou: float
    """Percent, of the last network."""
    iou: Mapping[str, float | None]
    """Class -> percent; None where it nowhere occurs."""


@dataclass(frozen=True)
class ClassGain:
    """A class, in percent and in points."""

    name: str
    base: float | None
    ours: float | None
    gain: float | None
    sd: float | None
    """Of the gain over the repeats; None below two."""


@dataclass(frozen=True)
class Verdict:
    """What is answered."""

    method: str | None
    """The one to take; None where no run has finished."""
    run: str | None
    """Its best one."""
    miou: float | None
    headline: str
    doubt: str
    """How sure the headline is, in a sentence."""
    comparisons: list[dict[str, Any]] = field(default_factory=list)
    """Of each other method that finished beside the baseline: as `Paired`."""
    numbers: dict[str, list[float | None]] = field(default_factory=dict)
    """Method -> mIoU of each repeat."""
    classes: list[ClassGain] = field(default_factory=list)


def judge(
    scored: Sequence[Scored], *, repeats: int, unit: str, unlabeled: int, title: Mapping[str, str]
) -> Verdict:
    """The verdict on what has finished so far.

    Args:
        scored: finished runs, in any order.
        repeats: that there are to be.
        unit: what differs between repeats: "seed" or "fold".
        unlabeled: images without a label.
        title: method -> what it is called.
    """
    if not scored:
        return Verdict(None, None, None, "No run has finished yet: there is nothing to say.", "")
    frame = pd.DataFrame([asdict(each) for each in scored])
    numbers = frame.pivot(index="repeat", columns="method", values="miou").reindex(range(repeats))
    pairs = (
        paired(numbers, BASELINE, [str(m) for m in numbers if m != BASELINE]) if BASELINE in numbers else []
    )
    # A gain that was seen more often counts first: the others were left after one look.
    gain = max(pairs, key=lambda pair: (pair.seeds, pair.mean), default=None)
    method = gain.label if gain and gain.mean > 0 else BASELINE
    if BASELINE not in numbers:
        method = str(numbers.mean().idxmax())
    best = max((each for each in scored if each.method == method), key=lambda each: each.miou)
    headline, doubt = _sentences(gain, numbers, method, unit=unit, unlabeled=unlabeled, title=title)
    return Verdict(
        method,
        best.run,
        best.miou,
        headline,
        doubt,
        [_as_json(pair) for pair in sorted(pairs, key=lambda pair: (-pair.seeds, -pair.mean))],
        {str(name): [None if math.isnan(v) else v for v in column] for name, column in numbers.items()},
        class_gains(scored, gain.label if gain else None),
    )


def _sentences(
    gain: Paired | None,
    numbers: pd.DataFrame,
    method: str,
    *,
    unit: str,
    unlabeled: int,
    title: Mapping[str, str],
) -> tuple[str, str]:
    mean = spread_text(numbers[method].mean(), numbers[method].std(), 1)
    if not unlabeled:
        return (
            f"{title[method]} reaches {mean} % mIoU. Every picture has a label, so there was nothing to learn from "
            "unlabelled ones.",
            _few(int(numbers[method].count()), unit),
        )
    if gain is None:
        reached = f"{title[method]} reaches {mean} % mIoU"
        return f"{reached}; what unlabelled pictures gain is not known yet.", _few(1, unit)
    sign = "+" if gain.mean >= 0 else "−"
    difference = f"{sign}{spread_text(abs(gain.mean), gain.sd, 1)}"
    base = spread_text(gain.base, gain.base_sd, 1)
    ours = spread_text(gain.ours, gain.ours_sd, 1)
    if gain.mean > 0:
        head = (
            f"The {unlabeled:,} unlabelled pictures gained {difference} mIoU: {title[gain.label]} reaches {ours} %, "
            f"and {base} % is reached from the labelled ones alone ({title[gain.against]})."
        )
    else:
        head = (
            f"The {unlabeled:,} unlabelled pictures gained nothing: {title[gain.label]} reaches {ours} %, "
            f"{difference} against {base} % from the labelled ones alone ({title[gain.against]})."
        )
    return head, _doubt(gain, unit)


def _doubt(gain: Paired, unit: str) -> str:
    if gain.seeds < 2:
        return _few(1, unit)
    if not gain.exceeds_spread:
        return f"That is not more than {unit}s differ, over {gain.seeds} {unit}s: it may be chance."
    if math.isnan(gain.p):
        return f"That is more than {gain.seeds} {unit}s differ, but two are few."
    if gain.p < _LIKELY:
        return (
            f"That is more than {gain.seeds} {unit}s differ (paired t-test, p = {gain.p:.2g}): hardly chance."
        )
    return (
        f"That is more than {gain.seeds} {unit}s differ, but so few can still mislead "
        f"(paired t-test, p = {gain.p:.2g})."
    )


def _few(count: int, unit: str) -> str:
    if count < 2:
        return f"One {unit} alone: how much another would differ is not known."
    return f"Over {count} {unit}s."


def class_gains(scored: Sequence[Scored], method: str | None) -> list[ClassGain]:
    """Each class with the baseline and with a method, over the repeats that both have; in the order of the classes.

    Where there is no method, what the baseline has.
    """
    of: dict[str, dict[int, Scored]] = {}
    for each in scored:
        of.setdefault(each.method, {})[each.repeat] = each
    base, ours = of.get(BASELINE, {}), of.get(method or "", {})
    shared = sorted(base.keys() & ours.keys()) if method else sorted(base)
    if not shared:
        return []
    found = []
    for name in next(iter(base.values())).iou:
        before = pd.Series({k: base[k].iou.get(name) for k in shared}, dtype="float64")
        after = pd.Series({k: ours[k].iou.get(name) for k in shared} if method else {}, dtype="float64")
        gains = (after - before).dropna()
        found.append(
            ClassGain(
                name,
                _number(before.mean()),
                _number(after.mean()) if method else None,
                _number(gains.mean()),
                _number(gains.std()),
            )
        )
    return found


def _as_json(pair: Paired) -> dict[str, Any]:
    """JSON has no word for what is no number."""
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(pair).items()}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
