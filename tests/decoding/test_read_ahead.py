"""Photos of a store are read before they are needed: how many at once, and how far ahead."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from concurrent.futures import wait
from dataclasses import dataclass, field
from typing import Any

import psutil
import pytest
from fake_store import running_store
from helpers import encoded, random_pixels

from flowers_batch.decoding import read_ahead
from flowers_batch.decoding.groups import requests_of
from flowers_batch.decoding.outputs import SquarePixels
from flowers_batch.decoding.pool import DecodePool, PoolSettings
from flowers_batch.decoding.read_ahead import AheadRead, ReadAhead
from flowers_batch.sources.folders import FolderSource
from flowers_batch.sources.images import Image, batches_of
from flowers_batch.storage.opening import open_folder

SECONDS = 60  # that nothing takes, unless something hangs
SIZE = 100  # bytes of a photo


@dataclass
class Source:
    """Photos of `SIZE` bytes.

    Attributes:
        before: Called before each is read.
        begun: The names of those whose reading has begun.
    """

    before: Callable[[], Any] = int
    begun: list[str] = field(default_factory=list)

    def read(self, image: Image) -> bytes:
        self.begun.append(image.path)
        self.before()
        return image.path.encode().ljust(SIZE)


def opened(source: Source) -> ReadAhead:
    return ReadAhead(source)  # type: ignore[arg-type]


def add(ahead: ReadAhead, count: int, listed: int = SIZE) -> list[AheadRead]:
    return [ahead.add(Image(str(number), listed)) for number in range(count)]


def ended(reads: list[AheadRead]) -> int:
    """Wait for the photos that are being read, and return how many of them have begun."""
    return len(wait([read.content for read in reads if read.content], SECONDS).done)


def test_many_photos_are_read_at_once():
    meeting = threading.Barrier(read_ahead.READS)  # which nobody passes alone
    ahead = opened(Source(lambda: meeting.wait(SECONDS)))
    reads = add(ahead, 2 * read_ahead.READS)
    assert [ahead.take(read).strip() for read in reads] == [str(number).encode() for number in range(len(reads))]


def test_bytes_that_are_read_ahead_are_bounded(monkeypatch):
    monkeypatch.setattr(read_ahead, "AHEAD_BYTES", 5 * SIZE)
    source = Source()
    ahead = opened(source)
    reads = add(ahead, 12)
    for taken, read in enumerate(reads):
        assert ended(reads) == min(taken + 5, 12)
        assert len(ahead.take(read)) == SIZE
    assert sorted(source.begun, key=int) == [read.image.path for read in reads]


@pytest.mark.parametrize("listed", [0, -1])
def test_photos_of_unknown_size_count_by_their_bytes_once_they_are_read(monkeypatch, listed):
    monkeypatch.setattr(read_ahead, "AHEAD_BYTES", 10 * SIZE)
    monkeypatch.setattr(read_ahead, "_UNLISTED_BYTES", SIZE // 2)
    released = threading.Event()
    ahead = opened(Source(lambda: released.wait(SECONDS)))
    reads = add(ahead, 40, listed)
    assert sum(read.content is not None for read in reads) == 20
    released.set()
    for taken, read in enumerate(reads):
        assert ended(reads) <= max(20, taken + 11)
        ahead.take(read)


def test_photo_larger_than_the_bound_is_read_in_its_turn(monkeypatch):
    monkeypatch.setattr(read_ahead, "AHEAD_BYTES", SIZE - 1)
    source = Source()
    ahead = opened(source)
    reads = add(ahead, 3)
    assert not source.begun
    assert [ahead.take(read).strip() for read in reads] == [b"0", b"1", b"2"] and source.begun == ["0", "1", "2"]


def test_dropped_photos_make_room_and_are_not_read(monkeypatch):
    monkeypatch.setattr(read_ahead, "AHEAD_BYTES", 5 * SIZE)
    source = Source()
    ahead = opened(source)
    reads = add(ahead, 8)
    for read in reversed(reads):
        ended(reads)
        ahead.drop(read)
    assert sorted(source.begun) == ["0", "1", "2", "3", "4"]
    later = add(ahead, 5)
    assert ended(later) == 5


def test_error_of_a_read_is_raised_when_it_is_taken(monkeypatch):
    monkeypatch.setattr(read_ahead, "AHEAD_BYTES", 2 * SIZE)

    def fail() -> None:
        raise KeyError("gone")

    ahead = opened(Source(fail))
    for read in add(ahead, 6):
        with pytest.raises(KeyError):
            ahead.take(read)


@pytest.mark.skipif(sys.platform != "linux", reason="measures what Linux limits")
@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_many_reads_at_once_leave_a_worker_files_and_address_space(monkeypatch, scheme):
    """Names that are looked up take more of both: Google's client ends a process that has no file left."""
    measured: list[tuple[float, int]] = []

    def measure() -> None:
        worker = max(psutil.Process().children(recursive=True), key=lambda process: process.num_threads())
        fork_server = worker.parent()
        assert fork_server
        threads_bytes = worker.memory_info().vms - fork_server.memory_info().vms
        measured.append((worker.num_fds() / worker.rlimit(psutil.RLIMIT_NOFILE)[0], threads_bytes))

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    with running_store() as server:
        server.content = encoded(random_pixels(8, 9, seed=0))
        server.meeting = threading.Barrier(read_ahead.READS, measure, timeout=10)
        (rows,) = batches_of([Image(f"{number}.png", len(server.content)) for number in range(read_ahead.READS)])
        source = FolderSource(open_folder(server.url(scheme)))
        with DecodePool(source, SquarePixels("uint8"), PoolSettings(1, 10**6, 60.0), read_ahead.READS) as pool:
            assert pool.submit(requests_of(rows), 0).result(SECONDS).rows["reason"].null_count == read_ahead.READS
    ((share_of_files, threads_bytes),) = measured
    assert share_of_files < 0.5 and threads_bytes < 400 << 20


def test_worker_asks_once_for_each_photo_and_for_many_at_once(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    with running_store() as server:
        server.content = encoded(random_pixels(8, 9, seed=0))
        images = [Image(f"{number}.png", len(server.content)) for number in range(64)]
        (rows,) = batches_of(images)
        server.meeting = threading.Barrier(32, timeout=10)
        source = FolderSource(open_folder(server.url()))
        with DecodePool(source, SquarePixels("uint8"), PoolSettings(1, 10**6, 60.0), 64) as pool:
            found = pool.submit(requests_of(rows), 0).result(SECONDS).rows
        assert found["reason"].null_count == 64
        assert server.methods() == ["GET"] * 64
