"""The notebook of a tutorial: it is the tutorial, its outputs are real, and it runs."""

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from doc_blocks import blocks, shows
from make_notebook import TUTORIAL, notebook
from tiny import REPOSITORY

COMMITTED = TUTORIAL.with_suffix(".ipynb")


def cells(path: Path) -> list[tuple[str, str]]:
    return [(cell.cell_type, cell.source) for cell in nbformat.read(path, as_version=4).cells]


def said(path: Path) -> str:
    """All that its cells print."""
    found = nbformat.read(path, as_version=4).cells
    return "".join(output.get("text", "") for cell in found for output in cell.get("outputs", []))


def shown() -> list[str]:
    """All that the tutorial shows as output."""
    lines = []
    for block in blocks(TUTORIAL.read_text(encoding="utf-8")):
        if block.language == "console":
            lines += [line for _, of_command in block.commands for line in of_command]
        elif block.language == "text":
            lines += block.text.splitlines()
    return lines


def test_the_notebook_is_the_tutorial():
    """After a change of the tutorial: python docs/site/make_notebook.py."""
    made = notebook(TUTORIAL.read_text(encoding="utf-8"))
    assert cells(COMMITTED) == [(cell.cell_type, cell.source) for cell in made.cells]


def test_the_notebook_has_the_outputs_that_the_tutorial_shows_and_no_place_of_a_machine():
    assert shows(said(COMMITTED), shown()) is None
    assert "/tmp" not in COMMITTED.read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_notebook_runs_and_says_what_the_tutorial_shows(tmp_path: Path):
    """Its blocks are those of the tutorial, which so need not be done a second time in a shell."""
    made = tmp_path / "made.ipynb"
    done = subprocess.run(
        [sys.executable, REPOSITORY / "docs" / "site" / "make_notebook.py", made],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert shows(said(made), shown()) is None, said(made)
