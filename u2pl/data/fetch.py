"""Downloads that go on where they stopped and are believed only with the right checksum, and safe unpacking."""

import hashlib
import http.client
import itertools
import json
import os
import socket
import ssl
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.parse import unquote, urlsplit

from u2pl.data.description import Progress
from u2pl.errors import UserError
from u2pl.files import write_text
from u2pl.project import is_inside


class _BrokenOff(Exception):
    """A connection ended early; what has come so far is kept."""


TIMEOUT = 30.0
"""Seconds without a byte after which a connection counts as broken."""
PAUSES = (1.0, 3.0, 10.0)
"""Seconds to wait before each further try of a download that has broken off."""
_BUSY = (429, 500, 502, 503, 504)
"""Answers after which it makes sense to ask again."""
_FINAL = (socket.gaierror, ConnectionRefusedError, ssl.SSLError)
"""Reasons for which it makes none: no network, nobody there, not who it should be."""
_TRANSIENT = (_BrokenOff, urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError)
CHUNK = 2**18
MIB = 2**20


@dataclass(frozen=True)
class Remote:
    """A file elsewhere, and what it must be."""

    url: str
    checksum: str
    """`md5:...` or `sha256:...`, in hexadecimal digits."""
    text: bool = False
    """Whether the checksum is that of the text with the line ends of Unix, whatever those of a copy are."""

    @property
    def name(self) -> str:
        """The file's own name."""
        return unquote(PurePosixPath(urlsplit(self.url).path).name)

    def is_right(self, path: Path) -> bool:
        """Whether a file is this one."""
        kind, _, expected = self.checksum.partition(":")
        digest = hashlib.new(kind, usedforsecurity=False)
        with path.open("rb") as file:
            if self.text:
                digest.update(file.read().replace(b"\r\n", b"\n"))
            while chunk := file.read(MIB):
                digest.update(chunk)
        return digest.hexdigest() == expected.lower()


