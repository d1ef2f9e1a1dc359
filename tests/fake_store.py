"""A server that answers as an object store does, or as a broken one, and records what it is asked."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


class FakeStore(ThreadingHTTPServer):
    """A store of S3 or Google on this machine, in which every object has the same content.

    Attributes:
        content: Of every object.
        asked: Method and path of each request.
        stalls_after: As `stall` was told; None: it works.
        is_broken: Whether connections end in the middle of a body.
        refused: What the name of a client that is refused begins with.
        meeting: Of requests, of which none is answered before others have come.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content = b"photo" * 1000
        self.asked: list[tuple[str, str]] = []
        self.stalls_after: int | None = None
        self.is_broken = False
        self.refused = "nobody"
        self.meeting = threading.Barrier(1)
        self._released = threading.Event()

    def url(self, scheme: str = "s3", name: str = "folder") -> str:
        """Return the URL of a file or folder."""
        user, region = ("anonymous@", "") if scheme == "gs" else ("", "&region=us-east-1")
        return f"{scheme}://{user}bucket/{name}?endpoint_override=127.0.0.1:{self.server_port}&scheme=http{region}"

    def stall(self, after: int) -> None:
        """Stall until it is released: after some bytes of a body, or, if -1, before the header."""
        self._released.clear()
        self.stalls_after = after

    def release(self) -> None:
        """Stall no more, and answer what is waiting."""
        self.stalls_after = None
        self._released.set()

    def wait(self) -> None:
        """Wait until it is released."""
        self._released.wait()

    def methods(self) -> list[str]:
        """Return the methods of the requests since the last call."""
        methods = [method for method, _ in self.asked]
        self.asked.clear()
        return methods


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeStore

    def do_GET(self) -> None:
        self.server.asked.append((self.command, unquote(urlsplit(self.path).path)))
        agent = self.headers.get("User-Agent", "")
        stalls_after, content = self.server.stalls_after, self.server.content
        if stalls_after == -1:
            self.server.wait()
        self.server.meeting.wait()
        is_refused = agent.startswith(self.server.refused)
        self.send_response(403 if is_refused else 206 if self.headers.get("Range") else 200)
        self.send_header("Content-Length", "0" if is_refused else str(len(content)))
        self.send_header("Content-Range", f"bytes 0-{len(content) - 1}/{len(content)}")
        self.send_header("Last-Modified", "Wed, 21 Oct 2015 07:28:00 GMT")
        self.send_header("ETag", '"tag"')
        self.end_headers()
        if self.command == "HEAD" or is_refused:
            return
        if self.server.is_broken:
            self.wfile.write(content[:10])
            self.close_connection = True
        elif stalls_after in (None, -1):
            self.wfile.write(content)
        else:
            self.wfile.write(content[:stalls_after])
            self.server.wait()
            self.wfile.write(content[stalls_after:])

    do_HEAD = do_GET

    def handle(self) -> None:
        with suppress(ConnectionError):  # the client has given up
            super().handle()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def running_store() -> Iterator[FakeStore]:
    """Run a fake store."""
    with FakeStore() as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.release()
        server.shutdown()
