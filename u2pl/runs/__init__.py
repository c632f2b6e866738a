"""Folders of runs: what a run leaves on disk, its stored evaluation, and whether it is stale."""
