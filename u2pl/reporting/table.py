"""One table of the paper with our numbers: Markdown, long CSV and LaTeX (booktabs).

A cell is the mean over seeds of the mIoU that its runs are reported by, beside the paper's number and the
difference. A cell measured in another way than most of its table (protocol and checkpoint, source of the split,
recipe, batch, classes that count), or with another recipe than the paper's, carries a footnote mark that says how.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pandas as pd

from u2pl import escaping
from u2pl.escaping import tex
from u2pl.files import write_json, write_text
from u2pl.pipeline import Header
from u2pl.pipeline.departures import departures
from u2pl.project import Project
from u2pl.reporting.comparisons import HEADINGS, comparison_rows, comparisons, note
from u2pl.reporting.measures import MEASURES, measures
from u2pl.reporting.numbers import signed, spread_text
from u2pl.reporting.results import ALL_CLASSES, CellResults, Result, TableResults
from u2pl.runs import frames

MISSING = "—"
MARKS = "abcdefghijklmnopqrstuvwxyz"
ONE_SEED, CITED = "†", "‡"
FIXED = {
    ONE_SEED: "one seed: its spread is not known",
    CITED: "cited: the paper's number, for which nothing is run here",
}
"""Marks that mean the same under every table."""
NAMED_AT_MOST = 8
"""Missing cells that are named one by one."""
AUTHORS = "u2pl"
"""Source of the split lists that the paper's numbers were measured with."""

CONDITIONS: dict[str, Callable[[Result], str]] = {
    "split": lambda result: f"split {result.split_source}",
    "evaluation": lambda result: result.protocol,
    "recipe": lambda result: result.recipe,
    "batch": lambda result: result.batch,
    "classes": lambda result: result.classes,
}
"""What must be equal for two numbers to be compared without a footnote."""


@dataclass(frozen=True)
class CellText:
    """The words of one cell, in pieces that each format puts together; empty where there is nothing to say."""

    value: str
    best: bool
    marks: str
    seeds: int
    paper: str
    paper_best: bool
    difference: str
    """Ours minus the paper's."""


