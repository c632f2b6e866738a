"""A whole training step of U²PL: time by phase, peak memory, and how near it is to what the machine can do.

Bare passes are what the algorithm cannot do without: the teacher on the unlabelled images, the teacher on what the
student sees, the student forward and backward. "times bare" is a step, without the wait for data, divided by them;
both take turns in one process.

    OMP_NUM_THREADS=1 python benchmarks/train_step.py --crop 257 --batch 1
    python benchmarks/train_step.py --device cuda --precision bfloat16 --crop 513 --batch 4
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import loading
import measure
import torch
import yaml
from measure import Lap
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from tiny import make_project  # noqa: E402

from u2pl import methods  # noqa: E402
from u2pl.batches.loader import Batch, Batches, CollatedBatch  # noqa: E402
from u2pl.data.prepare import prepare  # noqa: E402
from u2pl.data.prepared import Split, open_split  # noqa: E402
from u2pl.methods import Step  # noqa: E402
from u2pl.project import Project  # noqa: E402
from u2pl.settings import Params, RunSpec  # noqa: E402
from u2pl.training.learner import Learner  # noqa: E402
from u2pl.training.machine import Machine  # noqa: E402
from u2pl.training.trainer import classes_of  # noqa: E402

CLASSES, PICTURES = 21, 48
PHASES = ("data wait", "teacher", "student", "losses", "backward", "optimiser", "EMA")
KINDS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@contextmanager
def pictures() -> Iterator[Split]:
    """A data set of pictures as large as VOC's, half of them labelled."""
    with tempfile.TemporaryDirectory() as folder, loading.files(375, 500, ".jpg", PICTURES, 5.5) as pairs:
        root = Path(folder)
        for kind, index in (("images", 0), ("masks", 1)):
            (root / kind).mkdir()
            for number, pair in enumerate(pairs):
                pair[index].rename(root / kind / f"{number:02}{pair[index].suffix}")
        names = [f"{number:02}" for number in range(PICTURES)]
        (root / "train.txt").write_text("\n".join(names[:-2]) + "\n")
        (root / "val.txt").write_text("\n".join(names[-2:]) + "\n")
        classes = [f"class {k}" for k in range(CLASSES)]
        facts = {
            "name": "street",
            "classes": classes,
            "background": True,
            "images": "images",
            "masks": "masks",
        }
        (root / "street.yaml").write_text(yaml.safe_dump(facts))
        (root / "project").mkdir()
        project = make_project(root / "project")
        prepare(project, str(root / "street.yaml"), "1/2")
        yield open_split(project, "street", "1/2")


def endless(split: Split, method: methods.Method, device: torch.device) -> Iterator[CollatedBatch]:
    """A method's batches, as they come from the loader."""
    batches = Batches(
        split,
        recipe=method.recipe,
        seed=0,
        start_step=0,
        end_step=10**5,
        unlabeled=method.uses_unlabeled,
        workers=Machine().loaders(device.type),
        extra=method.streams(),
        choose=method.choose,
    )
    return iter(batches)


class Watched(Learner):
    """Tells of the end of each phase of a step."""

    def __init__(self, *arguments: Any, watch: bool, **options: Any):
        super().__init__(*arguments, **options)
        self.lap: Lap = measure.no_lap
        if not watch:
            return
        for name in ("teacher", "student"):
            network = getattr(self.method, name)
            network.register_forward_pre_hook(lambda *_: self.lap("losses"))
            network.register_forward_hook(lambda *_, name=name: self.lap(name))
        after_update = self.method.after_update

        def averaged(step: Step) -> None:
            after_update(step)
            self.lap("EMA")

        self.method.after_update = averaged  # type: ignore[method-assign]

    def backward(self, loss: torch.Tensor) -> None:
        self.lap("losses")
        super().backward(loss)
        self.lap("backward")

    def update(self) -> None:
        super().update()
        self.lap("optimiser")


def bare(learner: Learner, batch: Batch, at_once: int) -> Callable[[Lap], None]:
    """The passes alone, with as many images at once as a step has."""
    student, teacher = learner.method.student, learner.method.teacher
    assert batch.unlabeled is not None
    parts = list(zip(batch.labeled.image.split(at_once), batch.unlabeled.image.split(at_once), strict=True))

    def passes(lap: Lap) -> None:
        with torch.no_grad():
            for _, unlabeled in parts:
                teacher(unlabeled, represent=False)
            for part in parts:
                teacher(torch.cat(part), represent=True)
        learner.zero_grad()
        for part in parts:
            output = student(torch.cat(part), represent=True)[:2]  # logits and representations
            torch.autograd.backward(output, [torch.ones_like(maps) for maps in output])
        lap("passes")

    return passes


