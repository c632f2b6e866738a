"""Help that says what is so now: which methods there are, and what params.yaml takes where the user does not say."""

from typing import Any

from typer.core import TyperCommand

METHODS = "{methods}"
"""Stands in a help text for the names of all methods."""
FROM_PARAMS = "of params.yaml"
"""Begins the default of an option that params.yaml decides, under `default:` and the option's name."""


class Command(TyperCommand):
    """A command whose help is filled in when it is asked for."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help."""
        methods, defaults = _now()
        options: list[Any] = self.params
        for option in options:
            if METHODS in (option.help or ""):
                option.help = option.help.replace(METHODS, methods)
            shown = str(getattr(option, "show_default", ""))
            if shown.startswith(FROM_PARAMS) and option.name in defaults:
                option.show_default = f"{defaults[option.name]}, {shown}"
        super().format_help(ctx, formatter)


def _now() -> tuple[str, dict[str, Any]]:
    """The methods in words, and the defaults; outside a project what every new one has, and none."""
    from u2pl.errors import UserError
    from u2pl.project import Project
    from u2pl.settings import Params, hyper

    try:
        params = Params.read(Project.find())
        names, defaults = params.listed_methods, dict(params.values["default"])
    except UserError:
        names, defaults = sorted(hyper.names() | hyper.declared()), {}
    known = hyper.names()
    marked = [f"{name}*" if name in known and _remark(name) else name for name in names]
    note = "; *: training says first what to know of it" if any(name.endswith("*") for name in marked) else ""
    return ", ".join(marked) + note, defaults


def _remark(method: str) -> str:
    from u2pl.settings import hyper

    about = hyper.find(method)
    return about.remark if about else ""
