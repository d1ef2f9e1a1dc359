"""The jobs, handed to a cluster as a person hands them; and the cluster's own description."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

import flowers_batch as fb

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {
    "PATH": f"{BIN}:{os.environ['PATH']}",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory):
    """The address of a cluster that was started with `ray start --head`; it ends with the tests."""
    port = free_port()
    command = [BIN / "ray", "start", "--head", "--block", "--num-cpus=2", "--num-gpus=0", f"--port={free_port()}"]
    command += ["--dashboard-host=127.0.0.1", f"--dashboard-port={port}", "--object-store-memory=100000000"]
    # A port that is taken, by another Ray on this machine, would leave the cluster without its job agent.
    command += [f"--dashboard-agent-listen-port={free_port()}", f"--temp-dir={tmp_path_factory.mktemp('r')}"]
    head = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(60):
            asked = subprocess.run(
                [BIN / "ray", "job", "list", f"--address={address}"], env=ENVIRONMENT, capture_output=True
            )
            if asked.returncode == 0:
                break
            assert head.poll() is None, "the cluster ended while it started"
            time.sleep(0.5)
        yield address
    finally:
        head.terminate()  # and with it all that it started; `ray stop` would end every Ray of the machine
        head.wait(30)


def submit(dashboard: str, *entrypoint: str) -> subprocess.CompletedProcess[str]:
    command = [str(BIN / "ray"), "job", "submit", f"--address={dashboard}", "--working-dir=.", "--", *entrypoint]
    for _ in range(10):
        ended = subprocess.run(
            command,
            cwd=ROOT,
            env=ENVIRONMENT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=180,
        )
        if "No available agent" not in ended.stdout:  # the cluster is still starting
            break
        time.sleep(2)
    return ended


def test_submitted_jobs_encode_train_and_predict(dashboard, archive, tmp_path):
    codes, model, labels = (str(tmp_path / name) for name in ("codes", "model", "labels"))
    encoded = submit(dashboard, "python", "jobs/encode.py", str(archive), codes, "--network", "null", "--json")
    assert encoded.returncode == 0, encoded.stdout
    summary = next(json.loads(line) for line in encoded.stdout.splitlines() if line.startswith("{"))
    assert (summary["images"], summary["ok"]) == (30, 30)
    trained = submit(dashboard, "python", "jobs/train.py", codes, model, "--seed", "1")
    assert trained.returncode == 0, trained.stdout
    assert "test accuracy" in trained.stdout
    predicted = submit(dashboard, "python", "jobs/predict.py", str(archive), labels, "--model", model)
    assert predicted.returncode == 0, predicted.stdout
    assert fb.verify(labels).is_whole


def test_a_job_that_fails_says_why_and_has_failed(dashboard, tmp_path):
    failed = submit(dashboard, "python", "jobs/encode.py", str(tmp_path / "nowhere"), str(tmp_path / "codes"))
    assert failed.returncode != 0
    assert "error: There is no folder" in failed.stdout


def test_cluster_file_is_what_rays_launcher_takes():
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    validate_config(prepare_config(config))
    kinds = config["available_node_types"]
    assert kinds["gpu"]["resources"]["GPU"] == 1
    assert kinds[config["head_node_type"]]["resources"]["CPU"] == 0
    with pytest.raises(Exception, match="resorces"):
        kinds["gpu"]["resorces"] = kinds["gpu"].pop("resources")
        validate_config(config)
