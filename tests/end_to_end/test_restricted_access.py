"""A local Ray is out of reach for other machines and other users, also where the environment asks for less."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import psutil
import pytest
from listening import listening, unix_sockets

SCRIPT = """
import os, sys
if sys.argv[1] == "imported before": import ray
before = dict(os.environ)
from flowers_batch.cluster.connection import connected
from flowers_batch.config import ClusterConfig
with connected(ClusterConfig()):
    import ray
    ray.get(ray.remote(lambda: 1).remote())
    print("ready", flush=True)
    sys.stdin.readline()
assert dict(os.environ) == before
assert ray._private.ray_constants.ENABLE_RAY_CLUSTER
"""
TOKEN = "0123456789abcdef" * 4  # of the environment, which others may know
PROCESSES = ("gcs_server", "raylet/raylet", "ray::DashboardAgent", "ray::RuntimeEnvAgent", "ray::")  # that listen
NOBODY = 65534


class Run:
    """A process that has started a local Ray, with its descendants."""

    def __init__(self, order: str, folder: Path, home: Path):
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        environment = inherited | {"TMPDIR": str(folder), "HOME": str(home)}
        environment |= {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": TOKEN}
        self.process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, order],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout and self.process.stdout.readline() == "ready\n"

    def processes(self) -> list[psutil.Process]:
        me = psutil.Process(self.process.pid)
        return [me, *me.children(recursive=True)]

    def pids(self) -> list[int]:
        return [process.pid for process in self.processes()]

    def command_lines(self) -> dict[int, str]:
        return {process.pid: " ".join(process.cmdline()) for process in self.processes()}

    def wait_until_all_listen(self) -> None:
        deadline = time.monotonic() + 60
        while missing := self._silent():
            assert time.monotonic() < deadline, f"these do not listen: {missing}"
            time.sleep(0.1)

    def _silent(self) -> list[str]:
        lines = self.command_lines()
        found = [lines.get(pid, "") for pid, _, _ in listening(self.pids())]
        return [name for name in PROCESSES if not any(name in line for line in found)]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder for temporary files that every user can enter, with a name short enough for Ray."""
    made = Path(tempfile.mkdtemp(prefix="t", dir="/tmp"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.mark.slow
@pytest.mark.parametrize("order", ["imported by the run", "imported before"])
def test_local_ray_is_out_of_reach_for_others(folder, tmp_path, order):
    run = Run(order, folder, tmp_path)
    try:
        run.wait_until_all_listen()
        assert_loopback_only(run)
        assert_token_is_demanded_and_hidden(run)
        assert_files_are_private(run, folder)
        assert list(tmp_path.iterdir()) == []  # no token file in the home folder
    finally:
        run.process.communicate("\n", timeout=60)
    assert run.process.returncode == 0  # the environment is as it was
    assert list(folder.iterdir()) == []


def assert_loopback_only(run: Run) -> None:
    sockets = listening(run.pids())
    assert len(sockets) >= len(PROCESSES)
    assert not [(address, port) for _, address, port in sockets if not address.is_loopback]


def assert_token_is_demanded_and_hidden(run: Run) -> None:
    """No process takes the environment's token, or lets a stranger change something; `ps` does not show the token."""
    lines = run.command_lines()
    servers = [psutil.Process(pid).environ() for pid in lines if any(name in lines[pid] for name in PROCESSES[:2])]
    assert len(servers) >= 2 and {server["RAY_AUTH_MODE"] for server in servers} == {"token"}
    (token,) = {server["RAY_AUTH_TOKEN"] for server in servers}
    assert token != TOKEN and len(token) == 64
    assert not [line for line in lines.values() if token in line]
    answers = {post(port) for _, _, port in listening(run.pids())}
    assert answers <= {401, 403, 405, None} and answers & {401, 403}


def post(port: int) -> int | None:
    """Return the status of a request with the environment's token; None if the port does not speak HTTP/1."""
    request = Request(f"http://127.0.0.1:{port}/", b"", {"Authorization": f"Bearer {TOKEN}"})
    try:
        return urlopen(request, timeout=5).status
    except HTTPError as error:
        return error.code
    except Exception:  # of HTTP/2, which gRPC speaks
        return None


def assert_files_are_private(run: Run, folder: Path) -> None:
    """All that Ray opens to every user is in one folder that no other user can enter."""
    (private,) = folder.iterdir()
    assert stat.S_IMODE(private.stat().st_mode) == 0o700 and private.stat().st_uid == os.geteuid()
    open_to_all = [path for path in private.rglob("*") if path.is_dir() and path.stat().st_mode & stat.S_IWOTH]
    assert open_to_all, "Ray makes folders that every user may write to, which is why they need a private one"
    if os.geteuid() == 0:
        listed = subprocess.run(["ls", open_to_all[0]], user=NOBODY, group=NOBODY, capture_output=True, text=True)
        assert listed.returncode and "Permission denied" in listed.stderr
    sockets = unix_sockets(run.pids())
    assert sockets and all(Path(socket).is_relative_to(private) for socket in sockets)
    assert not [path for path in files_open_to_others(run) if not path.is_relative_to(private)]


def files_open_to_others(run: Run) -> list[Path]:
    """Return the files that Ray's processes write to and that have a mode under which others may."""
    found = []
    for descriptor in (each for pid in run.pids()[1:] for each in Path(f"/proc/{pid}/fd").iterdir()):
        try:
            status, path = descriptor.stat(), Path(os.readlink(descriptor))
        except FileNotFoundError:  # it has just been closed
            continue
        if stat.S_ISREG(status.st_mode) and status.st_mode & (stat.S_IWOTH | stat.S_IWGRP):
            found.append(path)
    return found
