"""An S3 server on this machine that waits before each answer, and takes little CPU time: `python slow_store.py FOLDER`.

It holds a folder's files in memory, in one bucket, and answers what reading a folder asks for: ListObjectsV2 of a
prefix in one page, HEAD and GET of an object, without looking at signatures. Waits of concurrent requests overlap.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from urllib.request import urlopen
from xml.sax.saxutils import escape

DELAY = 0.03  # seconds before each answer
BUCKET = "photos"
_COUNTS = "/counts"  # of requests by method, since the last time
_DATE = "Wed, 21 Oct 2015 07:28:00 GMT"
_LISTED = "<Contents><Key>{}</Key><LastModified>2015-10-21T07:28:00.000Z</LastModified><Size>{}</Size></Contents>"
# What the product's processes must find in their environment to read from it.
ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true"}


class Store:
    """The objects, and how often each method was used on one.

    Args:
        folder: Whose files are the objects; names are relative to it.
    """

    def __init__(self, folder: Path):
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        self._objects = {str(path.relative_to(folder)): path.read_bytes() for path in files}
        self._counts: Counter[str] = Counter()

    def answer(self, method: str, target: str) -> tuple[bytes, bytes]:
        """Return the header and the body of an answer."""
        path, query = urlsplit(target).path, urlsplit(target).query
        key = unquote(path).removeprefix(f"/{BUCKET}").lstrip("/")
        if path == _COUNTS:
            counts, self._counts = json.dumps(self._counts).encode(), Counter()
            return _header("200 OK", len(counts)), counts
        if "list-type" in query:
            listing = self._list(parse_qs(query).get("prefix", [""])[0])
            return _header("200 OK", len(listing)), listing
        self._counts[method] += 1
        content = self._objects.get(key)
        if content is None:
            return _header("404 Not Found", 0), b""
        return _header("200 OK", len(content)), b"" if method == "HEAD" else content

    def _list(self, prefix: str) -> bytes:
        found = [(key, len(content)) for key, content in self._objects.items() if key.startswith(prefix)]
        listed = "".join(_LISTED.format(escape(key), size) for key, size in found)
        return (
            f"<ListBucketResult><Name>{BUCKET}</Name><Prefix>{escape(prefix)}</Prefix><KeyCount>{len(found)}</KeyCount>"
            f"<MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>{listed}</ListBucketResult>"
        ).encode()


def _header(status: str, size: int) -> bytes:
    lines = f"HTTP/1.1 {status}", f"Content-Length: {size}", f"Last-Modified: {_DATE}", 'ETag: "1"', "", ""
    return "\r\n".join(lines).encode()


class Connection(asyncio.Protocol):
    """A client's connection, on which one request follows the answer to the other; no request has a body."""

    def __init__(self, store: Store):
        self._store, self._received = store, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # noqa: D102
        self._transport = transport

    def data_received(self, data: bytes) -> None:  # noqa: D102
        self._received += data
        if self._received.endswith(b"\r\n\r\n"):
            method, target, _ = self._received.decode("latin-1").split(" ", 2)
            self._received = b""
            delay = 0.0 if target == _COUNTS else DELAY
            asyncio.get_running_loop().call_later(delay, self._answer, method, target)

    def _answer(self, method: str, target: str) -> None:
        self._transport.writelines(self._store.answer(method, target))  # type: ignore[attr-defined]


class RunningStore:
    """A server in a process of its own.

    Args:
        port: Where it listens.

    Attributes:
        url: Of its bucket.
    """

    def __init__(self, port: int):
        self._address = f"127.0.0.1:{port}"
        self.url = f"s3://{BUCKET}?endpoint_override={self._address}&scheme=http&region=us-east-1"

    def url_of(self, name: str) -> str:
        """Return the URL of a folder."""
        return self.url.replace("?", f"/{name}?")

    def requests(self) -> Counter[str]:
        """Return how often each method was used on an object since the last call."""
        with urlopen(f"http://{self._address}{_COUNTS}") as answer:
            return Counter(json.load(answer))


@contextmanager
def slow_store(folder: Path, cores: Iterable[int]) -> Iterator[RunningStore]:
    """Run a server of a folder's files, in a process of its own that runs on some cores."""
    with subprocess.Popen([sys.executable, __file__, str(folder)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        os.sched_setaffinity(process.pid, cores)
        try:
            yield RunningStore(int(process.stdout.readline()))
        finally:
            process.kill()


async def main() -> None:
    """Serve until this process is killed."""
    store = Store(Path(sys.argv[1]))
    server = await asyncio.get_running_loop().create_server(lambda: Connection(store), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
