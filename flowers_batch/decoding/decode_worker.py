"""The work inside a decode worker: groups of images come in, each is read, hashed and decoded, and rows go out."""

from __future__ import annotations

import hashlib
import select
import socket
import time
import traceback
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from flowers_batch.decoding.errors import DecodeError
from flowers_batch.decoding.groups import (
    BUG,
    DECODED,
    MAX_ANSWER_BYTES,
    MISSING_MESSAGE,
    REFUSED,
    RESULTS,
    Answer,
    Request,
    read_exactly,
    receive_request,
)
from flowers_batch.decoding.outputs import Output
from flowers_batch.decoding.read_ahead import AheadRead, ReadAhead
from flowers_batch.decoding.sandbox import LARGE_BYTES, LARGE_PIXELS, LargePhotoTurns, cpu_limit, restrict_process
from flowers_batch.decoding.shared_memory import map_array
from flowers_batch.errors import FlowersError, InputError
from flowers_batch.sources.images import images_of
from flowers_batch.sources.opening import open_source  # noqa: F401  # loaded before the fork, with all kinds of sources
from flowers_batch.sources.reading import MAX_BYTES, ReadError
from flowers_batch.sources.source import Source

IDLE, READING, DECODING, WAITING = range(4)  # what a worker does with an image
# What a worker notes of itself: group, place of the image in it, and which of the above.
NOTE_FIELDS, NOTE_DTYPE = 3, np.dtype("<i8")
_MESSAGE_CHARACTERS = 1000


@dataclass(frozen=True)
class Handles:
    """Descriptors that a worker inherits.

    Attributes:
        slots, notes: Of shared memory.
        lock: Of the file that large photos lock.
    """

    slots: int
    notes: int
    lock: int


@dataclass(frozen=True)
class Setup:
    """What a worker is told when it starts.

    Attributes:
        source: Where images are read from.
        output: What it makes of an image.
        slots: How many the shared memory has.
        workers: How many there are.
        max_pixels: Photos with more fail as `too_large`.
        image_timeout: CPU seconds that decoding an image may take.
        handles: What it inherits.
    """

    source: Source
    output: Output
    slots: int
    workers: int
    max_pixels: int
    image_timeout: float
    handles: Handles


class _Notes:
    """What the parent learns of a worker, whatever happens to that."""

    def __init__(self, setup: Setup, index: int):
        self._row = map_array(setup.handles.notes, (setup.workers, NOTE_FIELDS), NOTE_DTYPE)[index]

    def write(self, group: int, place: int, state: int) -> None:
        # The state is last and first: between them it says that there is no image.
        self._row[2] = IDLE
        self._row[0], self._row[1] = group, place
        self._row[2] = state

    def change(self, state: int) -> None:
        self._row[2] = state


