"""Threads that make calls in order and never keep a process from ending."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

_END_SECONDS = 5.0  # a thread whose call takes longer is left alone


class DaemonThreads:
    """Threads that make calls in the order in which they were submitted, until this object is collected.

    Unlike an executor's threads they are daemons: a process that gives up a run can end.
    """

    def __init__(self, count: int, name: str):
        self._calls: SimpleQueue[tuple[Any, ...] | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=_make_calls, args=(self._calls,), name=name, daemon=True) for _ in range(count)
        ]
        for thread in self._threads:
            thread.start()
        weakref.finalize(self, _end_calls, self._calls, count).atexit = False

    def submit(self, call: Callable[..., None], *arguments: Any) -> None:
        """Queue a call."""
        self._calls.put((call, *arguments))

    def join(self) -> None:
        """End the threads after the calls that were queued; leave those that take longer than a few seconds."""
        _end_calls(self._calls, len(self._threads))
        for thread in self._threads:
            thread.join(_END_SECONDS)


def _make_calls(calls: SimpleQueue[tuple[Any, ...] | None]) -> None:
    while submitted := calls.get():
        call, *arguments = submitted
        call(*arguments)
        del submitted, call, arguments  # else they would live until the next call


def _end_calls(calls: SimpleQueue[tuple[Any, ...] | None], count: int) -> None:
    for _ in range(count):
        calls.put(None)
