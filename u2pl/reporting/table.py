"""One table of the paper with our numbers: Markdown, long CSV and LaTeX (booktabs).

A cell is the mean over seeds of the mIoU that its runs are reported by. A cell measured in another way than
most of its table (protocol and checkpoint, source of the split, recipe) carries a footnote mark that says how.
"""

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from u2pl.files import write_text
from u2pl.planning import Part
from u2pl.project import Project
from u2pl.reporting.results import CellResults, Result, TableResults

MISSING = "—"
MARKS = "abcdefghijklmnopqrstuvwxyz"

CONDITIONS: dict[str, Callable[[Result], str]] = {
    "split": lambda result: f"split {result.split_source}",
    "evaluation": lambda result: result.protocol,
    "recipe": lambda result: result.recipe,
}
"""What must be equal for two numbers to be compared without a footnote."""


@dataclass(frozen=True)
class Shown:
    """The words of one cell, in pieces that each format puts together."""

    value: str
    best: bool
    marks: str
    paper: str
    """`paper 67.98, −1.08`, or nothing where the cell is not the paper's."""


@dataclass(frozen=True)
class View:
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
        """Text -> mark, for every way in which a cell departs from the usual."""
        texts = dict.fromkeys(text for cell in self.filled.cells for text in self._departures(cell))
        return {text: MARKS[index % 26] * (index // 26 + 1) for index, text in enumerate(texts)}

    def _departures(self, cell: CellResults) -> Iterator[str]:
        for result in cell.results:
            yield from (f(result) for name, f in CONDITIONS.items() if f(result) != self.usual[name])
        if cell.results and len(cell.results) != self.seeds:
            yield seeds_text(len(cell.results))

    @property
    def seeds(self) -> int:
        """The most seeds that a cell has."""
        return max((len(cell.results) for cell in self.filled.cells), default=0)

    @property
    def caption(self) -> str:
        """What the numbers are: data set, split, protocol, seeds, recipe."""
        table = self.filled.table
        facts = [f"data set {table.dataset}", *self.usual.values()]
        facts.append(seeds_text(self.seeds) if self.filled.results else "no run has finished yet")
        text = "; ".join(facts)
        ours_only = all(cell.cell.paper is None for cell in self.filled.cells)
        apart = " The paper prints no numbers for these runs." if ours_only else ""
        return f"{table.caption} {text[0].upper()}{text[1:]}.{apart}"

    def label(self, part: Part) -> str:
        """A row's or column's label, with the number of labelled images where it names a split."""
        counts = {r.metrics["labeled"] for r in self.filled.results if r.split == part.split}
        images = part.images if part.images is not None else counts.pop() if len(counts) == 1 else None
        return part.label if part.split is None or images is None else f"{part.label} ({images})"

    def shown(self, row: str, column: str) -> Shown:
        """The cell at two labels in words."""
        found = self.filled.at(row, column)
        cell = found.cell
        if cell.cited:
            return Shown(MISSING if cell.paper is None else f"{cell.paper:.2f}", False, "", "")
        paper = "" if cell.paper is None else f"paper {cell.paper:.2f}"
        if found.mean is None:
            return Shown(MISSING, False, "", paper)
        value = f"{found.mean:.2f}" + (f" ± {found.sd:.2f}" if found.sd is not None else "")
        if found.difference is not None:
            paper += f", {signed(found.difference)}"
        marks = ",".join(dict.fromkeys(self.footnotes[text] for text in self._departures(found)))
        return Shown(value, self._is_best(found), marks, paper)

    def _is_best(self, found: CellResults) -> bool:
        """Whether no other run of the same split has a higher mean; alone, nothing is best."""
        rivals = [c for c in self.filled.cells if c.cell.split == found.cell.split and c.mean is not None]
        return len(rivals) > 1 and found.mean == max(c.mean for c in rivals if c.mean is not None)

    def lines(self, join: Callable[[Shown], str]) -> list[list[str]]:
        """The table as a grid of texts, the head first; `join` makes a cell's text."""
        table = self.filled.table
        head = [table.corner, *map(self.label, table.parts)]
        body = [
            [self.label(row), *(join(self.shown(row.label, column.label)) for column in table.parts)]
            for row in table.lines
        ]
        return [head, *body]


def signed(value: float) -> str:
    """`value` with its sign and two decimals: `+1.20`, `−0.35`."""
    return f"{value:+.2f}".replace("-", "−")


def seeds_text(count: int) -> str:
    """`1 seed`, `3 seeds`."""
    return f"{count} seed" + "s" * (count != 1)


def markdown(view: View) -> str:
    """The table in GitHub's Markdown."""

    def join(shown: Shown) -> str:
        value = f"**{shown.value}**" if shown.best else shown.value
        mark = f"<sup>{shown.marks}</sup>" if shown.marks else ""
        return value + mark + (f" ({shown.paper})" if shown.paper else "")

    grid = [[text.replace("|", "\\|") for text in line] for line in view.lines(join)]
    rule = ["---", *["---:"] * (len(grid[0]) - 1)]
    rows = [f"| {' | '.join(line)} |" for line in [grid[0], rule, *grid[1:]]]
    notes = [f"<sup>{mark}</sup> {text}  " for text, mark in view.footnotes.items()]
    blocks = [f"**{view.filled.table.title}**", view.caption, "\n".join(rows), "\n".join(notes)]
    return "\n\n".join(filter(None, blocks)) + "\n"


def latex(view: View) -> str:
    """The table for LaTeX with the booktabs package."""

    def join(shown: Shown) -> str:
        value = tex(shown.value)
        value = rf"\textbf{{{value}}}" if shown.best else value
        mark = rf"\textsuperscript{{{shown.marks}}}" if shown.marks else ""
        return value + mark + (rf" {{\footnotesize ({tex(shown.paper)})}}" if shown.paper else "")

    table = view.filled.table
    head = " & ".join(map(tex, view.lines(join)[0]))
    body = [" & ".join([tex(line[0]), *line[1:]]) for line in view.lines(join)[1:]]
    notes = [rf"\textsuperscript{{{mark}}}~{tex(text)}" for text, mark in view.footnotes.items()]
    lines = [
        r"% Needs \usepackage{booktabs}",
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{tex(table.title)}. {tex(view.caption)}}}",
        rf"  \label{{tab:{view.filled.name}}}",
        rf"  \begin{{tabular}}{{l{'r' * len(table.parts)}}}",
        r"    \toprule",
        rf"    {head} \\",
        r"    \midrule",
        *(rf"    {line} \\" for line in body),
        r"    \bottomrule",
        r"  \end{tabular}",
        *([rf"  \par\footnotesize {'; '.join(notes)}"] if notes else []),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


TEX = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "²": r"\textsuperscript{2}",
    "α": r"$\alpha$",
    "₀": "$_0$",
    "±": r"$\pm$",
    "−": r"$-$",
    "—": "---",
}


