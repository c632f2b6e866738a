"""What a table of methods comes to, in a sentence or two a split: the gain over SupOnly, with its spread."""

import math
from collections.abc import Iterable, Iterator, Sequence

from u2pl.reporting.comparisons import (
    BASE,
    OURS,
    Runs,
    against_cutmix,
    gains,
    mious,
    p_words,
    strongest,
    told,
)
from u2pl.reporting.numbers import spread_text
from u2pl.reporting.paired import Paired
from u2pl.reporting.results import Result, TableResults

_MAY_BE_CHANCE = "not more than seeds differ"


def headlines(tables: Iterable[TableResults]) -> list[str]:
    """What the tables of methods come to, each text once: tables that share all their runs say the same."""
    texts = (text for filled in tables if filled.table.ablate is None for text in headline(filled))
    return list(dict.fromkeys(texts))


def headline(filled: TableResults) -> list[str]:
    """A text a split: which method gains most over SupOnly, and how much; what U²PL gains, where that is another."""
    return [" ".join(_sentences(filled.table.dataset, runs)) for runs in filled.series().values()]


def _sentences(dataset: str, runs: Runs) -> Iterator[str]:
    where = _where(dataset, next(iter(runs.values()))[0])
    base, found = strongest(runs, BASE), gains(runs)
    if found is None:
        yield _alone(where, runs, base)
        return
    best = found.best
    if best.mean > 0:
        lead = best.label if len(runs) == 2 else f"{best.label}, the best of {len(runs)},"
        yield f"{where} {lead} reaches {_reached(best, runs)}, {_gain(best)}."
    else:
        number = _number(best.base, best.base_sd)
        which = "no method that shares its seeds" if found.left_out else "no method"
        yield (
            f"{where} {which} is above {best.against} ({number} % mIoU{_over(runs[best.against])}); the nearest, "
            f"{best.label}, is {_difference(best)} below, {_counted(best)}."
        )
    yield from _doubt(best)
    if found.left_out:
        yield found.omission
    ours = strongest(runs, OURS)
    for gain in found.gains:
        if gain.label == ours and gain is not best:
            yield f"{gain.label} reaches {_reached(gain, runs)}, {_gain(gain)}."
            yield from _doubt(gain)
    for gain in against_cutmix(runs):
        if gain.label == ours:
            doubt = "" if math.isnan(gain.sd) or told(gain) else f": {_MAY_BE_CHANCE}"
            yield f"{gain.label} is {_above(gain)} {gain.against}, {_counted(gain)}{doubt}."


def _where(dataset: str, result: Result) -> str:
    """`On shapes, with 15 of 480 images labelled,`; of an imported run the split alone may be known."""
    labeled, unlabeled = result.metrics["labeled"], result.metrics["unlabeled"]
    if labeled is None or unlabeled is None:
        return f"On {dataset}, split {result.split},"
    return f"On {dataset}, with {labeled} of {labeled + unlabeled} images labelled,"


def _alone(where: str, runs: Runs, base: str | None) -> str:
    """What is reached where no gain can be told."""
    numbers = mious(runs)
    best = str(numbers.mean().idxmax())
    lead = best if len(runs) == 1 else f"{best}, the best of {len(runs)},"
    reached = f"{_number(numbers[best].mean(), numbers[best].std())} % mIoU{_over(runs[best])}"
    return f"{where} {lead} reaches {reached}; {nothing_compared(runs, base)}."


def nothing_compared(runs: Runs, base: str | None) -> str:
    """Why `comparisons.gains` finds none.

    Args:
        runs: of a split.
        base: label of its strongest SupOnly.
    """
    if base is None:
        return "there is no SupOnly to compare it with"
    if len(runs) == 1:
        return "no other method has finished"
    return "no seed has finished both with SupOnly and with another method"


def _reached(gain: Paired, runs: Runs) -> str:
    return f"{_number(gain.ours, gain.ours_sd)} % mIoU{_over(runs[gain.label])}"


def _gain(gain: Paired) -> str:
    return f"{_above(gain)} {gain.against} ({_number(gain.base, gain.base_sd)}), {_counted(gain)}"


def _above(pair: Paired) -> str:
    return f"{_difference(pair)} {'above' if pair.mean >= 0 else 'below'}"


def _counted(pair: Paired) -> str:
    """`seed by seed, 3 seeds, p = 0.012`."""
    if pair.seeds == 1:
        return "1 seed"
    p = "" if math.isnan(pair.p) else f", {p_words(pair.p)}"
    return f"seed by seed, {pair.seeds} seeds{p}"


def _doubt(pair: Paired) -> Iterator[str]:
    """What speaks against taking a difference for one."""
    if math.isnan(pair.sd):
        yield "Its spread is not known from one seed."
    elif not told(pair):
        yield f"That is {_MAY_BE_CHANCE}."


def _difference(pair: Paired) -> str:
    """How large it is, without its sign."""
    return _number(abs(pair.mean), pair.sd)


def _number(mean: float, sd: float) -> str:
    return spread_text(mean, sd, 1)


def _over(results: Sequence[Result]) -> str:
    """` over 3 of 4 classes`, where not all count."""
    return "".join(f" {text}" for text in sorted({run.over for run in results} - {""}))
