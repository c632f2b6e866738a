"""The side process that mirrors one folder while its owner works: started, followed, ended."""

import argparse
import os
import select
import signal
import subprocess
import sys
import uuid
from datetime import datetime
from pathlib import Path

from u2pl.files import write_json
from u2pl.project import Project, safe_name
from u2pl.tracking import models
from u2pl.tracking.addresses import HidingStream
from u2pl.tracking.machine_load import Sampler
from u2pl.tracking.mirror import Store, reason
from u2pl.tracking.store import artifacts_of, database_of, default_uri, enabled, installed, unusable

POLL_SECONDS, LONGEST_PAUSE_SECONDS = 5.0, 300.0
LAST_MIRROR_SECONDS = 60
"""After which a side process whose run is over gives up, so that a dead store leaves no process behind."""


class Sidecar:
    """A process that mirrors one folder while its owner works; with U2PL_TRACKING=none, nothing at all.

    Neither `start` nor `close` raises, whatever the store does.
    """

    def __init__(self, folder: Path, process: subprocess.Popen[bytes] | None, problem: str | None = None):
        self._folder = folder
        self._process = process
        self._problem = problem

    @classmethod
    def start(cls, project: Project, folder: Path) -> "Sidecar":
        """Start mirroring `runs/NAME` or `runs/.ablations/NAME`; its run.json or ablation.json must exist.

        It goes on until `close`, or until this process dies.
        """
        if not enabled():
            return cls(folder, None)
        if not installed():
            return cls(
                folder,
                None,
                f"{folder.name} is not tracked, since MLflow is not installed (U2PL_TRACKING=none says that this "
                "is meant); to track it nevertheless: pip install mlflow && u2pl track sync",
            )
        if problem := unusable(default_uri(project), artifacts_of(project)):
            return cls(
                folder, None, f"{folder.name} is not tracked: {problem}. Mend that, then run: u2pl track sync"
            )
        try:
            with (folder / "tracking.log").open("ab") as log:
                process = subprocess.Popen(
                    _command(project, folder, os.getpid(), POLL_SECONDS, 0, LAST_MIRROR_SECONDS),
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                )
        except OSError as error:
            return cls(folder, None, f"Tracking did not start ({error}); run: u2pl track sync")
        return cls(folder, process)

    def close(self, timeout: float = 30) -> str | None:
        """Let the process mirror a last time and end.

        Everything about the run must be written before, since what it finds then decides the run's status.

        Args:
            timeout: seconds after which it is killed.

        Returns:
            A sentence to show where the store is behind the folder, else None.
        """
        process, self._process = self._process, None
        if process is None:
            return self._problem
        late = ""
        try:
            process.communicate(b"end", timeout)
        except subprocess.TimeoutExpired:
            late = f"the store did not answer within {timeout:g} seconds; "
            process.kill()
            process.wait()
        except OSError:
            process.wait()
        if process.returncode == 0:
            return None
        log = self._folder / "tracking.log"
        return f"Tracking is behind for {self._folder.name} ({late}see {log}); run: u2pl track sync"

    def leave(self) -> str | None:
        """As `close`, without waiting: what then goes wrong stands in tracking.log, and `sync` makes up for it."""
        process, self._process = self._process, None
        if process is None:
            return self._problem
        assert process.stdin is not None
        process.stdin.close()
        return None


def sync_ablation(project: Project, name: str, *, wait: bool = True) -> str | None:
    """Mirror a finished ablation from a process of its own; what to show where that failed, else None.

    Args:
        project: in which the ablation was recorded; where it was not, there is nothing to do.
        name: of the ablation.
        wait: False leaves the process to itself, which takes seconds, up to a minute where the store is slow.
    """
    folder = project.runs / ".ablations" / name
    if not (folder / "ablation.json").is_file():
        return None
    sidecar = Sidecar.start(project, folder)
    return sidecar.close() if wait else sidecar.leave()


