from dataclasses import dataclass

import pytest
import torch
import yaml
from tiny import REPOSITORY, TINY
from torch import nn

from u2pl.models.deeplab import ASPP, DeepLabV3Plus, rows, upsample
from u2pl.models.dropout import ChannelDropout
from u2pl.settings import Recipe

DEFAULTS = yaml.safe_load((REPOSITORY / "params.yaml").read_text())["recipe"]


def recipe(**changed) -> Recipe:
    return Recipe.model_validate({k: (DEFAULTS | TINY | changed)[k] for k in Recipe.model_fields})


@pytest.mark.parametrize("backbone", ["resnet10", "resnet18", "resnet50"])
@pytest.mark.parametrize("output_stride", [8, 16])
def test_both_heads_answer_at_a_quarter_of_an_odd_size(backbone: str, output_stride: int):
    network = DeepLabV3Plus(5, recipe(backbone=backbone, output_stride=output_stride), representation=True)
    with torch.no_grad():
        output = network(torch.zeros(2, 3, 65, 97))
    assert output.logits.shape == (2, 5, 17, 25)
    assert output.representation is not None
    assert output.representation.shape == (2, 8, 17, 25)
    assert upsample(output.logits, (65, 97)).shape == (2, 5, 65, 97)


def test_a_network_without_the_second_head_or_not_asked_gives_no_representation():
    image = torch.zeros(2, 3, 32, 32)
    assert DeepLabV3Plus(3, recipe(), representation=False)(image).representation is None
    assert DeepLabV3Plus(3, recipe(), representation=True)(image, represent=False).representation is None


def test_representations_of_some_pixels_are_those_of_the_map_and_so_are_gradients():
    network = DeepLabV3Plus(3, recipe(dropout=0.0), representation=True).double()
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    pixels = torch.tensor([0, 127, 64, 5, 5])  # of two maps of 8 x 8
    results = []
    for asked in (True, pixels):
        network.zero_grad()
        found = network(images, represent=asked).representation
        found = rows(found)[pixels] if asked is True else found
        (found * torch.arange(40.0).view(5, 8)).sum().backward()
        results.append([found, *(p.grad for p in network.parameters() if p.grad is not None)])
    for dense, sparse in zip(*results, strict=True):
        torch.testing.assert_close(sparse.double(), dense.double(), rtol=1e-5, atol=1e-5)


def test_the_logits_do_not_depend_on_whether_representations_are_asked_for():
    network = DeepLabV3Plus(3, recipe(), representation=True).eval()
    image = torch.randn(1, 3, 32, 32)
    assert torch.equal(network(image).logits, network(image, represent=False).logits)


def test_behind_bfloat16_the_outputs_are_float32():
    network = DeepLabV3Plus(3, recipe(precision="bfloat16"), representation=True)
    output = network(torch.randn(2, 3, 32, 32))
    assert output.logits.dtype == torch.float32
    assert output.representation is not None
    assert output.representation.dtype == torch.float32
    assert network.classifier[0][0].weight.dtype == torch.float32


def test_the_pyramid_is_the_pooled_image_1x1_and_3x3_at_12_24_36():
    aspp = ASPP(6, 4, dropout=0.1)
    first = [branch[0] for branch in (aspp.pool, *aspp.branches)]
    assert [conv.kernel_size[0] for conv in first] == [1, 1, 3, 3, 3]
    assert [conv.dilation[0] for conv in first] == [1, 1, 12, 24, 36]
    assert aspp(torch.randn(2, 6, 5, 7)).shape == (2, 4, 5, 7)


def test_the_pooled_branch_sees_the_whole_image():
    """The convolutions reach at most 37 pixels far; a change 60 away is felt through the pool alone."""
    torch.manual_seed(0)  # of two channels alone, or by bad luck, the change may meet a dead ReLU
    aspp = ASPP(1, 32, dropout=0.1).eval()
    x = torch.zeros(1, 1, 1, 64)
    changed = x.clone()
    changed[..., 63] = 100
    assert not torch.equal(aspp(x)[..., 0], aspp(changed)[..., 0])


@pytest.mark.parametrize("representation", [True, False])
def test_every_parameter_stands_in_one_group_and_the_heads_learn_faster(representation: bool):
    network = DeepLabV3Plus(3, recipe(), representation=representation)
    encoder, heads = network.parameter_groups(0.1, 10)
    assert (encoder["lr"], heads["lr"]) == (0.1, 1.0)
    grouped = [id(p) for group in (encoder, heads) for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in network.parameters())
    assert {id(p) for p in encoder["params"]} == {id(p) for p in network.backbone.parameters()}


def test_a_head_is_two_conv_bn_relu_blocks_that_halve_512_channels_and_a_classifier():
    with torch.device("meta"):
        head = DeepLabV3Plus(21, recipe(width=256, representation=256), representation=True).representer
    shapes = [(m.in_channels, m.out_channels) for m in head.modules() if isinstance(m, nn.Conv2d)]
    assert shapes == [(512, 256), (256, 256), (256, 256)]


def dropouts(network: nn.Module) -> list[float]:
    return [module.p for module in network.modules() if isinstance(module, ChannelDropout)]


def test_channels_are_dropped_behind_the_pyramid_and_twice_in_each_head():
    network = DeepLabV3Plus(3, recipe(), representation=True)
    parts = (network.aspp, network.classifier, network.representer)
    assert [dropouts(part) for part in parts] == [[0.1], [0.1, 0.1], [0.1, 0.1]]
    assert len(dropouts(network)) == 5
    assert dropouts(DeepLabV3Plus(3, recipe(dropout=0.3), representation=True)) == [0.3] * 5


@pytest.mark.parametrize(("dropout", "equal"), [(0.0, True), (0.5, False)])
def test_without_dropout_two_passes_in_training_mode_agree(dropout: float, equal: bool):
    network, image = (
        DeepLabV3Plus(3, recipe(dropout=dropout), representation=False),
        torch.randn(2, 3, 32, 32),
    )
    assert torch.equal(network(image).logits, network(image).logits) == equal


@pytest.mark.parametrize("zero", [True, False])
def test_the_recipe_decides_whether_residual_blocks_start_as_the_identity(zero: bool):
    block = DeepLabV3Plus(3, recipe(zero_init_residual=zero), representation=False).backbone.layer4[0]
    assert bool(block.bn2.weight.eq(0).all()) == zero


@dataclass
class Seen:
    """The shapes that went into the segmentation head."""

    shape: torch.Size | None = None

    def __call__(self, module: nn.Module, inputs: tuple) -> None:
        self.shape = inputs[0].shape


def test_the_decoder_joins_the_pyramid_with_the_first_stage_at_stride_4():
    network, seen = DeepLabV3Plus(3, recipe(output_stride=16), representation=False).eval(), Seen()
    network.classifier[0].register_forward_pre_hook(seen)
    with torch.no_grad():
        network(torch.zeros(1, 3, 64, 96))
    assert seen.shape == (1, 2 * 8, 16, 24)


def test_upsampling_keeps_the_corners():
    logits = torch.randn(1, 2, 3, 4)
    large = upsample(logits, (9, 13))
    assert torch.allclose(
        large[..., [0, 0, -1, -1], [0, -1, 0, -1]], logits[..., [0, 0, -1, -1], [0, -1, 0, -1]]
    )
