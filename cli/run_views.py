"""How lists of runs, one run, a comparison and garbage read on a terminal, and whole in a pipe."""

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from u2pl.reporting.axes import miou_span
from u2pl.reporting.durations import duration
from u2pl.reporting.numbers import signed
from u2pl.runs.disk import in_words as size_in_words
from u2pl.runs.epochs import shown_epoch

from .sparkline import sparkline
from .terminal import console, one_line, say

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

    from u2pl.pipeline.garbage import Garbage, Item
    from u2pl.reporting.run_card import RunCard, Score
    from u2pl.reporting.run_groups import Comparison, Group

_COLORS = {
    "done": "green",
    "running": "cyan",
    "failed": "red",
    "damaged": "red",
    "stale": "magenta",
    "interrupted": "yellow",
    "waiting": "dim",
}
_NOTE = 40
"""Characters of a note that a list shows."""
_RIGHT = {"mIoU %", "epoch", "time", "size"}
_LAST_TO_GO = ("state", "mIoU %", "tags", "epoch", "finished", "time", "size", "note")
"""Columns beside the name; those at the end are left out first where there is no room."""


def show_runs(found: "pd.DataFrame", total: int) -> None:
    """Print a line a run; on a narrow terminal without the columns that there is no room for.

    Args:
        found: the runs to be shown, with the columns of `u2pl.runs()`.
        total: how many there are.
    """
    columns = _run_columns(found)
    left_out = _print_fitting(columns)
    states = found["state"].value_counts()
    said = ", ".join(f"{states[state]} {state}" for state in _COLORS if state in states)
    of = f" of {total}" if total != len(found) else ""
    several = len(found) != 1 or of
    say(
        f"\n{len(found)}{of} run{'s' if several else ''}: {said}; {size_in_words(int(found['bytes'].sum()))}."
    )
    if left_out:
        _paragraph(
            f"No room for: {', '.join(left_out)}. A wider terminal, a pipe, --csv and --json have them."
        )


def _run_columns(found: "pd.DataFrame") -> dict[str, list[str]]:
    """Heading -> cells, without columns in which nothing stands."""
    rows: list[dict[Any, Any]] = found.astype(object).where(found.notna(), None).to_dict("records")
    columns = {
        "run": [row["run"] for row in rows],
        "state": [row["state"] for row in rows],
        "mIoU %": ["" if row["miou"] is None else f"{row['miou']:.2f}" for row in rows],
        "tags": [row["tags"] or "" for row in rows],
        "epoch": ["" if row["epoch"] is None else f"{row['epoch']}/{row['epochs']}" for row in rows],
        "finished": ["" if row["finished"] is None else f"{row['finished']:%Y-%m-%d %H:%M}" for row in rows],
        "time": ["" if row["seconds"] is None else duration(row["seconds"]) for row in rows],
        "size": [size_in_words(row["bytes"]) for row in rows],
        "note": [_short(row["problem"] or row["note"] or "") for row in rows],
    }
    return {heading: cells for heading, cells in columns.items() if heading == "run" or any(cells)}


def _short(text: str) -> str:
    text = one_line(text)
    return text if len(text) <= _NOTE or not _is_terminal() else f"{text[: _NOTE - 1]}…"


def _is_terminal() -> bool:
    return bool(sys.stdout and sys.stdout.isatty())  # it may have been closed


def _print_fitting(columns: dict[str, list[str]]) -> list[str]:
    """Print columns, names never broken; the headings of those that there was no room for."""
    kept, left_out = dict(columns), list[str]()
    screen = console()
    while _is_terminal() and _width(_list(kept)) > screen.width:
        going = next((heading for heading in reversed(_LAST_TO_GO) if heading in kept), None)
        if going is None:
            break
        del kept[going]
        left_out.insert(0, going)
    print_whole(_list(kept))
    return left_out


def _list(columns: dict[str, list[str]]) -> "Table":
    from rich.text import Text

    table = plain_table(columns, right=_RIGHT)
    for row in zip(*columns.values(), strict=True):
        cells = zip(columns, map(one_line, row), strict=True)
        table.add_row(*(Text(c, style=_COLORS.get(c, "")) if h == "state" else c for h, c in cells))
    return table


def plain_table(headings: Iterable[str], right: Iterable[str] = ()) -> "Table":
    """A table without lines, whose cells are never broken."""
    from rich.table import Table

    table, right = Table(box=None, pad_edge=False), set(right)
    for heading in headings:
        table.add_column(one_line(heading), no_wrap=True, justify="right" if heading in right else "left")
    return table


