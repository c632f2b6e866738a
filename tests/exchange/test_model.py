import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file
from tiny import trained_copy
from u2pl_cli.app import run

from u2pl.errors import UserError
from u2pl.exchange import exporter, model, model_file
from u2pl.exchange.model import Model, load
from u2pl.models import weights
from u2pl.project import Project
from u2pl.runs.records import read_metrics
from u2pl.runs.results import load_network
from u2pl.settings import RunSpec
from u2pl.training.trainer import train

RUN = "tiny-1_4-pseudoseg-s0"
"""Of a method whose network has more than is needed to predict."""


@pytest.fixture(scope="module")
def project(tiny_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    return trained_copy(tiny_template, tmp_path_factory.mktemp("trained") / "project", "pseudoseg")


@pytest.fixture(scope="module")
def file(project: Project) -> Path:
    return model_file.write_of_run(project, project.runs / RUN)


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)


def test_a_model_file_says_what_its_network_is_and_how_good(project: Project, file: Path) -> None:
    facts = model_file.read_facts(file)
    metrics = read_metrics(project.runs / RUN)
    assert file == project.runs / RUN / f"{RUN}.u2pl"
    assert facts["score"] is not None and facts["score"]["miou"] == metrics["miou"]
    assert facts["provenance"]["labeled"] == metrics["labeled"]
    assert len(facts["classes"]) == len(facts["colors"]) == 4
    assert f"{metrics['miou']['reported']:.2f} % mIoU" in facts["card"]
    assert all(name in facts["card"] for name in facts["classes"])


def test_a_loaded_network_is_that_of_the_run_without_what_served_its_training(
    project: Project, file: Path
) -> None:
    ours, _ = load_network(project.runs / RUN, 4)
    theirs = load(file, "cpu").network.state_dict()
    assert all(torch.equal(tensor.cpu(), theirs[name]) for name, tensor in ours.state_dict().items())
    trained = torch.load(project.runs / RUN / "weights.pt", weights_only=True)["state"]
    assert any(name.startswith(weights.FURTHER) for name in trained)
    assert not any(name.startswith(weights.FURTHER) for name in load_file(file))


def test_predictions_are_the_networks_softmax_and_its_entropy(
    project: Project, file: Path, picture: np.ndarray, tmp_path: Path
) -> None:
    found = load(file, "cpu").predict(picture)
    prob = torch.from_numpy(found.probabilities).double()
    assert found.classes.shape == found.entropy.shape == (70, 90) and prob.shape == (4, 70, 90)
    torch.testing.assert_close(prob.sum(0), torch.ones(70, 90, dtype=torch.double), atol=1e-6, rtol=0)
    torch.testing.assert_close(
        torch.from_numpy(found.entropy).double(), -(prob * prob.log()).sum(0), atol=1e-5, rtol=0
    )
    assert np.array_equal(found.classes, found.probabilities.argmax(0))
    logits = Model.of_run(project, RUN).logits([picture])[0].cpu()
    torch.testing.assert_close(prob.float(), logits.float().softmax(0), atol=1e-6, rtol=1e-5)


def test_a_path_an_array_and_a_batch_give_the_same(file: Path, picture: np.ndarray, tmp_path: Path) -> None:
    network = load(file, "cpu")
    path = tmp_path / "photo.png"
    Image.fromarray(picture).save(path)
    other = picture[:50, ::-1].copy()
    alone = network.predict(picture)
    several = network.predict([str(path), other])
    batch = network.predict(np.stack([picture, picture]))  # type: ignore[call-overload]
    for same in (network.predict(path), several[0], *batch):
        assert np.array_equal(same.classes, alone.classes)
        assert np.array_equal(same.entropy, alone.entropy)
    assert several[1].classes.shape == (50, 90)


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4), np.uint8)]
)
def test_what_is_no_picture_is_refused_in_a_sentence(file: Path, image: np.ndarray) -> None:
    with pytest.raises(UserError, match="A picture is a path, or a numpy array"):
        load(file, "cpu").predict([image])


def test_nothing_in_a_model_file_is_run_and_a_strange_one_is_refused(tmp_path: Path, file: Path) -> None:
    cut = tmp_path / "cut.u2pl"
    cut.write_bytes(file.read_bytes()[:2000])
    pickled = tmp_path / "pickled.u2pl"
    torch.save({"state": {}}, pickled)
    bare = tmp_path / "bare.u2pl"
    save_file({"a": np.zeros(3)}, bare)
    facts = dict(model_file.read_facts(file))
    later = tmp_path / "later.u2pl"
    save_file({"a": np.zeros(3)}, later, metadata={"u2pl": json.dumps(facts | {"format": 2})})
    outside = tmp_path / "outside.u2pl"
    save_file({"a": np.zeros(3)}, outside, metadata={"u2pl": json.dumps(facts | {"name": "../x"})})
    fewer = tmp_path / "fewer.u2pl"
    save_file({"a": np.zeros(3)}, fewer, metadata={"u2pl": json.dumps(facts)})
    for path, words in {
        tmp_path / "none.u2pl": "There is no file",
        cut: "is damaged, or no model file",
        pickled: "is damaged, or no model file",
        bare: "is no model file",
        later: "has format 2, and this version of u2pl reads 1",
        outside: "name: leads out|name: is no name of a folder",
        fewer: "does not fit the network",
    }.items():
        with pytest.raises(UserError, match=words):
            load(path)


