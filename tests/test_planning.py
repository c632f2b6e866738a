import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from u2pl.errors import UsageError, UserError
from u2pl.planning import ActivePlan, Binding, Table, bind, names, read_table, resolve
from u2pl.project import Project

REPOSITORY = Project(Path(__file__).parents[1])

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


def test_the_committed_plan_is_what_the_generator_gives_for_demo() -> None:
    assert REPOSITORY.active_plan.read_text(encoding="utf-8") == resolve(REPOSITORY, "demo").text()


def test_demo_is_four_methods_on_three_splits_and_two_ablations() -> None:
    plan = resolve(REPOSITORY, "demo")
    assert {(run.method, run.split) for run in plan.runs.values()} == {
        (method, split) for method in ("suponly", "mt", "cutmix", "u2pl") for split in ("1/16", "1/8", "1/4")
    }
    assert [(a.param, a.values) for a in plan.ablations.values()] == [
        ("negatives", "unreliable reliable all"),
        ("alpha0", "0.4 0.3 0.2 0.1"),
    ]


def test_camvid_prepares_from_a_folder_relative_to_the_project() -> None:
    plan = resolve(REPOSITORY, "camvid")
    assert [stage.args for stage in plan.prepare.values()] == [
        "--dataset camvid --split 1/8 --root ../shared/camvid"
    ]
    assert plan.reports == "reports/camvid"
    assert not plan.ablations


@pytest.mark.parametrize("name", names(REPOSITORY, "tables"))
def test_every_table_resolves_on_the_papers_own_data_set(project: Project, name: str) -> None:
    plan = add_plan(project, f"{{dataset: voc, seeds: [0], tables: {{{name}: {{}}}}}}")
    asked = [cell for cell in read_table(project, name).cells() if not cell.cited]
    ablated = sum(len(stage.values.split()) for stage in plan.ablations.values())
    assert sum(len(stage.cells) for stage in plan.evaluations.values()) + ablated == len(asked)


def test_a_plan_is_narrowed_to_tables_by_name_or_number(project: Project) -> None:
    plan = resolve(project, "demo", ["7", "table4"])
    assert list(plan.tables) == ["table4", "table7"]
    assert not plan.runs
    assert list(plan.prepare) == ["shapes-1_8"]


def test_several_seeds_multiply_runs_and_ablations(project: Project) -> None:
    plan = add_plan(
        project,
        "{dataset: shapes, seeds: [0, 1, 2], tables: {table1: {rows: [MT], splits: {classic-1/8: 1/8}},"
        " table7: {splits: {blender-1/8: 1/8}}}}",
    )
    assert list(plan.runs) == ["shapes-1_8-mt-s0", "shapes-1_8-mt-s1", "shapes-1_8-mt-s2"]
    assert [stage.seed for stage in plan.ablations.values()] == [0, 1, 2]
    assert len({stage.folder for stage in plan.ablations.values()}) == 3


def test_a_new_table_is_one_new_file_whose_settings_reach_the_command(project: Project) -> None:
    table = SMALL | {"rows": [{"label": "no DPA", "method": "u2pl", "set": {"dpa": False, "recipe.lr": 0.1}}]}
    (project.pipelines / "tables/mine.yaml").write_text(yaml.safe_dump(table))
    plan = add_plan(project, "{dataset: shapes, seeds: [0], tables: {mine: {}}}")
    run = plan.runs["shapes-1_8-u2pl-lr=0.1-dpa=False-s0"]
    assert run.args.endswith("--seed 0 --set=u2pl.dpa=false --set=recipe.lr=0.1")


def test_a_run_that_two_tables_show_is_trained_once_and_evaluated_for_each(project: Project) -> None:
    (project.pipelines / "tables/mine.yaml").write_text(yaml.safe_dump(SMALL))
    plan = add_plan(
        project,
        "{dataset: shapes, seeds: [0], tables: {mine: {}, table1: {rows: [MT], splits: {classic-1/8: 1/8}}}}",
    )
    assert list(plan.runs) == ["shapes-1_8-mt-s0", "shapes-1_4-mt-s0"]
    assert [(e.run, e.group) for e in plan.evaluations.values()] == [
        ("shapes-1_8-mt-s0", "results/mine"),
        ("shapes-1_4-mt-s0", "results/mine"),
        ("shapes-1_8-mt-s0", "results/table1"),
    ]


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
        ("paper", None, "not available yet.*later"),
        ("dmeo", None, "Did you mean 'demo'"),
        ("demo", ["table5"], "No table of plan 'demo' called 'table5'"),
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
        ({"columns": []}, "either columns or ablate"),
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
        resolve(project, "demo", ["7"])


def test_settings_of_a_plan_reach_every_run_that_has_them_and_no_other(project: Project) -> None:
    path = project.root / "pipelines" / "plans" / "demo.yaml"
    values = yaml.safe_load(path.read_text()) | {"set": {"epochs": 2, "ema_decay": 0.9, "alpha0": 0.5}}
    path.write_text(yaml.safe_dump(values))
    plan = resolve(project, "demo", ["table1", "table7"])
    for run in plan.runs.values():
        assert "--set=recipe.epochs=2" in run.args
        assert ("ema_decay=0.9" in run.args) == (run.method != "suponly")
    (ablation,) = plan.ablations.values()
    assert "--set=u2pl.ema_decay=0.9" in ablation.args


def test_a_plan_with_a_setting_that_nothing_has_is_refused(project: Project) -> None:
    path = project.root / "pipelines" / "plans" / "demo.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"set": {"epoch_count": 2}}))
    with pytest.raises(UsageError, match="epoch_count"):
        resolve(project, "demo")
