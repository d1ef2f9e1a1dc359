"""The jobs, handed to a cluster as a person hands them; and the cluster's own description."""

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
import zipfile
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
import yaml
from helpers import ROOT, free_port, write

import flowers_batch as fb

BIN = Path(sys.executable).parent
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {
    "PATH": f"{BIN}:{os.environ['PATH']}",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    "RAY_metrics_report_interval_ms": "500",
}


EXPORTER = free_port()


@pytest.fixture(scope="module")
def dashboard():
    """The address of a cluster that was started with `ray start --head`; it ends with the tests."""
    port = free_port()
    session = tempfile.mkdtemp(prefix="ray")  # short: paths of Unix sockets have 107 bytes at most
    command = [BIN / "ray", "start", "--head", "--block", "--num-cpus=2", "--num-gpus=0", f"--port={free_port()}"]
    command += ["--dashboard-host=127.0.0.1", f"--dashboard-port={port}", "--object-store-memory=100000000"]
    # A port that is taken, by another Ray on this machine, would leave the cluster without its job agent.
    command += [f"--dashboard-agent-listen-port={free_port()}", f"--temp-dir={session}"]
    command += [f"--metrics-export-port={EXPORTER}"]
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
        shutil.rmtree(session, ignore_errors=True)


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


def logs_of(dashboard: str, submitted: subprocess.CompletedProcess[str]) -> list[str]:
    """The lines of a job's log, as `ray job logs` gives them."""
    job = re.search(r"raysubmit_\w+", submitted.stdout)
    assert job, submitted.stdout
    command = [str(BIN / "ray"), "job", "logs", f"--address={dashboard}", job[0]]
    told = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=True).stdout
    return told.strip().splitlines()


def test_nobody_hands_work_to_the_cluster_without_its_token(dashboard):
    command = [str(BIN / "ray"), "job", "submit", f"--address={dashboard}", "--", "true"]
    for other in ({}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}):
        environment = {name: value for name, value in ENVIRONMENT.items() if not name.startswith("RAY_AUTH")} | other
        refused = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        assert refused.returncode != 0 and re.search("401|403|[Aa]uthenticat|[Tt]oken", refused.stderr + refused.stdout)
    with pytest.raises(HTTPError) as refused:
        urlopen(f"{dashboard}/api/jobs/", timeout=20)
    assert refused.value.code in (401, 403)


def test_what_is_uploaded_with_a_job_is_small_and_all_that_it_needs(tmp_path):
    from ray._private.runtime_env.packaging import create_package

    # A stranger's clone, so that nothing of this one's own is in it.
    subprocess.run(["git", "clone", "-q", ROOT, tmp_path / "clone"], check=True)
    for folder in (".venv/lib", "demo", ".hypothesis", ".mypy_cache", ".pytest_cache", ".ruff_cache"):
        write(tmp_path / "clone" / folder, {"large": os.urandom(2_000_000)})
    create_package(str(tmp_path / "clone"), tmp_path / "package.zip", include_gitignore=True)
    assert (tmp_path / "package.zip").stat().st_size < 1_000_000
    with zipfile.ZipFile(tmp_path / "package.zip") as package:
        names = set(package.namelist())
    assert {
        "jobs/encode.py",
        "flowers_batch/cli/main.py",
        "flowers_batch/pages/review/static/review.js",
        "tensorflow_vgg/network.py",
    } <= names
    assert not any(name.startswith(("tests/", "docs/", "benchmarks/", ".git/")) for name in names)


def test_submitted_jobs_encode_train_and_predict(dashboard, archive, tmp_path):
    codes, model, labels = (str(tmp_path / name) for name in ("codes", "model", "labels"))
    encoded = submit(dashboard, "python", "jobs/encode.py", str(archive), codes, "--network", "null", "--json")
    assert encoded.returncode == 0, encoded.stdout
    *told, last = logs_of(dashboard, encoded)
    summary = json.loads(last)
    assert (summary["images"], summary["ok"]) == (30, 30)
    assert (json.loads(told[-1])["done"], json.loads(told[-1])["failed"]) == (30, 0)
    trained = submit(dashboard, "python", "jobs/train.py", codes, model, "--seed", "1")
    assert trained.returncode == 0, trained.stdout
    assert json.loads(logs_of(dashboard, trained)[-1])["test"]["accuracy"] > 0.5
    predicted = submit(dashboard, "python", "jobs/predict.py", str(archive), labels, "--model", model)
    assert predicted.returncode == 0, predicted.stdout
    assert fb.verify(labels).is_complete


@pytest.mark.slow
def test_submission_example_follows_the_job_and_prints_its_summary(dashboard, archive, tmp_path):
    codes = str(tmp_path / "codes")
    command = [sys.executable, ROOT / "examples" / "submit.py", "--address", dashboard, "encode", str(archive), codes]
    told = subprocess.run([*command, "--network", "null"], env=ENVIRONMENT, capture_output=True, text=True, timeout=180)
    assert told.returncode == 0, told.stderr
    assert told.stdout.splitlines()[-1] == "images: 30, ok: 30, failed: 0"
    refused = subprocess.run([*command, "--network", "n"], env=ENVIRONMENT, capture_output=True, text=True, timeout=180)
    assert refused.returncode == 1 and "FAILED" in refused.stderr
    assert "must be one of vgg16, vgg19" in refused.stdout


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
    assert kinds["gpu"]["min_workers"] == 0 < kinds["gpu"]["max_workers"] == config["max_workers"]
    assert kinds["gpu"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert "~/.ray/auth_token" in config["file_mounts"] and config["idle_timeout_minutes"] > 0
    for line in (*config["head_start_ray_commands"][1:], *config["worker_start_ray_commands"][1:]):
        assert line.startswith("export RAY_AUTH_MODE=token PATH=$HOME/venv/bin:$PATH; ray start ")
    assert any("boto3" in line for line in config["head_setup_commands"]), "Ray's autoscaler imports it"
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][1]
    assert any("--constraint ~/flowers_batch/constraints.txt" in line for line in config["setup_commands"])
    with pytest.raises(Exception, match="resorces"):
        kinds["gpu"]["resorces"] = kinds["gpu"].pop("resources")
        validate_config(config)


