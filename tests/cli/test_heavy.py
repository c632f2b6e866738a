"""What heavy imports leave behind: garbage is looked for as before, but not among what they brought."""

import subprocess
import sys

import pytest

SCRIPT = """
import gc, sys
from u2pl_cli.heavy import heavy_imports
{before}
try:
    with heavy_imports():
        print(gc.isenabled())
        sys.modules.setdefault("torch", sys)
        {inside}
except ImportError:
    pass
print(gc.isenabled(), gc.get_freeze_count() > 0)
"""


@pytest.mark.parametrize(
    ("before", "inside", "said"),
    [
        ("", "", "False\nTrue True\n"),
        ("", "raise ImportError", "False\nTrue True\n"),
        ("sys.modules['torch'] = sys", "", "True\nTrue False\n"),
        ("gc.disable()", "", "False\nFalse False\n"),
    ],
    ids=["first", "failed", "loaded before", "switched off by somebody"],
)
def test_garbage_is_looked_for_again_after_the_imports_but_not_among_them(
    before: str, inside: str, said: str
):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(before=before, inside=inside)], capture_output=True, text=True
    )
    assert done.stdout == said, done.stderr
