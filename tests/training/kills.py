"""Kills training at random moments, starts it again, and compares what comes out with a run that nobody disturbed.

The suite does it twenty times; hundreds: python tests/training/kills.py --kills 300 --method u2pl-ael
"""

import argparse
import json
import mmap
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from tiny import draw_tiny, edit_params, make_project
from u2pl_cli.app import run

from u2pl.data.prepare import prepare
from u2pl.project import Project
from u2pl.runs import folder
from u2pl.settings import Params
from u2pl.training import loop
from u2pl.training.learner import Learner

WORDS = ["train", "--dataset", "tiny", "--split", "1/4", "--save-every", "0"]
PHASES = ("between", "step", "evaluation", "checkpoint")
MACHINE = ("seconds", "images_per_second", "memory/peak_gib", "created", "uid")


class Board:
    """Where the child writes what it is doing, and how often it has begun each of these things."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, 8)

    def begin(self, phase: str) -> None:
        number = PHASES.index(phase)
        self.memory[4 + number] = min(self.memory[4 + number] + 1, 255)
        self.memory[0] = number

    def end(self) -> None:
        self.memory[0] = 0

    def doing(self) -> str:
        return PHASES[self.memory[0]]

    def times(self, phase: str) -> int:
        return self.memory[4 + PHASES.index(phase)]

    def clear(self) -> None:
        self.memory[:] = bytes(8)


def noted(board: Board, phase: str, work: Callable[..., Any]) -> Callable[..., Any]:
    def noting(*arguments: Any, **options: Any) -> Any:
        board.begin(phase)
        try:
            return work(*arguments, **options)
        finally:
            board.end()

    return noting


def child(project: Project, board: Board) -> None:
    """`u2pl train` in a process that has everything imported already, and leaves its last state behind."""
    os.chdir(project.root)
    os.environ["U2PL_TRACKING"] = "none"
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    Learner.step = noted(board, "step", Learner.step)  # type: ignore[method-assign]
    loop.evaluate = noted(board, "evaluation", loop.evaluate)  # type: ignore[attr-defined]
    folder.write_atomically = noted(board, "checkpoint", folder.write_atomically)  # type: ignore[attr-defined]
    finish = loop.Run._finish

    def finishing(self: Any) -> None:
        torch.save(self.learner.state_dict(), project.root / "end.pt")
        finish(self)

    loop.Run._finish = finishing  # type: ignore[method-assign]
    os._exit(run(WORDS))


def start(project: Project, board: Board) -> int:
    board.clear()
    pid = os.fork()
    if pid == 0:
        child(project, board)
    return pid


def ended(pid: int) -> int | None:
    """Exit status of the child, None while it lives."""
    found, status = os.waitpid(pid, os.WNOHANG)
    return None if found == 0 else os.waitstatus_to_exitcode(status)


def kill_at_random(project: Project, board: Board, rng: random.Random) -> str | None:
    """Kill a child while it does something chosen at random; what it did. None: it came to its end before."""
    phase = rng.choice(PHASES[1:])
    after = rng.randint(1, {"step": 6, "evaluation": 1, "checkpoint": 10}[phase])
    # Phases last from a millisecond to a tenth of a second.
    delay = rng.choice([0, 0.001, 0.01, 0.05]) * rng.random()
    pid = start(project, board)
    while (status := ended(pid)) is None:
        if board.doing() == phase and board.times(phase) >= after:
            time.sleep(delay)
            did = board.doing()
            os.kill(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            return did if os.WIFSIGNALED(status) else None
        time.sleep(0.0002)
    assert status == 0, f"training ended with {status}"
    return None


def run_of(project: Project) -> Path:
    """The only run's folder."""
    return project.runs / f"tiny-1_4-{Params.read(project).default('method')}-s0"


def result(project: Project) -> dict[str, Any]:
    """Everything that a run comes to, but for what the machine decides."""
    folder = run_of(project)
    metrics = {k: v for k, v in json.loads((folder / "metrics.json").read_text()).items() if k not in MACHINE}
    lines = [line.split(",") for line in (folder / "history.csv").read_text().splitlines()]
    machine = {lines[0].index(name) for name in MACHINE if name in lines[0]}
    history = [[cell for k, cell in enumerate(line) if k not in machine] for line in lines]
    tensors = {name: torch.load(folder / name, weights_only=True) for name in ("weights.pt", "best.pt")}
    return {
        "metrics": metrics,
        "history": history,
        "end": torch.load(project.root / "end.pt", weights_only=True),
        **tensors,
    }


def differences(one: Any, other: Any, where: str = "") -> list[str]:
    """Where two results differ, to the bit."""
    if isinstance(one, torch.Tensor):
        same = isinstance(other, torch.Tensor) and torch.equal(one, other)
        return [] if same else [where]
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return [text for key in one for text in differences(one[key], other[key], f"{where}/{key}")]
    if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        return [
            text
            for k, (a, b) in enumerate(zip(one, other, strict=True))
            for text in differences(a, b, f"{where}/{k}")
        ]
    return [] if one == other else [where]


def project_in(folder: Path, method: str) -> Project:
    folder.mkdir(parents=True)
    project = make_project(folder)
    edit_params(project, lambda values: values["default"].update(method=method))
    draw_tiny(folder / "pictures")
    prepare(project, str(folder / "pictures" / "tiny.yaml"), "1/4")
    return project


def try_out(
    folder: Path, kills: int, seed: int, method: str, say: Callable[[str], None] = print
) -> tuple[Counter[str], list[str]]:
    """So many kills, over as many runs as they take.

    Returns:
        What training was doing when it was killed, and where results differ from an undisturbed run's.
    """
    rng, board = random.Random(seed), Board()
    undisturbed = project_in(folder / "undisturbed", method)
    pid = start(undisturbed, board)
    while (status := ended(pid)) is None:
        time.sleep(0.01)
    assert status == 0
    expected = result(undisturbed)
    done: Counter[str] = Counter()
    wrong: list[str] = []
    run_number = 0
    while done.total() < kills:
        project, run_number = project_in(folder / f"killed{run_number}", method), run_number + 1
        while not (run_of(project) / "metrics.json").exists():
            did = kill_at_random(project, board, rng) if done.total() < kills else None
            if did is not None:
                done[did] += 1
                continue
            if done.total() >= kills:
                pid = start(project, board)
                while (status := ended(pid)) is None:
                    time.sleep(0.01)
                assert status == 0
        wrong += differences(expected, result(project), f"run {run_number}")
        say(f"{done.total()} kills in {run_number} runs, {len(wrong)} differences, killed in {dict(done)}")
    return done, wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--method", default="u2pl")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        done, wrong = try_out(Path(folder), options.kills, options.seed, options.method)
    print(json.dumps({"kills": done.total(), "killed in": done, "differences": wrong}))
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
