"""A page of the whole paper can be sent by mail."""

from pathlib import Path

import pytest
from large_plan import write_large_plan

from u2pl.page.write import write
from u2pl.reporting.results import collect_all


@pytest.mark.slow
def test_the_page_of_every_run_of_the_paper_is_below_5_mb(tmp_path: Path) -> None:
    project, plan = write_large_plan(tmp_path)
    path, *_ = write(project, plan, collect_all(project, plan))
    assert len(list(project.results.iterdir())) >= 160
    assert (project.root / path).stat().st_size < 5e6
