"""Tables and plans as written in pipelines/, and the active plan that DVC's stages are made from.

A table is a paper's table: rows x columns, each giving part of a run. A plan binds tables to a data
set. `resolve` turns a plan into the dictionaries that dvc.yaml loops over (pipelines/plan.yaml).
"""

import json
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

import yaml
from pydantic import Field, ValidationError, model_validator

from u2pl.errors import UsageError, UserError, unknown
from u2pl.files import write_text
from u2pl.project import Project, slug
from u2pl.settings import Params, RunSpec, Settings

LATER = {"paper": "a file for each of its tables"}
"""Plans that are promised but cannot run yet, and what they wait for."""

S = TypeVar("S", bound=Settings)


class Part(Settings):
    """A column of a table: what it contributes to the runs of its cells."""

    label: str
    split: str | None = None
    method: str | None = None
    set: dict[str, Any] = Field(default_factory=dict)
    """Setting -> value, as after `--set`."""
    images: int | None = None
    """Labelled images of the split in the paper, shown beside the label."""


class Row(Part):
    """A row of a table, with the paper's number for each column (null where it prints none)."""

    cited: bool = False
    """Only the paper's numbers are shown; nothing is run."""
    paper: list[float | None] = Field(default_factory=list)


class Ablation(Settings):
    """One setting and the values it takes, a column each; `u2pl ablate` runs a row of it."""

    method: str
    param: str
    values: list[Any] = Field(min_length=2)
    labels: list[str]

    def columns(self) -> list[Part]:
        """A column for each value."""
        return [
            Part(label=label, method=self.method, set={self.param: value})
            for label, value in zip(self.labels, self.values, strict=True)
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


class Table(Settings):
    """A table of the paper, as pipelines/tables/NAME.yaml describes it."""

    title: str
    caption: str
    dataset: str
    """The data set the paper's numbers are for."""
    corner: str = "Method"
    """Heading of the column of row labels."""
    rows: list[Row] = Field(min_length=1)
    columns: list[Part] = Field(default_factory=list)
    ablate: Ablation | None = None
    """In place of `columns`: one for each value of a setting."""

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        ablate, columns = self.ablate, self.columns
        if (ablate is None) == (not columns):
            raise ValueError("a table has either columns or ablate")
        if ablate and len(ablate.labels) != len(ablate.values):
            raise ValueError(f"ablate has {len(ablate.values)} values and {len(ablate.labels)} labels")
        if ablate and any(row.method or row.set or row.split is None for row in self.rows):
            raise ValueError("a row beside ablate gives a split, and neither method nor set")
        for row in self.rows:
            if row.paper and len(row.paper) != len(self.parts):
                raise ValueError(
                    f"row {row.label!r} has {len(row.paper)} numbers for {len(self.parts)} columns"
                )
            if row.cited and not row.paper:
                raise ValueError(f"row {row.label!r} is cited but has no numbers")
            for column in self.parts if not row.cited else []:
                for name in ("split", "method"):
                    if (getattr(row, name) is None) == (getattr(column, name) is None):
                        raise ValueError(
                            f"row {row.label!r} and column {column.label!r}: exactly one gives the {name}"
                        )
        for kind, labels in (
            ("rows", [r.label for r in self.rows]),
            ("columns", [c.label for c in self.parts]),
        ):
            if len(set(labels)) < len(labels):
                raise ValueError(f"two {kind} have the same label")
        return self

    @property
    def parts(self) -> list[Part]:
        """The columns, written out or made from the values of `ablate`."""
        return self.ablate.columns() if self.ablate else self.columns

    def cells(self) -> Iterator[Cell]:
        """Row by row, what each cell runs and what the paper prints in it."""
        for row in self.rows:
            for column, paper in zip(self.parts, row.paper or [None] * len(self.parts), strict=True):
                yield Cell(
                    row=row.label,
                    column=column.label,
                    split=row.split or column.split or "",
                    method=row.method or column.method or "",
                    set=column.set | row.set,
                    paper=paper,
                    cited=row.cited,
                )


class Binding(Settings):
    """How a plan uses a table."""

    splits: dict[str, str] = Field(default_factory=dict)
    """The table's split -> the plan's; a split not named is left out. Empty: the table's own splits."""
    rows: list[str] = Field(default_factory=list)
    """Labels of the rows wanted. Empty: all."""


class Plan(Settings):
    """Tables bound to a data set, as pipelines/plans/NAME.yaml describes it."""

    dataset: str
    root: str | None = None
    """Where the images of the data set lie, for `u2pl prepare --root`."""
    reports: str = "reports"
    seeds: list[int] = Field(min_length=1)
    set: dict[str, Any] = Field(default_factory=dict)
    """Setting -> value for every run whose method or recipe has it; what a table sets beats it."""
    tables: dict[str, Binding] = Field(min_length=1)


class PrepareStage(Settings):
    """`u2pl prepare`: writes the lists of one split into `folder`."""

    dataset: str
    split: str
    folder: str
    args: str


class TrainStage(Settings):
    """`u2pl train`: one run, named by its key."""

    dataset: str
    split: str
    method: str
    seed: int
    args: str
    folder: str
    """Folder of the split."""
    recipe: str
    """The data set's section of params.yaml's `recipes`."""


class EvaluateStage(Settings):
    """`u2pl evaluate`: the results of one run, in the folder of the table that shows them.

    Not part of the run's entry, since a run that two tables show is trained once and evaluated for each.
    """

    run: str
    table: str
    group: str
    cells: list[tuple[str, str]]
    """Row and column labels of the cells that show the run."""


class AblateStage(Settings):
    """`u2pl ablate`: one row of an ablation table; its results lie in `folder`, a sub-folder a value."""

    table: str
    row: str
    dataset: str
    split: str
    method: str
    seed: int
    param: str
    values: str
    args: str
    folder: str
    lists: str
    """Folder of the split."""
    recipe: str


class BoundTable(Settings):
    """A table of the plan, and the folder with all its results."""

    folder: str
    binding: Binding


class ActivePlan(Settings):
    """What `dvc repro` regenerates now; the contents of pipelines/plan.yaml."""

    plan: str
    dataset: str
    reports: str
    prepare: dict[str, PrepareStage] = Field(default_factory=dict)
    runs: dict[str, TrainStage] = Field(default_factory=dict)
    evaluations: dict[str, EvaluateStage] = Field(default_factory=dict)
    ablations: dict[str, AblateStage] = Field(default_factory=dict)
    tables: dict[str, BoundTable] = Field(default_factory=dict)

    @classmethod
    def read(cls, project: Project) -> "ActivePlan":
        """The project's active plan.

        Raises:
            UserError: none was made yet, or the file is damaged.
        """
        if not project.active_plan.is_file():
            raise UserError("There is no active plan. Make one with: u2pl plan demo")
        return read_yaml(ActivePlan, project.active_plan, "u2pl plan demo writes it anew.")

    def text(self) -> str:
        """The plan as YAML, one line a stage; the same plan always gives the same text."""
        lines = [
            f"# Written by `u2pl plan {self.plan}`; dvc.yaml loops over it. Change pipelines/plans/ instead."
        ]
        for section, value in self.model_dump(mode="json").items():
            if value and isinstance(value, dict):
                lines += [f"{section}:", *(f"  {key}: {_flow(item)}" for key, item in value.items())]
            else:
                lines.append(f"{section}: {_flow(value)}")
        return "\n".join(lines) + "\n"

    def write(self, project: Project) -> None:
        """Make this the project's active plan."""
        write_text(project.active_plan, self.text())


def _flow(value: Any) -> str:
    """`value` as YAML on one line."""
    text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, default_flow_style=True, width=10**6)
    return text.removesuffix("...\n").strip()


