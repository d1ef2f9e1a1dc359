import errno
import hashlib
import http.server
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from planting import PLANTS, plant

from tensorflow_vgg import download
from tensorflow_vgg.download import DownloadError, PublishedFile

CONTENT = bytes(range(256)) * 1200 + b"end"
PIECE = 100_000


class Publisher(http.server.ThreadingHTTPServer):
    """Serves the same content under any name, and records the requests."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.cut = None  # bytes after which the answer breaks off
        self.resets = False  # whether it then resets the connection instead of closing it
        self.knows_ranges = True
        self.delay = 0.0
        self.ranges = []  # the Range header of each GET, or None

    @property
    def file(self):
        digest = hashlib.md5(CONTENT).hexdigest()
        return PublishedFile(f"http://127.0.0.1:{self.server_port}/weights.h5", len(CONTENT), f"md5:{digest}")

    def handle_error(self, *_):
        pass


class Handler(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.send_response(200)
        self.end_headers()

    def do_GET(self):
        server = self.server
        asked = self.headers.get("Range")
        server.ranges.append(asked)
        time.sleep(server.delay)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and server.knows_ranges else 0
        if start >= len(server.content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(server.content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
        self.end_headers()
        self.wfile.write(server.content[start:][: server.cut])
        if server.cut is not None and server.resets:
            time.sleep(0.2)  # for the client to read what was sent
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def log_message(self, *_):
        pass


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "flowers_batch"


@pytest.fixture
def publisher():
    with Publisher() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def silent():
    """The address of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/weights.h5"


