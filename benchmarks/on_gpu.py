"""All that only a GPU can tell, in less than ten minutes: Markdown tables for docs/benchmarks.md.

Each section has a share of the time; what one leaves goes to those after it. What fails, for want of memory or
otherwise, is a row that says so and stops no other; what does not fit into the time is named as left out.

    OMP_NUM_THREADS=1 python benchmarks/on_gpu.py --out gpu.md
    OMP_NUM_THREADS=1 python benchmarks/on_gpu.py --device cpu --tiny   # the script itself, where there is no GPU
"""

import argparse
import gc
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import contrastive
import loading
import measure
import numpy as np
import torch
import torch.distributed as dist
from partition import ours as partitioned
from torch import Tensor, nn
from torch.nn.functional import batch_norm, interpolate
from torch.nn.modules._functions import SyncBatchNorm as Synchronised
from torch.utils.flop_counter import FlopCounterMode
from train_step import ROOT, endless, peak_arithmetic, pictures

from u2pl import methods
from u2pl.batches.loader import Batch, Images
from u2pl.data.pictures import read_image
from u2pl.errors import is_out_of_memory, reason
from u2pl.losses.cross_entropy import cross_entropy, lambda_u
from u2pl.methods import Classes, Step
from u2pl.models.deeplab import upsample
from u2pl.project import Project
from u2pl.settings import Params
from u2pl.training import memory
from u2pl.training.learner import Learner

GIB = 2.0**30
AIM = 0.45
"""Share of the measured peak that a step is to reach."""
USES_CUDA = re.compile(r"\bcuda\b|local_device|\b(?:trainer|loop)\b")
"""In a test's file: it names CUDA, or trains as a run does, which takes the GPU where there is one."""
WITNESSED = (
    "import sys, pytest, on_gpu; sys.exit(pytest.main(sys.argv[2:], plugins=[on_gpu.Witness(sys.argv[1])]))"
)

Cells = Sequence[str]
Jobs = Iterable[tuple[str, Callable[[], Iterator[Cells]]]]
"""First cell -> what gives the others, of one or more rows."""
PictureSet = tuple[tuple[int, int], str, int, int, float]
"""As in `loading.SETS`."""


class Case(NamedTuple):
    """A training step to measure."""

    name: str
    dataset: str
    classes: Classes
    crop: int
    batch: int
    """Labelled images, and as many unlabelled ones."""
    overrides: Mapping[str, Any] = {}


class Sizes(NamedTuple):
    """How large everything is."""

    cases: Sequence[Case]
    """The first is the one of all sections but the steps'."""
    pictures: Sequence[PictureSet]
    """Of the first and of the last case."""
    tests: Sequence[Path]
    precisions: Sequence[str] = ("bfloat16", "float32", "float16")
    matrix: int = 8192
    map: int = 129
    """Height and width of the heads' maps."""
    features: int = 256
    draws: Sequence[tuple[int, int]] = contrastive.PUBLISHED
    queue: int = 30_000


VOC, CITYSCAPES = Classes(21, 255, background=True), Classes(19, 255, background=False)
SMALL = {"backbone": "resnet10", "output_stride": 16, "multi_grid": False, "width": 8, "representation": 8}
SMALL |= {"M": 4, "N": 8, "queue": 40, "queue_background": 60}


def paper_sizes() -> Sizes:
    cases = (
        Case("crop 513, 4 + 4", "voc", VOC, 513, 4),
        Case("crop 513, 16 + 16", "voc", VOC, 513, 16),
        Case("Cityscapes, crop 769, 4 + 4", "cityscapes", CITYSCAPES, 769, 4),
    )
    voc, (size, suffix, crop, _, grain) = loading.SETS
    return Sizes(cases, (voc, (size, suffix, crop, 3, grain)), tests_with_cuda())


def tests_with_cuda() -> list[Path]:
    """Files of tests that use the GPU where there is one; those that say so most often come first."""
    hits = {
        path: len(USES_CUDA.findall(path.read_text(encoding="utf-8")))
        for path in (ROOT / "tests").rglob("test_*.py")
        # The script's own test would start it again; whole pipelines take too long.
        if path.name != "test_on_gpu.py" and "e2e" not in path.parts
    }
    return sorted((path for path in hits if hits[path]), key=lambda path: (-hits[path], path))


