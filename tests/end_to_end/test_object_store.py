"""A run from an object store into one, through Ray."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from archives import as_tars
from helpers import draw_archive

STORE = """
import json, sys
import ray
import flowers_batch as fb

photos, tars, new, run = sys.argv[1:]
config = fb.EncodeConfig(network="null", shard_size=4)
ray.init(address="local", num_cpus=2, num_gpus=0, include_dashboard=False, log_to_driver=False, logging_level="ERROR")

def url(name):
    return run.replace("?", f"/{name}?")

def show(summary):
    print(json.dumps([summary.ok, summary.resumed, summary.duplicates, summary.shards]))

show(fb.encode(photos, url("codes"), config))
from flowers_batch.storage.opening import split_file
folder, name = split_file(new)
with folder.publish(name) as scratch, folder.open("0000.png") as old, open(scratch, "wb") as file:
    file.write(old.read())
show(fb.encode(photos, url("codes"), config))
show(fb.encode(photos, url("codes"), config))
fb.train(url("codes"), url("model"), fb.TrainConfig(("folder",), head="logistic"))
show(fb.predict(tars, url("labels"), url("model")))
print(json.dumps([fb.verify(url(kind), deep=True).problems for kind in ("codes", "labels")]))
"""


@pytest.mark.slow
def test_runs_read_and_write_object_stores(s3, tmp_path):
    photos = draw_archive(tmp_path / "photos", 6)
    as_tars(photos, tmp_path)
    s3.upload(photos, "photos")
    for path in tmp_path.glob("*.tar"):
        s3.put(f"tars/{path.name}", path.read_bytes())
    urls = [s3.url(name) for name in ("photos", "tars/*.tar", "photos/red/new.png", "run")]
    # A process of its own, whose actors reach the store by the environment's keys.
    ended = subprocess.run([sys.executable, "-c", STORE, *urls], stdout=subprocess.PIPE, check=True, timeout=150)
    printed = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith(b"[")]
    assert printed == [[18, 0, 0, 5], [19, 18, 1, 6], [19, 19, 1, 6], [18, 0, 0, 1], [[], []]]
