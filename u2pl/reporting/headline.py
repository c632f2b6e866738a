"""What a table of methods comes to, in a sentence or two a split: the gain over SupOnly, with its spread."""

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence

from u2pl.reporting.comparisons import (
    BASE,
    OURS,
    Comparison,
    against_base,
    against_cutmix,
    p_text,
    strongest,
)
from u2pl.reporting.numbers import spread_text
from u2pl.reporting.paired import Paired
from u2pl.reporting.results import Result, TableResults

Runs = Mapping[str, Sequence[Result]]
"""Label -> its results, one a seed, of one split."""


def headlines(tables: Iterable[TableResults]) -> list[str]:
    """What the tables of methods come to, each text once: tables that share all their runs say the same."""
    texts = (text for filled in tables if filled.table.ablate is None for text in headline(filled))
    return list(dict.fromkeys(texts))


def headline(filled: TableResults) -> list[str]:
    """A text a split: which method gains most over SupOnly, and how much; what U²PL gains, where that is another."""
    return [" ".join(_sentences(filled.table.dataset, runs)) for runs in filled.series().values()]


def _sentences(dataset: str, runs: Runs) -> Iterator[str]:
    where = _where(dataset, next(iter(runs.values()))[0])
    base, gains = strongest(runs, BASE), against_base(runs)
    if not gains:
        yield _alone(where, runs, base)
        return
    best = max(gains, key=lambda gain: gain.paired.mean)
    if best.paired.mean > 0:
        lead = best.label if len(gains) == 1 else f"{best.label}, the best of {len(runs)},"
        yield f"{where} {lead} reaches {_reached(best, runs)}, {_gain(best)}."
    else:
        number = _number(best.paired.base)
        yield (
            f"{where} no method is above {best.against} ({number} % mIoU{_over(runs[best.against])}); the nearest, "
            f"{best.label}, is {_difference(best.paired)} below, {_counted(best.paired)}."
        )
    yield from _doubt(best.paired)
    ours = strongest(runs, OURS)
    for gain in gains:
        if gain.label == ours and gain is not best:
            yield f"{gain.label} reaches {_reached(gain, runs)}, {_gain(gain)}."
            yield from _doubt(gain.paired)
    for gain in against_cutmix(runs):
        if gain.label == ours:
            told = gain.paired.sd is None or gain.paired.exceeds_spread
            doubt = "" if told else ": not more than seeds differ"
            yield f"{gain.label} is {_above(gain.paired)} {gain.against}, {_counted(gain.paired)}{doubt}."


def _where(dataset: str, result: Result) -> str:
    """`On shapes, with 15 of 480 images labelled,`; of an imported run the split alone may be known."""
    labeled, unlabeled = result.metrics["labeled"], result.metrics["unlabeled"]
    if labeled is None or unlabeled is None:
        return f"On {dataset}, split {result.split},"
    return f"On {dataset}, with {labeled} of {labeled + unlabeled} images labelled,"


def _alone(where: str, runs: Runs, base: str | None) -> str:
    """What is reached where no gain can be told."""
    means = {label: statistics.fmean(run.reported for run in results) for label, results in runs.items()}
    best = max(means, key=means.__getitem__)
    lead = best if len(runs) == 1 else f"{best}, the best of {len(runs)},"
    reached = f"{_number([run.reported for run in runs[best]])} % mIoU{_over(runs[best])}"
    if base is None:
        why = "there is no SupOnly to compare it with"
    elif len(runs) == 1:
        why = "no other method has finished"
    else:
        why = "no seed has finished both with SupOnly and with another method"
    return f"{where} {lead} reaches {reached}; {why}."


def _reached(gain: Comparison, runs: Runs) -> str:
    return f"{_number(gain.paired.ours)} % mIoU{_over(runs[gain.label])}"


def _gain(gain: Comparison) -> str:
    pair = gain.paired
    return f"{_above(pair)} {gain.against} ({_number(pair.base)}), {_counted(pair)}"


def _above(pair: Paired) -> str:
    return f"{_difference(pair)} {'above' if pair.mean >= 0 else 'below'}"


def _counted(pair: Paired) -> str:
    """`seed by seed, 3 seeds, p = 0.012`."""
    if pair.seeds == 1:
        return "1 seed"
    p = f", p {'' if (text := p_text(pair.p)).startswith('<') else '= '}{text}" if pair.p is not None else ""
    return f"seed by seed, {pair.seeds} seeds{p}"


def _doubt(pair: Paired) -> Iterator[str]:
    """What speaks against taking a difference for one."""
    if pair.sd is None:
        yield "Its spread is not known from one seed."
    elif not pair.exceeds_spread:
        yield "That is not more than seeds differ."


def _difference(pair: Paired) -> str:
    """How large it is, without its sign."""
    return f"{abs(pair.mean):.1f}" + ("" if pair.sd is None else f" ± {pair.sd:.1f}")


def _number(values: Sequence[float]) -> str:
    return spread_text(values, 1)


def _over(results: Sequence[Result]) -> str:
    """` over 3 of 4 classes`, where not all count."""
    return "".join(f" {text}" for text in sorted({run.over for run in results} - {""}))
