"""Lanes in which requests are worked on: a bounded number of threads each, and a bounded number of requests waiting."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

Result = TypeVar("Result")


class Busy(Exception):
    """Too many requests wait in a lane: the request is to be sent again later."""


class NoLongerWanted(Exception):
    """The request was given up while it waited."""


class Lane:
    """Runs work of one kind in a bounded number of threads, so that other kinds do not wait for it.

    The threads are daemons: the server does not wait for them when it stops, since a photo on a network disk, for
    example, may take minutes.

    Args:
        threads: Requests that are worked on at the same time.
        waiting: Requests that wait for these.
    """

    def __init__(self, threads: int, waiting: int):
        self._free_threads = asyncio.Semaphore(threads)
        self._free_places = threads + waiting

    @contextmanager
    def place(self) -> Iterator[None]:
        """Take a place in the lane until the block ends.

        Raises:
            Busy: There is none.
        """
        if not self._free_places:
            raise Busy
        self._free_places -= 1
        try:
            yield
        finally:
            self._free_places += 1

    async def run(self, work: Callable[[], Result], is_wanted: Callable[[], Awaitable[bool]] | None = None) -> Result:
        """Return the result of `work`, run in a thread; the caller has a place.

        Args:
            work: What to do.
            is_wanted: Asked when a thread is free.

        Raises:
            NoLongerWanted: It said no.
        """
        await self._free_threads.acquire()
        try:
            if is_wanted is not None and not await is_wanted():
                raise NoLongerWanted
            outcome = self._start(work)
        except BaseException:
            self._free_threads.release()
            raise
        return await asyncio.shield(outcome)

    def _start(self, work: Callable[[], Result]) -> asyncio.Future[Result]:
        """Start a thread, and return its outcome to come; the thread is free again when the work ends, not before."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()

        def finish(result: Any, error: BaseException | None) -> None:
            self._free_threads.release()
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        def run() -> None:
            result, failure = None, None
            try:
                result = work()
            except BaseException as error:
                failure = error
            with suppress(RuntimeError):  # the server has stopped
                loop.call_soon_threadsafe(finish, result, failure)

        threading.Thread(target=run, daemon=True).start()
        return future
