"""Runs with a Ray of their own: what they need of a machine, and what they leave on it."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from drivers import ACTOR, Driver
from helpers import draw_archive


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return draw_archive(tmp_path / "photos", 10)


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder for temporary files, with a name short enough for Ray."""
    folder = Path(tempfile.mkdtemp(prefix="t", dir="/tmp"))
    monkeypatch.setenv("TMPDIR", str(folder))
    yield folder
    shutil.rmtree(folder)


def left_in(folder: Path) -> list[Path]:
    """Return what runs have left, besides the empty file that all runs of a user lock for large photos."""
    return [path for path in folder.iterdir() if path.name != f"flowers-large-photos-{os.geteuid()}"]


@pytest.mark.slow
def test_run_needs_no_home_and_leaves_no_temporary_file(photos, temporary, monkeypatch):
    monkeypatch.setenv("HOME", "/proc/none")  # where not even root can make files
    code, summary, err = Driver(photos).end()
    assert (code, summary.get("ok")) == (0, 30), err
    assert left_in(temporary) == []


@pytest.mark.nightly
def test_run_works_with_a_long_name_of_the_temporary_folder(photos, tmp_path, monkeypatch):
    long = tmp_path / ("long" * 20)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    assert Driver(photos).end()[0] == 0
    assert left_in(long) == []


def agents_have_begun(driver: Driver) -> bool:
    """Return whether Ray's agents run, a moment later: they have changed their command lines then."""
    begun = bool(driver.processes("dashboard/agent.py"))
    time.sleep(0.7 * begun)
    return begun


@pytest.mark.faults
@pytest.mark.parametrize(
    ("number", "has_begun"),
    [
        (signal.SIGINT, lambda driver: driver.processes("gcs_server")),
        (signal.SIGINT, lambda driver: driver.processes("raylet/raylet")),
        (signal.SIGINT, agents_have_begun),
        (signal.SIGTERM, Driver.shards),
    ],
)
def test_stopped_run_leaves_no_process_and_no_temporary_file(photos, temporary, number, has_begun):
    """It is stopped while Ray starts its first server, its second one, and its agents, or while the run works."""
    driver = Driver(photos, "--shard-size", "1")
    driver.until(lambda: has_begun(driver))
    driver.process.send_signal(number)
    assert driver.end()[0] in (128 + number, -number)  # Python itself ends silently
    assert driver.ends() and left_in(temporary) == []


@pytest.mark.faults
def test_next_run_sweeps_after_a_killed_driver(photos, temporary):
    killed = Driver(photos, "--shard-size", "1")
    killed.until(killed.shards)
    killed.process.kill()
    assert killed.ends(ACTOR) and len(left_in(temporary)) == 1
    assert Driver(photos, "--shard-size", "1").end()[0] == 0
    assert left_in(temporary) == []


@pytest.mark.nightly
@pytest.mark.faults
def test_run_leaves_the_temporary_files_of_another_one(photos, temporary, tmp_path):
    first = Driver(photos, "--shard-size", "1")
    first.until(first.shards)
    os.kill(first.process.pid, signal.SIGSTOP)
    others = draw_archive(tmp_path / "second" / "photos", 2)
    assert Driver(others).end()[0] == 0
    os.kill(first.process.pid, signal.SIGCONT)
    assert first.end()[0] == 0
    assert left_in(temporary) == []
