"""Scratch folders: private, deleted at the end, and swept after processes that were killed."""

from __future__ import annotations

import errno
import gc
import os
import socket
import stat
import subprocess
import sys

import pytest

from flowers_batch.storage import scratch
from flowers_batch.storage.scratch import scratch_folder, sweep_scratch_folders

HOLDER = """
import sys, time
from flowers_batch.storage.scratch import scratch_folder
with scratch_folder(sys.argv[1]) as folder:
    open(folder + "/file", "w").close()
    print(folder, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds a scratch folder in `tmp_path`, and the folder's path."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        yield process, process.stdout.readline().strip()
        process.kill()


def test_scratch_folder_is_private_and_deleted(tmp_path):
    with pytest.raises(ValueError), scratch_folder(str(tmp_path)) as folder:
        assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
        (tmp_path / folder / "below").mkdir()
        raise ValueError
    assert list(tmp_path.iterdir()) == []


def test_scratch_folder_of_a_killed_process_is_swept(tmp_path, holder):
    process, left = holder
    with scratch_folder(str(tmp_path)) as folder:
        assert os.path.exists(f"{left}/file"), "the folder of a living process was deleted"
        process.kill()
        process.wait()
        sweep_scratch_folders(str(tmp_path))
        assert os.listdir(tmp_path) == [os.path.basename(folder)]


def test_sweep_leaves_other_folders_alone(tmp_path, monkeypatch):
    """Folders that only have such a name, links, and folders of other hosts and users."""
    lock = "_scratch-lock"
    for name, content in (("another", ""), (f"{scratch.PREFIX}of_hosts", f"not {socket.gethostname()}")):
        (tmp_path / name).mkdir()
        (tmp_path / name / lock).write_text(content)
    (tmp_path / f"{scratch.PREFIX}20261126").mkdir()
    (tmp_path / f"{scratch.PREFIX}20261126" / "a users file").touch()
    (tmp_path / f"{scratch.PREFIX}is_link_").symlink_to(tmp_path / "another")
    before = sorted(tmp_path.rglob("*"))
    sweep_scratch_folders(str(tmp_path))
    assert sorted(tmp_path.rglob("*")) == before

    left = tmp_path / f"{scratch.PREFIX}of_users"
    left.mkdir()
    (left / lock).touch()
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        sweep_scratch_folders(str(tmp_path))
    assert left.exists()
    sweep_scratch_folders(str(tmp_path))
    assert not left.exists()


def test_scratch_folder_works_without_locks(tmp_path, monkeypatch):
    def no_locks(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(scratch.fcntl, "flock", no_locks)
    with scratch_folder(str(tmp_path)) as folder:
        sweep_scratch_folders(str(tmp_path))
        assert os.path.exists(folder)
    assert not os.path.exists(folder)


def test_folder_swept_before_it_is_locked_is_made_again(tmp_path, monkeypatch):
    lock, locked = scratch.fcntl.flock, []

    def lock_after_a_sweep(descriptor, operation):
        locked.append(descriptor)
        if len(locked) == 1:
            sweep_scratch_folders(str(tmp_path))
        lock(descriptor, operation)

    monkeypatch.setattr(scratch.fcntl, "flock", lock_after_a_sweep)
    with scratch_folder(str(tmp_path)) as folder:
        assert os.listdir(tmp_path) == [os.path.basename(folder)]


def test_folder_on_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    def write(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    gc.collect()  # what earlier tests left open is not closed meanwhile
    open_before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(scratch.os, "write", write)
    with pytest.raises(OSError, match="No space left"), scratch_folder(str(tmp_path)):
        pass
    assert list(tmp_path.iterdir()) == [] and len(os.listdir("/proc/self/fd")) == open_before


def test_link_in_place_of_a_scratch_folder_is_not_followed(tmp_path, private):
    parent = tmp_path / "parent"
    parent.mkdir()
    with scratch_folder(str(parent)) as folder:
        os.rename(folder, f"{folder}-moved")
        os.symlink(private.parent, folder)
