"""Runs on clusters that lose a node or have too little memory, and one that cannot start."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import flowers_batch as fb

NODES = """
import sys, threading, time
import ray
from ray.cluster_utils import Cluster
import flowers_batch as fb
from flowers_batch.dataset.shard_file import shard_name
from pathlib import Path

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")

def lose_a_node():
    while not list((Path(sys.argv[2]) / "codes").glob("shard-*")):
        time.sleep(0.01)
    cluster.remove_node(nodes[1])

threading.Thread(target=lose_a_node, daemon=True).start()
summary = fb.encode(sys.argv[1], sys.argv[2], fb.EncodeConfig(network="null", shard_size=1, batch_size=1))
print(summary.ok, summary.shards)
"""


@pytest.mark.faults
def test_shards_of_a_lost_node_are_retried_on_the_remaining_ones(archive, tmp_path):
    """The lost node's actor can never be replaced: no other node has its resources."""
    command = [sys.executable, "-c", NODES, str(archive), str(tmp_path / "codes")]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=180, check=True)
    assert ended.stdout.split()[-2:] == ["30", "30"]
    assert fb.verify(str(tmp_path / "codes")).is_complete


MEMORY = """
import sys
import ray
import flowers_batch as fb
ray.init(address="local", num_cpus=1, num_gpus=0, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
try:
    fb.encode(sys.argv[1], sys.argv[2], fb.EncodeConfig(network="null"))
except fb.RunError as error:
    print("RunError:", error)
"""


@pytest.mark.faults
@pytest.mark.nightly
def test_actors_that_exhaust_their_nodes_memory_end_the_run(archive, tmp_path):
    command = [sys.executable, "-c", MEMORY, str(archive), str(tmp_path / "codes")]
    limits = {"RAY_memory_usage_threshold": "0.001", "RAY_memory_monitor_refresh_ms": "100"}
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=180, env=os.environ | limits)
    assert ended.returncode == 0 and "RunError: 5 actors died" in ended.stdout


def test_unreadable_weights_are_refused_before_anything_is_written(archive, tmp_path):
    file = tmp_path / "weights.h5"
    file.write_text("no weights")
    with pytest.raises(fb.InputError, match=r"weights\.h5 is not a readable file of Keras weights"):
        fb.encode(str(archive), str(tmp_path / "codes"), fb.EncodeConfig(weights=str(file)))
    assert not (tmp_path / "codes").exists()
