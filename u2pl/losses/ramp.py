"""How the weight of a loss rises at the beginning of a run."""

from math import exp


def sigmoid_ramp(index: int, steps: float) -> float:
    """exp(-5 (1 - min(t, R) / R)^2): from e^-5 at the first step to 1 from step R on.

    Args:
        index: of the step, t.
        steps: R; 0: 1 from the start.
    """
    if not steps:
        return 1.0
    return exp(-5 * (1 - min(index, steps) / steps) ** 2)
