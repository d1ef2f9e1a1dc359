from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pytest
from helpers import write
from planting import plant

from flowers_batch.errors import InputError
from flowers_batch.storage.folder import SCRATCH
from flowers_batch.storage.opening import open_folder, split_file


@pytest.fixture
def elsewhere(tmp_path):
    """A folder of another run, which no test may change."""
    files = {"shard": b"mine", f"{SCRATCH}old": b"mine", "deeper/shard": b"mine"}
    yield write(tmp_path / "elsewhere", files)
    assert {name: (tmp_path / "elsewhere" / name).read_bytes() for name in files} == files
    assert sorted(os.listdir(tmp_path / "elsewhere")) == [f"{SCRATCH}old", "deeper", "shard"]


def fill(folder, name):
    with folder.publish(name) as scratch:
        Path(scratch).write_bytes(b"other")


ACTIONS = {
    "publish": lambda folder: fill(folder, "codes/shard"),
    "publish deeper": lambda folder: fill(folder, "codes/deeper/shard"),
    "publish new": lambda folder: fill(folder, "codes/new/shard"),
    "delete": lambda folder: folder.delete("codes/shard"),
    "delete_folder": lambda folder: folder.delete_folder("codes"),
    "delete_folder deeper": lambda folder: folder.delete_folder("codes/deeper"),
    "sweep": lambda folder: folder.sweep("codes"),
}


@pytest.mark.parametrize("action", ACTIONS)
def test_linked_subfolder_is_refused_and_its_target_stays(tmp_path, elsewhere, action):
    run = write(tmp_path / "run", {"job.json": b"{}"})
    (run / "codes").symlink_to(elsewhere)
    handles = os.listdir("/proc/self/fd")
    message = f"^{re.escape(str(run))}/codes is a link, which is not followed: put a folder in its place, or choose"
    with pytest.raises(InputError, match=message):
        ACTIONS[action](open_folder(run))
    assert os.listdir("/proc/self/fd") == handles


def test_subfolder_that_becomes_a_link_meanwhile_is_not_followed(tmp_path, elsewhere):
    run = tmp_path / "run"
    with open_folder(run).publish("codes/shard") as scratch:
        (run / "codes").rename(run / "moved")
        (run / "codes").symlink_to(elsewhere)
        Path(scratch).write_bytes(b"other")
    assert os.listdir(run / "moved") == ["shard"]


def test_folders_that_the_user_links_are_written_to(tmp_path):
    (tmp_path / "disk" / "run").mkdir(parents=True)
    (tmp_path / "home").symlink_to(tmp_path / "disk")
    (tmp_path / "link").symlink_to(tmp_path / "home" / "run")
    for name in ("home/run", "link"):
        folder = open_folder(tmp_path / name)
        fill(folder, "codes/shard")
        fill(folder, f"codes/{SCRATCH}old")
        folder.sweep("codes")
        assert folder.names("codes") == ["shard"]
        folder.delete_folder("codes")
        assert os.listdir(tmp_path / "disk" / "run") == []


@pytest.mark.parametrize("kind", ["link", "dangling link", "hard link"])
def test_published_file_replaces_a_link_and_its_target_stays(tmp_path, private, kind):
    plant(kind, tmp_path / "labels.csv", private)
    folder, name = split_file(tmp_path / "labels.csv")
    fill(folder, name)
    assert not (tmp_path / "labels.csv").is_symlink()
    assert (tmp_path / "labels.csv").read_bytes() == b"other"


def test_links_are_deleted_and_not_their_targets(tmp_path, private):
    run = write(tmp_path / "run", {"epochs/one": b""})
    for name in ("_SUCCESS", f"{SCRATCH}old", "epochs/two"):
        (run / name).symlink_to(private)
    (run / "epochs" / "three").symlink_to(private.parent)
    folder = open_folder(run)
    folder.delete("_SUCCESS")
    folder.sweep()
    folder.delete_folder("epochs")
    assert os.listdir(run) == []


def test_nothing_is_world_writable_whatever_the_umask(tmp_path):
    umask = os.umask(0)
    try:
        with open_folder(tmp_path / "new" / "run").locked():
            fill(open_folder(tmp_path / "new" / "run"), "codes/shard")
    finally:
        os.umask(umask)
    made = list((tmp_path / "new").rglob("*"))
    assert {path.name for path in made} == {"run", "codes", "shard", "_lock"}
    for path in (tmp_path / "new", *made):
        assert not path.stat().st_mode & stat.S_IWOTH, path
