"""Files that describe a cluster: `cluster.yaml`, `jobs/rayjob.yaml`, the Dockerfile and the dashboard."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml
from helpers import ROOT

import flowers_batch as fb

METRIC = re.compile(r"ray_flowers_batch_(\w+)")


def test_cluster_file_matches_the_schema_of_rays_launcher():
    import ray.autoscaler
    from ray.autoscaler.sdk import fillout_defaults

    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    config = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    jsonschema.validate(fillout_defaults(config), schema)
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
    kinds["gpu"]["resorces"] = kinds["gpu"].pop("resources")
    with pytest.raises(jsonschema.ValidationError, match="resorces"):
        jsonschema.validate(fillout_defaults(config), schema)


def test_kubernetes_job_has_the_fields_of_kuberay():
    """No package has KubeRay's schema, so the test lists the documented fields, and checks what this project needs."""
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
            resources = container["resources"]
            limits = resources["limits"]
            assert all(resources["requests"].get(name, value) == value for name, value in limits.items())
    (worker,) = group["template"]["spec"]["containers"]
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == "1"
    volumes = {volume["name"] for volume in group["template"]["spec"]["volumes"]}
    assert {mount["name"] for mount in worker["volumeMounts"]} <= volumes


def test_kubernetes_image_contains_what_the_job_runs():
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


def test_dashboard_and_docs_name_the_metrics_that_exist():
    from flowers_batch.cluster import metrics

    board = json.loads((ROOT / "docs" / "grafana.json").read_text())
    shown = {
        name for panel in board["panels"] for target in panel["targets"] for name in METRIC.findall(target["expr"])
    }
    source = inspect.getsource(metrics)
    made = set(re.findall(r'create\(\s*\w+,\s*"(\w+)"', source)) | {"gpu_memory_bytes"}
    assert {name.removesuffix("_total") for name in shown} == made
    documented = set(METRIC.findall((ROOT / "docs" / "monitoring.md").read_text()))
    assert {name.removesuffix("_total") for name in documented} == made
