import re
import urllib.error

import pytest
import torch
from torch import nn

from u2pl.errors import UserError
from u2pl.models.resnet import ResNetBackbone, zoo


def convolutions(*stages: nn.Module) -> list[tuple]:
    return [
        (m.kernel_size, m.stride, m.dilation, m.padding)
        for stage in stages
        for m in stage.modules()
        if isinstance(m, nn.Conv2d)
    ]


@pytest.mark.parametrize("name", ["resnet50", "resnet101"])
@pytest.mark.parametrize(
    ("output_stride", "replaced"), [(8, [False, True, True]), (16, [False, False, True])]
)
def test_stride_becomes_dilation_as_torchvision_does_it(name: str, output_stride: int, replaced: list[bool]):
    with torch.device("meta"):
        theirs = getattr(zoo, name)(replace_stride_with_dilation=replaced)
        ours = ResNetBackbone(name, output_stride=output_stride, multi_grid=False)
    stages = ("layer1", "layer2", "layer3", "layer4")
    assert convolutions(*(getattr(ours, s) for s in stages)) == convolutions(
        *(getattr(theirs, s) for s in stages)
    )


@pytest.mark.parametrize(("output_stride", "dilations"), [(8, [4, 8, 16]), (16, [2, 4, 8])])
def test_multi_grid_multiplies_the_dilations_of_the_last_stage_by_2_2_4(
    output_stride: int, dilations: list[int]
):
    with torch.device("meta"):
        stage = ResNetBackbone("resnet50", output_stride=output_stride, multi_grid=True).layer4
    assert [block.conv2.dilation for block in stage] == [(d, d) for d in dilations]


@pytest.mark.parametrize("name", ["resnet10", "resnet18", "resnet50"])
@pytest.mark.parametrize(("output_stride", "size"), [(8, (9, 13)), (16, (5, 7))])
def test_the_last_stage_sees_one_feature_per_output_stride_and_the_first_one_per_four_pixels(
    name: str, output_stride: int, size: tuple[int, int]
):
    backbone = ResNetBackbone(name, output_stride=output_stride).eval()
    with torch.no_grad():
        low, _, high = backbone(torch.zeros(1, 3, 65, 97))
    assert low.shape == (1, backbone.low_channels, 17, 25)
    assert high.shape == (1, backbone.channels, *size)


def test_a_residual_block_starts_as_the_identity():
    stage = ResNetBackbone("resnet18", output_stride=16).layer4
    assert stage[1].bn2.weight.eq(0).all()


@pytest.mark.parametrize("name", ["resnet10", "resnet18", "resnet50"])
def test_a_residual_block_may_start_at_work_and_the_other_weights_are_the_same(name: str):
    started = {}
    for zero in (True, False):
        torch.manual_seed(0)
        started[zero] = ResNetBackbone(name, zero_init_residual=zero).state_dict()
    differing = {key for key in started[True] if not torch.equal(started[True][key], started[False][key])}
    norm = "bn3.weight" if name == "resnet50" else "bn2.weight"
    assert differing == {key for key in started[True] if key.endswith(norm)}
    assert all(started[False][key].eq(1).all() for key in differing)


def test_equal_seeds_give_equal_weights():
    networks = []
    for _ in range(2):
        torch.manual_seed(3)
        networks.append(ResNetBackbone("resnet10"))
    first, second = (network.parameters() for network in networks)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_resnet10_has_no_imagenet_weights_and_says_what_to_do():
    with pytest.raises(UserError, match=r"Use resnet18, or --set weights=none\."):
        ResNetBackbone("resnet10", weights="imagenet")


@pytest.mark.parametrize(
    ("name", "file"), [("resnet18", "resnet18-f37072fd.pth"), ("resnet101", "resnet101-cd907fc2.pth")]
)
def test_weights_that_cannot_be_downloaded_are_an_error_that_says_what_to_put_where(
    tmp_path, monkeypatch: pytest.MonkeyPatch, name: str, file: str
):
    def offline(*_, **__):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    monkeypatch.setattr(torch.hub, "urlopen", offline)
    with pytest.raises(UserError, match="no network") as caught, torch.device("meta"):
        ResNetBackbone(name, weights="imagenet")
    assert re.search(
        rf"download https://\S+/{file} and put it here as {tmp_path}/checkpoints/{file},", str(caught.value)
    )
    assert "--set weights=none" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"half a file"])
def test_a_damaged_copy_of_the_weights_is_the_same_error(tmp_path, monkeypatch, content: bytes):
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    copy = tmp_path / "checkpoints" / "resnet18-f37072fd.pth"
    copy.parent.mkdir()
    copy.write_bytes(content)
    with pytest.raises(UserError, match=f"put it here as {copy}"):
        ResNetBackbone("resnet18", weights="imagenet")


def test_there_are_no_imagenet_weights_for_the_deep_stem_and_it_says_what_there_is():
    with pytest.raises(UserError, match=r"--set weights=FILE.*--set stem=plain"):
        ResNetBackbone("resnet101", weights="imagenet", stem="deep")


@pytest.mark.parametrize("name", ["resnet10", "resnet50"])
def test_the_deep_stem_has_three_small_convolutions_and_hands_128_channels_on(name: str):
    with torch.device("meta"):
        deep, plain = ResNetBackbone(name, stem="deep"), ResNetBackbone(name)
    three, one = ((3, 3), (1, 1), (1, 1), (1, 1)), ((7, 7), (2, 2), (1, 1), (3, 3))
    assert convolutions(deep.stem) == [((3, 3), (2, 2), (1, 1), (1, 1)), three, three]
    assert convolutions(plain.stem) == [one]
    assert deep.layer1[0].conv1.in_channels == deep.layer1[0].downsample[0].in_channels == 128
    assert (deep.low_channels, deep.channels) == (plain.low_channels, plain.channels)
    assert convolutions(deep.layer2, deep.layer3, deep.layer4) == convolutions(
        plain.layer2, plain.layer3, plain.layer4
    )


def test_only_the_deep_stem_pools_a_last_window_over_the_edge():
    image = torch.zeros(1, 3, 64, 96)
    assert ResNetBackbone("resnet10", stem="plain").stem(image).shape == (1, 64, 16, 24)
    assert ResNetBackbone("resnet10", stem="deep").stem(image).shape == (1, 128, 17, 25)


@pytest.mark.parametrize("zero", [True, False])
def test_the_layers_behind_a_deep_stem_start_like_torchvisions(zero: bool):
    torch.manual_seed(0)
    backbone = ResNetBackbone("resnet50", stem="deep", zero_init_residual=zero)
    assert all(bool(block.bn3.weight.eq(0).all()) == zero for block in backbone.layer1)
    for conv in (backbone.stem[0][3], backbone.layer1[0].conv2, backbone.layer1[0].downsample[0]):
        fan_out = conv.out_channels * conv.kernel_size[0] ** 2
        assert conv.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.05)
