"""Joins the processes that torchrun, or `u2pl train --nproc`, has started for one run."""

import gc
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

from u2pl import processes
from u2pl.errors import EndedElsewhere, UserError

T = TypeVar("T")

_TIMEOUT = timedelta(minutes=60)
"""Longest wait for the others: while one validates or saves, they wait."""
_GRACE_SECONDS = 10
"""Time that the launcher has to end this process after another one died."""


def started() -> bool:
    """Whether this process is one of several for one run (torchrun's variables say so)."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_first() -> bool:
    """Whether this process is the one that writes and speaks."""
    return os.environ.get("RANK", "0") == "0"


def local_device() -> torch.device:
    """The GPU of this process, or the CPU where there is none."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    index = int(os.environ.get("LOCAL_RANK", "0"))
    if index >= torch.cuda.device_count():
        raise UserError(
            f"Process {index + 1} of this machine has no GPU: there are {torch.cuda.device_count()}. "
            f"Start at most as many: --nproc {torch.cuda.device_count()}"
        )
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


@contextmanager
def joined(stopped: Callable[[], bool]) -> Iterator[None]:
    """Meet the other processes, and part from them in the end; nothing where there is but one.

    Networks that were wrapped for several processes must be out of reach by the end of the block.

    Args:
        stopped: whether this process was told to end.
    """
    if not started():
        yield
        return
    # What is said on the host (who stops, who is done) goes another way than what is said on the device.
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, timeout=_TIMEOUT)
    # Parted from only in peace: after an error that would wait for processes that wait for this one.
    try:
        yield
        # Wrapped networks hold the group too. The last to let go waits for gloo's thread, and that may wait for
        # Python's lock: torch lets go of the lock when it destroys the group, a wrapped network does not.
        gc.collect()
        dist.destroy_process_group()
    except UserError:
        raise
    except Exception:
        # Another process may have died, and its error is the one to read: let the launcher end this one first.
        deadline = time.monotonic() + _GRACE_SECONDS
        while time.monotonic() < deadline:
            if stopped():
                raise EndedElsewhere from None
            time.sleep(0.1)
        raise


def first_alone(work: Callable[[], T]) -> T | None:
    """Let the first process do something for all; the others wait, and get None.

    Raises:
        EndedElsewhere: in the others, where it failed in the first.
    """
    if processes.size() == 1:
        return work()
    if processes.rank():
        if int(processes.total(torch.zeros(1, dtype=torch.int64))):
            raise EndedElsewhere
        return None
    try:
        result = work()
    except BaseException:
        processes.total(torch.ones(1, dtype=torch.int64))
        raise
    processes.total(torch.zeros(1, dtype=torch.int64))
    return result


def any_of(*values: bool) -> list[bool]:
    """Which of them are true in any process."""
    return [bool(count) for count in processes.total(torch.tensor(values, dtype=torch.int64)).tolist()]
