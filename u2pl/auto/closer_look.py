"""What is said of the chosen network beyond its number: how far to believe it, and what to label next."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from u2pl.auto.session import Session
from u2pl.data.description import Progress
from u2pl.errors import UserError
from u2pl.files import read_json, write_json
from u2pl.labeling.suggestion import Suggestion, suggest
from u2pl.trust.findings import Trust
from u2pl.trust.report import examine

SUGGESTED = 20
"""Pictures to label next."""
NAMED = 10
"""Of unusual pictures, near duplicates and doubtful masks, those that are named."""

Look = dict[str, Any]


def look(session: Session, run: str, progress: Progress) -> Look:
    """Examine a run and suggest pictures, or what was found when that was last done for the same run.

    What cannot be found out is said in `problems`: an answer does not fail for it.
    """
    path = session.data_set.folder / "closer_look.json"
    before = remembered(session)
    if before and before["run"] == run and _is_there(before):
        return before
    found: Look = {"run": run, "trust": None, "suggested": None, "problems": []}
    try:
        found["trust"] = _trust(examine(session.project, run, progress=progress))
    except UserError as error:
        found["problems"].append(f"How far it can be believed is not known: {error}")
    if session.data_set.unlabeled:
        try:
            found["suggested"] = _suggested(suggest(session.project, run, SUGGESTED, progress=progress))
        except UserError as error:
            found["problems"].append(f"What to label next is not known: {error}")
    write_json(path, found)
    return found


def remembered(session: Session) -> Look | None:
    """What was found when it was last looked."""
    try:
        found = read_json(session.data_set.folder / "closer_look.json")
    except (OSError, UserError):
        return None
    return (
        found
        if isinstance(found, dict) and found.keys() >= {"run", "trust", "suggested", "problems"}
        else None
    )


def _is_there(found: Mapping[str, Any]) -> bool:
    """Whether the folders that it speaks of are still there."""
    parts = [found[key] for key in ("trust", "suggested") if found[key]]
    return bool(parts) and all(Path(part["folder"]).is_dir() for part in parts)


def _trust(found: Trust) -> Look:
    return {
        "folder": str(found.folder),
        "sentences": [found.calibration_in_words(), found.threshold_in_words(), found.pixel_in_words()],
        "leaks_in_words": found.leaks_in_words(),
        "validation": found.validation,
        "ece_before": found.calibration.ece_before if found.calibration else None,
        "ece_after": found.calibration.ece_after if found.calibration else None,
        "temperature": found.calibration.temperature if found.calibration else None,
        "image_threshold": found.image.threshold if found.image else None,
        "pixel_threshold": found.pixel.threshold if found.pixel else None,
        "novel": [[each.image, round(each.novelty, 3)] for each in found.novel[:NAMED]],
        "novel_in_all": len(found.novel),
        "leaks": [
            [pair.image, pair.other, *pair.lists, round(pair.similarity, 3)] for pair in found.leaks[:NAMED]
        ],
        "leaks_in_all": len(found.leaks),
        "near_duplicates_in_all": len(found.near_duplicates),
        "doubtful": [[each.image, each.list, round(each.score, 3)] for each in found.masks[:NAMED]],
    }


def _suggested(found: Suggestion) -> Look:
    return {
        "folder": str(found.folder),
        "by": found.by,
        "candidates": found.candidates,
        "images": [[each.name, each.why] for each in found.images],
    }
