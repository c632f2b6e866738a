"""Reproduces U2PL (CVPR 2022): the library. It imports neither Typer nor DVC."""

__version__ = "0.1.0"
