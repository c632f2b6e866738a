import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny import edit_params

from u2pl.errors import UsageError, UserError
from u2pl.pipeline import (
    ActivePlan,
    Binding,
    Table,
    bind,
    names,
    planned_names,
    planned_run,
    read_table,
    resolve,
    spec_of,
)
from u2pl.pipeline.scheduling import stages
from u2pl.project import Project
from u2pl.reporting.results import collect_all
from u2pl.settings import Params, chosen_recipe_path, run_name
from u2pl.training.ablation import plan_ablation

REPOSITORY = Project(Path(__file__).parents[2])

SMALL: dict[str, Any] = {
    "title": "T",
    "caption": "C.",
    "dataset": "voc",
    "columns": [{"label": "1/8", "split": "1/8"}, {"label": "1/4", "split": "1/4"}],
    "rows": [{"label": "MT", "method": "mt", "paper": [1.5, 2.5]}],
}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    shutil.copy(REPOSITORY.params, tmp_path)
    (tmp_path / "dvc.yaml").touch()
    shutil.copytree(REPOSITORY.pipelines, tmp_path / "pipelines")
    return Project(tmp_path)


def add_plan(project: Project, text: str) -> ActivePlan:
    (project.pipelines / "plans/mine.yaml").write_text(text)
    return resolve(project, "mine")


def test_a_method_with_more_sections_than_a_stage_has_places_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Params, "sections", lambda params, method: [method, *"abcdefgh"])
    with pytest.raises(UsageError, match=r"'suponly' has its settings in 9 sections.*has places for 8\."):
        resolve(REPOSITORY, "demo")


def test_the_committed_plan_is_what_the_generator_gives_for_demo() -> None:
    assert REPOSITORY.active_plan.read_text(encoding="utf-8") == resolve(REPOSITORY, "demo").text()


PAPER_TABLES = [f"table{k}" for k in range(1, 8)] + [f"tableA{k}" for k in range(2, 9)]


@pytest.mark.parametrize("name", ["demo-full", "paper"])
def test_a_plan_of_everything_has_the_tables_and_figures_of_the_paper(name: str) -> None:
    plan = resolve(REPOSITORY, name)
    assert list(plan.tables) == PAPER_TABLES
    # Fig. A1 is Fig. 4 of other images: the demonstration has but one data set.
    assert {*plan.figures, "figA1"} == set(names(REPOSITORY, "figures"))
    assert {name for shown in plan.shown_in.values() for name in shown} == {*plan.tables, *plan.figures}


def test_no_number_of_the_papers_tables_is_left_out() -> None:
    """Counted in the paper: a table's cells with a number, but for Table A1, which has settings."""
    counts = {
        name: sum(cell.paper is not None for cell in read_table(REPOSITORY, name).cells())
        for name in PAPER_TABLES
    }
    assert counts == dict(zip(PAPER_TABLES, [30, 32, 36, 6, 10, 6, 8, 6, 16, 16, 5, 5, 10, 8], strict=True))


def test_one_run_of_the_paper_has_one_number_in_all_its_tables() -> None:
    """U²PL with a quarter of blender VOC's labels stands in seven; 79.30 in all of them."""
    plan = resolve(REPOSITORY, "paper")
    printed: dict[str, dict[str, set[float]]] = {}
    run_names = planned_names(REPOSITORY, plan)
    for name, table in plan.tables.items():
        cells = {(cell.row, cell.column): cell.paper for cell in read_table(REPOSITORY, name).cells()}
        for key, places in table.cells.items():
            of_run = printed.setdefault(run_names[key], {})
            of_run.setdefault(name, set()).update(cells[place] for place in places)
    full = printed["voc-blender-1_4-u2pl-s0"]
    assert full == {f"table{k}": {79.30} for k in ("2", "4", "5", "6", "7", "A4", "A5", "A6")}
    assert all(len(set.union(*found.values())) == 1 for found in printed.values())