def exported(run: Path) -> dict[tuple[str, str], float]:
    """The metrics of a run, as Prometheus gets them: by their name, and the label that they have besides."""
    text = urlopen(f"http://127.0.0.1:{EXPORTER}/metrics", timeout=20).read().decode()
    found = {}
    for line in text.splitlines():
        name, labels, value = re.fullmatch(r"(?:ray_flowers_batch_(\w+)\{(.*)\} (.*))|.*", line).groups()
        if name and f'run="{run}"' in labels:
            kind = re.search(r'(?:status|stage|state)="([^"]*)"', labels)
            found[name, kind[1] if kind else ""] = float(value)
    return found


def test_prometheus_sees_what_the_summary_says(dashboard, archive, tmp_path):
    photos = Path(shutil.copytree(archive, tmp_path / "photos"))
    (photos / "bad.jpg").write_text("nothing")
    seen: dict[tuple[str, str], float] = {}
    ended = threading.Event()

    def scrape() -> None:
        while not ended.wait(0.2):
            seen.update(exported(tmp_path / "codes"))

    scraper = threading.Thread(target=scrape)
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


@pytest.mark.slow
def test_each_line_of_the_actors_log_names_shard_and_attempt(dashboard, archive, tmp_path, tmp_path_factory):
    codes = tmp_path / "codes"
    submit(dashboard, "python", "jobs/encode.py", str(archive), str(codes), "--network", "null", "--shard-size", "8")
    logs = [file for folder in tmp_path_factory.getbasetemp().glob("r*") for file in folder.rglob("worker-*.err")]
    lines = [json.loads(line) for file in logs for line in file.read_text().splitlines() if line.startswith('{"time"')]
    assert lines and all({"time", "event", "shard"} <= set(line) for line in lines)
    ended = [line for line in lines if line["event"] == "done"]
    assert {(line["shard"], line["attempt"]) for line in ended} >= {(shard, 1) for shard in range(4)}
    assert all(line["ok"] + line["failed"] > 0 and line["seconds"] >= 0 for line in ended)


def test_dashboard_shows_metrics_that_there_are():
    import inspect

    from flowers_batch.cluster import metrics

    board = json.loads((ROOT / "docs" / "grafana.json").read_text())
    shown = {name for panel in board["panels"] for target in panel["targets"] for name in NAME.findall(target["expr"])}
    source = inspect.getsource(metrics)
    made = set(re.findall(r'create\(\s*\w+,\s*"(\w+)"', source)) | {"gpu_memory_bytes"}
    assert {name.removesuffix("_total") for name in shown} == made
    told = set(NAME.findall((ROOT / "docs" / "monitoring.md").read_text()))
    assert {name.removesuffix("_total") for name in told} == made


NAME = re.compile(r"ray_flowers_batch_(\w+)")


def test_job_for_kubernetes_is_what_kuberay_takes():
    """No package carries KubeRay's schema: what is checked is what its API documents, and what this project needs."""
    job = yaml.safe_load((ROOT / "jobs" / "rayjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]
    known = {"entrypoint", "submissionMode", "backoffLimit", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished"}
    assert set(spec) == known | {"rayClusterSpec"} and spec["backoffLimit"] > 0
    cluster = spec["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"} and cluster["enableInTreeAutoscaling"] is True
    assert f"ray=={cluster['rayVersion']}" in (ROOT / "constraints.txt").read_text().splitlines()
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    (group,) = cluster["workerGroupSpecs"]
    assert group["minReplicas"] == group["replicas"] == 0 < group["maxReplicas"]
    for template in (cluster["headGroupSpec"]["template"], group["template"]):
        for container in template["spec"]["containers"]:
            asked = container["resources"]
            assert all(asked["requests"].get(name, value) == value for name, value in asked["limits"].items())
    (worker,) = group["template"]["spec"]["containers"]
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == "1"
    volumes = {volume["name"] for volume in group["template"]["spec"]["volumes"]}
    assert {mount["name"] for mount in worker["volumeMounts"]} <= volumes


def test_image_for_kubernetes_holds_what_the_job_runs():
    copied = {
        source
        for line in re.findall(r"^COPY (.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
        for source in line.split()
    }
    assert all((ROOT / source).exists() for source in copied)
    assert {"jobs", "flowers_batch", "tensorflow_vgg", "constraints.txt"} <= copied
    sent = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in sent and {f"!{source}" for source in copied} <= set(sent)
    images = set(re.findall(r"image: (\S+)", (ROOT / "jobs" / "rayjob.yaml").read_text()))
    assert images == {f"FILL-IN/flowers-batch:{fb.__version__}"}