def read_yaml(cls: type[S], path: Path, remedy: str) -> S:
    """The YAML file `path` as a `cls`.

    Raises:
        UserError: it is not YAML, or does not describe a `cls`; the sentence ends with `remedy`.
    """
    try:
        return cls.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {error}. {remedy}") from None
    except ValidationError as error:
        problems = "; ".join(
            ": ".join(filter(None, [".".join(map(str, problem["loc"])), problem["msg"]]))
            for problem in error.errors()
        )
        raise UserError(f"{path}: {problems}. {remedy}") from None


def names(project: Project, folder: str) -> list[str]:
    """Names of the YAML files in pipelines/FOLDER, sorted."""
    return sorted(path.stem for path in (project.pipelines / folder).glob("*.yaml"))


def read_plan(project: Project, name: str) -> Plan:
    """The plan pipelines/plans/NAME.yaml."""
    known = names(project, "plans")
    if name in LATER and name not in known:
        raise UsageError(
            f"Plan {name!r} is not available yet: it needs {LATER[name]}, which a later version brings. "
            f"Choose one of: {', '.join(known)}."
        )
    if name not in known:
        raise unknown("plan", name, known)
    path = project.pipelines / "plans" / f"{name}.yaml"
    return read_yaml(Plan, path, "Mend the file, then make the plan again.")


