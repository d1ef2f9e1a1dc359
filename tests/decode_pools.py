"""A pool of decode workers for tests, whose images may be code: see `scripted_photos`."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from helpers import descendants, encoded, listed, random_pixels, write
from pyarrow import fs
from scripted_photos import ScriptedPixels, ScriptedSource

from flowers_batch.decoding.decode import decode
from flowers_batch.decoding.groups import requests_of
from flowers_batch.decoding.pool import DecodePool, PoolSettings
from flowers_batch.decoding.tasks import DecodedGroup
from flowers_batch.sources.images import batches_of
from flowers_batch.storage.folder import Folder

WORKERS, SLOTS, SECONDS = 3, 64, 60  # seconds that nothing takes, unless something hangs
IMAGE_TIMEOUT = 1.0


@dataclass
class Photos:
    """A pool, and the folder that it reads from."""

    folder: Path
    pool: DecodePool

    def submit(self, files: dict[str, bytes], first_slot: int = 0) -> Future[DecodedGroup]:
        """Have a group of images decoded."""
        write(self.folder, {name: data for name, data in files.items() if not (self.folder / name).exists()})
        (rows,) = batches_of(listed(files))
        self.pool.slots[first_slot : first_slot + len(files)] = 0
        return self.pool.submit(requests_of(rows), first_slot)

    def failures(self, files: dict[str, bytes]) -> dict[str, tuple[str, str]]:
        """Return reasons and messages by name; the pixels of all others must be right, and in their slots."""
        rows = self.submit(files).result(SECONDS).rows.to_pylist()
        assert len(rows) == len(files)
        for slot, (row, data) in enumerate(zip(rows, files.values(), strict=True)):
            if row["reason"] is None:
                expected = decode(data[data.index(b"\x89PNG") :])
                assert (row["width"], row["height"], row["phash"]) == (expected.width, expected.height, expected.phash)
                np.testing.assert_array_equal(self.pool.slots[slot], np.rint(expected.pixels).astype(np.uint8))
        found = zip(files, rows, strict=True)
        return {name: (row["reason"], row["message"]) for name, row in found if row["reason"]}


def open_pool(folder: Path, image_timeout: float = IMAGE_TIMEOUT) -> DecodePool:
    """Start a pool that reads from a folder."""
    source: Any = ScriptedSource(Folder(str(folder), fs.LocalFileSystem(), str(folder)))
    return DecodePool(source, ScriptedPixels("uint8"), PoolSettings(WORKERS, 10**6, image_timeout), SLOTS)


def good(count: int, first: int = 0) -> dict[str, bytes]:
    """Return small images by name."""
    return {f"good-{n:03d}.png": encoded(random_pixels(8, 9, seed=n)) for n in range(first, first + count)}


def wait_until(condition: Callable[[], Any], seconds: float = SECONDS) -> bool:
    """Return whether a condition becomes true."""
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.02)
    return bool(condition())


def servers_and_workers(process: int) -> tuple[list[int], list[int]]:
    """Return the fork servers that a process has started, and their workers."""
    servers = list(children(process))
    return servers, [worker for server in servers for worker in children(server)]


def children(process: int) -> list[int]:
    """Return a process's children that decode images, or start those."""
    found = descendants(process)
    return [pid for pid, line in found.items() if "decoding.fork_server" in line and parent_of(pid) == process]


def parent_of(process: int) -> int:
    """Return the parent of a process; 0 if it has ended."""
    try:
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def is_alive(process: int) -> bool:
    """Return whether a process has not ended; one that is not waited for has."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
