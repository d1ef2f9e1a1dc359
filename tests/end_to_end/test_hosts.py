"""Several hosts on one machine: network namespaces with addresses of their own, which share nothing but an S3 store."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from drivers import photos_that_take_a_while
from environments import environment_without_ray
from object_store import S3

pytestmark = [pytest.mark.faults, pytest.mark.nightly]
BIN = Path(sys.executable).parent
HOSTS = 4  # the first holds the head, the driver and the store
# So that an unreachable host is considered lost within seconds.
HEALTH = {"initial_delay_ms": 5000, "period_ms": 1000, "timeout_ms": 1000, "failure_threshold": 6}
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_EC2_METADATA_DISABLED": "true",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
} | {f"RAY_health_check_{name}": str(value) for name, value in HEALTH.items()}


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


class Hosts:
    """Network namespaces that a switch, also a namespace, connects.

    Attributes:
        names: Of the hosts.
    """

    def __init__(self, ended: ExitStack):
        mark = f"fb{os.getpid() % 10000}"
        self._ended, self._switch = ended, f"{mark}s"
        self.names = [f"{mark}h{number}" for number in range(HOSTS)]
        self._add(self._switch)
        ip("-n", self._switch, "link", "add", "bridge", "type", "bridge")
        ip("-n", self._switch, "link", "set", "bridge", "up")
        for number, name in enumerate(self.names):
            self._add(name)
            ip(
                "link",
                "add",
                "eth0",
                "netns",
                name,
                "type",
                "veth",
                "peer",
                "name",
                f"to{number}",
                "netns",
                self._switch,
            )
            ip("-n", self._switch, "link", "set", f"to{number}", "master", "bridge", "up")
            ip("-n", name, "addr", "add", f"{self.address(number)}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")

    def _add(self, name: str) -> None:
        ip("netns", "add", name)
        self._ended.callback(ip, "netns", "delete", name)
        ip("-n", name, "link", "set", "lo", "up")

    def address(self, number: int) -> str:
        return f"10.77.0.{10 + number}"

    def start(self, number: int, *command: Any, **options: Any) -> subprocess.Popen[str]:
        """Start a command on a host; it ends with the test."""
        inside = ["ip", "netns", "exec", self.names[number], *map(str, command)]
        process = subprocess.Popen(inside, env=environment_without_ray() | ENVIRONMENT, text=True, **options)
        self._ended.callback(process.wait)
        self._ended.callback(self.lose, number)
        return process

    def lose(self, number: int) -> None:
        """Kill everything that runs on a host."""
        found = subprocess.run(["ip", "netns", "pids", self.names[number]], capture_output=True, text=True).stdout
        for pid in map(int, found.split()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def cut(self, number: int, is_cut: bool) -> None:
        """Unplug a host's cable, or plug it in again."""
        ip("-n", self._switch, "link", "set", f"to{number}", "down" if is_cut else "up")

    def slow(self, number: int) -> None:
        """Limit the bandwidth to a host to one megabit per second."""
        shape = ["tbf", "rate", "1mbit", "burst", "32kbit", "latency", "400ms"]
        command = ["tc", "-n", self._switch, "qdisc", "add", "dev", f"to{number}", "root", *shape]
        subprocess.run(command, check=True, capture_output=True)


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    with ExitStack() as ended:
        try:
            made = Hosts(ended)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"network namespaces are not allowed here: {error}")
        yield made


def until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.2)
    return found


def test_cut_link_slow_link_and_lost_host_cost_no_row(hosts, tmp_path, tmp_path_factory):
    head = hosts.address(0)
    store = S3(5000)
    url = f"s3://{store.bucket}/%s?endpoint_override={head}:{store.port}&scheme=http"
    hosts.start(0, sys.executable, "-m", "moto.server", "-H", head, "-p", store.port, stderr=subprocess.DEVNULL)
    photos = photos_that_take_a_while(tmp_path / "photos", 120)
    upload = (
        "import sys; from pathlib import Path; from flowers_batch.storage.opening import open_folder\n"
        "import pyarrow.fs as fs\n"
        "folder = open_folder(sys.argv[2]); folder.filesystem.create_dir(folder.path)\n"
        "fs.copy_files(sys.argv[1], folder.path, destination_filesystem=folder.filesystem)\n"
    )
    bucket = f"http://{head}:{store.port}/{store.bucket}"
    create = f"import urllib.request as u; u.urlopen(u.Request('{bucket}', method='PUT'))"
    until(lambda: hosts.start(0, sys.executable, "-c", create, stderr=subprocess.DEVNULL).wait() == 0, 60, "no store")
    assert hosts.start(0, sys.executable, "-c", upload, photos, url % "photos").wait() == 0
    begin = ["--block", "--num-gpus=0", "--object-store-memory=100000000"]
    for number in range(HOSTS):
        place = ["--head", "--port=6379", "--include-dashboard=false", "--num-cpus=0"]
        place = place if number == 0 else [f"--address={head}:6379", "--num-cpus=1"]
        if number == 0:
            place.append(f"--temp-dir={tmp_path_factory.mktemp('r')}")
        command = [BIN / "ray", "start", *place, f"--node-ip-address={hosts.address(number)}", *begin]
        hosts.start(number, *command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(5)  # one after the other: on one machine they look for free names in the same folder
    encode = [sys.executable, "-m", "flowers_batch", "encode", url % "photos", url % "codes", "--network=null"]
    encode += ["--shard-size=2", "--json", "--actors=3", f"--address={head}:6379"]
    driver = hosts.start(0, *encode, stdout=subprocess.PIPE)

    def done() -> int:
        assert driver.poll() is None, "the run ended too early"
        listing = f"import urllib.request as u; print(u.urlopen('{bucket}?prefix=codes/codes/').read().count(b'<Key>'))"
        asked = hosts.start(0, sys.executable, "-c", listing, stdout=subprocess.PIPE)
        return int(asked.communicate()[0] or 0)

    until(lambda: done() >= 6, 120, "no shard was done")
    hosts.slow(2)
    hosts.cut(1, True)
    until(lambda: done() >= 12, 120, "the other hosts make no progress")
    hosts.lose(3)
    time.sleep(10)
    hosts.cut(1, False)
    out, _ = driver.communicate(timeout=240)
    assert driver.returncode == 0
    summary = json.loads(out)
    assert (summary["images"], summary["ok"]) == (120, 120) and summary["deaths"] >= 2
    verified = hosts.start(0, sys.executable, "-m", "flowers_batch", "verify", url % "codes", stdout=subprocess.PIPE)
    output, _ = verified.communicate(timeout=120)
    assert verified.returncode == 0 and "complete" in output
