"""What a killed upload leaves in the temporary folder is swept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import store

from flowers_batch.storage.opening import open_folder

UPLOAD = """
import sys, time
from pathlib import Path
from flowers_batch.storage.folder import Folder

class Stream:
    def write(self, block):
        print("uploading", flush=True)
        time.sleep(600)

class SlowFiles:
    type_name = "slow"
    def create_dir(self, *_, **__):
        pass
    def open_output_stream(self, name):
        return Stream()

with Folder("slow://bucket/run", SlowFiles(), "run").publish("codes/shard-000000.parquet") as scratch:
    Path(scratch).write_bytes(bytes(1_000_000))
"""
DOWNLOAD = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from helpers import store
with store(Path(sys.argv[2])).local_copy("weights.h5"):
    print("copied", flush=True)
    time.sleep(600)
"""


class Killed(subprocess.Popen):
    """A process that is killed when its block is left."""

    def __exit__(self, *error):
        self.kill()
        super().__exit__(*error)


@pytest.mark.parametrize("code", [UPLOAD, DOWNLOAD], ids=["upload", "local_copy"])
def test_scratch_of_a_killed_process_is_swept_by_the_next_one(tmp_path, monkeypatch, code):
    run, scratch = tmp_path / "run", tmp_path / "scratch"
    run.mkdir()
    scratch.mkdir()
    (run / "weights.h5").write_bytes(b"1")
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    command = [sys.executable, "-c", code, Path(__file__).parent.parent, run]
    environment = os.environ | {"TMPDIR": str(scratch)}
    with Killed(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout.readline()
        held = list(scratch.rglob("*"))
        with store(run).publish("x") as path:
            assert set(held) < set(scratch.rglob("*")), "files of a living process were deleted"
            Path(path).write_bytes(b"1")
    assert list(scratch.rglob("*")) == held
    with store(run).publish("x") as path:
        assert list(scratch.iterdir()) == [Path(path).parent]
        Path(path).write_bytes(b"1")
    assert list(scratch.iterdir()) == []


def test_local_files_leave_the_temporary_folder_alone(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")
    with open_folder(tmp_path).publish("x") as scratch:
        Path(scratch).write_bytes(b"1")
    with open_folder(tmp_path).local_copy("x") as path:
        assert path == str(tmp_path / "x")