def tiny_sizes() -> Sizes:
    """To try the script out; without float16, in which a CPU takes seconds a step."""
    cases = (
        Case("crop 33, 2 + 2", "voc", VOC, 33, 2, SMALL),
        Case("Cityscapes, crop 49, 2 + 2", "cityscapes", CITYSCAPES, 49, 2, SMALL),
    )
    sets = (((60, 80), ".jpg", 33, 4, 1.0), ((64, 128), ".png", 49, 2, 1.0))
    tests = [ROOT / "tests" / "losses" / "test_partition.py"]
    return Sizes(cases, sets, tests, ("bfloat16", "float32"), 256, 33, 8, [(4, 8)], 100)


@dataclass
class Setting:
    """What all sections know."""

    options: argparse.Namespace
    device: torch.device
    sizes: Sizes
    end: float = 0.0
    """Of the present section, on the monotonic clock."""
    speeds: dict[str, float] = field(default_factory=dict)
    """Images a second of each case, once measured."""

    @cached_property
    def peak(self) -> float:
        """Operations a second of products of bfloat16 matrices."""
        return peak_arithmetic(torch.bfloat16, self.device, self.sizes.matrix)

    def milliseconds(self, work: Callable[[], object], device: torch.device | None = None) -> list[float]:
        """Of each repeat, the fastest first."""
        steps = {"": lambda _: work()}
        times = measure.taking_turns(steps, self.options.repeats, device or self.device)
        return measure.totals(times[""])


# ---- time, and what fails ------------------------------------------------------------------------------------


