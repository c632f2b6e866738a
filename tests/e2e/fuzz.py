"""Throws odd words, broken files and strange environments at every command, which must end in a result or a sentence.

That is: with exit code 0, 1, 2 or 130, in time, without a traceback, no file of the user's lost and no secret told.

The suite does it a few times; hundreds: python tests/e2e/fuzz.py --cases 600 --seed 0
A case again, in a folder that stays: python tests/e2e/fuzz.py --seed 0 --only 17 --folder /tmp/fuzz
"""

import argparse
import faulthandler
import fnmatch
import gc
import hashlib
import json
import os
import random
import re
import resource
import shlex
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
import yaml
from e2e import mutations
from e2e.mutations import PWNED, SCRIPT, SECRET, Mutation, quoted
from e2e.under_dvc import put_under_dvc
from models.theirs import Released
from tiny import draw_tiny, edit_params, make_project
from u2pl_cli import __main__ as cli

# What commands import when they need it: a child of this process then has it already.
from u2pl.data import audit, check, prepare  # noqa: F401
from u2pl.evidence import comparison, features, figure_runs, history, unlabeled  # noqa: F401
from u2pl.exchange import importer, predictor  # noqa: F401
from u2pl.page import write  # noqa: F401
from u2pl.pipeline import departures  # noqa: F401
from u2pl.reporting import charts, paper_figures  # noqa: F401
from u2pl.runs import results  # noqa: F401
from u2pl.tracking.addresses import sqlite_file
from u2pl.training import ablation, estimate, trainer  # noqa: F401

HOME = Path("home")
INSIDE = Path("deep/er/still")
"""Where the project lies in a case's folder, deep enough that names such as ../../x stay in that folder."""
OUTSIDE = INSIDE / "outside"
"""Folder beside the project with files of the user's: the canary."""
MEMORY = 16 * 2**30
OWN = "tiny-1_4-u2pl-s0"
OTHER = "tiny-1_4-suponly-s0"
PLAN = """
dataset: tiny
reports: reports
seeds: [0]
tables:
  table1: {splits: {classic-1/8: 1/4}, rows: [SupOnly, U²PL (w/ CutMix)]}
  table7: {splits: {blender-1/8: 1/4}, values: [0.4, 0.2]}
figures:
  fig1: {split: 1/4, images: 4}
  reliability: {split: 1/4}
"""


# ---- the template ----------------------------------------------------------------------------------------


