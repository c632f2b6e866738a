"""Entry point: `u2pl` and `python -m u2pl_cli`."""

import os
import sys
import traceback
from types import TracebackType

from u2pl.addresses import hidden

from .app import run
from .terminal import say


def _tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Show a traceback, as Python would, but for secrets and control characters in it."""
    say(hidden("".join(traceback.format_exception(kind, error, trace))).rstrip(), err=True)


def main() -> None:
    """Run the command line and exit with its status."""
    sys.excepthook = _tell
    status = run(sys.argv[1:])
    if status and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        # One of several that train together: an orderly end would wait for the others, who may wait for this one.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


if __name__ == "__main__":
    main()
