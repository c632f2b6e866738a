"""What is shown of addresses, and the files behind those of SQLite."""

import io
from pathlib import Path

import pytest

from u2pl.tracking.addresses import HidingStream, hidden, sqlite_address, sqlite_file


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql://me:secret@host/db", "postgresql://me:***@host/db"),
        ("postgresql://user:p@ss/w:rd@127.0.0.1:1/db", "postgresql://user:***@127.0.0.1:1/db"),
        ("mysql+pymysql://u:a%40b@host/db?charset=utf8", "mysql+pymysql://u:***@host/db?charset=utf8"),
        ("https://TOKEN@127.0.0.1:1", "https://***@127.0.0.1:1"),
        ("https://TOKEN:@host", "https://***:@host"),
        ("http://user:pa:ss@host/x", "http://user:***@host/x"),
        ("user:pa:ss@host", "user:***@host"),
        ("http:/user:secret@host", "http:/user:***@host"),
        ("http://u:a?b@host/", "http://u:***@host/"),
        ("http://u:p@host?password=sesame&token=abc", "http://u:***@host?password=***&token=***"),
        ("https://host/x#token=abcd", "https://host/x#token=***"),
        ("https://host/x#abcd", "https://host/x#***"),
        ("https://host/?next=me@corp", "https://host/?next=***"),
    ],
)
def test_the_secret_parts_of_an_address_are_hidden(address: str, shown: str):
    assert hidden(address, address, {}) == shown


@pytest.mark.parametrize(
    "address",
    [
        *("sqlite:////a/b@c:d/mlflow.db", "sqlite:///mlflow.db?mode=ro", "http://127.0.0.1:5000"),
        *("http://[::1]:80/x", "databricks://profile", "postgresql://me@host/db?sslmode=require", ""),
    ],
)
def test_an_address_without_secrets_is_shown_as_it_is(address: str):
    assert hidden(address, address, {}) == address


@pytest.mark.parametrize(
    "said",
    [
        "invalid password p@ss/w:rd!",
        "p%40ss%2Fw%3Ard!",
        "p%40ss/w%3Ard!",
        'could not translate host name "ss" to address',
        "invalid literal for int(): 'rd!'",
        "HOST SS",
        "Authorization: Basic bWU6cEBzcy93OnJkIQ==",
    ],
)
def test_a_secret_is_hidden_in_every_form_and_in_pieces(said: str):
    left = hidden(said, "postgresql://me:p@ss/w:rd!@host/db", {})
    assert "***" in left
    assert not any(
        piece in left.lower().replace("address", "").replace("pass", "") for piece in ("ss", "rd!")
    )


def test_a_short_secret_leaves_other_words_alone():
    assert hidden("p is in http, not alone: p", "http://u:p@host", {}) == "*** is in http, not alone: ***"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MLFLOW_TRACKING_USERNAME", "someone"),
        ("MLFLOW_TRACKING_PASSWORD", "x"),
        ("MLFLOW_TRACKING_TOKEN", "dapi123"),
        ("AWS_SECRET_ACCESS_KEY", "wJalr"),
        ("PGPASSWORD", "sesame"),
    ],
)
def test_what_the_environment_holds_of_secrets_is_hidden(variable: str, value: str):
    assert hidden(f"it was {value}", "", {variable: value}) == "it was ***"


def test_the_address_in_the_environment_is_known():
    for name in ("MLFLOW_TRACKING_URI", "HTTPS_PROXY"):
        assert hidden("no sesame", "", {name: "http://u:sesame@host"}) == "no ***"


def test_what_is_no_secret_of_the_environment_stays():
    assert hidden("false /home", "", {"TOKENIZERS_PARALLELISM": "false", "PWD": "/home"}) == "false /home"


def test_a_stream_hides_a_secret_that_comes_in_two_pieces():
    out = io.StringIO()
    stream = HidingStream(out, "http://u:sesame@host")
    for piece in ("the word is ses", "ame\nand ", "sesame"):
        stream.write(piece)
    assert out.getvalue() == "the word is ***\n"
    stream.close()
    assert out.getvalue() == "the word is ***\nand ***\n"


@pytest.mark.parametrize("folder", ["plain", "a%20b", "a?b", "a#b", "a b", "a'b", "ä", "a%3Fb?c=d#e"])
def test_a_sqlite_address_leads_back_to_its_file(folder: str):
    file = Path("/tmp") / folder / "mlflow.db"
    assert sqlite_file(sqlite_address(file, "timeout=5")) == (file, "timeout=5")


def test_an_ordinary_file_is_in_its_address_as_it_is():
    assert sqlite_address("/a/b c=1,2/mlflow.db") == "sqlite:////a/b c=1,2/mlflow.db"
    assert sqlite_file("http://host/mlflow.db") is None
