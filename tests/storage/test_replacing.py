from __future__ import annotations

import fcntl
import os
import stat

import pytest

from flowers_batch.storage.replacing import ChangedError, replace_file, sweep_scratch_files


@pytest.fixture
def folder(tmp_path):
    handle = os.open(tmp_path, os.O_RDONLY)
    yield handle
    os.close(handle)


def test_new_file_has_the_mode_and_no_scratch_file_stays(tmp_path, folder):
    replace_file(folder, "a.xmp", b"new", None, 0o640)
    assert (tmp_path / "a.xmp").read_bytes() == b"new"
    assert stat.S_IMODE((tmp_path / "a.xmp").stat().st_mode) == 0o640
    assert os.listdir(tmp_path) == ["a.xmp"]


def test_replaced_file_keeps_mode_attributes_and_owner(tmp_path, folder):
    path = tmp_path / "a.xmp"
    path.write_bytes(b"old")
    path.chmod(0o464)
    if os.geteuid() == 0:
        os.chown(path, 1234, 4321)
    has_attributes = hasattr(os, "setxattr")
    if has_attributes:
        os.setxattr(path, "user.note", b"mine")
    old = path.stat()
    replace_file(folder, "a.xmp", b"new", old)
    new = path.stat()
    assert path.read_bytes() == b"new"
    assert (new.st_mode, new.st_uid, new.st_gid) == (old.st_mode, old.st_uid, old.st_gid)
    assert not has_attributes or os.getxattr(path, "user.note") == b"mine"


@pytest.mark.parametrize("expected", [False, True], ids=["appeared", "changed"])
def test_file_that_another_program_changes_meanwhile_stays(tmp_path, folder, expected):
    path = tmp_path / "a.xmp"
    path.write_bytes(b"first")
    old = path.stat() if expected else None
    path.write_bytes(b"second!")
    with pytest.raises(ChangedError):
        replace_file(folder, "a.xmp", b"new", old)
    assert path.read_bytes() == b"second!"
    assert os.listdir(tmp_path) == ["a.xmp"]


def test_scratch_file_that_is_swept_before_it_was_locked_is_a_change(tmp_path, folder, monkeypatch):
    def sweep(file):
        for scratch in tmp_path.iterdir():
            scratch.unlink()

    monkeypatch.setattr(os, "fsync", sweep)
    with pytest.raises(ChangedError):
        replace_file(folder, "a.xmp", b"new", None)


def test_planted_link_is_not_written_through(tmp_path, folder):
    target = tmp_path / "target"
    target.write_bytes(b"private")
    (tmp_path / "a.xmp").symlink_to(target)
    with pytest.raises(ChangedError):
        replace_file(folder, "a.xmp", b"new", None)
    assert target.read_bytes() == b"private"


def test_scratch_files_are_swept_unless_their_process_lives(tmp_path, folder):
    dead, alive, other = (tmp_path / name for name in ("_tmp-replacing-1", "_tmp-replacing-2", "_tmp-3"))
    for path in (dead, alive, other):
        path.write_bytes(b"half")
    with open(alive) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        sweep_scratch_files(folder)
    assert sorted(os.listdir(tmp_path)) == ["_tmp-3", "_tmp-replacing-2"]
