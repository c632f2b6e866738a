"""Addresses of tracking stores: the file behind a SQLite one, and what must not be shown of any."""

import base64
import io
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TextIO
from urllib.parse import quote, unquote, unquote_plus

SQLITE = "sqlite:///"
HIDDEN = "***"

# ---- SQLite --------------------------------------------------------------------------------------------


def sqlite_address(file: Path | str, query: str = "") -> str:
    """The address of a SQLite file, for SQLAlchemy: what means something in an address is written as `%3F`."""
    path = re.sub(r"[%?#]", lambda found: quote(found[0]), str(file))
    # MLflow makes a folder for the path in `sqlite:///` as it is written there.
    begin = SQLITE if path == str(file) else "sqlite+pysqlite:///"
    return f"{begin}{path}{'?' if query else ''}{query}"


def sqlite_file(address: str) -> tuple[Path, str] | None:
    """File and query (without its `?`) of a SQLite store; None for any other store and one in memory."""
    begin = re.match(r"sqlite(\+pysqlite)?:///", address)
    if begin is None:
        return None
    path, _, query = address[begin.end() :].partition("?")
    return (Path(unquote(path)), query) if path not in ("", ":memory:") and "uri=true" not in query else None


# ---- secrets -------------------------------------------------------------------------------------------

_HARMLESS = {
    *(
        "cache",
        "charset",
        "client_encoding",
        "connect_timeout",
        "driver",
        "encoding",
        "isolation_level",
        "mode",
    ),
    *("nolock", "sslmode", "timeout", "uri", "workspace"),
}
"""Keys of a query whose values may be shown; of all others they may be secrets."""
_DATABASE = re.compile(r"(postgres(ql)?|mysql|mariadb|mssql|oracle|cockroachdb)(\+\w+)?$", re.IGNORECASE)
_SECRET_VARIABLE = re.compile(
    r"(^|_)(PASSWORD|PASSWD|PASSPHRASE|SECRET|TOKEN|ACCESS_KEY|API_KEY|APIKEY)(_|$)|^PGPASSWORD$",
    re.IGNORECASE,
)
_SHORT = 4
"""Characters below which a secret is hidden only where no letter or digit touches it."""


def hidden(text: str, address: str = "", environment: Mapping[str, str] = os.environ) -> str:
    """`text` with `***` for every secret of a store's address, and of the environment, in whichever form it stands.

    Secrets are a password, a name that stands in place of one (https://TOKEN@host), the values in a query or a
    fragment, and what variables such as MLFLOW_TRACKING_PASSWORD hold. Of a secret with `@`, `/`, `:` in it the
    pieces are hidden too, since a program that cuts the address elsewhere tells of a piece.
    """
    found = {form for secret in _secrets(address, environment) for form in _forms(secret)}
    if not found:
        return text
    patterns = [_pattern(form) for form in sorted(found, key=lambda form: (-len(form), form))]
    return re.sub("|".join(patterns), HIDDEN, text, flags=re.IGNORECASE)


def _pattern(secret: str) -> str:
    """What finds a secret of which any characters may be encoded as in an address."""
    pattern = "".join(f"(?:{re.escape(each)}|{_encoded(each)})" for each in secret)
    if len(secret) >= _SHORT:
        return pattern
    return rf"(?:(?<!\w)|(?<=%[0-9a-f]{{2}})){pattern}(?!\w)"


def _encoded(character: str) -> str:
    encoded = "".join(f"%{byte:02x}" for byte in character.encode(errors="surrogatepass"))
    return rf"{encoded}|\+" if character == " " else encoded


def _secrets(address: str, environment: Mapping[str, str]) -> Iterator[str]:
    name = password = ""
    for variable, value in environment.items():
        if variable.upper() == "MLFLOW_TRACKING_USERNAME":
            name = value
            yield value
        elif variable.upper() == "MLFLOW_TRACKING_PASSWORD":
            password = value
        if _SECRET_VARIABLE.search(variable) and (len(value) >= _SHORT or variable.startswith("MLFLOW_")):
            yield value
        if variable.upper() == "MLFLOW_TRACKING_URI" or re.search(r"://[^\s/]*@", value):
            yield from _of_address(value)
    if name and password:
        yield base64.b64encode(f"{name}:{password}".encode()).decode()
    yield from _of_address(address)


def _of_address(address: str) -> Iterator[str]:
    """The secret parts of an address, however malformed, as they stand in it."""
    address = address.strip()
    begin = re.match(r"([A-Za-z][\w+.\-]*(?=:/)|)(:/+|)", address)
    assert begin is not None  # it matches nothing, too
    scheme, rest = begin[1].lower(), address[begin.end() :]
    credentials, end = "", 0
    if scheme not in ("sqlite", "sqlite+pysqlite", "file"):
        end = _end_of_credentials(rest)
        credentials = rest[: max(end - 1, 0)]
    name, colon, password = credentials.partition(":")
    if password:
        yield password
        yield base64.b64encode(unquote(credentials).encode()).decode()
    # A service takes its token for a name; a database without a password takes a name for a name.
    if name and (password in ("", "x-oauth-basic") and (colon or not _DATABASE.match(scheme))):
        yield name
    _, separator, query = re.sub(r"[;#]", "?", rest[end:]).partition("?")
    for pair in re.split(r"[?&]", query) if separator else ():
        key, equals, value = pair.partition("=")
        if not equals:
            yield key
        elif key.lower() not in _HARMLESS:
            yield value


def _end_of_credentials(rest: str) -> int:
    """Where the host begins in an address without its scheme; 0 where nothing stands before it.

    Behind the last `@`: who puts a password into an address seldom knows what has to be encoded in it.
    """
    head = re.split(r"[?#]", rest, maxsplit=1)[0]
    last = rest.rfind("@")
    if last < len(head):
        return last + 1
    no_port = re.match(r"[^/]*:(?!\d*(?:/|$))", head)
    in_query = "=" in rest[len(head) : last]
    return last + 1 if not in_query or (no_port and "@" not in head) else head.rfind("@") + 1


def _forms(secret: str) -> Iterator[str]:
    """A secret and its pieces: as they stand, decoded, and as Python and JSON quote them."""
    plain = {secret, unquote(secret), unquote_plus(secret)}
    pieces = {piece for text in plain for piece in re.split(r"[@/:?#;=&\s]", text)}
    for text in plain | pieces:
        if text:
            yield from (text, repr(text)[1:-1], json.dumps(text)[1:-1])


class HidingStream(io.TextIOBase):
    """A stream that writes to another, line by line, what `hidden` leaves of each."""

    def __init__(self, stream: TextIO, address: str = ""):
        self._stream, self._address = stream, address
        self._line = ""

    def writable(self) -> bool:
        """Whether it can be written to: always."""
        return True

    def write(self, text: str) -> int:
        """Write whole lines; what comes after the last of them waits for its end, as it may be half a secret."""
        *lines, self._line = (self._line + text).split("\n")
        if lines:
            self._stream.write(hidden("\n".join(lines) + "\n", self._address))
            self._stream.flush()
        return len(text)

    def fileno(self) -> int:
        """Of the stream behind it: not for writing."""
        return self._stream.fileno()

    def flush(self) -> None:
        """Nothing: whole lines are written at once, and others wait."""

    def close(self) -> None:
        """Write a last line that has no end; the stream behind stays open, and what comes later still gets there."""
        if self._line:
            self.write("\n")
