from __future__ import annotations

import errno
import os
import re

import pytest
from helpers import store, write

from flowers_batch.encoding import weights
from flowers_batch.encoding.weights import convert_weights, weights_on_this_machine
from flowers_batch.errors import InputError, RunError
from flowers_batch.storage import retries
from flowers_batch.storage.folder import Folder
from tensorflow_vgg import weights as vgg_weights


@pytest.fixture
def remote(tmp_path, monkeypatch) -> Folder:
    """A store with a weights file, which is found by any URL; the cache of this machine is empty."""
    folder = store(write(tmp_path / "remote", {"vgg16.h5": b"weights"}))
    monkeypatch.setattr(weights, "split_file", lambda url: (folder, url.rpartition("/")[2]))
    monkeypatch.setattr(retries, "RETRY_SECONDS", ())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def test_copied_weights_are_kept_and_scratch_of_killed_copies_is_not(remote, tmp_path):
    left = tmp_path / "cache" / "flowers_batch" / "_tmp-killed.h5"
    write(left.parent, {left.name: b"half"})
    path = weights_on_this_machine("store://bucket/run/vgg16.h5")
    with open(path, "rb") as file:
        assert file.read() == b"weights"
    assert sorted(os.listdir(left.parent)) == sorted(["_lock", os.path.basename(path)])


def test_store_that_fails_is_named_and_not_the_cache(remote, monkeypatch):
    def fail(*_):
        raise OSError("AWS Error NETWORK_CONNECTION during GetObject operation")

    monkeypatch.setattr(Folder, "open", fail)
    message = rf"^{re.escape(remote.url_of('vgg16.h5'))} cannot be read \(AWS .*\): check the connection"
    with pytest.raises(RunError, match=message):
        weights_on_this_machine("store://bucket/run/vgg16.h5")


def test_converting_to_an_unknown_format_names_the_target(remote, tmp_path):
    for target in (f"{tmp_path}/vgg16.pth", "store://bucket/run/vgg16.pth"):
        with pytest.raises(InputError, match=rf"^{re.escape(target)} cannot be written: its name must end in \.npy"):
            convert_weights("random:0", target, "float32")


def test_converting_on_a_full_disk_names_the_target(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(vgg_weights, "convert", fail)
    message = rf"^{re.escape(str(tmp_path))}/vgg16\.h5 cannot be written \(No space left on device\): make room"
    with pytest.raises(RunError, match=message):
        convert_weights("random:0", f"{tmp_path}/vgg16.h5", "float32")
    assert os.listdir(tmp_path) == []