def download(remote: Remote, path: Path, progress: Progress, instead: str) -> None:
    """Let `path` be the remote file; it is wholly there afterwards, or not at all.

    What has come is kept beside it, as `path` + ".part", and a later call asks for the rest only.

    Args:
        remote: an http or https address, and the checksum.
        path: where to; a file that is there already is taken if it is the right one.
        progress: told the MiB that have come.
        instead: sentences on what else the user can do, for the error.

    Raises:
        UserError: it cannot be had, or what came is not what it should be.
        OSError: the disk is full or cannot be written.
    """
    if path.is_file():
        if remote.is_right(path):
            return
        raise UserError(
            f"{path} is not what {remote.url} should be: its checksum is not {remote.checksum}. It may be cut off. "
            "Delete it or replace it, then start the same command again."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    pieces = part.is_file() + _transfer(remote, part, path, progress, instead)
    if pieces > 1 and not remote.is_right(part):
        # The rest of another version of the file, or of bytes that a crash never wrote.
        _discard(part)
        _transfer(remote, part, path, progress, instead)
    if not remote.is_right(part):
        _discard(part)
        raise UserError(
            f"{remote.url} is not what it should be: its checksum is not {remote.checksum}. Something between here and "
            f"there changes it, or there is a new version. Put the right file to {path} by hand. {instead}"
        )
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    part.replace(path)
    _note(part).unlink(missing_ok=True)


def _transfer(remote: Remote, part: Path, path: Path, progress: Progress, instead: str) -> int:
    """Bring `part` to its full length, and say in how many pieces it came.

    A connection that breaks off is tried again a few times.
    """
    for count in itertools.count(1):
        try:
            _receive(remote, part, progress)
        except _TRANSIENT as error:
            reason = getattr(error, "reason", None)  # HTTPError's is less than what it says itself
            said = (
                str(error if isinstance(error, urllib.error.HTTPError) else reason or error)
                or type(error).__name__
            )
            final = isinstance(reason, _FINAL) or getattr(error, "code", _BUSY[0]) not in _BUSY
            if final or count > len(PAUSES):
                kept = f" {part.stat().st_size:,} bytes are kept to go on from." if part.is_file() else ""
                raise UserError(
                    f"{remote.url} cannot be downloaded ({said}).{kept} Start the same command again, or put a copy of "
                    f"the file ({remote.checksum}) to {path} by hand. {instead}"
                ) from None
            time.sleep(PAUSES[count - 1])
        else:
            return count
    raise AssertionError("counting never ends")


def _receive(remote: Remote, part: Path, progress: Progress) -> None:
    """One connection: append to `part` what it lacks.

    Raises:
        _BrokenOff: fewer bytes came than were announced.
    """
    if urlsplit(remote.url).scheme not in ("http", "https"):
        raise urllib.error.URLError("not an http or https address")
    there = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(
        remote.url, headers={"User-Agent": "u2pl", "Accept-Encoding": "identity"}
    )
    if there:
        request.add_header("Range", f"bytes={there}-")
        if validator := _validator(part):
            request.add_header("If-Range", validator)
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and there:  # nothing is left to ask for: it is whole, or it is another file
            return
        raise
    with response:
        length = response.headers.get("Content-Length")
        if response.status != 206:
            if there and length and int(length) < there:
                # A page to log in, or a notice of maintenance: no reason to throw away what has come.
                raise urllib.error.URLError(f"the server has something else there, of {int(length):,} bytes")
            there = 0
            write_text(
                _note(part), json.dumps({k: response.headers.get(k) for k in ("ETag", "Last-Modified")})
            )
        total = there + int(length) if length else 0
        told = _teller(progress, f"downloading {remote.name} (MiB)")
        with part.open("ab" if there else "wb") as file:
            for chunk in _chunks(response):
                file.write(chunk)
                there += len(chunk)
                told(there, max(there, total))
    if there < total:
        raise _BrokenOff(f"the connection ended after {there:,} of {total:,} bytes")
    told(there, there)


def _teller(progress: Progress, what: str) -> Callable[[int, int], None]:
    """Tells of bytes in MiB, rounded up at the end only, and not twice the same."""
    last: tuple[int, int] | None = None

    def tell(done: int, total: int) -> None:
        nonlocal last
        whole = -(-total // MIB)
        now = (whole if done == total else min(done // MIB, whole - 1), whole)
        if now != last:
            last = now
            progress(what, *now)

    return tell


def _chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    while True:
        try:
            chunk = response.read(CHUNK)
        except http.client.IncompleteRead as error:
            yield error.partial
            raise _BrokenOff("the connection ended early") from None
        except OSError as error:  # of the network: the disk is not touched here
            raise _BrokenOff(str(error)) from None
        if not chunk:
            return
        yield chunk


def _note(part: Path) -> Path:
    """What the server said of the version that `part` is the beginning of."""
    return part.with_name(part.name + ".json")


def _validator(part: Path) -> str | None:
    try:
        said = json.loads(_note(part).read_text())
        etag, date = said["ETag"], said["Last-Modified"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return date if etag is None or etag.startswith("W/") else etag


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _note(part).unlink(missing_ok=True)


# ---- unpacking ---------------------------------------------------------------------------------------------

_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    *(FileExistsError, IsADirectoryError, NotADirectoryError),  # a member that is a file and a folder
)


def extract(archive: Path, target: Path, wanted: Callable[[str], bool], progress: Progress) -> None:
    """Unpack the files that are wanted from a tar, tgz or zip archive.

    A file that is already there in its full length is left, so that a call that was cut off is cheap to repeat; each
    is written beside its place first. That all of it is there, the caller has to note; that a tar is whole and
    undamaged, only its checksum tells for sure.

    Args:
        archive: the archive.
        target: folder that the members' paths count from.
        wanted: asked for the path of each regular file.
        progress: told the MiB of the archive that are done.

    Raises:
        UserError: the archive is damaged, or a member's path leads out of the folder; then nothing more is unpacked.
        OSError: the disk is full or cannot be written.
    """
    size = archive.stat().st_size
    tell = _teller(progress, f"unpacking {archive.name} (MiB)")

    def told(done: int) -> None:
        if done < size:
            tell(done, size)

    try:
        # Its beginning tells a zip; zipfile.is_zipfile would also take a tar whose last member is one.
        with archive.open("rb") as file:
            is_zip = file.read(2) == b"PK"
        if is_zip:
            _extract_zip(archive, target, wanted, told)
        else:
            _extract_tar(archive, target, wanted, told)
    except _DAMAGE as error:
        raise UserError(
            f"{archive} is damaged ({type(error).__name__}: {error}). Delete it or replace it, then start the same "
            "command again."
        ) from None
    tell(size, size)


def was_unpacked(target: Path, name: str, top: str) -> bool:
    """Whether `unpack_once` has finished with an archive of this name, and the folder `top` it holds is still there."""
    return _marker(target, name).is_file() and (target / top).is_dir()


def unpack_once(
    archive: Path, target: Path, wanted: Callable[[str], bool], top: str, progress: Progress
) -> None:
    """As `extract`, but not twice: whether an archive has changed is told by its size and date.

    Args:
        archive: the archive.
        target: folder that gets its members.
        wanted: asked for each member.
        top: the folder that the archive holds.
        progress: told how far it is.
    """
    found = archive.stat()
    stamp = f"{found.st_size} {found.st_mtime_ns}"
    marker = _marker(target, archive.name)
    if was_unpacked(target, archive.name, top) and marker.read_text() == stamp:
        return
    marker.unlink(missing_ok=True)
    extract(archive, target, wanted, progress)
    write_text(marker, stamp)


def _marker(target: Path, name: str) -> Path:
    return target / f".{name}.unpacked"


def _extract_zip(
    archive: Path, target: Path, wanted: Callable[[str], bool], told: Callable[[int], None]
) -> None:
    with zipfile.ZipFile(archive) as file:
        members = file.infolist()
        for member in members:
            for name in (member.orig_filename, member.filename):  # which an extra field may make another
                _check_path(archive, name)
        done = 0
        for member in members:
            if not member.is_dir() and wanted(member.filename):
                with file.open(member) as content:
                    _write(target / member.filename, content, member.file_size)
            done += member.compress_size
            told(done)


def _extract_tar(
    archive: Path, target: Path, wanted: Callable[[str], bool], told: Callable[[int], None]
) -> None:
    with archive.open("rb") as raw, tarfile.open(fileobj=raw, mode="r|*") as file:
        for member in file:
            _check_path(archive, member.name)
            if not member.isdir() and wanted(member.name):
                if not member.isreg():
                    raise UserError(
                        f"{archive}: {member.name!r} is no ordinary file. Get the archive from its own site."
                    )
                content = file.extractfile(member)
                assert content is not None  # of a regular file there is content
                with content:
                    _write(target / member.name, content, member.size)
            told(raw.tell())


def _check_path(archive: Path, path: str) -> None:
    if path.rstrip("/") not in ("", ".") and not is_inside(path.removeprefix("./")):
        raise UserError(
            f"{archive}: the path {path!r} leads out of the folder it is unpacked to. Nothing more of it is unpacked; "
            "get the archive from its own site."
        )


def _write(path: Path, content: IO[bytes], size: int) -> None:
    if path.is_file() and path.stat().st_size == size:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with _beside(path) as temporary, temporary.open("wb") as file:
        written = 0
        while chunk := content.read(MIB):
            written += file.write(chunk)
        if written != size:
            raise EOFError(f"{path.name} has {written} of {size} bytes")


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A name to write to, which becomes `path` if nothing goes wrong."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    temporary.replace(path)
