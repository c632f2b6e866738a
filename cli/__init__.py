"""The u2pl command line: parses, calls u2pl, renders. No logic of its own."""
