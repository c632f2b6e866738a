"""Entry point: `u2pl` and `python -m u2pl_cli`."""

import sys

from .app import run


def main() -> None:
    """Run the command line and exit with its status."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
