"""What the methods load when they are imported: libraries that few of them need are left for those."""

import subprocess
import sys


def test_training_loads_no_library_that_few_methods_need():
    script = (
        "import sys, u2pl.training.trainer; "
        "print([n for n in ('scipy', 'sklearn', 'pandas', 'matplotlib', 'mlflow', 'timm') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