def read_table(project: Project, name: str) -> Table:
    """The table pipelines/tables/NAME.yaml."""
    known = names(project, "tables")
    if name not in known:
        raise unknown("table", name, known)
    path = project.pipelines / "tables" / f"{name}.yaml"
    return read_yaml(Table, path, "Mend the file, then make the plan again.")


def table_name(word: str) -> str:
    """The full name of a table a user may call by its number: `1` is `table1`."""
    return f"table{word}" if word[:1].isdigit() else word


def bind(table: Table, dataset: str, binding: Binding) -> Table:
    """`table` as a plan shows it: its data set, splits and rows.

    The paper's numbers stay only where data set and split are the paper's. Rows that are only cited
    go when the data set is another.

    Raises:
        UsageError: the binding names a split or a row that the table does not have.
    """
    own = dataset == table.dataset
    known = {part.split for part in [*table.rows, *table.columns] if part.split}
    for split in binding.splits:
        if split not in known:
            raise unknown(f"split of {table.title!r}", split, known)
    for label in binding.rows:
        if label not in {row.label for row in table.rows}:
            raise unknown(f"row of {table.title!r}", label, [row.label for row in table.rows])
    splits = binding.splits or {split: split for split in known}

    def is_kept(part: Part) -> bool:
        return part.split is None or part.split in splits

    def is_the_papers(part: Part) -> bool:
        return own and (part.split is None or splits[part.split] == part.split)

    def moved(part: Part) -> dict[str, Any]:
        values = part.model_dump()
        if part.split is not None and not is_the_papers(part):
            values |= {"label": splits[part.split], "split": splits[part.split], "images": None}
        return values

    columns = [is_kept(column) for column in table.parts]
    rows = []
    for row in table.rows:
        if not is_kept(row) or (row.cited and not own) or (binding.rows and row.label not in binding.rows):
            continue
        numbers = [
            number if is_the_papers(row) and is_the_papers(column) else None
            for number, column in zip(row.paper, table.parts, strict=bool(row.paper))
            if is_kept(column)
        ]
        rows.append(Row(**moved(row) | {"paper": numbers if any(numbers) else []}))
    kept = (
        []
        if table.ablate
        else [Part(**moved(c)) for c, keep in zip(table.parts, columns, strict=True) if keep]
    )
    return table.model_copy(update={"dataset": dataset, "rows": rows, "columns": kept})


def word(value: Any) -> str:
    """A setting's value as typed on the command line."""
    return value if isinstance(value, str) else json.dumps(value)


def resolve(project: Project, name: str, tables: list[str] | None = None) -> ActivePlan:
    """Everything that plan `name` runs, for all its tables or for `tables` alone.

    Raises:
        UsageError: the plan, a table, a method or a setting is unknown.
    """
    plan = read_plan(project, name)
    wanted = [table_name(table) for table in tables or plan.tables]
    for table in wanted:
        if table not in plan.tables:
            raise unknown(f"table of plan {name!r}", table, plan.tables)
    stages = _Stages(project, name, plan)
    for table in [table for table in plan.tables if table in wanted]:
        stages.add_table(table, bind(read_table(project, table), plan.dataset, plan.tables[table]))
    return stages.active