class Late(BaseException):
    """The time is up. Not an Exception: nothing in between is to take it for an error of the work, and go on."""


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise Late in the block after so many seconds, between two lines of Python."""

    def ring(*_: Any) -> None:
        raise Late

    if seconds <= 0:
        raise Late
    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def rows_of(work: Callable[[], Iterator[Cells]], columns: int, seconds: float) -> list[Cells]:
    """All that a job gives; in its last row what went wrong, if something did."""
    found: list[Cells] = []
    remark = None
    try:
        with at_most(seconds):
            for cells in work():
                found.append(cells)
    except Late:
        remark = "left out: the section's time was up"
    except Exception as error:
        remark = (
            "out of memory" if is_out_of_memory(error) else f"{type(error).__name__}: {reason(error)}"[:120]
        )
    if remark is not None:
        found.append((*["–"] * (columns - 1), remark))
    # Only here does no traceback hold the networks any more, so that their memory can be had again.
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    return found


# ---- the tests -----------------------------------------------------------------------------------------------


class Witness:
    """A plugin of pytest that writes down how each test ended, and whether it put anything on the GPU."""

    def __init__(self, path: str):
        self.path, self.before = Path(path), 0

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when != "call" and report.outcome == "passed":
            return
        stats = torch.cuda.memory_stats() if torch.cuda.is_initialized() else {}
        allocations = stats.get("allocation.all.allocated", 0)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps([report.nodeid, report.outcome, allocations > self.before]) + "\n")
        self.before = allocations


def cuda_tests(setting: Setting) -> Iterator[Cells]:
    paths = [str(path.relative_to(ROOT)) for path in setting.sizes.tests]
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "tests.jsonl"
        words = [sys.executable, "-c", WITNESSED, str(record), "-q", "-p", "no:cacheprovider", *paths]
        # Some seconds are kept to end it, and to read what it has done by then.
        ended = run_for(setting.end - time.monotonic() - 3, words)
        lines = record.read_text(encoding="utf-8").splitlines() if record.exists() else []
    found = [json.loads(line) for line in lines]
    counts = Counter(outcome for _, outcome, _ in found)
    remarks = [] if ended else ["the rest left out: the section's time was up"]
    remarks += [f"failed: {name}" for name, outcome, _ in found if outcome == "failed"]
    on_gpu = sum(used for *_, used in found)
    yield *(str(counts[kind]) for kind in ("passed", "skipped", "failed")), str(on_gpu), "; ".join(remarks)


def run_for(seconds: float, words: Sequence[str]) -> bool:
    """Run a command, with all that it starts, for so long at most; whether it came to its end."""
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    running = subprocess.Popen(words, cwd=ROOT, env=environment, stdout=sys.stderr, start_new_session=True)
    try:
        running.wait(max(seconds, 0))
        return True
    except subprocess.TimeoutExpired:
        return False
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()


# ---- steps ---------------------------------------------------------------------------------------------------


class Training:
    """A learner past its warm start, with a batch."""

    def __init__(
        self, setting: Setting, case: Case, precision: str, *, compiled: bool = False, sync: bool = False
    ):
        params = Params.read(Project(ROOT))
        given = {"weights": "none", "crop": case.crop, "batch": case.batch, "precision": precision}
        keys = {params.full_key(key, "u2pl"): value for key, value in (given | {**case.overrides}).items()}
        resolved = params.resolve(params.spec(case.dataset, "1/2", "u2pl", 0, keys))
        torch.manual_seed(0)
        method = methods.create("u2pl", case.classes, resolved.recipe, resolved.hyper).train()
        epoch, epoch_steps = method.settings.warm_start_epochs, 1000  # the first epoch that has all losses
        if sync:
            from timm.layers import convert_sync_batchnorm

            method = convert_sync_batchnorm(method)
        self.setting, self.images = setting, 2 * case.batch
        self.learner = Learner(method, resolved.recipe, 10**6, setting.device, compiled=compiled)
        index, generator = epoch * epoch_steps + 500, torch.Generator().manual_seed(0)
        self.place = Step(index, epoch, resolved.recipe.epochs, epoch_steps, generator)
        self.batch = patches(case, setting.device)

    def step(self) -> None:
        self.learner.step(self.batch, self.place)

    def measured(self) -> tuple[float, float, float]:
        """Images a second, the most GiB in use, and seconds of the first step, in which kernels are chosen or made."""
        device, started = self.setting.device, time.perf_counter()
        self.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        first = time.perf_counter() - started
        memory.reset(device)
        ms = statistics.median(self.setting.milliseconds(self.step))
        return 1e3 * self.images / ms, memory.peak(device) / GIB, first


def patches(case: Case, device: torch.device) -> Batch:
    """Images of 8 x 8 patches, whose colours tell their classes."""
    generator, classes = torch.Generator().manual_seed(0), case.classes.count
    cells = torch.randint(classes, (2 * case.batch, 1, 8, 8), generator=generator)
    mask = interpolate(cells.float(), size=(case.crop, case.crop)).long()[:, 0]
    image = torch.randn(classes, 3, generator=generator)[mask].movedim(-1, 1).contiguous()
    image, mask, number = image.to(device), mask.to(device), torch.arange(2 * case.batch) % case.batch
    images = Images(image, mask, torch.ones_like(mask, dtype=torch.bool), number, torch.zeros_like(number))
    return Batch(images.part(slice(case.batch)), images.part(slice(case.batch, None)))


def waits(setting: Setting, precision: str) -> Iterator[Cells]:
    """Where a step makes the host wait, its batch's way from the loader to the device included."""
    training, device = Training(setting, setting.sizes.cases[0], precision), setting.device
    with pictures() as split:
        batches = endless(split, training.learner.method, device)
        for _ in range(2):  # what is laid out once may wait
            training.learner.step(next(batches).to(device), training.place)
        batch = next(batches)
        with synchronising(device) as places:
            training.learner.step(batch.to(device), training.place)
    for place, times in places.most_common():
        yield place, str(times), ""
    if not places:
        yield "nowhere", "0", "" if device.type == "cuda" else "a CPU waits for nobody"


@contextmanager
def synchronising(device: torch.device) -> Iterator[Counter[str]]:
    """How often each line of our code waits for the GPU in the block, as far as torch notices."""
    found: Counter[str] = Counter()

    def note(message: Warning | str, *_: Any, **__: Any) -> None:
        if "called a synchronizing" in str(message):  # not what torch says of the mode itself
            stack = traceback.extract_stack()[:-1]
            ours = [frame for frame in stack if Path(frame.filename).is_relative_to(ROOT / "u2pl")]
            frame = (ours or stack)[-1]
            path = Path(frame.filename)
            name = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path.name
            found[f"`{name}:{frame.lineno}`"] += 1

    set_mode = torch.cuda.set_sync_debug_mode if device.type == "cuda" else lambda _: None
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note
        set_mode("warn")
        try:
            yield found
        finally:
            set_mode("default")


