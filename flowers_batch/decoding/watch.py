"""Watches what a decode worker does, by what it notes in shared memory and by the CPU time that it uses."""

from __future__ import annotations

import time

from flowers_batch.decoding.decode_worker import DECODING, READING, WAITING
from flowers_batch.decoding.shared_memory import Array
from flowers_batch.decoding.tasks import Task
from flowers_batch.decoding.worker_process import WorkerProcess

READ_SECONDS = 120.0  # without an end of reading, after which a read is tried again
HANG_SECONDS = 60.0  # of decoding without any CPU time, as in a deadlock
_MAX_SECONDS = 2.0  # that count between two checks: if this process was stopped, as by Ctrl-Z, its workers are not late
_CPU_PRECISION = 0.02  # seconds; the kernel counts in hundredths


class Watch:
    """Watches one worker after another.

    Args:
        notes: What the worker notes of itself, in shared memory: int64 [3], as `decode_worker` writes it.
    """

    def __init__(self, notes: Array):
        self._notes = notes

    def start(self, worker: WorkerProcess) -> None:
        """Begin with a new worker."""
        self._worker = worker
        self._notes[:] = 0
        self._seen: tuple[int, ...] = ()
        self._checked, self._cpu, self._seconds = time.monotonic(), 0.0, 0.0

    def is_reading(self) -> bool:
        """Return whether the worker reads an image."""
        return bool(self._notes[2] == READING)

    def is_late(self) -> bool:
        """Return whether the worker reads one image for too long, or does anything else without using the CPU.

        Time without the CPU counts from when it was last used, so that a machine with too much to do makes none late.
        """
        now, seen, cpu = time.monotonic(), tuple(self._notes.tolist()), self._worker.cpu_seconds()
        passed, self._checked = min(now - self._checked, _MAX_SECONDS), now
        state = seen[2]
        if seen != self._seen or state == WAITING or (state != READING and cpu > self._cpu + _CPU_PRECISION):
            self._seen, self._cpu, self._seconds = seen, cpu, 0.0
            return False
        self._seconds += passed
        # Between images it may open a store, or wait for memory.
        return self._seconds > (HANG_SECONDS if state == DECODING else READ_SECONDS)

    def has_begun(self, task: Task) -> bool:
        """Return whether the worker has worked on an image of a task's group."""
        return bool(self._notes[0] == task.number)

    def place_in(self, task: Task) -> int | None:
        """Return the place in a task of the image that the worker works on, or did when it ended; None if on none."""
        group, place, state = self._notes.tolist()
        is_on_one = state in (READING, DECODING, WAITING) and group == task.number and 0 <= place < len(task.rows)
        return place if is_on_one else None
