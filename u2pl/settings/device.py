"""On which device this process computes, and what that multiplies fast.

Torch is asked where it is loaded, or a GPU may be there.
"""

import ctypes
import importlib.util
import platform
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from u2pl.errors import UsageError, UserError

if TYPE_CHECKING:
    import torch

AUTO = "auto"
"""A GPU where there is one, else the CPU."""
_chosen = AUTO


@contextmanager
def using(word: str) -> Iterator[None]:
    """Compute on this device in the block, in all of the process; no name or setting of a run tells of it.

    Args:
        word: auto, cpu, cuda, or cuda:N for one of several GPUs.

    Raises:
        UsageError: it is none of these.
        UserError: this machine has no such device.
    """
    global _chosen
    _check(word)
    before, _chosen = _chosen, word
    try:
        yield
    finally:
        _chosen = before


def chosen() -> str:
    """The word of `using`, `auto` outside of it."""
    return _chosen


def chosen_gpu() -> int | None:
    """The number of the GPU that was chosen; None where none was chosen by its number."""
    return int(_chosen.partition(":")[2]) if ":" in _chosen else None


def is_gpu() -> bool:
    """Whether this process computes on a GPU; loads torch, unless it is certain that there is none."""
    return _chosen != "cpu" and _finds_gpu()


def _finds_gpu() -> bool:
    if "torch" not in sys.modules and _is_without_gpu():
        return False
    import torch

    return torch.cuda.is_available()


def torch_device() -> "torch.device":
    """The device that this process computes on."""
    import torch

    if not is_gpu():
        return torch.device("cpu")
    number = chosen_gpu()
    return torch.device("cuda") if number is None else torch.device("cuda", number)


def _check(word: str) -> None:
    """Check that a device can be had; nothing has to be asked for `auto` and `cpu`."""
    if word in (AUTO, "cpu"):
        return
    if not re.fullmatch(r"cuda(:[0-9]{1,4})?", word):
        raise UsageError(
            f"--device is auto, cpu, cuda or cuda:NUMBER, not {word!r}. Example: --device cuda:1"
        )
    count = 0
    if _finds_gpu():
        import torch

        count = torch.cuda.device_count()
    if not count:
        raise UserError(
            f"--device {word}: torch finds no GPU on this machine, only its cpu. Use --device cpu"
        )
    if ":" in word and int(word.partition(":")[2]) >= count:
        there = ", ".join(f"cuda:{number}" for number in range(count))
        raise UserError(f"--device {word}: this machine has {there} and cpu. Name one of them.")


def has_native_bfloat16() -> bool:
    """Whether the device that this process computes on multiplies bfloat16 faster than float32.

    A CPU does with AVX512_BF16 or AMX (read from /proc/cpuinfo, so False where there is none).
    """
    if is_gpu():
        import torch

        return torch.cuda.is_bf16_supported(including_emulation=False)
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return platform.machine() == "x86_64" and ("avx512_bf16" in flags or "amx_bf16" in flags)


def _is_without_gpu() -> bool:
    """Whether it is certain, without torch and its two seconds, that torch would find no GPU."""
    try:
        built_for = _built_for()
    except (ImportError, OSError, AttributeError):
        return False
    if built_for == {"cuda": False, "hip": False}:
        return True
    return built_for == {"cuda": True, "hip": False} and sys.platform == "linux" and not _has_cuda_driver()


def _built_for() -> dict[str, bool]:
    """Which kinds of GPU the installed torch was built for, as its torch/version.py says, which imports nothing of it.

    Raises:
        ImportError: there is no torch.
        OSError: it has no such file.
        AttributeError: the file says something else.
    """
    torch = importlib.util.find_spec("torch")
    if torch is None or torch.origin is None:
        raise ImportError("torch")
    spec = importlib.util.spec_from_file_location("torch_version", Path(torch.origin).with_name("version.py"))
    if spec is None or spec.loader is None:
        raise ImportError("torch")
    version = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(version)
    return {kind: getattr(version, kind) is not None for kind in ("cuda", "hip")}


def _has_cuda_driver() -> bool:
    """Whether NVIDIA's driver is installed, which CUDA's own libraries look for by this name."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True
