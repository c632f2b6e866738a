"""How busy the machine is while a run trains, sampled into `system.jsonl` of its folder by the side process."""

import csv
import json
import shutil
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil

from u2pl.runs.records import parse_event

FILE = "system.jsonl"
SHORTEST_PAUSE, LONGEST_PAUSE = 5.0, 60.0
_SHARE = 60
"""A pause is this part of the time that has gone by, so that a run of a day has some 1,500 samples and not 17,000."""

_GPU = {
    "utilization.gpu": "utilization_percentage",
    "memory.used": "memory_usage_megabytes",
    "memory.total": "",
    "power.draw": "power_usage_watts",
}
"""What nvidia-smi calls it -> what MLflow does."""


class Sampler:
    """Appends a line to `system.jsonl` every few seconds, from a thread, until its process ends.

    Of an earlier attempt at the same run the lines stay, and the numbering goes on.

    Args:
        folder: of the run.
        trainer: process whose processor time and memory, with those of its children, are sampled too.
    """

    def __init__(self, folder: Path, trainer: int):
        self._path = folder / FILE
        self._trainer = trainer
        self._step = next_step(self._path)
        self._processor_time: tuple[float, float] | None = None
        self._smi = shutil.which("nvidia-smi")
        self._writing, self._over = threading.Lock(), False

    def start(self) -> None:
        """Begin; nothing that goes wrong is told, or would stop anything else."""
        threading.Thread(target=self._run, daemon=True).start()

    def stop(self) -> None:
        """Write nothing more."""
        with self._writing:
            self._over = True

    def _run(self) -> None:
        begun = time.monotonic()
        with suppress(OSError, psutil.Error):  # the trainer has ended, or the disk is full
            psutil.cpu_percent()
            self._trainer_load()  # both measure from one call to the next
            time.sleep(1)
            while not self._over:
                self.sample()
                gone = time.monotonic() - begun
                time.sleep(min(max(gone / _SHARE, SHORTEST_PAUSE), LONGEST_PAUSE))

    def sample(self) -> None:
        """Append one line, by the names that MLflow's page has charts for."""
        memory = psutil.virtual_memory()
        load = {
            "cpu_utilization_percentage": psutil.cpu_percent(),
            "system_memory_usage_megabytes": memory.used / 1e6,
            "system_memory_usage_percentage": memory.percent,
            **self._trainer_load(),
            **(gpu_load(self._smi) if self._smi else {}),
        }
        line = {
            "time": time.time_ns() // 1_000_000,
            "event": "system",
            "step": self._step,
            "epoch": 0,
            "metrics": {f"system/{name}": round(value, 1) for name, value in load.items()},
        }
        with self._writing:
            if self._over:
                return
            with self._path.open("ab") as file:
                file.write(json.dumps(line).encode() + b"\n")
            self._step += 1

    def _trainer_load(self) -> dict[str, float]:
        """Of the trainer and its children but this process: memory, and the share of one core since the last call."""
        trainer = psutil.Process(self._trainer)
        own = psutil.Process().pid
        seconds = memory = 0.0
        for process in (trainer, *trainer.children(recursive=True)):
            if process.pid == own:
                continue
            with suppress(psutil.Error):
                times = process.cpu_times()
                seconds += times.user + times.system
                memory += process.memory_info().rss
        now, before = time.monotonic(), self._processor_time
        self._processor_time = (now, seconds)
        share = {}
        # A child that has ended takes its time with it.
        if before and now > before[0]:
            share = {"trainer_cpu_percentage": max(0.0, 100 * (seconds - before[1]) / (now - before[0]))}
        return {"trainer_memory_megabytes": memory / 1e6, **share}


def gpu_load(smi: str) -> dict[str, float]:
    """Of every GPU its load, memory and power; what cannot be found out is left out.

    Args:
        smi: path of nvidia-smi.
    """
    command = [smi, f"--query-gpu={','.join(_GPU)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return {}
    found: dict[str, float] = {}
    for index, row in enumerate(csv.reader(done.stdout.splitlines(), skipinitialspace=True)):
        values = dict(zip(_GPU, map(_number, row), strict=False))
        for key in ("memory.used", "memory.total"):
            if (mebibytes := values.get(key)) is not None:
                values[key] = mebibytes * 2**20 / 1e6
        found |= {
            f"gpu_{index}_{name}": value
            for key, name in _GPU.items()
            if name and (value := values.get(key)) is not None
        }
        used, total = values.get("memory.used"), values.get("memory.total")
        if used is not None and total:
            found[f"gpu_{index}_memory_usage_percentage"] = 100 * used / total
    return found


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None  # "[N/A]"


def next_step(path: Path) -> int:
    """The number after the last one in a `system.jsonl`, whose last line may be cut off; that is ended, too."""
    if not path.is_file():
        return 0
    content = path.read_bytes()
    if content and not content.endswith(b"\n"):
        with path.open("ab") as file:
            file.write(b"\n")
    steps = [event["step"] for event in map(parse_event, content.splitlines()) if event is not None]
    return max(steps, default=-1) + 1
