"""Errors a user can cause: one readable sentence that ends with what to do next."""

import errno
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches


class UserError(Exception):
    """Something the user can mend; `cli/` prints it without a traceback and exits with `exit_code`."""

    exit_code = 1


class UsageError(UserError):
    """The words of the command are wrong (an unknown name, a value out of range)."""

    exit_code = 2


class Interrupted(UserError):
    """Training was asked to stop and has saved its state. 130 is what a shell gives for Ctrl-C."""

    exit_code = 130


class EndedElsewhere(UserError):
    """Another process of the same run has ended, and tells why; there is nothing to say here."""

    def __init__(self, exit_code: int = 3):
        super().__init__()
        self.exit_code = exit_code


_OUT_OF_MEMORY = re.compile(
    "out of memory|not enough memory|can't allocate memory|Cannot allocate memory|CUBLAS_STATUS_ALLOC_FAILED"
    "|Unable to allocate"
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on whatever device, whoever says so: Python, numpy, the system or torch."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and bool(_OUT_OF_MEMORY.search(str(error)))


@contextmanager
def enough_memory(advice: str) -> Iterator[None]:
    """Say in a sentence where memory runs out.

    Args:
        advice: a sentence that says what to lower.

    Raises:
        UserError: it ran out.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(f"There is not enough memory ({_wanted(error)}). {advice}") from None


def _wanted(error: BaseException) -> str:
    """What could not be had, if the error says so."""
    found = re.search(r"[Tt]ried to allocate [\d.,]+ ?\w+|Unable to allocate [\d.,]+ ?\w+", str(error))
    return found[0][0].lower() + found[0][1:] if found else type(error).__name__


def reason(error: BaseException) -> str:
    """What went wrong, for the middle of a sentence: the first line of an error's text, or what kind it is."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def check_known(kind: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Check that all names are among `known`.

    Raises:
        UsageError: one is not.
    """
    known = list(known)
    for name in names:
        if name not in known:
            raise unknown(kind, name, known)


def unknown(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """The error for a name that is not among `known`, with the nearest one suggested."""
    names = sorted(known)
    near = get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return UsageError(f"No {kind} called {name!r}.{hint} Known: {', '.join(names)}.")
