"""Whether labels chosen by `u2pl suggest` teach more than labels drawn at random: a simulation of the loop.

All training images of a data set have masks, which are opened when they are "labelled". A seed draws the first labels,
the same for all criteria; then, round by round, each criterion chooses further ones by the model of its last round, and
the next model starts from it. The score is the mIoU on the validation images, which choose nothing.

    .venv/bin/python benchmarks/label_choice.py /tmp/choice --root ../shared/facade --jobs 2

The folder becomes a u2pl project. The same command goes on where it was stopped. Prints a table, and writes
results.csv and label_choice.png into the folder, also of what is there so far (--draw: of that alone).
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

SETTINGS = {
    "resize": 0.5,
    "limit_batches": 130,
    "epochs": 2,
    "validate_every": 2,
    "unlabeled_truth": "false",
}
"""Beside the data set's recipe: half the resolution, and 260 steps a round, whatever number of images is labelled."""


class Round(NamedTuple):
    """One training of the simulation."""

    seed: int
    by: str
    """The criterion; of the first round, which all share, "first"."""
    number: int

    @property
    def name(self) -> str:
        """Of the run and of its split."""
        return f"s{self.seed}-{self.by}-{self.number}"


def main() -> None:
    options = _arguments()
    os.environ["OMP_NUM_THREADS"] = "1"
    folder: Path = options.folder.resolve()
    if not options.draw:
        _prepare(folder, options)
        with ThreadPoolExecutor(options.jobs) as pool:
            list(pool.map(lambda seed: _first(folder, options, seed), options.seeds))
            chains = [(seed, by) for by in options.by for seed in options.seeds]
            list(pool.map(lambda chain: _chain(folder, options, *chain), chains))
    rows = list(_results(folder, options))
    with (folder / "results.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["seed", "by", "labels", "miou"])
        writer.writerows(rows)
    _print(rows, options)
    _draw(rows, options, folder / "label_choice.png")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the simulation's project")
    parser.add_argument(
        "--dataset", default="facade", help="whose training images all have masks (default: facade)"
    )
    parser.add_argument("--root", type=Path, help="folder of the data set's files")
    parser.add_argument("--rounds", type=int, default=3, help="after the first (default: 3)")
    parser.add_argument("--batch", type=int, default=20, help="labels a round, and at first (default: 20)")
    parser.add_argument("--seeds", type=_numbers, default=[0, 1, 2], help="default: 0,1,2")
    parser.add_argument(
        "--by", type=_words, default=["random", "suggestive"], help="default: random,suggestive"
    )
    parser.add_argument(
        "--jobs", type=int, default=1, help="trainings at once, of one thread each (default: 1)"
    )
    parser.add_argument("--method", default="suponly", help="default: suponly, which shows the labels alone")
    parser.add_argument("--draw", action="store_true", help="draw what is there, train nothing")
    return parser.parse_args()


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


def _words(text: str) -> list[str]:
    from u2pl.labeling.choice import CRITERIA

    words = text.split(",")
    unknown = set(words) - set(CRITERIA)
    if unknown:
        raise argparse.ArgumentTypeError(f"there is no {', '.join(unknown)}; there are {', '.join(CRITERIA)}")
    return words


# ---- the loop --------------------------------------------------------------------------------------------


def _u2pl(folder: Path, *words: str) -> str:
    """What a command of u2pl prints."""
    line = [sys.executable, "-m", "cli", *words]
    code = Path(__file__).resolve().parents[1]
    environment = {**os.environ, "PYTHONPATH": str(code), "U2PL_ROOT": str(folder)}
    done = subprocess.run(line, cwd=folder.parent, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(line)}\n{done.stderr[-2000:]}")
    return done.stdout


def _prepare(folder: Path, options: argparse.Namespace) -> None:
    from u2pl.pipeline.new_project import make

    if not (folder / "params.yaml").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        make(folder)
    if not (folder / "data" / options.dataset / "source.json").is_file():
        root = ["--root", str(options.root.resolve())] if options.root else []
        _u2pl(folder, "prepare", "--dataset", options.dataset, "--split", "full", *root)
    (folder / "labels").mkdir(exist_ok=True)


def _labels(folder: Path, this: Round) -> list[str]:
    """All labels of a round, once they are chosen."""
    return (folder / "labels" / f"{this.name}.txt").read_text(encoding="utf-8").split("\n")[:-1]


def _choose(folder: Path, options: argparse.Namespace, this: Round, before: Round | None) -> None:
    """Write the labels of a round: those of the one before, and those that the criterion chooses by its model."""
    import numpy as np
    import torch

    from u2pl.data.prepared import open_split
    from u2pl.exchange.model import Model
    from u2pl.labeling import candidates
    from u2pl.labeling.choice import Pool, choose
    from u2pl.project import Project

    path = folder / "labels" / f"{this.name}.txt"
    if path.is_file():
        return
    torch.set_num_threads(1)
    project = Project(folder)
    split = open_split(project, options.dataset, before.name if before else "full")
    if before is None or this.by == "random":  # no model is asked
        names = split.unlabeled if before else split.labeled
        none = np.zeros((len(names), 0))
        pool = Pool(names, np.zeros(len(names)), none, none, none)
        chosen = choose(pool, options.batch, "random", 100 * this.seed + this.number)
    else:
        found = candidates.find(Model.of_run(project, before.name), split)
        pool = found.pool
        chosen = choose(pool, options.batch, this.by)
    known = _labels(folder, before) if before else []
    path.write_text("\n".join([*known, *(pool.names[at] for at in chosen), ""]), encoding="utf-8")


def _train(folder: Path, options: argparse.Namespace, this: Round, before: Round | None) -> None:
    """Train a round from the model of the one before; one that is finished is left as it is."""
    if (folder / "runs" / this.name / "metrics.json").is_file():
        return
    _choose(folder, options, this, before)
    labels = str(folder / "labels" / f"{this.name}.txt")
    _u2pl(folder, "prepare", "--dataset", options.dataset, "--split", this.name, "--source", labels)
    start = ["--weights", str(folder / "runs" / before.name / f"{before.name}.u2pl")] if before else []
    settings = [word for key, value in SETTINGS.items() for word in ("--set", f"{key}={value}")]
    words = [
        "--dataset",
        options.dataset,
        "--split",
        this.name,
        "--method",
        options.method,
        "--name",
        this.name,
    ]
    _u2pl(folder, "train", *words, "--seed", str(this.seed), "--device", "cpu", *settings, *start)
    print(
        f"{this.name}: {_score(folder, this):.2f} % mIoU of {len(_labels(folder, this))} labels", flush=True
    )


def _first(folder: Path, options: argparse.Namespace, seed: int) -> None:
    _train(folder, options, Round(seed, "first", 0), None)


def _chain(folder: Path, options: argparse.Namespace, seed: int, by: str) -> None:
    before = Round(seed, "first", 0)
    for number in range(1, options.rounds + 1):
        this = Round(seed, by, number)
        _train(folder, options, this, before)
        before = this


# ---- what came out ---------------------------------------------------------------------------------------


def _score(folder: Path, this: Round) -> float:
    metrics = json.loads((folder / "runs" / this.name / "metrics.json").read_text(encoding="utf-8"))
    return metrics["miou"]["reported"]


def _results(folder: Path, options: argparse.Namespace) -> Iterator[tuple[int, str, int, float]]:
    """Seed, criterion, labels and mIoU in percent of every round that is finished."""
    for seed in options.seeds:
        for by in options.by:
            for number in range(options.rounds + 1):
                this = Round(seed, by if number else "first", number)
                if (folder / "runs" / this.name / "metrics.json").is_file():
                    yield seed, by, len(_labels(folder, this)), round(_score(folder, this), 2)


def _mean_and_sd(rows: Sequence[tuple[int, str, int, float]], by: str) -> list[tuple[int, float, float, int]]:
    """Labels, mean mIoU, its standard deviation over seeds and the number of these."""
    found = []
    for labels in sorted({row[2] for row in rows if row[1] == by}):
        values = [row[3] for row in rows if row[1:3] == (by, labels)]
        sd = statistics.stdev(values) if len(values) > 1 else 0.0
        found.append((labels, statistics.mean(values), sd, len(values)))
    return found


def _print(rows: Sequence[tuple[int, str, int, float]], options: argparse.Namespace) -> None:
    """Means over seeds, and what each criterion has over random labels of the same seed and round."""
    random = {(row[0], row[2]): row[3] for row in rows if row[1] == "random"}
    for by in options.by:
        for labels, mean, sd, seeds in _mean_and_sd(rows, by):
            gains = [
                row[3] - random[row[0], labels]
                for row in rows
                if row[1:3] == (by, labels) and (row[0], labels) in random
            ]
            gain = "" if by == "random" or labels == options.batch else _gain(gains)
            print(f"{by:12} {labels:4} labels  {mean:6.2f} ± {sd:.2f} % mIoU, {seeds} seeds  {gain}")


def _gain(gains: Sequence[float]) -> str:
    """The mean of differences of the same seed, and its 95 % interval by Student's t."""
    if not gains:
        return ""
    said = f"{statistics.mean(gains):+.2f} over random ({', '.join(f'{gain:+.2f}' for gain in gains)})"
    if len(gains) < 2:
        return said
    from scipy.special import stdtrit

    half = float(stdtrit(len(gains) - 1, 0.975)) * statistics.stdev(gains) / len(gains) ** 0.5
    return (
        f"{said}, 95 % interval {statistics.mean(gains) - half:+.2f} to {statistics.mean(gains) + half:+.2f}"
    )


def _draw(rows: Sequence[tuple[int, str, int, float]], options: argparse.Namespace, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    for at, by in enumerate(options.by):
        points = _mean_and_sd(rows, by)
        if not points:
            continue
        labels, means, sds, seeds = zip(*points, strict=True)
        beside = [
            label + 0.6 * (at - (len(options.by) - 1) / 2) for label in labels
        ]  # bars do not cover each other
        axes.errorbar(beside, means, yerr=sds, marker="o", capsize=3, label=f"{by} ({min(seeds)} seeds)")
    axes.set_xticks(sorted({row[2] for row in rows}))
    axes.set_xlabel("labelled images")
    axes.set_ylabel("mIoU on the validation images, %")
    axes.set_title(f"Which images are labelled next, {options.dataset}, {options.method}")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
