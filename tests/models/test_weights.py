import pickle
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from models.test_deeplab import recipe
from models.theirs import Encoder
from tiny import REPOSITORY
from torch import Tensor, nn

from u2pl.errors import UserError
from u2pl.models import weights
from u2pl.models.deeplab import DeepLabV3Plus
from u2pl.models.resnet import BasicBlock, ResNet
from u2pl.project import Project
from u2pl.settings import Params, RunSpec
from u2pl.training.trainer import describe


def network(path: Path | str = "none", *, classes: int = 3, representation: bool = True, **changed):
    return DeepLabV3Plus(classes, recipe(weights=str(path), **changed), representation=representation)


def resnet10() -> dict[str, Tensor]:
    return ResNet(BasicBlock, [1, 1, 1, 1]).state_dict()


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def same(ours: nn.Module, tensors: dict[str, Tensor]) -> bool:
    return all(torch.equal(ours.state_dict()[name], tensor) for name, tensor in tensors.items())


# ---- a ResNet's weights are the backbone's ---------------------------------------------------------------


def test_torchvisions_state_dict_starts_the_backbone_and_its_classifier_is_left_out(tmp_path: Path):
    state = resnet10()
    backbone = network(saved(tmp_path / "resnet.pth", state)).backbone
    assert torch.equal(backbone.stem[0].weight, state["conv1.weight"])
    assert torch.equal(backbone.stem[1].running_var, state["bn1.running_var"])
    assert same(backbone, {name: t for name, t in state.items() if name.startswith("layer")})


@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_authors_file_starts_a_backbone_with_the_deep_stem(tmp_path: Path, prefix: str):
    state = Encoder("resnet10").state_dict()
    file = {prefix + name: t for name, t in state.items()} | {"fc.weight": torch.zeros(9, 512)}
    backbone = network(saved(tmp_path / "deep.pth", file), stem="deep").backbone
    assert torch.equal(backbone.stem[0][6].weight, state["conv1.6.weight"])
    assert torch.equal(backbone.stem[1].bias, state["bn1.bias"])
    assert same(backbone, {name: t for name, t in state.items() if name.startswith("layer")})


def test_old_files_without_batch_norms_count_of_batches_are_taken(tmp_path: Path):
    state = {name: t for name, t in resnet10().items() if "num_batches" not in name}
    assert torch.equal(
        network(saved(tmp_path / "old.pth", state)).backbone.stem[0].weight, state["conv1.weight"]
    )


def test_tensors_of_the_wrong_shape_or_name_are_listed_and_none_is_skipped(tmp_path: Path):
    state = resnet10()
    state["layer2.0.conv1.weight"] = state["layer2.0.conv1.weight"][:, :7]
    state["layer5.0.conv1.weight"] = state.pop("layer4.0.conv1.weight")
    with pytest.raises(UserError) as caught:
        network(saved(tmp_path / "odd.pth", state))
    said = str(caught.value)
    assert "1 missing in the file: layer4.0.conv1.weight" in said
    assert "layer2.0.conv1.weight ((128, 7, 3, 3) in the file, (128, 64, 3, 3) in the network)" in said
    assert "1 not in the network: layer5.0.conv1.weight" in said


def test_a_file_for_the_other_stem_is_refused_with_the_setting_to_change(tmp_path: Path):
    path = saved(tmp_path / "deep.pth", Encoder("resnet10").state_dict())
    with pytest.raises(UserError, match="--set stem=deep"):
        network(path)


# ---- a run's weights are the whole network's -------------------------------------------------------------