def test_the_demo_compares_methods_on_few_labels_with_equally_many_steps_and_two_seeds() -> None:
    plan = resolve(REPOSITORY, "demo")
    assert {run.split for run in plan.runs.values()} == {"1/32"}
    assert {run.seed for run in plan.runs.values()} == {0, 1}
    assert {"suponly", "cutmix", "u2pl"} <= {run.method for run in plan.runs.values()}
    params = Params.read(REPOSITORY)
    resolved = [params.resolve(spec_of(run), bfloat16=False) for run in plan.runs.values()]
    assert len({(run.recipe.epochs, run.recipe.batch) for run in resolved}) == 1
    assert {run.hyper["epoch"] for run in resolved if run.spec.method == "suponly"} == {"unlabeled"}


def test_no_two_tables_of_the_demo_show_the_same_numbers() -> None:
    plan = resolve(REPOSITORY, "demo")
    shown = {name: set(table.cells) for name, table in plan.tables.items()}
    for name, runs in shown.items():
        others = set().union(*(other for other_name, other in shown.items() if other_name != name))
        assert len(runs & others) <= len(runs) / 2, name


def test_camvid_prepares_from_a_folder_relative_to_the_project() -> None:
    plan = resolve(REPOSITORY, "camvid")
    assert [stage.args for stage in plan.prepare.values()] == [
        "--dataset camvid --split 1/8 --root ../shared/camvid"
    ]
    assert plan.reports == "reports/camvid"
    assert not plan.ablations


@pytest.mark.parametrize("name", names(REPOSITORY, "tables"))
def test_every_table_resolves_on_the_papers_own_data_set(project: Project, name: str) -> None:
    plan = add_plan(project, f"{{seeds: [0], tables: {{{name}: {{}}}}}}")
    table = read_table(project, name)
    asked = [(cell.row, cell.column) for cell in table.cells() if not cell.cited]
    shown = [tuple(place) for places in plan.tables[name].cells.values() for place in places]
    assert sorted(shown) == sorted(asked)
    assert len(plan.ablations) == len(table.ablated_splits())


def test_a_plan_is_narrowed_to_tables_by_name_or_number(project: Project) -> None:
    plan = resolve(project, "demo-full", ["7", "table4", "A2"])
    assert list(plan.tables) == ["table4", "table7", "tableA2"]
    assert not plan.figures
    assert {name for shown in plan.shown_in.values() for name in shown} == set(plan.tables)
    assert list(plan.prepare) == ["shapes-1_8", "shapes-1_4"]


def test_a_plan_may_show_some_of_a_figures_runs_and_trains_no_others(project: Project) -> None:
    text = (
        "{{dataset: shapes, seeds: [0], tables: {{table1: {{splits: {{classic-1/8: 1/8}}}}}}, "
        "figures: {{fig4: {{split: 1/8{0}}}}}}}"
    )
    whole, some = (add_plan(project, text.format(more)) for more in ("", ", runs: [U²PL, SupOnly]"))
    assert some.figures["fig4"].runs == [
        "shapes-1_8-suponly-s0",
        "shapes-1_8-u2pl-s0",
    ]  # in the figure's order
    assert "--label=SupOnly --label=U²PL" in some.figures["fig4"].args.replace("'", "")
    assert set(whole.runs) - set(some.runs) == {"shapes-1_8-u2pl-negatives=all-s0"}
    with pytest.raises(UsageError, match=r"No run of 'Fig\. 4\. Predictions' called 'U2PL'"):
        add_plan(project, text.format(", runs: [U2PL]"))


def test_seeds_on_the_command_line_stand_in_place_of_the_plans(project: Project) -> None:
    once, thrice = (resolve(project, "paper", ["4"], seeds) for seeds in (None, [2, 0, 1, 2]))
    assert len(thrice.runs) == 3 * len(once.runs)
    assert {run.seed for run in thrice.runs.values()} == {0, 1, 2}


