import math

import pytest

from u2pl.losses.ramp import sigmoid_ramp


def test_it_rises_from_e_to_the_minus_five_to_one():
    assert sigmoid_ramp(0, 100) == pytest.approx(math.exp(-5))
    assert sigmoid_ramp(50, 100) == pytest.approx(math.exp(-1.25))
    values = [sigmoid_ramp(t, 40) for t in range(60)]
    assert values == sorted(values) and values[39] < 1
    assert set(values[40:]) == {1.0}


def test_without_steps_to_rise_in_it_is_there_at_once():
    assert sigmoid_ramp(0, 0) == 1
    assert sigmoid_ramp(0, 0.5) == pytest.approx(math.exp(-5))
