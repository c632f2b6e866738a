"""Text that somebody else wrote (names of classes, runs, files), as the place that it goes to takes it."""

import json
import re
import shlex
from collections.abc import Sequence
from typing import Any

_STRANGE = re.compile(
    # Control characters but tab and line feed; marks that turn the direction of what follows; halves of characters.
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    r"""`text` for a terminal: what would move the cursor, colour or reorder it is written out, as `\x1b`.

    Tabs and line feeds stay.
    """
    return _STRANGE.sub(lambda found: found[0].encode("unicode-escape").decode(), text)


def one_line(text: str) -> str:
    """`printable` without line feeds and tabs, for a cell or a heading."""
    return printable(re.sub(r"\s+", " ", text) if re.search(r"[\t\r\n]", text) else text)


def listed(names: Sequence[str]) -> str:
    """Names in a sentence: `one`, `one and two`, `one, two and three`; nothing of none."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def json_text(value: Any) -> str:
    """`value` as indented JSON that a terminal may show: a reader gets the same value."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    return _STRANGE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


# ---- shells ----------------------------------------------------------------------------------------------

_PLAIN = re.compile(r"-{0,2}[A-Za-z0-9_][\w-]*|[\w./:+][\w./:+=-]*", re.ASCII)
"""PowerShell takes a point apart from a word that begins with a dash."""
_IN_DOUBLE_QUOTES = re.compile(
    r"[\w ./:+=,;@&|<>()\[\]{}*?#'~^-]+(?:\\(?=[\w. ])[\w ./:+=,;@&|<>()\[\]{}*?#'~^-]*)*"
)


def command_line(*words: str) -> str:
    """A command that can be pasted into any shell: bash, zsh, fish, PowerShell and the prompt of Windows alike.

    Most words need no quotes. Others get double ones, which all of these know. Only what some shell would expand
    even there (a dollar, a backquote, a percent or an exclamation mark, a double quote) is quoted as POSIX has it.
    """
    return " ".join(map(_shell_word, words))


def _shell_word(word: str) -> str:
    if _PLAIN.fullmatch(word):
        return word
    return f'"{word}"' if _IN_DOUBLE_QUOTES.fullmatch(word) else shlex.quote(word)


# ---- CSV -----------------------------------------------------------------------------------------------

_FORMULA = re.compile(r"'*(?:[\t\r\n]|\s*[=+\-@＝＋－＠])")


def cell(value: Any) -> Any:
    """A cell of a CSV file: a text that a spreadsheet would take for a formula gets an apostrophe in front.

    Numbers stay as they are, those that were made a text too. `true_text` is the way back.
    """
    return (
        f"'{value}" if isinstance(value, str) and _FORMULA.match(value) and not _is_number(value) else value
    )


def true_text(text: str) -> str:
    """The text behind what `cell` made of it."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return not text[:1].isspace()


# ---- Markdown and LaTeX --------------------------------------------------------------------------------


def markdown(text: str) -> str:
    """`text` in GitHub's Markdown, on one line, with all that would mark it up preceded by a backslash."""
    text = one_line(text)
    text = re.sub(r"[\\`*|<>\[\]~$]|&(?=#?\w+;)", r"\\\g<0>", text)
    # Between letters an underscore marks nothing: L_c stays as it is.
    text = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\_", text)
    text = re.sub(r"(?<!\w)(?:https?|ftp|www)(?=[:.])", _without_link, text, flags=re.IGNORECASE)
    return re.sub(r"^(\d*)([#+\-=.)])(?=\s|$|[#\-=])", r"\1\\\2", text)


def _without_link(found: re.Match[str]) -> str:
    """GitHub makes a link of every address; an entity in it stops that, and reads the same."""
    return f"{found[0][:-1]}&#{ord(found[0][-1])};"


TEX = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{character: f"{{{character}}}" for character in "[]*"},  # after a line's \\ they would be its options
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: f"${character}$" for character in "<>|"},
    **{raised: f"$^{digit}$" for digit, raised in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")},
    **{lowered: f"$_{digit}$" for digit, lowered in enumerate("₀₁₂₃₄₅₆₇₈₉")},
    "²": r"\textsuperscript{2}",
    "⁻": "$^{-}$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "→": r"$\to$",
    "−": r"$-$",
    "—": "---",
    "†": r"$\dagger$",
    "‡": r"$\ddagger$",
    **{
        letter: rf"${name}$"
        for letter, name in {
            "α": r"\alpha",
            "γ": r"\gamma",
            "δ": r"\delta",
            "η": r"\eta",
            "λ": r"\lambda",
            "τ": r"\tau",
        }.items()
    },
}


def tex(text: str) -> str:
    """`text` on one line, with the characters LaTeX would misread written out."""
    return "".join(TEX.get(character, character) for character in one_line(text))
