from __future__ import annotations

import os
import re
import stat

import pytest
from planting import PLANTS, plant

from flowers_batch.errors import InputError
from flowers_batch.storage.locks import hold_lock, wait_for_lock
from flowers_batch.storage.opening import open_folder
from flowers_batch.storage.own_files import open_own_file


@pytest.mark.parametrize("flags", [os.O_RDWR | os.O_CREAT, os.O_WRONLY | os.O_CREAT | os.O_TRUNC], ids=["rw", "trunc"])
@pytest.mark.parametrize("kind", PLANTS)
def test_planted_file_is_refused_and_its_target_stays(tmp_path, private, kind, flags):
    path = tmp_path / "known"
    plant(kind, path, private)
    handles = os.listdir("/proc/self/fd")
    message = f"^{re.escape(str(path))} cannot be written, since it {PLANTS[kind]}.*: delete it, or choose another"
    with pytest.raises(InputError, match=message):
        open_own_file(path, flags)
    assert os.listdir("/proc/self/fd") == handles


@pytest.mark.parametrize("lock", [hold_lock, lambda *names: wait_for_lock(*names, lambda: None)], ids=["hold", "wait"])
@pytest.mark.parametrize("kind", PLANTS)
def test_planted_lock_file_is_refused(tmp_path, private, kind, lock):
    plant(kind, tmp_path / "_lock", private)
    with pytest.raises(InputError, match=f"_lock .*{PLANTS[kind]}"), lock(str(tmp_path / "_lock"), "run"):
        pass


def test_folder_that_the_user_links_can_be_locked(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    with open_folder(tmp_path / "run").locked():
        assert b"process" in (tmp_path / "disk" / "_lock").read_bytes()


def test_own_file_is_emptied_only_if_asked(tmp_path):
    path = tmp_path / "known"
    path.write_text("old")
    for flags, left in ((os.O_RDWR, "old"), (os.O_RDWR | os.O_TRUNC, "")):
        os.close(open_own_file(path, flags))
        assert path.read_text() == left


def test_own_file_is_never_world_writable(tmp_path):
    umask = os.umask(0)
    try:
        os.close(open_own_file(tmp_path / "known", os.O_WRONLY | os.O_CREAT, 0o666))
    finally:
        os.umask(umask)
    assert stat.S_IMODE((tmp_path / "known").stat().st_mode) == 0o664


def test_lock_file_that_was_deleted_meanwhile_is_made_again(tmp_path, monkeypatch):
    path, deleted = tmp_path / "_lock", []

    def lock(handle, name):
        if not deleted:
            deleted.append(os.unlink(path))
        return True

    monkeypatch.setattr("flowers_batch.storage.locks.try_lock", lock)
    monkeypatch.setattr("flowers_batch.storage.locks._WAIT_SECONDS", 0)
    with wait_for_lock(str(path), "run", lambda: None):
        assert deleted and path.exists()
