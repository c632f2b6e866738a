import dataclasses
from pathlib import Path

import pytest
import torch
from models.test_deeplab import recipe
from models.theirs import Released
from torch import Tensor, nn

from u2pl.errors import UserError
from u2pl.models.deeplab import DeepLabV3Plus
from u2pl.models.released import our_name, translate
from u2pl.models.weights import fit

LAYOUTS = Path(__file__).parents[3] / "shared" / "released_checkpoint"
FULL = {"backbone": "resnet101", "width": 256, "representation": 256, "output_stride": 8, "multi_grid": True}
needs_layouts = pytest.mark.skipif(
    not LAYOUTS.is_dir(), reason="needs the lists of tensors in ../shared/released_checkpoint"
)


def ours(two_heads: bool = True, classes: int = 5, **changed) -> DeepLabV3Plus:
    settings = {"stem": "deep", "output_stride": 8, "multi_grid": True, "dropout": 0.0} | changed
    return DeepLabV3Plus(classes, recipe(**settings), representation=two_heads)


def full_size(classes: int = 21, representation: bool = True, auxiliary: float = 0.0) -> DeepLabV3Plus:
    """Shapes without numbers, for nothing."""
    with torch.device("meta"):
        return ours(representation, classes, **FULL, auxiliary=auxiliary)


def pair(name: str, representation: bool = True) -> tuple[Released, DeepLabV3Plus]:
    """The same network, theirs and ours, in double precision."""
    torch.manual_seed(0)
    theirs = Released(name, 8, 5, representation=representation).shake().double()
    network = ours(representation, backbone=name).double()
    state = translate(theirs.saved()).state
    fit(state, network).check("theirs", "")
    network.load_state_dict(state)
    return theirs, network


# ---- where the numbers go --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["resnet10", "resnet50"])
@torch.no_grad()
def test_a_translated_network_computes_what_the_released_one_does(name: str):
    theirs, network = pair(name)
    image = torch.randn(
        1, 3, 80, 112, dtype=torch.float64
    )  # even sizes, for which the pooling's last window matters
    logits, representation = theirs.eval()(image)
    found = network.eval()(image)
    assert found.logits.shape == (1, 5, 21, 29)
    torch.testing.assert_close(found.logits, logits.float())
    torch.testing.assert_close(found.representation, representation.float())


@torch.no_grad()
def test_in_training_too_it_computes_the_same_and_learns_the_same_statistics():
    """Where a bias stands in front of a batch norm, theirs has one and ours has a smaller running mean."""
    theirs, network = pair("resnet10")
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    torch.testing.assert_close(network.train()(images).logits, theirs.train()(images)[0].float())
    torch.testing.assert_close(network.eval()(images).logits, theirs.eval()(images)[0].float())


@torch.no_grad()
def test_a_suponly_network_has_no_representation_head():
    theirs, network = pair("resnet10", representation=False)
    assert not translate(theirs.saved()).has_representation
    image = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    torch.testing.assert_close(network.eval()(image).logits, theirs.eval()(image)[0].float())


