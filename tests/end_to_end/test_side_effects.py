"""A caller's process, such as a notebook, is afterwards as it was before."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import draw_archive, run_shards_here

import flowers_batch as fb

SCRIPT = """
import json, os, signal, sys

# What importing libraries changes is theirs.
import cv2, keras, matplotlib.pyplot, ray, sklearn.linear_model, tensorflow, threadpoolctl
import flowers_batch as fb

redirected = []
dup2 = os.dup2
os.dup2 = lambda *arguments: (redirected.append(arguments), dup2(*arguments))[1]


def state():
    return {
        "OpenCV's threads": cv2.getNumThreads(),
        "libraries' threads": {each["filepath"]: each["num_threads"] for each in threadpoolctl.threadpool_info()},
        "TensorFlow's threads": tensorflow.config.threading.get_intra_op_parallelism_threads(),
        "signal handlers": {str(number): str(signal.getsignal(number)) for number in signal.valid_signals()},
        "streams": [id(sys.stdin), id(sys.stdout), id(sys.stderr)],
        "file descriptors": [list(os.fstat(number)[:3]) for number in range(3)],
        "environment": dict(os.environ),
        "redirections": list(redirected),
    }


def work(folder):
    found = fb.verify(f"{folder}/codes", deep=True)
    assert (found.is_complete, found.sampled) == (True, 12), found
    fb.train(f"{folder}/codes", f"{folder}/mlp", fb.TrainConfig(head="mlp"))
    fb.report(f"{folder}/labels")


# cv2 sets up its threads at first use.
cv2.setNumThreads(3)
before = state()
work(sys.argv[1])
after = state()
environment = sorted(set(before.pop("environment").items()) ^ set(after.pop("environment").items()))
changed = {name: [before[name], after[name]] for name in before if before[name] != after[name]}
print(json.dumps([environment, changed]))
"""


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Codes of 12 images, a model trained on them, and labels by it."""
    monkeypatch.setattr("flowers_batch.runs.execution.run_shards", run_shards_here)
    draw_archive(tmp_path / "photos", 4)
    fb.encode(tmp_path / "photos", tmp_path / "codes", fb.EncodeConfig(network="null"))
    fb.train(tmp_path / "codes", tmp_path / "model", fb.TrainConfig(head="logistic"))
    fb.predict(tmp_path / "photos", tmp_path / "labels", tmp_path / "model")
    return tmp_path


def test_callers_process_is_left_as_it_was(folder):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "TF_"))}
    command = [sys.executable, "-c", SCRIPT, str(folder)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, timeout=300, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == [[], {}]


def test_deep_verification_finds_a_changed_photo(local_ray, folder):
    photo = folder / "photos" / "green" / "0002.png"
    photo.write_bytes((folder / "photos" / "red" / "0003.png").read_bytes())
    found = fb.verify(folder / "codes", deep=True)
    assert found.sampled == 12
    assert found.problems == [
        "green/0002.png has other bytes now than when its row was made: run the same command again."
    ]
