"""The caller's process is after a report and a review as it was before."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile

from helpers import draw_archive

import flowers_batch as fb

SCRIPT = """
import gc, json, os, signal, sys, threading
import cv2, psutil
import flowers_batch as fb

def state():
    gc.collect()
    names = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
    return {
        "files": sorted(os.readlink(name) for name in names if os.path.exists(name)),
        "signals": {number: repr(signal.getsignal(number)) for number in signal.valid_signals()},
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "cv2 threads": cv2.getNumThreads(),
        "processes": [process.pid for process in psutil.Process().children(recursive=True)],
        "environment": dict(os.environ),
    }

def interrupt(announcement):
    announced.append(announcement)
    if len(announced) == 1:
        threading.Timer(1, os.kill, (os.getpid(), signal.SIGINT)).start()

signal.signal(signal.SIGTERM, lambda *_: None)
announced = []
before = state()
if sys.argv[1] == "report":
    fb.report(sys.argv[2], sys.argv[3])
else:
    fb.review(sys.argv[2], sys.argv[3], open_browser=False, announce=interrupt)
    assert announced[0].startswith("http://127.0.0.1:"), announced
after = state()
json.dump({name: [before[name], after[name]] for name in before if before[name] != after[name]}, sys.stdout)
"""


def test_report_and_review_leave_the_calling_process_as_it_was(tmp_path):
    """Photos are in a tar file, and its reader keeps it open between photos."""
    photos = draw_archive(tmp_path / "photos", 10)
    with tarfile.open(tmp_path / "photos.tar", "w") as tar:
        tar.add(photos, ".")
    fb.encode(tmp_path / "photos.tar", tmp_path / "codes", fb.EncodeConfig(network="null"))
    fb.train(tmp_path / "codes", tmp_path / "model", fb.TrainConfig(("folder",), head="logistic"))
    fb.predict(tmp_path / "codes", tmp_path / "predictions", tmp_path / "model")
    for function, out in (("report", "page.html"), ("review", "labels.csv")):
        command = [sys.executable, "-c", SCRIPT, function, str(tmp_path / "predictions"), str(tmp_path / out)]
        ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=60, check=True)
        assert json.loads(ended.stdout) == {}, function