def print_whole(table: "Table") -> None:
    """Print a table as wide as it is: a narrow terminal may break its lines, a pipe has no margin."""
    console(width=max(console().width, _width(table))).print(table)


def _width(table: "Table") -> int:
    from rich.measure import Measurement

    wide = console(width=10_000)
    return Measurement.get(wide, wide.options, table).maximum


# ---- one run -------------------------------------------------------------------------------------------


def show_card(card: "RunCard") -> None:
    """Print all there is to know of a run."""
    record, status = card.record, card.status
    _line("run", card.run)
    _line("state", status.state)
    _line("", status.note or status.holder)
    if status.state != "done" and status.epoch:
        _line("epoch", f"{status.epoch}/{status.epochs}")
    _line("of", f"{record['dataset']} {record['split']}, method {record['method']}, seed {record['seed']}")
    _line("begun", record["created"])
    _line("for", f"ablation {record['parent']}" if record["parent"] else "")
    if "imported" in record:
        _line("imported", f"{record['imported']['file']}, {record['imported']['network']}")
    _line("tags", ", ".join(card.labels["tags"]))
    _line("note", card.labels["note"])
    _line("shown in", ", ".join(card.shown_in) or "no table or figure of the active plan")
    _lines("score", map(_score_in_words, card.scores))
    if card.best:
        _line(
            "best epoch",
            f"mIoU {card.best[0]:.2f} % in epoch {shown_epoch(card.best[1])}, chosen on the validation images",
        )
    if card.curve:
        values = [value for _, value in card.curve]
        drawn = sparkline(values, span=miou_span(values))
        epochs = shown_epoch(card.curve[-1][0])  # of which not every one need have been validated
        _line("curve", f"{drawn}  {values[0]:.1f} to {values[-1]:.1f} % in {epochs} epochs")
    if card.seconds:
        _line("time", f"{duration(card.seconds)}, {card.images_per_second:.1f} images a second")
    _line("memory", "" if card.memory_gib is None else f"{card.memory_gib:.2f} GiB at most")
    parts = ", ".join(f"{what} {size_in_words(n)}" for what, n in card.bytes.items() if what != "all")
    _line("disk", size_in_words(card.bytes["all"]) + (f" ({parts})" if parts else ""))
    _show_set(card)
    if card.iou:
        classes = plain_table(("class", "IoU %", ""), right=("IoU %",))
        for name, value in card.iou.items():
            bar = "" if value is None else "#" * round(value / 5)
            classes.add_row(one_line(name), "-" if value is None else f"{value:.2f}", bar)
        say()
        print_whole(classes)
    say()
    for what, path in card.files.items():
        say(f"{what}: {one_line(str(path))}")
    for line in card.next:
        say(f"Next: {one_line(line)}")


def _show_set(card: "RunCard") -> None:
    """Print what was set otherwise than in params.yaml, then everything else."""
    from u2pl.settings import value_text

    _lines(
        "set",
        (
            f"{each.key}={value_text(each.value)}"
            + ("" if each.default is None else f" (params.yaml: {value_text(each.default)})")
            for each in card.changed
        ),
    )
    if not card.changed:
        _line("set", "nothing; all is as in params.yaml")
    changed = {each.key for each in card.changed}
    sections = {"recipe": card.record["recipe"], card.record["method"]: card.record["hyper"]}
    for section, settings in sections.items():
        rest = {key: value for key, value in settings.items() if f"{section}.{key}" not in changed}
        _line(section, " ".join(f"{key}={value_text(value)}" for key, value in rest.items()))


def _score_in_words(score: "Score") -> str:
    number = f"mIoU {score.miou:.2f} % {score.over}".rstrip()
    return f"{number}: {score.protocol}{'' if score.is_own else ' (in no table)'}"


_INDENT = 12


def _lines(heading: str, texts: Iterable[str]) -> None:
    """Print texts below each other, the first of them beside a heading."""
    for text in texts:
        _line(heading, text)
        heading = ""


def _line(heading: str, text: str) -> None:
    """Print a text beside a heading, if there is any; on a terminal in lines that break no word."""
    for line in _wrapped(text, _INDENT) if text else ():
        say(f"{heading:<{_INDENT}}{line}")
        heading = ""


def _paragraph(text: str) -> None:
    """Print a sentence, on a terminal in lines that break no word."""
    for line in _wrapped(text, 0):
        say(line)


def _wrapped(text: str, indent: int) -> list[str]:
    import textwrap

    text = one_line(text)
    if not _is_terminal():
        return [text]
    width = max(console().width - indent, 20)
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


