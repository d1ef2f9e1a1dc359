"""Work that one actor does alone, on a local Ray."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flowers_batch.cluster import single_actor
from flowers_batch.cluster.single_actor import SingleActor, run_on_one_actor
from flowers_batch.config import ClusterConfig
from flowers_batch.errors import InputError, RunError
from flowers_batch.progress import Progress


def run_job(how: str, state: str = "", stall_timeout: float = 600.0, max_deaths: int = 5) -> tuple[Any, list[str]]:
    """Run a job on one actor; return its result and its messages."""

    def job(threads, gpus, reporter):
        if how == "stalls at once" and not os.path.exists(state):
            Path(state).touch()
            time.sleep(3600)
        if how == "dies":
            reporter.update(Progress("started"))
        else:
            reporter.message("started")  # which counts as progress
        reporter.update(Progress("half"))
        if how == "bad input":
            raise InputError("There are no photos.")
        if how == "fault":
            raise ValueError("of the program")
        if how in ("dies once", "stalls once") and not os.path.exists(state):
            Path(state).touch()
            if how == "dies once":
                time.sleep(1.5)  # until its heartbeat was received
                os._exit(1)
            time.sleep(3600)
        if how == "dies":
            os._exit(1)
        reporter.message("ended")
        return threads, gpus

    messages: list[str] = []
    reporter = SimpleNamespace(message=messages.append, update=lambda progress: None)
    config = ClusterConfig(stall_timeout=stall_timeout)
    return run_on_one_actor(job, config, reporter, max_deaths), messages


def test_single_actor_has_all_cores_and_reports_to_the_end(local_ray):
    result, messages = run_job("")
    assert result == (2, 0)
    assert messages == ["started", "ended"]


def test_exception_of_a_single_actor_ends_the_run(local_ray):
    with pytest.raises(InputError, match="There are no photos"):
        run_job("bad input")
    with pytest.raises(RunError, match=r"failed because of a bug: ValueError\('of the program'\)"):
        run_job("fault")


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("dies once", "The actor died"),
        pytest.param("stalls once", "it made no progress for 10 seconds", marks=pytest.mark.faults),
    ],
)
def test_lost_single_actor_is_replaced(local_ray, tmp_path, how, why):
    result, messages = run_job(how, str(tmp_path / "state"), stall_timeout=10)
    assert result == (2, 0)
    assert messages[0] == messages[2] == "started" and messages[-1] == "ended"
    assert why in messages[1] and messages[1].endswith("Another resumes the work.")


LOST = "The actor died: it made no progress for 10 seconds. Another resumes the work."


@pytest.mark.faults
def test_single_actor_that_stalls_before_its_first_message_is_replaced(local_ray, tmp_path, monkeypatch):
    monkeypatch.setattr(single_actor, "_WAIT_SECONDS", 1.0)
    result, messages = run_job("stalls at once", str(tmp_path / "state"), stall_timeout=10)
    assert result == (2, 0)
    assert messages == [LOST, "started", "ended"]


@pytest.mark.faults
def test_single_actor_stopped_while_it_starts_is_replaced(local_ray, monkeypatch):
    """Its driver says that it died, not that it waits for a node."""
    monkeypatch.setattr(single_actor, "_WAIT_SECONDS", 1.0)
    reserve, before = SingleActor._reserve, pids()
    stopped: list[int] = []

    def reserve_and_stop(self, resources):
        reserve(self, resources)
        if not stopped:
            threading.Thread(target=stop_first).start()

    def stop_first():
        while not (found := pids() - before):
            time.sleep(0.001)
        stopped.append(found.pop())
        os.kill(stopped[0], signal.SIGSTOP)

    monkeypatch.setattr(SingleActor, "_reserve", reserve_and_stop)
    result, messages = run_job("", stall_timeout=10)
    assert result == (2, 0) and stopped
    assert messages == [LOST, "started", "ended"]


def pids() -> set[int]:
    """The processes of single actors on this machine."""
    found = set()
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if process.name.isdigit() and (process / "cmdline").read_text().startswith("ray::RemoteSingleActor"):
                found.add(int(process.name))
    return found


@pytest.mark.nightly
def test_single_actor_waits_for_resources_longer_than_a_stall(local_ray, monkeypatch):
    import ray

    monkeypatch.setattr(single_actor, "_WAIT_SECONDS", 1.0)
    blocker = ray.remote(type("Blocker", (), {"ready": lambda self: True})).options(num_cpus=1).remote()
    assert ray.get(blocker.ready.remote())
    timer = threading.Timer(14, ray.kill, [blocker])
    timer.start()
    result, messages = run_job("", stall_timeout=10)
    timer.join()
    assert result == (2, 0)
    assert messages[-2:] == ["started", "ended"]
    assert set(messages[:-2]) == {"Still waiting for a node whose resources are free."}


def test_repeated_deaths_of_a_single_actor_end_the_run(local_ray):
    with pytest.raises(RunError, match=r"2 actors died before they made any progress\. .* Run the same command again"):
        run_job("dies", max_deaths=2)
