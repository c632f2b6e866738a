"""Tables as written in pipelines/tables/: rows x columns, each giving part of a run, beside the paper's numbers."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple, Self

from pydantic import Field, ValidationError, model_validator

from u2pl.errors import UsageError, check_known
from u2pl.project import Project
from u2pl.settings import Settings, hyper, value_text

from .fields import SafeName
from .files import read_named


class Header(Settings):
    """The head of a row or column of a table: its label, and what it gives to the runs of its cells."""

    label: str
    split: str | None = None
    method: str | None = None
    set: dict[str, Any] = Field(default_factory=dict)
    """Setting -> value, as after `--set`."""
    images: int | None = None
    """Labelled images of the split in the paper, shown beside the label."""


class Row(Header):
    """A row of a table, with the paper's number for each column (null where it prints none)."""

    cited: bool = False
    """Only the paper's numbers are shown; nothing is run."""
    note: str = ""
    """What a reader must know of the paper's numbers in this row, shown as a footnote."""
    paper: list[float | None] = Field(default_factory=list)


class Ablation(Settings):
    """A setting (or several that change together, joined by commas) and the values it takes, a line each.

    `u2pl ablate` compares the values of one split.
    """

    method: str
    param: str
    values: list[Any] = Field(min_length=1)
    """A value each; of several settings a list of values."""
    labels: list[str]
    along: Literal["rows", "columns"] = "columns"
    """Whether the values are the table's columns, or rows below the ones that are written out."""
    paper: list[list[float | None]] = Field(default_factory=list)
    """Of rows: the paper's number for each column."""

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if len(self.labels) != len(self.values):
            raise ValueError(f"ablate has {len(self.values)} values and {len(self.labels)} labels")
        if self.paper and (self.along == "columns" or len(self.paper) != len(self.values)):
            raise ValueError("ablate has paper numbers for rows alone, a list for each value")
        for value in self.values:
            if self.parameters[1:] and (not isinstance(value, list) or len(value) != len(self.parameters)):
                raise ValueError(
                    f"{value!r} is no list of {len(self.parameters)} values, as {self.param} needs"
                )
        return self

    @property
    def parameters(self) -> list[str]:
        """The settings, one by one."""
        return self.param.split(",")

    def settings(self, value: Any) -> dict[str, Any]:
        """What a value sets."""
        return dict(zip(self.parameters, value if self.parameters[1:] else [value], strict=True))

    def value_text(self, value: Any) -> str:
        """A value as typed after `u2pl ablate --param`."""
        return ",".join(map(value_text, self.settings(value).values()))

    def as_rows(self) -> list[Row]:
        """A row for each value; as a column, its head."""
        numbers: Sequence[list[float | None]] = self.paper or [[] for _ in self.values]
        return [
            Row(label=label, method=self.method, set=self.settings(value), paper=paper)
            for label, value, paper in zip(self.labels, self.values, numbers, strict=True)
        ]


class Cell(NamedTuple):
    """Where a row meets a column: what is run there, and what the paper prints."""

    row: str
    column: str
    split: str
    method: str
    set: dict[str, Any]
    paper: float | None
    cited: bool
    note: str
    remark: str
    """What a reader must know of the method."""


class Table(Settings):
    """A table of the paper, as pipelines/tables/NAME.yaml describes it."""

    title: str
    caption: str
    dataset: str
    """The data set the paper's numbers are for."""
    corner: str = "Method"
    """Heading of the column of row labels."""
    rows: list[Row] = Field(default_factory=list)
    columns: list[Header] = Field(default_factory=list)
    ablate: Ablation | None = None
    """More columns, or more rows: one for each value of a setting."""

    @property
    def short_title(self) -> str:
        """`Table 4` of `Table 4. Which pixels become negatives`; of a title without a number all of it."""
        return self.title.partition(". ")[0]

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if not self.all_rows or not self.all_columns:
            raise ValueError("a table needs rows and columns, written out or made by ablate")
        for row in self.all_rows:
            if row.paper and len(row.paper) != len(self.all_columns):
                raise ValueError(
                    f"row {row.label!r} has {len(row.paper)} numbers for {len(self.all_columns)} columns"
                )
            if row.cited and not row.paper:
                raise ValueError(f"row {row.label!r} is cited but has no numbers")
            for column in self.all_columns if not row.cited else []:
                for name in ("split", "method"):
                    if (getattr(row, name) is None) == (getattr(column, name) is None):
                        raise ValueError(
                            f"row {row.label!r} and column {column.label!r}: exactly one gives the {name}"
                        )
        for kind, labels in (
            ("rows", [r.label for r in self.all_rows]),
            ("columns", [c.label for c in self.all_columns]),
        ):
            if len(set(labels)) < len(labels):
                raise ValueError(f"two {kind} have the same label")
        return self

    @property
    def all_rows(self) -> list[Row]:
        """The rows: those written out, then those made from the values of `ablate`."""
        made = self.ablate.as_rows() if self.ablate and self.ablate.along == "rows" else []
        return [*self.rows, *made]

    @property
    def all_columns(self) -> list[Header]:
        """The columns: those written out, then those made from the values of `ablate`."""
        made = self.ablate.as_rows() if self.ablate and self.ablate.along == "columns" else []
        return [*self.columns, *made]

    def cells(self) -> Iterator[Cell]:
        """Row by row, what each cell runs and what the paper prints in it."""
        for row in self.all_rows:
            for column, paper in zip(
                self.all_columns, row.paper or [None] * len(self.all_columns), strict=True
            ):
                method = row.method or column.method or ""
                settings = hyper.find(method) if method else None
                yield Cell(
                    row=row.label,
                    column=column.label,
                    split=row.split or column.split or "",
                    method=method,
                    set=column.set | row.set,
                    paper=paper,
                    cited=row.cited,
                    note=row.note if paper is not None else "",
                    remark=settings.remark if settings else "",
                )

    def ablated_splits(self) -> list[str]:
        """The splits that the values of `ablate` are tried on."""
        if self.ablate is None:
            return []
        others: Sequence[Header] = self.columns if self.ablate.along == "rows" else self.rows
        return list(dict.fromkeys(header.split for header in others if header.split is not None))


