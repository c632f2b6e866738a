"""What pages of the reference get from the program itself when the site is built, so that no list is kept twice."""

import re
from collections.abc import Callable, Iterator
from inspect import cleandoc, getmodule
from pathlib import Path
from typing import Any

import yaml
from sphinx.pycode import ModuleAnalyzer
from typer.main import get_command
from u2pl_cli.app import app
from u2pl_cli.help import METHODS

from u2pl.project import Project
from u2pl.settings import Params, Recipe, Settings, hyper
from u2pl.settings.base import homes

ROOT = Path(__file__).parents[2]


def fill_in(_app: Any, _page: str, source: list[str]) -> None:
    """Put a generated part in the place of each `<!-- generated: NAME -->` of a page that Sphinx has read."""
    source[0] = re.sub(r"<!-- generated: (\w+) -->", lambda found: PARTS[found[1]](), source[0])


# ---- commands --------------------------------------------------------------------------------------------


def commands() -> str:
    """Every command: what it does, how it is written, its arguments and options."""
    return "\n\n".join(_command(words, command) for words, command in walk(get_command(app)))


def walk(group: Any, words: tuple[str, ...] = ("u2pl",)) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The commands below a group that are shown in its help, and the groups that are commands themselves."""
    for name, command in group.commands.items():
        if command.hidden:
            continue
        yield (*words, name), command
        if hasattr(command, "commands"):
            yield from walk(command, (*words, name))


def _command(words: tuple[str, ...], command: Any) -> str:
    context = command.make_context(" ".join(words), [], resilient_parsing=True)
    usage = " ".join([*words, *command.collect_usage_pieces(context)])
    text, *examples = re.split(r"\n*Example: ", cleandoc(command.help or ""))
    blocks = [f"{'#' * len(words)} `{' '.join(words)}`", _prose(text), _console(usage)]
    if examples:
        blocks += ["Examples:" if len(examples) > 1 else "Example:", _console(*map(_on_one_line, examples))]
    records = [p.get_help_record(context) for p in command.params]
    rows = [(f"`{name}`", _cell(_now(text))) for name, text in filter(None, records)]
    return "\n\n".join([*blocks, *([_table(("argument, option", "meaning"), rows)] if rows else [])])


def _now(text: str) -> str:
    """A help text with the methods that there are."""
    return text.replace(METHODS, ", ".join(Params.read(Project(ROOT)).listed_methods))


LITERAL = {
    "default": "Defaults of the command line",
    "recipes": "Recipes of data sets",
    "flavors": "Flavours",
}
"""Sections that are shown as they stand, since their keys are those of the others -> their titles."""

# ---- settings --------------------------------------------------------------------------------------------


def settings() -> str:
    """Every setting: its value in params.yaml, what may stand there, what it means, and where the value is from."""
    hyper.import_methods()
    values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    said = comments((ROOT / "params.yaml").read_text(encoding="utf-8"))
    blocks = [_section("recipe", Recipe, list(Recipe.model_fields), values, said)]
    for group in [name for name in values if name in hyper.groups()]:
        cls = next(c for m in sorted(hyper.names()) if group in homes(c := _settings(m)).values())
        keys = [key for key in values[group] if homes(cls)[key] == group]
        blocks.append(_section(group, cls, keys, values, said))
    for method in [name for name in values if name in hyper.names()]:
        cls = _settings(method)
        own = [key for key, home in homes(cls).items() if home is None]
        blocks.append(_section(method, cls, own, values, said))
    blocks += [_as_it_stands(name, title) for name, title in LITERAL.items()]
    return "\n\n".join(blocks)


def _as_it_stands(section: str, title: str) -> str:
    """A section of params.yaml, word for word."""
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    found = re.search(rf"^{section}:.*\n(?:(?: .*)?\n)*(?: .*)", text, re.MULTILINE)
    assert found, section
    return f"## {title}\n\n```yaml\n{found[0].rstrip()}\n```"


def _settings(method: str) -> type[Settings]:
    found = hyper.find(method)
    assert found is not None
    return found


def comments(text: str) -> dict[tuple[str, ...], str]:
    """Path of a key in a YAML file that is indented by two -> the comment on its line."""
    found: dict[tuple[str, ...], str] = {}
    path: list[str] = []
    for line in text.splitlines():
        key = re.match(r"( *)([\w-]+):", line)
        if key:
            path = [*path[: len(key[1]) // 2], key[2]]
            _, marked, comment = line.partition(" # ")
            if marked:
                found[tuple(path)] = comment
    return found


def _section(
    name: str, cls: type[Settings], keys: list[str], values: dict[str, Any], said: dict[tuple[str, ...], str]
) -> str:
    about = said.get((name,), "")
    other = {key: v for key, v in (values.get(name) or {}).items() if key not in keys and v is not None}
    blocks = [f"## `{name}`", _prose(about[:1].upper() + about[1:] + ".") if about else ""]
    if keys:
        rows = [
            (
                f"`{key}`",
                f"`{_yaml(values[name].get(key))}`",
                _cell(_allowed(cls, key)),
                _cell(_meaning(cls, key)),
                _cell(said.get((name, key), "")),
            )
            for key in keys
        ]
        blocks.append(_table(("setting", "value", "may be", "meaning", "source, remarks"), rows))
    if name in hyper.names():
        groups = dict.fromkeys(home for home in homes(cls).values() if home)
        if groups:
            shared = ", ".join(f"[`{group}`](#{group})" for group in groups)
            blocks.append(f"Besides it has the settings of {shared}.")
        if other:
            changed = ", ".join(f"`{key}: {_yaml(value)}`" for key, value in other.items())
            blocks.append(f"Of those it sets otherwise: {changed}.")
    return "\n\n".join(filter(None, blocks))


def _meaning(cls: type[Settings], key: str) -> str:
    """The sentence below a field, from the class that declares it."""
    for base in cls.__mro__:
        module = getmodule(base)
        if module is None or not issubclass(base, Settings):
            continue
        lines = ModuleAnalyzer.for_module(module.__name__).find_attr_docs().get((base.__name__, key))
        if lines:
            return " ".join(filter(None, lines))
    return ""


def _allowed(cls: type[Settings], key: str) -> str:
    """The type of a field, with its limits."""
    field = cls.model_json_schema()["properties"][key]
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    kind = {"integer": "whole number", "number": "number", "boolean": "true, false", "string": "text"}.get(
        field.get("type", ""), "list" if field.get("type") == "array" else "mapping"
    )
    limits = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    return ", ".join([kind, *(f"{sign} {field[name]:g}" for name, sign in limits.items() if name in field)])


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("\n").removesuffix("\n...")


# ---- Markdown --------------------------------------------------------------------------------------------


def _console(*lines: str) -> str:
    return "\n".join(["```console", *(f"$ {line}" for line in lines), "```"])


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    return _prose(text).replace("|", "\\|")


def _prose(text: str) -> str:
    """Plain sentences as Markdown: no character of theirs marks anything but code."""
    parts = re.split(r"(`[^`]*`)", " ".join(text.split()) if "\n\n" not in text else text)
    return "".join(p if p.startswith("`") else re.sub(r"([*_<\[])", r"\\\1", p) for p in parts)


def _on_one_line(text: str) -> str:
    return " ".join(text.split())


PARTS: dict[str, Callable[[], str]] = {"commands": commands, "settings": settings}