def test_the_weights_of_a_run_start_the_whole_network(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    state = network().state_dict()
    path = saved(tmp_path / "weights.pt", {"network": "teacher", "epoch": 3, "state": state})
    assert same(network(path), state)
    assert not caplog.records


def test_heads_for_other_classes_start_at_random_and_it_says_which(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    state = network(classes=7).state_dict()
    found = network(saved(tmp_path / "weights.pt", {"state": state}))
    assert "start at random: classifier.4.weight, classifier.4.bias." in caplog.text
    assert same(found, {name: t for name, t in state.items() if not name.startswith("classifier.4")})


def test_a_head_that_only_one_of_them_has_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    both = saved(tmp_path / "both.pt", {"state": network().state_dict()})
    one = saved(tmp_path / "one.pt", {"state": network(representation=False).state_dict()})
    network(both, representation=False)
    assert "this network has no such head: representer.0.0.weight" in caplog.text
    caplog.clear()
    network(one)
    assert "start at random: representer.0.0.weight" in caplog.text


def test_a_run_with_another_backbone_is_refused(tmp_path: Path):
    path = saved(tmp_path / "weights.pt", {"state": network(stem="deep").state_dict()})
    with pytest.raises(UserError, match=r"missing in the file: backbone\.stem\.0\.weight"):
        network(path)


# ---- files that cannot be used ---------------------------------------------------------------------------


class Surprise:
    """What a stranger's file may hold."""


def test_what_cannot_be_read_is_a_sentence(tmp_path: Path):
    (tmp_path / "damaged.pth").write_bytes(b"half a file")
    for path, words in [
        (tmp_path / "nowhere.pth", "There is no file"),
        (tmp_path / "damaged.pth", "it is damaged, or holds objects"),
        (saved(tmp_path / "objects.pth", {"layer": Surprise()}), "could run code"),
        (saved(tmp_path / "list.pth", [1, 2]), "holds a list"),
        (saved(tmp_path / "released.pth", {"model_state": {}}), "u2pl import"),
    ]:
        with pytest.raises(UserError, match=words):
            network(path)


def of_numpy_1(path: Path) -> Path:
    """The file as numpy 1 would have written it: its modules had other names."""
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data.replace(b"numpy._core", b"numpy.core"))
    return path


@pytest.mark.parametrize("kind", [np.float64, np.float32])
@pytest.mark.parametrize("rename", [lambda path: path, of_numpy_1])
def test_numpys_numbers_may_stand_among_the_values(tmp_path: Path, kind, rename):
    path = rename(saved(tmp_path / "checkpoint.pth", {"best_miou": kind(0.75), "epoch": 3}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert weights.read(path)["best_miou"] == 0.75


def test_files_of_before_torch_1_6_are_read(tmp_path: Path):
    torch.save({"a": torch.ones(2)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert weights.read(tmp_path / "old.pth")["a"].tolist() == [1, 1]


def test_a_plain_pickle_is_refused(tmp_path: Path):
    (tmp_path / "x.pth").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(UserError, match="cannot be read"):
        weights.read(tmp_path / "x.pth")


# ---- which run it is -------------------------------------------------------------------------------------


def test_the_content_of_the_file_decides_the_fingerprint_and_not_where_it_lies(
    tiny_project: Project, tmp_path: Path
):
    def facts(path: str) -> str:
        spec = RunSpec("tiny", "1/4", "suponly", overrides={"recipe.weights": path})
        return describe(tiny_project, spec)[2]["fingerprint"]

    first, other = saved(tmp_path / "a.pth", {"a": 1}), saved(tmp_path / "b.pth", {"a": 2})
    copy = saved(tmp_path / "copy.pth", {"a": 1})
    copy.write_bytes(first.read_bytes())
    assert facts(str(first)) == facts(str(copy))
    assert len({facts(str(first)), facts(str(other)), facts("none")}) == 3


def test_a_relative_file_counts_from_the_projects_folder(tiny_project: Project, monkeypatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    params = Params.read(tiny_project)
    spec = params.spec("tiny", "1/4", "suponly", overrides={"weights": "runs/a/weights.pt"})
    assert params.resolve(spec).recipe.weights == str(tiny_project.root / "runs/a/weights.pt")


def test_a_file_that_is_not_there_is_noticed_before_anything_is_built(tiny_project: Project):
    spec = RunSpec("tiny", "1/4", "suponly", overrides={"recipe.weights": "imagnet"})
    with pytest.raises(UserError, match="--set weights= takes none, imagenet, or a file"):
        describe(tiny_project, spec)


def test_the_shipped_recipes_name_no_file():
    values = Params.read(Project(REPOSITORY)).values
    chosen = [section.get("weights", "none") for section in (values["recipe"], *values["recipes"].values())]
    assert set(chosen) <= {"none", "imagenet"}
