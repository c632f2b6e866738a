"""Folders of runs that nobody trained: their small files, and weights that are none."""

import json
from pathlib import Path
from typing import Any

import written

from u2pl.files import sha256, write_csv, write_json
from u2pl.project import Project
from u2pl.runs import stored_evaluation
from u2pl.runs.folder import RunFolder
from u2pl.settings import RunSpec


def write_run(
    project: Project,
    name: str,
    miou: float | None = None,
    *,
    iou: dict[str, float | None] | None = None,
    curve: tuple[float, ...] = (),
    failed: str = "",
    **changes: Any,
) -> Path:
    """A folder of the project's runs/.

    Args:
        project: whose.
        name: of the run.
        miou: of a finished run, percent; None: it was interrupted.
        iou: class -> percent.
        curve: mIoU after each epoch.
        failed: why it failed.
        changes: of run.json.
    """
    folder = project.runs / name
    run = written.run(name, **{"fingerprint": sha256(name)[:16], **changes})
    write_json(folder / "run.json", run)
    write_csv(
        folder / "history.csv",
        [
            ("epoch", "step", "val/miou", "memory/peak_gib"),
            *((k, 9 * k, v, 0.5) for k, v in enumerate(curve)),
        ],
    )
    ends = "end" if miou is not None else "failed" if failed else "interrupted"
    events: list[dict[str, Any]] = [
        {"time": 1_700_000_000_000, "event": "start", "step": 0, "epoch": 0, "metrics": {"steps": 18}},
        {"time": 1_700_000_060_000, "event": ends, "step": 6, "epoch": 1, "metrics": {}},
    ]
    if failed:
        events[-1]["message"] = failed
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    if miou is None:
        (folder / "last.pt").write_bytes(bytes(3000))
    else:
        scores = iou or {"ground": miou + 5, "square": miou - 5}
        write_json(folder / "metrics.json", written.metrics(run, miou, iou=scores))
        (folder / "weights.pt").write_bytes(bytes(1000))
    return folder


def finish(project: Project, spec: RunSpec, miou: float) -> None:
    """A run as its training and its evaluation leave it, but for weights that could be read."""
    from u2pl.training import trainer  # brings torch, which most who want folders do without

    _, _, description = trainer.describe(project, spec)
    folder = RunFolder.claim(project, description["name"], {**description, "parent": None}, fresh=True)
    folder.release()
    (folder.path / "weights.pt").touch()
    result = written.metrics(description, miou)
    write_json(folder.path / "metrics.json", result)
    write_json(stored_evaluation.own_folder(folder.path) / "metrics.json", result)
    stored_evaluation.write_stamp(project, folder.path)