def versions(setting: Setting) -> Jobs:
    """Compiling, which takes longest, comes last, and gets what time all else has left."""
    kinds = setting.sizes.precisions
    plain = [(kind, partial(version, setting, kind)) for kind in kinds]
    compiled = [(f"{kind}, compiled", partial(version, setting, kind, compiled=True)) for kind in kinds]
    sync, tried = partial(synchronised, setting), partial(trial, setting)
    return [*plain, ("bfloat16, SyncBN", sync), ("memory trial, bfloat16", tried), *compiled]


def version(setting: Setting, precision: str, **options: Any) -> Iterator[Cells]:
    torch._dynamo.reset()
    training = Training(setting, setting.sizes.cases[0], precision, **options)
    speed, peak, first = training.measured()
    kernels = [p for p in training.learner.method.parameters() if p.ndim == 4]
    last = sum(p.is_contiguous(memory_format=torch.channels_last) for p in kernels)
    remark = f"first step {first:.1f} s; {last} of {len(kernels)} convolutions channels-last"
    if options.get("compiled") and setting.options.tiny:
        remark += "; compiling itself left out"
    yield f"{speed:.1f}", f"{peak:.2f}", remark


def synchronised(setting: Setting) -> Iterator[Cells]:
    """With all that several processes tell each other, in a group of one."""
    backend = "cpu:gloo,cuda:nccl" if setting.device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    try:
        # torch's own takes plain batch norm where there is but one process.
        with mock.patch.object(nn.SyncBatchNorm, "forward", synchronised_norm):
            yield from version(setting, "bfloat16", sync=True)
    finally:
        dist.destroy_process_group()


def synchronised_norm(norm: nn.SyncBatchNorm, x: Tensor) -> Tensor:
    """`SyncBatchNorm.forward` as it is with several processes."""
    own, statistics_ = (norm.weight, norm.bias), (norm.running_mean, norm.running_var)
    if not norm.training:
        return batch_norm(x, *statistics_, *own, eps=norm.eps)
    return Synchronised.apply(x, *own, *statistics_, norm.eps, norm.momentum, dist.group.WORLD, 1)


def trial(setting: Setting) -> Iterator[Cells]:
    training = Training(setting, setting.sizes.cases[0], "bfloat16")
    found = memory.try_step(training.learner, training.batch, training.place)
    room = f"{found.available / GIB:.0f} GiB"
    yield (
        "–",
        f"{found.peak / GIB:.2f}",
        f"{found.at_once} images at once; {found.largest} would go into {room}",
    )


def step(setting: Setting, case: Case) -> Iterator[Cells]:
    training = Training(setting, case, "bfloat16")
    speed, peak, _ = training.measured()
    setting.speeds[case.name] = speed
    with FlopCounterMode(display=False) as counter:
        training.step()
    operations = counter.get_total_flops()
    share = operations * speed / training.images / setting.peak
    counted = (f"{operations / 1e12:.3g}", f"{setting.peak / 1e12:.3g}", f"{share:.0%}")
    yield f"{speed:.1f}", f"{peak:.2f}", *counted, "aim reached" if share >= AIM else "aim missed"


# ---- losses, and the loader ----------------------------------------------------------------------------------


def losses(setting: Setting) -> Jobs:
    contrasts = [(f"L_c, M = {M}, N = {N}", partial(contrast, setting, M, N)) for M, N in setting.sizes.draws]
    return [*contrasts, ("pseudo-labels and L_u", partial(unsupervised, setting))]


def contrast(setting: Setting, M: int, N: int) -> Iterator[Cells]:
    sizes, device, seed = setting.sizes, setting.device, setting.options.seed
    classes = sizes.cases[0].classes.count
    given = contrastive.make_given(8, sizes.map, classes, sizes.features, device, seed)
    bank = contrastive.full_bank([sizes.queue] * classes, sizes.features, device, seed)
    generator = torch.Generator(device).manual_seed(seed)
    ms = setting.milliseconds(lambda: contrastive.ours(given, bank, M, N, generator, measure.no_lap))
    yield timed(ms, f"8 maps of {sizes.map} x {sizes.map}, a full bank, the push included")


