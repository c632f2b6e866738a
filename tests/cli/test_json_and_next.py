"""What programs read is JSON and nothing else; what people are to type next can be pasted."""

import json
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import REPOSITORY
from typer.main import get_command
from u2pl_cli.app import app, run

from u2pl.escaping import command_line
from u2pl.project import Project

RUN = "tiny-1_4-suponly-s0"


@pytest.fixture
def here(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with a finished run and an active plan."""
    root = shutil.copytree(trained, tmp_path / "project", dirs_exist_ok=True)
    shutil.copytree(REPOSITORY / "pipelines", root / "pipelines", dirs_exist_ok=True)
    monkeypatch.chdir(root)
    monkeypatch.setenv("U2PL_TRACKING", "none")
    monkeypatch.delenv("U2PL_ROOT", raising=False)
    return Project(root)


@pytest.fixture
def answer(capsys: pytest.CaptureFixture[str]) -> Callable[[str], Any]:
    """What a command prints with --json, as a program reads it."""

    def read(words: str) -> Any:
        assert run([*words.split(), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return read


def test_all_commands_but_those_that_only_do_something_speak_json():
    commands: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]
    without = {
        name
        for name, command in commands.items()
        if not hasattr(command, "commands") and not any("--json" in p.opts for p in command.params)
    }
    assert without == {"init"}


@pytest.mark.slow
def test_every_command_about_a_run_prints_what_a_program_can_read(
    here: Project, answer: Callable[[str], Any]
):
    data = "--dataset tiny --split 1/4"
    assert answer(f"train {data} --method suponly")["folder"].endswith(f"runs/{RUN}")
    assert answer(f"evaluate {RUN}")["miou"]["reported"] >= 0
    (model,) = answer(f"export {RUN} --out out")
    assert Path(model["file"]).stat().st_size == model["bytes"] and model["format"] == "u2pl"
    (other,) = answer(f"export {RUN} --out out --torchscript")
    assert other["format"] == "torchscript" and other["largest_difference"] < 1e-3
    assert [each["file"] for each in answer("models out")] == [model["file"]]
    assert answer(f"predict {model['file']} pictures/images --out masks")["images"] > 0
    drawn = answer(f"figure fig4 {RUN} {RUN}")
    assert drawn["runs"] == [RUN, RUN] and all(Path(file).is_file() for file in drawn["files"])
    assert answer("status " + RUN)["status"]["state"] == "done"
    assert answer("splits audit")[0]["dataset"] == "tiny"
    assert answer(f"prepare {data}")["counts"]["labeled"] == 4


def test_every_command_about_a_plan_prints_what_a_program_can_read(
    here: Project, answer: Callable[[str], Any]
):
    assert answer("plan demo")["plan"] == "demo"
    assert answer("status")["plan"] == "demo"
    table = answer("table methods")
    assert all((here.root / file).is_file() for file in table["files"])
    assert {cell["row"] for cell in table["cells"]} >= {"CutMix"}
    assert all(cell["mean"] is None and cell["runs"] == [] for cell in table["cells"])
    report = answer("report")
    assert Path(report["report"]).is_file() and report["headlines"] == []


# ---- where it is computed --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        "train --dataset tiny --split 1/4",
        "ablate --param lr 0.1 --dataset tiny --split 1/4",
        f"evaluate {RUN}",
        f"predict {RUN} pictures",
        f"check {RUN}",
        f"figure reliability {RUN}",
    ],
)
def test_a_device_that_is_not_there_is_refused_by_whatever_computes(
    here: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: str
):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    before = sorted(here.runs.rglob("*"))
    assert run([*words.split(), "--device", "cuda"]) == 1
    said = capsys.readouterr()
    assert (
        said.err
        == "Error: --device cuda: torch finds no GPU on this machine, only its cpu. Use --device cpu\n"
    )
    assert run([*words.split(), "--device", "tpu"]) == 2
    assert sorted(here.runs.rglob("*")) == before


@pytest.mark.slow
def test_the_device_is_in_no_name_and_no_setting_but_told_with_the_run(
    here: Project, answer: Callable[[str], Any]
):
    shutil.rmtree(here.runs)
    found = answer("train --dataset tiny --split 1/4 --method suponly --set epochs=1 --device cpu")
    assert found["name"] == "tiny-1_4-suponly-epochs=1-s0" and "device" not in found["recipe"]
    folder = Path(found["folder"])
    assert json.loads((folder / "run.json").read_text())["tags"]["device"] == "cpu"
    first = json.loads((folder / "events.jsonl").read_text().splitlines()[0])
    assert (first["event"], first["message"]) == ("start", "on cpu")
    assert answer("train --dataset tiny --split 1/4 --method suponly --set epochs=1")["name"] == found["name"]


# ---- what to type next -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["u2pl", "evaluate", "shapes-1_8-u2pl-alpha0=0.3-s0"],
            "u2pl evaluate shapes-1_8-u2pl-alpha0=0.3-s0",
        ),
        (["u2pl", "train", "--set", "r_l,r_h=3,20"], 'u2pl train --set "r_l,r_h=3,20"'),
        (["cd", "my boats"], 'cd "my boats"'),
        (["cd", "C:\\Users\\me"], 'cd "C:\\Users\\me"'),
        (["u2pl", "--x=1.5"], 'u2pl "--x=1.5"'),
        (["u2pl", "it's [x] *"], 'u2pl "it\'s [x] *"'),
        (["u2pl", "$HOME"], "u2pl '$HOME'"),
    ],
)
def test_a_command_needs_quotes_only_where_some_shell_does_and_then_double_ones(words: list[str], line: str):
    assert command_line(*words) == line


@given(
    st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cs"])), min_size=1
    )
)
@settings(
    deadline=None, suppress_health_check=[HealthCheck.too_slow]
)  # the table of all characters is made once
def test_a_pasted_command_has_the_words_that_it_was_made_of(words: list[str]):
    assert shlex.split(command_line(*words)) == words


@pytest.mark.parametrize(
    "shell", [name for name in ("bash", "dash", "zsh", "fish", "pwsh") if shutil.which(name)]
)
def test_the_shells_that_are_here_take_a_command_as_it_was_meant(shell: str):
    words = [
        "a b",
        "x=1",
        "r_l,r_h=3,20",
        "[1, 2]",
        "it's",
        "C:\\a",
        "~",
        "#",
        "*",
        "ä",
        "(x)",
        "a;b",
        "a&b|c<d>e",
        "{a,b}",
    ]
    python = f'{command_line(shutil.which("python3") or "python3")} -c "import sys; print(sys.argv[1:])"'
    done = subprocess.run(
        [shell, "-c", f"{python} {command_line(*words)}"],
        capture_output=True,
        text=True,
        env={"PYTHONUTF8": "1"},
    )
    assert done.stdout.strip() == str(words), done.stderr


def test_a_next_command_is_alone_on_its_line_however_narrow_the_terminal(
    here: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "20")
    folder = here.root / "a [bold] folder"
    for words, following in (
        (f"evaluate {RUN}", "u2pl report"),
        ("train --dataset tiny --split 1/4 --method suponly", f"u2pl evaluate {RUN}"),
        ("prepare --dataset tiny --split 1/4", "u2pl train --dataset tiny --split 1/4"),
        ("plan demo", "dvc repro"),
        ("table methods", "u2pl report"),
    ):
        assert run(words.split()) == 0
        assert capsys.readouterr().out.splitlines()[-1] == f"Next: {following}"
    assert run(["export", RUN, "--out", str(folder)]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("Next: "))
    words = shlex.split(line.removeprefix("Next: "))
    assert words[:2] == ["u2pl", "predict"] and Path(words[2]).is_file()
    assert run(["init", str(folder / "my boats")]) == 0
    *_, change, prepare = capsys.readouterr().out.splitlines()
    assert shlex.split(change) == ["Next:", "cd", str(folder / "my boats")]
    assert prepare == "Next: u2pl prepare --dataset shapes --split 1/8"
