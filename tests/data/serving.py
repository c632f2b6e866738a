"""A local HTTP server that understands ranges, and can fail in the ways that servers and lines do."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote


@dataclass
class Server:
    """What the server does, and what it was asked."""

    folder: Path
    address: str = ""
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    """(path, Range header) of every request."""
    break_after: list[int] = field(default_factory=list)
    """Bytes after which each of the next answers breaks off."""
    ranges: bool = True
    etag: str | None = '"1"'
    status: int | None = None
    """Answer with this error instead."""


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """Serve a folder on this machine while the block runs."""
    server = Server(folder)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            server.requests.append((self.path, asked))
            path = server.folder / unquote(self.path).lstrip("/")
            if server.status or not path.is_file():
                self.send_error(server.status or 404)
                return
            content = path.read_bytes()
            start = 0
            same = self.headers.get("If-Range") in (None, server.etag)
            if asked and server.ranges and same:
                start = int(asked.removeprefix("bytes=").rstrip("-"))
                if start >= len(content):
                    self.send_error(416)
                    return
            self.send_response(206 if start else 200)
            if server.etag:
                self.send_header("ETag", server.etag)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            rest = content[start:]
            if server.break_after:
                rest = rest[: server.break_after.pop(0)]
            self.wfile.write(rest)

        def log_message(self, format: str, *args: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = False
    server.address = f"http://127.0.0.1:{httpd.server_address[1]}"
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        httpd.shutdown()
        thread.join()
        httpd.server_close()
