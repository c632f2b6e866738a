"""Epochs as they are counted and as people are told of them.

Files, events and MLflow count from 0, so that what was written stays true. Whoever reads a sentence, a table or an axis
counts from 1: the last of 6 epochs is the sixth.
"""


def shown_epoch(counted: int) -> int:
    """What an epoch is called where a person reads it.

    Args:
        counted: as history.csv, metrics.json and events.jsonl have it, from 0.
    """
    return counted + 1
