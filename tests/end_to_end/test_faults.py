"""Processes are killed, stopped or stuck: every image stays one row, and no process is left."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from drivers import ACTOR, ENDED_WITHIN, Driver, assert_each_image_is_one_row, photos_that_take_a_while, rows
from helpers import draw_archive, poisonous

pytestmark = pytest.mark.faults


@pytest.fixture
def drive():
    """Start drivers, and end their remaining processes with the test."""
    drivers: list[Driver] = []

    def start(*arguments: Any, **options: Any) -> Driver:
        drivers.append(Driver(*arguments, **options))
        return drivers[-1]

    yield start
    for driver in drivers:
        for pid in driver.processes():
            os.kill(pid, signal.SIGKILL)
        driver.process.communicate()


@pytest.fixture
def photos(tmp_path) -> Path:
    """90 small pictures."""
    return draw_archive(tmp_path / "photos", 30)


@pytest.fixture
def slow_photos(tmp_path) -> Path:
    """40 pictures that take a while to decode."""
    return photos_that_take_a_while(tmp_path / "photos", 40)


def kill(pids: list[int], number: int = signal.SIGKILL) -> None:
    for pid in pids:
        os.kill(pid, number)


def test_actors_killed_at_any_time_cost_no_image(photos, drive):
    driver = drive(photos, "--shard-size", "1", "--actors", "2")
    seed = random.Random(0)
    killed: set[int] = set()
    for _ in range(3):
        enough = driver.shards() + seed.randint(0, 8)
        driver.until(lambda enough=enough: driver.shards() >= enough)
        living = driver.until(lambda: sorted(set(driver.actors()) - killed))
        chosen = seed.choice(living)
        kill([chosen])
        killed.add(chosen)
    code, summary, err = driver.end()
    assert (code, summary["ok"]) == (0, 90), err
    assert summary["deaths"] == 3
    assert_each_image_is_one_row(photos, driver.out)


@pytest.mark.nightly
def test_actor_killed_while_it_starts_is_replaced(photos, drive):
    driver = drive(photos, "--shard-size", "8")
    kill(driver.until(driver.actors))
    assert driver.end()[0] == 0
    assert_each_image_is_one_row(photos, driver.out)


@pytest.mark.nightly
def test_actor_killed_while_it_writes_leaves_no_partial_shard(photos, drive):
    driver = drive(photos, "--shard-size", "1", "--actors", "2")
    for _ in range(3):
        driver.until(lambda: list(driver.out.glob("codes/_tmp-*")))
        kill(driver.actors("run"))
    code, summary, err = driver.end()
    assert (code, summary["deaths"] > 0) == (0, True), err
    assert_each_image_is_one_row(photos, driver.out)
    assert not list(driver.out.glob("codes/_tmp-*"))


def test_stopped_actor_is_replaced(slow_photos, drive):
    driver = drive(slow_photos, "--shard-size", "1", "--actors", "2", "--stall-timeout", "4")
    driver.until(lambda: driver.shards() > 1)
    stopped = driver.actors()[0]
    kill([stopped], signal.SIGSTOP)
    code, summary, err = driver.end()
    assert (code, summary["ok"], summary["deaths"]) == (0, 40, 0), err
    assert "An actor was killed: it made no progress for 4 seconds. Its shards are retried." in err
    assert_each_image_is_one_row(slow_photos, driver.out)
    assert driver.ends()


def test_photos_that_crash_spin_or_exhaust_memory_restart_no_actor(photos, drive, tmp_path):
    kinds = {"crash": "crashed_decoder", "spin": "timeout", "memory": "too_large"}
    bad = {f"red/{9 * n:04d}.png": kind for n, kind in enumerate(kinds)} | {"blue/0007.png": "crash"}
    for name, kind in bad.items():
        (photos / name).write_bytes(f"POISON {kind}".encode())
    (photos / "red" / "0001.png").write_bytes(f"POISON once:{tmp_path / 'state'}".encode())
    driver = drive(photos, "--image-timeout", "1", path=poisonous(tmp_path / "poison"))
    code, summary, err = driver.end()
    assert (code, summary["ok"], summary["deaths"]) == (0, 85, 0), err
    found = {row["path"]: row["reason"] for row in rows(driver.out) if row["status"] == "failed"}
    # The one that crashes once is then decoded, and is no picture.
    assert found == {name: kinds[kind] for name, kind in bad.items()} | {"red/0001.png": "not_an_image"}
    assert_each_image_is_one_row(photos, driver.out)
    assert driver.ends()


@pytest.mark.nightly
def test_killed_decode_workers_cost_no_image_and_no_actor(slow_photos, drive):
    driver = drive(slow_photos, "--shard-size", "4")
    driver.until(lambda: driver.shards() > 1)
    for _ in range(3):
        workers = driver.until(lambda: driver.processes("decoding.fork_server"))
        kill(workers[-1:])
        time.sleep(0.5)
    code, summary, err = driver.end()
    assert (code, summary["ok"], summary["deaths"]) == (0, 40, 0), err
    assert_each_image_is_one_row(slow_photos, driver.out)
    assert driver.ends()


@pytest.mark.nightly
@pytest.mark.parametrize("victim", [ACTOR, "decoding.fork_server"], ids=["actor", "server"])
def test_killed_actor_or_server_leaves_no_worker(slow_photos, drive, victim):
    driver = drive(slow_photos, "--shard-size", "1")
    driver.until(lambda: driver.shards() > 1)
    before = driver.processes("decoding.fork_server")
    kill(driver.processes(victim)[:1])
    driver.until(lambda: not set(before) & set(driver.processes("decoding.fork_server")))
    assert driver.end()[0] == 0
    assert_each_image_is_one_row(slow_photos, driver.out)


@pytest.mark.nightly
def test_five_kills_on_a_shard_end_the_run(slow_photos, drive):
    driver = drive(slow_photos)
    killed: set[int] = set()
    while driver.process.poll() is None:
        fresh = set(driver.actors("run")) - killed
        kill([*fresh])
        killed |= fresh
        time.sleep(0.01)
    code, _, err = driver.end()
    assert code == 1 and len(killed) == 5
    assert "5 actors died on shard 0. Cause of the last:" in err and "Run the same command again to resume." in err
    assert drive(slow_photos).end()[1]["ok"] == 40
    assert_each_image_is_one_row(slow_photos, driver.out)


@pytest.mark.nightly
@pytest.mark.parametrize("stuck", [False, True], ids=["at work", "stuck"])
def test_killed_driver_leaves_no_actor(photos, drive, tmp_path, stuck):
    if stuck:
        (photos / "red" / "0011.png").write_bytes(b"POISON hang")
    driver = drive(photos, "--shard-size", "1", path=poisonous(tmp_path))
    driver.until(lambda: driver.shards() == 71 if stuck else driver.shards() > 1)
    driver.process.kill()
    assert driver.ends(ACTOR)
    (photos / "red" / "0011.png").write_bytes((photos / "red" / "0012.png").read_bytes())
    again = drive(photos, "--shard-size", "1")
    assert again.end()[0] == 0
    assert_each_image_is_one_row(photos, again.out)


@pytest.mark.parametrize(
    ("number", "stuck"),
    [
        (signal.SIGTERM, True),
        pytest.param(signal.SIGTERM, False, marks=pytest.mark.nightly),
        pytest.param(signal.SIGINT, True, marks=pytest.mark.nightly),
        pytest.param(signal.SIGINT, False, marks=pytest.mark.nightly),
    ],
)
def test_stopped_run_leaves_no_process(photos, drive, tmp_path, number, stuck):
    (photos / "red" / "0011.png").write_bytes(b"POISON hang")
    driver = drive(photos, "--shard-size", "1", path=poisonous(tmp_path))
    driver.until(lambda: driver.shards() == 71 if stuck else driver.shards() > 1)
    if stuck:
        time.sleep(2)  # the driver, too, only waits then
    begun = time.monotonic()
    driver.process.send_signal(number)
    code, _, err = driver.end()
    assert driver.ends() and time.monotonic() - begun < ENDED_WITHIN
    assert (code, "to resume" in err) == (128 + number, True), err
    assert not (driver.out / "_SUCCESS").exists()


@pytest.mark.parametrize("server", ["gcs_server", "raylet/raylet"])
def test_lost_server_of_ray_ends_the_run(slow_photos, drive, server):
    driver = drive(slow_photos, "--shard-size", "1")
    driver.until(lambda: driver.shards() > 1)
    begun = time.monotonic()
    kill(driver.processes(server)[:1])
    code, _, err = driver.end()
    assert code == 1 and time.monotonic() - begun < 2 * ENDED_WITHIN
    assert "error: A server of the Ray on this machine has ended" in err and "Traceback" not in err
    assert driver.ends() and not (driver.out / "_SUCCESS").exists()


@pytest.mark.nightly
@pytest.mark.parametrize("seconds", [1.0, 2.0, 3.0, 4.0])
def test_run_stopped_while_it_starts_leaves_no_actor(photos, drive, seconds):
    """Ray has started only partly: its agents, which hold nothing, may take a minute to notice."""
    driver = drive(photos)
    time.sleep(seconds)
    driver.process.send_signal(signal.SIGTERM)
    code, _, err = driver.end()
    assert code in (143, -signal.SIGTERM)  # Python ends silently before it runs the command
    assert driver.ends(ACTOR) and "Traceback" not in err
