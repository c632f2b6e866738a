"""What stands first on the page: what won on each split, by how much, and whether that is more than chance."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from markupsafe import Markup

from u2pl.page import dots
from u2pl.page.groups import Group, groups
from u2pl.project import slug
from u2pl.reporting.comparisons import against_base, mious, p_text
from u2pl.reporting.headline import headline
from u2pl.reporting.numbers import spread_text
from u2pl.reporting.paired import TESTED_FROM, Paired
from u2pl.reporting.results import TableResults
from u2pl.reporting.seeds import ValueOverSeeds, clearly_best, highest, verdict
from u2pl.reporting.sign_test import SIGNIFICANT


class Chance(StrEnum):
    """Whether a difference is more than chance."""

    NO = "more than chance"
    MAYBE = "chance not excluded"
    LOSS = "no gain"
    UNKNOWN = "nothing to compare"


@dataclass(frozen=True)
class Verdict:
    """What the runs of one split come to."""

    where: str
    """`shapes, 1/8 (60 labelled)`."""
    winner: str
    reached: str
    """`33.8 ± 1.7`, percent."""
    gain: str
    """`+4.3 ± 0.8`, points; empty where there is nothing to compare with."""
    over: str
    """What it is a gain over."""
    chance: Chance
    why: str
    """Why it is taken for chance or not, as a sentence."""
    text: str
    """All of it in sentences."""
    picture: Markup | None
    """Every method's differences, seed by seed."""

    @property
    def claim(self) -> Markup:
        """The verdict as a heading; the number that matters is bold."""
        if not self.gain:
            return Markup("{} reaches <b>{}</b> % mIoU").format(self.winner, self.reached)
        if self.chance is Chance.LOSS:
            return Markup("No method gains over {}: {} is nearest, <b>{}</b> mIoU").format(
                self.over, self.winner, self.gain
            )
        return Markup("{} is <b>{}</b> mIoU above {}").format(self.winner, self.gain, self.over)


def verdicts(tables: Iterable[TableResults]) -> list[Verdict]:
    """A verdict for each split of each table of methods; those of ablations where there is no such table.

    Tables that share their runs say the same, which is said once.
    """
    methods, ablations = [], []
    for filled in tables:
        if filled.table.ablate is None:
            texts = headline(filled)
            methods += [_of_methods(filled, *each) for each in zip(groups(filled), texts, strict=True)]
        else:
            ablations += [_of_values(filled, group) for group in groups(filled)]
    return list({each.text: each for each in methods or ablations}.values())


def _of_methods(filled: TableResults, group: Group, text: str) -> Verdict:
    where = f"{filled.table.dataset}, {group.title}"
    gains = against_base(group.runs)
    if not gains:
        numbers = mious(group.runs)
        best = str(numbers.mean().idxmax())
        reached = spread_text(numbers[best].mean(), numbers[best].std(), 1)
        return Verdict(where, best, reached, "", "", Chance.UNKNOWN, text.rpartition("; ")[2], text, None)
    best_gain = max(gains, key=lambda gain: gain.mean)
    chance, why = judged(best_gain, gains)
    return Verdict(
        where,
        best_gain.label,
        spread_text(best_gain.ours, best_gain.ours_sd, 1),
        _signed(best_gain.mean, best_gain.sd),
        best_gain.against,
        chance,
        why,
        text,
        _picture(filled, group, gains),
    )


def judged(gain: Paired, compared: Sequence[Paired]) -> tuple[Chance, str]:
    """Whether the largest of some gains is more than chance, and why.

    Its p-value is corrected for how many were compared (Holm), since the largest of many is large by chance too.
    """
    if gain.mean <= 0:
        return Chance.LOSS, f"No method is above {gain.against}."
    if gain.seeds == 1:
        return Chance.MAYBE, "One seed has no spread: whether that is more than chance is not known."
    if not gain.exceeds_spread:
        return Chance.MAYBE, f"That is not more than {gain.seeds} seeds differ among themselves."
    if gain.seeds < TESTED_FROM:
        return (
            Chance.MAYBE,
            f"That is more than its spread over {gain.seeds} seeds, which are too few for a test.",
        )
    if math.isnan(gain.p):
        return Chance.MAYBE, f"All {gain.seeds} seeds differ by the same, which no test can judge."
    p = holm(gain.p, [other.p for other in compared])
    tested = f"p {text if (text := p_text(p)).startswith('<') else f'= {text}'}, paired t-test over {gain.seeds} seeds"
    corrected = f", corrected for {len(compared)} comparisons" if len(compared) > 1 else ""
    if p < SIGNIFICANT:
        return Chance.NO, f"That is hardly chance ({tested}{corrected})."
    return Chance.MAYBE, f"That may be chance ({tested}{corrected})."


def holm(p: float, others: Iterable[float]) -> float:
    """One of the p-values `others`, corrected by the method of Holm (1979) for there being so many of them.

    Those that are NaN were no tests.
    """
    ordered = sorted(value for value in others if not math.isnan(value))
    corrected = [(len(ordered) - rank) * value for rank, value in enumerate(ordered) if value <= p]
    return min(1.0, max(corrected))


def _picture(filled: TableResults, group: Group, gains: Sequence[Paired]) -> Markup:
    numbers = mious(group.runs)
    base = gains[0].against
    shown = [
        dots.Point(gain.label, tuple((numbers[gain.label] - numbers[base]).dropna().tolist()))
        for gain in gains
    ]
    return Markup(dots.gains_svg(base, shown, slug(f"{filled.name}-{group.split}-gain")))


def _of_values(filled: TableResults, group: Group) -> Verdict:
    values = [
        ValueOverSeeds(label, {run.metrics["seed"]: run.reported for run in runs})
        for label, runs in group.runs.items()
    ]
    best, ahead = highest(values), clearly_best(values)
    why = verdict(values)
    rest = [value for value in values if value is not best]
    gain, over = "", ""
    if rest:
        second = highest(rest)
        gain, over = _signed(best.mean - second.mean, math.nan), second.value
    chance = Chance.NO if ahead else Chance.MAYBE if rest else Chance.UNKNOWN
    where = f"{filled.table.dataset}, {group.title}"
    reached = spread_text(best.mean, math.nan if best.sd is None else best.sd, 1)
    text = f"{filled.table.title}, {where}: {best.value} reaches {reached} % mIoU. {why.removeprefix('* ')}"
    return Verdict(where, best.value, reached, gain, over, chance, why.removeprefix("* "), text, None)


def _signed(mean: float, sd: float) -> str:
    return ("+" if mean >= 0 else "−") + spread_text(abs(mean), sd, 1)
