"""Whether bfloat16 is native is answered without torch where it is certain that torch would find no GPU."""

import importlib.util
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from u2pl.settings import device

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
