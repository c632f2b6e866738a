"""Learning curves of runs as a picture: where they begin, and how wide their axis is."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from run_folders import write_run

from u2pl.project import Project
from u2pl.reporting import charts, run_curves
from u2pl.reporting.run_groups import chosen, compare, grouped


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def drawn(project: Project, monkeypatch: pytest.MonkeyPatch, curves: Sequence[Sequence[float]]) -> Axes:
    """The axes of the picture of two methods with the same curves, one a seed; the last value is the result."""
    figures: list[Figure] = []
    monkeypatch.setattr(charts, "save", lambda figure, path: figures.append(figure))
    for method in ("mt", "cutmix"):
        for seed, values in enumerate(curves):
            name = f"tiny-1_4-{method}-s{seed}"
            write_run(project, name, values[-1], curve=tuple(values), seed=seed, method=method)
    found = compare(grouped(chosen(project, ["tiny-1_4-mt", "tiny-1_4-cutmix"])))
    run_curves.write(found, project.root / "c.png")
    (axes,) = figures[0].axes
    return axes


def test_the_first_epoch_is_1(project: Project, monkeypatch: pytest.MonkeyPatch):
    axes = drawn(project, monkeypatch, [[40.0, 45.0, 50.0]])
    assert list(axes.lines[0].get_xdata()) == [1, 2, 3]
    assert list(axes.lines[0].get_ydata()) == [40, 45, 50]


def test_a_curve_that_goes_nowhere_looks_like_it(project: Project, monkeypatch: pytest.MonkeyPatch):
    low, high = drawn(project, monkeypatch, [[50.0, 50.3, 50.1]]).get_ylim()
    assert high - low == pytest.approx(10)


def test_seeds_that_are_far_apart_widen_the_axis(project: Project, monkeypatch: pytest.MonkeyPatch):
    low, high = drawn(project, monkeypatch, [[50.0, 44.0], [50.0, 56.0]]).get_ylim()
    assert high - low == pytest.approx(4 * 72**0.5)