class Template:
    """A folder with a project in which everything has been done once, and files beside it; made once, then copied."""

    def __init__(self, folder: Path):
        self.folder = folder

    def make(self) -> None:
        """Fill the folder, unless an earlier call did."""
        if (self.folder / "made").exists():
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        project = self.folder / INSIDE / "project"
        project.mkdir(parents=True)
        _user_files(self.folder / OUTSIDE)
        (self.folder / HOME).mkdir()
        tiny = make_project(project)
        edit_params(tiny, _shorten)
        put_under_dvc(tiny, PLAN)
        shutil.rmtree(project / ".git/hooks", ignore_errors=True)
        draw_tiny(project / "pictures", train=12)
        draw_tiny(project / "photos", train=2, val=0)
        (project / "lists").mkdir()
        (project / "lists/labeled.txt").write_text("00\n01\n02\n")
        (project / "lists/unlabeled.txt").write_text("03\n04\n05\n06\n")
        _oddities(project / "odd")
        _released(project / "theirs.pth")
        train = ["train", "--dataset", "tiny", "--split", "1/4"]
        self.run(["prepare", "--dataset", "pictures/tiny.yaml", "--split", "1/4"])
        self.run([*train, "--method", "suponly"])
        self.run(
            [
                "ablate",
                "--param",
                "alpha0",
                "0.2",
                "0.4",
                "--dataset",
                "tiny",
                "--split",
                "1/4",
                "--method",
                "u2pl",
            ]
        )
        self.cut_off([*train, "--method", "cutmix", "--set", "epochs=2", "--save-every", "0"])
        self.run(["plan", "tiny"])
        plan = yaml.safe_load((project / "pipelines/plan.yaml").read_text())
        for run in plan["runs"]:
            self.run(["evaluate", run, "--into", "results/runs"])
        self.run(["table", "table1"])
        self.run(["table", "table7"])
        _half_done(project / "data/tiny")
        (self.folder / "made").touch()

    def start(self, words: Sequence[str]) -> "Case":
        case = Case(-1, self.folder, list(words))
        case.start()
        return case

    def run(self, words: Sequence[str]) -> None:
        """A command that must come to its end."""
        case = self.start(words)
        _, status = os.waitpid(case.pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0, f"{shlex.join(words)}: {case.said()}"

    def cut_off(self, words: Sequence[str]) -> None:
        """A command that is killed when it has saved its state."""
        case = self.start(words)
        while not (found := list((case.project / "runs").glob("*epochs=2*/last.pt.previous"))):
            assert os.waitpid(case.pid, os.WNOHANG)[0] == 0, f"{shlex.join(words)}: {case.said()}"
            time.sleep(0.01)
        os.kill(case.pid, signal.SIGKILL)
        os.waitpid(case.pid, 0)
        assert not (found[0].parent / "metrics.json").exists()


def _shorten(values: dict[str, Any]) -> None:
    recipe = values["recipes"]["tiny"]
    recipe["epochs"] = 1
    recipe["overrides"]["teacher.warm_start_epochs"] = 0


def _user_files(folder: Path) -> None:
    (folder / OWN).mkdir(parents=True)
    (folder / "masks").mkdir()
    for name in (
        "kept",
        "notes.txt",
        f"{OWN}/notes.txt",
        "masks/00.png",
        "metrics.json",
        "fig1.png",
        "00.png",
    ):
        (folder / name).write_text(f"{name} is the user's own\n")


def _oddities(folder: Path) -> None:
    (folder / "empty").mkdir(parents=True)
    (folder / "file").write_text("a file of the user's own\n")
    os.mkfifo(folder / "fifo")
    for name, target in (("dangling", "nowhere"), ("loop", "loop"), ("null", "/dev/null")):
        (folder / name).symlink_to(target)


def _released(path: Path) -> None:
    torch.manual_seed(0)
    student, teacher = (Released("resnet10", 8, 4).shake() for _ in range(2))
    torch.save({"epoch": 5, "model_state": student.saved(), "teacher_state": teacher.saved()}, path)


def _half_done(data: Path) -> None:
    """The journal of a preparation that was cut off."""
    records = json.loads((data / "source.json").read_text())["files"]
    lines = [{"work": "0" * 64}, *({"name": name, "record": record} for name, record in records.items())]
    (data / check.JOURNAL).write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def copy(source: Path, target: Path) -> None:
    """A copy of a folder with all that lies in it; checkpoints, which nobody changes in place, are linked."""
    target.mkdir(parents=True)
    for entry in os.scandir(source):
        to = target / entry.name
        if entry.is_symlink():
            to.symlink_to(Path(entry.path).readlink())
        elif entry.is_dir():
            copy(Path(entry.path), to)
        elif not entry.is_file():
            os.mkfifo(to)
        elif entry.name.endswith((".pt", ".pth", ".previous")):
            os.link(entry.path, to)
        else:
            shutil.copy2(entry.path, to)


# ---- commands --------------------------------------------------------------------------------------------

SETTINGS, PLANS = "params.yaml", "pipelines/plan.yaml"
DATA = ("data/tiny/*.json", "data/tiny/splits/1_4/*")
SOURCES = (
    "pictures/*.txt",
    "pictures/tiny.yaml",
    "pictures/images/*",
    "pictures/masks/*",
    "data/tiny/checked.jsonl",
)
RUN = (f"runs/{OWN}/*.json*", f"runs/{OWN}/*.csv", f"runs/{OWN}/*.pt", f"runs/{OWN}/evaluations/*/*.*")
RUNS = ("runs/*/*.json*", "runs/*/*.csv", "runs/*/*.pt", "runs/*/evaluations/*/*.json")
RESULTS = ("results/runs/*/*.*", "results/*/*.json")
TABLES = ("pipelines/tables/table[17].yaml", "pipelines/plans/tiny.yaml", PLANS)
FIGURES = ("pipelines/figures/*.yaml",)


@dataclass(frozen=True)
class Command:
    """What may be typed, what it reads, and what of that which is there before it may change."""

    lines: tuple[str, ...]
    reads: tuple[str, ...]
    changes: tuple[str, ...] = ()
    often: int = 3
    seconds: float = 60.0
    is_slow: bool = False
    """Left out where cases are to be quick."""


COMMANDS = {
    "prepare": Command(
        (
            "prepare --dataset pictures/tiny.yaml --split 1/4",
            "prepare --dataset tiny --split 1/4 --json",
            "prepare --dataset tiny --split full",
            "prepare --dataset tiny --split 1/2 --source seeded --seed 3",
            "prepare --dataset tiny --split mine --source lists/labeled.txt",
            "prepare-splits --dataset tiny --split mine --source lists/labeled.txt lists/unlabeled.txt",
            "prepare --dataset tiny --split mine --source lists/labeled.txt --overlap",
            "prepare --dataset tiny --root pictures --split 1/4",
            "prepare --dataset voc --root pictures",
            "prepare --dataset cityscapes --split 1/8 --root pictures",
        ),
        (SETTINGS, *DATA, *SOURCES, *SOURCES, "lists/*"),
        ("data/tiny/*",),
        often=8,
    ),
    "train": Command(
        (
            "train --dataset tiny --split 1/4 --method u2pl",
            "train --dataset tiny --split 1/4 --method suponly --fresh --model models/x.pt",
            "train --dataset tiny --split 1/4 --method suponly --seed 1",
            "train --dataset tiny --split 1/4 --method mt --set lr=0.02 --workers 0 --save-every 0",
            "train --dataset tiny --split 1/4 --method cutmix --set epochs=2",
            "train --dataset tiny --split 1/4 --method suponly --weights theirs.pth",
            f"train --dataset tiny --split 1/4 --method suponly --weights runs/{OWN}/weights.pt",
            "train --dataset tiny --split 1/4 --method u2pl-ael --batch 4 --micro-batch 2 --recompute",
        ),
        (SETTINGS, *DATA, "pictures/*/*", *RUNS, "runs/*epochs=2*/*", "theirs.pth"),
        ("runs/*", "models/*"),
        often=7,
        seconds=120,
    ),
    "evaluate": Command(
        (
            f"evaluate {OWN}",
            f"evaluate {OWN} --json",
            f"evaluate runs/{OWN} --into results/runs",
            f"evaluate {OWN} --into results/new",
            f"evaluate {OWN} --into runs",
            f"evaluate {OWN} --into .",
            f"evaluate {OWN} --into ../outside",
            f"evaluate {OWN} --worst 2",
            f"evaluate {OWN} --scales 0.5,1 --flip",
            f"evaluate {OTHER} --evaluation sliding",
            "evaluate theirs",
        ),
        (*DATA, "pictures/*/*", *RUN, *RUN),
        ("runs/*/evaluations/*", "runs/*/samples/*", "results/*"),
        often=7,
    ),
    "ablate": Command(
        (
            "ablate --param alpha0 0.2 0.4 --dataset tiny --split 1/4",
            "ablate --param alpha0 0.2 0.4 --dataset tiny --split 1/4 --compare",
            "ablate --param alpha0 0.2 0.4 --dataset tiny --split 1/4 --compare --record results/table7/x.json",
            "ablate --param tau,alpha0 0.4,0.3 --dataset tiny --split 1/4 --method u2pl --seed 0 --fresh",
        ),
        (SETTINGS, *DATA, *RUNS, "runs/.ablations/*/ablation.json"),
        ("runs/*", "results/*"),
        often=4,
        seconds=120,
    ),
    "import": Command(
        (
            "import theirs.pth --as theirs --dataset tiny",
            "import theirs.pth --as theirs --dataset tiny --split 1/4 --network student --method suponly",
        ),
        (SETTINGS, *DATA, "theirs.pth", "theirs.pth", "theirs.pth"),
    ),
    "plan": Command(
        (
            "plan tiny",
            "plan tiny --json",
            "plan tiny --table 1 --seeds 0,1",
            "plan demo",
            "plan paper --table A2",
        ),
        (SETTINGS, *DATA, *TABLES, *FIGURES, "runs/*/*.json"),
        ("pipelines/plan.yaml", "pipelines/dvc.yaml", "runs/.speed/*"),
        often=4,
    ),
    "plan run": Command(
        ("plan run", "plan run --jobs 2"),
        (SETTINGS, PLANS, "dvc.yaml", "dvc.lock", ".dvc/config", *DATA, *RUN, "runs/.plan/state.json", *TABLES),
        ("*",),
        often=1,
        seconds=400,
        is_slow=True,
    ),
    "table": Command(
        ("table table1", "table 7"),
        (SETTINGS, *TABLES, *RESULTS, *RESULTS, "data/tiny/splits/1_4/manifest.json", f"runs/{OWN}/tracking.json"),
        ("reports/*",),
        often=5,
    ),
    "report": Command(
        ("report",),
        (SETTINGS, *TABLES, *FIGURES, *RESULTS, *RESULTS, *DATA, f"runs/{OWN}/tracking.json"),
        ("reports/*",),
        often=4,
    ),
    "figure": Command(
        (
            f"figure reliability {OWN}",
            f"figure fig1 {OWN} --images 2 --format png",
            f"figure fig2 {OWN} --images 2 --into reports/mine --label A",
            f"figure fig4 {OTHER} {OWN} --images 3 --format svg",
            f"figure figA2 {OTHER} {OWN} --images 2 --format png --into ../outside",
        ),
        (*DATA, *RUN, *RUN, "pictures/*/*"),
        ("reports/*",),
        often=2,
        is_slow=True,
    ),
    "status": Command(
        ("status", "status --json"),
        (SETTINGS, *TABLES, *RUNS, *RESULTS, "runs/.plan/state.json", "data/tiny/splits/1_4/manifest.json"),
        often=4,
    ),
    "predict": Command(
        (
            f"predict {OWN} photos/images --out seen",
            f"predict {OWN} photos/images/00.png photos/images/01.png --out seen --json",
            f"predict {OWN} photos odd --out seen --window 32",
            f"predict {OWN} photos/images --out ../outside",
            f"predict {OWN} . --out seen",
        ),
        (*DATA, *RUN, "photos/images/*", "photos/images/*", "photos/images/*"),
        ("seen/*",),
        often=5,
    ),
    "splits audit": Command(
        (
            "splits audit",
            "splits audit --json",
            "splits audit --dataset tiny",
            "splits audit --source u2pl --dataset tiny",
        ),
        (*DATA, *DATA, SETTINGS, "pictures/*.txt"),
        often=3,
    ),
    "track sync": Command(
        ("track sync", f"track sync {OWN}"),
        (*RUNS, *RUNS, "runs/.ablations/*/ablation.json", f"runs/{OWN}/*.txt"),
        ("mlflow.db*", "mlartifacts/*"),
        often=2,
        seconds=200,
        is_slow=True,
    ),
}  # fmt: skip
KEPT = (
    "pictures/*", "photos/*", "lists/*", "odd/*", "params.yaml", "dvc.yaml", "theirs.pth",
    "pipelines/plans/*", "pipelines/tables/*", "pipelines/figures/*", "pipelines/plots/*",
    "runs/*/weights.pt", "runs/*/best.pt", "runs/*/metrics.json", "runs/*/run.json",
)  # fmt: skip
"""Files of the project that no command may change, whatever it writes beside them; an evaluation's are its own."""
PASSING = (
    "*lock",
    "*/holder",
    "*/tracking.json",
    "*/__pycache__/*",
    ".dvc/tmp/*",
    "runs/*/settings.yaml",
    "runs/.plan/*",
)
"""Files that anybody may change."""


# ---- mutations -------------------------------------------------------------------------------------------

LISTS = ("train.txt", "val.txt", "labeled.txt", "unlabeled.txt")


def mutation_of(path: Path) -> tuple[str, list[Mutation]]:
    """What kind of file it is, and what may be done to it beside putting something else in its place."""
    kinds: dict[str, tuple[str, list[Mutation]]] = {
        ".json": ("json", [mutations.json_file]),
        ".yaml": ("yaml", [mutations.yaml_file]),
        ".lock": ("yaml", [mutations.yaml_file]),
        ".jsonl": ("lines", [mutations.lines_file]),
        ".csv": ("csv", [mutations.csv_file]),
        ".txt": ("list", [mutations.list_file]),
        ".png": ("picture", [mutations.picture, mutations.picture, mutations.renamed_picture]),
        ".pt": ("checkpoint", [mutations.checkpoint]),
        ".pth": ("checkpoint", [mutations.checkpoint]),
        ".previous": ("checkpoint", [mutations.checkpoint]),
    }
    return kinds.get(path.suffix, ("file", []))


def change_file(case: "Case", rng: random.Random) -> str:
    """Change a file that the command reads; its kind."""
    reads = COMMANDS[case.command].reads
    files: list[Path] = []
    while not files:
        # Kinds of files first: there are as many pictures as all others together.
        found = sorted(case.project.glob(rng.choice(reads)))
        files = [
            path for path in found if path.is_file() and path.relative_to(case.project) not in case.touched
        ]
    path = rng.choice(files)
    kind, ways = mutation_of(path)
    way = rng.choice(ways) if ways and rng.random() < 0.7 else mutations.misplaced
    case.touched.append(path.relative_to(case.project))
    case.notes.append(f"{path.parent.relative_to(case.project)}/{way(rng, path)}")
    return kind if way is not mutations.misplaced else "place"


def change_words(case: "Case", rng: random.Random) -> str:
    case.words, kind = mutations.words(rng, case.words)
    return kind


def rename_class(case: "Case", rng: random.Random) -> str:
    case.notes.append(mutations.rename_class(rng, case.project))
    return "class names"


def rename_folder(case: "Case", rng: random.Random) -> str:
    name = rng.choice(mutations.FOLDERS)
    moved = case.project.with_name(name)
    case.project.rename(moved)
    case.project = moved
    case.notes.append(f"the project's folder is {quoted(name)}")
    return "folder name"


def change_environment(case: "Case", rng: random.Random) -> str:
    outside, missing = str(case.folder / OUTSIDE), str(case.folder / "missing")
    here: list[dict[str, str | None]] = [
        {"U2PL_ROOT": missing},
        {"U2PL_ROOT": f"{outside}/kept"},
        {"U2PL_ROOT": outside},
        {"U2PL_ROOT": ""},
        {"U2PL_ROOT": "\x1b[31m[bold]"},
        {"RANK": "0", "WORLD_SIZE": "2"},
        {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1", "LOCAL_RANK": "1"},
        {"WORLD_SIZE": "two"},
        {"WORLD_SIZE": ""},
        {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "3"},
        {"RANK": "x"},
        {"LOCAL_RANK": "x"},
        {"HOME": None},
        {"HOME": missing},
        {"HOME": f"{outside}/kept"},
        {"COLUMNS": "1"},
        {"COLUMNS": "0"},
        {"COLUMNS": "-5"},
        {"COLUMNS": "x"},
        {"COLUMNS": "100000"},
        {"NO_COLOR": "1", "TERM": "dumb"},
        {"FORCE_COLOR": "1"},
        {"TZ": "Nonsense/Zone"},
        {"TZ": ""},
        {"TMPDIR": missing},
        {"MPLCONFIGDIR": f"{outside}/kept", "XDG_CACHE_HOME": f"{outside}/kept"},
        {"PATH": missing},
        {"CUDA_VISIBLE_DEVICES": "x"},
        {"U2PL_TRACKING": "maybe"},
    ]
    own_process: list[dict[str, str | None]] = [
        {"LANG": "C", "LC_ALL": "C"},
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1"},
        {"OMP_NUM_THREADS": "x"},
        {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "7"},
    ]
    stores = [
        f"http://me:{SECRET}@127.0.0.1:9",
        f"http://127.0.0.1:9/?token={SECRET}",
        f"postgresql://me:{SECRET}@127.0.0.1:9/db",
        f"postgresql://127.0.0.1:9/db?user=me&password={SECRET}",
        f"mysql+pymysql://me:a{SECRET}@b@127.0.0.1:9/db",
        f"nonsense://me:{SECRET}@x",
        f"http://{SECRET}@127.0.0.1:9",
        f"http://me:{SECRET}@[",
        f"sqlite:///{outside}/kept",
        f"sqlite:///{missing}/x.db",
        "sqlite:///odd",
        "sqlite://",
        "http://[",
        "http://127.0.0.1:99999",
        "odd/file",
        "odd/tracked",
        " ",
        "x" * 3000,
    ]
    if case.command == "track sync":
        changes: dict[str, str | None] = {"MLFLOW_TRACKING_URI": rng.choice(stores)}
    elif case.command in ("train", "ablate") and rng.random() < 0.3:
        changes = {"U2PL_TRACKING": None, "MLFLOW_TRACKING_URI": rng.choice(stores)}
    else:
        changes = rng.choice(rng.choice([here, here, here, own_process]))
        case.is_forked = changes in here
    case.environment |= changes
    case.notes.append(f"environment {changes}")
    return "environment"


def change_place(case: "Case", rng: random.Random) -> str:
    """Where the command is started, and where its words go."""
    what = rng.choice(["outside", "below", "gone", "full", "pipe", "closed"])
    if what == "outside":
        case.cwd = case.folder / OUTSIDE
        case.environment["U2PL_ROOT"] = str(case.project)
    elif what == "below":
        case.cwd = case.project / "pictures"
    elif what == "gone":
        case.cwd = None
    else:
        case.out, case.is_forked = what, False
    case.notes.append({"full": "stdout is full", "pipe": "nobody reads stdout"}.get(what, f"started {what}"))
    return "place of the command"


CHANGES: dict[str, tuple[Callable[["Case", random.Random], str], int]] = {
    "file": (change_file, 13),
    "words": (change_words, 7),
    "classes": (rename_class, 2),
    "environment": (change_environment, 3),
    "folder": (rename_folder, 1),
    "place": (change_place, 1),
}
"""What may be changed, and how often it is."""


# ---- a case ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Choice:
    """Which cases there are: with the same seed, commands and changes a number is the same case."""

    seed: int = 0
    commands: Sequence[str] = tuple(COMMANDS)
    changes: Sequence[str] = tuple(CHANGES)

    @classmethod
    def of(
        cls, seed: int, commands: Sequence[str] = (), changes: Sequence[str] = (), quick: bool = False
    ) -> "Choice":
        """Of the commands and changes that are named, or of all; to be quick, without those that take long."""
        names = [name for name in commands or COMMANDS if not (quick and COMMANDS[name].is_slow)]
        return cls(seed, names, changes or tuple(CHANGES))

    def words(self, number: int) -> str:
        """What plays a case again."""
        words = ["--seed", str(self.seed), "--only", str(number)]
        if set(self.commands) != set(COMMANDS):
            words += [word for name in self.commands for word in ("--command", name)]
        if set(self.changes) != set(CHANGES):
            words += [word for name in self.changes for word in ("--change", name)]
        return shlex.join(words)


@dataclass
class Case:
    """A command line, and what was done to the project that it meets."""

    number: int
    folder: Path
    words: list[str]
    command: str = ""
    kinds: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    environment: dict[str, str | None] = field(default_factory=dict)
    touched: list[Path] = field(default_factory=list)
    """Files that were changed before the command: a run that has lost its result is no finished one any more."""
    is_forked: bool = True
    out: str = ""
    """What is wrong with stdout."""
    pid: int = 0
    before: dict[str, str] = field(default_factory=dict)
    started: float = 0.0
    timed_out: bool = False

    def __post_init__(self) -> None:
        self.project = self.folder / INSIDE / "project"
        self.cwd: Path | None = self.project
        self.moved_with = self.project

    @classmethod
    def make(cls, choice: Choice, number: int, template: Template, folder: Path) -> "Case":
        """Case `number`: the same whatever other cases there are."""
        rng = random.Random(f"{choice.seed} {number}")
        commands, changes = choice.commands, choice.changes
        command = rng.choices(commands, [COMMANDS[name].often for name in commands])[0]
        case = cls(number, folder, rng.choice(COMMANDS[command].lines).split(" "), command)
        shutil.rmtree(folder, ignore_errors=True)
        copy(template.folder, folder)
        for _ in range(rng.choice([1, 1, 1, 2])):
            change = rng.choices(changes, [CHANGES[name][1] for name in changes])[0]
            case.kinds.append(CHANGES[change][0](case, rng))
        if case.cwd == case.moved_with:
            case.cwd = case.project
        case.before = snapshot(folder)
        return case

    @property
    def seconds(self) -> float:
        """How long it may take."""
        return COMMANDS[self.command].seconds if self.command else 300.0

    def log(self, name: str) -> Path:
        return self.folder.with_name(f"{self.folder.name}.{name}")

    def said(self) -> str:
        """What it printed."""
        return "".join(self.log(name).read_text(errors="replace") for name in ("stdout", "stderr"))

    def start(self) -> None:
        self.started = time.monotonic()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self._be_the_command()
            finally:
                os._exit(97)

    def _be_the_command(self) -> None:
        """`u2pl` in a process that has everything imported already, or in one of its own."""
        os.setsid()
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(self.log(name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        if self.cwd is not None:
            os.chdir(self.cwd)
        else:
            gone = self.folder / "gone"
            gone.mkdir()
            os.chdir(gone)
            gone.rmdir()
        environment = {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(self.folder / HOME),
            "U2PL_TRACKING": "none" if self.command != "track sync" else "",
            "DVC_NO_ANALYTICS": "1",
            "DVC_SITE_CACHE_DIR": str(self.folder / "site"),
        } | self.environment
        for name, value in environment.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        if not self.is_forked:
            self._spoil_stdout()
            os.execv(sys.executable, [sys.executable, "-m", "u2pl_cli", *self.words])
        time.tzset()
        for name, number, errors in (("stdout", 1, "strict"), ("stderr", 2, "backslashreplace")):
            setattr(sys, name, os.fdopen(number, "w", 1, encoding="utf-8", errors=errors, closefd=False))
        stacks = os.open(self.log("stacks"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        faulthandler.dump_traceback_later(self.seconds - 2, file=stacks)
        sys.argv = ["u2pl", *self.words]
        code: Any = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
            code = 1
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)

    def _spoil_stdout(self) -> None:
        if self.out == "full":
            os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
        elif self.out == "pipe":
            read, write = os.pipe()
            os.close(read)
            os.dup2(write, 1)
        elif self.out == "closed":
            os.close(1)

    # ---- what came of it ----

    def problems(self, status: int) -> list[str]:
        """What must not be; empty: the command ended in a result or in a sentence."""
        found = [] if not self.timed_out else [f"hang: nothing after {self.seconds:.0f} s"]
        code, said = os.waitstatus_to_exitcode(status), self.said()
        error = self.log("stderr").read_text(errors="replace")
        if not self.timed_out and code not in (0, 1, 2, 130):
            found.append(f"exit code {code}")
        if "Traceback (most recent call last)" in said:
            found.append("traceback")
        if "This is a defect of u2pl" in said:
            found.append("defect")
        helped = said.lstrip().startswith(
            "Usage: u2pl"
        )  # a group of commands without a word says which there are
        if code > 0 and not error.strip() and not helped and "plan run" not in self.command and not self.out:
            found.append("no sentence")
        return found + self._losses() + self._told()

    def _losses(self) -> list[str]:
        """Files that are gone or others now, and should not be."""
        after = snapshot(self.folder)
        there = set(after.values())
        lost = [
            path
            for path, content in self.before.items()
            if after.get(path) != content and self._is_kept(path) and not (self._moves and content in there)
        ]
        named = self._named()
        strange = [
            path
            for path in after.keys() - self.before.keys()
            if self._inside(path) is None
            and not path.startswith(("home/", "site/", "tmp/"))
            and not path.endswith(".lock")  # beside a store that an address names
            and not any(Path(self.folder, path).is_relative_to(folder) for folder in named)
        ]
        hacked = [path for path in after if path.endswith(PWNED)]
        return [
            *(f"lost: {', '.join(sorted(lost)[:4])}" for _ in lost[:1]),
            *(f"written outside: {', '.join(sorted(strange)[:4])}" for _ in strange[:1]),
            *(f"code was run: {path}" for path in hacked),
        ]

    def _inside(self, path: str) -> str | None:
        """A path of the case's folder from the project on; None outside of it."""
        start = f"{self.project.relative_to(self.folder)}/"
        return path.removeprefix(start) if path.startswith(start) else None

    @property
    def _moves(self) -> bool:
        """Whether it may move runs aside."""
        return "--fresh" in self.words or self.command == "plan run"

    def _named(self) -> list[Path]:
        """Files and folders that its words name as targets, and where its environment names a store."""
        options = ("--into", "--out", "--model", "--record")
        after = [word for option, word in zip(self.words, self.words[1:], strict=False) if option in options]
        store = sqlite_file(self.environment.get("MLFLOW_TRACKING_URI") or "")
        after += [store[0].parent] if store else []
        return [Path(os.path.normpath((self.cwd or self.folder) / word)) for word in after]

    def _is_kept(self, path: str) -> bool:
        inside = self._inside(path)
        if Path(self.folder, path) in self._named():
            return False
        if inside is None:
            return path.startswith(f"{OUTSIDE}/")
        if any(fnmatch.fnmatch(inside, p) for p in PASSING):
            return False
        may_change = any(fnmatch.fnmatch(inside, p) for p in COMMANDS[self.command].changes)
        if any(fnmatch.fnmatch(inside, p) for p in KEPT) and "/evaluations/" not in inside:
            run = Path(inside).parent
            # A run that was damaged is no finished one any more, and is trained again where somebody says so.
            is_damaged = any(run in touched.parents for touched in self.touched)
            is_cut_off = "epochs=2" in run.name
            return not (
                may_change and "runs/*" in COMMANDS[self.command].changes and (is_damaged or is_cut_off)
            )
        return not may_change

    def _told(self) -> list[str]:
        """Secrets in what was printed or written, and names in pages that a browser would run."""
        found = ["secret printed"] if SECRET in self.said() else []
        for path in self.folder.rglob("*"):
            if not path.is_file() or path.stat().st_size > 10**7 or path.is_symlink():
                continue
            data = path.read_bytes()
            if SECRET.encode() in data:
                found.append(f"secret written: {path.relative_to(self.folder)}")
            if path.suffix == ".html" and SCRIPT.encode() in data:
                found.append(f"a class name runs in {path.relative_to(self.folder)}")
        return found

    def recipe(self) -> dict[str, Any]:
        """All that is needed to know what was tried."""
        return {
            "case": self.number,
            "command": self.command,
            "words": shlex.join(map(quoted_word, self.words)),
            "kinds": self.kinds,
            "mutations": self.notes,
        }


def quoted_word(word: str) -> str:
    return word.encode("utf-8", "backslashreplace").decode()


def snapshot(folder: Path) -> dict[str, str]:
    """Every file -> what tells its content from others: a hash, of large files the inode."""
    found = {}
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root, name)
            stat = path.lstat()
            key = str(path.relative_to(folder))
            if path.is_symlink():
                found[key] = f"link to {path.readlink()}"
            elif not path.is_file():
                found[key] = "special"
            elif stat.st_size > 2**20:
                found[key] = f"{stat.st_ino} {stat.st_size} {stat.st_mtime_ns}"
            else:
                found[key] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


# ---- all cases -------------------------------------------------------------------------------------------


def ended(case: Case) -> int | None:
    """The case's wait status, None while it runs; one that takes too long is killed."""
    pid, status = os.waitpid(case.pid, os.WNOHANG)
    if pid == 0 and time.monotonic() - case.started > case.seconds:
        case.timed_out = True
        os.killpg(case.pid, signal.SIGKILL)
        _, status = os.waitpid(case.pid, 0)
    elif pid == 0:
        return None
    with suppress(ProcessLookupError):
        os.killpg(case.pid, signal.SIGKILL)  # what it has left behind
    return status


def played(cases: Iterator[Case], jobs: int) -> Iterator[tuple[Case, int]]:
    """Each case with its wait status, so many at a time."""
    running: list[Case] = []
    more = True
    while more or running:
        while more and len(running) < jobs:
            case = next(cases, None)
            more = case is not None
            if case is not None:
                case.start()
                running.append(case)
        for case in list(running):
            if (status := ended(case)) is not None:
                running.remove(case)
                yield case, status
        time.sleep(0.005)


def where(case: Case) -> str:
    """The innermost line of this project that a defect comes from."""
    own = re.compile(r'File "[^"]*?((?:u2pl|cli)/[\w/]+\.py)"?, line (\d+)')
    stacks = case.log("stacks")
    text = stacks.read_text() if case.timed_out and stacks.exists() else case.said()
    lines = own.findall(text)
    if not lines:
        return ""
    file, line = lines[0] if case.timed_out else lines[-1]
    return f"{file}:{line}"


def try_out(
    folder: Path, numbers: Sequence[int], choice: Choice, *, jobs: int = 2, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Play cases, and report how they ended; folders of bad ones stay."""
    template = Template(folder / "template")
    template.make()
    gc.freeze()
    counts: dict[str, Counter[str]] = {"commands": Counter(), "kinds": Counter(), "outcomes": Counter()}
    bad: list[dict[str, Any]] = []
    cases = (Case.make(choice, number, template, folder / str(number)) for number in numbers)
    for case, status in played(cases, jobs):
        problems = case.problems(status)
        counts["commands"][case.command] += 1
        counts["kinds"].update(case.kinds)
        code = os.waitstatus_to_exitcode(status)
        counts["outcomes"]["bad" if problems else "sentence" if code else "result"] += 1
        if problems:
            last = case.log("stderr").read_text(errors="replace").splitlines()[-6:]
            facts = {"problems": problems, "where": "", "code": code, "stderr": last}
            if "defect" in problems:
                facts["where"] = traced(choice, case, template)
            elif case.timed_out or "traceback" in problems:
                facts["where"] = where(case)
            bad.append({**case.recipe(), **facts, "again": choice.words(case.number)})
            say(f"{len(bad)} bad: {json.dumps(bad[-1])}")
        elif len(numbers) > 1:
            remove(case)
    return {
        "seed": choice.seed,
        "cases": len(numbers),
        **counts,
        "bad": sorted(bad, key=lambda each: each["case"]),
    }


def traced(choice: Choice, case: Case, template: Template) -> str:
    """Where the defect is that a case has met: it is played once more with --debug."""
    again = Case.make(choice, case.number, template, case.folder.with_name(f"{case.number}.again"))
    again.words.append("--debug")
    again.start()
    while ended(again) is None:
        time.sleep(0.01)
    found = where(again)
    case.log("debug").write_text(again.said())
    remove(again)
    return found


def remove(case: Case) -> None:
    shutil.rmtree(case.folder, ignore_errors=True)
    for name in ("stdout", "stderr", "stacks"):
        case.log(name).unlink(missing_ok=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="this case alone; the same as among all others")
    parser.add_argument(
        "--command", action="append", default=[], choices=COMMANDS, help="these commands alone"
    )
    parser.add_argument("--change", action="append", default=[], choices=CHANGES, help="these changes alone")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="without commands that take long")
    parser.add_argument("--folder", type=Path, help="where to work; stays, and is used again")
    options = parser.parse_args()
    numbers = (
        [options.only] if options.only is not None else range(options.first, options.first + options.cases)
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).resolve()
        choice = Choice.of(options.seed, options.command, options.change, options.quick)
        report = try_out(folder, numbers, choice, jobs=options.jobs)
    print(json.dumps(report))
    raise SystemExit(bool(report["bad"]))


if __name__ == "__main__":
    main()