def sync_report(project: Project, page: Path) -> str | None:
    """Mirror the page of a report from a process that nobody waits for; what to show where that failed, else None.

    Args:
        project: that the page is of.
        page: its path; where it lies outside the project, there is nothing to do.
    """
    if not enabled() or not installed() or not page.resolve().is_relative_to(project.root.resolve()):
        return None
    name = project.relative(page)
    folder = project.runs / ".reports" / safe_name(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "report.json").exists():
            write_json(folder / "report.json", {"page": name, "uid": uuid.uuid4().hex})
    except OSError as error:
        return f"{name} is not tracked: {folder} cannot be written ({error.strerror})"
    return Sidecar.start(project, folder).leave()


def _command(project: Project, folder: Path, owner: int, poll: float, pause: float, last: float) -> list[str]:
    """The words that start a side process; see `follow`."""
    words = [str(folder), "--project", str(project.root), "--owner", str(owner)]
    words += ["--poll", str(poll), "--pause", str(pause), "--last", str(last)]
    return [sys.executable, "-m", "u2pl.tracking.sidecar", *words]


def follow(
    project: Project,
    folder: Path,
    owner: int,
    poll: float,
    pause: float,
    last: float = LAST_MIRROR_SECONDS,
) -> int:
    """Mirror `folder` until standard input says that its owner has ended; 0 if the store is then up to date.

    An error of the store is printed, and tried again after a pause that grows.

    Args:
        project: in which the folder lies.
        folder: a run's, an ablation's or a report's.
        owner: process whose use of the machine is sampled, where it trains a run.
        poll: seconds between two looks at the folder.
        pause: seconds before the first one.
        last: seconds for the last look, after the owner's end.
    """
    made = (folder / name for name in ("ablation.json", "report.json"))
    source = next((path for path in made if path.exists()), folder / "events.jsonl")
    sampler = Sampler(folder, owner) if source.suffix == ".jsonl" else None
    if sampler:
        sampler.start()
    store: Store | None = None
    seen: os.stat_result | None = None
    while True:
        # Readable means a word from the owner, or the end of the pipe because it died.
        over = bool(select.select([sys.stdin], [], [], pause)[0])
        if over:
            signal.setitimer(signal.ITIMER_REAL, last)
            if sampler:
                sampler.stop()  # or the store would lack what comes after the last look
        stamp = source.stat() if source.exists() else None
        behind = over or store is None or stamp != seen
        if behind:
            try:
                store = store or Store(project)
                store.mirror_folder(folder, running=not over)
                seen, behind = stamp, False
            except Exception as error:
                message = reason(error, default_uri(project))
                print(f"{datetime.now().isoformat(timespec='seconds')} {message}", flush=True)
                store = None
        pause = min(max(pause, poll) * 2, LONGEST_PAUSE_SECONDS) if behind else poll
        if over:
            if sampler and not behind and models.due(folder):
                models.log_in_background(project, folder)
            return int(behind)
        if behind and database_of(default_uri(project)):
            # MLflow holds a database that it has opened until its process ends. Where the file has been deleted
            # or replaced, only a new process sees what lies there now.
            os.execv(sys.executable, _command(project, folder, owner, poll, pause, last))


def _main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m u2pl.tracking.sidecar", description="Mirror one folder until stdin ends."
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--project", type=Path, required=True)
    parser.add_argument("--owner", type=int, required=True)
    parser.add_argument("--poll", type=float, required=True)
    parser.add_argument("--pause", type=float, required=True)
    parser.add_argument("--last", type=float, required=True)
    arguments = parser.parse_args()
    project = Project(arguments.project)
    # All that MLflow, the libraries below it and Python itself say goes to tracking.log.
    sys.stdout, sys.stderr = (HidingStream(each, default_uri(project)) for each in (sys.stdout, sys.stderr))
    os.setpriority(os.PRIO_PROCESS, 0, 10)
    # Ctrl-C and a supervisor's signal reach the whole process group; the owner saves its state, then calls
    # `close`, and only then is there something final to mirror.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        return follow(
            project, arguments.folder, arguments.owner, arguments.poll, arguments.pause, arguments.last
        )
    finally:
        sys.stdout.close()
        sys.stderr.close()


if __name__ == "__main__":
    # Taking MLflow's modules down in order takes most of a second, for which the owner would wait.
    os._exit(_main())