def test_a_plan_without_a_data_set_takes_the_tables_own_and_prepares_from_the_roots(project: Project) -> None:
    plan = add_plan(
        project,
        "{seeds: [0], roots: {cityscapes: ../city}, tables: {table4: {}, tableA2: {}}, figures: {figA1: {}}}",
    )
    assert {name: bound.dataset for name, bound in plan.tables.items()} == {
        "table4": "voc",
        "tableA2": "cityscapes",
    }
    assert plan.datasets == ["voc", "cityscapes"]
    assert [stage.args.endswith("--root ../city") for stage in plan.prepare.values()] == [
        False,
        False,
        True,
        True,
    ]
    assert {plan.runs[name].dataset for name in plan.figures["figA1"].runs} == {"cityscapes"}


def test_a_plan_that_names_data_sets_twice_is_refused(project: Project) -> None:
    with pytest.raises(UserError, match="so table4 cannot have one of their own"):
        add_plan(project, "{dataset: voc, seeds: [0], tables: {table4: {dataset: camvid}}}")


TWICE = """
seeds: [0]
tables:
  streets: {table: methods, title: Streets, dataset: camvid, splits: {classic-1/8: 1/16}, rows: [SupOnly, MT]}
  houses: {table: methods, dataset: facade, splits: {classic-1/8: 1/4}, rows: [MT]}
"""


def test_a_table_stands_in_a_plan_more_than_once_under_names_of_its_own(project: Project) -> None:
    plan = add_plan(project, TWICE)
    assert {name: (bound.table, list(bound.cells)) for name, bound in plan.tables.items()} == {
        "streets": ("methods", ["camvid-1_16-suponly-epoch=unlabeled-s0", "camvid-1_16-mt-s0"]),
        "houses": ("methods", ["facade-1_4-mt-s0"]),
    }
    titles = [
        bind(read_table(project, bound.table), bound.dataset, bound.binding).title
        for bound in plan.tables.values()
    ]
    assert titles == ["Streets", read_table(project, "methods").title]
    assert list(resolve(project, "mine", ["houses"]).runs) == ["facade-1_4-mt-s0"]


def test_dvc_watches_the_recipe_that_was_chosen_for_own_data(project: Project) -> None:
    text = "{seeds: [0], tables: {houses: {table: methods, dataset: boats, splits: {classic-1/8: 1/4}, rows: [MT]}}}"
    name = "boats-1_4-mt-s0"
    assert add_plan(project, text).runs[name].settings == "data/boats/splits/1_4/labeled.txt"
    path = chosen_recipe_path(project, "boats", "1/4")
    path.parent.mkdir(parents=True)
    path.write_text("crop: 65\n")
    assert add_plan(project, text).runs[name].settings == "data/boats/recipes/1_4.yaml"
    edit_params(project, lambda values: values["recipes"].update(boats={"crop": 65}))
    assert add_plan(project, text).runs[name].settings == "data/boats/splits/1_4/labeled.txt"


SET = """
seeds: [0]
set: {lr: 0.5, alpha0: 0.4}
tables:
  plain: {table: methods, dataset: camvid, splits: {classic-1/8: 1/16}, rows: [SupOnly]}
  other: {table: methods, dataset: camvid, splits: {classic-1/8: 1/16}, rows: [SupOnly, MT], set: {lr: 0.1, eta: 2}}
  table7: {dataset: camvid, splits: {blender-1/8: 1/16}, values: [0.3], set: {eta: 3}}
"""


