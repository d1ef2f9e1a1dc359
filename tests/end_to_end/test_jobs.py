"""Jobs that are submitted to a cluster with `ray job submit`."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from environments import environment_without_ray
from helpers import ROOT, free_port, write

import flowers_batch as fb

BIN = Path(sys.executable).parent
METRICS_PORT = free_port()
ENVIRONMENT = environment_without_ray() | {
    "PATH": f"{BIN}:{os.environ['PATH']}",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    "RAY_metrics_report_interval_ms": "500",
}

PACK_FOLDER = """
import io, json, tarfile
packed = io.BytesIO()
with tarfile.open(fileobj=packed, mode="w:gz") as tar:
    tar.add(".")
    names = tar.getnames()
print(json.dumps([names, packed.tell()]))
"""

pytestmark = pytest.mark.slow  # a cluster with a dashboard starts first


@pytest.fixture(scope="module")
def session():
    """The folder of the cluster's session; its name is short, since paths of Unix sockets have at most 107 bytes."""
    folder = tempfile.mkdtemp(prefix="ray")
    yield Path(folder)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def dashboard(session):
    """The dashboard's address of a cluster that `ray start --head` started; it ends with the tests."""
    port = free_port()
    command = [BIN / "ray", "start", "--head", "--block", "--num-cpus=2", "--num-gpus=0", f"--port={free_port()}"]
    command += ["--dashboard-host=127.0.0.1", f"--dashboard-port={port}", "--object-store-memory=100000000"]
    # If another Ray of this machine had the agent's port, the cluster would have no job agent.
    command += [f"--dashboard-agent-listen-port={free_port()}", f"--temp-dir={session}"]
    command += [f"--metrics-export-port={METRICS_PORT}"]
    head = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(60):
            listed = subprocess.run(
                [BIN / "ray", "job", "list", f"--address={address}"], env=ENVIRONMENT, capture_output=True
            )
            if listed.returncode == 0:
                break
            assert head.poll() is None, "the cluster ended while it started"
            time.sleep(0.5)
        yield address
    finally:
        head.terminate()  # which ends what it started; `ray stop` would end every Ray of the machine
        head.wait(30)


def submit(dashboard: str, *entrypoint: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Submit a job with a working directory, and wait until it ends."""
    command = [str(BIN / "ray"), "job", "submit", f"--address={dashboard}", "--working-dir=.", "--", *entrypoint]
    for _ in range(10):
        ended = subprocess.run(
            command,
            cwd=folder,
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


def logs_of(dashboard: str, submitted: subprocess.CompletedProcess[str]) -> list[str]:
    """Return the lines of a job's log, as `ray job logs` prints them."""
    job = re.search(r"raysubmit_\w+", submitted.stdout)
    assert job, submitted.stdout
    command = [str(BIN / "ray"), "job", "logs", f"--address={dashboard}", job[0]]
    log = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=True).stdout
    return log.strip().splitlines()


def test_cluster_refuses_jobs_without_its_token(dashboard):
    command = [str(BIN / "ray"), "job", "submit", f"--address={dashboard}", "--", "true"]
    for other in ({}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}):
        environment = {name: value for name, value in ENVIRONMENT.items() if not name.startswith("RAY_AUTH")} | other
        refused = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        assert refused.returncode != 0 and re.search("401|403|[Aa]uthenticat|[Tt]oken", refused.stderr + refused.stdout)
    with pytest.raises(HTTPError) as refused:
        urlopen(f"{dashboard}/api/jobs/", timeout=20)
    assert refused.value.code in (401, 403)


def test_upload_of_a_job_is_small_and_complete(dashboard, tmp_path):
    """The job lists and compresses its working directory; a clone, since this checkout may have other ignored files."""
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", ROOT, clone], check=True)
    for folder in (".venv/lib", "demo", ".hypothesis", ".mypy_cache", ".pytest_cache", ".ruff_cache"):
        write(clone / folder, {"large": os.urandom(2_000_000)})
    submitted = submit(dashboard, "python", "-c", PACK_FOLDER, folder=clone)
    assert submitted.returncode == 0, submitted.stdout
    names, size = json.loads(logs_of(dashboard, submitted)[-1])
    assert size < 1_000_000
    assert {
        "./jobs/encode.py",
        "./flowers_batch/cli/main.py",
        "./flowers_batch/pages/review/static/review.js",
        "./tensorflow_vgg/network.py",
    } <= set(names)
    assert not any(name.startswith(("./tests/", "./docs/", "./benchmarks/", "./.git/")) for name in names)