@dataclass(frozen=True)
class TableText:
    """A filled table in words: labels, cells, caption and footnotes."""

    filled: TableResults

    @cached_property
    def usual(self) -> dict[str, str]:
        """Condition -> what holds for most of the table's runs."""
        return {
            name: Counter(map(describe, self.filled.results)).most_common(1)[0][0]
            for name, describe in CONDITIONS.items()
            if self.filled.results
        }

    @cached_property
    def footnotes(self) -> dict[str, str]:
        """Text -> mark, for every way in which a cell departs from the usual or from the paper's recipe."""
        texts = dict.fromkeys(text for cell in self.filled.cells for text in self._notes(cell))
        lettered = (text for text in texts if text not in FIXED.values())
        marks = {text: MARKS[index % 26] * (index // 26 + 1) for index, text in enumerate(lettered)}
        fixed = {text: mark for mark, text in FIXED.items() if text in texts}
        return marks | fixed

    def _notes(self, cell: CellResults) -> Iterator[str]:
        departures = self.departures(cell)
        for result in cell.results:
            texts = {name: describe(result) for name, describe in CONDITIONS.items()}
            if _other_lists(result) in departures:  # says it already
                del texts["split"]
            yield from (text for name, text in texts.items() if text != self.usual[name])
        yield from (text for text in departures if text not in self.common)
        if len(cell.results) == 1:
            yield FIXED[ONE_SEED]
        elif cell.results and len(cell.results) != self.seeds:
            yield seeds_text(len(cell.results))
        if cell.cell.cited:
            yield FIXED[CITED]
        yield from filter(None, (cell.cell.note, cell.cell.remark.removesuffix(".")))

    @cached_property
    def common(self) -> list[str]:
        """Departures that every cell shares which has a number of ours and one of the paper; none for one cell."""
        cells = [cell for cell in self.filled.own if cell.results and cell.cell.paper is not None]
        found = [self.departures(cell) for cell in cells]
        return [text for text in found[0] if all(text in other for other in found)] if len(found) > 1 else []

    def departures(self, cell: CellResults) -> list[str]:
        """What sets the runs of a cell apart from those behind the paper's number in it; nothing without one."""
        if cell.cell.paper is None:
            return []
        places = (cell.cell.row, cell.cell.column)
        headers = [
            header
            for header in (*self.filled.table.all_rows, *self.filled.table.all_columns)
            if header.label in places
        ]
        images = next((header.images for header in headers if header.split == cell.cell.split), None)
        swept = [key.rpartition(".")[2] for key in cell.cell.set]
        texts = (text for result in cell.results for text in _departures(result, images, swept))
        return list(dict.fromkeys(texts))

    @property
    def notes(self) -> list[tuple[str, str]]:
        """The lines below the table, each with its mark; without one, what holds for the table as a whole."""
        lines = [(mark, text) for text, mark in self.footnotes.items()]
        if self.filled.means[["best", "paper_best"]].any(axis=None):
            lines.append(("", "Bold is the best of its split, among ours and among the paper's."))
        if self.common:
            lines.append(("", f"Unlike the paper, in every cell: {'; '.join(self.common)}."))
        if self.missing:
            lines.append(("", self.missing))
        return lines

    @property
    def missing(self) -> str:
        """Which cells of ours have no number yet, and which lack some of their seeds; empty when all is there."""
        gone, partly, own = self.filled.missing, self.filled.incomplete, self.filled.own
        sentences = []
        if gone and len(gone) == len(own):
            sentences.append(f"Missing: all {len(own)} cells.")
        elif gone:
            names = _named([_place(cell) for cell in gone])
            sentences.append(f"Missing: {len(gone)} of {len(own)} cells ({names}).")
        if partly:
            names = _named([f"{_place(c)}: {len(c.results)} of {seeds_text(c.planned)}" for c in partly])
            sentences.append(f"Missing seeds: {len(partly)} of {len(own)} cells ({names}).")
        return " ".join(sentences)

    @property
    def seeds(self) -> int:
        """The most seeds that a cell has."""
        return max((len(cell.results) for cell in self.filled.cells), default=0)

    @property
    def caption(self) -> str:
        """What the numbers are: data set, split, protocol, recipe, batch, seeds."""
        table = self.filled.table
        facts = [f"data set {table.dataset}", *(text for text in self.usual.values() if text != ALL_CLASSES)]
        spread = ", mean ± standard deviation" if self.seeds > 1 else ""
        planned = max((cell.planned for cell in self.filled.cells), default=0)
        seeds = f"{self.seeds} of {seeds_text(planned)}" if self.seeds < planned else seeds_text(self.seeds)
        facts.append(seeds + spread if self.filled.results else "no run has finished yet")
        text = "; ".join(facts)
        ours_only = all(cell.cell.paper is None for cell in self.filled.cells)
        apart = " The paper prints no numbers for these runs." if ours_only else ""
        return f"{table.caption} {text[0].upper()}{text[1:]}.{apart}"

    def label(self, header: Header) -> str:
        """A row's or column's label, with the number of labelled images where it names a split.

        That is the number in our runs, or the paper's before one has finished; none where our runs disagree.
        """
        counts = {r.metrics["labeled"] for r in self.filled.results if r.split == header.split}
        counts = counts or {header.images}
        images = counts.pop() if len(counts) == 1 else None
        cited = f" {CITED}" if getattr(header, "cited", False) else ""
        return (
            header.label if header.split is None or images is None else f"{header.label} ({images})"
        ) + cited

    @cached_property
    def cells(self) -> pd.DataFrame:
        """The words of every cell, a `CellText` each, in the rows and columns of the table."""
        words = [
            self._words(*each) for each in zip(self.filled.cells, self.filled.means.itertuples(), strict=True)
        ]
        found = self.filled.means.assign(words=pd.Series(words, dtype=object)).pivot(
            index="row", columns="column", values="words"
        )
        rows, columns = self.filled.table.all_rows, self.filled.table.all_columns
        return found.loc[[row.label for row in rows], [column.label for column in columns]]

    def _words(self, found: CellResults, numbers: Any) -> CellText:
        """A cell in words, given its row of `TableResults.means`."""
        marks = dict.fromkeys(self.footnotes[text] for text in self._notes(found) if found.results)
        return CellText(
            value=spread_text(numbers.mean, numbers.sd, 2) if found.results else MISSING,
            best=numbers.best,
            marks=",".join(marks),
            seeds=numbers.seeds,
            paper="" if found.cell.paper is None else f"{found.cell.paper:.2f}",
            paper_best=numbers.paper_best,
            difference="" if pd.isna(numbers.difference) else signed(numbers.difference),
        )

    def grid(self, join: Callable[[CellText], str]) -> list[list[str]]:
        """The table as a grid of texts, the head first; `join` makes a cell's text."""
        table = self.filled.table
        head = [table.corner, *map(self.label, table.all_columns)]
        body = [
            [self.label(row), *map(join, words)]
            for row, words in zip(table.all_rows, self.cells.to_numpy(), strict=True)
        ]
        return [head, *body]


def _departures(result: Result, images: int | None, swept: Sequence[str]) -> Iterator[str]:
    """What sets a run apart from the paper's of the same cell.

    Args:
        images: how many labelled images the paper's split has, where it says so.
        swept: short names of the settings that the table varies.
    """
    labeled = result.metrics["labeled"]
    if images not in (None, labeled):
        yield f"{labeled} labelled images instead of {images}"
    if other := _other_lists(result):
        yield other
    metrics = result.metrics
    recipe, hyper = metrics["recipe"], metrics["hyper"]
    yield from departures(metrics["dataset"], metrics["method"], recipe, hyper, swept)


def _other_lists(result: Result) -> str | None:
    """Where the split is another than the authors'; None where all labels are kept, so that nothing is chosen."""
    if result.metrics["split_source"] == AUTHORS or "full" in result.split.split("-"):
        return None
    return f"split {result.split_source} instead of the authors' lists"


def _place(cell: CellResults) -> str:
    return f"{cell.cell.row}, {cell.cell.column}"


def _named(texts: Sequence[str]) -> str:
    """The texts in a row; of many only the first, and how many more there are."""
    more = [f"and {len(texts) - NAMED_AT_MOST} more"] if len(texts) > NAMED_AT_MOST else []
    return "; ".join([*texts[:NAMED_AT_MOST], *more])


def _both(paper: str, difference: str) -> str:
    """`67.98, −1.08`, or the paper's number alone."""
    return ", ".join(filter(None, (paper, difference)))


def seeds_text(count: int) -> str:
    """`1 seed`, `3 seeds`."""
    return f"{count} seed" + "s" * (count != 1)


def markdown(table_text: TableText) -> str:
    """The table in GitHub's Markdown."""
    escape = escaping.markdown

    def join(cell: CellText) -> str:
        value = f"**{cell.value}**" if cell.best else cell.value
        mark = f"<sup>{cell.marks}</sup>" if cell.marks else ""
        paper = f"**{cell.paper}**" if cell.paper_best else cell.paper
        return value + mark + (f" (paper {_both(paper, cell.difference)})" if paper else "")

    head, *body = table_text.grid(join)
    grid = [[escape(text) for text in head], *([escape(line[0]), *line[1:]] for line in body)]
    notes = [
        f"<sup>{mark}</sup> {escape(text)}  " if mark else f"{escape(text)}  "
        for mark, text in table_text.notes
    ]
    title, caption = escape(table_text.filled.table.title), escape(table_text.caption)
    blocks = [f"**{title}**", caption, _markdown_grid(grid), "\n".join(notes)]
    for part in comparisons(table_text.filled):
        compared = [[escape(text) for text in line] for line in (HEADINGS, *comparison_rows(part))]
        blocks += [
            f"**Seed by seed, {escape(part.title)}**",
            _markdown_grid(compared),
            note(part.comparisons),
        ]
    return "\n\n".join(filter(None, blocks)) + "\n"


def _markdown_grid(lines: Sequence[Sequence[str]]) -> str:
    """A head and its rows, all numbers to the right."""
    rule = ["---", *["---:"] * (len(lines[0]) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in [lines[0], rule, *lines[1:]])


def latex(table_text: TableText) -> str:
    """The table for LaTeX with the booktabs package."""

    def join(cell: CellText) -> str:
        value = tex(cell.value)
        value = rf"\textbf{{{value}}}" if cell.best else value
        mark = rf"\textsuperscript{{{tex(cell.marks)}}}" if cell.marks else ""
        paper = rf"\textbf{{{cell.paper}}}" if cell.paper_best else cell.paper
        paper = _both(paper, tex(cell.difference))
        return value + mark + (rf" {{\footnotesize (paper {paper})}}" if paper else "")

    table = table_text.filled.table
    head = " & ".join(map(tex, table_text.grid(join)[0]))
    body = [" & ".join([tex(line[0]), *line[1:]]) for line in table_text.grid(join)[1:]]
    notes = [
        rf"\textsuperscript{{{tex(mark)}}}~{tex(text)}" if mark else tex(text)
        for mark, text in table_text.notes
    ]
    lines = [
        r"% Needs \usepackage{booktabs}",
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{tex(table.title)}. {tex(table_text.caption)}}}",
        rf"  \label{{tab:{table_text.filled.name}}}",
        rf"  \begin{{tabular}}{{l{'r' * len(table.all_columns)}}}",
        r"    \toprule",
        rf"    {head} \\",
        r"    \midrule",
        *(rf"    {line} \\" for line in body),
        r"    \bottomrule",
        r"  \end{tabular}",
        *([r"  \par\footnotesize", *(rf"  {note}\\" for note in notes)] if notes else []),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


COLUMNS = [
    *("table", "row", "column", "dataset", "split", "method", "labeled", "seed"),
    *("reported", "last", "best", "seeds", "mean", "sd"),
    *(
        "split_source",
        "protocol",
        "recipe",
        "batch",
        "classes",
        "departures",
        "fingerprint",
        "revision",
        "run",
    ),
    *("paper", "difference", "source"),
    *(measure.key for measure in MEASURES),
]


def long_csv(table_text: TableText) -> str:
    """One line a cell and seed, everything that is known of it; a cell without a run has one line too.

    `reported`, `last` and `best` are the run's own mIoU; `mean` and `sd` those of the cell over its seeds,
    from `reported`. `source` is ours or cited. The last columns are the run's `MEASURES`.
    """
    filled = table_text.filled
    shown = [(replace(cell, results=[run]), run) for cell in filled.cells for run in cell.results]
    departures = ["; ".join(table_text.departures(cell)) for cell, _ in shown]
    runs = filled.runs.assign(departures=departures).join(measures(run for _, run in shown))
    cells = filled.means.drop(columns=["best", "paper_best"]).assign(
        table=filled.name,
        dataset=filled.table.dataset,
        source=["cited" if cell.cell.cited else "ours" for cell in filled.cells],
    )
    return frames.csv(cells.merge(runs, how="left", on=["row", "column"])[COLUMNS], "%.4f")


def write(project: Project, reports: str, filled: TableResults) -> list[str]:
    """Write the table as REPORTS/tables/NAME.md, .csv and .tex; their paths, relative to the project.

    And NAME.json, the mean of each cell, for `dvc metrics`.
    """
    table_text = TableText(filled)
    texts = {"md": markdown(table_text), "csv": long_csv(table_text), "tex": latex(table_text)}
    paths = [f"{reports}/tables/{filled.name}.{suffix}" for suffix in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        write_text(project.root / path, text)
    rows = filled.means.dropna(subset="mean").round({"mean": 4}).groupby("row", sort=False)
    means = {row: dict(zip(cells["column"], cells["mean"], strict=True)) for row, cells in rows}
    write_json(project.root / f"{reports}/tables/{filled.name}.json", means)
    return paths