def test_what_a_plan_sets_for_a_table_beats_what_it_sets_for_all_and_the_table_beats_both(
    project: Project,
) -> None:
    plan = add_plan(project, SET)
    found = {
        name: [dict(spec_of(plan.runs[run]).overrides) for run in bound.cells]
        for name, bound in plan.tables.items()
    }
    assert found == {
        "plain": [{"recipe.lr": 0.5, "suponly.epoch": "unlabeled"}],
        "other": [
            {"recipe.lr": 0.1, "suponly.epoch": "unlabeled"},
            {"recipe.lr": 0.1, "mt.alpha0": 0.4, "mt.eta": 2},
        ],
        "table7": [{"recipe.lr": 0.5, "u2pl.alpha0": 0.3, "u2pl.eta": 3}],
    }
    (ablation,) = plan.ablations.values()
    assert "--set=u2pl.eta=3" in ablation.args
    # A table is filled from the very runs that it was planned with.
    assert [len(filled.cells) for filled in collect_all(project, plan)] == [1, 2, 1]


def test_what_a_table_sets_must_be_a_setting(project: Project) -> None:
    with pytest.raises(UsageError, match="No setting of plan 'mine' called 'ets'"):
        add_plan(project, SET.replace("eta: 3", "ets: 3"))


def test_a_table_that_a_plan_calls_otherwise_must_have_a_file(project: Project) -> None:
    with pytest.raises(UsageError, match=r"No table called 'methds'\. Did you mean 'methods'"):
        add_plan(project, "{seeds: [0], tables: {streets: {table: methds}}}")


def test_the_plan_of_photographs_trains_the_smallest_splits_first_on_both_data_sets() -> None:
    plan = resolve(REPOSITORY, "photos")
    methods = ["suponly", "mt", "cutmix", "cps", "ael", "u2pl", "u2pl-ael"]
    every = [*methods[:3], "cct", "gct", "pseudoseg", "pc2seg", *methods[3:]]
    shown = [
        (
            bound.dataset,
            {plan.runs[run].split for run in bound.cells},
            [plan.runs[run].method for run in bound.cells],
        )
        for bound in plan.tables.values()
    ]
    assert shown == [
        ("facade", {"1/16"}, every * 3),
        ("camvid", {"1/16"}, ["suponly", "cutmix", "u2pl"] * 3),
        ("facade", {"1/8"}, methods * 3),
        ("camvid", {"1/8"}, ["suponly", "cutmix", "u2pl"] * 3),
        ("facade", {"1/16"}, ["u2pl"] * 9),  # Table 4
        ("facade", {"1/16"}, ["u2pl"] * 12),  # Table 7
    ]
    assert {run.seed for run in plan.runs.values()} == {0, 1, 2}
    # No figure trains anything that no table shows, and the default of an ablation is trained once.
    assert len(set(planned_names(REPOSITORY, plan).values())) == 3 * (11 + 3) + 3 * (7 + 3) + 3 * (2 + 3)
    assert {(stage.dataset, stage.args.rpartition(" ")[2]) for stage in plan.prepare.values()} == {
        ("facade", "../shared/facade"),
        ("camvid", "../shared/camvid"),
    }
    first = [
        stage for stage in sorted(stages(plan), key=lambda stage: -stage.urgency) if "train@" in stage.name
    ]
    assert all("train@facade-1_16-" in stage.name for stage in first[:33])
    assert all("train@camvid-1_16-" in stage.name for stage in first[33:42])


def test_a_run_of_the_plan_is_found_again_from_its_stage(project: Project) -> None:
    plan = resolve(project, "demo-full")
    params = Params.read(project)
    for key, stage in plan.runs.items():
        spec = spec_of(stage)
        assert run_name(spec, spec.overrides) == key
        # Its run has a shorter name where the table sets what params.yaml says anyway.
        assert planned_run(project, key) == key  # of no active plan
    plan.write(project)
    for key, name in planned_names(project, plan).items():
        assert (
            planned_run(project, key) == name == params.resolve(spec_of(plan.runs[key]), bfloat16=False).name
        )


