"""Errors a user can cause: one readable sentence that ends with what to do next."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """Something the user can mend; `cli/` prints it without a traceback and exits with `exit_code`."""

    exit_code = 1


class UsageError(UserError):
    """The words of the command are wrong (an unknown name, a value out of range)."""

    exit_code = 2


class Busy(UserError):
    """Another process is at work on the same thing; what `u2pl plan run` waits for instead of giving up.

    75 is what sendmail and others give for a failure that passes.
    """

    exit_code = 75


class Interrupted(UserError):
    """Training was asked to stop and has saved its state. 130 is what a shell gives for Ctrl-C."""

    exit_code = 130


class EndedElsewhere(UserError):
    """Another process of the same run has ended, and tells why; there is nothing to say here."""

    def __init__(self, exit_code: int = 3):
        super().__init__()
        self.exit_code = exit_code


def unknown(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """The error for a name that is not among `known`, with the nearest one suggested."""
    names = sorted(known)
    near = get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return UsageError(f"No {kind} called {name!r}.{hint} Known: {', '.join(names)}.")
