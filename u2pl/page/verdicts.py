"""What stands first on the page: what won on each split, by how much, and whether that is more than chance."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import pandas as pd
from markupsafe import Markup

from u2pl.escaping import listed
from u2pl.page import dots
from u2pl.page.groups import Group, groups
from u2pl.project import slug
from u2pl.reporting.comparisons import BASE, Gains, gains, mious, p_words, strongest, told
from u2pl.reporting.headline import headline, nothing_compared
from u2pl.reporting.numbers import spread_text
from u2pl.reporting.paired import TESTED_FROM, Paired, paired
from u2pl.reporting.results import Result, TableResults
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
    table: str
    """Title of the table that says so."""
    winner: str
    reached: str
    """`33.8 ± 1.7`, percent."""
    gain: str
    """`+4.3 ± 0.8`, points; empty where there is nothing to compare with."""
    over: str
    """What it is a gain over."""
    chance: Chance
    why: str
    """Why it is taken for chance or not, as sentences."""
    text: str
    """All of it in sentences."""
    picture: Markup | None = None
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
        side = "above" if self.gain.startswith("+") else "from"
        return Markup("{} is <b>{}</b> mIoU {} {}").format(self.winner, self.gain, side, self.over)


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
    found = list({each.text: each for each in methods or ablations}.values())
    places = [each.where for each in found]
    return [
        replace(each, where=f"{each.where}: {each.table}") if places.count(each.where) > 1 else each
        for each in found
    ]


def summary(found: Sequence[Verdict]) -> str:
    """How many of several verdicts are of which kind."""
    counts = [(kind, sum(each.chance is kind for each in found)) for kind in Chance]
    return "; ".join(f"{kind} on {count} of {len(found)}" for kind, count in counts if count) + "."


# ---- methods ---------------------------------------------------------------------------------------------


def _of_methods(filled: TableResults, group: Group, text: str) -> Verdict:
    where, title = f"{filled.table.dataset}, {group.title}", filled.table.title
    found = gains(group.runs)
    if found is None:
        numbers = mious(group.runs)
        best = str(numbers.mean().idxmax())
        reached = spread_text(numbers[best].mean(), numbers[best].std(), 1)
        why = nothing_compared(group.runs, strongest(group.runs, BASE))
        why = f"{why[0].upper()}{why[1:]}."
        return Verdict(where, title, best, reached, "", "", Chance.UNKNOWN, why, text)
    best_gain = found.best
    chance, why = judged(found)
    level = level_with(best_gain, group.runs)
    if level and best_gain.mean > 0:
        why += f" {listed(level)} {'is' if len(level) == 1 else 'are'} not told apart from it."
    return Verdict(
        where,
        title,
        best_gain.label,
        spread_text(best_gain.ours, best_gain.ours_sd, 1),
        _signed(best_gain.mean, best_gain.sd),
        best_gain.against,
        chance,
        why,
        text,
        _picture(filled, group, found),
    )


def judged(found: Gains) -> tuple[Chance, str]:
    """Whether the best gain of a split is more than chance, and why.

    Its p-value is corrected for how many were tested (Holm), since the largest of many is large by chance too.
    """
    gain = found.best
    if gain.mean <= 0:
        if found.left_out:
            return Chance.UNKNOWN, found.omission
        return Chance.LOSS, f"No method is above {gain.against}."
    if gain.seeds == 1:
        return Chance.MAYBE, "One seed has no spread: whether that is more than chance is not known."
    if gain.seeds < TESTED_FROM:
        spread = "more than its spread" if gain.exceeds_spread else "not more than its spread"
        return Chance.MAYBE, f"That is {spread} over {gain.seeds} seeds, which are too few for a test."
    if math.isnan(gain.p):
        return Chance.MAYBE, f"All {gain.seeds} seeds differ by the same, which no test can judge."
    tests = [other.p for other in found.gains if not math.isnan(other.p)]
    p = holm(gain.p, tests)
    corrected = f", corrected for {len(tests)} comparisons" if len(tests) > 1 else ""
    tested = f"{p_words(p)}, paired t-test over {gain.seeds} seeds{corrected}"
    if p < SIGNIFICANT:
        return Chance.NO, f"That is hardly chance ({tested})."
    return Chance.MAYBE, f"That may be chance ({tested})."


def holm(p: float, tests: Iterable[float]) -> float:
    """One of the p-values `tests`, corrected by the method of Holm (1979) for there being so many of them."""
    ordered = sorted(tests)
    corrected = [(len(ordered) - rank) * value for rank, value in enumerate(ordered) if value <= p]
    return min(1.0, max(corrected))


def level_with(best: Paired, runs: Mapping[str, Sequence[Result]]) -> list[str]:
    """Methods that no test over the seeds they share tells from the best one; from one seed nothing is told."""
    others = [label for label in runs if label not in (best.label, best.against)]
    pairs = paired(mious(runs), best.label, others)
    return [pair.label for pair in pairs if pair.seeds > 1 and (pair.seeds < TESTED_FROM or not told(pair))]


def _picture(filled: TableResults, group: Group, found: Gains) -> Markup:
    numbers = mious(group.runs)
    shown = [
        dots.Point(gain.label, tuple((numbers[gain.label] - numbers[found.base]).dropna().tolist()))
        for gain in found.gains
    ]
    return Markup(dots.gains_svg(found.base, shown, slug(f"{filled.name}-{group.split}-gain")))


# ---- values of an ablated setting ------------------------------------------------------------------------


def _of_values(filled: TableResults, group: Group) -> Verdict:
    where, title = f"{filled.table.dataset}, {group.title}", filled.table.title
    numbers = mious(group.runs)
    order = numbers.mean().sort_values(ascending=False, kind="stable")
    best = str(order.index[0])
    reached = spread_text(order.iloc[0], numbers[best].std(), 1)
    lead = f"{title}, {where}: {best} reaches {reached} % mIoU."
    if len(order) == 1:
        why = "One value alone is compared with nothing."
        return Verdict(where, title, best, reached, "", "", Chance.UNKNOWN, why, f"{lead} {why}")
    second = str(order.index[1])
    chance, why = judged_values(numbers, best)
    ahead = numbers[best].mean() - numbers[second].mean()
    return Verdict(
        where, title, best, reached, _signed(ahead, math.nan), second, chance, why, f"{lead} {why}"
    )


def judged_values(numbers: pd.DataFrame, best: str) -> tuple[Chance, str]:
    """Whether the value of the highest mean is ahead of every other by more than chance, and why.

    Every one of the tests has to say so, which needs no correction for how many they are.

    Args:
        numbers: a row a seed, a column a value.
        best: one of the columns.
    """
    others = [str(label) for label in numbers if label != best]
    pairs = paired(numbers, best, others)
    seeds = min((pair.seeds for pair in pairs), default=0)
    if len(pairs) < len(others):
        return Chance.MAYBE, "Not every value has a seed that it shares with the highest."
    if seeds == 1:
        return Chance.MAYBE, "One seed has no spread: whether it is ahead by more than chance is not known."
    if seeds < TESTED_FROM:
        return Chance.MAYBE, f"{seeds} seeds are too few for a test."
    if any(math.isnan(pair.p) for pair in pairs):
        return Chance.MAYBE, f"All {seeds} seeds differ by the same, which no test can judge."
    p = max(pair.p for pair in pairs)
    if p < SIGNIFICANT:
        return (
            Chance.NO,
            f"It is ahead of every other ({p_words(p)} or less, paired t-tests over {seeds} seeds).",
        )
    return Chance.MAYBE, f"It is not ahead of every other ({p_words(p)}, paired t-tests over {seeds} seeds)."


def _signed(mean: float, sd: float) -> str:
    return ("+" if mean >= 0 else "−") + spread_text(abs(mean), sd, 1)