def unsupervised(setting: Setting) -> Iterator[Cells]:
    """From the logits of teacher and student on, as the network leaves them."""
    case, size = setting.sizes.cases[0], setting.sizes.map
    crop, ignore = (case.crop, case.crop), case.classes.ignore_index
    small = torch.randn(2, 4, case.classes.count, size, size, device=setting.device)
    teacher, student = (logits.contiguous(memory_format=torch.channels_last) for logits in small)
    valid = torch.ones(4, *crop, dtype=torch.bool, device=setting.device)

    def labels() -> Tensor:
        return partitioned(upsample(teacher, crop), valid, contrastive.ALPHA, measure.no_lap)[0]

    def loss() -> None:
        logits = student.detach().requires_grad_()
        weight = lambda_u(label, valid, 1.0, ignore)
        (weight * cross_entropy(upsample(logits, crop), label, ignore)).backward()

    label = labels()
    yield timed(
        setting.milliseconds(labels), f"4 of {case.crop} x {case.crop}: entropy, gamma_t, pseudo-labels"
    )
    yield timed(setting.milliseconds(loss), "L_u of these, forward and backward")


def timed(ms: list[float], remark: str) -> Cells:
    return f"{statistics.median(ms):.2f}", f"{ms[0]:.2f}", remark


def loader(setting: Setting) -> Jobs:
    cases, sets = setting.sizes.cases, setting.sizes.pictures
    pairs = zip((cases[0], cases[-1]), sets, strict=True)
    fed = [(f"crops: {case.name}", partial(loaded, setting, case, kind)) for case, kind in pairs]
    decoders = {"decoding alone, Pillow": decoded_by_core, "decoding alone, nvjpeg": decoded_by_gpu}
    return [*fed, *((name, partial(decoder, setting)) for name, decoder in decoders.items())]


def loaded(setting: Setting, case: Case, kind: PictureSet) -> Iterator[Cells]:
    (height, width), suffix, crop, count, grain = kind
    with loading.files(height, width, suffix, count, grain) as pairs:

        def work() -> None:
            for seed, pair in enumerate(pairs):
                loading.ours(pair, crop, np.random.default_rng(seed), measure.no_lap)

        speed = rate(setting, work, count)
    needed = setting.speeds.get(case.name)
    step = ("–", "–") if needed is None else (f"{needed:.1f}", f"{needed / speed:.2f}")
    yield f"{speed:.0f}", *step, f"{width} x {height}, {suffix}"


@contextmanager
def jpegs(setting: Setting) -> Iterator[list[Path]]:
    (height, width), suffix, _, count, grain = setting.sizes.pictures[0]
    with loading.files(height, width, suffix, count, grain) as pairs:
        yield [path for path, _ in pairs]


def decoded_by_core(setting: Setting) -> Iterator[Cells]:
    with jpegs(setting) as paths:
        speed = rate(setting, lambda: [read_image(path) for path in paths], len(paths))
    yield f"{speed:.0f}", "–", "–", "one core"


def decoded_by_gpu(setting: Setting) -> Iterator[Cells]:
    from torchvision.io import decode_jpeg

    with jpegs(setting) as paths:
        data = [torch.from_numpy(np.fromfile(path, np.uint8)) for path in paths]

    def work() -> None:
        decode_jpeg(data, device=setting.device.type)
        if setting.device.type == "cuda":
            torch.cuda.synchronize()

    yield f"{rate(setting, work, len(data)):.0f}", "–", "–", f"the GPU, {len(data)} files at once"


def rate(setting: Setting, work: Callable[[], object], images: int) -> float:
    """Images a second by the clock."""
    return 1e3 * images / statistics.median(setting.milliseconds(work, torch.device("cpu")))


# ---- all of it -----------------------------------------------------------------------------------------------


class Section(NamedTuple):
    """A table."""

    heading: str
    columns: Sequence[str]
    jobs: Callable[[Setting], Jobs]
    share: int
    """Of the time, beside those of the sections after it."""
    needs: float
    """Seconds below which it is not begun."""
    words: str