def test_an_ablation_compares_runs_that_are_trained_as_stages_of_their_own(project: Project) -> None:
    plan = add_plan(project, "{dataset: shapes, seeds: [0], tables: {table5: {splits: {blender-1/8: 1/8}}}}")
    (stage,) = plan.ablations.values()
    assert (stage.param, stage.values) == ("r_l,r_h", "1,3 1,20 3,10 3,20 10,20")
    ablation = plan_ablation(
        Params.read(project),
        stage.param,
        stage.values.split(),
        dataset="shapes",
        split="1/8",
        method="u2pl",
        seed=0,
    )
    compared = [Params.read(project).resolve(spec).name for _, spec in ablation.specs]
    assert compared == list(planned_names(project, plan).values())
    assert stage.runs == list(plan.runs)


def test_values_of_a_plan_stand_in_place_of_the_tables_and_known_ones_keep_label_and_number(
    project: Project,
) -> None:
    table = read_table(project, "table7")
    bound = bind(table, "voc", Binding(values=[0.2, 0.25]))
    assert [column.label for column in bound.all_columns] == ["20 %", "0.25"]
    assert [cell.paper for cell in bound.cells()] == [79.01, None, 79.30, None]
    rows = bind(
        read_table(project, "table5"),
        "voc",
        Binding(values=[[3, 20], [2, 4]], splits={"blender-1/4": "blender-1/4"}),
    )
    assert [(cell.row, cell.set, cell.paper) for cell in rows.cells()] == [
        ("3, 20", {"r_l": 3, "r_h": 20}, 79.30),
        ("2,4", {"r_l": 2, "r_h": 4}, None),
    ]


@pytest.mark.parametrize(
    ("name", "binding"),
    [
        ("table1", Binding(splits={"classic-1/8": "1/8", "classic-1/4": "1/8"})),
        ("table7", Binding(values=[0.1, 0.1])),
    ],
)
def test_a_binding_that_makes_two_columns_the_same_is_refused(name: str, binding: Binding) -> None:
    with pytest.raises(UsageError, match="two columns have the same label"):
        bind(read_table(REPOSITORY, name), "shapes", binding)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"dataset: voc\nseeds: [0]\ndataset: camvid\ntables: {table1: {}}", "'dataset' stands there twice"),
        (b"dataset: voc\nseeds: [0]\n1: {}", "'1' is no text"),
        (b"dataset: caf\xe9", "not valid YAML"),
        (b"- a", "valid dictionary"),
        (b"", "valid dictionary"),
    ],
)
def test_a_plan_that_is_ambiguous_or_none_is_refused_in_a_sentence(
    project: Project, content: bytes, says: str
) -> None:
    (project.pipelines / "plans/mine.yaml").write_bytes(content)
    with pytest.raises(UserError, match=says) as caught:
        resolve(project, "mine")
    assert "mine.yaml" in str(caught.value) and str(caught.value).endswith(
        "Mend the file, then make the plan again."
    )


def test_a_seed_named_twice_counts_once(project: Project) -> None:
    plan = add_plan(
        project, "{dataset: shapes, seeds: [0, 0], tables: {table1: {splits: {classic-1/8: 1/8}}}}"
    )
    assert len(plan.tables["table1"].cells) == 6
    assert all(len(places) == 1 for places in plan.tables["table1"].cells.values())


def test_rows_made_from_values_can_be_chosen_by_label_beside_rows_that_are_written_out(
    project: Project,
) -> None:
    bound = bind(read_table(project, "table6"), "voc", Binding(rows=["none (MT)", "L_c"]))
    assert [(cell.row, cell.method, cell.paper) for cell in bound.cells()] == [
        ("none (MT)", "mt", 73.02),
        ("L_c", "u2pl", 77.08),
    ]
    (line,) = bind(read_table(project, "table6"), "voc", Binding(rows=["none (MT)"])).all_rows
    assert line.label == "none (MT)"


