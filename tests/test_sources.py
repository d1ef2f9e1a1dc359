from __future__ import annotations

import os
import random
import socket
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from helpers import source, store, write

from flowers_batch import sources
from flowers_batch.config import InputError
from flowers_batch.sources import SUFFIXES, FolderSource, Image, ReadError, open_source, path_bytes

NAMES = [
    "a.jpg",
    "a/b.jpg",
    "a-b/c.jpg",
    "a.b/c.jpg",
    "a/.jpg/d.jpg",
    "a0.jpg",
    "a/b/c.jpg",
    "a/b.c.jpg",
    "B.jpg",
    "Zoë.jpg",
    "zo/é.jpg",
    "ä/ö.jpg",
    "ä.jpg",
    "日本.jpg",
    "😀/x.jpg",
    " b.jpg",
    "b c/d.jpg",
    "new\nline.jpg",
    "%41.jpg",
    "=1+1.jpg",
]


@pytest.fixture(params=["local", "store"])
def opened(request, tmp_path) -> FolderSource:
    path = tmp_path / "photos"
    path.mkdir()
    return source(path) if request.param == "local" else FolderSource(store(path))


def paths(photos: FolderSource) -> list[str]:
    return [image.path for image in photos.images()]


def reason_of(photos: FolderSource, path: str) -> str:
    with pytest.raises(ReadError) as refused:
        photos.read(Image(path))
    assert str(refused.value).endswith(".")
    return refused.value.reason


def test_images_come_in_the_order_of_their_full_paths_bytes(opened, tmp_path):
    write(tmp_path / "photos", dict.fromkeys(NAMES, b"x"))
    assert paths(opened) == sorted(NAMES, key=str.encode)


def test_order_is_that_of_the_paths_for_random_trees(opened, tmp_path):
    draw = random.Random(1)
    names = {
        "/".join("".join(draw.choices("aA.-0 é", k=2)) + "_" for _ in range(draw.randint(1, 4))) for _ in range(300)
    }
    write(tmp_path / "photos", {f"{name}.jpg": b"x" for name in names})
    assert paths(opened) == sorted((f"{name}.jpg" for name in names), key=str.encode)


def test_size_and_time_of_each_image_are_told(opened, tmp_path):
    write(tmp_path / "photos", {"a.jpg": b"12345"})
    os.utime(tmp_path / "photos" / "a.jpg", (1_700_000_000.25, 1_700_000_000.25))
    (image,) = opened.images()
    assert (image.path, image.bytes) == ("a.jpg", 5)
    assert image.mtime == datetime.fromtimestamp(1_700_000_000.25, UTC)


def test_bytes_are_read_as_they_lie_there(opened, tmp_path):
    contents = {name: os.urandom(100) for name in NAMES}
    write(tmp_path / "photos", contents)
    assert {path: opened.read(Image(path)) for path in paths(opened)} == contents


def test_suffix_decides_in_any_case_and_other_files_are_counted_as_ignored(opened, tmp_path):
    images = [f"{number}.{suffix}" for number, suffix in enumerate(SUFFIXES)]
    images += [f"upper{number}.{suffix.upper()}" for number, suffix in enumerate(SUFFIXES)] + ["deep/er/x.JpG", ".jpg"]
    others = ["notes.txt", "deep/Thumbs.db", "jpg", "a.jpg.part", "b.jpgx", "c.svg", "deep/er/.DS_Store"]
    write(tmp_path / "photos", dict.fromkeys(images + others, b"x"))
    assert set(paths(opened)) == set(images)
    assert opened.ignored == len(others)


def test_ignored_files_are_counted_anew_each_time(opened, tmp_path):
    write(tmp_path / "photos", {"a.txt": b"", "b.jpg": b""})
    assert paths(opened) == paths(opened)
    assert opened.ignored == 1


def test_folder_named_like_an_image_is_walked_and_is_no_image(opened, tmp_path):
    write(tmp_path / "photos", {"album.jpg/a.jpg": b"x"})
    assert paths(opened) == ["album.jpg/a.jpg"]


def test_store_lists_and_reads_as_the_disk_does(tmp_path):
    write(tmp_path / "photos", {name: name.encode() for name in [*NAMES, "notes.txt"]})
    local, remote = source(tmp_path / "photos"), FolderSource(store(tmp_path / "photos"))
    there = [(image.path, image.bytes) for image in remote.images()]
    assert there == [(image.path, image.bytes) for image in local.images()]
    assert remote.ignored == local.ignored == 1
    assert [remote.read(Image(path)) for path, _ in there] == [local.read(Image(path)) for path, _ in there]


def test_symlinked_file_is_followed(tmp_path):
    write(tmp_path, {"elsewhere/photo": b"12345", "photos/x.txt": b""})
    (tmp_path / "photos" / "link.jpg").symlink_to(tmp_path / "elsewhere" / "photo")
    (image,) = source(tmp_path / "photos").images()
    assert (image.path, image.bytes) == ("link.jpg", 5)
    assert source(tmp_path / "photos").read(Image("link.jpg")) == b"12345"


def test_symlinked_folder_is_not_followed(tmp_path):
    write(tmp_path, {"elsewhere/a.jpg": b"", "photos/b.jpg": b""})
    for name in ("link", "link.jpg"):
        (tmp_path / "photos" / name).symlink_to(tmp_path / "elsewhere")
    (tmp_path / "photos" / "round").symlink_to(tmp_path / "photos")
    photos = source(tmp_path / "photos")
    assert paths(photos) == ["b.jpg"]
    assert photos.ignored == 3


