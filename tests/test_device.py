"""Which device computes; and that bfloat16 is judged without torch where it is certain that there is no GPU."""

import importlib.util
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
import torch

from u2pl.errors import UsageError, UserError
from u2pl.models.deeplab import DeepLabV3Plus
from u2pl.models.trained import trained_network
from u2pl.project import Project
from u2pl.settings import Params, Recipe, device
from u2pl.training import distributed, trainer

BUILT_FOR_CPU = "cuda = None\nhip = None\n"
BUILT_FOR_CUDA = "cuda = '12.8'\nhip = None\n"
BUILT_FOR_ROCM = "cuda = None\nhip = '6.4'\n"


@pytest.mark.parametrize(
    ("version", "driver", "certain"),
    [
        (BUILT_FOR_CPU, False, True),
        (BUILT_FOR_CPU, True, True),
        (BUILT_FOR_CUDA, False, True),
        (BUILT_FOR_CUDA, True, False),
        (BUILT_FOR_ROCM, False, False),
        ("__version__ = '9.0'\n", False, False),
        (None, False, False),
    ],
)
def test_without_torch_it_is_certain_only_where_torch_could_find_no_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str | None, driver: bool, certain: bool
):
    if version is not None:
        (tmp_path / "version.py").write_text(version)
    spec = ModuleSpec("torch", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    monkeypatch.setattr(device, "_has_cuda_driver", lambda: driver)
    monkeypatch.setattr(sys, "platform", "linux")
    assert device._is_without_gpu() == certain


def test_where_it_is_certain_torch_says_the_same():
    script = (
        "import sys; from u2pl.settings import device; certain = device._is_without_gpu(); "
        "early = device.has_native_bfloat16(); loaded = 'torch' in sys.modules; import torch; "
        "print(early == device.has_native_bfloat16(), loaded != certain, "
        "not (certain and torch.cuda.is_available()))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "True True True\n", done.stderr


# ---- --device --------------------------------------------------------------------------------------------


@pytest.fixture
def tiny_recipe(tiny_project: Project) -> Recipe:
    params = Params.read(tiny_project)
    return params.resolve(params.spec("tiny", "1/4", "suponly"), bfloat16=False).recipe


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that torch finds two GPUs on; nothing is computed on them."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda number: None)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)


def test_a_gpu_is_taken_where_there_is_one_unless_another_device_is_chosen(two_gpus: None):
    assert device.torch_device() == torch.device("cuda")
    for word, expected in (("cpu", "cpu"), ("cuda", "cuda"), ("cuda:1", "cuda:1"), ("auto", "cuda")):
        with device.using(word):
            assert device.torch_device() == torch.device(expected)
            assert distributed.local_device().type == torch.device(expected).type
    with device.using("cuda:1"):
        assert distributed.local_device() == torch.device("cuda", 1)
    assert device.torch_device() == torch.device("cuda")


def test_the_precision_is_that_of_the_chosen_device(two_gpus: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(device.platform, "machine", lambda: "riscv64")
    assert device.has_native_bfloat16()
    with device.using("cpu"):
        assert not device.has_native_bfloat16()


def test_a_network_is_put_on_the_chosen_device(tiny_recipe: Recipe, two_gpus: None):
    state = DeepLabV3Plus(2, tiny_recipe, representation=False).state_dict()
    with device.using("cpu"):
        network = trained_network(state, 2, tiny_recipe, where="it", remedy="", device=None)
    assert {parameter.device.type for parameter in network.parameters()} == {"cpu"}


@pytest.mark.parametrize("word", ["gpu", "cuda:", "cuda:-1", "cuda:x", "mps", "", "CUDA"])
def test_a_word_that_is_no_device_is_refused(word: str):
    with pytest.raises(UsageError, match="--device is auto, cpu, cuda or cuda:NUMBER"), device.using(word):
        pass


def test_a_gpu_that_is_not_there_is_refused_with_those_that_are(two_gpus: None):
    with pytest.raises(UserError, match="this machine has cuda:0, cuda:1 and cpu"), device.using("cuda:2"):
        pass


@pytest.mark.parametrize("word", ["cuda", "cuda:0"])
def test_where_there_is_no_gpu_none_is_given(word: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="finds no GPU on this machine, only its cpu"), device.using(word):
        pass


def test_several_processes_do_not_share_one_gpu(tiny_recipe: Recipe, two_gpus: None):
    with device.using("cuda:1"), pytest.raises(UsageError, match="cuda:1 is one GPU, and 2 processes"):
        trainer.check_processes(tiny_recipe, 2)
