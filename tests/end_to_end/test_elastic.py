"""Nodes that Ray's autoscaler starts and stops during a run; its nodes are processes on this machine."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from drivers import Driver, assert_each_image_is_one_row, photos_that_take_a_while
from helpers import free_port
from ray.util import get_node_ip_address

pytestmark = [pytest.mark.faults, pytest.mark.nightly]
HEAD = "f" * 51 + "00000"  # the id that the fake provider gives to the node that it runs on


class Elastic:
    """A cluster of a head without cores and a limited number of nodes with one core each."""

    def __init__(self, folder: Path, port: int):
        self._file = folder / "cluster.json"
        self.address = f"{get_node_ip_address()}:{port}"

    def most(self, nodes: int) -> None:
        """Limit the number of nodes: the autoscaler reads its configuration every second."""
        provider = {"type": "fake_multinode", "gcs_address": self.address, "head_node_id": HEAD}
        provider |= dict.fromkeys(
            ("use_node_id_as_ip", "foreground_node_launch", "disable_node_updaters", "disable_launch_config_check"),
            True,
        )
        kinds = {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "worker": {"resources": {"CPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": nodes},
        }
        config: dict[str, Any] = {"cluster_name": "elastic", "max_workers": nodes, "provider": provider}
        config |= {"available_node_types": kinds, "head_node_type": "ray.head.default", "auth": {"ssh_user": "nobody"}}
        config |= {"upscaling_speed": 100, "idle_timeout_minutes": 0.1, "docker": {}, "file_mounts": {}}
        config |= {"file_mounts_sync_continuously": False}
        lists = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
        config |= {f"{name}_commands": [] for name in lists}
        config |= {name: [] for name in ("cluster_synced_files", "rsync_exclude", "rsync_filter")}
        new = self._file.with_suffix(".new")
        new.write_text(json.dumps(config))
        new.rename(self._file)


@pytest.fixture
def cluster(tmp_path, tmp_path_factory, monkeypatch) -> Iterator[Elastic]:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    port = free_port()
    elastic = Elastic(tmp_path, port)
    elastic.most(4)
    command = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--num-cpus=0", "--num-gpus=0"]
    command += [f"--port={port}", f"--autoscaling-config={elastic._file}", "--include-dashboard=false"]
    command += [f"--temp-dir={tmp_path_factory.mktemp('r')}", "--object-store-memory=100000000"]
    fake = {"AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_FAKE_CLUSTER": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    head = subprocess.Popen(command, env=os.environ | fake, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(5)
    assert head.poll() is None, "the cluster did not start"
    yield elastic
    head.terminate()
    head.wait(40)


def actors() -> int:
    """Return the processes of actors that have their resources."""
    return int(subprocess.run(["pgrep", "-fc", "^ray::RemoteShardActor"], capture_output=True, text=True).stdout)


def test_run_grows_and_shrinks_with_its_cluster(cluster, tmp_path):
    photos = photos_that_take_a_while(tmp_path / "photos", 900)
    driver = Driver(photos, "--shard-size", "3", "--address", cluster.address)
    try:
        driver.until(lambda: actors() >= 4)  # from none
        cluster.most(1)
        driver.until(lambda: actors() <= 1)
        cluster.most(3)
        driver.until(lambda: actors() >= 3)
        code, summary, err = driver.end()
    finally:
        driver.process.kill()
    assert code == 0, err
    assert (summary["images"], summary["ok"]) == (900, 900)
    # Some actors had no work when their node was stopped, or started too late to get any.
    assert summary["deaths"] >= 1 and len(summary["actors"]) >= 4
    assert_each_image_is_one_row(photos, driver.out)
