"""`u2pl` in a process of its own that is forked from one which has imported torch, MLflow and the rest before.

What starts thus has its own memory, folder, environment, streams, signals and exit status, as when a shell starts it;
only the interpreter's start and the imports, seconds of processor time, are done once for all tests. That `u2pl` and
`python -m u2pl_cli` start from nothing is what tests/cli/test_cli.py, test_app.py and e2e show.
"""

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

Completed = subprocess.CompletedProcess[str]
Stream = str | Connection
"""A file, or what is open already; as a connection multiprocessing hands it over."""

_PRELOAD = [
    "torch",
    "torch._dynamo",
    "torch.distributed",
    "torch.utils.data",
    "numpy",
    "scipy.ndimage",
    "PIL.Image",
    "pandas",
    "matplotlib.figure",
    "pydantic",
    "yaml",
    "typer",
    "rich.table",
    "rich.progress",
    "jinja2",
    "filelock",
    "psutil",
    "mlflow.tracking",
    "mlflow.store.tracking.sqlalchemy_store",
]
"""Of others alone: what a command forgets to import of u2pl is to be missing here too."""
# Or Arrow, which comes with pandas, would start a thread in the process that is forked.
os.environ.setdefault("JE_ARROW_MALLOC_CONF", "background_thread:false")

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(_PRELOAD)


def _main(words: tuple[str, ...], cwd: str, environment: dict[str, str], streams: tuple[Stream, ...]) -> None:
    """In the new process: become `python -m u2pl_cli WORDS`."""
    for number, to in zip((1, 2), streams, strict=True):
        os.dup2(os.open(to, os.O_WRONLY | os.O_APPEND) if isinstance(to, str) else to.fileno(), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdin, sys.stdout, sys.stderr = (
        os.fdopen(number, mode, encoding="utf-8", errors=errors, closefd=False)
        for number, mode, errors in ((0, "r", "strict"), (1, "w", "strict"), (2, "w", "backslashreplace"))
    )
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    # What is forked is told to be a child of multiprocessing; a command knows nothing of that.
    multiprocessing.process._parent_process = None  # type: ignore[attr-defined]
    multiprocessing.process.current_process()._config["daemon"] = False
    sys.argv = ["u2pl", *words]
    from u2pl_cli.__main__ import main

    main()


def start(
    words: Sequence[str], cwd: Path, environment: Mapping[str, str], streams: Sequence[str | int]
) -> BaseProcess:
    """The command, started.

    Args:
        streams: files, or descriptors of what is open here, to which standard output and standard error go.
    """
    given = tuple(to if isinstance(to, str) else Connection(os.dup(to), readable=False) for to in streams)
    process = _context.Process(target=_main, args=(tuple(words), str(cwd), dict(environment), given))
    process.start()
    return process


def run(*words: str, cwd: Path, environment: Mapping[str, str], timeout: float = 120) -> Completed:
    """The command and what it said.

    Raises:
        subprocess.TimeoutExpired: it had to be killed.
    """
    with tempfile.TemporaryDirectory() as folder:
        streams = tuple(str(Path(folder) / name) for name in ("stdout", "stderr"))
        for stream in streams:
            Path(stream).touch()
        process = start(words, cwd, environment, streams)
        process.join(timeout)
        if process.is_alive():
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(words, timeout)
        said = [Path(stream).read_text(encoding="utf-8", errors="replace") for stream in streams]
        code = process.exitcode
        assert code is not None
        return subprocess.CompletedProcess(words, code, *said)


def runner(cwd: Path) -> Callable[..., Completed]:
    """Runs `u2pl`: run("train", "--seed", "1", cwd=folder, NAME="value")."""

    def u2pl(*words: str, cwd: Path = cwd, **environment: str) -> Completed:
        return run(*words, cwd=cwd, environment={**os.environ, "U2PL_TRACKING": "none", **environment})

    return u2pl