def test_several_seeds_multiply_runs_and_ablations(project: Project) -> None:
    plan = add_plan(
        project,
        "{dataset: shapes, seeds: [0, 1, 2], tables: {table1: {rows: [MT], splits: {classic-1/8: 1/8}},"
        " table7: {splits: {blender-1/8: 1/8}}}}",
    )
    assert [name for name in plan.runs if "-mt-" in name] == [f"shapes-1_8-mt-s{seed}" for seed in range(3)]
    assert len(plan.runs) == 3 * (1 + 4)
    for stage in plan.ablations.values():
        assert [plan.runs[run].seed for run in stage.runs] == [int(stage.record[-6])] * 4
    assert len({stage.record for stage in plan.ablations.values()}) == 3


def test_a_new_table_is_one_new_file_whose_settings_reach_the_command(project: Project) -> None:
    table = SMALL | {"rows": [{"label": "no DPA", "method": "u2pl", "set": {"dpa": False, "recipe.lr": 0.1}}]}
    (project.pipelines / "tables/mine.yaml").write_text(yaml.safe_dump(table))
    plan = add_plan(project, "{dataset: shapes, seeds: [0], tables: {mine: {}}}")
    run = plan.runs["shapes-1_8-u2pl-lr=0.1-dpa=False-s0"]
    assert run.args.endswith("--seed 0 --set=u2pl.dpa=false --set=recipe.lr=0.1")


def test_a_run_that_two_tables_show_is_trained_and_evaluated_once(project: Project) -> None:
    (project.pipelines / "tables/mine.yaml").write_text(yaml.safe_dump(SMALL))
    plan = add_plan(
        project,
        "{dataset: shapes, seeds: [0], tables: {mine: {}, table1: {rows: [MT], splits: {classic-1/8: 1/8}}}}",
    )
    assert list(plan.runs) == ["shapes-1_8-mt-s0", "shapes-1_4-mt-s0"]
    assert plan.shown_in == {"shapes-1_8-mt-s0": ["mine", "table1"], "shapes-1_4-mt-s0": ["mine"]}


def test_a_value_that_a_table_sets_is_a_stage_of_its_own_even_where_it_is_the_default(
    project: Project,
) -> None:
    plan = add_plan(
        project,
        "{dataset: shapes, seeds: [0], tables: {table7: {splits: {blender-1/8: 1/8}, values: [0.1, 0.2]},"
        " table1: {rows: [U²PL (w/ CutMix)], splits: {classic-1/8: 1/8}}}, figures: {fig2: {split: 1/8}}}",
    )
    sweep = [f"shapes-1_8-u2pl-alpha0={value}-s0" for value in (0.1, 0.2)]
    assert list(plan.runs) == [*sweep, "shapes-1_8-u2pl-s0"]
    # Of those that are one run today, a figure takes the first.
    assert plan.figures["fig2"].runs == sweep[1:]

    def trained() -> list[str]:
        return list(planned_names(project, plan).values())

    assert trained() == [sweep[0], *["shapes-1_8-u2pl-s0"] * 2]
    trains = {stage.name: set(stage.after) for stage in stages(plan, planned_names(project, plan))}
    assert trains[f"train@{sweep[1]}"] ^ trains["train@shapes-1_8-u2pl-s0"]  # one after the other
    params = yaml.safe_load(project.params.read_text(encoding="utf-8"))
    params["u2pl"]["alpha0"] = 0.1
    project.params.write_text(yaml.safe_dump(params), encoding="utf-8")
    assert trained() == ["shapes-1_8-u2pl-s0", sweep[1], "shapes-1_8-u2pl-s0"]


def test_a_written_plan_reads_back_equal(project: Project) -> None:
    plan = resolve(project, "demo")
    plan.write(project)
    assert ActivePlan.read(project) == plan


def test_without_an_active_plan_the_error_names_the_command_that_makes_one(project: Project) -> None:
    project.active_plan.unlink()
    with pytest.raises(UserError, match="u2pl plan demo"):
        ActivePlan.read(project)


