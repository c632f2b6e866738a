"""dvc.yaml under a real DVC, with a script in place of u2pl that writes each stage's outputs at once."""

import copy
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from u2pl.pipeline import ActivePlan, resolve
from u2pl.pipeline.plans import SECTIONS
from u2pl.project import Project

REPOSITORY = Path(__file__).parents[2]

PLAN = """
dataset: shapes
seeds: [0]
tables:
  table1: {rows: [SupOnly, U²PL (w/ CutMix)], splits: {classic-1/8: 1/8}}
  table7: {splits: {blender-1/8: 1/8}, values: [0.4, 0.2]}
figures:
  figA2: {split: 1/8}
"""

# What a stage reads decides what it writes, so that DVC sees a change go on to the stages behind it.
STAND_IN = r"""#!/bin/bash
set -euo pipefail
echo "$*" >> commands.log
command=$1 name=${2-}
while (($#)); do
  case $1 in
    --dataset) dataset=$2 ;; --split) split=$2 ;; --model) model=$2 ;; --into) into=$2 ;;
    --record) record=$2 ;;
  esac
  shift
done
case $command in
  prepare) folder=data/$dataset/splits/${split//\//_}; mkdir -p "$folder"; echo 1 > "$folder/labeled.txt" ;;
  train) mkdir -p models; md5sum params.yaml > "$model" ;;
  evaluate)
    mkdir -p "$into/$name/samples"
    for file in metrics.json confusion.csv; do cp "models/$name.pt" "$into/$name/$file"; done
    echo "{\"miou\": $(cksum < models/$name.pt | cut -c3-4).5}" > "$into/$name/scores.json"
    printf 'class,iou,pixels\nsky,50,10\n' > "$into/$name/iou.csv"
    printf 'truth,prediction,pixels,percent\nsky,sky,10,100\n' > "$into/$name/shares.csv"
    printf 'epoch,val/miou\n0,40\n1,50\n' > "$into/$name/history.csv" ;;
  ablate) mkdir -p "$(dirname "$record")"; cat results/runs/*/metrics.json > "$record" ;;
  figure) mkdir -p "$into"; for suffix in png svg; do cat results/runs/*/metrics.json > "$into/$name.$suffix"; done ;;
  table)
    mkdir -p reports/tables
    for suffix in md csv tex; do cat results/runs/*/metrics.json > reports/tables/$name.$suffix; done
    echo '{"U2PL": {"1/8": 50.5}}' > reports/tables/$name.json ;;
  report)
    mkdir -p reports/overview; touch reports/overview/curves.png
    cat reports/tables/* > reports/index.html ;;
esac
"""

pytestmark = pytest.mark.slow