def peak_arithmetic(kind: torch.dtype, device: torch.device, n: int = 0) -> float:
    """Floating-point operations per second of the best of some products of two square matrices (0: of a usual size)."""
    n = n or (8192 if device.type == "cuda" else 2048)
    left, right = (torch.rand(n, n, device=device).to(kind) for _ in range(2))
    times = measure.taking_turns({"": lambda _: torch.mm(left, right)}, 7, device)[""]
    return 2 * n**3 / (min(measure.totals(times)) / 1e3)


def main() -> None:
    parser = measure.arguments(__doc__)
    parser.add_argument("--backbone", default="resnet101")
    parser.add_argument("--crop", type=int, default=513)
    parser.add_argument("--batch", type=int, default=4, help="labelled images, and as many unlabelled ones")
    parser.add_argument("--micro-batch", type=int, default=0)
    parser.add_argument("--precision", choices=list(KINDS), default="float32")
    parser.add_argument("--recompute", action="store_true")
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    device = measure.prepared(options)
    with pictures() as split:
        run(options, device, split)


def run(options: argparse.Namespace, device: torch.device, split: Split) -> None:
    params = Params.read(Project(ROOT))
    given = {"backbone": options.backbone, "crop": options.crop, "precision": options.precision}
    resolved = params.resolve(RunSpec("voc", "1/2", "u2pl", 0, {f"recipe.{k}": v for k, v in given.items()}))
    sizes = {"weights": "none", "batch": options.batch, "micro_batch": options.micro_batch}
    recipe = resolved.recipe.model_copy(update=sizes)
    method = methods.create("u2pl", classes_of(split), recipe, resolved.hyper).train()
    learner = Watched(
        method, recipe, 10**6, device, recompute=options.recompute, compiled=options.compile,
        watch=not options.compile,
    )  # fmt: skip
    waiting = endless(split, method, device)
    epoch, index = 1, 1000
    step = Step(index, epoch, 80, index, torch.Generator().manual_seed(0))
    kept = next(waiting).to(device)

    def whole(lap: Lap) -> None:
        batch = next(waiting).to(device)
        lap("data wait")
        learner.lap = lap
        learner.step(batch, step)
        learner.lap = measure.no_lap

    with FlopCounterMode(display=False) as counter:
        bare(learner, kept, options.micro_batch or options.batch)(measure.no_lap)
    operations = counter.get_total_flops()
    peak = peak_arithmetic(KINDS[options.precision], device)
    versions = {"step": whole, "bare": bare(learner, kept, options.micro_batch or options.batch)}
    times = measure.taking_turns(versions, options.repeats, device)
    spent = {
        name: [sum(ms for phase, ms in phases.items() if phase != "data wait") for phases in times[name]]
        for name in times
    }
    ratio = statistics.median(a / b for a, b in zip(spent["step"], spent["bare"], strict=True))
    title = f"{options.backbone}, crop {options.crop}, batch {options.batch} + {options.batch}, {options.precision}"
    measure.show_phases(
        title, [{p: phases.get(p, 0.0) for p in (*PHASES, "rest")} for phases in times["step"]]
    )
    ms, alone = (statistics.median(spent[name]) for name in ("step", "bare"))
    memory = (
        "" if device.type == "cpu" else f", peak memory {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB"
    )
    print(
        f"A step without waiting for data: {ms:.0f} ms (fastest {min(spent['step']):.0f}, slowest "
        f"{max(spent['step']):.0f}), {2e3 * options.batch / ms:.2f} images/s{memory}\n"
        f"Bare passes: {alone:.0f} ms (fastest {min(spent['bare']):.0f}, slowest {max(spent['bare']):.0f}); "
        f"a step takes {ratio:.3f} times as long (median of the pairs)\n"
        f"Arithmetic of the passes: {operations / 1e12:.2f} T operations; the machine's measured peak in "
        f"{options.precision} is {peak / 1e12:.2f} T/s. A step reaches {operations / (ms / 1e3) / peak:.0%} of it, the "
        f"bare passes {operations / (alone / 1e3) / peak:.0%}"
    )


if __name__ == "__main__":
    main()