def test_the_papers_numbers_stay_only_where_data_set_and_split_are_the_papers() -> None:
    table = Table(**SMALL)
    own = bind(table, "voc", Binding(splits={"1/8": "1/8", "1/4": "1/2"}))
    other = bind(table, "shapes", Binding())
    assert [cell.paper for cell in own.cells()] == [1.5, None]
    assert [(cell.split, cell.paper) for cell in other.cells()] == [("1/8", None), ("1/4", None)]


def test_a_binding_leaves_out_splits_it_does_not_name_and_rows_it_does_not_want() -> None:
    table = Table(**SMALL | {"rows": [*SMALL["rows"], {"label": "U", "method": "u2pl"}]})
    bound = bind(table, "voc", Binding(splits={"1/4": "1/4"}, rows=["MT"]))
    assert [(cell.row, cell.split, cell.paper) for cell in bound.cells()] == [("MT", "1/4", 2.5)]


@pytest.mark.parametrize(
    ("plan", "tables", "sentence"),
    [
        ("dmeo", None, "Did you mean 'demo'"),
        ("demo", ["table8"], "No table of plan 'demo' called 'table8'"),
    ],
)
def test_an_unknown_plan_or_table_is_refused(plan: str, tables: list[str] | None, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        resolve(REPOSITORY, plan, tables)


@pytest.mark.parametrize(
    ("binding", "sentence"),
    [
        ("{splits: {classic-1/9: 1/8}}", "Did you mean 'classic-1/"),
        ("{rows: [U2PL]}", "No row of"),
        ("{split: {}}", "tables.table1.split"),
        ("{values: [1]}", "tries no values of a setting"),
        ("{rows: [SupOnly], splits: {}}, table4: {rows: [1/9]}", "No row of 'Table 4"),
    ],
)
def test_a_binding_that_does_not_fit_its_table_is_refused(
    project: Project, binding: str, sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        add_plan(project, f"{{dataset: shapes, seeds: [0], tables: {{table1: {binding}}}}}")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"rows": [{"label": "MT", "method": "mt", "paper": [1.5]}]}, "1 numbers for 2 columns"),
        ({"rows": [{"label": "MT", "method": "mt", "papers": []}]}, "rows.0.papers"),
        ({"rows": [{"label": "MT"}]}, "exactly one gives the method"),
        ({"rows": [{"label": "X", "cited": True}]}, "cited but has no numbers"),
        ({"rows": [{"label": "A", "method": "mt"}, {"label": "A", "method": "u2pl"}]}, "the same label"),
        ({"columns": []}, "needs rows and columns"),
        (
            {"ablate": {"method": "u2pl", "param": "r_l,r_h", "values": [[1, 3], 4], "labels": ["a", "b"]}},
            "4 is no list of 2 values, as r_l,r_h needs",
        ),
        (
            {"ablate": {"method": "u2pl", "param": "tau", "values": [1, 2], "labels": ["a"]}},
            "ablate has 2 values and 1 labels",
        ),
        (
            {
                "ablate": {
                    "method": "u2pl",
                    "param": "tau",
                    "values": [1],
                    "labels": ["a"],
                    "paper": [[1.0, 2.0]],
                }
            },
            "paper numbers for rows alone",
        ),
    ],
)
def test_a_table_with_a_mistake_is_refused_with_its_place(
    project: Project, change: dict[str, Any], sentence: str
) -> None:
    (project.pipelines / "tables/bad.yaml").write_text(yaml.safe_dump(SMALL | change))
    with pytest.raises(UserError, match=sentence) as error:
        read_table(project, "bad")
    assert "bad.yaml" in str(error.value)


def test_an_ablation_of_a_setting_that_does_not_exist_is_refused(project: Project) -> None:
    path = project.pipelines / "tables/table7.yaml"
    path.write_text(path.read_text().replace("param: alpha0", "param: alpha"))
    with pytest.raises(UsageError, match="Did you mean 'alpha0'"):
        resolve(project, "demo-full", ["7"])


