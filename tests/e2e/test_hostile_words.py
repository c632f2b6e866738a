"""Names that are no plain words: class names through every command, values and labels through a real DVC."""

import os
import pty
import subprocess
from collections.abc import Callable
from pathlib import Path

import forked
import pytest
import yaml
from e2e.test_dvc_stages import STAND_IN, Workspace
from tiny import draw_tiny, edit_params, make_project

from u2pl.files import read_json
from u2pl.pipeline import resolve
from u2pl.project import Project

pytestmark = pytest.mark.slow

CLASSES = {
    "markup": ["[/red]x", "[bold]", "[link=http://x]y[/link]", ":smile:"],
    "formulas": ["=1+1", "@SUM(A1)", "-cmd", "\t=2"],
    "terminal": ["\x1b]0;owned\x07", "\x1b[31mred", "\x9b31m", "a\rb\u202ec"],
    "documents": ["a|b`*_", "<script>alert(1)</script>", "[x](javascript:x)", "q\"'&<>$\\%#{}~^\n\nz"],
}
PLAN = """
dataset: tiny
seeds: [0]
tables:
  table1: {rows: [SupOnly], splits: {classic-1/4: 1/4}}
"""


def seen(words: list[str], cwd: Path) -> str:
    """What a command shows on a terminal; it must succeed."""
    reading, writing = pty.openpty()
    environment = os.environ | {"U2PL_TRACKING": "none", "TERM": "xterm", "COLUMNS": "150"}
    process = forked.start(words, cwd, environment, (writing, writing))
    os.close(writing)
    shown = b""
    while True:
        try:
            piece = os.read(reading, 65536)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        shown += piece
    os.close(reading)
    process.join()
    text = shown.decode(errors="replace")
    assert process.exitcode == 0, text
    return text


@pytest.mark.parametrize("kind", CLASSES)
def test_class_names_are_plain_text_in_every_command(
    tmp_path: Path, u2pl: Callable[..., subprocess.CompletedProcess[str]], kind: str
) -> None:
    classes = CLASSES[kind]
    project = make_project(tmp_path)
    draw_tiny(tmp_path / "pictures")
    description = tmp_path / "pictures" / "tiny.yaml"
    values = yaml.safe_load(description.read_text())
    description.write_text(yaml.safe_dump(values | {"classes": classes}))
    edit_params(project, lambda values: values["recipes"]["tiny"].update(epochs=1))
    (project.pipelines / "plans/tiny.yaml").write_text(PLAN)
    resolve(project, "tiny").write(project)

    run, group = "tiny-1_4-suponly-s0", "results/runs"
    choice = ["--dataset", "tiny", "--split", "1/4", "--method", "suponly"]
    texts = [
        seen(words, tmp_path)
        for words in (
            ["prepare", "--dataset", str(description), "--split", "1/4"],
            ["train", *choice],
            ["evaluate", run, "--worst", "1"],
            ["evaluate", run, "--into", group],
            ["ablate", "--compare", "--param", "lr", "0.01", *choice],
            ["predict", run, "pictures/images", "--out", "out"],
            ["status"],
            ["plan", "tiny"],
            ["table", "table1"],
            ["report"],
        )
    ]
    for text in texts:
        assert not [c for c in ("\x1b]0;", "\x1b[31mred", "\x9b", "\u202e", "\x07") if c in text]
    if kind == "markup":
        assert all(name in texts[0] and name in texts[2] and name in texts[5] for name in classes)
    said = u2pl("predict", run, "pictures/images", "--out", "out2", "--json", cwd=tmp_path)
    assert said.returncode == 0 and "\x9b" not in said.stdout

    metrics = read_json(tmp_path / group / run / "metrics.json")
    assert list(metrics["iou"]) == classes
    if kind == "formulas":
        for name in ("iou.csv", "confusion.csv"):
            lines = (tmp_path / group / run / name).read_text(encoding="utf-8").replace('"', "")
            assert not [line for line in lines.split("\n") if line.startswith(("=", "@", "-", "\t"))]
    page = (tmp_path / "reports/index.html").read_text(encoding="utf-8")
    assert page.count("<script") == 2 and "<script>alert" not in page  # two are the page's own
    assert "javascript:" not in page.replace("[x](javascript:x)", "")


# ---- under DVC -----------------------------------------------------------------------------------------

VALUES = [
    *("w (1).pt", "$(touch owned)", "`touch owned`", "a;touch owned;", "${HOME}/w.pt", "${item.args}", "$HOME"),
    *("it's.pt", 'a"b', "a&touch owned", "*", "#x", "[a]"),
]  # fmt: skip


def test_values_reach_the_command_as_they_are_and_no_shell_runs_them(tmp_path: Path) -> None:
    for name in ("project", "home"):
        (tmp_path / name).mkdir()
    workspace = Workspace(tmp_path / "project", tmp_path / "home")
    root = workspace.project.root
    log = 'echo "$*" >> commands.log'
    stand_in = STAND_IN.replace(log, f'printf "%s\\n" "$@" >> words.log\n{log}')
    (tmp_path / "home/u2pl").write_text(stand_in)
    table = {
        "title": "${HOME} `x`",
        "caption": "$(touch owned)",
        "dataset": "shapes",
        "columns": [{"label": "1/8 ${plan}", "split": "1/8"}],
        "rows": [
            {"label": f"$(touch owned) ${{HOME}} {value}", "method": "suponly", "set": {"weights": value}}
            for value in VALUES
        ],
    }
    (root / "pipelines/tables/own.yaml").write_text(yaml.safe_dump(table))
    plan = {"dataset": "shapes", "seeds": [0], "tables": {"own": {}}}
    (root / "pipelines/plans/own.yaml").write_text(yaml.safe_dump(plan))
    resolve(Project(root), "own").write(Project(root))
    workspace.repro()
    words = (root / "words.log").read_text().splitlines()
    assert {f"--set=recipe.weights={value}" for value in VALUES} <= set(words)
    assert not list(tmp_path.rglob("owned"))
    assert workspace.repro() == []
