import hashlib
import http.client
import io
import os
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from data.serving import Server, serving
from hypothesis import given, settings
from hypothesis import strategies as st

from u2pl.data import fetch
from u2pl.data.fetch import Remote, download, extract
from u2pl.errors import UserError

CONTENT = bytes(range(256)) * 8192  # 2 MiB
INSTEAD = "Or do without."


def silent(*_: object) -> None:
    pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(fetch, "PAUSES", (0.0, 0.0))
    (tmp_path / "served").mkdir()
    (tmp_path / "served/big file.bin").write_bytes(CONTENT)
    with serving(tmp_path / "served") as server:
        yield server


def remote(server: Server, content: bytes = CONTENT) -> Remote:
    return Remote(f"{server.address}/big%20file.bin", f"md5:{hashlib.md5(content).hexdigest()}")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "here" / "big file.bin"


def nothing_but(path: Path, *names: str) -> bool:
    return {p.name for p in path.parent.iterdir()} == set(names)


def test_a_file_comes_whole_and_is_not_asked_for_again(server: Server, path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    download(remote(server), path, lambda *each: told.append(each), INSTEAD)
    assert path.read_bytes() == CONTENT and nothing_but(path, path.name)
    assert told[-1] == ("downloading big file.bin (MiB)", 2, 2)
    assert all(done <= total == 2 for _, done, total in told)
    download(remote(server), path, silent, INSTEAD)
    assert len(server.requests) == 1


def test_a_connection_that_breaks_off_goes_on_where_it_stopped(server: Server, path: Path) -> None:
    server.break_after = [700_000, 100_000]
    download(remote(server), path, silent, INSTEAD)
    assert path.read_bytes() == CONTENT
    assert [asked for _, asked in server.requests] == [None, "bytes=700000-", "bytes=800000-"]


@pytest.mark.parametrize(
    "error", [OSError(113, "No route to host"), http.client.IncompleteRead(b"xy"), TimeoutError()]
)
def test_whatever_ends_a_connection_it_goes_on(
    server: Server, path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    original, calls = http.client.HTTPResponse.read, []

    def read(self: http.client.HTTPResponse, count: int | None = None) -> bytes:
        calls.append(count)
        if len(calls) == 3:
            raise error
        return original(self, count)

    if isinstance(error, http.client.IncompleteRead):
        error.partial = CONTENT[2 * fetch.CHUNK : 2 * fetch.CHUNK + 100]
    monkeypatch.setattr(http.client.HTTPResponse, "read", read)
    download(remote(server), path, silent, INSTEAD)
    assert path.read_bytes() == CONTENT
    partial = len(getattr(error, "partial", b""))
    assert [asked for _, asked in server.requests] == [None, f"bytes={2 * fetch.CHUNK + partial}-"]


def test_a_later_call_goes_on_where_the_earlier_one_gave_up(server: Server, path: Path) -> None:
    server.break_after = [1000, 1000, 1000]
    with pytest.raises(UserError, match="3,000 bytes are kept"):
        download(remote(server), path, silent, INSTEAD)
    assert not path.exists()
    download(remote(server), path, silent, INSTEAD)
    assert path.read_bytes() == CONTENT and server.requests[-1][1] == "bytes=3000-"
    assert nothing_but(path, path.name)


def test_a_server_without_ranges_is_asked_for_all_of_it(server: Server, path: Path) -> None:
    server.ranges, server.break_after = False, [5000]
    download(remote(server), path, silent, INSTEAD)
    assert path.read_bytes() == CONTENT


def test_another_version_is_not_glued_to_the_beginning_of_the_old_one(server: Server, path: Path) -> None:
    server.break_after = [1000, 1000, 1000]
    with pytest.raises(UserError):
        download(remote(server), path, silent, INSTEAD)
    new = CONTENT[::-1]
    (server.folder / "big file.bin").write_bytes(new)
    server.etag = '"2"'
    download(remote(server, new), path, silent, INSTEAD)
    assert path.read_bytes() == new


@pytest.mark.parametrize("etag", [None, 'W/"1"', '"1"'])
@pytest.mark.parametrize("left", [b"\x00" * 5000, b"\x00" * len(CONTENT), b"\x00" * (len(CONTENT) + 5)])
def test_whatever_lies_in_the_part_the_result_is_right(
    server: Server, path: Path, left: bytes, etag: str | None
) -> None:
    server.etag = etag
    path.parent.mkdir()
    path.with_name(path.name + ".part").write_bytes(left)
    download(remote(server), path, silent, INSTEAD)
    assert path.read_bytes() == CONTENT and nothing_but(path, path.name)


def test_a_page_to_log_in_does_not_replace_what_has_come(server: Server, path: Path) -> None:
    server.break_after = [700_000, 0, 0]
    with pytest.raises(UserError, match="700,000 bytes are kept"):
        download(remote(server), path, silent, INSTEAD)
    (server.folder / "big file.bin").write_bytes(b"<html>please log in</html>")
    server.etag = '"2"'
    with pytest.raises(UserError, match="something else there, of 26 bytes"):
        download(remote(server), path, silent, INSTEAD)
    (server.folder / "big file.bin").write_bytes(CONTENT)
    server.etag = '"1"'
    download(remote(server), path, silent, INSTEAD)
    assert path.read_bytes() == CONTENT and server.requests[-1][1] == "bytes=700000-"


def test_wrong_content_is_refused_and_not_kept(server: Server, path: Path) -> None:
    with pytest.raises(UserError, match="checksum is not md5:"):
        download(remote(server, b"other"), path, silent, INSTEAD)
    assert nothing_but(path)


@pytest.mark.parametrize(("status", "asked"), [(403, 1), (404, 1), (503, 3)])
def test_an_answer_that_is_an_error_names_address_place_and_alternatives(
    server: Server, path: Path, status: int, asked: int
) -> None:
    server.status = status
    with pytest.raises(UserError) as error:
        download(remote(server), path, silent, INSTEAD)
    said = str(error.value)
    assert remote(server).url in said and str(path) in said and said.endswith(INSTEAD) and str(status) in said
    assert len(server.requests) == asked and not path.exists()


def test_without_a_network_it_is_the_same_sentence(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "PAUSES", (0.0,))
    for url in ("http://127.0.0.1:9/x", "http://no-such-host.invalid/x", "file:///etc/passwd"):
        with pytest.raises(UserError, match=f"{url} cannot be downloaded.*by hand. {INSTEAD}"):
            download(Remote(url, "md5:00"), path, silent, INSTEAD)
    assert not path.exists()


def test_a_line_that_falls_silent_is_a_broken_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.setattr(fetch, "PAUSES", (0.0,))
    monkeypatch.setattr(fetch, "TIMEOUT", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/x"
        with pytest.raises(UserError, match="timed out"):
            download(Remote(url, "md5:00"), path, silent, INSTEAD)


def test_a_copy_made_by_hand_is_taken_or_refused_but_never_deleted(server: Server, path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(CONTENT[:5000])
    with pytest.raises(UserError, match=r"cut off\. Delete it"):
        download(remote(server), path, silent, INSTEAD)
    assert path.read_bytes() == CONTENT[:5000] and not server.requests
    path.write_bytes(CONTENT)
    download(remote(server), path, silent, INSTEAD)


def test_of_a_text_the_line_ends_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x\r\ny\r\n")
    digest = hashlib.sha256(b"x\ny\n").hexdigest()
    assert Remote("http://x/a", f"sha256:{digest}", text=True).is_right(tmp_path / "a")
    assert not Remote("http://x/a", f"sha256:{digest}").is_right(tmp_path / "a")


# ---- unpacking ---------------------------------------------------------------------------------------------

FILES = {"top/a.txt": b"a" * 10, "top/deep/b.txt": b"b" * 3_000_000, "other/c.txt": b"c"}


def make(path: Path, files: dict[str, bytes]) -> Path:
    """An archive of the kind that the path's suffix says."""
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(zipfile.ZipInfo(name), content)
    else:
        with tarfile.open(path, "w:gz" if path.suffix == ".tgz" else "w") as archive:
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return path


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("kind", ["x.tar", "x.tgz", "x.zip"])
def test_what_is_wanted_is_unpacked_and_nothing_else(tmp_path: Path, kind: str) -> None:
    told: list[tuple[str, int, int]] = []
    archive = make(tmp_path / kind, FILES)
    extract(archive, tmp_path / "to", lambda name: name.startswith("top/"), lambda *each: told.append(each))
    assert tree(tmp_path / "to") == {
        name: content for name, content in FILES.items() if name.startswith("top")
    }
    assert told[-1][1] == told[-1][2] and all(done <= total for _, done, total in told)


@pytest.mark.parametrize("kind", ["x.tar", "x.tgz", "x.zip"])
@pytest.mark.parametrize(
    "path", ["../out.txt", "top/../../out.txt", "/tmp/out.txt", "C:\\out.txt", "..\\out.txt"]
)
def test_an_archive_whose_paths_climb_out_is_refused(tmp_path: Path, kind: str, path: str) -> None:
    archive = make(tmp_path / "in" / kind, {path: b"x", "top/a": b"a"})
    with pytest.raises(UserError, match="leads out of the folder"):
        extract(archive, tmp_path / "in/to", lambda name: True, silent)
    assert tree(tmp_path) == {f"in/{kind}": archive.read_bytes()}


def test_the_name_that_a_zip_member_is_written_by_is_checked_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Newer Pythons take it from an extra field, and leave the first one as it was."""
    archive = make(tmp_path / "in/x.zip", {"top/a": b"a"})
    read = zipfile.ZipFile.infolist

    def infolist(self: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
        members = read(self)
        members[0].filename = "../out.txt"
        return members

    monkeypatch.setattr(zipfile.ZipFile, "infolist", infolist)
    with pytest.raises(UserError, match="leads out of the folder"):
        extract(archive, tmp_path / "in/to", lambda name: True, silent)
    assert list(tree(tmp_path)) == ["in/x.zip"]


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.lists(st.sampled_from(["..", ".", "a", "b", "", "c:"]), min_size=1, max_size=4).map("/".join),
        min_size=1,
        max_size=4,
        unique=True,
    ),
    st.sampled_from(["x.tar", "x.zip"]),
)
def test_no_path_ever_writes_outside(
    tmp_path_factory: pytest.TempPathFactory, paths: list[str], kind: str
) -> None:
    folder = tmp_path_factory.mktemp("safe")
    archive = make(folder / kind, {path + "/f": b"x" for path in paths})
    with suppress(UserError):
        extract(archive, folder / "deep/to", lambda name: True, silent)
    assert all(name == kind or name.startswith("deep/to/") for name in tree(folder))


def test_a_tar_that_ends_with_a_zip_is_a_tar(tmp_path: Path) -> None:
    inner = make(tmp_path / "x.zip", {"evil": b"x"}).read_bytes()
    archive = make(tmp_path / "x.tar", {"top/a.zip": inner})
    extract(archive, tmp_path / "to", lambda name: True, silent)
    assert tree(tmp_path / "to") == {"top/a.zip": inner}


def test_a_member_that_is_a_file_and_a_folder_is_damage(tmp_path: Path) -> None:
    archive = make(tmp_path / "x.tar", {"a": b"x", "a/b": b"x"})
    with pytest.raises(UserError, match="is damaged"):
        extract(archive, tmp_path / "to", lambda name: True, silent)


def test_progress_is_told_once_a_mebibyte(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    archive = make(tmp_path / "x.tar", {f"f{k}": b"x" for k in range(3000)})
    extract(archive, tmp_path / "to", lambda name: False, lambda _, done, total: told.append((done, total)))
    assert told == sorted(set(told)) and told[-1] == (3, 3)


def test_a_link_that_is_wanted_is_refused_and_one_that_is_not_is_left_out(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        link = tarfile.TarInfo("top/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    extract(tmp_path / "x.tar", tmp_path / "to", lambda name: False, silent)
    with pytest.raises(UserError, match="no ordinary file"):
        extract(tmp_path / "x.tar", tmp_path / "to", lambda name: True, silent)
    assert not os.path.lexists(tmp_path / "to/top/link")


@pytest.mark.parametrize("kind", ["x.tar", "x.tgz", "x.zip"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_a_damaged_archive_is_a_sentence(tmp_path: Path, kind: str, share: float) -> None:
    archive = make(tmp_path / kind, {**FILES, "top/z": os.urandom(100_000)})
    archive.write_bytes(archive.read_bytes()[: int(share * archive.stat().st_size)])
    with pytest.raises(UserError, match="is damaged"):
        extract(archive, tmp_path / "to", lambda name: True, silent)
    assert not [name for name in tree(tmp_path / "to") if name not in {*FILES, "top/z"}]


def test_a_second_call_keeps_what_is_whole_and_mends_what_is_not(tmp_path: Path) -> None:
    archive = make(tmp_path / "x.tar", FILES)
    extract(archive, tmp_path / "to", lambda name: True, silent)
    kept, cut = tmp_path / "to/top/deep/b.txt", tmp_path / "to/top/a.txt"
    before = kept.stat().st_mtime_ns
    cut.write_bytes(b"a")
    extract(archive, tmp_path / "to", lambda name: True, silent)
    assert kept.stat().st_mtime_ns == before and tree(tmp_path / "to") == FILES
