"""The tutorials: every block of every one is done in order, in a folder of its own, and does what the text says."""

import subprocess
from pathlib import Path

import pytest
from doc_blocks import blocks
from tiny import REPOSITORY
from tracked import copy_tracked
from walkthrough import Reader

NOTEBOOKS = {path.stem for path in REPOSITORY.glob("docs/tutorials/*.ipynb")}
"""Done as such, in test_notebook.py."""
TUTORIALS = sorted({path.stem for path in REPOSITORY.glob("docs/tutorials/*.md")} - NOTEBOOKS)
IN_A_CLONE = {"method"}
"""These begin in a clone of the repository, the others in an empty folder."""
FILES = {
    "table": ["lab/dvc.lock", "lab/reports/small/index.html", "lab/reports/small/tables/methods.tex"],
    "ablate": ["lab/alpha0.json"],
    "method": ["clone/reports/inner/tables/inner.md", "clone/u2pl/methods/inner.py"],
    "losses": ["lab/data/shapes/splits/1_8/labeled.txt"],
    "page": ["lab/reports/index.html"],
}
"""What there is at the end."""


def text(name: str) -> str:
    return (REPOSITORY / "docs" / "tutorials" / f"{name}.md").read_text(encoding="utf-8")


def cloned(folder: Path) -> Path:
    """The repository as git has it, with the work that is not committed yet, in a folder of its own."""
    copy_tracked(folder)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    return folder


def test_every_tutorial_is_done_here():
    assert set(FILES) == set(TUTORIALS)


@pytest.mark.slow
@pytest.mark.parametrize("name", TUTORIALS)
def test_a_tutorial_does_what_it_says(name: str, tmp_path: Path):
    environment, folder = {}, tmp_path / "fresh"
    folder.mkdir()
    if name in IN_A_CLONE:
        environment["PYTHONPATH"] = str(cloned(folder / "clone"))
        Reader(folder / "clone", environment).read(text(name))
    else:
        Reader(folder).read(text(name))
    assert not [file for file in FILES[name] if not (folder / file).is_file()]


def test_a_method_takes_twenty_lines_literally():
    (code,) = (block.text for block in blocks(text("method")) if block.file == "u2pl/methods/inner.py")
    assert len(code.rstrip().splitlines()) <= 20


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ("```console\n$ false\n```\n", r"line 1: \$ false"),
        ("Text.\n\n```console\n$ echo 3 runs\n4 runs\n5 tables\n```\n", "line 3 shows '5 tables'"),
        ("```python\nraise ValueError('no')\n```\n", "ValueError: no"),
        ("```python\nprint(1)\n```\n\n```text\none\n```\n", "shows 'one'"),
        ("```ruby\nputs 1\n```\n", "'ruby'"),
    ],
)
def test_a_reader_notices_what_is_wrong_in_a_document(document: str, says: str, tmp_path: Path):
    (tmp_path / "fresh").mkdir()
    with pytest.raises(AssertionError, match=says):
        Reader(tmp_path / "fresh").read(document)


def test_a_reader_saves_files_stays_in_folders_and_keeps_what_python_knows(tmp_path: Path):
    (tmp_path / "fresh").mkdir()
    Reader(tmp_path / "fresh").read(
        "```console\n$ mkdir a && cd a\n```\n\n```python\n# b/c.py\nprint('saved')\n```\n\n"
        "```console\n$ python b/c.py && \\\n    pwd\nsaved\n.../fresh/a\n```\n\n"
        "```python\nx = 1\n```\n\n```python\nprint('x is', x)\n```\n\n```text\nx is 7\n```\n"
    )
    assert (tmp_path / "fresh" / "a" / "b" / "c.py").is_file()
