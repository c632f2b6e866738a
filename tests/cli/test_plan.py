import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import forked
import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(REPOSITORY / name, tmp_path)
    shutil.copytree(REPOSITORY / "pipelines", tmp_path / "pipelines")
    return tmp_path


def u2pl(project: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return forked.run(*words, cwd=project, environment=os.environ)


def test_plan_prints_what_will_run_and_the_next_command(project: Path) -> None:
    done = u2pl(project, "plan", "camvid")
    assert done.returncode == 0, done.stderr
    assert "camvid-1_8-u2pl-s0" in done.stdout
    assert done.stdout.splitlines()[-1].endswith("Next: dvc repro")
    assert yaml.safe_load((project / "pipelines/plan.yaml").read_text())["plan"] == "camvid"


def test_plan_as_json_can_be_read_by_a_script(project: Path) -> None:
    done = u2pl(project, "plan", "demo-full", "--table", "4", "--json")
    assert list(json.loads(done.stdout)["tables"]) == ["table4"]


def test_the_plan_of_the_paper_says_what_is_shared_how_much_it_is_what_departs_and_what_is_missing(
    project: Path,
) -> None:
    done = u2pl(project, "plan", "paper", "--seeds", "0,1,2")
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("voc-blender-1_4-u2pl-s0 "))
    assert "1.27 M" in line  # 80 epochs x 496 steps x 32 images
    shown = re.search(r"voc-blender-1_4-u2pl-s2 (.*?)\n\S", done.stdout, re.DOTALL)
    assert shown
    assert re.findall(r"table\w+", shown[1]) == [
        f"table{k}" for k in ("2", "4", "5", "6", "7", "A4", "A5", "A6")
    ]
    summary = done.stdout[done.stdout.index("460 runs") :]
    assert "14 tables and 6 figures" in summary
    assert "image passes" in summary and "add --measure" in summary
    assert "OHEM" not in summary
    assert "Missing: voc is not here yet" in summary
    assert "Missing: Where does cityscapes lie? Add --root FOLDER" in summary


def test_hours_follow_from_a_measured_step(project: Path) -> None:
    done = u2pl(project, "plan", "demo-full", "--table", "7", "--measure")
    assert done.returncode == 0, done.stderr
    assert re.search(r"about [0-9.e-]+ hours on one device of this machine", done.stdout)


@pytest.mark.parametrize("seeds", ["one", "0,", "-1"])
def test_seeds_that_are_no_numbers_are_refused(project: Path, seeds: str) -> None:
    done = u2pl(project, "plan", "demo", f"--seeds={seeds}")
    assert (done.returncode, done.stdout) == (2, "")
    assert "Example: --seeds 0,1,2" in done.stderr


def test_an_unknown_plan_is_one_sentence_and_exit_2_and_changes_nothing(project: Path) -> None:
    before = (project / "pipelines/plan.yaml").read_text()
    done = u2pl(project, "plan", "dmeo")
    assert (done.returncode, done.stdout) == (2, "")
    known = "camvid, demo, demo-full, paper, photos, variants"
    assert done.stderr == f"Error: No plan called 'dmeo'. Did you mean 'demo'? Known: {known}.\n"
    assert (project / "pipelines/plan.yaml").read_text() == before


def test_table_and_report_work_before_anything_has_been_trained(project: Path) -> None:
    table = u2pl(project, "table", "methods")
    assert table.returncode == 0, table.stderr
    assert "| CutMix | — |" in table.stdout
    assert table.stdout.splitlines()[-1].endswith("Next: u2pl report")
    report = u2pl(project, "report")
    assert report.returncode == 0, report.stderr
    assert "No run has finished yet." in (project / "reports/index.html").read_text()
