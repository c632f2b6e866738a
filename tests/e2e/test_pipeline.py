"""The whole pipeline for real: DVC, training, evaluation, an ablation, tables, the page, MLflow."""

import re
import subprocess
import sys
import time

import pytest
from e2e.under_dvc import environment, put_under_dvc
from tiny import edit_params

from u2pl.files import read_json
from u2pl.pipeline import resolve
from u2pl.project import Project

PLAN = """
dataset: tiny
seeds: [0]
tables:
  table1: {rows: [SupOnly, U²PL (w/ CutMix)], splits: {classic-1/4: 1/4}}
  table4: {splits: {blender-1/4: 1/4}}
  table6: {splits: {blender-1/4: 1/4}, rows: [none (MT), L_c + Q_c + DPA + PRT]}
"""

pytestmark = [pytest.mark.slow, pytest.mark.mlflow]


def repro(project: Project) -> str:
    """What `dvc repro` prints; it must succeed."""
    surroundings = environment(project) | {"MLFLOW_DISABLE_TELEMETRY": "true"}
    surroundings.pop("U2PL_TRACKING", None)
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "repro"],
        cwd=project.root, env=surroundings, capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_one_command_makes_tables_page_and_tracked_runs_and_a_second_does_nothing(
    tiny_project: Project,
) -> None:
    root = tiny_project.root
    put_under_dvc(tiny_project, PLAN)
    edit_params(tiny_project, lambda values: values["recipes"]["tiny"].update(epochs=2))
    resolve(tiny_project, "tiny").write(tiny_project)

    repro(tiny_project)

    supervised = read_json(root / "results/runs/tiny-1_4-suponly-s0/metrics.json")["miou"]["last"]
    table = (root / "reports/tables/table1.md").read_text()
    assert f"{supervised:.2f}" in table
    assert f"{read_json(root / 'runs/tiny-1_4-u2pl-s0/metrics.json')['miou']['last']:.2f}" in table
    page = (root / "reports/index.html").read_text()
    assert "data:image/webp;base64," in page
    assert not re.search(r"(src|srcset|data)=.http|<link|<script[^>]*\bsrc|@import|url\(.?http", page)
    # Each run says what MLflow calls it, and how it is served; nothing serves it here, so there is no link.
    assert page.count("<span>run in MLflow</span>") == 5 and "mlflow ui --backend-store-uri" in page
    assert "127.0.0.1" not in page

    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("u2pl")
    assert experiment is not None
    # The stages that compare do not wait for their copy in the store.
    for _ in range(120):
        runs = client.search_runs([experiment.experiment_id])
        parents = [run for run in runs if run.data.tags.get("u2pl.kind") == "ablation"]
        # Runs that were finished before are referred to, and not copied.
        compared = [key for run in runs for key in run.data.tags if key.startswith("u2pl.ablation/")]
        if (len(parents), len(compared)) == (2, 4):
            break
        time.sleep(1)
    assert len(parents) == 2
    # unreliable, reliable, all; and all once more for Table 6
    assert len(compared) == 4
    assert not [run for run in runs if run.data.tags.get("mlflow.parentRunId")]
    finished = [run for run in runs if run.data.tags.get("mlflow.runName") == "tiny-1_4-u2pl-s0"]
    assert {run.info.status for run in finished} == {"FINISHED"}
    assert {"val/miou", "reliable/share", "gamma_t", "lambda_u"} <= finished[0].data.metrics.keys()

    written = {path: path.stat().st_mtime_ns for path in (root / "runs").glob("*/metrics.json")}
    assert "Running stage" not in repro(tiny_project)

    edit_params(tiny_project, lambda values: values["u2pl"].update(alpha0=0.3))
    repro(tiny_project)
    again = [p.parent.name for p, time in written.items() if p.exists() and p.stat().st_mtime_ns != time]
    assert again
    assert all("u2pl" in name for name in again)
