"""What a user may choose about the machine: it changes speed and memory, and decides no number."""

import math
from dataclasses import dataclass

from u2pl.errors import UsageError

_MOST_WORKERS = 256


@dataclass(frozen=True)
class Machine:
    """How the work is done."""

    recompute: bool = False
    """Compute activations again in the backward pass instead of keeping them."""
    compiled: bool = False
    """Let torch.compile fuse operations; numbers change by rounding."""
    workers: int | None = None
    """Processes that read images; None: 4 beside a GPU, none on a CPU, which has its hands full."""

    save_every: float | None = None
    """Seconds between two checkpoints; None: a minute, or more where a checkpoint takes long."""

    def __post_init__(self) -> None:
        """Raise a UsageError for what cannot be had together, or not at all."""
        if self.recompute and self.compiled:
            raise UsageError("--recompute and --compile do not go together. Leave one of them out.")
        if self.workers is not None and not 0 <= self.workers <= _MOST_WORKERS:
            raise UsageError(
                f"--workers is a number from 0 to {_MOST_WORKERS}, not {self.workers}. Example: --workers 4"
            )
        if self.save_every is not None and not 0 <= self.save_every < math.inf:
            raise UsageError(
                f"--save-every is a number of seconds, not {self.save_every}. Example: --save-every 60"
            )

    @property
    def arguments(self) -> list[str]:
        """The options of `u2pl train` that choose the same."""
        flags = {"--recompute": self.recompute, "--compile": self.compiled}
        numbers = {"--workers": self.workers, "--save-every": self.save_every}
        words = [option for option, is_set in flags.items() if is_set]
        return words + [f"{option}={number}" for option, number in numbers.items() if number is not None]

    def loaders(self, device: str) -> int:
        """How many processes read images."""
        if self.workers is not None:
            return self.workers
        return 0 if device == "cpu" else 4