class Workspace:
    """A clone of the project with a small plan and a stand-in for u2pl."""

    def __init__(self, root: Path, home: Path):
        self.project = Project(root)
        for name in ("params.yaml", "dvc.yaml", ".gitignore", ".dvcignore"):
            shutil.copy(REPOSITORY / name, root)
        shutil.copytree(REPOSITORY / "pipelines", root / "pipelines")
        (root / ".dvc").mkdir()
        for name in ("config", ".gitignore"):
            shutil.copy(REPOSITORY / ".dvc" / name, root / ".dvc")
        (root / "pipelines/plans/small.yaml").write_text(PLAN, encoding="utf-8")
        resolve(self.project, "small").write(self.project)
        stand_in = home / "u2pl"
        stand_in.write_text(STAND_IN)
        stand_in.chmod(0o755)
        self.home = home
        subprocess.run(["git", "init", "--quiet", str(root)], check=True)

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {
            "PATH": f"{self.home}{os.pathsep}{os.environ['PATH']}",
            "DVC_NO_ANALYTICS": "1",
            "DVC_SITE_CACHE_DIR": str(self.home / "site"),
            **{
                f"GIT_{who}_{what}": "a@example.org"
                for who in ("AUTHOR", "COMMITTER")
                for what in ("NAME", "EMAIL")
            },
        }

    def dvc(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command of DVC."""
        done = subprocess.run(
            [sys.executable, "-m", "dvc", *words],
            cwd=self.project.root,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0 or not check, done.stdout + done.stderr
        return done

    def dvc_json(self, *words: str) -> Any:
        """What a command of DVC prints as JSON."""
        return json.loads(self.dvc(*words).stdout)

    def commit(self) -> None:
        """Commit everything to git."""
        git = ["git", "-C", str(self.project.root), "-c", "user.name=A", "-c", "user.email=a@example.org"]
        subprocess.run([*git, "add", "--all"], check=True)
        subprocess.run([*git, "commit", "--quiet", "--message", "All"], check=True)

    def change(self, section: str, key: str, value: object) -> None:
        """Change a setting of params.yaml."""
        params = yaml.safe_load(self.project.params.read_text())
        params[section][key] = value
        self.project.params.write_text(yaml.safe_dump(params, sort_keys=False))

    def copied(self, folder: Path) -> "Workspace":
        """The same in another folder; nothing in it says where it lies."""
        other = copy.copy(self)
        other.project, other.home = Project(folder / "project"), folder / "home"
        shutil.copytree(self.project.root, other.project.root)
        shutil.copytree(self.home, other.home)
        return other

    def repro(self, *words: str) -> list[str]:
        """The u2pl commands that `dvc repro` ran, in order."""
        log = self.project.root / "commands.log"
        log.unlink(missing_ok=True)
        done = subprocess.run(
            [sys.executable, "-m", "dvc", "repro", *words],
            cwd=self.project.root,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return log.read_text().splitlines() if log.exists() else []


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    for name in ("project", "home"):
        (tmp_path / name).mkdir()
    return Workspace(tmp_path / "project", tmp_path / "home")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """In which everything has run once."""
    folder = tmp_path_factory.mktemp("workspace")
    for name in ("project", "home"):
        (folder / name).mkdir()
    workspace = Workspace(folder / "project", folder / "home")
    assert len(workspace.repro()) == 14
    return workspace


@pytest.fixture
def finished(template: Workspace, tmp_path: Path) -> Workspace:
    """A copy of it, the test's own."""
    return template.copied(tmp_path)


def commands(lines: list[str]) -> list[str]:
    return [line.split()[0] for line in lines]


def test_repro_runs_every_stage_once_each_after_what_it_needs_and_then_nothing(workspace: Workspace) -> None:
    lines = workspace.repro()
    assert sorted(commands(lines)) == sorted(
        ["prepare", *["train"] * 4, *["evaluate"] * 4, "ablate", "figure", *["table"] * 2, "report"]
    )
    order = {line: index for index, line in enumerate(lines)}
    where = {kind: [i for line, i in order.items() if line.startswith(kind)] for kind in set(commands(lines))}
    assert where["prepare"] == [0]
    plan = ActivePlan.read(workspace.project)
    for line, runs in {
        "table table1": plan.tables["table1"].cells,
        "table table7": plan.tables["table7"].cells,
        "figure figA2": plan.figures["figA2"].runs,
    }.items():
        evaluated = max(order[f"evaluate {run} --into results/runs"] for run in runs)
        assert evaluated < next(i for other, i in order.items() if other.startswith(line))
    assert where["ablate"][0] < order["table table7"]
    assert where["figure"][0] < where["report"][0]
    assert where["report"] == [len(lines) - 1]
    assert workspace.repro() == []


def test_the_words_of_a_stage_are_a_command_a_person_could_type(workspace: Workspace) -> None:
    lines = workspace.repro("evaluate", "pipelines/dvc.yaml")
    assert (
        "train --dataset shapes --split 1/8 --method u2pl --seed 0 "
        "--model models/shapes-1_8-u2pl-s0.pt --fresh"
    ) in lines
    assert "evaluate shapes-1_8-u2pl-s0 --into results/runs" in lines
    assert (
        "ablate --compare --param alpha0 0.4 0.2 --dataset shapes --split 1/8 --method u2pl --seed 0 "
        "--record results/table7/shapes-1_8-u2pl-by-alpha0-s0.json"
    ) in lines
    assert (
        "figure figA2 shapes-1_8-suponly-s0 shapes-1_8-u2pl-s0 --label=SupOnly --label=U²PL --into reports/figures"
    ) in lines


def test_a_hyper_parameter_of_one_method_leaves_the_other_methods_alone(finished: Workspace) -> None:
    params = yaml.safe_load(finished.project.params.read_text())
    params["u2pl"]["alpha0"] = 0.35
    finished.project.params.write_text(yaml.safe_dump(params))
    lines = finished.repro()
    assert commands(lines).count("train") == 3
    assert {"ablate", "figure", "report", "table"} <= set(commands(lines))
    assert not any("suponly" in line for line in lines if line.startswith(("train", "evaluate")))


def test_a_group_that_methods_share_trains_those_that_have_it_and_no_other(workspace: Workspace) -> None:
    plan = "{dataset: shapes, seeds: [0], tables: {methods: {splits: {classic-1/8: 1/8}}}}"
    (workspace.project.pipelines / "plans/all.yaml").write_text(plan)
    resolve(workspace.project, "all").write(workspace.project)
    assert len(workspace.repro("train")) == 1 + 12

    def trained(section: str, key: str, value: object) -> set[str]:
        params = yaml.safe_load(workspace.project.params.read_text())
        params[section][key] = value
        workspace.project.params.write_text(yaml.safe_dump(params))
        return {line.partition(" --method ")[2].split()[0] for line in workspace.repro("train")}

    assert trained("contrast", "M", 40) == {"u2pl", "u2pl-ael"}
    assert trained("teacher", "ema_decay", 0.9) == {"mt", "cutmix", "u2pl", "cps", "ael", "u2pl-ael"}
    assert trained("mixing", "cutmix_probability", 1.0) == {"cutmix", "u2pl"}
    assert trained("mt", "ema_decay", 0.8) == {"mt"}
    assert workspace.repro("train") == []


def test_a_recipe_of_another_data_set_and_a_new_method_touch_nothing(finished: Workspace) -> None:
    params = yaml.safe_load(finished.project.params.read_text())
    params["recipes"]["camvid"] = {"lr": 0.5}
    params["newcomer"] = {"alpha0": 0.1}
    finished.project.params.write_text(yaml.safe_dump(params))
    assert finished.repro() == []


def test_one_table_runs_only_what_it_shows(workspace: Workspace) -> None:
    assert sorted(commands(workspace.repro("pipelines/dvc.yaml:table-table1"))) == sorted(
        ["prepare", *["train", "evaluate"] * 2, "table"]
    )
    assert sorted(commands(workspace.repro("pipelines/dvc.yaml:table-table7"))) == sorted(
        ["train", "evaluate", "train", "evaluate", "ablate", "table"]
    )


def test_a_table_under_another_name_depends_on_the_file_that_it_is_of(workspace: Workspace) -> None:
    plan = workspace.project.pipelines / "plans/small.yaml"
    plan.write_text(
        "{dataset: shapes, seeds: [0], tables: {mine: {table: methods, rows: [MT], splits: {classic-1/8: 1/8}}}}"
    )
    resolve(workspace.project, "small").write(workspace.project)
    assert commands(workspace.repro("pipelines/dvc.yaml:table-mine")) == [
        "prepare",
        "train",
        "evaluate",
        "table",
    ]
    assert workspace.repro("pipelines/dvc.yaml:table-mine") == []
    table = workspace.project.pipelines / "tables/methods.yaml"
    table.write_text(f"{table.read_text(encoding='utf-8')}# changed\n", encoding="utf-8")
    assert workspace.repro("pipelines/dvc.yaml:table-mine") == ["table mine"]


def test_a_plan_without_ablations_and_figures_works(workspace: Workspace) -> None:
    resolve(workspace.project, "small", ["1"]).write(workspace.project)
    assert sorted(set(commands(workspace.repro()))) == ["evaluate", "prepare", "report", "table", "train"]
    assert workspace.repro() == []


def test_narrowing_the_rows_of_a_table_makes_the_table_again_and_trains_nothing(finished: Workspace) -> None:
    plan = finished.project.pipelines / "plans/small.yaml"
    plan.write_text(plan.read_text(encoding="utf-8").replace("SupOnly, ", ""), encoding="utf-8")
    resolve(finished.project, "small").write(finished.project)
    assert commands(finished.repro()) in (["table"], ["table", "report"])


def test_other_seeds_or_tables_make_tables_and_page_again_though_old_results_lie_there(
    workspace: Workspace,
) -> None:
    resolve(workspace.project, "small", ["1", "7"], [0, 1]).write(workspace.project)
    workspace.repro()
    resolve(workspace.project, "small", ["1", "7"]).write(workspace.project)
    assert sorted(commands(workspace.repro())) == ["report", "table", "table"]
    resolve(workspace.project, "small", ["1"]).write(workspace.project)
    assert commands(workspace.repro()) == ["report"]


def test_another_version_of_the_recipe_trains_again(workspace: Workspace) -> None:
    plan = resolve(workspace.project, "small", ["1"])
    plan.write(workspace.project)
    workspace.repro()
    plan.model_copy(update={"recipe_version": 0}).write(workspace.project)
    assert commands(workspace.repro()).count("train") == 2


def test_a_run_leaves_git_with_nothing_but_the_lock_file_to_see(workspace: Workspace) -> None:
    root = workspace.project.root
    git = ["git", "-C", str(root)]
    subprocess.run([*git, "add", "--all"], check=True)
    workspace.repro()
    status = subprocess.run(
        [*git, "status", "--porcelain", "--untracked-files=all"], capture_output=True, text=True, check=True
    )
    seen = {line[3:] for line in status.stdout.splitlines() if line.startswith(("??", " M"))}
    assert seen - {"commands.log"} == {"dvc.lock", "pipelines/dvc.lock"}


def test_a_stage_has_the_places_for_sections_that_a_plan_fills() -> None:
    wanted = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"]["train"]["do"]["params"]
    assert [word for word in wanted if "sections" in word] == [
        f"${{item.sections[{place}]}}" for place in range(SECTIONS)
    ]


def test_every_stage_says_what_it_is_for() -> None:
    stages = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"]
    for name, stage in stages.items():
        body = stage.get("do", stage)
        assert body["desc"], name
        assert shlex.split(body["cmd"])[:2] == ["u2pl", name]


# What DVC's own commands show, as its tutorials do


def test_metrics_and_plots_are_there_for_every_run_and_table(finished: Workspace) -> None:
    shown = finished.dvc_json("metrics", "show", "--json")
    values = {path: file["data"] for path, file in shown[""]["data"].items()}
    runs = ActivePlan.read(finished.project).runs
    for run in runs:
        assert 0 <= values[f"results/runs/{run}/scores.json"]["miou"] < 100
    assert values["reports/tables/table1.json"] == {"U2PL": {"1/8": 50.5}}
    finished.dvc("plots", "show", "--out", "plots")
    html = (finished.project.root / "plots/index.html").read_text(encoding="utf-8")
    assert html.count("vega") > len(runs)
    for title in ("IoU of each class, %", "Of the pixels of each class", "table1: mIoU", "table7: mIoU"):
        assert title in html
    assert html.count("toNumber(datum.epoch) + 1") >= 2, "curves count their epochs from 1"


def test_a_changed_setting_is_a_difference_of_parameters_and_of_metrics(finished: Workspace) -> None:
    finished.commit()
    finished.change("u2pl", "alpha0", 0.35)
    changed = finished.dvc_json("params", "diff", "--json")
    assert changed["params.yaml"]["u2pl.alpha0"] == {"old": None, "new": 0.35}
    finished.repro()
    different = finished.dvc_json("metrics", "diff", "--json")
    assert {path.split("/")[2] for path in different if path.startswith("results")} <= {
        run for run in ActivePlan.read(finished.project).runs if "u2pl" in run
    }
    assert different


def test_an_experiment_changes_a_setting_trains_what_has_it_and_is_listed(finished: Workspace) -> None:
    finished.commit()
    (finished.project.root / "commands.log").unlink()
    finished.dvc("exp", "run", "-S", "u2pl.alpha0=0.3", "--name", "more")
    lines = (finished.project.root / "commands.log").read_text().splitlines()
    assert {line for line in lines if line.startswith("train")} and not any(
        "suponly" in line for line in lines[:3]
    )
    (baseline,) = [e for e in finished.dvc_json("exp", "show", "--json") if e["rev"] != "workspace"]
    (experiment,) = baseline["experiments"]
    assert experiment["name"] == "more"
    found = experiment["revs"][0]["data"]
    assert found["params"]["params.yaml"]["data"]["u2pl"]["alpha0"] == 0.3
    assert "results/runs/shapes-1_8-u2pl-s0/scores.json" in found["metrics"]


def test_an_experiment_runs_apart_from_the_workspace_and_leaves_it_alone(finished: Workspace) -> None:
    finished.commit()
    before = {path: path.read_bytes() for path in finished.project.root.glob("*/runs/*/*.json")}
    finished.dvc("exp", "run", "--temp", "-S", "u2pl.alpha0=0.1", "-S", "recipe.lr=0.5")
    (baseline,) = [e for e in finished.dvc_json("exp", "show", "--json") if e["rev"] != "workspace"]
    ((experiment,),) = [each["revs"] for each in baseline["experiments"]]
    values = experiment["data"]["params"]["params.yaml"]["data"]
    assert (values["u2pl"]["alpha0"], values["recipe"]["lr"]) == (0.1, 0.5)
    assert {path: path.read_bytes() for path in before} == before
    assert finished.repro() == []
