"""How many stages of a plan run at a time, and which GPU each of them sees."""

import itertools
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from u2pl.errors import UsageError


@dataclass(frozen=True)
class Workers:
    """How many stages run at a time, and on which devices."""

    jobs: int
    gpus: Sequence[str] = ()
    """As CUDA_VISIBLE_DEVICES names them; the slots take them in turn. None: every stage sees every device."""

    @classmethod
    def of(cls, jobs: int | None, gpus: str | None) -> "Workers":
        """From the words of a user; several jobs share out the devices that are visible, if none are named.

        Raises:
            UsageError: `gpus` is no list of different devices.
        """
        names = [name.strip() for name in gpus.split(",")] if gpus is not None else []
        if not all(names) or len(set(names)) < len(names):
            raise UsageError(f"--gpus takes different devices, such as 0,1,2,3, not {gpus!r}.")
        if gpus is None and jobs is not None and jobs > 1:
            names = visible_gpus()
        return cls(jobs or len(names) or 1, names)

    @property
    def warning(self) -> str | None:
        """What to say where a device that could be used is not."""
        if self.jobs >= len(self.gpus):
            return None
        used, idle = ", ".join(self.gpus[: self.jobs]), ", ".join(self.gpus[self.jobs :])
        return (
            f"--jobs {self.jobs} uses GPU {used} only, and leaves {idle} idle; every stage has one. "
            f"To use all: u2pl plan run --gpus {','.join(self.gpus)}"
        )

    def environment(self, slot: int) -> dict[str, str]:
        """The environment of a stage in a slot."""
        values = dict(os.environ)
        if self.gpus:
            values["CUDA_VISIBLE_DEVICES"] = self.gpus[slot % len(self.gpus)]
        if self.jobs > 1:
            # As many threads in each process as there are cores would get in each other's way.
            values.setdefault("OMP_NUM_THREADS", str(max(1, cores() // self.jobs)))
        # Where `u2pl` is called by its path, the stages must find it all the same.
        own = str(Path(sys.executable).parent)
        values["PATH"] = os.pathsep.join([*filter(None, [values.get("PATH")]), own])
        return values


def visible_gpus() -> list[str]:
    """The GPUs that a process may use, as CUDA_VISIBLE_DEVICES names them, found without torch.

    None where nvidia-smi does not tell, or tells of GPUs that are cut into instances, which have to be named.
    """
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        # As CUDA reads it: what stands behind a device that cannot be is not used.
        names = [name.strip() for name in named.split(",")]
        return list(itertools.takewhile(lambda name: name and not name.startswith("-"), names))
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [] if "MIG" in listed.stdout else re.findall(r"^GPU (\d+):", listed.stdout, re.MULTILINE)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
