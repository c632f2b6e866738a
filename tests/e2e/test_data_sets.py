"""From other people's files to a score: prepare, train, evaluate, in processes of their own."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
import yaml
from data import miniature
from data.serving import serving
from PIL import Image
from tiny import draw_tiny, make_project

Command = Callable[..., CompletedProcess[str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project, and the miniatures as a server has them."""
    (tmp_path / "project").mkdir()
    make_project(tmp_path / "project")
    miniature.make_pascal(tmp_path / "unpacked")
    miniature.make_sbd(tmp_path / "unpacked")
    miniature.serve_voc(tmp_path / "unpacked", tmp_path / "served" / "archives")
    miniature.make_cityscapes(tmp_path / "city")
    miniature.serve_lists(tmp_path / "served" / "lists")
    return tmp_path


@pytest.mark.slow
def test_voc_from_a_machine_with_nothing_to_a_score(folder: Path) -> None:
    project = folder / "project"
    miniature.use_small_recipe(project / "params.yaml", "voc")
    with serving(folder / "served") as server:

        def u2pl(*words: str) -> CompletedProcess[str]:
            return miniature.command(project, folder / "served", server.address, *words)

        prepared = u2pl("prepare", "--dataset", "voc", "--split", "classic-1/4")
        assert prepared.returncode == 0, prepared.stderr
        assert "2 labelled, 18 unlabelled, 4 validation" in prepared.stdout
        assert "2 of the 2 labelled images (100%) have the fine annotation" in prepared.stdout
        assert "VOCtrainval_11-May-2012.tar" in prepared.stderr
        # No mask of an unlabelled image is opened: what is there instead is no picture.
        labeled = (project / "data/voc/splits/classic-1_4/labeled.txt").read_text().split()
        for mask in (project / "data/voc/masks").iterdir():
            if mask.stem not in [*labeled, *miniature.VAL]:
                mask.write_text("no picture")
        trained = u2pl("train", "--dataset", "voc", "--split", "classic-1/4")
        assert trained.returncode == 0, trained.stderr
        scored = u2pl("evaluate", "voc-classic-1_4-u2pl-s0", "--json")
    metrics = json.loads(scored.stdout)
    assert metrics["protocol"]["evaluation"].startswith("centre crop of 64")
    assert metrics["split_source"] == "u2pl" and metrics["labeled"] == 2
    assert set(metrics["iou"]) >= {"background", "person"} and 0 < metrics["miou"]["reported"] <= 100


@pytest.mark.slow
def test_cityscapes_from_its_folders_to_a_score_by_sliding_windows(folder: Path) -> None:
    project = folder / "project"
    miniature.use_small_recipe(project / "params.yaml", "cityscapes")
    values = yaml.safe_load((project / "params.yaml").read_text())
    values["recipes"]["cityscapes"]["crop"] = 32
    (project / "params.yaml").write_text(yaml.safe_dump(values))
    with serving(folder / "served") as server:

        def u2pl(*words: str) -> CompletedProcess[str]:
            return miniature.command(project, folder / "served", server.address, *words)

        split = ("--dataset", "cityscapes", "--split", "1/4")
        prepared = u2pl("prepare", *split, "--root", str(folder / "city"))
        assert prepared.returncode == 0, prepared.stderr
        trained = u2pl("train", *split, "--method", "cutmix")
        assert trained.returncode == 0, trained.stderr
        scored = u2pl("evaluate", "cityscapes-1_4-cutmix-s0", "--json")
    metrics = json.loads(scored.stdout)
    assert metrics["protocol"]["evaluation"].startswith("sliding window of 32")
    assert metrics["iou"]["truck"] is None and metrics["iou"]["road"] is not None


def draw_difficult(folder: Path) -> None:
    """Eight images of two classes: grey, RGBA, palette and RGB, mixed sizes, difficult names; six have masks."""
    (folder / "bilder").mkdir(parents=True)
    (folder / "masken").mkdir()
    names = ["größe 1", "a b", "naïve", "x", "日本", "y.z", "val 1", "val é"]
    for k, name in enumerate(names):
        picture, mask = miniature.scene(name, 40 + 7 * k, 61 - 3 * k)
        kind = ("L", "RGBA", "P", "RGB")[k % 4]
        Image.fromarray(picture).convert(kind).save(folder / "bilder" / f"{name}.png")
        if name not in ("x", "日本"):
            classes = np.where(mask == 15, 1, 0).astype(np.uint8)
            Image.fromarray(classes).save(folder / "masken" / f"{name}.png")
    (folder / "train.txt").write_text("\n".join(names[:6]), encoding="utf-8")
    (folder / "val.txt").write_text("\n".join(names[6:]), encoding="utf-8")
    description = {"name": "mein", "classes": ["grund", "riss"], "background": True}
    description |= {"images": "bilder", "masks": "masken"}
    (folder / "my.yaml").write_text(yaml.safe_dump(description))


