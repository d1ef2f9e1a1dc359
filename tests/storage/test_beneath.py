"""Files below a folder are opened wherever links lead, and never others."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path

import pytest

from flowers_batch.storage import beneath
from flowers_batch.storage.beneath import OutsideError, lead_outside, open_beneath


@pytest.fixture(params=["openat2", "walk", "seccomp"])
def way(request, monkeypatch) -> str:
    """Each way of opening: the system call, what older systems do, and a container that refuses the call."""

    def refused(folder: int, path: bytes) -> int:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    if request.param == "openat2" and beneath._openat2() is None:
        pytest.skip("this system has no openat2")
    if request.param != "openat2":
        monkeypatch.setattr(beneath, "_openat2", lambda: refused if request.param == "seccomp" else None)
    return request.param


@pytest.fixture
def root(tmp_path) -> Path:
    """A folder with a file, and one outside it."""
    for folder, content in (("root/a/b", b"inside"), ("outside/b", b"outside")):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "photo").write_bytes(content)
    return tmp_path / "root"


def read(root: Path, path: str) -> bytes:
    handle = open_beneath(os.fsencode(root), os.fsencode(path))
    try:
        return os.read(handle, 100)
    finally:
        os.close(handle)


def test_links_are_followed_only_to_what_is_below_the_folder(root, tmp_path, way):
    links = {
        "relative": "a/b/photo",
        "absolute": root / "a" / "b" / "photo",
        "folder": root / "a",
        "chain": "folder/b/photo",
    }
    outside = {
        "out": tmp_path / "outside" / "b" / "photo",
        "up": "../outside/b/photo",
        "folder-out": tmp_path / "outside",
    }
    for name, target in (links | outside).items():
        (root / name).symlink_to(target)
    (tmp_path / "link").symlink_to(root)
    for path in ("a/b/photo", "relative", "absolute", "folder/b/photo", "chain"):
        assert read(root, path) == read(tmp_path / "link", path) == b"inside"
        assert lead_outside(os.fsencode(root), [path.encode()]) == [False]
    for path in ("out", "up", "folder-out/b/photo"):
        assert lead_outside(os.fsencode(root), [b"a/b/photo", path.encode()]) == [False, True]
        with pytest.raises(OutsideError):
            read(root, path)


def test_paths_that_leave_the_folder_are_refused(root, tmp_path, way):
    for path in (
        "../outside/b/photo",
        "a/../../outside/b/photo",
        str(tmp_path / "outside/b/photo"),
        "a//b",
        "a/b/photo\0x",
    ):
        with pytest.raises(OutsideError):
            read(root, path)
    with pytest.raises(FileNotFoundError):
        read(root, "a/none")
    (root / "loop").symlink_to("loop")
    with pytest.raises(OSError, match=r"[Ll]evels of symbolic links"):
        read(root, "loop")


def test_pipe_does_not_block(root, way):
    os.mkfifo(root / "pipe.jpg")
    os.close(open_beneath(os.fsencode(root), b"pipe.jpg"))


@pytest.mark.parametrize("way", ["openat2", "walk"], indirect=True)
def test_folder_exchanged_for_a_link_never_leads_outside(root, tmp_path, way):
    (root / "link").symlink_to(tmp_path / "outside")
    is_over, found = threading.Event(), set()

    def exchange() -> None:
        while not is_over.is_set():
            for old, new in (("a", "kept"), ("link", "a"), ("a", "link"), ("kept", "a")):
                os.rename(root / old, root / new)

    thread = threading.Thread(target=exchange)
    thread.start()
    try:
        end = time.monotonic() + 0.3
        while time.monotonic() < end:
            try:
                found.add(read(root, "a/b/photo"))
            except OSError as error:
                found.add(type(error))
    finally:
        is_over.set()
        thread.join()
    assert b"inside" in found and b"outside" not in found
    assert OutsideError in found, "the link was met"
