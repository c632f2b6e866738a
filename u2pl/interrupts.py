"""A signal that asks a command to end before its work can heed it.

Python raises KeyboardInterrupt wherever it is just then. In a callback of the import system that is swallowed, with a
line on stderr; so the signal is noted too, and work asks for it when it begins.
"""

from types import FrameType

_received: list[int] = []


def interrupt(number: int, frame: FrameType | None) -> None:
    """End a command at a signal, as Ctrl-C does: a handler of signals.

    Raises:
        KeyboardInterrupt: always.
    """
    _received.append(number)
    raise KeyboardInterrupt


def came() -> bool:
    """Whether there was such a signal."""
    return bool(_received)