def test_submitted_jobs_encode_train_and_predict(dashboard, archive, tmp_path):
    codes, model, labels = (str(tmp_path / name) for name in ("codes", "model", "labels"))
    encoded = submit(dashboard, "python", "jobs/encode.py", str(archive), codes, "--network", "null", "--json")
    assert encoded.returncode == 0, encoded.stdout
    *lines, last = logs_of(dashboard, encoded)
    summary = json.loads(last)
    assert (summary["images"], summary["ok"]) == (30, 30)
    assert (json.loads(lines[-1])["done"], json.loads(lines[-1])["failed"]) == (30, 0)
    trained = submit(dashboard, "python", "jobs/train.py", codes, model, "--labels", "folder", "--seed", "1")
    assert trained.returncode == 0, trained.stdout
    assert json.loads(logs_of(dashboard, trained)[-1])["test"]["accuracy"] > 0.5
    predicted = submit(dashboard, "python", "jobs/predict.py", str(archive), labels, "--model", model)
    assert predicted.returncode == 0, predicted.stdout
    assert fb.verify(labels).is_complete


@pytest.mark.nightly
def test_submission_example_follows_the_job_and_prints_its_summary(dashboard, archive, tmp_path):
    codes = str(tmp_path / "codes")
    command = [sys.executable, ROOT / "examples" / "submit.py", "--address", dashboard, "encode", str(archive), codes]
    ended = subprocess.run(
        [*command, "--network", "null"], env=ENVIRONMENT, capture_output=True, text=True, timeout=180
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == "images: 30, ok: 30, failed: 0"
    refused = subprocess.run([*command, "--network", "n"], env=ENVIRONMENT, capture_output=True, text=True, timeout=180)
    assert refused.returncode == 1 and "FAILED" in refused.stderr
    assert "must be one of vgg16, vgg19" in refused.stdout


def test_failing_job_has_failed_and_names_the_error(dashboard, tmp_path):
    failed = submit(dashboard, "python", "jobs/encode.py", str(tmp_path / "nowhere"), str(tmp_path / "codes"))
    assert failed.returncode != 0
    assert "error: There is no folder" in failed.stdout


def scrape(run: Path) -> dict[tuple[str, str], float]:
    """Return a run's metrics as Prometheus gets them, by name and by the value of their other label, if any."""
    text = urlopen(f"http://127.0.0.1:{METRICS_PORT}/metrics", timeout=20).read().decode()
    found = {}
    for line in text.splitlines():
        name, labels, value = re.fullmatch(r"(?:ray_flowers_batch_(\w+)\{(.*)\} (.*))|.*", line).groups()
        if name and f'run="{run}"' in labels:
            kind = re.search(r'(?:status|stage|state)="([^"]*)"', labels)
            found[name, kind[1] if kind else ""] = float(value)
    return found


@pytest.mark.nightly
def test_prometheus_gets_the_counts_of_the_summary(dashboard, archive, tmp_path):
    photos = Path(shutil.copytree(archive, tmp_path / "photos"))
    (photos / "bad.jpg").write_text("nothing")
    seen: dict[tuple[str, str], float] = {}
    ended = threading.Event()

    def scrape_until_the_end() -> None:
        while not ended.wait(0.2):
            seen.update(scrape(tmp_path / "codes"))

    scraper = threading.Thread(target=scrape_until_the_end)
    scraper.start()
    command = [
        "python",
        "jobs/encode.py",
        str(photos),
        str(tmp_path / "codes"),
        "--network",
        "null",
        "--shard-size",
        "4",
    ]
    try:
        encoded = submit(dashboard, *command)
        summary = json.loads(logs_of(dashboard, encoded)[-1])
        expected = {("images_total", "ok"): 30.0, ("images_total", "failed"): 1.0}
        expected |= {("stage_seconds_total", stage): value for stage, value in summary["stages"].items() if value}
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and any(
            seen.get(key) != pytest.approx(expected[key], abs=6e-4) for key in expected
        ):
            time.sleep(0.2)
    finally:
        ended.set()
        scraper.join()
    assert (summary["ok"], summary["failed"]) == (30, 1)
    assert {key: seen.get(key) for key in expected} == pytest.approx(expected, abs=6e-4), "rounded to milliseconds"
    assert {"images_per_second", "images_done", "shards", "actors"} <= {name for name, _ in seen}
    assert {state for name, state in seen if name == "shards"} == {"waiting", "in_flight", "done"}


def test_actors_log_lines_name_shard_and_attempt(dashboard, session, archive, tmp_path):
    codes = tmp_path / "codes"
    submit(dashboard, "python", "jobs/encode.py", str(archive), str(codes), "--network", "null", "--shard-size", "8")
    lines = [
        json.loads(line)
        for file in session.rglob("worker-*.err")
        for line in file.read_text().splitlines()
        if line.startswith('{"time"')
    ]
    assert lines and all({"time", "event", "shard"} <= set(line) for line in lines)
    ended = [line for line in lines if line["event"] == "done"]
    assert {(line["shard"], line["attempt"]) for line in ended} >= {(shard, 1) for shard in range(4)}
    assert all(line["ok"] + line["failed"] > 0 and line["seconds"] >= 0 for line in ended)
