"""Keeps one decode worker busy, and decides what it means when the worker ends."""

from __future__ import annotations

import signal
import sys
import threading
import traceback
from collections import deque
from queue import Empty, SimpleQueue

import pyarrow as pa

from flowers_batch.decoding import watch
from flowers_batch.decoding.groups import BUG, DECODED, Answer, BrokenAnswerError, failed_row
from flowers_batch.decoding.shared_memory import Array
from flowers_batch.decoding.tasks import TASKS_PER_WORKER, DecodedGroup, Task, closed_error
from flowers_batch.decoding.worker_process import ForkServerProcess, WorkerEnd, WorkerProcess
from flowers_batch.errors import FlowersError, InputError, RunError, first_line
from flowers_batch.text import visible, visible_lines

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
        self._watch = watch.Watch(notes)
        self._image_timeout = image_timeout
        self._again: deque[Task] = deque()  # tasks that come before others
        self._ends = 0  # of workers in a row

    def run(self) -> None:
        """Work until the pool is closed; if no worker can be kept alive, fail whatever is submitted."""
        given: deque[Task] = deque()
        error: FlowersError = closed_error()
        try:
            while not self._is_closed.is_set():
                self._work_with_one(given)
        except FlowersError as raised:
            error = raised
        except OSError as raised:  # open files or processes are used up
            error = RunError(f"The processes that decode images cannot be started: {first_line(raised)}")
        except Exception as raised:
            traceback.print_exc()
            error = RunError(f"Decoding stopped because of a bug: {first_line(raised)}")
        error = closed_error() if self._is_closed.is_set() else error
        for task in (*given, *self._again):
            task.fail(error)
        while next_task := self._next(wait=True):
            next_task.fail(error)

    def _work_with_one(self, given: deque[Task]) -> None:
        """Start a worker, and work with it until it ends, or the pool is closed."""
        worker = self._server.start_worker(self._index)
        self._watch.start(worker)
        try:
            self._work(worker, given)
        except WorkerEnd as end:
            if not self._is_closed.is_set():
                self._on_end(given, end.kind or _kind(end.code), end.code)
        except BrokenAnswerError:
            worker.kill()
            self._on_end(given, CRASH, None, is_certain=False)
        finally:
            worker.end()

    def _work(self, worker: WorkerProcess, given: deque[Task]) -> None:
        """Give tasks to a worker, and take its answers, until the pool is closed.

        Args:
            worker: The worker.
            given: Its tasks: changed, so that it says what the worker had when it ended.
        """
        while True:
            while len(given) < TASKS_PER_WORKER and not (given and given[0].is_alone):
                task = self._next(wait=not given)
                if task is None:
                    break
                given.append(task)
                worker.send(task.request().encode(), lambda: self._tick(worker))
            if not given:
                return
            answer = worker.receive(lambda: self._tick(worker))
            if answer.number != given[0].number:
                raise BrokenAnswerError("It is of another group.")
            self._take(given[0], answer)
            given.popleft()
            self._ends = 0
            self.steps += 1

    def _next(self, *, wait: bool) -> Task | None:
        """Return the next task; None if there is none, or the pool is closed."""
        if self._again:
            return self._again.popleft()
        try:
            task = self._tasks.get(wait)
        except Empty:
            return None
        if task is None:
            self._tasks.put(None)  # others wait for it too
        return task

    def _take(self, task: Task, answer: Answer) -> None:
        if answer.kind == DECODED:
            task.finish(DecodedGroup(answer.rows(len(task.rows)), answer.read_seconds, answer.decode_seconds))
            return
        text = bytes(answer.body).decode(errors="replace")
        if not text.strip():
            raise BrokenAnswerError("It says nothing.")
        if answer.kind == BUG:
            print(visible_lines(text), file=sys.stderr, flush=True)
            paths = task.rows["path"]
            last = visible(first_line(RunError(text.strip().splitlines()[-1])))
            task.fail(
                RunError(f"Decoding stopped because of a bug, on one of {len(paths)} images from {paths[0]} on: {last}")
            )
        else:
            task.fail((InputError if text[:1] == "2" else RunError)(text[1:]))

    def _tick(self, worker: WorkerProcess) -> None:
        """Give a worker up that is late, or whose pool is closed."""
        self.steps += 1
        if self._watch.is_late() or self._is_closed.is_set():
            kind = READ if self._watch.is_reading() else HANG
            worker.kill()
            worker.end()  # or not: one that waits for a disk for ever outlives being killed
            raise WorkerEnd(None, kind)

    def _on_end(self, given: deque[Task], kind: str, code: int | None, *, is_certain: bool = True) -> None:
        """Have a worker's tasks done again, and find out which image has ended it.

        Args:
            given: Its tasks.
            kind: How it ended.
            code: As `WorkerEnd` has it.
            is_certain: Whether the image that it was working on has ended it.
        """
        has_begun = bool(given) and self._watch.has_begun(given[0])
        task = given.popleft() if has_begun else None
        self._again.extendleft(reversed(given))
        given.clear()
        if task is None:
            self._count_end(code)
        elif task.is_alone:
            self._blame(task, kind, code)
        elif (place := self._watch.place_in(task)) is None or not is_certain:
            # An image may damage the process, which ends later, or take it over.
            self._again.extendleft(
                task.part(place, place + 1, is_alone=True) for place in reversed(range(len(task.rows)))
            )
        else:
            rest = [task.part(start, stop) for start, stop in ((0, place), (place + 1, len(task.rows))) if start < stop]
            self._again.extendleft(reversed(rest))
            self._blame(task.part(place, place + 1, is_alone=True), kind, code)

    def _count_end(self, code: int | None) -> None:
        """Count workers that end in a row although they work on no image.

        Raises:
            RunError: There were too many.
        """
        self._ends += 1
        if self._ends == _MAX_ENDS:
            raise RunError(f"{_MAX_ENDS} processes that decode images ended in a row ({_describe(code)}): see the log.")

    def _blame(self, alone: Task, kind: str, code: int | None) -> None:
        """Try an image again alone that has ended a worker, or make it a failed row."""
        alone.ends[kind] += 1
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
            how = "ends the process" if code is None else f"ends the process with {_describe(code)}"
            return failed_row("crashed_decoder", f"Decoding it {how}.")
        if kind == READ:
            return failed_row("unreadable", f"Reading it takes more than {watch.READ_SECONDS:g} seconds.")
        if kind == HANG:
            return failed_row("timeout", "Decoding it waits for ever.")
        return failed_row("timeout", f"Decoding it takes more than {self._image_timeout:g} seconds of CPU time.")


def _kind(code: int | None) -> str:
    if code is None:
        return KILLED
    if -code == signal.SIGXCPU:
        return SPIN
    return CRASH if code >= 0 or -code in _CRASHES else KILLED


def _describe(code: int | None) -> str:
    if code is None:
        return "an unknown cause"
    if code >= 0:
        return f"exit code {code}"
    return signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
