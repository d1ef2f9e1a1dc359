"""Weights behind a URL: copied once per machine, however many processes want them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flowers_batch.encoding.weights import weights_on_this_machine
from flowers_batch.errors import InputError
from flowers_batch.storage.folder import Folder

CONTENT = bytes(range(256)) * 40
# Copies, says so, and waits for a file that a process makes once it has waited for this one.
COPY = """
import sys, time
from pathlib import Path
from flowers_batch.encoding.weights import weights_on_this_machine
from flowers_batch.storage.folder import Folder

copy_to, calls, waited = Folder.copy_to, [], Path(sys.argv[2])

def slow(self, name, path, progress):
    copy_to(self, name, path)
    print("copying", flush=True)
    while not waited.exists():
        time.sleep(0.01)

def progress():
    calls.append(1)
    if len(calls) == 2:
        waited.touch()

Folder.copy_to = slow
print(weights_on_this_machine(sys.argv[1], progress))
"""


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "flowers_batch"


@pytest.fixture
def url(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "weights.npy").write_bytes(CONTENT)
    return f"file://{tmp_path}/store/weights.npy"


def copying(url: str, waited: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", COPY, url, str(waited)], stdout=subprocess.PIPE, text=True)


def stored(cache: Path) -> list[str]:
    return sorted(name for name in os.listdir(cache) if not name.startswith("_lock"))


def test_two_processes_with_a_cold_cache_copy_once(cache, url, tmp_path):
    """The second waits for the first, and reports progress meanwhile."""
    with copying(url, tmp_path / "waited") as first, contextlib.ExitStack() as stack:
        stack.callback(first.kill)
        assert first.stdout.readline() == "copying\n"
        with copying(url, tmp_path / "waited") as second:
            stack.callback(second.kill)
            path = second.communicate(timeout=60)[0].strip()
        assert first.communicate(timeout=60)[0].strip() == path
    assert Path(path).read_bytes() == CONTENT and stored(cache) == [os.path.basename(path)]


def test_process_killed_while_it_copies_is_replaced_by_one_that_waits(cache, url, tmp_path):
    with copying(url, tmp_path / "never") as first, contextlib.ExitStack() as stack:
        stack.callback(first.kill)
        assert first.stdout.readline() == "copying\n"
        with copying(url, tmp_path / "waited") as second:
            stack.callback(second.kill)
            while not (tmp_path / "waited").exists():
                assert second.poll() is None
                time.sleep(0.01)
            first.kill()
            path = second.communicate(timeout=60)[0].split()[-1]
    assert Path(path).read_bytes() == CONTENT and stored(cache) == [os.path.basename(path)]


def test_weights_replaced_while_they_are_copied_are_refused(cache, url, monkeypatch):
    copy_to = Folder.copy_to

    def replaced(self, *arguments):
        copy_to(self, *arguments)
        Path(self.at("weights.npy")).write_bytes(CONTENT + b"more")

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "copy_to", replaced)
        with pytest.raises(InputError, match=r"was replaced while it was copied: run the same command again\.$"):
            weights_on_this_machine(url)
    assert stored(cache) == []
    assert Path(weights_on_this_machine(url)).read_bytes() == CONTENT + b"more"


def test_cache_that_cannot_be_written_is_named(url, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/none")
    with pytest.raises(InputError, match=r"^/proc/none/flowers_batch cannot be written .* XDG_CACHE_HOME\.$"):
        weights_on_this_machine(url)