def test_root_that_is_a_symlink_is_followed(tmp_path):
    write(tmp_path, {"photos/a.jpg": b""})
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    assert paths(source(tmp_path / "link")) == ["a.jpg"]


def test_broken_link_is_an_image_that_is_missing(tmp_path):
    (tmp_path / "a.jpg").symlink_to(tmp_path / "nowhere")
    photos = source(tmp_path)
    (image,) = photos.images()
    assert (image.path, image.bytes) == ("a.jpg", 0)
    assert reason_of(photos, "a.jpg") == "missing"


def test_link_to_itself_is_an_image_that_is_unreadable(tmp_path):
    (tmp_path / "a.jpg").symlink_to(tmp_path / "a.jpg")
    photos = source(tmp_path)
    assert paths(photos) == ["a.jpg"]
    assert reason_of(photos, "a.jpg") == "unreadable"


def test_name_that_is_no_utf8_round_trips(tmp_path):
    root = os.fsencode(tmp_path)
    names = [b"caf\xe9.jpg", b"b%20\xff/x.jpg", b"b%20\xff/\xc3\xa9.jpg", b"plain.jpg", b"\xff\xfe.JPG"]
    for name in names:
        os.makedirs(os.path.dirname(os.path.join(root, name)), exist_ok=True)
        with open(os.path.join(root, name), "wb") as file:
            file.write(name)
    photos = source(tmp_path)
    found = paths(photos)
    assert [path_bytes(path) for path in found] == sorted(names)
    assert [photos.read(Image(path)) for path in found] == sorted(names)
    assert [path for path in found if path.startswith("//bytes/")] == [
        "//bytes/b%2520%FF/x.jpg",
        "//bytes/b%2520%FF/%C3%A9.jpg",
        "//bytes/caf%E9.jpg",
        "//bytes/%FF%FE.JPG",
    ]
    for path in found:
        path.encode()


def test_pipe_and_socket_named_like_images_are_unreadable_and_block_nobody(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.jpg")
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.jpg")
        photos = source(tmp_path)
        assert paths(photos) == ["pipe.jpg", "socket.jpg"]
        reasons: list[str] = []
        read = threading.Thread(
            target=lambda: reasons.extend(reason_of(photos, path) for path in paths(photos)), daemon=True
        )
        read.start()
        read.join(5)
    assert reasons == ["unreadable", "unreadable"]


def test_image_that_vanished_is_missing(opened, tmp_path):
    write(tmp_path / "photos", {"a.jpg": b"x", "deep/b.jpg": b"x"})
    found = paths(opened)
    (tmp_path / "photos" / "a.jpg").unlink()
    (tmp_path / "photos" / "deep" / "b.jpg").unlink()
    (tmp_path / "photos" / "deep").rmdir()
    assert [reason_of(opened, path) for path in found] == ["missing", "missing"]


def test_image_that_became_a_folder_is_unreadable(opened, tmp_path):
    write(tmp_path / "photos", {"a.jpg/b.jpg": b""})
    assert reason_of(opened, "a.jpg") == "unreadable"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything, so that nothing is unreadable")
def test_image_that_may_not_be_read_is_unreadable(tmp_path):
    write(tmp_path, {"a.jpg": b"x"})
    (tmp_path / "a.jpg").chmod(0)
    assert reason_of(source(tmp_path), "a.jpg") == "unreadable"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder, so that none is refused")
def test_folder_that_may_not_be_listed_is_refused_in_a_sentence(tmp_path):
    write(tmp_path, {"a.jpg": b"", "closed/b.jpg": b""})
    (tmp_path / "closed").chmod(0)
    try:
        with pytest.raises(InputError, match=r"/closed/? cannot be listed \(Permission denied\): make it readable"):
            paths(source(tmp_path))
    finally:
        (tmp_path / "closed").chmod(0o700)


def test_folder_that_cannot_be_listed_is_refused_in_a_sentence(tmp_path, monkeypatch):
    write(tmp_path, {"a.jpg": b"", "closed/b.jpg": b""})
    scandir = os.scandir

    def refuse(path):
        if path.rstrip(b"/").endswith(b"closed"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(sources.os, "scandir", refuse)
    with pytest.raises(InputError, match=r"/closed/? cannot be listed \(Permission denied\): make it readable"):
        paths(source(tmp_path))


def test_too_large_file_is_refused_without_reading_it(opened, tmp_path):
    write(tmp_path / "photos", {"a.jpg": b"x"})
    os.truncate(tmp_path / "photos" / "a.jpg", 1 << 40)  # a hole: takes no disk, and no memory could hold it
    assert reason_of(opened, "a.jpg") == "too_large"


def test_largest_allowed_file_is_read(opened, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "MAX_BYTES", 10)
    write(tmp_path / "photos", {"a.jpg": bytes(10), "b.jpg": bytes(11)})
    assert opened.read(Image("a.jpg")) == bytes(10)
    assert reason_of(opened, "b.jpg") == "too_large"


def test_missing_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"^There is no folder /.*/nowhere: check its name\.$"):
        open_source(tmp_path / "nowhere")


def test_file_given_as_a_folder_is_refused(tmp_path):
    write(tmp_path, {"a.jpg": b""})
    with pytest.raises(InputError, match=r"a\.jpg is not a folder: give the folder that the photos lie in\.$"):
        open_source(str(tmp_path / "a.jpg"))


def test_source_is_known_by_its_absolute_path(tmp_path, monkeypatch):
    write(tmp_path, {"photos/a.jpg": b""})
    monkeypatch.chdir(tmp_path)
    assert open_source(Path("photos")).url == str(tmp_path / "photos")


def test_empty_folder_has_no_images(opened):
    assert paths(opened) == []
    assert opened.ignored == 0