class DecodeWorker:
    """A worker.

    Args:
        channel: Where requests come from and answers go to.
        setup: What to do.
        index: Which worker it is.
    """

    def __init__(self, channel: socket.socket, setup: Setup, index: int):
        self._channel, self._setup = channel, setup
        self._slots = map_array(setup.handles.slots, (setup.slots, *setup.output.shape), setup.output.dtype)
        self._notes = _Notes(setup, index)
        self._turns = LargePhotoTurns(
            setup.handles.lock, partial(self._notes.change, WAITING), partial(self._notes.change, DECODING)
        )
        self._groups: deque[_Group] = deque()
        self._seconds: dict[int, float] = {}
        self._ahead = ReadAhead(setup.source)

    def serve(self) -> None:
        """Answer requests until there are no more."""
        while self._groups or self._take_request():
            group = self._groups.popleft()
            try:
                self._channel.sendall(self._answer(group).encode())
            except FlowersError as error:
                kind = b"2" if isinstance(error, InputError) else b"1"
                self._refuse(group, REFUSED, kind + str(error).encode("utf-8", "replace"))
            except Exception:
                self._refuse(group, BUG, traceback.format_exc().encode("utf-8", "replace"))
            finally:
                group.close()

    def _refuse(self, group: _Group, kind: bytes, text: bytes) -> None:
        self._notes.change(IDLE)
        answer = Answer(group.request.number, kind, 0.0, 0.0, text[-MAX_ANSWER_BYTES:])
        self._channel.sendall(answer.encode())

    def _take_request(self) -> bool:
        request = receive_request(partial(read_exactly, self._channel))
        if request is None:
            return False
        self._groups.append(_Group(request, self._setup.source, self._ahead))
        return True

    def _take_waiting_requests(self) -> None:
        """Begin to read the images of groups that come next."""
        while select.select([self._channel], [], [], 0)[0] and self._take_request():
            pass

    def _answer(self, group: _Group) -> Answer:
        self._seconds = {READING: 0.0, DECODING: 0.0}
        rows = []
        with self._turns.hold(LARGE_PIXELS + 1) if group.request.is_alone else nullcontext():
            for place in range(len(group.images)):
                if self._setup.source.may_read_stores:
                    self._take_waiting_requests()
                self._notes.write(group.request.number, place, READING)
                rows.append(self._row(group, place))
        self._notes.change(IDLE)
        columns = [pa.array(values, field.type) for values, field in zip(zip(*rows, strict=True), RESULTS, strict=True)]
        body = memoryview(pa.RecordBatch.from_arrays(columns, schema=RESULTS).serialize())
        return Answer(group.request.number, DECODED, self._seconds[READING], self._seconds[DECODING], body)

    def _row(self, group: _Group, place: int) -> tuple[Any, ...]:
        """Read and decode an image, and return its row of `RESULTS`."""
        image, slot = group.images[place], self._slots[group.request.first_slot + place]
        sha256 = size = None
        try:
            with self._turns.hold(LARGE_PIXELS + 1) if image.bytes > LARGE_BYTES else nullcontext():
                with self._timed(READING):
                    data = group.read(place)
                with self._timed(DECODING):
                    sha256, size = hashlib.sha256(data).digest(), len(data)
                    with cpu_limit(self._setup.image_timeout):
                        found = self._setup.output.write(data, slot, self._setup.max_pixels, self._turns)
            return sha256, found.phash, size, found.width, found.height, None, None
        except (ReadError, DecodeError) as error:
            reason, message = error.reason, str(error)[:_MESSAGE_CHARACTERS]
        except MemoryError:
            reason, message = "too_large", "It does not fit in memory."
        return sha256, None, size, None, None, reason, message

    @contextmanager
    def _timed(self, state: int) -> Iterator[None]:
        self._notes.change(state)
        started = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[state] += time.perf_counter() - started


class _Group:
    """Images that a worker was asked for; those in a store are read ahead."""

    def __init__(self, request: Request, source: Source, ahead: ReadAhead):
        self.request, self._source, self._ahead = request, source, ahead
        self.images = images_of(request.rows)
        self._is_missing = request.rows["is_missing"].to_pylist()
        self._reads: dict[int, AheadRead] = {}
        for place, image in enumerate(self.images) if source.may_read_stores else ():
            if image.bytes <= LARGE_BYTES and not self._is_missing[place] and source.is_in_store(image):
                self._reads[place] = ahead.add(image)

    def read(self, place: int) -> bytes:
        """Return the bytes of an image, which are not kept."""
        if self._is_missing[place]:
            raise ReadError("missing", MISSING_MESSAGE)
        if read := self._reads.pop(place, None):
            return self._ahead.take(read)
        return self._source.read(self.images[place])

    def close(self) -> None:
        """Read no more."""
        for read in self._reads.values():
            self._ahead.drop(read)


def run_worker(channel: socket.socket, setup: Setup) -> None:
    """Be a worker until the channel is closed; this process is only for that.

    Args:
        channel: Where requests come from and answers go to; the first thing is the worker's index.
        setup: What the worker is told.
    """
    index = read_exactly(channel, 4)
    if index is None:
        return
    worker = DecodeWorker(channel, setup, int.from_bytes(index, "little"))
    restrict_process(setup.max_pixels, MAX_BYTES)
    worker.serve()
