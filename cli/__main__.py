"""Entry point: `u2pl` and `python -m u2pl_cli`."""

import os
import sys
import traceback

from u2pl.addresses import hidden

from .terminal import say


def main() -> None:
    """Run the command line and exit with its status."""
    try:
        from .app import run  # takes a moment, in which somebody may think better of it

        status = run(sys.argv[1:])
    except KeyboardInterrupt:
        say("Stopped. Start the same command again to go on.", err=True)
        status = 130
    except Exception:
        # What --debug asks for, as Python would show it, but for secrets and control characters.
        say(hidden(traceback.format_exc().rstrip()), err=True)
        status = 1
    distributed = sys.modules.get("u2pl.engine.distributed")  # loads torch; what did not need it is alone
    if status and distributed is not None and distributed.ends_hard():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


if __name__ == "__main__":
    main()
