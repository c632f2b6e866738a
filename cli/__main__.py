"""Entry point: `u2pl` and `python -m u2pl_cli`."""

import os
import signal
import sys
import traceback

from u2pl.tracking.addresses import hidden

from .terminal import say


def main() -> None:
    """Run the command line and exit with its status."""
    try:
        from . import app  # takes a moment, in which somebody may think better of it

        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not in the background of a script
            signal.signal(signal.SIGINT, app.interrupt)
        if sys.argv[1:2] in (["train"], ["ablate"]):
            # Until training itself looks after it, the end that a scheduler asks for is that which Ctrl-C asks for.
            signal.signal(signal.SIGTERM, app.interrupt)
        status = app.run(sys.argv[1:])
    except KeyboardInterrupt:
        say("Stopped. Start the same command again to go on.", err=True)
        status = 130
    except Exception:
        # What --debug asks for, as Python would show it, but for secrets and control characters.
        say(hidden(traceback.format_exc().rstrip()), err=True)
        status = 1
    distributed = sys.modules.get("u2pl.training.distributed")  # loads torch; what did not need it is alone
    waits = distributed is not None and distributed.ends_hard()
    # After a signal Python may end with a status of its own.
    if status and (waits or status == 130):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


if __name__ == "__main__":
    main()