# ---- runs side by side ---------------------------------------------------------------------------------


def letters(count: int) -> list[str]:
    """What columns call the groups: A, B, ..., Z, A1 and so on."""
    return [chr(ord("A") + k % 26) + (str(k // 26) if k >= 26 else "") for k in range(count)]


def show_comparison(found: "Comparison") -> None:
    """Print what the runs differ in: settings, numbers, classes and curves, and what can be said of it."""
    names = letters(len(found.groups))
    for letter, group in zip(names, found.groups, strict=True):
        say(f"{letter}  {one_line(group.label)}{_seeds(group)}")
    for sentence in found.warnings:
        _paragraph(f"Note: {sentence}")
    say()
    _show_settings(found, names)
    _show_scores(found, names)
    _show_curves(found, names)
    for letter, each in zip(names[1:], found.differences, strict=True):
        _paragraph(f"{letter} against A: {each.says}")
        if each.unpaired and each.paired:
            said = ", ".join(map(str, each.unpaired))
            _paragraph(f"Left out of the pairs, since one of the two alone has them: seeds {said}.")


def _seeds(group: "Group") -> str:
    if len(group.records) == 1:
        return ""
    return f": seeds {', '.join(map(str, sorted(group.records)))}"


def _show_settings(found: "Comparison", names: Sequence[str]) -> None:
    from u2pl.reporting.run_groups import MISSING
    from u2pl.settings import value_text

    if not found.settings:
        say("Their settings are the same.\n")
        return
    both = {key: row for key, row in found.settings.items() if MISSING not in row}
    if both:
        table = plain_table(("setting", *names))
        for key, row in both.items():
            table.add_row(one_line(key), *(one_line(value_text(value)) for value in row))
        print_whole(table)
    alone: dict[str, list[str]] = {}
    for key, row in found.settings.items():
        if MISSING in row:
            has = {
                name: value_text(value) for name, value in zip(names, row, strict=True) if value != MISSING
            }
            same = len(set(has.values())) == 1
            said = next(iter(has.values())) if same else "|".join(has.values())
            alone.setdefault(", ".join(has), []).append(f"{key}={said}")
    for who, settings in alone.items():
        say(f"Only {who}: {one_line(' '.join(settings))}")
    say()


def _show_scores(found: "Comparison", names: Sequence[str]) -> None:
    from u2pl.reporting.run_groups import score_rows

    differences = [f"{name} - {names[0]}" for name in names[1:]]
    table = plain_table(("IoU %", *names, *differences), right={*names, *differences})
    for row in score_rows(found):
        means = ["-" if mean is None else f"{mean:.2f}" for mean in row.means]
        spread = [f" ± {sd:.2f}" if sd is not None else "" for sd in row.sds]
        against = ["-" if each is None else signed(each) for each in row.differences]
        cells = (mean + sd for mean, sd in zip(means, spread, strict=True))
        table.add_row(one_line(row.name), *cells, *against)
    print_whole(table)
    if any(each.unpaired and each.paired for each in found.differences):
        say("Means are over all seeds of a run, differences over those that both have.")
    say()


def _show_curves(found: "Comparison", names: Sequence[str]) -> None:
    curves = [group.curve for group in found.groups]
    values = [value for curve in curves for _, value in curve]
    if not values:
        return
    say("mIoU by epoch, on one scale:")
    span = miou_span(values)
    for letter, curve in zip(names, curves, strict=True):
        said = [value for _, value in curve]
        if said:
            say(
                f"{letter}  {sparkline(said, span=span)}  {said[0]:.1f} to {said[-1]:.1f} in "
                f"{shown_epoch(curve[-1][0])} epochs"
            )
        else:
            say(f"{letter}  no epoch has been recorded")
    say()


# ---- what could go -------------------------------------------------------------------------------------


def show_garbage(found: "Garbage", chosen: "Sequence[Item]", *, done: bool) -> None:
    """Print what of runs/ could go, and what does."""
    if found.items:
        table = plain_table(("run", "what", "size", ""), right=("size",))
        for item in sorted(found.items, key=lambda item: -item.bytes):
            goes = ("deleted" if done else "--yes") if item in chosen else f"stays without {item.asked}"
            table.add_row(one_line(item.run), item.what, size_in_words(item.bytes), goes)
        print_whole(table)
        say()
    all_, needed = size_in_words(found.bytes), size_in_words(found.needed)
    say(f"runs/ holds {all_}, of which the active plan's tables and figures need {needed}.")
