"""A plan of eight runs under a real DVC, with a script in place of u2pl whose stages take milliseconds."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import written

from u2pl.files import write_json
from u2pl.pipeline import TrainStage, resolve, spec_of
from u2pl.pipeline.dvc_lock import locked
from u2pl.pipeline.scheduling import stages
from u2pl.project import Project
from u2pl.runs.staleness import facts
from u2pl.settings import Params, fingerprint

REPOSITORY = Path(__file__).parents[2]

PLAN = """
dataset: shapes
seeds: [0, 1]
tables:
  table1: {splits: {classic-1/8: 1/8}}
  table2: {splits: {blender-1/8: 1/8}}
"""

STAND_IN = r"""#!/bin/bash
# A stage prints that it begins, does nothing in the time that ./seconds says, and fails if ./broken has its words.
set -euo pipefail
words="$*" command=$1 name=${2-}
echo "begin $words" >> commands.log
while (($#)); do
  case $1 in
    --dataset) dataset=$2 ;; --split) split=$2 ;; --model) model=$2 ;; --into) into=$2 ;;
  esac
  shift
done
if [[ $command == train ]]; then
  echo "threads ${OMP_NUM_THREADS-} gpus ${CUDA_VISIBLE_DEVICES-}" >> slots.log
  trap 'kill $!; echo "saved $words" >> commands.log; exit 130' INT
  sleep "$(cat seconds)" & wait $!
fi
if grep --quiet --line-regexp --fixed-strings -- "$command ${model-$name}" broken; then
  echo "some progress"
  echo "Error: Loss is NaN at step 812." >&2
  exit 1
fi
case $command in
  prepare) folder=data/$dataset/splits/${split//\//_}; mkdir -p "$folder"; echo 1 > "$folder/labeled.txt" ;;
  train) mkdir -p models; echo "$words" > "$model" ;;
  evaluate)
    mkdir -p "$into/$name/samples"
    for file in confusion iou shares history; do echo a,b > "$into/$name/$file.csv"; done
    echo "{}" > "$into/$name/scores.json"
    cp "described/$name.json" "$into/$name/metrics.json" ;;
  table)
    mkdir -p reports/tables
    for run in $(grep "^  $name: {table" pipelines/plan.yaml | grep -o "[^ {]*: \[\[" | sed "s/: .*//"); do
      if [[ -f results/runs/$run/metrics.json ]]; then echo "$run 71.3"; else echo "$run —"; fi
    done > reports/tables/$name.md
    touch reports/tables/$name.csv reports/tables/$name.tex; echo "{}" > reports/tables/$name.json ;;
  report)
    mkdir -p reports/overview; touch reports/overview/curves.png
    cat reports/tables/*.md > reports/index.html ;;
esac
echo "end $words" >> commands.log
"""


def metrics_of(project: Project, stage: TrainStage) -> dict[str, Any]:
    """What a result of today says about the settings it was made with, no split being prepared."""
    params, spec = Params.read(project), spec_of(stage)
    resolved = params.resolve(spec, bfloat16=False)
    recorded = {
        "recipe": resolved.recipe.model_dump(mode="json"),
        "hyper": dict(resolved.hyper),
        "data": None,
    }
    known = facts(project, params, spec, recorded)
    source = f"seeded {params.values['splits']['seed']}"
    run = {
        **known,
        "name": resolved.name,
        "overrides": {},
        "flavor": "paper",
        "fingerprint": fingerprint(known),
    }
    return written.metrics(run, split_source=source)


class Toy:
    """A project with a plan, made in `folder`.

    Args:
        folder: that is empty.
        plan: as a file in pipelines/plans.
    """

    def __init__(self, folder: Path, plan: str = PLAN):
        self.root, self.home = folder / "project", folder / "home"
        self.root.mkdir(parents=True)
        self.home.mkdir()
        self.project = Project(self.root)
        for name in ("params.yaml", "dvc.yaml", ".gitignore", ".dvcignore"):
            shutil.copy(REPOSITORY / name, self.root)
        shutil.copytree(REPOSITORY / "pipelines", self.root / "pipelines")
        (self.root / ".dvc").mkdir()
        for name in ("config", ".gitignore"):
            shutil.copy(REPOSITORY / ".dvc" / name, self.root / ".dvc")
        (self.root / "pipelines/plans/toy.yaml").write_text(plan, encoding="utf-8")
        self.plan = resolve(self.project, "toy")
        self.plan.write(self.project)
        for name, stage in self.plan.runs.items():
            write_json(self.root / "described" / f"{name}.json", metrics_of(self.project, stage))
        self.break_()
        self.take(0)
        stand_in = self.home / "u2pl"
        stand_in.write_text(STAND_IN, encoding="utf-8")
        stand_in.chmod(0o755)
        self.environment = {
            **{key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"},
            "PATH": f"{self.home}{os.pathsep}{os.environ['PATH']}",
            "DVC_NO_ANALYTICS": "1",
            "DVC_SITE_CACHE_DIR": str(self.home / "site"),
        }
        subprocess.run(["git", "init", "--quiet", str(self.root)], check=True)

    def break_(self, *stages: str) -> None:
        """From now on these fail: `train models/NAME.pt`, `evaluate NAME`, `table NAME`."""
        (self.root / "broken").write_text("".join(f"{stage}\n" for stage in stages))

    def take(self, seconds: float) -> None:
        """From now on training takes so long."""
        (self.root / "seconds").write_text(str(seconds))

    def start(self, *words: str) -> "subprocess.Popen[str]":
        """`u2pl plan run` with these words, in a session of its own, as from a terminal."""
        return subprocess.Popen(
            [sys.executable, "-m", "u2pl_cli", "plan", "run", *words],
            cwd=self.root,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *words: str) -> tuple[int, str]:
        """Exit status and output of `u2pl plan run`."""
        with self.start(*words) as process:
            output, _ = process.communicate(timeout=300)
        return process.returncode, output

    @property
    def commands(self) -> list[str]:
        """What the stand-in was called with, and whether it came to its end, in order."""
        log = self.root / "commands.log"
        return log.read_text().splitlines() if log.exists() else []

    def recorded(self) -> dict[str, Any]:
        """The stages in DVC's lock files."""
        found = {stage.name: locked(self.project, stage.name) for stage in stages(self.plan)}
        return {name: entry for name, entry in found.items() if entry is not None}

    def status(self) -> str:
        """What DVC says is left to do."""
        done = subprocess.run(
            [sys.executable, "-m", "dvc", "status"],
            cwd=self.root,
            env=self.environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    def processes(self) -> list[psutil.Process]:
        """Those that live in the project."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.cwd().startswith(str(self.root)) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return found