SECTIONS = (
    Section(
        "The tests' CUDA paths",
        ("tests", "passed", "skipped", "failed", "put something on the GPU", "remark"),
        lambda setting: [(f"files: {len(setting.sizes.tests)}", partial(cuda_tests, setting))],
        3,
        15,
        "Tests in files that name CUDA or train as a run does. What they do in further processes is not seen.",
    ),
    Section(
        "Where a step waits for the GPU",
        ("precision", "place", "times", "remark"),
        lambda setting: [(k, partial(waits, setting, k)) for k in setting.sizes.precisions if k != "float32"],
        2,
        10,
        "Lines of a U²PL step, its batch's way to the device included, at which torch's sync debug mode warns; of "
        "collectives it knows nothing.",
    ),
    Section(
        "Steps",
        ("case", "images/s", "peak GiB", "T operations", "peak T/s", "share of the peak", f"aim: {AIM:.0%}"),
        lambda setting: [(case.name, partial(step, setting, case)) for case in setting.sizes.cases],
        4,
        20,
        "bfloat16, not compiled, without loading. Operations: those of a step's convolutions and matrix products, as "
        "torch counts them; the peak: of bfloat16 products of {matrix} x {matrix}, measured.",
    ),
    Section("Losses alone", ("loss", "ms", "fastest", "remark"), losses, 2, 5, "float32."),
    Section(
        "Loader alone",
        ("what", "images/s", "images/s of the step", "cores for one GPU", "remark"),
        loader,
        2,
        10,
        "Crops are one core's, from files, not yet normalised.",
    ),
    Section(
        "Precision, compiling, SyncBN, memory trial",
        ("version", "images/s", "peak GiB", "remark"),
        versions,
        8,
        20,
        "{case}, without loading.",
    ),
)


def section_text(section: Section, setting: Setting, seconds: float) -> str:
    """Heading, words and table, or that it was left out."""
    head = f"### {section.heading}\n\n"
    if seconds < section.needs:
        return f"{head}Left out: it needs {section.needs:.0f} s at least, and had {max(seconds, 0):.0f} s.\n"
    setting.end = time.monotonic() + seconds
    rows: list[Cells] = []
    for name, work in section.jobs(setting):
        print(f"{section.heading}: {name}")
        left = setting.end - time.monotonic()
        rows += [(name, *cells) for cells in rows_of(work, len(section.columns) - 1, left)]
    lines = [section.columns, ["---", *["---:"] * (len(section.columns) - 2), "---"], *rows]
    table = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
    sizes = setting.sizes
    return f"{head}{section.words.format(case=sizes.cases[0].name, matrix=sizes.matrix)}\n\n{table}\n"


def title(options: argparse.Namespace, device: torch.device) -> str:
    """What was measured, and on what."""
    name = measure.device_name(device, options.threads)
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory / GIB
        name += f", {total:.0f} GiB, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
    network = (
        "a tiny network, to try the script" if options.tiny else "ResNet-101, output stride 8, random weights"
    )
    with_ = f"torch {torch.__version__}, medians of {options.repeats}"
    return f"## On a GPU\n\n`python benchmarks/on_gpu.py`: {name}, {with_}; {network}.\n"


def tables(options: argparse.Namespace, device: torch.device, end: float) -> list[str]:
    """All sections; the file is there from the first one on, should a later one take the process with it."""
    setting = Setting(options, device, tiny_sizes() if options.tiny else paper_sizes())
    if options.tiny:  # compiling takes longer than all the rest
        torch.compiler.set_stance("force_eager")
    texts = [title(options, device)]
    for number, section in enumerate(SECTIONS):
        share = section.share / sum(other.share for other in SECTIONS[number:])
        texts.append(section_text(section, setting, share * (end - time.monotonic())))
        if options.out is not None:
            options.out.write_text("\n".join(texts), encoding="utf-8")
    return texts


def main() -> None:
    started = time.monotonic()
    parser = measure.arguments(__doc__)
    parser.add_argument("--out", type=Path, help="Markdown file (default: printed)")
    parser.add_argument("--minutes", type=float, default=9.0, help="for all sections (default: 9)")
    parser.add_argument("--tiny", action="store_true", help="a tiny network and sizes, to try the script")
    parser.set_defaults(device="cuda", repeats=5)
    options = parser.parse_args()
    with redirect_stdout(sys.stderr):  # what the other benchmarks print is no part of the tables
        texts = tables(options, measure.prepared(options), started + 60 * options.minutes)
    if options.out is None:
        print("\n".join(texts))


if __name__ == "__main__":
    main()
