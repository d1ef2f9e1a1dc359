"""Long computations of the review run once, and one at a time."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from flowers_batch.pages.review.computation import WAITING, Computation
from flowers_batch.progress import Progress, Reporter


def result(computation: Computation[Any], version: Any) -> Any:
    deadline = time.monotonic() + 20
    while (found := computation.result(version)) is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    return found


def test_result_is_computed_once_until_its_input_changes():
    calls = []

    def compute(reporter: Reporter) -> int:
        calls.append(1)
        time.sleep(0.02)
        return len(calls)

    computation = Computation(compute, threading.Lock())
    assert [result(computation, "a") for _ in range(5)] == [1] * 5
    assert [result(computation, "b") for _ in range(5)] == [2] * 5


def test_requests_during_a_computation_start_no_other():
    hold, calls = threading.Event(), []

    def compute(reporter: Reporter) -> str:
        calls.append(1)
        reporter.update(Progress("fold 2 of 5"))
        hold.wait(20)
        return "done"

    computation = Computation(compute, threading.Lock())
    assert [computation.result(version) for version in (0, 0, 1, 0)] == [None] * 4
    while not calls:
        time.sleep(0.002)
    time.sleep(0.02)
    assert computation.step == "fold 2 of 5"
    hold.set()
    assert result(computation, 0) == "done" and len(calls) == 1


def test_patient_request_gets_the_result_of_the_computation_that_it_starts():
    hold = threading.Event()
    computation = Computation(lambda reporter: hold.wait(20), threading.Lock())
    assert computation.result("a", 0.01) is None, "it waits no longer than it is told to"
    threading.Timer(0.05, hold.set).start()
    assert computation.result("a", 20) is True
    assert computation.result("b", 20) is True


def test_request_does_not_wait_for_a_computation_that_has_run_for_longer(monkeypatch):
    now, hold = [0.0], threading.Event()
    monkeypatch.setattr("flowers_batch.pages.review.computation.monotonic", lambda: now[0])
    computation = Computation(lambda reporter: hold.wait(20), threading.Lock())
    assert computation.result("a") is None
    now[0] = 10.0
    threading.Timer(0.2, hold.set).start()
    assert computation.result("a", 9.0) is None


def test_computations_with_the_same_turn_wait_for_each_other():
    turn, running, together = threading.Lock(), [], []

    def compute(reporter: Reporter) -> str:
        running.append(1)
        time.sleep(0.02)
        together.append(len(running))
        running.pop()
        return "done"

    computations = [Computation(compute, turn) for _ in range(4)]
    with turn:
        assert [each.result(0) for each in computations] == [None] * 4
        assert {each.step for each in computations} == {WAITING}
    assert [result(each, 0) for each in computations] == ["done"] * 4 and together == [1] * 4


def test_failure_is_raised_once_and_tried_again():
    calls = []

    def compute(reporter: Reporter) -> str:
        calls.append(1)
        if len(calls) == 1:
            raise ValueError("the disk is gone")
        return "done"

    computation = Computation(compute, threading.Lock())
    with pytest.raises(ValueError, match="the disk is gone"):
        result(computation, 0)
    assert result(computation, 0) == "done"
