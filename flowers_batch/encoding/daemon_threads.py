"""Threads that make calls in order and never keep a process from ending."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

_END_SECONDS = 5.0  # a thread that takes longer over what it is at is left to it


class _Threads:
    """Threads that make calls in the order of asking, and end with who holds them.

    Unlike an executor's, they keep no process from ending that has given up a run.
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
        self._calls.put((call, *arguments))

    def join(self) -> None:
        _end_calls(self._calls, len(self._threads))
        for thread in self._threads:
            thread.join(_END_SECONDS)


def _make_calls(calls: SimpleQueue[tuple[Any, ...] | None]) -> None:
    while asked := calls.get():
        call, *arguments = asked
        call(*arguments)
        del asked, call, arguments  # or they would live until the next ones come


def _end_calls(calls: SimpleQueue[tuple[Any, ...] | None], count: int) -> None:
    for _ in range(count):
        calls.put(None)
