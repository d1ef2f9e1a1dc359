"""Keeps one decode worker busy, and decides what it means when the worker ends."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections import deque
from queue import Empty, SimpleQueue

import pyarrow as pa

from flowers_batch.decoding.decode_worker import DECODING, READING, WAITING
from flowers_batch.decoding.groups import BUG, DECODED, Answer, BrokenAnswerError, failed_row
from flowers_batch.decoding.shared_memory import Array
from flowers_batch.decoding.tasks import CLOSED, DecodedGroup, Task
from flowers_batch.decoding.worker_process import ForkServerProcess, WorkerEnd, WorkerProcess
from flowers_batch.errors import FlowersError, InputError, RunError, first_line

READ_SECONDS = 120.0  # without an end of reading, after which a read is tried again
HANG_SECONDS = 60.0  # of decoding without any CPU time, as in a deadlock
_IN_FLIGHT = 2  # tasks that a worker has, so that it never waits for one
_MAX_SECONDS = 2.0  # that count between two ticks: if this process was stopped, as by Ctrl-Z, its workers are not late
_CPU_PRECISION = 0.02  # seconds; the kernel counts in hundredths
_MAX_ENDS = 5  # of workers in a row, while they work on no image

CRASH, SPIN, HANG, READ, KILLED = "crash", "spin", "hang", "read", "killed"
# How often an image may end a worker in each way; only being killed is not its fault.
_TRIES = {CRASH: 2, SPIN: 1, HANG: 2, READ: 3, KILLED: 5}
_CRASHES = {signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE, signal.SIGSYS}


class Supervisor(threading.Thread):
    """Keeps one decode worker busy: starts it, gives it tasks, takes its answers, and replaces it when it ends.

    Args:
        server: What starts the worker.
        index: Which worker it is.
        notes: What the worker notes of itself, in shared memory: int64 [3], as `decode_worker` writes it.
        tasks: Where tasks come from; None ends the thread.
        is_closed: Whether the pool is closed.
        image_timeout: CPU seconds that decoding an image may take.

    Attributes:
        steps: Grows as long as the worker makes progress, or is within its time.
    """

    def __init__(
        self,
        server: ForkServerProcess,
        index: int,
        notes: Array,
        tasks: SimpleQueue[Task | None],
        is_closed: threading.Event,
        image_timeout: float,
    ):
        super().__init__(name=f"decode-{index}", daemon=True)
        self.steps = 0
        self._server, self._index, self._tasks, self._is_closed = server, index, tasks, is_closed
        self._watch = _Watch(notes)
        self._image_timeout = image_timeout
        self._again: deque[Task] = deque()  # tasks that come before others
        self._ends = 0  # of workers in a row

    def run(self) -> None:
        """Work until the pool is closed; if no worker can be kept alive, fail whatever is submitted."""
        given: deque[Task] = deque()
        try:
            while not self._is_closed.is_set():
                self._work_with_one(given)
            error: FlowersError = CLOSED
        except FlowersError as raised:
            error = raised
        for task in (*given, *self._again):
            task.fail(error)
        while not self._is_closed.is_set() and (next_task := self._tasks.get()):
            next_task.fail(error)

    def _work_with_one(self, given: deque[Task]) -> None:
        """Start a worker, and work with it until it ends, or the pool is closed."""
        worker = self._server.start_worker(self._index)
        self._watch.start(worker)
        try:
            self._work(worker, given)
        except WorkerEnd as end:
            if not self._is_closed.is_set():
                self._on_end(given, end.code)
        except BrokenAnswerError:
            worker.kill()
            self._on_broken_answer(given)
        finally:
            worker.end()

    def _work(self, worker: WorkerProcess, given: deque[Task]) -> None:
        """Give tasks to a worker, and take its answers, until the pool is closed.

        Args:
            worker: The worker.
            given: Its tasks: changed, so that it says what the worker had when it ended.
        """
        while True:
            while len(given) < _IN_FLIGHT and not (given and given[0].is_alone):
                task = self._next(wait=not given)
                if task is None:
                    break
                given.append(task)
                worker.send(task.request().encode(), self._tick)
            if not given:
                return
            answer = worker.receive(self._tick)
            if answer.number != given[0].number:
                raise BrokenAnswerError
            self._take(given[0], answer)
            given.popleft()
            self._ends = 0
            self.steps += 1

    def _next(self, *, wait: bool) -> Task | None:
        if self._again:
            return self._again.popleft()
        try:
            return self._tasks.get(wait)
        except Empty:
            return None

    def _take(self, task: Task, answer: Answer) -> None:
        if answer.kind == DECODED:
            task.finish(DecodedGroup(answer.rows(len(task.rows)), answer.read_seconds, answer.decode_seconds))
            return
        text = bytes(answer.body).decode(errors="replace")
        if answer.kind == BUG:
            print(text, file=sys.stderr, flush=True)
            paths = task.rows["path"]
            last = first_line(RunError(text.strip().splitlines()[-1]))
            task.fail(
                RunError(f"Decoding stopped because of a bug, on one of {len(paths)} images from {paths[0]} on: {last}")
            )
        else:
            task.fail((InputError if text[:1] == "2" else RunError)(text[1:]))

    def _tick(self) -> None:
        """End a worker that hangs."""
        self.steps += 1
        self._watch.check()

    def _on_end(self, given: deque[Task], code: int | None) -> None:
        place = self._watch.place_in(given[0]) if given else None
        if place is None:  # it has worked on no image
            self._again.extendleft(reversed(given))
            given.clear()
            self._ends += 1
            if self._ends == _MAX_ENDS:
                raise RunError(
                    f"{_MAX_ENDS} processes that decode images ended in a row ({_describe(code)}): see the log."
                )
            return
        task = given.popleft()
        self._again.extendleft(reversed(given))
        given.clear()
        self._blame(task, place, self._kind(code), code)

    def _kind(self, code: int | None) -> str:
        if self._watch.verdict:
            return self._watch.verdict
        if code is not None and -code == signal.SIGXCPU:
            return SPIN
        return CRASH if code is not None and (code >= 0 or -code in _CRASHES) else KILLED

    def _on_broken_answer(self, given: deque[Task]) -> None:
        """Try each image of a group alone: one of them may have taken the worker over."""
        task = given.popleft()
        self._again.extendleft(reversed(given))
        given.clear()
        if task.is_alone:
            self._blame(task, 0, CRASH, None)
            return
        self._again.extendleft(task.part(place, place + 1, is_alone=True) for place in reversed(range(len(task.rows))))

    def _blame(self, task: Task, place: int, kind: str, code: int | None) -> None:
        """Try an image again alone that has ended a worker, or make it a failed row."""
        alone = task if task.is_alone else task.part(place, place + 1, is_alone=True)
        alone.ends[kind] += 1
        rest = []
        if not task.is_alone:
            rest = [task.part(start, stop) for start, stop in ((0, place), (place + 1, len(task.rows))) if start < stop]
        self._again.extendleft(reversed(rest))
        if alone.ends[kind] < _TRIES[kind]:
            self._again.appendleft(alone)
        elif kind == KILLED:
            path = alone.rows["path"][0].as_py()
            alone.fail(
                RunError(
                    f"The process that decodes {path} was killed {_TRIES[KILLED]} times in a row ({_describe(code)}): "
                    "check that the machine has enough memory, and run the same command again."
                )
            )
        else:
            alone.finish(DecodedGroup(self._failure(kind, code)))

    def _failure(self, kind: str, code: int | None) -> pa.RecordBatch:
        if kind == CRASH:
            return failed_row("crashed_decoder", f"Decoding it ends the process with {_describe(code)}.")
        if kind == READ:
            return failed_row("unreadable", f"Reading it takes more than {READ_SECONDS:g} seconds.")
        if kind == HANG:
            return failed_row("timeout", "Decoding it waits for ever.")
        return failed_row("timeout", f"Decoding it takes more than {self._image_timeout:g} seconds of CPU time.")


class _Watch:
    """Watches what a worker does.

    Args:
        notes: What the worker notes of itself.

    Attributes:
        verdict: Why the worker was killed: `READ` or `HANG`; None if it was not.
    """

    def __init__(self, notes: Array):
        self._notes = notes
        self.verdict: str | None = None

    def start(self, worker: WorkerProcess) -> None:
        """Begin with a new worker."""
        self._worker, self.verdict = worker, None
        self._notes[:] = 0
        self._seen: tuple[int, ...] = ()
        self._checked, self._cpu, self._seconds = time.monotonic(), 0.0, 0.0

    def check(self) -> None:
        """Kill the worker if it reads one image for too long, or decodes one without using the CPU."""
        now, seen = time.monotonic(), tuple(self._notes.tolist())
        passed, self._checked = min(now - self._checked, _MAX_SECONDS), now
        cpu, before = self._worker.cpu_seconds(), self._cpu
        self._cpu = cpu
        state = seen[2]
        if (
            seen != self._seen
            or state not in (READING, DECODING)
            or (state == DECODING and cpu > before + _CPU_PRECISION)
        ):
            self._seen, self._seconds = seen, 0.0
            return
        self._seconds += passed
        if self._seconds > (READ_SECONDS if state == READING else HANG_SECONDS):
            self.verdict = READ if state == READING else HANG
            self._worker.kill()

    def place_in(self, task: Task) -> int | None:
        """Return the place in a task of the image that the worker has worked on; None if it has on none."""
        group, place, state = self._notes.tolist()
        is_on_one = state in (READING, DECODING, WAITING) and group == task.number and 0 <= place < len(task.rows)
        return place if is_on_one else None


def _describe(code: int | None) -> str:
    if code is None:
        return "an unknown cause"
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