class _Stages:
    """Fills an active plan, table by table."""

    def __init__(self, project: Project, name: str, plan: Plan):
        self.project = project
        self.params = Params.read(project)
        self.plan = plan
        self.recipe = self.params.section(plan.dataset)
        for key in plan.set:
            if not any(self.params.find_key(key, method) for method in self.params.methods):
                raise unknown(f"setting of plan {name!r}", key, self.params.values["recipe"])
        self.active = ActivePlan(plan=name, dataset=plan.dataset, reports=plan.reports)

    def add_table(self, name: str, table: Table) -> None:
        """Add a table, bound to the plan's data set, and all that it shows."""
        self.active.tables[name] = BoundTable(folder=f"results/{name}", binding=self.plan.tables[name])
        for seed in self.plan.seeds:
            if table.ablate:
                for row in table.rows:
                    self.add_ablation(name, table.ablate, row, seed)
            else:
                for cell in table.cells():
                    if not cell.cited:
                        self.add_run(name, cell, seed)

    def common(self, method: str) -> dict[str, Any]:
        """The plan's own settings, by their full names, as far as a method or its recipe has them."""
        return {
            full: value
            for key, value in self.plan.set.items()
            if (full := self.params.find_key(key, method)) is not None
        }

    def add_split(self, split: str) -> str:
        """Add the preparation of a split; its folder, relative to the project."""
        dataset, root = self.plan.dataset, self.plan.root
        folder = self.project.split(dataset, split).relative_to(self.project.root).as_posix()
        words = ["--dataset", dataset, "--split", split, *(["--root", root] if root else [])]
        self.active.prepare[slug(f"{dataset}-{split}")] = PrepareStage(
            dataset=dataset, split=split, folder=folder, args=shlex.join(words)
        )
        return folder

    def add_run(self, table: str, cell: Cell, seed: int) -> None:
        """Add one run of a cell and its evaluation for the table."""
        own = {self.params.full_key(key, cell.method): value for key, value in cell.set.items()}
        overrides = self.common(cell.method) | own
        spec = self.params.spec(self.plan.dataset, cell.split, cell.method, seed, overrides)
        name = self.params.resolve(spec).name
        self.active.runs[name] = TrainStage(
            dataset=spec.dataset,
            split=spec.split,
            method=spec.method,
            seed=seed,
            args=shlex.join(run_words(spec)),
            folder=self.add_split(spec.split),
            recipe=self.recipe,
        )
        key = f"{table}-{name}"
        shown = self.active.evaluations[key].cells if key in self.active.evaluations else []
        self.active.evaluations[key] = EvaluateStage(
            run=name, table=table, group=f"results/{table}", cells=[*shown, (cell.row, cell.column)]
        )

    def add_ablation(self, table: str, ablation: Ablation, row: Row, seed: int) -> None:
        """Add one row of an ablation table: a run for each value, trained by one stage."""
        common = self.common(ablation.method)
        spec = self.params.spec(self.plan.dataset, row.split, ablation.method, seed, common)
        for value in ablation.values:  # refuses a bad setting now rather than after the first runs
            override = {self.params.full_key(ablation.param, spec.method): value}
            self.params.resolve(replace(spec, overrides=common | override))
        name = slug(f"{spec.dataset}-{spec.split}-{spec.method}-{ablation.param}-s{seed}")
        self.active.ablations[f"{table}-{name}"] = AblateStage(
            table=table,
            row=row.label,
            dataset=spec.dataset,
            split=spec.split,
            method=spec.method,
            seed=seed,
            param=ablation.param,
            values=shlex.join(map(word, ablation.values)),
            args=shlex.join(run_words(spec)),
            folder=f"results/{table}/{name}",
            lists=self.add_split(spec.split),
            recipe=self.recipe,
        )


def run_words(spec: RunSpec) -> list[str]:
    """The options that say which run is meant."""
    options = {
        "--dataset": spec.dataset,
        "--split": spec.split,
        "--method": spec.method,
        "--seed": str(spec.seed),
    }
    words = [text for option in options.items() for text in option]
    return words + [f"--set={key}={word(value)}" for key, value in spec.overrides.items()]
