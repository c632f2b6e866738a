"""Hostile names in every place that text goes to."""

import csv
import json
from pathlib import Path

import pytest

from u2pl.escaping import cell, json_text, markdown, one_line, printable, tex, true_text
from u2pl.files import write_csv

NAMES = [
    *("=1+1", "+cmd|' /C calc'!A0", "-cmd", "@SUM(A1)", "\t=1", "\r=1", "'=1", "''@x", " =1", "＝1", "'plain'"),
    *("[/red]x", "a|b", "ä, \"b\"\nc", "-1.5", "+3", "1e3", "x"),
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_name_comes_back_from_a_csv_file_as_it_was(tmp_path: Path, name: str):
    write_csv(tmp_path / "x.csv", [("name", name), (name, 1.5)])
    with (tmp_path / "x.csv").open(newline="") as file:
        rows = [[true_text(text) for text in row] for row in csv.reader(file)]
    assert rows == [["name", name], [name, "1.5"]]


@pytest.mark.parametrize("name", [name for name in NAMES[:10] if name != "'plain'"])
def test_a_spreadsheet_finds_no_formula(tmp_path: Path, name: str):
    write_csv(tmp_path / "x.csv", [(name,)])
    with (tmp_path / "x.csv").open(newline="") as file:
        assert next(csv.reader(file))[0].startswith("'")


def test_numbers_stay_numbers():
    for value in (-1.5, 3, None, "-1.0800", "+2", "nan"):
        assert cell(value) == value
    assert true_text("'plain'") == "'plain'"


def test_no_control_character_reaches_a_terminal():
    text = "".join(map(chr, range(256))) + "\u202e\u2066\ud800"
    left = printable(text)
    assert {c for c in left if ord(c) < 32 or 127 <= ord(c) < 160} == {"\t", "\n"}
    assert not {"\u202e", "\u2066", "\ud800"} & set(left)
    assert printable("\x1b[31m") == r"\x1b[31m" and printable("Straße ✓ 道路") == "Straße ✓ 道路"
    assert one_line("a\nb\tc") == "a b c"


def test_json_on_a_terminal_reads_back_the_same():
    value = {"\x1b[31mred": "\x7f\x9b\u202eä"}
    assert json.loads(json_text(value)) == value
    assert "\x9b" not in json_text(value) and "ä" in json_text(value)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a|b", r"a\|b"),
        ("`a`", r"\`a\`"),
        ("<script>", r"\<script\>"),
        ("*a* __b__", r"\*a\* \_\_b\_\_"),
        ("[x](javascript:alert(1))", r"\[x\](javascript:alert(1))"),
        ("a\n\nb", "a b"),
        ("a\\", r"a\\"),
        ("&lt;", r"\&lt;"),
        ("$x$", r"\$x\$"),
        ("# a", r"\# a"),
        ("1. a", r"1\. a"),
        ("https://x", "http&#115;://x"),
        ("L_c + Q_c", "L_c + Q_c"),
        ("U²PL (w/ CutMix), 1/8 & 40 %", "U²PL (w/ CutMix), 1/8 & 40 %"),
    ],
)
def test_markdown_shows_the_name_and_nothing_else(name: str, shown: str):
    assert markdown(name) == shown


def test_latex_reads_every_character_as_itself():
    assert tex("&%$#_{}") == r"\&\%\$\#\_\{\}"
    assert tex("a~b^c\\d") == r"a\textasciitilde{}b\textasciicircum{}c\textbackslash{}d"
    assert tex("[1] *") == "{[}1{]} {*}"
    assert tex("a\n\nb") == "a b"
