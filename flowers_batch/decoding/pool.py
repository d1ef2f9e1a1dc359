"""A pool of worker processes that read and decode images into shared memory.

Images are untrusted, and the libraries that read them are written in C: whatever an image does to the process that
decodes it, it becomes a row, and its neighbours are decoded.
"""

from __future__ import annotations

import math
import os
import pickle
import tempfile
import threading
import weakref
from collections.abc import Sequence
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
# Images that a worker is given at once, at most. A socket holds the requests and answers of so many, so that neither
# side waits for the other to read.
GROUP = 64


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

    They are starting when this returns; a pool that cannot start fails whatever is submitted to it. They end when the
    pool is closed or collected, or Python ends.

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
        self._numbers, is_closed = count(1), threading.Event()
        self._tasks: SimpleQueue[Task | None] = SimpleQueue()
        with ExitStack() as opened:
            shape, note_shape = (slots, *output.shape), (settings.workers, NOTE_FIELDS)
            slot_bytes = math.prod(shape) * np.dtype(output.dtype).itemsize
            handles = _share_files(opened, slot_bytes, math.prod(note_shape) * NOTE_DTYPE.itemsize)
            self.slots: Array = map_array(handles.slots, shape, output.dtype)
            notes = map_array(handles.notes, note_shape, NOTE_DTYPE)
            setup = Setup(source, output, slots, settings.workers, settings.max_pixels, settings.image_timeout, handles)
            server = ForkServerProcess(
                pickle.dumps(setup), (handles.slots, handles.notes, handles.lock), source.may_read_stores
            )
            inherited = opened.pop_all()  # also by a server that is started again
        self._supervisors = [
            Supervisor(server, index, notes[index], self._tasks, is_closed, settings.image_timeout)
            for index in range(settings.workers)
        ]
        for supervisor in self._supervisors:
            supervisor.start()
        self._end = weakref.finalize(
            self, _end_workers, os.getpid(), server, self._supervisors, self._tasks, is_closed, inherited
        )

    @property
    def steps(self) -> int:
        """Grows as long as workers make progress, or are within the time that an image may take."""
        return sum(supervisor.steps for supervisor in self._supervisors)

    def submit(self, rows: pa.RecordBatch, first_slot: int) -> Future[DecodedGroup]:
        """Have one worker read and decode a few images; faster if there are many of them.

        Args:
            rows: At most `GROUP` images, with the columns `groups.REQUESTS`.
            first_slot: Where the first one goes; the others follow. A slot whose image fails may hold anything.

        Returns:
            A future, which raises `InputError` if an image is none of the source's, and `RunError` if the source is no
            longer there, workers cannot be kept alive, or a bug was met.
        """
        assert 0 < len(rows) <= GROUP and 0 <= first_slot <= len(self.slots) - len(rows)
        collector = Collector(len(rows))
        self._tasks.put(Task(next(self._numbers), rows, first_slot, collector))
        if not self._end.alive:
            collector.fail(closed_error())
        return collector.future

    def close(self) -> None:
        """End all workers; what was submitted and is not finished fails."""
        self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _end_workers(
    process: int,
    server: ForkServerProcess,
    supervisors: Sequence[Supervisor],
    tasks: SimpleQueue[Task | None],
    is_closed: threading.Event,
    handles: ExitStack,
) -> None:
    """End the workers of a pool that is closed, collected, or left when Python ends.

    Args:
        process: That has made the pool: a fork of it shares the connections to the workers, but must not end them.
        server, supervisors, tasks, is_closed, handles: What the pool consists of.
    """
    if os.getpid() != process:
        return
    is_closed.set()
    tasks.put(None)
    server.close()
    for supervisor in supervisors:
        if supervisor is not threading.current_thread():  # which may be the one that collects the pool
            supervisor.join()
    while not tasks.empty():
        if task := tasks.get():
            task.fail(closed_error())
    tasks.put(None)
    handles.close()


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
