"""How the weight of a loss rises at the beginning of training (Laine and Aila, 2017)."""

import math


def sigmoid_ramp(index: int, steps: float) -> float:
    """exp(-5 (1 - t/T)^2), from e^-5 in the first step to 1 from step T on.

    Args:
        index: t, steps taken.
        steps: T; 1 at once where it is 0.
    """
    return math.exp(-5 * (1 - min(index, steps) / steps) ** 2) if steps > 0 else 1.0
