import errno
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from models.theirs import Released
from u2pl_cli.app import run

from u2pl.files import read_json
from u2pl.project import Project
from u2pl.reporting.results import Result


@pytest.fixture
def project(tiny_project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(tiny_project.root)
    return tiny_project


def checkpoint(
    path: Path, *, teacher: bool = True, classes: int = 4, auxiliary: bool = False, **more
) -> Path:
    """A checkpoint as the released code writes it, of a network that fits the recipe of `tiny`."""
    torch.manual_seed(0)
    student, average = (
        Released("resnet10", 8, classes, representation=teacher, auxiliary=auxiliary).shake()
        for _ in range(2)
    )
    content = {
        "epoch": 5,
        "model_state": student.saved(),
        "optimizer_state": {"state": {}, "param_groups": []},
    }
    content |= {"best_miou": torch.tensor(0.5, dtype=torch.float64).numpy()[()]}
    content |= {"teacher_state": average.saved()} if teacher else {}
    torch.save(content | more, path)
    return path


def words(*more: str) -> list[str]:
    return ["import", "ckpt.pth", "--as", "theirs", "--dataset", "tiny", *more]


def test_a_released_checkpoint_is_evaluated_used_and_trained_on_like_a_run(
    project: Project, capsys: pytest.CaptureFixture[str]
):
    content = torch.load(checkpoint(project.root / "ckpt.pth"), weights_only=False)
    assert run(words("--split", "1/4")) == 0
    said = capsys.readouterr().out
    assert "the teacher of ckpt.pth" in said
    assert f"all of its {len(content['teacher_state'])} tensors" in said
    assert "Next: u2pl evaluate theirs" in said

    assert run(["evaluate", "theirs", "--into", "results", "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out)
    assert 0 <= metrics["miou"]["reported"] <= 100
    assert metrics["protocol"]["checkpoint"] == "imported"
    result = Result.read(project.root / "results" / "theirs")
    assert result is not None
    assert result.reported == metrics["miou"]["reported"] and result.history.empty
    assert metrics["split_source"] == "not known (imported)"
    assert run(["evaluate", "theirs"]) == 0
    assert "teacher, imported checkpoint" in " ".join(capsys.readouterr().out.split())
    assert run(["status", "theirs"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert shown.startswith("run theirs state done") and "recipe.stem=deep (params.yaml: plain)" in shown

    assert run(["predict", "theirs", "pictures/images", "--out", "seen"]) == 0
    assert len(list((project.root / "seen/masks").glob("*.png"))) == 20

    start = "runs/theirs/weights.pt"
    train = ["train", "--dataset", "tiny", "--split", "1/4", "--method", "mt", "--set", "stem=deep"]
    assert run([*train, "--set", "epochs=2", "--weights", start]) == 0
    trained = project.runs / "tiny-1_4-mt-epochs=2-stem=deep-weights=runs_theirs_weights.pt-s0"
    assert read_json(trained / "run.json")["recipe"]["weights"].startswith("sha256:")


def test_what_was_imported_is_recorded_and_the_teacher_is_taken(project: Project):
    path = checkpoint(project.root / "ckpt.pth")
    assert run(words()) == 0
    record = read_json(project.runs / "theirs" / "run.json")
    origin = record["imported"]
    assert (origin["network"], origin["epoch"], origin["best_miou"]) == ("teacher", 5, 0.5)
    assert origin["file"] == str(path)
    assert (record["split"], record["method"], record["hyper"]) == ("1/4", "u2pl", {})
    assert record["recipe"]["stem"] == "deep"
    kept = torch.load(project.runs / "theirs" / "weights.pt", weights_only=True)["state"]
    stored = torch.load(path, weights_only=False)["teacher_state"]
    assert torch.equal(kept["classifier.4.weight"], stored["module.decoder.classifier.8.weight"])


def test_the_student_can_be_asked_for(project: Project):
    path = checkpoint(project.root / "ckpt.pth")
    assert run(words("--network", "student")) == 0
    kept = torch.load(project.runs / "theirs" / "weights.pt", weights_only=True)["state"]
    stored = torch.load(path, weights_only=False)["model_state"]
    assert torch.equal(kept["low.0.bias"], stored["module.decoder.low_conv.0.bias"])


def test_a_checkpoint_of_suponly_has_a_student_alone(project: Project, capsys: pytest.CaptureFixture[str]):
    checkpoint(project.root / "ckpt.pth", teacher=False)
    assert run(words("--network", "teacher")) == 1
    assert "has no teacher. Take the other: --network student" in capsys.readouterr().err
    assert run(words()) == 0
    assert read_json(project.runs / "theirs" / "run.json")["method"] == "suponly"
    assert run(["evaluate", "theirs"]) == 0


@pytest.mark.parametrize("weight", ["0", "0.4"])
def test_the_auxiliary_head_is_kept_for_training_alone(
    weight: str, project: Project, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
):
    """Whether the recipe has one or not, what is evaluated has none."""
    checkpoint(project.root / "ckpt.pth", auxiliary=True)
    assert run(words("--split", "1/4", "--set", f"auxiliary={weight}")) == 0
    assert "For training alone (auxiliary head): further.auxiliary.0.weight" in capsys.readouterr().out
    state = torch.load(project.runs / "theirs" / "weights.pt", weights_only=True)["state"]
    assert "further.auxiliary.0.weight" in state
    assert run(["evaluate", "theirs"]) == 0
    train = ["train", "--dataset", "tiny", "--split", "1/4", "--method", "suponly", "--set", "epochs=1"]
    start = project.runs / "theirs" / "weights.pt"
    assert run([*train, "--weights", str(start), "--set", "auxiliary=0.4", "--set", "stem=deep"]) == 0
    assert "further." not in caplog.text


def test_without_the_images_it_is_imported_all_the_same_and_says_what_evaluating_needs(
    project: Project, capsys: pytest.CaptureFixture[str]
):
    shutil.rmtree(project.data("tiny") / "splits")
    checkpoint(project.root / "ckpt.pth")
    assert run(words()) == 0
    said = capsys.readouterr().out
    assert "'full' of 'tiny' is not prepared. Run: u2pl prepare --dataset tiny --split full" in said
    assert run(["evaluate", "theirs"]) == 1
    assert run(["predict", "theirs", "pictures/images", "--out", "seen"]) == 0


def test_of_a_data_set_that_comes_with_u2pl_nothing_needs_to_be_prepared(project: Project):
    checkpoint(project.root / "ckpt.pth", classes=21)
    settings = ["--set", "backbone=resnet10", "--set", "width=8", "--set", "representation=8"]
    assert run(["import", "ckpt.pth", "--as", "theirs", *settings]) == 0
    assert run(["predict", "theirs", "pictures/images/00.png", "--out", "seen"]) == 0


def test_a_name_that_is_taken_is_refused(project: Project, capsys: pytest.CaptureFixture[str]):
    checkpoint(project.root / "ckpt.pth")
    assert run(words()) == 0
    assert run(words()) == 1
    assert "exists already. Take another name" in capsys.readouterr().err
    assert run(["import", "ckpt.pth", "--as", "../theirs", "--dataset", "tiny"]) == 2


def refused(capsys: pytest.CaptureFixture[str], project: Project, *more: str) -> str:
    assert run(words(*more)) != 0
    assert not (project.runs / "theirs").exists()
    return capsys.readouterr().err


def test_what_does_not_fit_is_refused_with_a_list_and_leaves_nothing_behind(
    project: Project, capsys: pytest.CaptureFixture[str]
):
    path = checkpoint(project.root / "ckpt.pth", classes=3)
    assert "tells 3 classes apart, 'tiny' has 4." in refused(capsys, project)
    checkpoint(path)
    said = refused(capsys, project, "--set", "backbone=resnet18", "--set", "width=16")
    assert "missing in the file: backbone.layer1.1.conv1.weight" in said
    assert "low.0.weight ((8, 64, 1, 1) in the file, (16, 64, 1, 1) in the network)" in said
    content = torch.load(path, weights_only=False)
    torch.save(content | {"teacher_state": content["teacher_state"] | {"module.odd": torch.ones(1)}}, path)
    assert "1 not in the network: odd" in refused(capsys, project)


def test_files_that_are_no_released_checkpoint_are_refused(
    project: Project, capsys: pytest.CaptureFixture[str]
):
    path = project.root / "ckpt.pth"
    assert "There is no file ckpt.pth" in refused(capsys, project)
    checkpoint(path, optimizer_state=project)
    assert "holds objects besides tensors" in refused(capsys, project)
    torch.save({"conv1.weight": torch.ones(1)}, path)
    assert "it has no `model_state`" in refused(capsys, project)
    checkpoint(path)
    assert "are not known here" in refused(capsys, project, "--dataset", "elsewhere")


def test_a_file_lies_below_the_current_folder_on_the_command_line(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(project.root / "pictures")
    assert run(["train", "--dataset", "tiny", "--split", "1/4", "--weights", "resnet.pth"]) == 1
    assert f"{project.root / 'pictures' / 'resnet.pth'} cannot be read" in capsys.readouterr().err


def test_a_damaged_copy_is_mended_by_importing_again(project: Project, capsys: pytest.CaptureFixture[str]):
    checkpoint(project.root / "ckpt.pth")
    assert run(words()) == 0
    (project.runs / "theirs" / "weights.pt").unlink()
    capsys.readouterr()
    assert run(["evaluate", "theirs"]) == 1
    said = capsys.readouterr().err
    assert f"import the checkpoint again: u2pl import {project.root / 'ckpt.pth'} --as theirs" in said
    again = said.partition("again: u2pl ")[2].split()
    shutil.rmtree(project.runs / "theirs")
    assert run(again) == 0


def of(content: object):
    def make(path: Path) -> None:
        torch.save(content, path)

    return make


NO_CHECKPOINTS = {
    "a folder": Path.mkdir,
    "a pipe": os.mkfifo,
    "an empty file": Path.touch,
    "half a file": lambda path: path.write_bytes(b"PK half a file"),
    "a list": of([1]),
    "a tensor": of(torch.ones(2)),
    "other things": of({"a": 1}),
    "no mapping": of({"model_state": [1], "teacher_state": [2]}),
    "numbered tensors": of({"model_state": {1: torch.ones(2)}}),
    "numbers for tensors": of({"model_state": {"module.encoder.conv1.0.weight": 3}}),
    "no numbers": of({"model_state": {"module.encoder.bn1.bias": torch.tensor([float("nan")])}}),
    "complex numbers": of({"model_state": {"module.encoder.bn1.bias": torch.ones(2, dtype=torch.cfloat)}}),
}


@pytest.mark.parametrize("kind", NO_CHECKPOINTS)
def test_a_file_that_is_no_checkpoint_is_a_sentence_and_leaves_nothing(
    project: Project, capsys: pytest.CaptureFixture[str], kind: str
):
    NO_CHECKPOINTS[kind](project.root / "ckpt.pth")
    assert run(words("--split", "1/4")) == 1
    said = capsys.readouterr().err
    assert "ckpt.pth" in said and "defect" not in said
    assert not (project.runs / "theirs").exists()


def test_an_import_that_fails_in_the_middle_leaves_nothing_in_the_way_of_the_next(
    project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    checkpoint(project.root / "ckpt.pth")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("torch.save", full)
        assert run(words("--split", "1/4")) == 1
    assert "Free some space" in capsys.readouterr().err
    assert run(words("--split", "1/4")) == 0