def by_hand(state: dict[str, Tensor], image: Tensor) -> Tensor:
    """The deep stem out of a checkpoint's tensors, layer by layer."""
    functional = nn.functional

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var, weight, bias = (
            state[f"module.encoder.{name}.{part}"].view(-1, 1, 1)
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return ((x - mean) / (var + 1e-5).sqrt() * weight + bias).clamp(min=0)

    x = functional.conv2d(image, state["module.encoder.conv1.0.weight"], stride=2, padding=1)
    x = functional.conv2d(norm(x, "conv1.1"), state["module.encoder.conv1.3.weight"], padding=1)
    x = functional.conv2d(norm(x, "conv1.4"), state["module.encoder.conv1.6.weight"], padding=1)
    return functional.max_pool2d(norm(x, "bn1"), 3, 2, 1, ceil_mode=True)


@torch.no_grad()
def test_the_stem_is_three_convolutions_each_with_its_own_batch_norm():
    theirs, network = pair("resnet10")
    image = torch.randn(1, 3, 32, 48, dtype=torch.float64)
    torch.testing.assert_close(network.eval().backbone.stem(image), by_hand(theirs.saved(), image))


@pytest.mark.parametrize(
    ("theirs", "branch"),
    [("conv1.1", "pool.0")] + [(f"conv{k + 2}.0", f"branches.{k}.0") for k in range(4)],
)
def test_the_pyramids_branches_keep_their_order(theirs: str, branch: str):
    assert our_name(f"module.decoder.aspp.{theirs}.weight") == f"aspp.{branch}.weight"
    dilations = {"conv3.0": 12, "conv4.0": 24, "conv5.0": 36}
    assert full_size().aspp.get_submodule(branch).dilation[0] == dilations.get(theirs, 1)


# ---- the published layout --------------------------------------------------------------------------------


def layout(name: str) -> dict[str, Tensor]:
    """A checkpoint's tensors without numbers, from its list of names and shapes."""
    tensors = {}
    for line in (LAYOUTS / f"{name}.tsv").read_text().splitlines():
        key, shape = line.split("\t")
        size = [] if shape == "scalar" else [int(n) for n in shape.split("x")]
        tensors[key] = torch.empty(size, device="meta")
    return tensors


@needs_layouts
@pytest.mark.parametrize(("data_set", "classes", "auxiliary"), [("voc", 21, 0), ("cityscapes", 19, 9)])
def test_every_published_tensor_has_a_place(data_set: str, classes: int, auxiliary: int):
    tensors = layout(data_set)
    found = translate(tensors)
    assert found.classes == classes
    assert len(found.auxiliary) == auxiliary
    fitting = fit(found.state, full_size(classes, auxiliary=0.4 if auxiliary else 0.0))
    fitting.check(data_set, "")
    assert len(fitting.matched) == len(tensors) - 4, "four biases became part of means"


@needs_layouts
@pytest.mark.parametrize(("data_set", "classes"), [("voc", 21), ("cityscapes", 19)])
def test_the_network_of_these_tests_has_the_published_names_and_shapes(data_set: str, classes: int):
    with torch.device("meta"):
        theirs = Released("resnet101", 256, classes, auxiliary=data_set == "cityscapes").saved()
    expected = {name: tensor.shape for name, tensor in layout(data_set).items()}
    assert {name: tensor.shape for name, tensor in theirs.items()} == expected


# ---- what does not fit -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint() -> dict[str, Tensor]:
    with torch.device("meta"):
        return Released("resnet101", 256, 21, auxiliary=True).saved()


def refused(tensors: dict[str, Tensor], network: DeepLabV3Plus) -> str:
    found = translate(tensors)
    fitting = fit(found.state, network)
    with pytest.raises(UserError) as caught:
        dataclasses.replace(fitting, missing=[*fitting.missing, *found.missing]).check("It", "Do this.")
    return str(caught.value)


def test_the_auxiliary_head_is_named_and_has_a_place_where_there_is_one(checkpoint):
    found = translate(checkpoint)
    assert "further.auxiliary.4.weight" in found.auxiliary
    assert len(found.auxiliary) == 9
    fit(found.state, full_size(auxiliary=0.4)).check("It", "")
    fit(found.state, full_size()).check("It", "", allowed=["further."])
    assert "9 not in the network: further.auxiliary." in refused(checkpoint, full_size())


def test_names_without_the_prefix_of_several_devices_mean_the_same(checkpoint):
    bare = {name.removeprefix("module."): tensor for name, tensor in checkpoint.items()}
    assert translate(bare).state.keys() == translate(checkpoint).state.keys()


def test_what_is_missing_misshaped_or_unknown_is_listed(checkpoint):
    tensors = dict(checkpoint)
    del tensors["module.encoder.layer3.22.conv2.weight"]
    tensors["module.encoder.conv1.6.weight"] = torch.empty(128, 64, 1, 1, device="meta")
    tensors["module.decoder.extra.weight"] = torch.empty(1)
    said = refused(tensors, full_size(auxiliary=0.4))
    assert "1 missing in the file: backbone.layer3.22.conv2.weight" in said
    shapes = "(128, 64, 1, 1) in the file, (128, 64, 3, 3) in the network"
    assert f"1 of another shape: backbone.stem.0.6.weight ({shapes})" in said
    assert "1 not in the network: decoder.extra.weight" in said
    assert said.endswith("Do this.")


def test_of_many_the_first_twenty_are_listed_and_the_others_counted(checkpoint):
    tensors = {name: t for name, t in checkpoint.items() if ".layer3." not in name}
    said = refused(tensors, full_size(auxiliary=0.4))
    count = sum(".layer3." in name and "num_batches" not in name for name in checkpoint)
    assert f"{count} missing in the file: backbone.layer3.0.conv1.weight" in said
    assert said.count("backbone.layer3") == 20
    assert f"and {count - 20} more" in said


def test_a_bias_that_is_missing_or_misshaped_is_listed_like_any_other(checkpoint):
    tensors = dict(checkpoint)
    del tensors["module.decoder.classifier.0.bias"]
    tensors["module.decoder.representation.4.bias"] = torch.empty(1, device="meta")
    said = refused(tensors, full_size(auxiliary=0.4))
    assert "1 missing in the file: classifier.0.0.bias" in said
    assert "1 not in the network: representer.2.0.bias" in said


def test_a_checkpoint_without_the_second_head_does_not_fit_a_network_that_has_it(checkpoint):
    tensors = {name: t for name, t in checkpoint.items() if ".representation." not in name}
    assert "representer.0.0.weight" in refused(tensors, full_size(auxiliary=0.4))
    fit(translate(tensors).state, full_size(representation=False, auxiliary=0.4)).check("It", "")
