"""Entry point: `u2pl` and `python -m u2pl_cli`."""

import os
import sys
import traceback

from u2pl.addresses import hidden

from .app import run
from .terminal import say


def main() -> None:
    """Run the command line and exit with its status."""
    try:
        status = run(sys.argv[1:])
    except Exception:
        # What --debug asks for, as Python would show it, but for secrets and control characters.
        say(hidden(traceback.format_exc().rstrip()), err=True)
        status = 1
    if status and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        # One of several that train together: an orderly end would wait for the others, who may wait for this one.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


if __name__ == "__main__":
    main()
