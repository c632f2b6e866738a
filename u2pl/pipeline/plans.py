"""Plans as written in pipelines/plans/, and the active plan that DVC's stages are made from.

A plan binds tables and figures to data sets. `resolve` turns it into the dictionaries that dvc.yaml loops over
(pipelines/plan.yaml).
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from u2pl.data.records import chosen_seed
from u2pl.errors import UsageError, UserError, check_known, unknown
from u2pl.files import write_text
from u2pl.project import Project, safe_name
from u2pl.settings import (
    RECIPE_VERSION,
    Params,
    RunSpec,
    Settings,
    chosen_recipe_path,
    parse_overrides,
    run_arguments,
    run_name,
)
from u2pl.typed_files import problems

from . import dvc_stages
from .fields import ProjectPath, SafeName, SafePath, ShellWords
from .figures import FigureBinding, read_figure, shown_runs
from .files import read_named, read_yaml
from .tables import Ablation, Binding, Cell, Table, bind, read_table, table_name

SECTIONS = 8
"""Places for sections of params.yaml that a stage of dvc.yaml has; DVC fills in no list of any length."""


class Plan(Settings):
    """Tables and figures bound to data sets, as pipelines/plans/NAME.yaml describes it."""

    dataset: str | None = None
    """Of all tables and figures; None: each has its own."""
    roots: dict[str, str] = Field(default_factory=dict)
    """Data set -> where its images lie, for `u2pl prepare --root`."""
    reports: SafePath = "reports"
    seeds: list[int] = Field(min_length=1)
    set: dict[str, Any] = Field(default_factory=dict)
    """Setting -> value for every run whose method or recipe has it; what a table sets beats it."""
    tables: dict[SafeName, Binding] = Field(min_length=1)
    figures: dict[SafeName, FigureBinding] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _names_a_data_set_once(self) -> Self:
        bound = [name for name, table in self.tables.items() if table.dataset]
        bound += [name for name, figure in self.figures.items() if figure.dataset]
        if self.dataset and bound:
            raise ValueError(f"the plan has a data set, so {', '.join(bound)} cannot have one of their own")
        return self


class PrepareStage(Settings):
    """`u2pl prepare`: writes the lists of one split into `folder`."""

    dataset: str
    split: str
    folder: ProjectPath
    args: ShellWords


class TrainStage(Settings):
    """`u2pl train`: one run; trained and evaluated once, whatever shows it.

    Its key says all that a plan or table sets, whether or not params.yaml says the same: a default that changes leaves
    it what it is. The run itself is called by what differs from params.yaml, see `planned_run`.
    """

    dataset: str
    split: str
    method: str
    seed: int
    args: ShellWords
    folder: ProjectPath
    """Folder of the split."""
    settings: ProjectPath
    """File with the recipe chosen for the split; one of its lists where there is none."""
    recipe: str
    """The data set's section of params.yaml's `recipes`."""
    sections: list[SafeName] = Field(min_length=SECTIONS, max_length=SECTIONS)
    """The method's sections of params.yaml: its own and those of its groups; its own again in places that are left."""


class AblateStage(Settings):
    """`u2pl ablate`: compares the values of a setting on one split; their runs have been trained before."""

    shows: SafeName
    """Name of the table."""
    param: SafeName
    values: ShellWords
    args: ShellWords
    runs: list[SafeName]
    """That it compares, one for each value."""
    record: SafePath
    """File that receives the comparison."""


class FigureStage(Settings):
    """`u2pl figure`: one figure of finished runs, named by its key."""

    runs: list[SafeName]
    args: ShellWords


class BoundTable(Settings):
    """A table of the plan."""

    table: SafeName
    """Name of its file in pipelines/tables."""
    dataset: str
    binding: Binding
    cells: dict[SafeName, list[tuple[str, str]]] = Field(default_factory=dict)
    """Run -> row and column labels of the cells that show it."""


