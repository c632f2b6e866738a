"""Over which classes a mIoU is the mean: one in no mask and no prediction has no IoU, and is mostly left out."""

from collections.abc import Mapping
from typing import Any

NAMED = 5
"""Classes that are named one by one."""


def left_out(metrics: Mapping[str, Any]) -> list[str]:
    """The classes that the reported mIoU of a metrics.json does not count.

    None where they count as 0, or where nothing has been measured yet.
    """
    if metrics.get("recipe", {}).get("absent_iou") == "zero" or metrics["miou"]["reported"] is None:
        return []
    return [name for name, value in metrics.get("iou", {}).items() if value is None]


def counted_classes(metrics: Mapping[str, Any]) -> str:
    """`over 3 of 4 classes`; nothing where the mIoU counts all classes of the data set."""
    without = len(left_out(metrics))
    if not without:
        return ""
    classes = len(metrics["iou"])
    return f"over {classes - without} of {classes} classes"


def names_left_out(metrics: Mapping[str, Any]) -> str:
    """The classes that do not count, in a row; of many only the first."""
    names = left_out(metrics)
    more = [f"{len(names) - NAMED} more"] if len(names) > NAMED else []
    return ", ".join([*names[:NAMED], *more])
