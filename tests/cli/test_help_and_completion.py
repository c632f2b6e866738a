"""Help says what is so now; a shell completes names that are there; neither loads anything heavy."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import REPOSITORY, edit_params
from u2pl_cli.app import run

from u2pl.files import write_json
from u2pl.project import Project
from u2pl.settings import hyper


@pytest.fixture
def here(tiny_project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(tiny_project.root)
    monkeypatch.setenv("COLUMNS", "200")
    return tiny_project


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What a command's help says, on one line."""

    def help_of(*words: str) -> str:
        assert run([*words, "--help"]) == 0
        return re.sub(r"[\s│]+", " ", capsys.readouterr().out)

    return help_of


# ---- help ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["train", "ablate"])
def test_defaults_of_params_yaml_are_shown_as_they_stand_there(
    here: Project, shown: Callable[..., str], command: str
):
    edit_params(here, lambda values: values["default"].update(dataset="tiny", method="mt", seed=7))
    said = shown(command)
    for default in (
        "(tiny, of params.yaml)",
        "(mt, of params.yaml)",
        "(7, of params.yaml)",
        "(1/8, of params.yaml)",
    ):
        assert f"[default: {default}]" in said


def test_the_methods_of_the_help_are_those_that_are_there(here: Project, shown: Callable[..., str]):
    assert "cutmix" in shown("train") and "pc2seg*" in shown("train")
    edit_params(here, lambda values: [values.pop(name) for name in ("cutmix", "pc2seg")])
    said = shown("train")
    listed = re.search(r"One of ([\w, -]+)\.", said)
    assert listed and listed[1].split(", ") == sorted(hyper.names() - {"cutmix", "pc2seg"})


def test_a_method_in_a_file_of_its_own_is_listed_without_being_imported(
    here: Project, shown: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "own.py").write_text('raise ImportError\n\n\n@method("my-own")\nclass Own: ...\n')
    import u2pl.methods

    monkeypatch.setattr(u2pl.methods.__spec__, "submodule_search_locations", [str(tmp_path / "methods")])
    edit_params(here, lambda values: values.update({"my-own": {}}))
    assert re.search(r"One of [^.]*\bmy-own\b", shown("train"))


def test_help_outside_a_project_names_every_method_and_says_where_defaults_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shown: Callable[..., str]
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("U2PL_ROOT", raising=False)
    said = shown("train")
    assert "suponly" in said and "[default: (of params.yaml)]" in said


# ---- completion ------------------------------------------------------------------------------------------

EACH = """
import contextlib, io, json, os, sys
from u2pl_cli.app import run

found = []
for line in json.load(sys.stdin):
    words = line.split(" ")
    os.environ.update(_U2PL_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=str(len(words) - 1))
    with contextlib.redirect_stdout(io.StringIO()) as out:
        run([])
    found.append(out.getvalue().split())
heavy = sorted({"torch", "numpy", "pandas", "mlflow", "dvc", "matplotlib"} & set(sys.modules))
json.dump([found, heavy], sys.stdout)
"""
LINES = {
    "u2pl train --method su": ["suponly"],
    "u2pl train --dataset ": ["tiny"],
    "u2pl train --dataset tiny --split ": ["1/4", "full"],
    "u2pl train --set alpha": ["alpha0="],
    "u2pl train --method suponly --set alpha": [],
    "u2pl train --set contrast.ta": ["contrast.tau="],
    "u2pl ablate 0.1 --param r_l,r_": ["r_l,r_h", "r_l,r_l"],
    "u2pl ablate 0.1 --device c": ["cpu", "cuda", "cuda:0"],
    "u2pl evaluate ": ["tiny-1_4-u2pl-s0", "tiny-1_4-u2pl-s1"],
    "u2pl status tiny-1_4-u2pl-s1": ["tiny-1_4-u2pl-s1"],
    "u2pl predict tiny-1_4-u2pl-s0": ["tiny-1_4-u2pl-s0.u2pl", "tiny-1_4-u2pl-s0"],
    "u2pl figure fig": ["fig1", "fig2", "fig4", "figA1", "figA2"],
    "u2pl plan d": ["demo", "demo-full"],
    "u2pl plan r": ["run"],
    "u2pl plan demo --table table": None,
    "u2pl table meth": ["methods"],
    "u2pl prepare --dataset s": ["shapes"],
    "u2pl prepare --source see": ["seeded"],
    "u2pl eval": ["evaluate"],
}


def test_a_shell_completes_what_is_there_and_loads_nothing_heavy(here: Project):
    for name in ("tiny-1_4-u2pl-s0", "tiny-1_4-u2pl-s1"):
        write_json(here.runs / name / "run.json", {})
    (here.root / "tiny-1_4-u2pl-s0.u2pl").touch()
    shutil.copytree(REPOSITORY / "pipelines", here.root / "pipelines", dirs_exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", EACH],
        input=json.dumps([*LINES]),
        capture_output=True,
        text=True,
        cwd=here.root,
    )
    found, heavy = json.loads(done.stdout)
    found = dict(zip(LINES, found, strict=True))
    assert heavy == []
    assert len(found.pop("u2pl plan demo --table table")) == 14
    assert found == {line: names for line, names in LINES.items() if names is not None}


def test_where_nothing_can_be_known_nothing_is_completed_and_nothing_said(tmp_path: Path):
    for line in ("u2pl evaluate ", "u2pl train --method ", "u2pl train --split ", "u2pl plan demo --table t"):
        environment = {
            "_U2PL_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(line.count(" ")),
        }
        done = subprocess.run(
            [sys.executable, "-m", "u2pl_cli"],
            env={**os.environ, **environment, "U2PL_ROOT": str(tmp_path)},
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        assert (done.stdout.strip(), done.stderr) == ("", ""), line


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_the_completion_of_each_shell_is_shown(tmp_path: Path, shell: str):
    done = subprocess.run(
        [sys.executable, "-m", "u2pl_cli", "--show-completion", shell],
        env={**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"},
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "_U2PL_COMPLETE" in done.stdout


def test_bash_completes_once_it_is_installed(tmp_path: Path, here: Project):
    """In a home of its own, by the script that is written there."""
    environment = {
        **os.environ,
        "HOME": str(tmp_path / "home"),
        "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1",
    }
    (tmp_path / "home").mkdir()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "u2pl").write_text(f'#!/bin/sh\nexec {sys.executable} -m u2pl_cli "$@"\n')
    (tmp_path / "bin" / "u2pl").chmod(0o755)
    environment["PATH"] = f"{tmp_path / 'bin'}:{environment['PATH']}"
    installed = subprocess.run(
        ["u2pl", "--install-completion", "bash"],
        env=environment,
        capture_output=True,
        text=True,
        cwd=here.root,
    )
    assert installed.returncode == 0, installed.stderr
    script = (
        'source "$HOME/.bashrc"; COMP_WORDS=(u2pl train --method su); COMP_CWORD=3; '
        'by=$(complete -p u2pl | sed "s/.*-F \\([^ ]*\\).*/\\1/"); $by u2pl; echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", script], env=environment, capture_output=True, text=True, cwd=here.root
    )
    assert done.stdout.split() == ["suponly"], done.stderr
