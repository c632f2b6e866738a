"""Runs a plan of eight runs by eight workers, round after round, and says how long each took.

Example: PYTHONPATH=tests python tests/e2e/eight_workers.py --rounds 5
"""

import argparse
import shutil
import tempfile
import time
from pathlib import Path

from e2e.toy import Toy

from u2pl.pipeline.scheduling import stages


def one_round(toy: Toy, jobs: int = 8) -> float:
    """Seconds of one round from nothing, after which every stage is in dvc.lock."""
    start = time.monotonic()
    code, output = toy.run("--jobs", str(jobs))
    took = time.monotonic() - start
    assert code == 0, output
    assert set(toy.recorded()) == {stage.name for stage in stages(toy.plan)}
    assert sum(line.startswith("end train") for line in toy.commands) == 8
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=8)
    arguments = parser.parse_args()
    for number in range(arguments.rounds):
        folder = Path(tempfile.mkdtemp(prefix="eight-workers-"))
        toy = Toy(folder)
        took = one_round(toy, arguments.jobs)
        assert "up to date" in toy.status()
        print(f"round {number + 1}: {len(toy.recorded())} stages in dvc.lock, {took:.1f} s", flush=True)
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
