"""Lanes bound the threads and the requests of each kind of work."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from flowers_batch.pages.review.lanes import Busy, Lane, NoLongerWanted


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine in a thread of its own: the browser's tests leave a loop that runs in this one."""
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(asyncio.run, work).result(20)


async def in_place(lane: Lane, work: Any, *rest: Any) -> Any:
    with lane.place():
        return await lane.run(work, *rest)


def test_threads_of_a_lane_are_bounded():
    lock, running, most = threading.Lock(), [0], [0]

    def work() -> None:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        threading.Event().wait(0.02)
        with lock:
            running[0] -= 1

    async def requests() -> None:
        lane = Lane(3, 100)
        await asyncio.gather(*(in_place(lane, work) for _ in range(30)))

    run(requests())
    assert most == [3]


def test_slow_work_of_one_lane_does_not_delay_another():
    hold = threading.Event()

    async def requests() -> str:
        slow, quick = Lane(2, 100), Lane(1, 1)
        waiting = [asyncio.ensure_future(in_place(slow, hold.wait)) for _ in range(50)]
        await asyncio.sleep(0)
        done = await in_place(quick, lambda: "saved")
        hold.set()
        await asyncio.gather(*waiting)
        return done

    assert run(requests()) == "saved"


def test_full_lane_refuses_and_serves_again_afterwards():
    hold = threading.Event()

    async def requests() -> None:
        lane = Lane(1, 2)
        held = [asyncio.ensure_future(in_place(lane, hold.wait)) for _ in range(3)]
        await asyncio.sleep(0.01)
        with pytest.raises(Busy):
            await in_place(lane, hold.wait)
        hold.set()
        await asyncio.gather(*held)
        assert await in_place(lane, lambda: 3) == 3

    run(requests())


def test_thread_of_a_cancelled_request_is_free_when_its_work_ends():
    hold, started = threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        hold.wait()

    async def requests() -> None:
        lane = Lane(1, 2)
        request = asyncio.ensure_future(in_place(lane, work))
        await asyncio.to_thread(started.wait)
        request.cancel()
        following = asyncio.ensure_future(in_place(lane, lambda: "done"))
        await asyncio.sleep(0.05)
        assert not following.done()
        hold.set()
        assert await following == "done"

    run(requests())


def test_work_no_longer_wanted_is_not_started_and_errors_are_passed_on():
    done = []

    async def no() -> bool:
        return False

    def fail() -> None:
        raise ValueError("no")

    async def requests() -> None:
        lane = Lane(1, 2)
        with pytest.raises(NoLongerWanted):
            await in_place(lane, lambda: done.append(1), no)
        with pytest.raises(ValueError, match="no"):
            await in_place(lane, fail)
        assert await in_place(lane, lambda: 3) == 3

    run(requests())
    assert not done
