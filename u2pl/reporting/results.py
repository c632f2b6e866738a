"""The results of the active plan, as `u2pl evaluate` and `u2pl ablate` left them under results/."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pandas as pd

from u2pl.errors import UserError, unknown
from u2pl.pipeline import ActivePlan, Cell, Table, bind, cell_spec, read_table, spec_of, table_name
from u2pl.project import Project
from u2pl.runs import scored_classes
from u2pl.runs.epochs import shown_epoch
from u2pl.runs.frames import confusion, epochs, frame
from u2pl.runs.records import Metrics, protocol, read_metrics
from u2pl.settings import Params

ALL_CLASSES = "mIoU over all classes"
"""What goes without saying."""


RUNS = {
    **dict.fromkeys(("row", "column"), "string"),
    **dict.fromkeys(("labeled", "seed"), "Int64"),
    **dict.fromkeys(("reported", "last", "best"), "float64"),
    **dict.fromkeys(("split_source", "protocol", "recipe", "batch", "classes"), "string"),
    **dict.fromkeys(("fingerprint", "revision", "run"), "string"),
}
"""Columns of `TableResults.runs` -> their types."""


@dataclass(frozen=True)
class Result:
    """One finished run."""

    folder: Path
    metrics: Metrics
    """Contents of metrics.json, with an mIoU."""

    @classmethod
    def read(cls, folder: Path) -> "Result | None":
        """The result in `folder`, or None where there is none yet.

        Raises:
            UserError: metrics.json is damaged, or not the result of a run.
        """
        try:
            metrics = read_metrics(folder)
        except FileNotFoundError:
            return None
        except UserError as error:
            raise UserError(
                f"{error} Or write it anew: u2pl evaluate {folder.name} --into {folder.parent}"
            ) from None
        if metrics["miou"]["reported"] is None:
            raise UserError(
                f"{folder / 'metrics.json'} is not the result of a run: it has no mIoU. "
                f"Write it anew with: u2pl evaluate {folder.name} --into {folder.parent}"
            )
        return cls(folder, metrics)

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.metrics["name"]

    @property
    def split(self) -> str:
        """Name of the split."""
        return self.metrics["split"]

    @property
    def method(self) -> str:
        """Name of the method."""
        return self.metrics["method"]

    @property
    def reported(self) -> float:
        """MIoU of the checkpoint that `protocol` names, percent."""
        miou = self.metrics["miou"]["reported"]
        assert miou is not None  # or it would not have been read
        return miou

    @property
    def over(self) -> str:
        """`over 3 of 4 classes`; nothing where `reported` is over all."""
        return scored_classes.counted_classes(self.metrics)

    @property
    def classes(self) -> str:
        """Over which classes `reported` is the mean, in words."""
        return (
            f"mIoU {self.over} (without {scored_classes.names_left_out(self.metrics)})"
            if self.over
            else ALL_CLASSES
        )

    @property
    def last(self) -> float | None:
        """MIoU after the last epoch, percent; None of a network that was imported."""
        return self.metrics["miou"]["last"]

    @property
    def best(self) -> float | None:
        """MIoU of the best epoch, percent, chosen on the images it is measured on; None of an imported network."""
        return self.metrics["miou"]["best"]

    @property
    def best_epoch(self) -> int | None:
        """Which epoch that was, counted from 1; None of an imported network."""
        epoch = self.metrics["miou"]["best_epoch"]
        return None if epoch is None else shown_epoch(int(epoch))

    @property
    def recipe(self) -> str:
        """The recipe in a few words, but for its batch."""
        recipe = self.metrics["recipe"]
        return f"{recipe['backbone']}, crop {recipe['crop']}, {recipe['epochs']} epochs"

    @property
    def batch(self) -> str:
        """The images of one optimiser step, over all processes.

        Whether unlabelled ones are among them is read off the losses that the run reported.
        """
        size = self.metrics["recipe"]["batch"]
        losses = {name for name in map(str, self.history) if name.startswith("train/loss/")}
        if not losses:
            return f"batch {size}"
        labelled_only = losses == {"train/loss/supervised"}
        return f"{size} labelled{'' if labelled_only else f' + {size} unlabelled'} images a step"

    @property
    def split_source(self) -> str:
        """Where the lists of the split come from."""
        source = self.metrics["split_source"]
        return source.replace("seeded ", "drawn with seed ")

    @property
    def protocol(self) -> str:
        """How the number was measured."""
        return protocol(self.metrics)

    @cached_property
    def history(self) -> pd.DataFrame:
        """A row an epoch, a column a metric, missing where the epoch has none; empty without a history.csv."""
        return epochs(self.folder)

    @cached_property
    def confusion(self) -> pd.DataFrame | None:
        """Scored pixels: a row a true class, a column a predicted one; None where it was not written.

        Raises:
            UserError: confusion.csv is damaged.
        """
        return confusion(self.folder)

    def sample(self, image: str, kind: str) -> Path:
        """The picture of a validation image: kind is input, truth, prediction or entropy, which not every run has."""
        return self.folder / "samples" / f"{image}.{kind}.png"

    @property
    def images(self) -> list[str]:
        """Names of the validation images with a picture of input, truth and prediction."""
        found = [
            path.name.removesuffix(".input.png") for path in (self.folder / "samples").glob("*.input.png")
        ]
        return sorted(
            image for image in found if all(self.sample(image, k).is_file() for k in ("truth", "prediction"))
        )


@dataclass(frozen=True)
class CellResults:
    """A cell of a table with the results for it, one a seed; none where nothing has finished."""

    cell: Cell
    results: list[Result] = field(default_factory=list)
    planned: int = 0
    """How many results the plan asks for here, one a seed."""


@dataclass(frozen=True)
class TableResults:
    """A table of the active plan, filled with what has finished."""

    name: str
    table: Table
    """Bound to the plan's data set."""
    cells: list[CellResults]

    @cached_property
    def runs(self) -> pd.DataFrame:
        """A row a cell and run, in their order: `row` and `column`, where it stands, and what is known of the run."""
        rows = (
            {
                **{"row": cell.cell.row, "column": cell.cell.column, "run": result.name},
                **{name: result.metrics.get(name) for name in ("labeled", "seed", "fingerprint", "revision")},
                **{"reported": result.reported, "last": result.last, "best": result.best},
                **{"split_source": result.metrics["split_source"], "protocol": result.protocol},
                **{"recipe": result.recipe, "batch": result.batch, "classes": result.classes},
            }
            for cell in self.cells
            for result in cell.results
        )
        return frame(rows, RUNS)

    @cached_property
    def means(self) -> pd.DataFrame:
        """A row a cell, in their order: how many `seeds` it has, their `mean` and standard deviation `sd` (n - 1).

        Beside them stand the `paper`'s number and the `difference`, ours minus it, in points. `best` says whether no
        other cell of the same split has a higher mean, and `paper_best` whether none has a higher number of the
        paper's; alone, nothing is best.
        """
        cells = (cell.cell._asdict() for cell in self.cells)
        kinds = {**dict.fromkeys(("row", "column", "split", "method"), "string"), "paper": "float64"}
        places = ["row", "column"]
        seeds = self.runs.groupby(places)["reported"].agg(seeds="count", mean="mean", sd="std")
        found = frame(cells, kinds).join(seeds, on=places).fillna({"seeds": 0}).astype({"seeds": "int64"})
        found["difference"] = found["mean"] - found["paper"]
        for number, best in (("mean", "best"), ("paper", "paper_best")):
            rivals = found.groupby("split", dropna=False)[number]
            found[best] = (found[number] == rivals.transform("max")) & (rivals.transform("count") > 1)
        return found

    @property
    def results(self) -> list[Result]:
        """Every result in the table, once."""
        return distinct(result for cell in self.cells for result in cell.results)

    @property
    def split_is_a_row(self) -> bool:
        """Whether rows are splits, and columns what is compared."""
        return self.table.all_rows[0].split is not None

    def label(self, cell: CellResults) -> str:
        """What a cell is called in its split: its row's label where columns are splits, else its column's."""
        return cell.cell.column if self.split_is_a_row else cell.cell.row

    def series(self) -> dict[str, dict[str, list[Result]]]:
        """Split -> label -> results: what is compared, whichever way round the table prints it.

        Only what has finished.
        """
        found: dict[str, dict[str, list[Result]]] = {}
        for cell in self.cells:
            if cell.results:
                found.setdefault(cell.cell.split, {})[self.label(cell)] = cell.results
        return found

    @property
    def own(self) -> list[CellResults]:
        """The cells that are ours to fill: all but those that are only cited."""
        return [cell for cell in self.cells if not cell.cell.cited]

    @property
    def missing(self) -> list[CellResults]:
        """Those of them without any result."""
        return [cell for cell in self.own if not cell.results]

    @property
    def incomplete(self) -> list[CellResults]:
        """Those of them with some of their results, but not all."""
        return [cell for cell in self.own if 0 < len(cell.results) < cell.planned]

    @property
    def labels(self) -> list[str]:
        """Every label of `series`, in the table's order, finished or not."""
        return list(dict.fromkeys(map(self.label, self.own)))


