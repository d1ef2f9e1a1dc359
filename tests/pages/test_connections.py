"""Connections to the review's server are bounded in number and time, whatever their clients do."""

from __future__ import annotations

import http.client
import os
import resource
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from browsing import enter, serving
from dataset_rows import finished, labelled, predictions_batch

from flowers_batch.dataset.schema import PREDICTIONS
from flowers_batch.pages.review.connections import backlog, max_connections

SECONDS = 0.2  # of the deadline that a test is about
SOON = 5  # seconds, less than every other deadline, and enough for a busy machine
LIMIT = 8


@pytest.fixture(scope="module")
def predictions(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("connections") / "predictions"
    finished(folder, PREDICTIONS, [predictions_batch([labelled("a.jpg", "rose", 0.5)])])
    return folder


@pytest.fixture
def url(predictions, tmp_path, monkeypatch) -> Iterator[str]:
    monkeypatch.setattr("flowers_batch.pages.review.server.max_connections", lambda: LIMIT)
    with serving(predictions, tmp_path / "labels.csv") as url:
        yield url


def connected(url: str) -> socket.socket:
    where = urlsplit(url)
    return socket.create_connection((where.hostname, where.port), timeout=10)


def header(url: str, method: str = "GET", path: str | None = None) -> bytes:
    """Return the header of a request up to its end, which is missing."""
    where = urlsplit(url)
    return f"{method} {path or f'/?{where.query}'} HTTP/1.1\r\nHost: {where.netloc}\r\n".encode()


def is_served(url: str) -> bool:
    where = urlsplit(url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=5)
    connection.request("GET", f"/?{where.query}")
    return connection.getresponse().status == 200


def seconds_until_closed(client: socket.socket, dribble: bytes = b"") -> float:
    """Return how long the server keeps a connection, on which bytes are sent one by one, or none."""
    started = time.monotonic()
    client.settimeout(0.02)
    while True:
        assert time.monotonic() - started < 10, "it is never closed"
        try:
            if not client.recv(1 << 16):
                return time.monotonic() - started
        except TimeoutError:
            pass
        except ConnectionError:
            return time.monotonic() - started
        try:
            client.send(dribble[:1])
        except OSError:
            return time.monotonic() - started
        dribble = dribble[1:]


@pytest.mark.parametrize("sent", [b"", b"G", b"GET / HTTP/1.1\r\nHost: "])
def test_connection_without_a_whole_header_is_closed(url, monkeypatch, sent):
    monkeypatch.setattr("flowers_batch.pages.review.connections.HEADER_SECONDS", SECONDS)
    with connected(url) as client:
        client.sendall(sent)
        assert SECONDS * 0.9 < seconds_until_closed(client, b"x" * 1000) < SOON
    assert is_served(url)


def test_header_of_a_later_request_must_be_whole_as_soon(url, monkeypatch):
    with connected(url) as client:
        client.sendall(header(url) + b"\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 200")
        monkeypatch.setattr("flowers_batch.pages.review.connections.HEADER_SECONDS", SECONDS)
        client.sendall(b"G")
        assert seconds_until_closed(client, b"x" * 1000) < SOON


def test_idle_connection_is_closed_later(url, monkeypatch):
    monkeypatch.setattr("flowers_batch.pages.review.connections.IDLE_SECONDS", SECONDS)
    with connected(url) as client:
        client.sendall(header(url) + b"\r\n")
        assert SECONDS * 0.9 < seconds_until_closed(client) < SOON


def test_answers_that_are_not_read_are_given_up(url, monkeypatch):
    """Requests without a pause, whose answers fill the memory of the connection."""
    monkeypatch.setattr("flowers_batch.pages.review.connections.IDLE_SECONDS", SECONDS)
    page, cookie = enter(url)
    request = header(url, "GET", f"{page}review.css") + f"Cookie: {cookie}\r\n\r\n".encode()
    with connected(url) as client:
        client.settimeout(5 * SECONDS)
        with suppress(OSError):
            client.sendall(request * 3000)
        time.sleep(5 * SECONDS)
        answered = 0
        with suppress(ConnectionError):
            while block := client.recv(1 << 20):
                answered += block.count(b"HTTP/1.1 200")
    assert 0 < answered < 3000
    assert is_served(url)


def test_body_that_does_not_come_is_given_up(url, monkeypatch):
    monkeypatch.setattr("flowers_batch.pages.review.requests._BODY_SECONDS", SECONDS)
    monkeypatch.setattr("flowers_batch.pages.review.connections.HEADER_SECONDS", SECONDS)
    page, cookie = enter(url)
    own = f"Cookie: {cookie}\r\nOrigin: {url.partition('/?')[0]}\r\nContent-Length: 1000\r\n\r\n"
    with connected(url) as client:
        client.sendall(header(url, "POST", f"{page}api/label") + own.encode() + b"{")
        assert client.recv(1 << 16).startswith(b"HTTP/1.1 400")
        assert seconds_until_closed(client, b" " * 500) < SOON


def test_body_of_a_stranger_is_not_read(url):
    with connected(url) as client:
        client.sendall(header(url, "POST", "/x") + b"Content-Length: 1000000000\r\n\r\n")
        assert seconds_until_closed(client) < SOON


def test_silent_connections_do_not_keep_others_out(url):
    with ExitStack() as stack:
        clients = [stack.enter_context(connected(url)) for _ in range(4 * LIMIT)]
        assert all(is_served(url) for _ in range(3))
        time.sleep(0.1)
        closed, _, _ = select.select(clients, [], [], 0)
        assert len(closed) >= 3 * LIMIT, "there are never more than the limit"
        assert is_served(url)


def test_limits_follow_the_files_that_may_be_open(monkeypatch):
    for files, expected in ((64, 16), (1024, 256), (1 << 20, 256), (resource.RLIM_INFINITY, 256), (1, 1)):
        monkeypatch.setattr("resource.getrlimit", lambda _, files=files: (files, files))
        assert max_connections() == expected
        assert max_connections() + backlog() <= max(files // 2, 2) or files == resource.RLIM_INFINITY


OUT_OF_FILES = """
import os, resource, sys, threading
from flowers_batch.pages.review.review import Review
from flowers_batch.pages.review.server import ReviewServer, listen
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
server = ReviewServer(Review(sys.argv[1], sys.argv[2]), listen(0))
def exhaust():
    sys.stdin.readline()
    taken = []
    try:
        while True:
            taken.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        before = sum(os.times()[:2])
        print("full", flush=True)
    sys.stdin.readline()
    print(sum(os.times()[:2]) - before, flush=True)
    for number in taken:
        os.close(number)
    sys.stdin.readline()
    server.stop()
threading.Thread(target=exhaust).start()
print(server.url, flush=True)
server.run()
"""


@pytest.mark.slow
def test_process_without_files_left_neither_spins_nor_logs(predictions, tmp_path):
    command = [sys.executable, "-c", OUT_OF_FILES, str(predictions), str(tmp_path / "labels.csv")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, env=os.environ, **pipes) as process, ExitStack() as stack:

        def ask() -> str:
            process.stdin.write("\n")
            process.stdin.flush()
            return process.stdout.readline().strip()

        url = process.stdout.readline().strip()
        assert is_served(url)
        assert ask() == "full"
        for _ in range(200):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex((urlsplit(url).hostname, urlsplit(url).port))
        time.sleep(1.5)
        assert float(ask()) < 0.4, "seconds of CPU time"
        stack.close()
        time.sleep(1.1)  # the event loop tries again each second
        assert is_served(url)
        process.stdin.write("\n")
        process.stdin.close()
        assert process.wait(10) == 0 and process.stderr.read() == ""
