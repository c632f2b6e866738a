"""What the benchmarks share: times, peak memory, what the machine can do at best, and a table.

Time: the versions to compare take turns within one process, and the median of each counts, so that a machine that
slows down for a while slows all of them. On CUDA between two events, on the CPU by the clock.

Peak extra memory: the most bytes alive at once during a step, beyond those alive at its start. On CUDA
`torch.cuda.max_memory_allocated`. On the CPU the profiler's record of every allocation and release of a
tensor, summed in order of time: exact, whatever the C library keeps for later, but blind to what NumPy or
another library allocates by itself.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler and the allocator report to stderr otherwise;
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # both are read when torch is imported

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.profiler import ProfilerActivity, profile, record_function

Lap = Callable[[str], None]
"""Called with a phase's name at the end of the phase."""
Step = Callable[[Lap], object]
"""What is measured: one call does all the work once."""

MIB = 2.0**20
"""Bytes are printed in MiB."""


def no_lap(name: str) -> None:
    """For steps whose phases nobody asks for."""


def arguments(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options that all benchmarks have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="of torch on the CPU (default: 1)")
    parser.add_argument("--repeats", type=int, default=9, help="whose median counts (default: 9)")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def prepared(options: argparse.Namespace) -> torch.device:
    """The device to measure on, with the number of threads set and what is measured on printed."""
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("No CUDA device, or a torch without CUDA: use --device cpu.")
    load = f", load at the start {os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else ""
    name = device_name(device, options.threads)
    print(f"{name}, torch {torch.__version__}, float32, median of {options.repeats}{load}")
    return device


def device_name(device: torch.device, threads: int) -> str:
    """What is measured on."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.backends.cpu.get_cpu_capability()}, {threads} of {os.cpu_count()} cores"


class Stopwatch:
    """Milliseconds between calls, on the device's own time line."""

    def __init__(self, device: torch.device):
        self.device = device
        self.marks: list[Any] = []  # seconds, or events
        self.names: list[str] = []
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        self("start")

    def __call__(self, name: str) -> None:
        """All since the last call was `name`."""
        self.names.append(name)
        if self.device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.marks.append(event)
        else:
            self.marks.append(time.perf_counter())

    def read(self) -> dict[str, float]:
        """Milliseconds of each name."""
        cuda = self.device.type == "cuda"
        if cuda:
            torch.cuda.synchronize(self.device)
        times: dict[str, float] = {}
        for name, before, after in zip(self.names[1:], self.marks[:-1], self.marks[1:], strict=True):
            spent = before.elapsed_time(after) if cuda else 1e3 * (after - before)
            times[name] = times.get(name, 0.0) + spent
        return times


Times = list[dict[str, float]]
"""Of each repeat the milliseconds of each phase."""


def taking_turns(steps: Mapping[str, Step], repeats: int, device: torch.device) -> dict[str, Times]:
    """Times of each step, after one round to warm up; what follows a step's last phase is "rest"."""
    times: dict[str, Times] = {name: [] for name in steps}
    for repeat in range(repeats + 1):
        for name, step in steps.items():
            watch = Stopwatch(device)
            step(watch)
            watch("rest")
            if repeat:
                times[name].append(watch.read())
    return times


def totals(times: Times) -> list[float]:
    """Milliseconds of each repeat, in ascending order."""
    return sorted(sum(phases.values()) for phases in times)


def peak_extra(step: Step, device: torch.device) -> int:
    """Bytes alive at the worst moment of a step, beyond those alive at its start.

    The step runs twice and the second run counts: the profiler knows the size of what is released only
    where it saw it allocated, and a step may release what the one before left.
    """
    if device.type == "cuda":
        step(no_lap)
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step(no_lap)
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        step(no_lap)
        with record_function("measured"):
            step(no_lap)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        record.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    (start,) = (event["ts"] for event in events if event.get("name") == "measured")
    alive = peak = 0
    for event in sorted(
        (event for event in events if event.get("name") == "[memory]"), key=lambda e: e["ts"]
    ):
        if event["ts"] >= start:
            alive += event["args"]["Bytes"]
            peak = max(peak, alive)
    return peak


