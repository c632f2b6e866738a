"""Starts the processes of one run with torchrun's agent, and tells how they ended."""

import logging
import os
import shutil
import signal
import sys
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import filelock
import psutil
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from u2pl.errors import EndedElsewhere, Interrupted, UserError
from u2pl.files import is_held

_SHUTDOWN_SECONDS = 60
"""Longest wait for processes that were told to stop, before they are killed."""
_LOGS, _LOCK = "u2pl-logs-", "u2pl.lock"
_SHOWN = 20
"""Lines of a dead process's last words that are shown."""


def launch(arguments: Sequence[str], processes: int) -> int:
    """Run `u2pl` with these arguments in several processes of this machine; what they print is the first one's.

    Of that the results are left out, which whoever started the processes finds in the run's folder.

    Returns:
        0, or 130 where they were told to stop and have saved their state.

    Raises:
        UserError: one died; the message has its own last words.
    """
    # The agent's own notes would stand before the error that a user needs.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (psutil.cpu_count() or 1) // processes)))
    # Of parameters that find_unused_parameters looks for in vain after the warm start.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    _sweep()
    logs = Path(tempfile.mkdtemp(prefix=_LOGS))
    lock = filelock.FileLock(logs / _LOCK)
    lock.acquire()
    # Time for a checkpoint; and who logs out wants a run to go on. Older versions of torch have neither.
    wishes: dict[str, Any] = {"shutdown_timeout": _SHUTDOWN_SECONDS, "signals_to_handle": "SIGTERM,SIGINT"}
    known = {name: value for name, value in wishes.items() if name in LaunchConfig.__dataclass_fields__}
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",  # any free port
        max_restarts=0,
        monitor_interval=0.2,
        **known,
        logs_specs=DefaultLogsSpecs(
            log_dir=str(logs),
            redirects={0: Std.OUT, **{rank: Std.ALL for rank in range(1, processes)}},
            tee=Std.NONE,
        ),
    )
    try:
        elastic_launch(config, sys.executable)("-m", "u2pl_cli", *arguments)
    except SignalException as signalled:
        return 130 if signalled.sigval in (signal.SIGTERM, signal.SIGINT) else 1
    except ChildFailedError as failed:
        silent = EndedElsewhere().exit_code
        dead = {rank: f for rank, f in failed.failures.items() if f.exitcode != silent}
        if not dead:
            raise UserError("The processes ended, and none said why. Start the same command again.") from None
        rank = min(dead, key=lambda rank: dead[rank].timestamp)
        code = dead[rank].exitcode
        said = "".join(path.read_text(errors="replace") for path in logs.glob(f"**/{rank}/stderr.log"))
        if code == Interrupted.exit_code or (rank == 0 and code > 0):
            return code  # it has said why itself
        raise UserError(_obituary(rank, processes, code, said)) from None
    finally:
        lock.release()
        shutil.rmtree(logs, ignore_errors=True)
    return 0


def _sweep() -> None:
    """Delete what launchers that were killed left: of a living one the lock is held."""
    for logs in Path(tempfile.gettempdir()).glob(f"{_LOGS}*"):
        if (logs / _LOCK).is_file() and not is_held(logs / _LOCK):
            shutil.rmtree(logs, ignore_errors=True)


def _obituary(rank: int, processes: int, code: int, said: str) -> str:
    who = f"Process {rank + 1} of {processes}"
    if code < 0:
        name = signal.Signals(-code).name
        return (
            f"{who} was ended by {name}, and the others with it. If it was for memory, use a smaller --micro-batch. "
            "Start the same command again to go on from the last checkpoint."
        )
    last = "\n".join(said.strip().splitlines()[-_SHOWN:]).removeprefix("Error: ")
    return f"{who} failed, and the others ended with it. It said:\n{last or '(nothing)'}"
