"""A pool of worker processes that read and decode images into shared memory.

Images are untrusted, and the libraries that read them are written in C: whatever an image does to the process that
decodes it, it becomes a row, and its neighbours are decoded.
"""

from __future__ import annotations

import atexit
import math
import os
import pickle
import tempfile
import threading
import weakref
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from queue import SimpleQueue
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa

from flowers_batch.decoding.decode_worker import NOTE_DTYPE, NOTE_FIELDS, Handles, Setup
from flowers_batch.decoding.outputs import Output
from flowers_batch.decoding.shared_memory import Array, make_memory_file, map_array
from flowers_batch.decoding.supervisor import Supervisor
from flowers_batch.decoding.tasks import Collector, DecodedGroup, Task, closed_error
from flowers_batch.decoding.worker_process import ForkServerProcess
from flowers_batch.sources.source import Source
from flowers_batch.storage.own_files import open_own_file

_LOCK = "flowers-large-photos"  # begins the name of a file in the temporary folder, one per user
GROUP = 32  # images that a worker is best given at once
_MAX_GROUP = 64  # images whose requests and answers a socket holds, so that neither side waits for the other to read


@dataclass(frozen=True)
class PoolSettings:
    """How images are decoded.

    Attributes:
        workers: Processes.
        max_pixels: Photos with more fail as `too_large`.
        image_timeout: CPU seconds that decoding an image may take; one that takes more fails as `timeout`.
    """

    workers: int
    max_pixels: int
    image_timeout: float


class DecodePool:
    """Worker processes that read and decode images into shared memory.

    They are starting when this returns; a pool that cannot start fails whatever is submitted to it.

    Args:
        source: Where images are read from.
        output: What is made of an image.
        settings: How.
        slots: Images that the shared memory has room for.

    Attributes:
        slots: The shared memory: [slots, *output.shape].
        settings: As given.
    """

    def __init__(self, source: Source, output: Output, settings: PoolSettings, slots: int):
        self.settings = settings
        self._numbers, self._is_closed = count(1), threading.Event()
        self._tasks: SimpleQueue[Task | None] = SimpleQueue()
        with ExitStack() as opened:
            shape, note_shape = (slots, *output.shape), (settings.workers, NOTE_FIELDS)
            slot_bytes = math.prod(shape) * np.dtype(output.dtype).itemsize
            handles = _share_files(opened, slot_bytes, math.prod(note_shape) * NOTE_DTYPE.itemsize)
            self.slots: Array = map_array(handles.slots, shape, output.dtype)
            notes = map_array(handles.notes, note_shape, NOTE_DTYPE)
            setup = Setup(source, output, slots, settings.workers, settings.max_pixels, settings.image_timeout, handles)
            self._server = ForkServerProcess(
                pickle.dumps(setup), (handles.slots, handles.notes, handles.lock), source.may_read_stores
            )
            self._handles = opened.pop_all()  # a server that is started again inherits them
        self._supervisors = [
            Supervisor(self._server, index, notes[index], self._tasks, self._is_closed, settings.image_timeout)
            for index in range(settings.workers)
        ]
        for supervisor in self._supervisors:
            supervisor.start()
        _POOLS.add(self)

    @property
    def steps(self) -> int:
        """Grows as long as workers make progress, or are within the time that an image may take."""
        return sum(supervisor.steps for supervisor in self._supervisors)

    def submit(self, rows: pa.RecordBatch, first_slot: int) -> Future[DecodedGroup]:
        """Have one worker read and decode a few images; faster if there are `GROUP` of them than if there is one.

        Args:
            rows: At most 64 images, with the columns `groups.REQUESTS`.
            first_slot: Where the first one goes; the others follow. A slot whose image fails may hold anything.

        Returns:
            A future, which raises `InputError` if an image is none of the source's, and `RunError` if the source is no
            longer there, workers cannot be kept alive, or a bug was met.
        """
        assert 0 < len(rows) <= _MAX_GROUP and 0 <= first_slot <= len(self.slots) - len(rows)
        collector = Collector(len(rows))
        self._tasks.put(Task(next(self._numbers), rows, first_slot, collector))
        if self._is_closed.is_set():
            collector.fail(closed_error())
        return collector.future

    def close(self) -> None:
        """End all workers; what was submitted and is not finished fails."""
        if self._is_closed.is_set():
            return
        self._is_closed.set()
        for _ in self._supervisors:
            self._tasks.put(None)
        self._server.close()
        for supervisor in self._supervisors:
            supervisor.join()
        while not self._tasks.empty():
            if task := self._tasks.get():
                task.fail(closed_error())
        self._handles.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_POOLS: weakref.WeakSet[DecodePool] = weakref.WeakSet()


# A fork of this process shares the connections to the workers, but must not end them.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_POOLS.clear)


@atexit.register
def _close_pools() -> None:
    """End all workers before Python is finalized."""
    for pool in list(_POOLS):
        pool.close()


def _share_files(opened: ExitStack, slots: int, notes: int) -> Handles:
    """Make the files that workers inherit, which are closed with `opened`.

    Args:
        opened: Closes them.
        slots, notes: Bytes of shared memory.
    """
    lock = os.path.join(tempfile.gettempdir(), f"{_LOCK}-{os.geteuid()}")
    makers = (
        lambda: make_memory_file(slots, "decoded images"),
        lambda: make_memory_file(notes, "decode workers"),
        lambda: open_own_file(lock, os.O_RDWR | os.O_CREAT, 0o600),
    )
    handles = []
    for make in makers:
        handles.append(make())
        opened.callback(os.close, handles[-1])
    return Handles(*handles)
