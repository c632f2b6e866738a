"""Entry point: `u2pl` and `python -m u2pl_cli`."""

import os
import sys

from .app import run


def main() -> None:
    """Run the command line and exit with its status."""
    status = run(sys.argv[1:])
    if status and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        # One of several that train together: an orderly end would wait for the others, who may wait for this one.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


if __name__ == "__main__":
    main()
