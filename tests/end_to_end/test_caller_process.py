"""What a run leaves behind in the process that calls it: nothing."""

from __future__ import annotations

import json
import subprocess
import sys

SCRIPT = """
import faulthandler, json, os, resource, signal, sys, threading
from pathlib import Path
import cv2
import numpy
from threadpoolctl import threadpool_info
import flowers_batch as fb

def state():
    return {
        "signals": {number: repr(signal.getsignal(number)) for number in signal.valid_signals()},
        "streams": [sys.stdout is sys.__stdout__, sys.stderr is sys.__stderr__],
        "descriptors": [os.readlink(f"/proc/self/fd/{number}") for number in range(3)],
        "environment": dict(os.environ),
        "faulthandler": faulthandler.is_enabled(),
        "threads": {pool["filepath"]: pool["num_threads"] for pool in threadpool_info()} | {"cv2": cv2.getNumThreads()},
        "python threads": sorted(thread.name for thread in threading.enumerate()),
        "limits": {name: resource.getrlimit(getattr(resource, name)) for name in dir(resource) if "RLIMIT" in name},
        "folder": os.getcwd(),
    }

def stop(number, frame):
    sys.exit("SIGTERM came to the caller's own handler")

def encode(out):
    assert fb.encode(sys.argv[1], out, fb.EncodeConfig(network="null", shard_size=16)).ok == 30

signal.signal(signal.SIGTERM, stop)
before = state()
encode(sys.argv[2])
thread = threading.Thread(target=encode, args=sys.argv[3:])
thread.start()
thread.join()
assert (Path(sys.argv[3]) / "_SUCCESS").exists()
after = state()
json.dump({name: [before[name], after[name]] for name in before if before[name] != after[name]}, sys.stdout)
"""


def test_encode_leaves_the_calling_process_as_it_was(archive, tmp_path):
    """Also a second run, with a Ray of its own, in a thread other than the main one."""
    command = [sys.executable, "-c", SCRIPT, str(archive), str(tmp_path / "first"), str(tmp_path / "second")]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=180, check=True)
    assert json.loads(ended.stdout) == {}