class Machine:
    """What the machine does at best, measured; at best: in the fastest of some runs, each of one thing alone."""

    def __init__(self, device: torch.device):
        self.device = device
        cuda = device.type == "cuda"
        source = torch.ones(2**26, device=device)  # 256 MiB, more than any cache holds
        target = torch.zeros_like(source)
        self.bandwidth = 2 * source.nbytes / self.best(lambda: target.copy_(source))
        """Bytes per second, read and written ones, of a copy."""

        n = 8192 if cuda else 2048
        left, right, product = torch.rand(3, n, n, device=device)
        self.multiply_adds = n**3 / self.best(lambda: torch.mm(left, right, out=product))
        """Multiply-adds per second of a product of two square matrices."""

        values = source[: 2**26 if cuda else 2**16]  # on a CPU they stay in its cache
        rounds = 1 if cuda else 200
        self.exponentials = rounds * len(values) / self.best(lambda: exponentiate(values, rounds))
        """Exponentials per second."""

    def best(self, work: Callable[[], object], repeats: int = 7) -> float:
        """Seconds of the fastest run."""
        return min(totals(taking_turns({"": lambda _: work()}, repeats, self.device)[""])) / 1e3

    def __str__(self) -> str:
        return (
            f"At best: copies read and write {self.bandwidth / 1e9:.1f} GB/s, matrix products do "
            f"{self.multiply_adds / 1e9:.0f} G multiply-adds/s, exp does {self.exponentials / 1e9:.2f} G/s"
        )


def exponentiate(values: Tensor, rounds: int) -> None:
    """e to the values, so many times."""
    target = torch.empty_like(values)
    for _ in range(rounds):
        torch.exp(values, out=target)


class Limit(NamedTuple):
    """Work that no version can leave out."""

    name: str
    unit: str
    """"B", bytes to and from memory; "MAC", multiply-adds; or "exp", exponentials."""
    amount: float


def at_best(limits: Sequence[Limit], machine: Machine) -> dict[str, float]:
    """Milliseconds of all work of each unit."""
    rates = {"B": machine.bandwidth, "MAC": machine.multiply_adds, "exp": machine.exponentials}
    return {
        unit: 1e3 * sum(limit.amount for limit in limits if limit.unit == unit) / rate
        for unit, rate in rates.items()
    }


def show_comparison(
    title: str, steps: Mapping[str, Step], repeats: int, device: torch.device
) -> dict[str, Times]:
    """Print time and memory of each step, the first one's phases too; the times."""
    times = taking_turns(steps, repeats, device)
    rows = []
    for name, step in steps.items():
        spent = totals(times[name])
        peak = peak_extra(step, device)
        rows.append((name, statistics.median(spent), spent[0], spent[-1], peak / MIB))
    first = rows[0]
    show(
        title,
        ("version", "ms", "fastest", "slowest", "peak extra MiB", "time / ours", "memory / ours"),
        [
            (
                name,
                f"{ms:.1f}",
                f"{low:.1f}",
                f"{high:.1f}",
                f"{peak:.1f}",
                f"{ms / first[1]:.2f}",
                f"{peak / first[4]:.2f}",
            )
            for name, ms, low, high, peak in rows
        ],
    )
    return times


def show_phases(title: str, times: Times) -> None:
    """Print the median time of each phase; the medians need not add up to the median of the whole."""
    total = statistics.median(totals(times))
    spent = {name: statistics.median(phases[name] for phases in times) for name in times[0]}
    rows = [(name, f"{ms:.2f}", f"{ms / total:.0%}") for name, ms in spent.items()]
    show(title, ("phase", "ms", "share"), rows)


def show_limits(title: str, limits: Sequence[Limit], machine: Machine, times: Times) -> None:
    """Print the work that must be done, how long it takes at the machine's best, and how near the times are."""
    rows = []
    for limit in limits:
        ms = sum(at_best([limit], machine).values())
        rows.append((limit.name, f"{limit.amount / 1e6:,.2f} M {limit.unit}", f"{ms:.2f}"))
    floor = at_best(limits, machine)
    best = max(floor.values())
    show(title, ("must be done", "amount", "ms at best"), rows)
    spent = totals(times)
    parts = ", ".join(f"{unit} {ms:.1f} ms" for unit, ms in floor.items() if ms)
    print(
        f"All of a kind: {parts}. Ours takes {statistics.median(spent) / best:.1f} times the longest of these, "
        f"in the fastest repeat {spent[0] / best:.1f} times."
    )


def show(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table: the first column to the left, numbers to the right."""
    table = Table()
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    # Without a terminal rich would fold the table at 80 columns.
    Console(width=None if sys.stdout.isatty() else 120).print(f"\n[bold]{title}", table)
