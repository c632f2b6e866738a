import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
from PIL import Image
from u2pl_cli.app import run
from u2pl_cli.predict import _printable

from u2pl.files import read_json

Command = Callable[..., CompletedProcess[str]]
RUN = "tiny-1_4-suponly-s0"


@pytest.fixture
def project(trained: Path, tmp_path: Path) -> Path:
    """A copy of that project, and a folder of photos."""
    root = Path(shutil.copytree(trained, tmp_path / "project"))
    shutil.copytree(root / "pictures/images", root / "photos")
    return root


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.array(picture)


@pytest.mark.slow
def test_a_folder_is_segmented_and_what_could_not_be_read_is_told_with_status_1(
    project: Path, u2pl: Command
) -> None:
    done = u2pl("predict", RUN, "photos", "--out", "seen", cwd=project)
    assert done.returncode == 0, done.stderr
    assert "20 images" in done.stdout and "square" in done.stdout
    assert done.stderr.splitlines().count("segmenting images: 20 of 20") == 1
    with Image.open(project / "seen/colors/07.png") as picture:
        assert picture.mode == "P"
    (project / "photos/03.png").write_bytes(b"no picture")
    assert u2pl("predict", RUN, "photos/07.png", cwd=project).returncode == 0
    assert (pixels(project / "predictions/masks/07.png") == pixels(project / "seen/masks/07.png")).all()
    again = u2pl("predict", RUN, "photos", "--out", "seen", "--json", cwd=project)
    assert again.returncode == 1 and "1 of 20 files could not be read" in again.stderr
    assert "the rest is in seen." in again.stderr
    assert "truncated or damaged image: 1 (" in again.stderr and "Traceback" not in again.stderr
    facts = json.loads(again.stdout)
    assert facts["images"] == 19 and sum(facts["pixels"].values()) == 19 * 64 * 64
    assert sum(facts["shares"].values()) == pytest.approx(1)
    assert facts["shares"]["square"] == facts["pixels"]["square"] / (19 * 64 * 64)
    assert facts["skipped"] == [{"file": "photos/03.png", "reason": "truncated or damaged image"}]
    for words, said in (
        (["tiny-1_4-supply-s0", "photos"], "Did you mean"),
        ([RUN, "nowhere"], "no file or folder"),
    ):
        refused = u2pl("predict", *words, "--out", "seen", cwd=project)
        assert refused.returncode in (1, 2) and said in refused.stderr and "Traceback" not in refused.stderr


@pytest.mark.slow
def test_photos_of_every_kind_are_segmented_at_their_own_size(project: Path, u2pl: Command) -> None:
    photos = Path(shutil.move(project / "photos", project / "all photos"))
    with Image.open(photos / "17.png") as opened:
        picture = opened.convert("RGB")
    for path in photos.iterdir():
        path.unlink()
    exif = Image.Exif()
    exif[0x0112] = 8  # to be turned by a quarter, anticlockwise
    (photos / "été/日本").mkdir(parents=True)
    picture.convert("L").save(photos / "grey.png")
    picture.convert("RGBA").resize((90, 40)).save(photos / "été/clear sky.webp")
    picture.crop((0, 0, 64, 30)).save(photos / "été/日本/turned.jpg", exif=exif)
    picture.save(photos / "same.png")
    picture.resize((50, 70)).save(photos / "same.bmp")
    (photos / "cut.png").write_bytes((photos / "same.png").read_bytes()[:900])
    (photos / "notes.txt").write_text("no picture")
    sizes = {
        "grey": (64, 64),
        "été/clear sky": (90, 40),
        "été/日本/turned": (30, 64),
        "same.png": (64, 64),
        "same.bmp": (50, 70),
    }
    for turn in range(2):  # its own results are no photos the second time
        done = u2pl("predict", RUN, "all photos", "--out", "all photos/seen", "--json", cwd=project)
        assert done.returncode == 1 and "1 of 6 files could not be read" in done.stderr, turn
        assert "all photos/cut.png" in done.stderr and "Traceback" not in done.stderr
        facts = json.loads(done.stdout)
        assert facts["images"] == 5
        assert [entry["file"] for entry in facts["skipped"]] == ["all photos/cut.png"]
        for kind in ("masks", "colors", "overlays"):
            folder = photos / "seen" / kind
            files = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
            assert files == {f"{name}.png" for name in sizes}
    palette = np.array(read_json(project / "data/tiny/dataset.json")["colors"])
    for name, (width, height) in sizes.items():
        mask, over = (pixels(photos / f"seen/{kind}/{name}.png") for kind in ("masks", "overlays"))
        assert mask.shape == (height, width) and over.shape == (height, width, 3)
        with Image.open(photos / f"seen/colors/{name}.png") as colored:
            assert np.array_equal(np.array(colored.convert("RGB")), palette[mask])
    masks = np.concatenate([pixels(photos / f"seen/masks/{name}.png").reshape(-1) for name in sizes])
    assert list(facts["pixels"].values()) == np.bincount(masks, minlength=4).tolist()


@pytest.mark.slow
def test_small_windows_can_be_asked_for_and_change_the_result(project: Path, u2pl: Command) -> None:
    said = []
    for out, words in (("whole", []), ("large", ["--window", "64"]), ("small", ["--window", "32"])):
        done = u2pl("predict", f"runs/{RUN}", "photos/17.png", "--out", out, *words, cwd=project)
        assert done.returncode == 0, done.stderr
        said.append(done.stdout)
    whole, large, small = (pixels(project / out / "masks/17.png") for out in ("whole", "large", "small"))
    assert np.array_equal(whole, large) and not np.array_equal(whole, small)
    assert "1 image: class indices in whole/masks" in said[0]
    refused = u2pl("predict", RUN, "photos", "--out", "seen", "--window", "8", cwd=project)
    assert refused.returncode == 2 and not (project / "seen").exists()


@pytest.mark.slow
def test_what_cannot_be_done_is_a_sentence_and_writes_nothing(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    (project / "empty").mkdir()
    (project / "taken").touch()
    unfinished = project / "runs/tiny-1_4-mt-s0"
    shutil.copytree(project / f"runs/{RUN}", unfinished)
    for name in ("weights.pt", "metrics.json"):
        (unfinished / name).unlink()
    for words, status, said in (
        ([RUN, "empty", "--out", "seen"], 1, "There is no image in empty"),
        ([RUN, "photos", "--out", "taken"], 2, "taken is a file"),
        ([RUN, "photos", "--out", "taken/below"], 2, "cannot be made"),
        ([RUN, "pictures/images", "--out", "pictures"], 2, "pictures/masks holds files"),
        ([unfinished.name, "photos", "--out", "seen"], 1, "is not finished. Go on with: u2pl train"),
    ):
        assert run(["predict", *words]) == status
        told = capsys.readouterr()
        assert told.out == "" and said in told.err and "defect" not in told.err
    assert not (project / "seen").exists()


def test_a_name_that_is_no_text_can_be_printed() -> None:
    """Old archives have Latin-1 in their names."""
    assert _printable(Path(os.fsdecode(b"caf\xe9/\xc3\xa9.png"))) == "caf\ufffd/é.png"
