"""Work that one actor does alone, on a local Ray."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flowers_batch.cluster.single_actor import run_on_one_actor
from flowers_batch.config import ClusterConfig
from flowers_batch.errors import InputError, RunError
from flowers_batch.progress import Progress


def run_alone(how: str, state: str = "", stall_timeout: float = 600.0, max_deaths: int = 5) -> tuple[Any, list[str]]:
    """The result of a job that one actor does alone, and the messages it reported."""

    def job(threads, gpus, reporter):
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

    said: list[str] = []
    reporter = SimpleNamespace(message=said.append, update=lambda progress: None)
    config = ClusterConfig(stall_timeout=stall_timeout)
    return run_on_one_actor(job, config, reporter, max_deaths), said


def test_single_actor_has_all_cores_and_reports_to_the_end(local_ray):
    result, said = run_alone("")
    assert result == (2, 0)
    assert said == ["started", "ended"]


def test_exception_of_a_single_actor_ends_the_run(local_ray):
    with pytest.raises(InputError, match="There are no photos"):
        run_alone("bad input")
    with pytest.raises(RunError, match=r"failed because of a bug: ValueError\('of the program'\)"):
        run_alone("fault")


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("dies once", "The actor died"),
        pytest.param("stalls once", "it made no progress for 2 seconds", marks=pytest.mark.faults),
    ],
)
def test_single_actor_that_is_lost_is_replaced(local_ray, tmp_path, how, why):
    result, said = run_alone(how, str(tmp_path / "state"), stall_timeout=2)
    assert result == (2, 0)
    assert said[0] == said[2] == "started" and said[-1] == "ended"
    assert why in said[1] and said[1].endswith("Another resumes the work.")


def test_single_actors_that_die_again_and_again_end_the_run(local_ray):
    with pytest.raises(RunError, match=r"2 actors died before they made any progress\. .* Run the same command again"):
        run_alone("dies", max_deaths=2)
