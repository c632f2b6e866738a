import re
import shutil
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image
from u2pl_cli.app import run
from u2pl_cli.figure import KINDS

from u2pl.files import read_json, write_json
from u2pl.project import Project
from u2pl.settings import RunSpec
from u2pl.training.trainer import train

SUPONLY, RUN = "tiny-1_4-suponly-s0", "tiny-1_4-u2pl-s0"


@pytest.fixture(scope="module")
def root(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a supervised run and one of U²PL, and one that was not finished."""
    root = Path(shutil.copytree(trained, tmp_path_factory.mktemp("figures") / "project"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("U2PL_TRACKING", "none")
        train(Project(root), RunSpec("tiny", "1/4", "u2pl"))
    unfinished = root / "runs" / "tiny-1_4-mt-s0"
    unfinished.mkdir()
    described = read_json(root / "runs" / SUPONLY / "run.json")
    write_json(unfinished / "run.json", described | {"name": unfinished.name, "method": "mt"})
    other = described | {"dataset": "shapes", "name": "shapes-1_8-mt-s0"}
    (root / "runs" / "shapes-1_8-mt-s0").mkdir()
    write_json(root / "runs" / "shapes-1_8-mt-s0" / "run.json", other)
    return root


@pytest.fixture
def project(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(root)
    monkeypatch.delenv("U2PL_ROOT", raising=False)
    return root


@pytest.mark.slow
def test_a_figure_is_written_as_png_and_svg_below_reports(u2pl: Callable, project: Path):
    done = u2pl("figure", "fig1", RUN, cwd=project)
    assert done.returncode == 0, done.stderr
    assert "looking at unlabelled images: 12 of 12" in done.stderr
    folder = project / "reports" / "figures"
    assert done.stdout.startswith(f"Wrote {folder / 'fig1.png'}, {folder / 'fig1.svg'}.")
    assert done.stdout.endswith("docs/figures.md\n")
    assert sorted(path.name for path in folder.iterdir()) == ["fig1.png", "fig1.svg"]
    assert ElementTree.parse(folder / "fig1.svg").getroot().tag.endswith("svg")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("fig1", [SUPONLY, "--alpha", "0.3", "--images", "5"]),
        ("fig2", [RUN, "--images", "5"]),
        ("figA1", [SUPONLY, RUN, "--label", "labelled alone", "--label", "ours"]),
        ("reliability", [RUN, RUN]),
    ],
)
def test_every_figure_is_the_same_when_it_is_drawn_again(
    project: Path, tmp_path: Path, name: str, words: list[str], capsys: pytest.CaptureFixture[str]
):
    for folder in ("one", "two"):
        given = ["figure", name, *words, "--into", str(tmp_path / folder), "--format", "png"]
        assert run(given) == 0, capsys.readouterr().err
    (one,), (two,) = ((tmp_path / folder).iterdir() for folder in ("one", "two"))
    assert one.name == f"{name}.png" and one.read_bytes() == two.read_bytes()
    with Image.open(one) as picture:
        assert min(picture.size) > 300


@pytest.mark.slow
def test_features_are_drawn_of_two_runs(project: Path, tmp_path: Path):
    assert run(["figure", "figA2", SUPONLY, RUN, "--into", str(tmp_path), "--format", "svg"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["figA2.svg"]


def test_figures_4_and_a1_are_one_figure_of_two_names():
    assert KINDS["fig4"] is KINDS["figA1"]


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["fig3", RUN], 2, "No figure called 'fig3'. Did you mean 'fig4'? Known: fig1, fig2, fig4, figA1, "),
        (
            ["fig1", "tiny-1_4-u2lp-s0"],
            2,
            "No run called 'tiny-1_4-u2lp-s0'. Did you mean 'tiny-1_4-u2pl-s0'?",
        ),
        (["fig1", RUN, SUPONLY], 2, "fig1 takes one run, not 2. Example: u2pl figure fig1 RUN"),
        (["fig4", RUN], 2, "fig4 takes 2 runs or more, not 1. Example: u2pl figure fig4 RUN RUN"),
        (["figA2", RUN], 2, "figA2 takes 2 runs, not 1. Example: u2pl figure figA2 RUN RUN"),
        (
            ["fig4", "shapes-1_8-mt-s0", RUN],
            2,
            "The runs are of different data sets: shapes, tiny. Name runs of one",
        ),
        (["fig4", SUPONLY, RUN, "--label", "x"], 2, "2 runs and 1 label: give each run one with --label"),
        (
            ["fig4", SUPONLY, RUN, "--alpha", "0.2"],
            2,
            "fig4 has no use for --alpha. Leave it out; it belongs to fig1",
        ),
        (["fig1", RUN, "--format", "jpg"], 2, "No format called 'jpg'."),
        (["fig1", RUN, "--images", "0"], 2, "--images"),
        (["fig1", SUPONLY], 2, "has no alpha0: its method (suponly) parts no pixels."),
        (
            ["fig1", "tiny-1_4-mt-s0"],
            1,
            "tiny-1_4-mt-s0 is not finished. Go on with: u2pl train --dataset tiny",
        ),
        (["fig2", RUN, "--image", "nowhere"], 2, "has no unlabelled image 'nowhere'."),
        (["reliability", SUPONLY], 1, "its method (suponly) has no pseudo-labels"),
    ],
)
def test_a_mistake_is_answered_in_words_and_writes_nothing(
    project: Path, capsys: pytest.CaptureFixture[str], words: list[str], status: int, says: str
):
    assert run(["figure", *words, "--into", "figures"]) == status
    said = capsys.readouterr()
    assert said.out == ""
    assert says in re.sub(r"\s+", " ", said.err.replace("│", " "))
    assert not (project / "figures").exists()
