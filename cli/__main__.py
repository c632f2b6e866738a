"""Entry point: `u2pl` and `python -m u2pl_cli`."""

import os
import signal
import sys


def main() -> None:
    """Run the command line and exit with its status."""
    try:
        status = _run()
    except KeyboardInterrupt:
        # In the middle of an import, perhaps of what the suite's own words are printed with.
        sys.stderr.write("Stopped. Start the same command again to go on.\n")
        status = 130
    distributed = sys.modules.get("u2pl.training.distributed")  # loads torch; what did not need it is alone
    waits = distributed is not None and distributed.ends_hard()
    # After a signal Python may end with a status of its own.
    if status and (waits or status == 130):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def _run() -> int:
    """Run the command line and return its status. What is imported here takes a moment: one may think better of it."""
    from u2pl import interrupts

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not in the background of a script
        signal.signal(signal.SIGINT, interrupts.interrupt)
    if sys.argv[1:2] in (["train"], ["ablate"]):
        # Until training itself looks after it, the end that a scheduler asks for is that which Ctrl-C asks for.
        signal.signal(signal.SIGTERM, interrupts.interrupt)
    try:
        from . import app

        return app.run(sys.argv[1:])
    except Exception:
        if interrupts.came() and "--debug" not in sys.argv:  # an import has made something else of it
            raise KeyboardInterrupt from None
        import traceback

        from u2pl.tracking.addresses import hidden

        from .terminal import say

        # What --debug asks for, as Python would show it, but for secrets and control characters.
        say(hidden(traceback.format_exc().rstrip()), err=True)
        return 1


if __name__ == "__main__":
    main()
