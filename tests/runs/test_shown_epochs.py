"""Files count epochs from 0, and people read them from 1."""

import written

from u2pl.runs.epochs import shown_epoch
from u2pl.runs.stored_evaluation import result_in_words


def test_the_first_epoch_is_the_first():
    assert [shown_epoch(counted) for counted in range(3)] == [1, 2, 3]


def test_the_best_epoch_is_said_as_people_count():
    metrics = written.metrics(written.run("a"))
    assert metrics["miou"]["best_epoch"] == 0
    assert "best 51.00 % in epoch 1)" in result_in_words(metrics)
    metrics["miou"]["best_epoch"] = 5
    assert "in epoch 6)" in result_in_words(metrics)
