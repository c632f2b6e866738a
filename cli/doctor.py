"""`u2pl doctor`."""

from typing import Annotated

import typer

from .terminal import say, say_json

_MARKS = {"ok": "ok     ", "note": "note   ", "problem": "PROBLEM"}


def doctor(
    json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON, nothing else.")] = False,
) -> None:
    """Look over this machine and this project; each line says what was found, and what to do.

    Ends with status 1 where there is a problem.

    Example: u2pl doctor --json
    """
    from u2pl.training.doctor import examine

    findings = examine()
    if json:
        say_json([finding.as_json() for finding in findings])
    else:
        for finding in findings:
            sentences = [f"{text.rstrip('.')}." for text in (finding.found, finding.advice) if text]
            say(f"{_MARKS[finding.state]} {finding.what}: {' '.join(sentences)}")
    if any(finding.state == "problem" for finding in findings):
        raise typer.Exit(1)
