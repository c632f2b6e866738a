"""Which of the processes of one run this is, as torchrun's variables say. Knows no torch."""

import os
from dataclasses import dataclass

from u2pl.errors import UserError

WAY_ON = (
    "If several processes are wanted, start all of them with torchrun, or with --nproc on one machine; if not, unset "
    "RANK and WORLD_SIZE."
)
"""What to do where too few are there."""


@dataclass(frozen=True)
class Place:
    """Which of several processes this is, as torchrun's variables say."""

    rank: int
    size: int
    address: str
    port: int

    @property
    def words(self) -> str:
        """Who waits, and where."""
        return f"process {self.rank + 1} of {self.size}, at {self.address}:{self.port}"


def place() -> Place | None:
    """Where this process stands among those of its run, None where it is the only one.

    Raises:
        UserError: the variables contradict each other, or some are missing: they are left over from something else.
    """
    if not any(os.environ.get(name) for name in ("RANK", "WORLD_SIZE")):
        return None
    rank, size = number("RANK"), number("WORLD_SIZE")
    # Alone, and told so: by torchrun with one process, or by half of what other programs leave behind.
    if (rank or 0) == 0 and (1 if size is None else size) == 1:
        return None
    said = " and ".join(f"{n}={os.environ[n]}" for n in ("RANK", "WORLD_SIZE") if os.environ.get(n))
    if rank is None or size is None or not 0 <= rank < size:
        raise UserError(f"The environment has {said}, which is no place among several processes. {WAY_ON}")
    address, port = os.environ.get("MASTER_ADDR"), number("MASTER_PORT")
    if not address or port is None or not 0 < port < 2**16:
        raise UserError(
            f"The environment has {said}, but no MASTER_ADDR and MASTER_PORT to meet the others at. {WAY_ON}"
        )
    return Place(rank, size, address, port)


def number(name: str) -> int | None:
    """A variable's whole number, None where it is not set, or empty."""
    text = os.environ.get(name, "").strip()
    try:
        return int(text) if text else None
    except ValueError:
        raise UserError(f"The environment has {name}={text}, which is no number. {WAY_ON}") from None


def started() -> bool:
    """Whether this process is one of several for one run (torchrun's variables say so)."""
    return place() is not None


def is_first() -> bool:
    """Whether this process is the one that writes and speaks."""
    here = place()
    return here is None or here.rank == 0
