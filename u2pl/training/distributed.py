"""Joins the processes that torchrun, or `u2pl train --nproc`, has started for one run."""

import gc
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

from u2pl import processes
from u2pl.errors import EndedElsewhere, UserError
from u2pl.settings import device
from u2pl.training.place import WAY_ON, Place, number, place

T = TypeVar("T")

_TIMEOUT = timedelta(minutes=60)
"""Longest wait for the others: while one validates or saves, they wait."""
_GRACE_SECONDS = 10
"""Time that the launcher has to end this process after another one died."""
_LISTED = 8
"""Processes that a sentence names."""


_QUIET_SECONDS, _PATIENCE_SECONDS = 5, 60
"""How long the others are waited for in the beginning before a word is said, and before this process gives up."""

_waiting = False
"""Whether a thread waits for the others, so that an orderly end of the process would wait too."""


def ends_hard() -> bool:
    """Whether an orderly end of this process would wait for others, who may wait for it."""
    return _waiting or dist.is_initialized()


def local_device() -> torch.device:
    """The GPU of this process, or the CPU where there is none, or that was chosen."""
    if not device.is_gpu():
        return torch.device("cpu")
    # LOCAL_RANK is left over where this process is the only one.
    index = (number("LOCAL_RANK") or 0) if processes.size() > 1 else (device.chosen_gpu() or 0)
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
    here = place()
    if here is None:
        yield
        return
    store = _meet(here)
    # What is said on the host (who stops, who is done) goes another way than what is said on the device.
    backend = "cpu:gloo,cuda:nccl" if device.is_gpu() else "gloo"
    dist.init_process_group(backend, store=store, rank=here.rank, world_size=here.size, timeout=_TIMEOUT)
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


def _meet(here: Place) -> dist.Store:
    """Wait until all processes of the run are there; Ctrl-C ends that at once.

    Raises:
        UserError: some did not come in time, or the place to meet at cannot be had.
    """
    global _waiting
    meeting = _Meeting(here)
    # In a thread of its own: torch waits in C++, where no signal reaches Python.
    thread = threading.Thread(target=meeting.run, daemon=True)
    _waiting = True
    thread.start()
    began, since = time.monotonic(), f"{datetime.now():%H:%M:%S}"
    told = False
    while thread.is_alive():
        thread.join(0.1)
        waited = time.monotonic() - began
        if waited > _PATIENCE_SECONDS:
            raise UserError(
                f"{here.words[0].upper()}{here.words[1:]} has waited for {meeting.missing} since {since}, in vain. "
                + WAY_ON
            )
        if waited > _QUIET_SECONDS and not told:
            told = True
            print(
                f"Waiting for {meeting.missing} since {since} (this is {here.words}). {WAY_ON}",
                file=sys.stderr,
                flush=True,
            )
    _waiting = False
    if meeting.store is None:
        raise UserError(
            f"{here.words[0].upper()}{here.words[1:]} cannot meet the others ({meeting.reason}). {WAY_ON}"
        )
    return meeting.store


class _Meeting:
    """Where the processes of a run find each other, and who is not there yet."""

    def __init__(self, here: Place):
        self.here = here
        self.missing = "the first process" if here.rank else "the other processes"
        self.store: dist.Store | None = None
        self.reason = ""

    def run(self) -> None:
        """Meet the others; afterwards there is a `store`, or a `reason`."""
        try:
            self.store = self._met()
        except Exception as error:  # of whatever kind torch gives it
            self.reason = " ".join(str(error).split("\n")[0].split()) or type(error).__name__

    def _met(self) -> dist.Store:
        here, patience = self.here, timedelta(seconds=2 * _PATIENCE_SECONDS)
        # Under torchrun its agent keeps what the processes tell each other, else the first of them does.
        hosts = here.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
        kept: dist.Store = dist.TCPStore(
            here.address, here.port, here.size, hosts, timeout=patience, wait_for_workers=False
        )
        store = dist.PrefixStore(f"u2pl/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", kept)
        store.set(f"here/{here.rank}", "")
        absent = [rank for rank in range(here.size) if rank != here.rank]
        while absent:
            absent = [rank for rank in absent if not store.check([f"here/{rank}"])]
            numbers = ", ".join(str(rank + 1) for rank in absent[:_LISTED])
            more = f" and {len(absent) - _LISTED} more" if len(absent) > _LISTED else ""
            self.missing = f"process {numbers}{more} of {here.size}"
            time.sleep(0.05)
        store.set_timeout(_TIMEOUT)
        return store


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