def tex(text: str) -> str:
    """`text` with the characters LaTeX would misread written out."""
    return "".join(TEX.get(character, character) for character in text)


COLUMNS = [
    *(
        "table",
        "row",
        "column",
        "dataset",
        "split",
        "method",
        "labeled",
        "reported",
        "last",
        "best",
        "seeds",
        "mean",
        "sd",
    ),
    *("split_source", "protocol", "recipe", "fingerprint", "run", "paper", "difference", "source"),
]


def long_csv(view: View) -> str:
    """One line a cell and seed, everything that is known of it; a cell without a run has one line too.

    `reported`, `last` and `best` are the run's own mIoU; `mean` and `sd` those of the cell over its seeds,
    from `reported`. `source` is ours or cited.
    """
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for found in view.filled.cells:
        cell = found.cell
        shared = {
            "table": view.filled.name,
            "row": cell.row,
            "column": cell.column,
            "dataset": view.filled.table.dataset,
            "split": cell.split,
            "method": cell.method,
            "seeds": len(found.results),
            "mean": number(found.mean),
            "sd": number(found.sd),
            "paper": number(cell.paper),
            "difference": number(found.difference),
            "source": "cited" if cell.cited else "ours",
        }
        own: Sequence[dict[str, object]] = [
            {
                "labeled": result.metrics["labeled"],
                "reported": number(result.reported),
                "last": number(result.last),
                "best": number(result.best),
                "split_source": result.metrics["split_source"],
                "protocol": result.protocol,
                "recipe": result.recipe,
                "fingerprint": result.metrics["fingerprint"],
                "run": result.name,
            }
            for result in found.results
        ]
        writer.writerows({**shared, **values} for values in own or [{}])
    return out.getvalue()


def number(value: float | None) -> str:
    """`value` with four decimals; empty where there is none."""
    return "" if value is None else f"{value:.4f}"


def write(project: Project, reports: str, filled: TableResults) -> list[str]:
    """Write the table as REPORTS/tables/NAME.md, .csv and .tex; their paths, relative to the project."""
    view = View(filled)
    texts = {"md": markdown(view), "csv": long_csv(view), "tex": latex(view)}
    paths = [f"{reports}/tables/{filled.name}.{suffix}" for suffix in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        write_text(project.root / path, text)
    return paths