class Binding(Settings):
    """How a plan uses a table."""

    table: SafeName | None = None
    """Whose file it is, where the plan calls it otherwise: on a second data set, or once more on other splits."""
    title: str | None = None
    """In place of the table's own."""
    dataset: str | None = None
    """Where the plan names none: another data set than the table's own."""
    splits: dict[str, str] = Field(default_factory=dict)
    """The table's split -> the plan's; a split not named is left out. Empty: the table's own splits."""
    rows: list[str] = Field(default_factory=list)
    """Labels of the rows wanted, those of `ablate` included. Empty: all."""
    values: list[Any] = Field(default_factory=list)
    """In place of the values of `ablate`. Empty: the table's own."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Setting -> value for every run of this table whose method or recipe has it; what the table sets beats it."""


def read_table(project: Project, name: str) -> Table:
    """The table pipelines/tables/NAME.yaml."""
    return read_named(Table, project, "table", name)


def table_name(name: str) -> str:
    """The full name of a table a user may call by its number: `1` is `table1`, `A2` is `tableA2`."""
    return f"table{name}" if name[:1].isdigit() or (name[:1] == "A" and name[1:].isdigit()) else name


def bind(table: Table, dataset: str, binding: Binding) -> Table:
    """`table` as a plan shows it: its data set, splits, rows and values.

    The paper's numbers stay only where data set, split and value are the paper's. Rows that are only cited
    go when none of their numbers stays.

    Raises:
        UsageError: the binding names a split or a row that the table does not have, values where the table ablates
            nothing, makes two rows or columns the same, or leaves no cell.
    """
    own = dataset == table.dataset
    table = _with_values(table, binding.values)
    known = {header.split for header in [*table.all_rows, *table.all_columns] if header.split}
    check_known(f"split of {table.title!r}", binding.splits, known)
    check_known(f"row of {table.title!r}", binding.rows, [row.label for row in table.all_rows])
    splits = binding.splits or {split: split for split in known}

    def is_kept(header: Header) -> bool:
        return header.split is None or header.split in splits

    def is_the_papers(header: Header) -> bool:
        return own and (header.split is None or splits[header.split] == header.split)

    def moved(header: Header) -> dict[str, Any]:
        values = header.model_dump()
        if header.split is not None and not is_the_papers(header):
            values |= {"label": splits[header.split], "split": splits[header.split], "images": None}
        return values

    def numbers(row: Header, paper: Sequence[float | None]) -> list[float | None]:
        found = [
            number if is_the_papers(row) and is_the_papers(column) else None
            for number, column in zip(paper, table.all_columns, strict=bool(paper))
            if is_kept(column)
        ]
        return found if any(number is not None for number in found) else []

    def is_wanted(label: str) -> bool:
        return not binding.rows or label in binding.rows

    rows = [
        Row(**moved(row) | {"paper": numbers(row, row.paper)})
        for row in table.rows
        if is_kept(row) and is_wanted(row.label) and (numbers(row, row.paper) or not row.cited)
    ]
    columns = [Header(**moved(column)) for column in table.columns if is_kept(column)]
    ablate = table.ablate
    if ablate and ablate.along == "rows":
        paper = ablate.paper or [[] for _ in ablate.values]
        kept = [
            (value, row.label, numbers(row, printed))
            for value, row, printed in zip(ablate.values, ablate.as_rows(), paper, strict=True)
            if is_wanted(row.label)
        ]
        printed = [line for _, _, line in kept]
        blank: list[float | None] = [None] * len(columns)
        update = {
            "values": [value for value, _, _ in kept],
            "labels": [label for _, label, _ in kept],
            "paper": [line or blank for line in printed] if any(printed) else [],
        }
        ablate = ablate.model_copy(update=update) if kept else None
    title = binding.title or table.title
    bound = {"title": title, "dataset": dataset, "rows": rows, "columns": columns, "ablate": ablate}
    try:
        return Table(**table.model_dump() | bound)
    except ValidationError as error:
        problems = "; ".join(problem["msg"].removeprefix("Value error, ") for problem in error.errors())
        raise UsageError(
            f"{table.title!r} as the plan has it: {problems}. Mend what the plan says of it."
        ) from None


def _with_values(table: Table, values: Sequence[Any]) -> Table:
    """`table` with other values in its ablation; a value that it has keeps its label and the paper's numbers."""
    if not values:
        return table
    old = table.ablate
    if old is None:
        raise UsageError(f"{table.title!r} tries no values of a setting. Leave `values` out.")
    places = [old.values.index(value) if value in old.values else None for value in values]
    labels = [
        old.value_text(value) if place is None else old.labels[place]
        for value, place in zip(values, places, strict=True)
    ]

    def picked(line: list[float | None]) -> list[float | None]:
        first = len(table.columns)
        return line and line[:first] + [None if p is None else line[first + p] for p in places]

    update: dict[str, Any] = {"values": list(values), "labels": labels}
    rows = table.rows
    if old.along == "columns":
        rows = [row.model_copy(update={"paper": picked(row.paper)}) for row in rows]
    elif old.paper:
        blank = [None] * len(table.columns)
        update["paper"] = [blank if place is None else old.paper[place] for place in places]
    ablate = Ablation(**old.model_dump() | update)
    return table.model_copy(update={"ablate": ablate, "rows": rows})