@pytest.mark.slow
def test_ones_own_eight_images_of_two_classes(tmp_path: Path, u2pl: Command) -> None:
    (tmp_path / "project").mkdir()
    project = make_project(tmp_path / "project").root
    draw_difficult(tmp_path / "data")
    miniature.use_small_recipe(project / "params.yaml", "custom")
    prepared = u2pl("prepare", "--dataset", str(tmp_path / "data/my.yaml"), "--split", "full", cwd=project)
    assert prepared.returncode == 0, prepared.stderr
    assert "4 labelled, 2 unlabelled, 2 validation" in prepared.stdout
    refused = u2pl("train", "--dataset", "mein", "--split", "full", cwd=project)
    assert refused.returncode == 2 and "--set r_l=1" in refused.stderr
    trained = u2pl(
        "train", "--dataset", "mein", "--split", "full", "--set", "r_l=1", "--set", "r_h=2", cwd=project
    )
    assert trained.returncode == 0, trained.stderr
    assert "mIoU" in trained.stdout


def test_the_audit_is_a_table_or_json_and_ends_with_1_where_a_list_is_not_sound(
    tmp_path: Path, u2pl: Command
) -> None:
    (tmp_path / "project").mkdir()
    project = make_project(tmp_path / "project").root
    draw_difficult(tmp_path / "data")
    assert u2pl("splits", "audit", cwd=project).returncode == 1
    u2pl("prepare", "--dataset", str(tmp_path / "data/my.yaml"), "--split", "full", cwd=project)
    table = u2pl("splits", "audit", cwd=project)
    assert table.returncode == 0 and "mein" in table.stdout and "seeded 2" in table.stdout
    lists = project / "data/mein/splits/full"
    shutil.copy(lists / "val.txt", lists / "unlabeled.txt")
    broken = u2pl("splits", "audit", "--json", cwd=project)
    assert broken.returncode == 1 and "2 validation images are trained on" in broken.stderr
    assert json.loads(broken.stdout)[0]["leaked"] == 2


def test_the_audit_of_a_published_family_needs_no_data(folder: Path) -> None:
    with serving(folder / "served") as server:
        done = miniature.command(
            folder / "project", folder / "served", server.address, "splits", "audit", "--source", "u2pl"
        )
    assert done.returncode == 0, done.stderr
    rows = {
        line.split()[1]: line.split()
        for line in done.stdout.splitlines()
        if line.startswith(("voc", "citys"))
    }
    assert rows["blender-1/4"][3:11] == ["5", "15", "4", "0", "0", "0", "20.0%", "40.0%"]
    assert rows["1/4"][3:11] == ["4", "12", "4", "0", "0", "0", "-", "-"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1.5 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", str(disk)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"needs to mount a small file system: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.skipif(shutil.which("mount") is None, reason="needs to mount a small file system")
def test_on_a_full_disk_it_is_a_sentence_and_with_more_room_the_same_command_goes_on(
    small_disk: Path, tmp_path: Path, u2pl: Command
) -> None:
    make_project(small_disk)
    draw_tiny(tmp_path / "pictures", train=60, val=4)
    for name in (f"{k:02}" for k in range(64)):  # noise, which a PNG cannot make smaller
        noise = np.random.default_rng(int(name)).integers(0, 4, (200, 200)).astype(np.uint8)
        Image.fromarray(noise).save(tmp_path / f"pictures/masks/{name}.png")
        Image.new("RGB", (200, 200)).save(tmp_path / f"pictures/images/{name}.png")
    words = ("prepare", "--dataset", str(tmp_path / "pictures/tiny.yaml"), "--split", "1/4")
    (small_disk / "filler").write_bytes(b"x" * (1_500_000 - 600_000))
    full = u2pl(*words, cwd=small_disk)
    assert full.returncode == 1 and "No space is left on the disk" in full.stderr
    assert "Traceback" not in full.stderr and not (small_disk / "data/tiny/splits").exists()
    done = [path.stat().st_mtime_ns for path in sorted((small_disk / "data/tiny/masks").iterdir())]
    (small_disk / "filler").unlink()
    again = u2pl(*words, cwd=small_disk)
    assert again.returncode == 0, again.stderr
    masks = sorted((small_disk / "data/tiny/masks").iterdir())
    assert len(masks) == 64
    # Most of what had been written was not written again.
    assert sum(path.stat().st_mtime_ns in done for path in masks) >= len(done) - 4 > 5


def test_a_preparation_that_was_killed_goes_on(tmp_path: Path, u2pl: Command) -> None:
    (tmp_path / "project").mkdir()
    project = make_project(tmp_path / "project").root
    draw_tiny(tmp_path / "pictures", train=300, val=4)
    words = ["prepare", "--dataset", str(tmp_path / "pictures/tiny.yaml"), "--split", "1/4"]
    process = subprocess.Popen(
        [sys.executable, "-m", "u2pl_cli", *words], cwd=project, stderr=subprocess.DEVNULL
    )
    journal = project / "data/tiny/checked.jsonl"
    deadline = time.monotonic() + 60
    while not (journal.is_file() and journal.stat().st_size > 3000) and time.monotonic() < deadline:
        time.sleep(0.002)
    process.kill()
    process.wait()
    assert not (project / "data/tiny/splits").exists()
    known = len(journal.read_text().splitlines())
    written = {p.name: p.stat().st_mtime_ns for p in (project / "data/tiny/masks").iterdir()}
    assert u2pl(*words, cwd=project).returncode == 0 and not journal.exists()
    kept = sum(p.stat().st_mtime_ns == written.get(p.name) for p in (project / "data/tiny/masks").iterdir())
    assert 5 < kept <= len(written) and kept >= known - 3
