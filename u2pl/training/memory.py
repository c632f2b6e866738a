"""Memory: what a step takes, tried out before a long run, and how many images fit at once."""

import copy
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from u2pl import processes
from u2pl.batches.loader import Batch
from u2pl.errors import UserError, is_out_of_memory
from u2pl.methods import Step
from u2pl.training.learner import Learner

_SPARE = 0.95
"""Share of a device's memory to count on; the rest goes to fragments and to other programs."""


def peak(device: torch.device) -> int:
    """Most bytes in use at once since `reset`: allocated on the GPU, or resident in this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        found = None
    return int(found[1]) * 1024 if found else psutil.Process().memory_info().rss


def reset(device: torch.device) -> None:
    """Begin to measure anew."""
    clear = Path("/proc/self/clear_refs")
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        # Where there is no such file, or it may not be written, the peak stays that of all time.
        with suppress(OSError):
            clear.write_text("5")


def available(device: torch.device) -> int:
    """Bytes that this process can count on: what it has, and what nobody has."""
    if device.type == "cuda":
        return int(_SPARE * (torch.cuda.memory_reserved(device) + torch.cuda.mem_get_info(device)[0]))
    return int(_SPARE * psutil.virtual_memory().total / processes.size())


@dataclass(frozen=True)
class Trial:
    """What a step was found to take."""

    peak: int
    """Bytes."""
    available: int
    at_once: int
    """Images that went through the networks at once, labelled and unlabelled together."""
    largest: int
    """How many could; as many as went where no fewer were tried, as with a method that takes a batch whole."""

    def metrics(self) -> dict[str, float]:
        """The same as numbers for events.jsonl."""
        return {
            "memory/step_gib": self.peak / 2**30,
            "memory/available_gib": self.available / 2**30,
            "memory/at_once": self.at_once,
            "memory/largest": self.largest,
        }


def try_step(learner: Learner, batch: Batch, step: Step) -> Trial:
    """Take a step on real images, leave everything as it was, and tell what the step takes.

    Fewer images at once come first, so that what will not fit is known before it is tried.

    Args:
        learner: at its beginning.
        batch: of full size.
        step: one in which every loss counts.

    Raises:
        UserError: it does not fit; the message says what does.
    """
    recipe, device = learner.method.recipe, learner.device
    uncut = learner.method.takes_batch_whole
    images = len(batch.labeled.image)
    # Without unlabelled images twice as many labelled ones go at once.
    wanted = recipe.micro_batch or (images if batch.unlabeled is not None else -(-images // 2))
    room = min(processes.gather_objects(available(device)))
    taken: dict[int, int] = {}
    with _preserved(learner):
        try:
            for at_once in [wanted] if uncut else sorted({1, min(2, wanted), wanted}):
                if len(taken) == 2 and _expected(taken, at_once) > room:
                    break
                learner.method.recipe = recipe.model_copy(update={"micro_batch": at_once})
                reset(device)
                learner.step(batch, step)
                taken[at_once] = int(processes.gather(torch.tensor([peak(device)])).max())
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        finally:
            learner.method.recipe = recipe
    if wanted not in taken:
        fitting = [
            n for n in range(1, wanted) if images % n == 0 and len(taken) == 2 and _expected(taken, n) < room
        ]
        raise UserError(_refusal(wanted, fitting or sorted(taken), taken, room, uncut))
    largest = wanted
    while len(taken) > 1 and largest < 10**4 and _expected(taken, largest + 1) < room:
        largest += 1
    return Trial(taken[wanted], room, 2 * wanted, 2 * largest)


def _expected(taken: dict[int, int], at_once: int) -> float:
    """Bytes with so many images at once, on the line through the first and the last that were tried."""
    first, last = min(taken), max(taken)
    each = max(taken[last] - taken[first], 0) / (last - first)
    return taken[last] + (at_once - last) * each


def _refusal(wanted: int, fitting: list[int], taken: dict[int, int], room: int, uncut: bool) -> str:
    needs = f" would take about {_expected(taken, wanted) / 2**30:.1f} GiB and" if len(taken) == 2 else ""
    text = f"A step with {2 * wanted} images at once{needs} does not fit into {room / 2**30:.1f} GiB. "
    if uncut:
        return text + "This method takes a batch whole: use a smaller --set batch=..., or --recompute."
    if not fitting:
        return text + "Nor do fewer at once: use a smaller --set crop=..., or --recompute."
    return text + (
        f"Use --micro-batch {fitting[-1]}: the same batch, losses and thresholds, in parts; or --recompute, which "
        "takes a third more time and changes no number."
    )


@contextmanager
def _preserved(learner: Learner) -> Iterator[None]:
    """Undo all that happens to a learner meanwhile."""
    state = _on_cpu(learner.state_dict())
    try:
        yield
    finally:
        learner.load_state_dict(state)
        learner.zero_grad()
        reset(learner.device)


def _on_cpu(value: Any) -> Any:
    """A copy that takes nothing of the memory that is measured on a GPU."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return type(value)((key, _on_cpu(each)) for key, each in value.items())
    if isinstance(value, list):
        return [_on_cpu(each) for each in value]
    return copy.copy(value)
