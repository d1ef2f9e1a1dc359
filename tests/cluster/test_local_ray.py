"""Where a Ray of our own puts its files, and how it says that it cannot."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

import psutil
import pytest

from flowers_batch.cluster import local_ray, shortages
from flowers_batch.errors import InputError, RunError


@pytest.fixture
def fits_nowhere(monkeypatch):
    """Neither TMPDIR nor the folders in its place are there; tests may set TMPDIR."""
    monkeypatch.setattr(local_ray, "_TEMPORARY_FOLDERS", ("/proc/none",))
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.delenv("TMPDIR", raising=False)


def enter() -> str:
    with local_ray._ray_folder() as folder:
        assert os.path.isdir(os.path.dirname(folder))
        return folder


def test_ray_folder_is_in_the_first_folder_with_room(fits_nowhere, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # too long
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as short:
        monkeypatch.setattr(local_ray, "_TEMPORARY_FOLDERS", ("/proc/none", short))
        folder = enter()
        assert folder.startswith(f"{short}/") and folder.endswith("/ray")
        assert os.listdir(short) == []


def test_folder_whose_name_is_not_ascii_is_passed_over(fits_nowhere, monkeypatch):
    with tempfile.TemporaryDirectory(prefix="ü", dir="/tmp") as other:
        monkeypatch.setenv("TMPDIR", other)
        with pytest.raises(InputError, match=rf"\({other}: its name is not ASCII, /proc/none: .* all of them ASCII\.$"):
            enter()


def test_longest_socket_of_ray_fits(monkeypatch):
    """The longest path below the longest accepted folder has 107 bytes, which Ray accepts."""
    from ray._private.utils import validate_socket_filepath

    parent = "x" * local_ray._MAX_NAME_BYTES
    path = f"{parent}/{'x' * local_ray.NAME_BYTES}{local_ray._SOCKET}"
    validate_socket_filepath(path)
    with pytest.raises(OSError, match="107"):
        validate_socket_filepath(path + "x")


def test_no_room_for_ray_is_said_in_a_sentence(fits_nowhere, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    length = len(str(tmp_path))
    sentence = (
        rf"^Ray has no temporary folder here \({tmp_path}: its name has {length} bytes, /proc/none: No such file or "
        r"directory\): set TMPDIR to a folder with 32 MB of room, whose name has at most \d+ bytes, "
        r"all of them ASCII\.$"
    )
    with pytest.raises(InputError, match=sentence):
        enter()


def test_full_temporary_folder_is_named(fits_nowhere, monkeypatch):
    monkeypatch.setattr(shortages, "DISK_BYTES", 1 << 62)
    monkeypatch.setenv("TMPDIR", "/tmp")
    with pytest.raises(
        InputError, match=r"\(/tmp: \d+ MB are free, and Ray takes \d+ MB, /proc/none: .*\): set TMPDIR"
    ):
        enter()


def test_ray_that_does_not_start_is_said_in_a_sentence(tmp_path, monkeypatch):
    import ray

    def init(**options):
        raise Exception("The current node timed out during startup.\nThis could happen")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    sentence = r"^Ray cannot be started on this machine \(The current node timed out during startup\.\): see whether"
    with pytest.raises(RunError, match=sentence):
        local_ray._start(f"{tmp_path}/ray")


def test_limit_too_low_for_ray_is_said_before_it_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(local_ray, "shortages", lambda folder: [f"no room in {folder}", "no memory"])
    with pytest.raises(RunError, match=rf"^Ray cannot be started on this machine: no room in {tmp_path}; no memory\.$"):
        local_ray._start(f"{tmp_path}/ray")


def test_file_system_without_room_for_more_files_is_named(fits_nowhere, tmp_path, monkeypatch):
    monkeypatch.setattr(shortages, "INODES", 1 << 62)
    monkeypatch.setenv("TMPDIR", "/tmp")
    with pytest.raises(InputError, match=r"\(/tmp: there is room for \d+ more files, and Ray makes \d+, /proc/none"):
        enter()


def test_processes_of_an_interrupted_ray_are_ended(tmp_path):
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    with subprocess.Popen([*command, f"{tmp_path}/ray"]) as ours, subprocess.Popen(command) as other:
        local_ray.kill_processes_in(f"{tmp_path}/ray")
        assert not psutil.pid_exists(ours.pid) and other.poll() is None
        other.kill()
