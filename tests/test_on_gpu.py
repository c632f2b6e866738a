"""The script that measures what only a GPU can tell, tried out on a CPU: tables, what fails, and what is late."""

import re
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from u2pl.models import deeplab

ROOT = Path(__file__).parents[1]
HEADINGS = [
    "The tests' CUDA paths",
    "Where a step waits for the GPU",
    "Steps",
    "Losses alone",
    "Loader alone",
    "Precision, compiling, SyncBN, memory trial",
]
NEEDS_A_GPU = {"bfloat16, SyncBN", "decoding alone, nvjpeg"}


def tables(path: Path, *words: str) -> dict[str, str]:
    """What stands under each heading of the file that the script writes."""
    script = str(ROOT / "benchmarks" / "on_gpu.py")
    command = [
        sys.executable,
        script,
        "--device",
        "cpu",
        "--tiny",
        "--repeats",
        "1",
        "--out",
        str(path),
        *words,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    _, *sections = path.read_text(encoding="utf-8").split("\n### ")
    return dict(section.split("\n", 1) for section in sections)


@pytest.mark.slow
def test_every_section_has_its_table_and_nothing_fails_that_needs_no_gpu(tmp_path: Path):
    found = tables(tmp_path / "gpu.md")
    assert list(found) == HEADINGS
    for text in found.values():
        lines = [line for line in text.splitlines() if line.startswith("|")]
        assert len(lines) > 2
        assert len({line.count(" | ") for line in lines}) == 1
        failed = {line.split(" | ")[0].strip("| ") for line in lines if re.search("Error|left out: ", line)}
        assert failed <= NEEDS_A_GPU
    assert re.search(r"\| files: 1 \| [1-9]\d* \| 0 \| 0 \|", found["The tests' CUDA paths"])


@pytest.mark.slow
def test_a_section_that_does_not_fit_into_the_time_is_named_as_left_out(tmp_path: Path):
    found = tables(tmp_path / "gpu.md", "--minutes", "0.1")
    assert list(found) == HEADINGS
    assert all(text.strip().startswith("Left out: it needs ") for text in found.values())


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import on_gpu

    return on_gpu


@pytest.mark.parametrize(
    ("error", "remark"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), "out of memory"),
        (RuntimeError("no kernel\nfor this"), "RuntimeError: no kernel"),
    ],
)
def test_what_fails_is_a_row_after_those_that_were_there(on_gpu: ModuleType, error: Exception, remark: str):
    def work() -> Iterator[tuple[str, ...]]:
        yield "1", "2", "done"
        raise error

    assert on_gpu.rows_of(work, 3, 60) == [("1", "2", "done"), ("–", "–", remark)]


def test_what_takes_too_long_is_ended_and_said_to_be_left_out(on_gpu: ModuleType):
    def work() -> Iterator[tuple[str, ...]]:
        try:
            time.sleep(60)
        except Exception:
            yield "1", "2", "taken for an error of the work"

    started = time.monotonic()
    (row,) = on_gpu.rows_of(work, 3, 0.1)
    assert row == ("–", "–", "left out: the section's time was up")
    assert time.monotonic() - started < 30
    assert on_gpu.rows_of(work, 3, -1) == [row]


def test_a_wait_is_told_by_the_line_of_our_code_that_led_to_it(
    on_gpu: ModuleType, monkeypatch: pytest.MonkeyPatch
):
    def interpolate(*_: object, **__: object) -> None:
        for _ in range(2):
            warnings.warn("called a synchronizing CUDA operation", UserWarning, stacklevel=1)

    monkeypatch.setattr(deeplab, "interpolate", interpolate)
    with on_gpu.synchronising(torch.device("cpu")) as places:
        deeplab.upsample(torch.zeros(1, 1, 2, 2), (3, 3))
        # As torch says when the mode is set.
        warnings.warn("does not yet detect all synchronizing operations", UserWarning, stacklevel=1)
    ((place, times),) = places.items()
    lines = Path(deeplab.__file__).read_text(encoding="utf-8").splitlines()
    name, number = place.strip("`").split(":")
    assert (name, times) == ("u2pl/models/deeplab.py", 2)
    assert "interpolate(logits" in lines[int(number) - 1]