def test_a_file_that_is_there_is_kept_until_the_run_has_other_weights(project: Project, file: Path) -> None:
    before = file.stat().st_mtime_ns
    assert model_file.write_of_run(project, project.runs / RUN).stat().st_mtime_ns == before
    later = before + 10**9
    os.utime(project.runs / RUN / "weights.pt", ns=(later, later))
    content = file.read_bytes()
    assert model_file.write_of_run(project, project.runs / RUN).stat().st_mtime_ns != before
    assert file.read_bytes() == content, "the same weights make the same file"


@pytest.mark.parametrize("form", exporter.FORMATS)
def test_an_exported_network_computes_the_same_at_every_size(file: Path, tmp_path: Path, form: str) -> None:
    network = load(file, "cpu")
    path, difference = exporter.export(network, form, tmp_path)
    assert path.is_file() and difference <= exporter.TOLERANCE
    about = json.loads((tmp_path / f"{RUN}.json").read_text())
    assert about["classes"] == network.classes and about["output"]["shape"][1] == 4


def test_an_onnx_file_gives_the_probabilities_of_predict(
    file: Path, picture: np.ndarray, tmp_path: Path
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    network = load(file, "cpu")
    network.network.autocast = None
    path, _ = exporter.export(network, "onnx", tmp_path)
    session = onnxruntime.InferenceSession(str(path))
    image = picture.astype(np.float32).transpose(2, 0, 1)[None]
    (found,) = session.run(None, {"image": image})
    np.testing.assert_allclose(found[0], network.predict(picture).probabilities, atol=1e-4)


def test_an_exported_network_that_differs_is_not_kept(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(network: exporter.Exported, path: Path) -> exporter.Run:
        path.write_bytes(b"x")
        return lambda image: network(image) + 2e-4

    monkeypatch.setitem(exporter.FORMATS, "onnx", (".onnx", other))
    with pytest.raises(
        UserError, match=r"differs by up to 2\.0e-04 in a probability, so nothing was written"
    ):
        exporter.export(load(file, "cpu"), "onnx", tmp_path)
    assert not list(tmp_path.glob("*"))


def test_training_starts_from_a_model_file(project: Project, file: Path) -> None:
    name = "from-a-model"
    spec = RunSpec(
        "tiny", "1/4", "suponly", overrides={"recipe.weights": str(file), "recipe.lr": 1e-9}, name=name
    )
    train(project, spec)
    before, _ = load_network(project.runs / RUN, 4)
    after, _ = load_network(project.runs / name, 4)
    for (key, old), new in zip(before.named_parameters(), after.parameters(), strict=True):
        torch.testing.assert_close(new, old, atol=1e-6, rtol=1e-4, msg=key)


@pytest.mark.slow
def test_a_model_file_works_in_an_empty_folder(file: Path, picture: np.ndarray, tmp_path: Path) -> None:
    """As a stranger uses it: in three lines of Python, and from the command line, with no project around."""
    moved = tmp_path / "somewhere else"
    moved.mkdir()
    shutil.copy(file, moved / "m.u2pl")
    Image.fromarray(picture).save(moved / "photo.png")
    script = "import u2pl\nmodel = u2pl.load('m.u2pl')\nprint(model.predict('photo.png').classes.shape, model.classes)"
    environment = {key: value for key, value in os.environ.items() if key != "U2PL_ROOT"}
    options = {"cwd": moved, "env": environment, "text": True, "capture_output": True, "check": True}
    said = subprocess.run([sys.executable, "-c", script], **options)  # type: ignore[call-overload]
    assert said.stdout.startswith("(70, 90) [")
    u2pl = Path(sys.executable).with_name("u2pl")
    subprocess.run([u2pl, "predict", "m.u2pl", "photo.png", "--out", "out"], **options)  # type: ignore[call-overload]
    with Image.open(moved / "out/masks/photo.png") as mask:
        assert np.array_equal(np.asarray(mask), load(file).predict(picture).classes)
    listed = subprocess.run([u2pl, "models"], **options)  # type: ignore[call-overload]
    assert "m.u2pl" in listed.stdout and "pseudoseg" in listed.stdout
    assert subprocess.run([u2pl, "models", "m.u2pl"], **options).stdout.startswith(f"# {RUN}\n")  # type: ignore[call-overload]


def test_commands_say_what_to_do(
    project: Project,
    file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(project.root)
    assert run(["export", str(file)]) == 2
    assert "is a model file already" in capsys.readouterr().err
    assert run(["export", RUN, "--out", str(tmp_path)]) == 0
    assert "Next: u2pl predict" in capsys.readouterr().out
    assert run(["models", str(tmp_path / f"{RUN}.u2pl"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == RUN
    (tmp_path / "bad.u2pl").write_bytes(b"no")
    assert run(["models", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert "│ pseudoseg │" in said.out and "bad.u2pl is damaged" in said.err
    monkeypatch.setattr(model, "load_network", lambda *_: pytest.fail("a model file needs no run"))
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "a.png")
    assert run(["predict", str(file), str(tmp_path / "a.png"), "--out", str(tmp_path / "out")]) == 0
