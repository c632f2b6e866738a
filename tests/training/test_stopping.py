import signal
import time

import pytest

from u2pl import interrupts
from u2pl.errors import Interrupted
from u2pl.training.stopping import stop_signals


def test_a_signal_swallowed_before_training_began_still_ends_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(interrupts, "_received", [])
    with pytest.raises(KeyboardInterrupt):  # which the import system's callbacks swallow
        interrupts.interrupt(signal.SIGTERM, None)
    began = False
    with pytest.raises(Interrupted, match="nothing is lost"), stop_signals():
        began = True
    assert not began
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_without_one_training_begins_and_its_own_signals_become_an_answer(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(interrupts, "_received", [])
    with stop_signals() as stopped:
        assert not stopped()
        signal.raise_signal(signal.SIGTERM)
        time.sleep(0)  # handlers run between two instructions
        assert stopped()