class ActivePlan(Settings):
    """What `dvc repro` regenerates now; the contents of pipelines/plan.yaml."""

    plan: SafeName
    recipe_version: int = RECIPE_VERSION
    """Of the code that made the plan: a change of it makes DVC train again."""
    set: dict[str, Any] = Field(default_factory=dict)
    """The plan's own settings."""
    reports: SafePath
    pictures: SafePath
    """A folder that the report waits for: that of the figures, or that of the runs where the plan has no figure."""
    prepare: dict[SafeName, PrepareStage] = Field(default_factory=dict)
    runs: dict[SafeName, TrainStage] = Field(default_factory=dict)
    ablations: dict[SafeName, AblateStage] = Field(default_factory=dict)
    figures: dict[SafeName, FigureStage] = Field(default_factory=dict)
    tables: dict[SafeName, BoundTable] = Field(default_factory=dict)

    @classmethod
    def read(cls, project: Project) -> "ActivePlan":
        """The project's active plan.

        Raises:
            UserError: none was made yet, or the file is damaged.
        """
        if not project.active_plan.is_file():
            raise UserError("There is no active plan. Make one with: u2pl plan demo")
        return read_yaml(ActivePlan, project.active_plan, "u2pl plan demo writes it anew.")

    @property
    def datasets(self) -> list[str]:
        """Every data set of the plan, in order."""
        return list(dict.fromkeys(stage.dataset for stage in self.runs.values()))

    @property
    def shown_in(self) -> dict[str, list[str]]:
        """Run -> the tables and figures that show it, in order."""
        shown = [(name, list(table.cells)) for name, table in self.tables.items()]
        shown += [(name, figure.runs) for name, figure in self.figures.items()]
        return {run: [name for name, runs in shown if run in runs] for run in self.runs}

    @property
    def cell_results(self) -> int:
        """How many results the cells of all tables ask for, one a cell and seed."""
        return sum(len(cells) for table in self.tables.values() for cells in table.cells.values())

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
        dvc_stages.write(project, self)


def _flow(value: Any) -> str:
    """`value` as YAML on one line."""
    text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, default_flow_style=True, width=10**6)
    return text.removesuffix("...\n").strip()


def read_plan(project: Project, name: str) -> Plan:
    """The plan pipelines/plans/NAME.yaml."""
    return read_named(Plan, project, "plan", name)


def resolve(
    project: Project, name: str, tables: Sequence[str] | None = None, seeds: Sequence[int] | None = None
) -> ActivePlan:
    """Everything that plan `name` runs.

    Args:
        project: whose pipelines/ and params.yaml are read.
        name: of the plan.
        tables: names or numbers of the tables wanted, and no figures; None: all tables and figures.
        seeds: in place of the plan's.

    Raises:
        UsageError: the plan, a table, a method or a setting is unknown.
    """
    plan = read_plan(project, name)
    plan = plan.model_copy(update={"seeds": list(dict.fromkeys(seeds or plan.seeds))})
    wanted = [table_name(table) for table in tables or plan.tables]
    check_known(f"table of plan {name!r}", wanted, plan.tables)
    try:
        stages = _Stages(project, name, plan, figures=not tables)
        for table in [table for table in plan.tables if table in wanted]:
            stages.add_table(table)
        for figure in plan.figures if not tables else ():
            stages.add_figure(figure)
    except ValidationError as error:
        raise UsageError(
            f"Plan {name!r} cannot be run: {problems(error, most=None)}. Mend the plan, its tables, or params.yaml."
        ) from None
    return stages.active


