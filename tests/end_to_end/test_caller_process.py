"""The caller's process, such as a notebook, is afterwards as it was before."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

SCRIPT = """
import faulthandler, json, os, resource, signal, sys, threading
import cv2, numpy
from threadpoolctl import threadpool_info
import flowers_batch as fb

redirected = []
dup2 = os.dup2
os.dup2 = lambda *arguments: (redirected.append(arguments), dup2(*arguments))[1]


def state():
    found = {
        "signal handlers": {number: repr(signal.getsignal(number)) for number in signal.valid_signals()},
        "streams": [id(sys.stdin), id(sys.stdout), id(sys.stderr)],
        "file descriptors": [[os.readlink(f"/proc/self/fd/{n}"), *os.fstat(n)[:3]] for n in range(3)],
        "redirections": list(redirected),
        "environment": dict(os.environ),
        "faulthandler": faulthandler.is_enabled(),
        "libraries' threads": {each["filepath"]: each["num_threads"] for each in threadpool_info()},
        "OpenCV's threads": cv2.getNumThreads(),
        "Python's threads": sorted(thread.name for thread in threading.enumerate()),
        "limits": {name: resource.getrlimit(getattr(resource, name)) for name in dir(resource) if "RLIMIT" in name},
        "folder": os.getcwd(),
    }
    if "tensorflow" in sys.modules:
        found["TensorFlow's threads"] = sys.modules["tensorflow"].config.threading.get_intra_op_parallelism_threads()
    return found


def record_changes(name, before):
    after = state()
    changes[name] = {key: [before[key], after[key]] for key in before if before[key] != after[key]}


def stop(number, frame):
    sys.exit("SIGTERM came to the caller's own handler")


def encode(out):
    assert fb.encode(f"{folder}/photos", out, fb.EncodeConfig(network="null", shard_size=16)).ok == 30


folder = sys.argv[1]
changes = {}
signal.signal(signal.SIGTERM, stop)
cv2.setNumThreads(3)  # OpenCV sets up its threads at first use

before = state()
encode(f"{folder}/codes")
record_changes("encode", before)

before = state()
thread = threading.Thread(target=encode, args=[f"{folder}/codes of a thread"])
thread.start()
thread.join()
assert os.path.exists(f"{folder}/codes of a thread/_SUCCESS")
record_changes("encode in a thread", before)

# What importing libraries changes is theirs.
import keras, matplotlib.pyplot, ray, sklearn.linear_model, tensorflow

before = state()
verified = fb.verify(f"{folder}/codes", deep=True)
assert (verified.is_complete, verified.sampled) == (True, 30), verified
record_changes("verify", before)

before = state()
fb.train(f"{folder}/codes", f"{folder}/model", fb.TrainConfig(("folder",), head="mlp"))
fb.predict(f"{folder}/codes", f"{folder}/labels", f"{folder}/model")
fb.report(f"{folder}/labels")
record_changes("train, predict and report", before)

# Ray keeps the first token of a process, and a Ray of the caller's own has another one than ours.
ray.init(address="local", num_cpus=1, include_dashboard=False, logging_level="ERROR")
assert ray.get(ray.remote(lambda: 1).remote()) == 1
ray.shutdown()
print(json.dumps(changes))
"""


@pytest.mark.nightly
@pytest.mark.slow
def test_callers_process_is_left_as_it_was(archive, tmp_path):
    """Runs with a Ray of their own, also in a thread other than the main one, and what runs without Ray."""
    (tmp_path / "photos").symlink_to(archive)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "TF_"))}
    environment["HOME"] = str(tmp_path)  # where the caller's own Ray puts its token
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    ended = subprocess.run(command, env=environment, stdout=subprocess.PIPE, timeout=300, check=True)
    changes = json.loads(ended.stdout.splitlines()[-1])
    steps = ("encode", "encode in a thread", "verify", "train, predict and report")
    assert changes == {step: {} for step in steps}
