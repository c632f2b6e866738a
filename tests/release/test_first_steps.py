"""The wheel in an environment with what it declares and nothing else: what somebody does there first."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from tiny import REPOSITORY

import u2pl
from u2pl.pipeline.new_project import FILES

pytestmark = pytest.mark.slow
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(programs: Path, tmp_path: Path) -> Run:
    """Runs a program of that environment, with nothing of ours around it: run(folder, "u2pl", "doctor")."""
    git = shutil.which("git")
    assert git is not None
    environment = {
        "PATH": f"{programs}:{Path(git).parent}",
        "HOME": str(tmp_path),
        "OMP_NUM_THREADS": "1",
    }

    def run(where: Path, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(words, cwd=where, env=environment, capture_output=True, text=True, timeout=300)

    return run


def test_every_module_can_be_imported_with_nothing_but_what_the_wheel_declares(run: Run, tmp_path: Path):
    for name, status in {"torch": 0, "pytest": 1, "onnx": 1, "pip": 1}.items():
        assert run(tmp_path, "python", "-c", f"import {name}").returncode == status, name
    script = (
        "import importlib, pkgutil, u2pl, u2pl_cli\n"
        "assert 'environment' in u2pl.__file__ and 'environment' in u2pl_cli.__file__\n"
        "names = [m.name for p in (u2pl, u2pl_cli) for m in pkgutil.walk_packages(p.__path__, p.__name__ + '.')]\n"
        "[importlib.import_module(name) for name in names if not name.endswith('__main__')]\n"
        "print(len(names))"
    )
    done = run(tmp_path, "python", "-c", script)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 150


def test_the_first_steps_lead_to_a_page_and_to_predictions(run: Run, tmp_path: Path):
    def say(words: str, where: Path) -> str:
        done = run(where, *words.split())
        assert done.returncode == 0, words + done.stdout + done.stderr
        return done.stdout

    assert say("u2pl --version", tmp_path) == f"u2pl {u2pl.__version__}\n"
    say("u2pl init work", tmp_path)
    work = tmp_path / "work"
    assert f"u2pl: {u2pl.__version__}." in say("u2pl doctor", work)
    assert (work / ".dvc").is_dir() and (work / ".git").is_dir()
    assert {path.relative_to(work) for pattern in FILES for path in work.glob(pattern)} == {
        path.relative_to(REPOSITORY) for pattern in FILES for path in REPOSITORY.glob(pattern)
    }
    say("u2pl prepare --dataset shapes --split 1/32", work)
    say(
        "u2pl train --dataset shapes --split 1/32 --name first --limit-batches 2"
        " --set epochs=2 --set warm_start_epochs=1",
        work,
    )
    say("u2pl track sync", work)  # training waits 30 s for its mirror, which a busy machine may not keep to
    assert (work / "mlflow.db").is_file()
    say("u2pl evaluate first --into results/runs", work)
    say("u2pl report", work)
    assert "<html" in (work / "reports/index.html").read_text()

    away = tmp_path / "away"  # the network is one file, and needs no project
    (away / "photos").mkdir(parents=True)
    for path in sorted((work / "data/shapes/images").iterdir())[:3]:
        shutil.copy(path, away / "photos")
    shutil.copy(work / "runs/first/first.u2pl", away)
    say("u2pl predict first.u2pl photos --out out", away)
    masks = list((away / "out/masks").iterdir())
    assert len(masks) == 3
    for mask in masks:
        with Image.open(mask) as written, Image.open(away / "photos" / mask.name) as photo:
            assert written.size == photo.size
    refused = run(away, "u2pl", "export", "first.u2pl", "--onnx")  # an extra, which is not installed
    assert refused.returncode == 1 and "pip install 'u2pl[onnx]'" in refused.stderr