class _Stages:
    """Fills an active plan, table by table."""

    def __init__(self, project: Project, name: str, plan: Plan, *, figures: bool):
        self.project = project
        self.params = Params.read(project)
        self.plan = plan
        self.keys: dict[str, str] = {}
        """What a run is called today -> the first key that it is trained under."""
        for key in (*plan.set, *(key for binding in plan.tables.values() for key in binding.set)):
            if not any(self.params.find_key(key, method) for method in self.params.methods):
                known = {short for method in self.params.methods for short in self.params.names(method)}
                raise unknown(f"setting of plan {name!r}", key, known)
        pictures = "figures" if plan.figures and figures else "tables"
        self.active = ActivePlan(
            plan=name, set=plan.set, reports=plan.reports, pictures=f"{plan.reports}/{pictures}"
        )

    def add_table(self, name: str) -> None:
        """Add a table, bound to its data set, and all that it shows."""
        binding = self.plan.tables[name]
        file = binding.table or name
        table = read_table(self.project, file)
        dataset = binding.dataset or self.plan.dataset or table.dataset
        table, common = bind(table, dataset, binding), self.plan.set | binding.set
        cells: dict[str, list[tuple[str, str]]] = {}
        for seed in self.plan.seeds:
            for cell in table.cells():
                if not cell.cited:
                    run = self.add_run(cell_spec(self.params, common, dataset, cell, seed))
                    cells.setdefault(run, []).append((cell.row, cell.column))
        self.active.tables[name] = BoundTable(table=file, dataset=dataset, binding=binding, cells=cells)
        for seed in self.plan.seeds:
            for split in table.ablated_splits():
                assert table.ablate is not None
                self.add_ablation(name, table, table.ablate, common, split, seed)

    def add_figure(self, name: str) -> None:
        """Add a figure and the runs that it shows, of the plan's first seed."""
        binding, figure = self.plan.figures[name], read_figure(self.project, name)
        dataset = binding.dataset or self.plan.dataset or figure.dataset
        split = binding.split or figure.split
        shown = shown_runs(figure, binding.runs)
        runs = [
            self.same_or_added(
                _spec(self.params, self.plan.set, dataset, split, run.method, run.set, self.plan.seeds[0])
            )
            for run in shown
        ]
        words = [f"--label={run.label}" for run in shown]
        words += [f"--images={binding.images}"] if binding.images else []
        self.active.figures[name] = FigureStage(runs=runs, args=shlex.join([*runs, *words]))

    def add_split(self, dataset: str, split: str) -> str:
        """Add the preparation of a split, if it is one that can be made again; its folder, relative to the project.

        Lists of the user's own are an input of the pipeline, like pictures: no stage has them among its outputs.
        """
        from u2pl.data.splits import is_own_name

        root = self.plan.roots.get(dataset)
        folder = self.project.split(dataset, split).relative_to(self.project.root).as_posix()
        if not is_own_name(split):
            words = ["--dataset", dataset, "--split", split, *(["--root", root] if root else [])]
            seed = chosen_seed(self.project, dataset, split)
            words += [] if seed is None else ["--seed", str(seed)]
            self.active.prepare[safe_name(f"{dataset}-{split}")] = PrepareStage(
                dataset=dataset, split=split, folder=folder, args=shlex.join(words)
            )
        return folder

    def same_or_added(self, spec: RunSpec) -> str:
        """The key of a run that is the same today, whatever is set for it; or of this one, added."""
        return self.keys.get(self.params.name_of(spec)) or self.add_run(spec)

    def add_run(self, spec: RunSpec) -> str:
        """Add a run that a table or figure shows; its key."""
        key, folder = run_name(spec, spec.overrides), self.add_split(spec.dataset, spec.split)
        self.keys.setdefault(self.params.name_of(spec), key)
        self.active.runs[key] = TrainStage(
            dataset=spec.dataset,
            split=spec.split,
            method=spec.method,
            seed=spec.seed,
            args=shlex.join(run_arguments(spec)),
            folder=folder,
            settings=self._settings(spec.dataset, spec.split, folder),
            recipe=self.params.section(spec.dataset),
            sections=_filled(self.params.sections(spec.method)),
        )
        return key

    def _settings(self, dataset: str, split: str, folder: str) -> str:
        """What DVC watches of a split's settings besides params.yaml, relative to the project."""
        chosen = chosen_recipe_path(self.project, dataset, split)
        is_read = self.params.section(dataset) == "custom" and chosen.is_file()
        return chosen.relative_to(self.project.root).as_posix() if is_read else f"{folder}/labeled.txt"

    def add_ablation(
        self, name: str, table: Table, ablation: Ablation, common: Mapping[str, Any], split: str, seed: int
    ) -> None:
        """Add the comparison of an ablation's values on one split."""
        method = ablation.method
        spec = _spec(self.params, common, table.dataset, split, method, {}, seed)
        for value in ablation.values:
            swept = {self.params.full_key(k, method): v for k, v in ablation.settings(value).items()}
            spec = replace(spec, overrides={k: v for k, v in spec.overrides.items() if k not in swept})
        short = ablation.param.replace(",", "+")
        key = safe_name(f"{spec.dataset}-{split}-{method}-by-{short}-s{seed}")
        self.active.ablations[safe_name(f"{name}-{key}")] = AblateStage(
            shows=name,
            param=ablation.param,
            values=shlex.join(map(ablation.value_text, ablation.values)),
            args=shlex.join(run_arguments(spec)),
            runs=self._compared(spec, ablation),
            record=f"results/{name}/{key}.json",
        )

    def _compared(self, spec: RunSpec, ablation: Ablation) -> list[str]:
        """The runs that an ablation compares: one for each value."""
        keys = []
        for value in ablation.values:
            swept = {self.params.full_key(k, spec.method): v for k, v in ablation.settings(value).items()}
            one = replace(spec, overrides={**spec.overrides, **swept})
            keys.append(run_name(one, one.overrides))
        return keys