def test_settings_of_a_plan_reach_every_run_that_has_them_and_no_other(project: Project) -> None:
    path = project.root / "pipelines" / "plans" / "demo-full.yaml"
    values = yaml.safe_load(path.read_text()) | {"set": {"epochs": 2, "ema_decay": 0.9, "alpha0": 0.5}}
    path.write_text(yaml.safe_dump(values))
    plan = resolve(project, "demo-full", ["table1", "table7"])
    for run in plan.runs.values():
        assert "--set=recipe.epochs=2" in run.args
        assert ("ema_decay=0.9" in run.args) == (run.method in ("mt", "cutmix", "u2pl"))
    assert all("--set=u2pl.ema_decay=0.9" in ablation.args for ablation in plan.ablations.values())


def test_a_plan_with_a_setting_that_nothing_has_is_refused(project: Project) -> None:
    path = project.root / "pipelines" / "plans" / "demo.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"set": {"epoch_count": 2}}))
    with pytest.raises(UsageError, match="epoch_count"):
        resolve(project, "demo")


@pytest.mark.parametrize("name", ["t;touch x;", "a b", "$(touch x)", "-x", "..", "a'b", "x" * 250])
def test_a_table_whose_name_no_command_line_takes_is_refused(project: Project, name: str) -> None:
    tables = project.pipelines / "tables"
    (tables / "table1.yaml").rename(tables / f"{name[:200]}.yaml")
    plan = yaml.safe_dump({"dataset": "shapes", "seeds": [0], "tables": {name: {}}})
    with pytest.raises(UserError, match="can have letters, digits"):
        add_plan(project, plan)
    with pytest.raises(UserError, match=r"Rename it|No table called"):
        read_table(project, name)


@pytest.mark.parametrize(
    "reports", ["../out", "/tmp/out", "C:\\out", "a/../../b", "re ports", "$HOME", "~/x", "a;b"]
)
def test_reports_stay_in_the_project_under_a_name_that_needs_no_quotes(
    project: Project, reports: str
) -> None:
    values = {"dataset": "shapes", "seeds": [0], "tables": {"table1": {"splits": {"classic-1/8": "1/8"}}}}
    with pytest.raises(UserError, match=r"leads out of the project|can have letters"):
        add_plan(project, yaml.safe_dump(values | {"reports": reports}))


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("ablations", "runs", ["x;touch y"]),
        ("tables", "cells", {"../../elsewhere": []}),
        ("ablations", "record", "/tmp/x.json"),
        ("ablations", "values", "0.1; touch y"),
        ("ablations", "param", "$(touch y)"),
        ("runs", "folder", "../x"),
        ("runs", "args", "--dataset shapes; touch y"),
        ("runs", "args", "--dataset $(touch y)"),
        ("figures", "runs", ["a/../../b"]),
    ],
)
def test_an_active_plan_that_was_edited_to_lead_elsewhere_is_refused(
    project: Project, section: str, key: str, value: object
) -> None:
    resolve(project, "demo").write(project)
    plan = yaml.safe_load(project.active_plan.read_text(encoding="utf-8"))
    next(iter(plan[section].values()))[key] = value
    project.active_plan.write_text(yaml.safe_dump(plan), encoding="utf-8")
    with pytest.raises(UserError, match=rf"{section}\..*{key}.*: .* u2pl plan demo writes it anew"):
        ActivePlan.read(project)


@pytest.mark.parametrize("weights", ["a\nb.pt", "a\x1bb.pt", "a\u2028b.pt", "a\\${b}.pt"])
def test_a_value_that_no_stage_can_pass_on_is_refused(project: Project, weights: str) -> None:
    values = {"dataset": "shapes", "seeds": [0], "tables": {"table1": {"splits": {"classic-1/8": "1/8"}}}}
    with pytest.raises(UsageError, match=r"Plan 'mine' cannot be run: .*(line break|backslash)"):
        add_plan(project, yaml.safe_dump(values | {"set": {"weights": weights}}))
