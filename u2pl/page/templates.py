"""How pages are filled in: what is shown is escaped, and what is missing is an error."""

from jinja2 import Environment, PackageLoader, StrictUndefined

from u2pl.reporting.durations import duration


def environment(package: str) -> Environment:
    """For the templates that lie beside the modules of a package."""
    found = Environment(
        loader=PackageLoader(package, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    found.filters["duration"] = duration
    return found
