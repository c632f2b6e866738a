"""What the finished runs say: what unlabelled images gained, which method to take, and how sure that is."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pandas as pd

from u2pl.auto.portfolio import BASELINE
from u2pl.reporting.numbers import signed, spread_text
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
    scored: Sequence[Scored],
    *,
    repeats: int,
    unit: str,
    tried: int,
    unlabeled: int,
    val: int,
    title: Mapping[str, str],
) -> Verdict:
    """The verdict on what has finished so far.

    Args:
        scored: finished runs, in any order.
        repeats: that there are to be.
        unit: what differs between repeats: "seed" or "fold".
        tried: methods beside the baseline that began in the first round.
        unlabeled: images without a label.
        val: images that validate.
        title: method -> what it is called.
    """
    if not scored:
        return Verdict(None, None, None, "No run has finished yet: there is nothing to say.", "")
    frame = pd.DataFrame([asdict(each) for each in scored])
    numbers = frame.pivot(index="repeat", columns="method", values="miou").reindex(range(repeats))
    others = [str(name) for name in numbers if name != BASELINE]
    pairs = paired(numbers, BASELINE, others) if BASELINE in numbers else []
    # A gain that was seen more often counts first: the others were left after one look.
    gain = max(pairs, key=lambda pair: (pair.seeds, pair.mean), default=None)
    method = gain.label if gain and gain.mean > 0 else BASELINE
    if BASELINE not in numbers:
        method = str(numbers.mean().idxmax())
    own = [each for each in scored if each.method == method]
    # Numbers of folds rank pictures, and not networks: there the first one is taken.
    best = min(own, key=lambda each: each.repeat) if unit == "fold" else max(own, key=lambda each: each.miou)
    words = _Words(numbers, unit, unlabeled, val, title)
    doubts = [words.doubt(gain, method), *words.chosen(gain, tried), *_missing(scored, method, unit)]
    return Verdict(
        method,
        best.run,
        best.miou,
        words.headline(gain, method),
        " ".join(filter(None, doubts)),
        [_as_json(pair) for pair in sorted(pairs, key=lambda pair: (-pair.seeds, -pair.mean))],
        {str(name): [None if math.isnan(v) else v for v in column] for name, column in numbers.items()},
        class_gains(scored, gain.label if gain else None),
    )


@dataclass(frozen=True)
class _Words:
    """Sentences about what was found."""

    numbers: pd.DataFrame
    """A row a repeat, a column a method."""
    unit: str
    unlabeled: int
    val: int
    title: Mapping[str, str]

    def headline(self, gain: Paired | None, method: str) -> str:
        """What was gained, or that it was not."""
        own = self.numbers[method]
        reached = f"{self.title[method]} reaches {spread_text(own.mean(), own.std(), 1)} % mIoU"
        if not self.unlabeled:
            return (
                f"{reached}. Every picture has a label, so there was nothing to learn from unlabelled ones."
            )
        if gain is None:
            return f"{reached}; what unlabelled pictures gain is not known yet."
        difference = f"{'+' if gain.mean >= 0 else '−'}{spread_text(abs(gain.mean), gain.sd, 1)}"
        base, ours = spread_text(gain.base, gain.base_sd, 1), spread_text(gain.ours, gain.ours_sd, 1)
        label, alone = self.title[gain.label], f"from the labelled ones alone ({self.title[gain.against]})"
        if gain.mean > 0:
            return (
                f"The {self.unlabeled:,} unlabelled pictures gained {difference} mIoU: {label} reaches {ours} %, and "
                f"{base} % is reached {alone}."
            )
        return (
            f"The {self.unlabeled:,} unlabelled pictures gained nothing: {label} reaches {ours} %, {difference} "
            f"against {base} % {alone}."
        )

    def doubt(self, gain: Paired | None, method: str) -> str:
        """How sure that is."""
        unit = self.unit
        seen = gain.seeds if gain else int(self.numbers[method].count())
        if seen < 2:
            return f"One {unit} alone: how much another would differ is not known."
        if gain is None:
            return f"Over {seen} {unit}s."
        if not gain.exceeds_spread:
            return f"That is not more than {unit}s differ, over {seen} {unit}s: it may be chance."
        more = f"That is more than {seen} {unit}s differ"
        if unit == "fold":
            # Their training images overlap, so that a test would find too much.
            return f"{more}; folds share training pictures, so no test says how likely chance is."
        same = f"All seeds are scored on the same {self.val:,} pictures: of others they say less."
        if math.isnan(gain.p):
            return f"{more}, but two are few. {same}"
        chance = "hardly chance of the seeds" if gain.p < _LIKELY else "but so few can mislead"
        return f"{more} (paired t-test, p = {gain.p:.2g}): {chance}. {same}"

    def chosen(self, gain: Paired | None, tried: int) -> Iterator[str]:
        """That the method was chosen by a number that is among those that it is judged by."""
        if gain is None or tried < 2 or gain.seeds < 2:
            return
        others = self.numbers[gain.label][1:] - self.numbers[BASELINE][1:]
        kept = others.dropna()
        yield (
            f"{self.title[gain.label]} was chosen of {tried} methods by its first {self.unit}, which flatters: over "
            f"the other{'s' if len(kept) > 1 else ''} it is {signed(kept.mean())}."
        )


def _missing(scored: Sequence[Scored], method: str, unit: str) -> Iterator[str]:
    """That some mIoUs are over fewer classes than others, since a class is in no picture that validates there."""
    own = [each for each in scored if each.method == method]
    some = [
        name
        for name in own[0].iou
        if 0 < sum(each.iou.get(name) is None for each in own) < len(own) and unit == "fold"
    ]
    if some:
        yield f"{', '.join(some)} cannot be scored in every fold, so that their mIoUs are over different classes."


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