def _filled(sections: list[str]) -> list[str]:
    """A method's sections, as many as a stage has places for.

    Raises:
        UsageError: there are more of them.
    """
    if len(sections) > SECTIONS:
        raise UsageError(
            f"Method {sections[0]!r} has its settings in {len(sections)} sections of params.yaml, and a stage of "
            f"dvc.yaml has places for {SECTIONS}. Add places there and to SECTIONS in u2pl/pipeline/plans.py."
        )
    return sections + sections[:1] * (SECTIONS - len(sections))


def cell_spec(params: Params, common: Mapping[str, Any], dataset: str, cell: Cell, seed: int) -> RunSpec:
    """The run behind a cell: its settings beat those that are common to the plan and to its table."""
    return _spec(params, common, dataset, cell.split, cell.method, cell.set, seed)


def _spec(
    params: Params,
    common: Mapping[str, Any],
    dataset: str,
    split: str,
    method: str,
    own: Mapping[str, Any],
    seed: int,
) -> RunSpec:
    # Of the plan's settings those that the method or its recipe has.
    plans = {
        full: value for key, value in common.items() if (full := params.find_key(key, method)) is not None
    }
    keys = {params.full_key(key, method): value for key, value in own.items()}
    return params.spec(dataset, split, method, seed, plans | keys)


def spec_of(stage: TrainStage) -> RunSpec:
    """The run that a stage trains."""
    arguments = shlex.split(stage.args)
    pairs = [argument.removeprefix("--set=") for argument in arguments if argument.startswith("--set=")]
    return RunSpec(stage.dataset, stage.split, stage.method, stage.seed, parse_overrides(pairs))


def planned_names(project: Project, plan: ActivePlan) -> dict[str, str]:
    """Key -> what its run is called today; keys that set what params.yaml says anyway may have the same run."""
    params = Params.read(project)
    return {key: params.name_of(spec_of(stage)) for key, stage in plan.runs.items()}


def places(plan: ActivePlan, names: Mapping[str, str]) -> dict[str, list[str]]:
    """Name of a run -> the tables and figures that show it, in the plan's order.

    Args:
        plan: the active plan.
        names: its `planned_names`.
    """
    shown: dict[str, list[str]] = {}
    for key, found in plan.shown_in.items():
        shown.setdefault(names[key], []).extend(found)
    order = [*plan.tables, *plan.figures]
    return {name: sorted(set(found), key=order.index) for name, found in shown.items()}


def planned_run(project: Project, name: str) -> str:
    """What the run is called today that a stage of the active plan trains under a key; any other name as it is.

    A key says all that a table sets; a run's name what differs from params.yaml, so it follows a default that changes.
    """
    try:
        stage = ActivePlan.read(project).runs.get(name)
    except UserError:  # none was made, or it is damaged: whoever needs it says so
        return name
    return name if stage is None else Params.read(project).name_of(spec_of(stage))
