"""What this machine's default device multiplies fast; torch is asked where it is loaded, or a GPU may be there."""

import ctypes
import importlib.util
import platform
import sys
from pathlib import Path


def has_native_bfloat16() -> bool:
    """Whether this machine's default device multiplies bfloat16 faster than float32.

    A CPU does with AVX512_BF16 or AMX (read from /proc/cpuinfo, so False where there is none).
    """
    if "torch" in sys.modules or not _is_without_gpu():
        import torch

        if torch.cuda.is_available():
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
