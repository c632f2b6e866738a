"""How busy the machine is: sampled into a file, and mirrored from there once."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tracking.mlflow_server import wait_until

from u2pl.runs.records import parse_event
from u2pl.tracking.machine_load import Sampler, gpu_load, next_step


def lines(folder: Path) -> list[dict]:
    events = [parse_event(line) for line in (folder / "system.jsonl").read_bytes().splitlines()]
    assert None not in events
    return events  # type: ignore[return-value]


def test_a_sample_is_an_event_of_the_machine_and_of_the_trainer(tmp_path: Path):
    sampler = Sampler(tmp_path, os.getppid())
    sampler.sample()
    end = time.process_time() + 0.05
    while time.process_time() < end:
        pass
    sampler.sample()
    first, second = lines(tmp_path)
    assert (first["event"], first["step"], second["step"]) == ("system", 0, 1)
    assert {
        *("system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"),
        *("system/system_memory_usage_percentage", "system/trainer_memory_megabytes"),
        "system/trainer_cpu_percentage",
    } <= second["metrics"].keys()
    assert 0 < second["metrics"]["system/system_memory_usage_percentage"] <= 100
    assert second["metrics"]["system/trainer_memory_megabytes"] > 1


def test_what_a_trainer_computes_is_counted(tmp_path: Path):
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        sampler = Sampler(tmp_path, busy.pid)
        sampler._trainer_load()
        used = Path(f"/proc/{busy.pid}/stat")
        begun = cpu_ticks(used)
        wait_until(lambda: cpu_ticks(used) >= begun + 20, 60)
        load = sampler._trainer_load()
        busy.kill()
    assert load["trainer_cpu_percentage"] > 0


def cpu_ticks(stat: Path) -> int:
    return int(stat.read_text().rpartition(")")[2].split()[11])


def test_a_later_attempt_goes_on_counting_behind_a_line_that_was_cut_off(tmp_path: Path):
    Sampler(tmp_path, os.getpid()).sample()
    with (tmp_path / "system.jsonl").open("ab") as file:
        file.write(b'{"time": 17, "eve')
    assert next_step(tmp_path / "system.jsonl") == 1
    Sampler(tmp_path, os.getpid()).sample()
    read = [parse_event(line) for line in (tmp_path / "system.jsonl").read_bytes().splitlines()]
    assert [event and event["step"] for event in read] == [0, None, 1]


def test_a_sampler_that_was_stopped_writes_nothing_more(tmp_path: Path):
    sampler = Sampler(tmp_path, os.getpid())
    sampler.sample()
    sampler.stop()
    sampler.sample()
    assert len(lines(tmp_path)) == 1


def test_a_trainer_that_is_gone_ends_the_sampling_without_a_word(tmp_path: Path, capfd):
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    Sampler(tmp_path, gone.pid)._run()
    assert not (tmp_path / "system.jsonl").exists() and capfd.readouterr().err == ""


@pytest.fixture
def smi(tmp_path: Path) -> Path:
    """Stands in for nvidia-smi: it says what SAID holds, in the order that was asked for."""
    path = tmp_path / "nvidia-smi"
    path.write_text(
        "#!/bin/sh\n"
        'test "$1" = --query-gpu=utilization.gpu,memory.used,memory.total,power.draw || exit 9\n'
        f'cat "{tmp_path}/said"\n'
    )
    path.chmod(0o755)
    return path


def test_every_gpu_is_sampled_as_far_as_it_says_something(smi: Path):
    (smi.parent / "said").write_text("37, 1000, 4000, 70.5\n[N/A], 2000, 4000, [Not Supported]\n")
    assert gpu_load(str(smi)) == pytest.approx(
        {
            "gpu_0_utilization_percentage": 37.0,
            "gpu_0_memory_usage_megabytes": 1048.576,
            "gpu_0_memory_usage_percentage": 25.0,
            "gpu_0_power_usage_watts": 70.5,
            "gpu_1_memory_usage_megabytes": 2097.152,
            "gpu_1_memory_usage_percentage": 50.0,
        }
    )


def test_a_tool_that_fails_or_babbles_costs_nothing_but_the_numbers(smi: Path):
    assert gpu_load(str(smi)) == {}  # there is nothing to say: cat fails
    (smi.parent / "said").write_text("NVIDIA-SMI has failed\n")
    assert gpu_load(str(smi)) == {}
    assert gpu_load(str(smi.parent / "gone")) == {}


def test_numbers_are_json_with_one_digit(tmp_path: Path):
    Sampler(tmp_path, os.getpid()).sample()
    (line,) = (tmp_path / "system.jsonl").read_text().splitlines()
    assert all(value == round(value, 1) for value in json.loads(line)["metrics"].values())
