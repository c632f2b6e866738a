import json
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from PIL import Image

Command = Callable[..., CompletedProcess[str]]
RUN = "tiny-1_4-suponly-s0"


@pytest.fixture
def project(tiny_template: Path, tmp_path: Path, u2pl: Command) -> Path:
    """A project with one finished run, and a folder of photos, one of them damaged."""
    root = Path(shutil.copytree(tiny_template, tmp_path / "project"))
    done = u2pl("train", "--dataset", "tiny", "--split", "1/4", "--method", "suponly", cwd=root)
    assert done.returncode == 0, done.stderr
    shutil.copytree(root / "pictures/images", root / "photos")
    return root


@pytest.mark.slow
def test_a_folder_is_segmented_and_what_could_not_be_read_is_told_with_status_1(
    project: Path, u2pl: Command
) -> None:
    done = u2pl("predict", RUN, "photos", "--out", "seen", cwd=project)
    assert done.returncode == 0, done.stderr
    assert "20 images" in done.stdout and "square" in done.stdout
    assert "segmenting images: 20 of 20" in done.stderr
    with Image.open(project / "seen/colors/07.png") as picture:
        assert picture.mode == "P"
    (project / "photos/03.png").write_bytes(b"no picture")
    again = u2pl("predict", RUN, "photos", "--out", "seen", "--json", cwd=project)
    assert again.returncode == 1 and "1 of 20 files could not be read" in again.stderr
    assert "truncated or damaged image: 1 (" in again.stderr and "Traceback" not in again.stderr
    facts = json.loads(again.stdout)
    assert facts["images"] == 19 and sum(facts["pixels"].values()) == 19 * 64 * 64
    for words, said in (
        (["tiny-1_4-supply-s0", "photos"], "Did you mean"),
        ([RUN, "nowhere"], "no file or folder"),
    ):
        refused = u2pl("predict", *words, "--out", "seen", cwd=project)
        assert refused.returncode in (1, 2) and said in refused.stderr and "Traceback" not in refused.stderr
