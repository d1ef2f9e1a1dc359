from __future__ import annotations

import errno
import gc
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from decode_pools import SECONDS, SLOTS, Photos, good, is_alive, open_pool, servers_and_workers, wait_until
from scripted_photos import script

from flowers_batch.decoding import worker_process
from flowers_batch.decoding.fork_server import ForkServer
from flowers_batch.errors import RunError

pytestmark = pytest.mark.faults
FILES = good(16)


@pytest.fixture
def photos(tmp_path) -> Iterator[Photos]:
    with open_pool(tmp_path / "photos") as pool:
        yield Photos(tmp_path / "photos", pool)
    assert servers_and_workers(os.getpid()) == ([], [])


def kill(process: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


def test_workers_and_servers_killed_at_random_cost_no_image(photos):
    dice, over = random.Random(1), threading.Event()
    kills = {"server": 0, "worker": 0}

    def kill_some() -> None:
        while not over.wait(dice.uniform(0.1, 0.4)):
            servers, workers = servers_and_workers(os.getpid())
            kind = "server" if dice.random() < 0.1 else "worker"
            if victims := servers if kind == "server" else workers:
                kill(dice.choice(victims))
                kills[kind] += 1

    slow = {name: script("time.sleep(0.02)", data) for name, data in FILES.items()}
    assert photos.failures(slow) == {}
    killer = threading.Thread(target=kill_some)
    killer.start()
    try:
        for _ in range(10):
            futures = [photos.submit(slow, first) for first in range(0, SLOTS, 16)]
            for first, future in zip(range(0, SLOTS, 16), futures, strict=True):
                rows = future.result(SECONDS).rows
                assert len(rows) == 16 and rows["reason"].null_count == 16
                assert photos.pool.slots[first : first + 16].any(axis=(1, 2, 3)).all()
    finally:
        over.set()
        killer.join()
    assert kills["server"] >= 1 and kills["worker"] >= 3
    assert photos.failures(FILES) == {}


def test_killed_server_is_started_again(photos):
    assert photos.failures(FILES) == {}
    ((server,), _) = servers_and_workers(os.getpid())
    kill(server)
    assert photos.failures(FILES) == {}
    assert wait_until(lambda: not is_alive(server))


def test_server_killed_while_it_starts_is_started_again(tmp_path):
    with open_pool(tmp_path / "photos") as pool:
        ((server,), _) = servers_and_workers(os.getpid())
        kill(server)
        assert Photos(tmp_path / "photos", pool).failures(FILES) == {}


def test_closed_pool_fails_what_is_left_and_ends_all_processes(tmp_path):
    with open_pool(tmp_path / "photos") as pool:
        photos = Photos(tmp_path / "photos", pool)
        futures = [photos.submit({f"hang-{n}.png": script("time.sleep(3600)")}) for n in range(8)]
        assert wait_until(lambda: len(servers_and_workers(os.getpid())[1]) == 3)
        servers, workers = servers_and_workers(os.getpid())
    for future in futures:
        with pytest.raises(RunError, match="were ended before all images were decoded"):
            future.result(0)
    assert not any(map(is_alive, [*servers, *workers]))


def test_server_that_ends_no_longer_waits_for_signals():
    """Else Python prints that it cannot write to a closed socket when workers end a moment later."""
    before = signal.getsignal(signal.SIGCHLD)
    requests, parent = socket.socketpair()
    with requests, parent:
        parent.shutdown(socket.SHUT_WR)
        ForkServer(requests, None).serve(os.getppid())  # it starts no worker, which would be told something
    signal.signal(signal.SIGCHLD, before)
    assert signal.set_wakeup_fd(-1) == -1


def test_workers_end_with_a_pool_that_nothing_refers_to(tmp_path):
    photos = Photos(tmp_path / "photos", open_pool(tmp_path / "photos"))
    assert photos.failures(FILES) == {}
    servers, workers = servers_and_workers(os.getpid())
    assert len(servers) == 1 and len(workers) == 3
    del photos
    gc.collect()
    assert wait_until(lambda: not any(map(is_alive, [*servers, *workers])))


def test_pool_outlives_the_thread_that_made_it(tmp_path):
    made = []
    thread = threading.Thread(target=lambda: made.append(open_pool(tmp_path / "photos")))
    thread.start()
    thread.join()
    with made[0] as pool:
        time.sleep(0.2)
        assert Photos(tmp_path / "photos", pool).failures(FILES) == {}


_FORKING_PARENT = """
import os, subprocess, sys
from pathlib import Path
from decode_pools import Photos, good, open_pool, servers_and_workers

files, folder = good(16), Path(sys.argv[1])
with open_pool(folder) as pool:
    photos = Photos(folder, pool)
    child = subprocess.Popen([sys.executable, "-c", ""])  # an ordinary child is nothing to the pool
    assert photos.failures(files) == {} and child.wait() == 0
    before = servers_and_workers(os.getpid())
    fork = os.fork()
    if not fork:
        sys.exit()
    assert os.waitpid(fork, 0)[1] == 0
    assert photos.failures(files) == {}
    assert servers_and_workers(os.getpid()) == before
"""


def test_fork_that_ends_leaves_the_pool_working(tmp_path):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run(
        [sys.executable, "-c", _FORKING_PARENT, str(tmp_path / "photos")], env=environment, check=True, timeout=SECONDS
    )


# A worker sleeps, another spins in native code, a third waits; a thread that ends has made the pool, and a fork of the
# process, which prints its number, keeps all descriptors open.
_PARENT = """
import os, sys, threading, time
from pathlib import Path
from decode_pools import Photos, good, open_pool
from scripted_photos import script

folder = Path(sys.argv[1])
made = []
thread = threading.Thread(target=lambda: made.append(open_pool(folder, image_timeout=3600)))
thread.start()
thread.join()
photos = Photos(folder, made[0])
photos.failures(good(1))
photos.submit({"sleep.png": script("time.sleep(3600)")})
native = "import hashlib; open(%r, 'w'); hashlib.pbkdf2_hmac('sha256', b'', b'', 10**12)"
for n in range(3):  # one may wait behind the one that sleeps
    photos.submit({f"spin-{n}.png": script(native % str(folder / "spinning"))}, 1 + n)
fork = os.fork()
if fork:
    print(fork, flush=True)
time.sleep(3600)
"""


@contextmanager
def parent_process(folder: Path) -> Iterator[tuple[int, list[int], list[int]]]:
    """A process with a pool that is at work, and a fork of it: its number, its servers and its workers."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", _PARENT, str(folder)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as parent:
        assert parent.stdout
        fork = int(parent.stdout.readline())
        try:
            assert wait_until((folder / "spinning").exists)
            assert wait_until(lambda: len(servers_and_workers(parent.pid)[1]) == 3)
            yield parent.pid, *servers_and_workers(parent.pid)
        finally:
            kill(fork)
            kill(parent.pid)


@pytest.mark.parametrize("victim", ["parent", "server"])
def test_workers_end_with_parent_and_server(tmp_path, victim):
    """Even while they sleep or spin in native code, and while a fork of the parent keeps its descriptors open."""
    with parent_process(tmp_path / "photos") as (parent, servers, workers):
        kill(parent if victim == "parent" else servers[0])
        assert wait_until(lambda: not any(map(is_alive, [*servers, *workers])))
        assert is_alive(parent) == (victim == "server")


def test_server_that_cannot_start_says_why(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['cv2'] = None")
    monkeypatch.syspath_prepend(str(tmp_path))
    with open_pool(tmp_path / "photos") as pool:
        for _ in range(2):
            with pytest.raises(RunError, match=r"^The processes that decode images do not start: .*cv2"):
                Photos(tmp_path / "photos", pool).submit(good(1)).result(SECONDS)


def test_lack_of_open_files_ends_in_a_sentence(photos, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    assert photos.failures(FILES) == {}
    monkeypatch.setattr(worker_process.ForkServerProcess, "start_worker", fail)
    for worker in servers_and_workers(os.getpid())[1]:
        kill(worker)
    with pytest.raises(RunError, match=r"^The processes that decode images cannot be started: .*Too many open files"):
        photos.submit(FILES).result(SECONDS)