def split_title(split: str, runs: Mapping[str, Sequence[Result]]) -> str:
    """`1/8 (60 labelled)`: a split of `TableResults.series`; of imported runs its name alone may be known."""
    labeled = next(iter(runs.values()))[0].metrics["labeled"]
    return split if labeled is None else f"{split} ({labeled} labelled)"


def distinct(results: Iterable[Result]) -> list[Result]:
    """The first result of each run."""
    return list({result.name: result for result in reversed(list(results))}.values())[::-1]


def collect(project: Project, plan: ActivePlan, name: str) -> TableResults:
    """The table `name` of the active plan with the results found for it.

    Raises:
        UsageError: the plan has no such table.
        UserError: the plan was made from another version of the table; or a result is damaged.
    """
    name = table_name(name)
    if name not in plan.tables:
        raise unknown(f"table in the active plan {plan.plan!r}", name, plan.tables)
    bound = plan.tables[name]
    table = bind(read_table(project, bound.table), bound.dataset, bound.binding)
    params = Params.read(project)
    planned = Counter(place for places in bound.cells.values() for place in places)
    filled = {
        (cell.row, cell.column): CellResults(cell, planned=planned[cell.row, cell.column])
        for cell in table.cells()
    }
    rows, columns = {cell.row for cell in table.cells()}, {cell.column for cell in table.cells()}
    for run, places in bound.cells.items():
        result = Result.read(project.results / run)
        for row, column in places:
            if row not in rows or column not in columns:
                raise UserError(
                    f"The active plan does not fit pipelines/tables/{bound.table}.yaml any more. "
                    f"Make it again with: u2pl plan {plan.plan}"
                )
            stage = plan.runs[run]
            spec = cell_spec(
                params, plan.set | bound.binding.set, bound.dataset, filled[row, column].cell, stage.seed
            )
            if spec != spec_of(stage):
                raise UserError(
                    f"{row}, {column} in {name} is not what {run} is any more: pipelines/tables/{bound.table}.yaml has "
                    f"changed since the plan was made. Make it again with: u2pl plan {plan.plan}"
                )
            filled[row, column].results.extend([result] if result else [])
    return TableResults(name, table, list(filled.values()))


def collect_all(project: Project, plan: ActivePlan) -> list[TableResults]:
    """Every table of the active plan."""
    return [collect(project, plan, name) for name in plan.tables]
