"""What a user may choose about the machine: it changes speed and memory, and decides no number."""

from dataclasses import dataclass

from u2pl.errors import UsageError


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
        """Raise a UsageError for what cannot be had together."""
        if self.recompute and self.compiled:
            raise UsageError("--recompute and --compile do not go together. Leave one of them out.")

    def loaders(self, device: str) -> int:
        """How many processes read images."""
        if self.workers is not None:
            return self.workers
        return 0 if device == "cpu" else 4