@pytest.fixture
def not_http():
    """The address of a server that does not speak HTTP."""

    def babble():
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.recv(1 << 16)
                connection.sendall(b"220 mail.example ready\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=babble, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/weights.h5"
        server.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def unreachable():
    """An address without a server."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return f"http://127.0.0.1:{port}/weights.h5"


def assert_is_a_sentence(error, *words):
    message = str(error.value)
    assert "\n" not in message
    assert message.endswith(".")
    assert all(word in message for word in words)


def test_fetch_stores_a_file_in_the_cache_and_requests_it_once(cache, publisher):
    path = download.fetch(publisher.file)
    assert path == cache / "weights.h5"
    assert path.read_bytes() == CONTENT
    assert download.find_cached(publisher.file) == path
    assert download.fetch(publisher.file) == path
    assert publisher.ranges == [None]
    assert not (cache / "weights.h5.part").exists()


def test_fetch_verifies_sha256(publisher):
    file = publisher.file
    good = PublishedFile(file.url, file.size, f"sha256:{hashlib.sha256(CONTENT).hexdigest()}")
    assert download.fetch(good).read_bytes() == CONTENT


def test_cache_folder_is_in_the_home_folder_by_default(monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert download.cache_folder() == tmp_path / "home" / ".cache" / "flowers_batch"


def test_find_cached_ignores_a_file_of_another_size(cache, publisher):
    cache.mkdir()
    (cache / "weights.h5").write_bytes(CONTENT[:-1])
    assert download.find_cached(publisher.file) is None
    assert download.fetch(publisher.file).read_bytes() == CONTENT


@pytest.mark.parametrize("wrong", [CONTENT[:-1] + b"!", CONTENT[:-9], CONTENT + b"more"])
def test_wrong_content_is_refused_and_not_kept(cache, publisher, wrong):
    publisher.content = wrong
    with pytest.raises(DownloadError) as error:
        download.fetch(publisher.file)
    assert_is_a_sentence(
        error, publisher.file.url, hashlib.md5(CONTENT).hexdigest(), hashlib.md5(wrong).hexdigest(), "Received"
    )
    assert {path.name for path in cache.iterdir()} <= {"weights.h5.lock"}
    publisher.content = CONTENT
    assert download.fetch(publisher.file).read_bytes() == CONTENT
    assert publisher.ranges == [None, None]


@pytest.mark.parametrize("resets", [False, True])
@pytest.mark.parametrize("knows_ranges", [True, False])
def test_fetch_resumes_a_broken_download(cache, publisher, resets, knows_ranges):
    publisher.cut, publisher.resets, publisher.knows_ranges = PIECE, resets, knows_ranges
    with pytest.raises(DownloadError) as error:
        download.fetch(publisher.file)
    assert_is_a_sentence(error, publisher.file.url)
    assert not (cache / "weights.h5").exists()
    if resets:  # the last block before the reset may be lost
        (cache / "weights.h5.part").write_bytes(CONTENT[:PIECE])
    assert (cache / "weights.h5.part").read_bytes() == CONTENT[:PIECE]
    publisher.cut = None
    assert download.fetch(publisher.file).read_bytes() == CONTENT
    assert publisher.ranges == [None, f"bytes={PIECE}-"]


def test_full_disk_is_not_mistaken_for_the_network(cache, publisher, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download.os, "fsync", fail)
    with pytest.raises(DownloadError) as error:
        download.fetch(publisher.file)
    assert_is_a_sentence(
        error, f"{cache}/weights.h5.part cannot be written (No space left on device)", "XDG_CACHE_HOME"
    )


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EROFS])
def test_cache_that_cannot_be_locked_or_written_is_a_sentence(cache, publisher, monkeypatch, number):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(download.fcntl, "flock", fail)
    with pytest.raises(DownloadError) as error:
        download.fetch(publisher.file)
    assert_is_a_sentence(error, f"{cache} cannot be written ({os.strerror(number)})", "XDG_CACHE_HOME")
    assert publisher.ranges == []


def test_fetch_completes_a_file_over_several_broken_downloads(publisher):
    publisher.cut = PIECE
    for _ in range(len(CONTENT) // PIECE):
        with pytest.raises(DownloadError, match="broke off"):
            download.fetch(publisher.file)
    assert download.fetch(publisher.file).read_bytes() == CONTENT
    assert publisher.ranges == [None, *(f"bytes={start}-" for start in range(PIECE, len(CONTENT), PIECE))]


def test_complete_download_is_not_fetched_again(cache, publisher):
    cache.mkdir()
    (cache / "weights.h5.part").write_bytes(CONTENT)
    assert download.fetch(publisher.file).read_bytes() == CONTENT
    assert publisher.ranges == [f"bytes={len(CONTENT)}-"]


def test_partial_download_of_another_file_is_discarded(cache, publisher):
    cache.mkdir()
    (cache / "weights.h5.part").write_bytes(b"x" * PIECE)
    assert download.fetch(publisher.file).read_bytes() == CONTENT
    assert publisher.ranges == [f"bytes={PIECE}-", None]


@pytest.mark.parametrize("name", ["weights.h5.lock", "weights.h5.part"])
@pytest.mark.parametrize("kind", PLANTS)
def test_planted_file_in_the_cache_is_refused_and_its_target_stays(cache, publisher, private, kind, name):
    cache.mkdir()
    plant(kind, cache / name, private)
    with pytest.raises(DownloadError) as error:
        download.fetch(publisher.file)
    assert_is_a_sentence(error, f"{cache}/{name} cannot be written, since it is a link or no regular file: delete it.")


def test_fetch_reports_pieces_as_progress(cache, publisher, monkeypatch):
    monkeypatch.setattr(download, "_BLOCK_BYTES", PIECE)
    calls = []
    download.fetch(publisher.file, progress=lambda: calls.append(1))
    assert len(calls) == 1 + len(CONTENT) // PIECE


def test_fetch_waits_for_another_process_until_it_is_killed(cache, publisher):
    """It reports progress meanwhile, and resumes what the other one received."""
    cache.mkdir()
    (cache / "weights.h5.part").write_bytes(CONTENT[:PIECE])
    script = "import fcntl, sys, time; lock = open(sys.argv[1], 'w'); fcntl.flock(lock, 2); print(flush=True)"
    command = [sys.executable, "-c", f"{script}; time.sleep(600)", str(cache / "weights.h5.lock")]
    calls = []
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline()

        def waited():
            calls.append(1)
            if len(calls) == 2:
                assert publisher.ranges == []
                other.kill()

        assert download.fetch(publisher.file, progress=waited).read_bytes() == CONTENT
    assert publisher.ranges == [f"bytes={PIECE}-"]


def test_cache_that_cannot_be_made_is_named(monkeypatch, publisher):
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/none")
    assert download.find_cached(publisher.file) is None
    with pytest.raises(DownloadError) as error:
        download.fetch(publisher.file)
    assert_is_a_sentence(error, "/proc/none/flowers_batch cannot be written", "XDG_CACHE_HOME")


def test_cache_without_a_home_folder_is_a_sentence(monkeypatch, publisher):
    def no_home(path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "expanduser", no_home)
    assert download.find_cached(publisher.file) is None
    with pytest.raises(DownloadError) as error:
        download.fetch(publisher.file)
    assert_is_a_sentence(error, "no home folder", "XDG_CACHE_HOME")


def test_eight_threads_download_once(publisher):
    publisher.delay = 0.2
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(download.fetch, [publisher.file] * 8))
    assert [path.read_bytes() == CONTENT for path in paths] == [True] * 8
    assert publisher.ranges == [None]


def test_eight_processes_download_once(tmp_path, publisher):
    publisher.delay = 0.5
    script = (
        "import sys, time; from pathlib import Path; from tensorflow_vgg.download import PublishedFile, fetch\n"
        "Path(sys.argv[4]).touch()\n"
        "while not Path(sys.argv[5]).exists(): time.sleep(0.01)\n"
        "print(fetch(PublishedFile(sys.argv[1], int(sys.argv[2]), sys.argv[3])))"
    )
    file, go = publisher.file, tmp_path / "go"
    ready = [tmp_path / f"ready{index}" for index in range(8)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, file.url, str(file.size), file.checksum, str(path), str(go)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(download.__file__).parents[1])},
        )
        for path in ready
    ]
    while not all(path.exists() for path in ready) and all(process.poll() is None for process in processes):
        time.sleep(0.01)
    go.touch()
    answers = {process.communicate(timeout=30)[0].strip() for process in processes}
    assert answers == {str(download.find_cached(file))}
    assert publisher.ranges == [None]


def test_unreachable_server_is_reported(unreachable):
    with pytest.raises(DownloadError) as error:
        download.fetch(PublishedFile(unreachable, 5, "md5:0"))
    assert_is_a_sentence(error, unreachable, "refused")


def test_server_of_another_protocol_is_reported(not_http):
    with pytest.raises(DownloadError) as error:
        download.fetch(PublishedFile(not_http, 5, "md5:0"))
    assert_is_a_sentence(error, not_http)


def test_fetch_times_out_on_a_silent_server(silent):
    with pytest.raises(DownloadError) as error:
        download.fetch(PublishedFile(silent, 5, "md5:0"), 0.2)
    assert_is_a_sentence(error, silent, "timed out")


def test_missing_file_is_reported(publisher, monkeypatch):
    monkeypatch.setattr(Handler, "do_GET", lambda self: self.send_error(404))
    with pytest.raises(DownloadError) as error:
        download.fetch(publisher.file)
    assert_is_a_sentence(error, publisher.file.url, "404")


def test_server_that_answers_is_reachable(publisher):
    assert download.is_reachable(publisher.file) is True
    assert publisher.ranges == []


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_refusing_and_non_http_servers_are_not_reachable(unreachable, not_http):
    assert download.is_reachable(PublishedFile(unreachable, 5, "md5:0")) is False
    assert download.is_reachable(PublishedFile(not_http, 5, "md5:0")) is False


def test_silent_server_is_unreachable_in_time(silent):
    began = time.monotonic()
    assert download.is_reachable(PublishedFile(silent, 5, "md5:0"), 0.3) is False
    assert time.monotonic() - began < 1


def test_is_reachable_gives_up_on_a_silent_dns_server_in_time(publisher, monkeypatch):
    asked, over = threading.Event(), threading.Event()

    def look_up(*_, **__):
        asked.set()
        over.wait(10)
        raise OSError

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    began = time.monotonic()
    assert download.is_reachable(publisher.file, 0.3) is False
    assert time.monotonic() - began < 1
    assert asked.is_set()
    over.set()
