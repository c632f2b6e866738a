"""Data sets on disk: described, found, fetched, checked, split, and read once they are prepared."""
