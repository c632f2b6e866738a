"""Imports that bring torch: without a search for garbage among the million objects of its modules."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def heavy_imports() -> Iterator[None]:
    """Import in the block what loads torch.

    While modules load there is next to no garbage, and what they hold lives as long as the process. So it is not
    searched meanwhile, nor ever again: not in training, nor when Python ends, which alone takes half a second or more.
    Where torch was loaded before, nothing is done: what else has come to be since may well become garbage.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
