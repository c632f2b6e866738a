"""Data sets on disk: descriptions, checking, fetching, lists, preparation."""
