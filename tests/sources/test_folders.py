from __future__ import annotations

import errno
import inspect
import os
import pickle
import random
import shutil
import socket
import sys
import threading
import tracemalloc
from datetime import UTC, datetime
from pathlib import Path

import pytest
from helpers import images_in, source, store, write

from flowers_batch.errors import InputError, RunError
from flowers_batch.sources import reading, walking
from flowers_batch.sources.folders import FolderSource
from flowers_batch.sources.images import SUFFIXES, Image, path_bytes
from flowers_batch.sources.left_out import Examples
from flowers_batch.sources.opening import open_source
from flowers_batch.sources.reading import ReadError
from flowers_batch.sources.skipping import Skipping
from flowers_batch.storage import folder, retries

NAMES = [
    "a.jpg",
    "a/b.jpg",
    "a-b/c.jpg",
    "a.b/c.jpg",
    "a/,.jpg/d.jpg",
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


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch):
    monkeypatch.setattr(retries, "RETRY_SECONDS", (0.0, 0.0, 0.0))


def paths(photos: FolderSource) -> list[str]:
    return [image.path for image in images_in(photos)]


def reason_of(photos: FolderSource, path: str) -> str:
    with pytest.raises(ReadError) as refused:
        photos.read(Image(path))
    assert str(refused.value).endswith(".")
    return refused.value.reason


def test_images_are_ordered_by_the_bytes_of_their_full_paths(opened, tmp_path):
    write(tmp_path / "photos", dict.fromkeys(NAMES, b"x"))
    assert paths(opened) == sorted(NAMES, key=str.encode)


def test_folders_may_be_deeper_than_the_recursion_limit(opened, tmp_path):
    names = ["d/" * 150 + "a.jpg", "d.jpg"]
    write(tmp_path / "photos", dict.fromkeys(names, b"x"))
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 60)
    try:
        found = paths(opened)
    finally:
        sys.setrecursionlimit(limit)
    assert found == sorted(names)


def test_random_trees_are_listed_in_path_order(opened, tmp_path):
    draw = random.Random(1)
    names = {
        "/".join("".join(draw.choices("aA,-0 é", k=2)) + "_" for _ in range(draw.randint(1, 4))) for _ in range(300)
    }
    write(tmp_path / "photos", {f"{name}.jpg": b"x" for name in names})
    assert paths(opened) == sorted((f"{name}.jpg" for name in names), key=str.encode)


def test_size_and_time_of_each_image_are_listed(opened, tmp_path):
    write(tmp_path / "photos", {"a.jpg": b"12345"})
    os.utime(tmp_path / "photos" / "a.jpg", (1_700_000_000.25, 1_700_000_000.25))
    (image,) = images_in(opened)
    assert (image.path, image.bytes) == ("a.jpg", 5)
    assert image.mtime == datetime.fromtimestamp(1_700_000_000.25, UTC)


def test_bytes_are_read_unchanged(opened, tmp_path):
    contents = {name: os.urandom(100) for name in NAMES}
    write(tmp_path / "photos", contents)
    assert {path: opened.read(Image(path)) for path in paths(opened)} == contents


def test_suffixes_of_any_case_are_listed_and_other_files_ignored(opened, tmp_path):
    images = [f"{number}.{suffix}" for number, suffix in enumerate(SUFFIXES)]
    images += [f"upper{number}.{suffix.upper()}" for number, suffix in enumerate(SUFFIXES)] + ["deep/er/x.JpG"]
    others = ["notes.txt", "deep/b.JPG_large", "jpg", "a.jpg.part", "b.jpgx", "c.svg", "a.jpg~"]
    write(tmp_path / "photos", dict.fromkeys(images + others, b"x"))
    assert set(paths(opened)) == set(images)
    assert opened.left_out.ignored == len(others)


def test_ignored_files_are_counted_from_zero_each_time(opened, tmp_path):
    write(tmp_path / "photos", {"a.txt": b"", "b.jpg": b""})
    assert paths(opened) == paths(opened)
    assert opened.left_out.ignored == 1


def test_folder_named_like_an_image_is_walked_and_is_no_image(opened, tmp_path):
    write(tmp_path / "photos", {"album.jpg/a.jpg": b"x"})
    assert paths(opened) == ["album.jpg/a.jpg"]


def test_store_and_disk_list_and_read_the_same(tmp_path):
    write(tmp_path / "photos", {name: name.encode() for name in [*NAMES, "notes.txt"]})
    local, remote = source(tmp_path / "photos"), FolderSource(store(tmp_path / "photos"))
    there = [(image.path, image.bytes) for image in images_in(remote)]
    assert there == [(image.path, image.bytes) for image in images_in(local)]
    assert remote.left_out.ignored == local.left_out.ignored == 1
    assert [remote.read(Image(path)) for path, _ in there] == [local.read(Image(path)) for path, _ in there]


def test_symlinked_file_is_followed(tmp_path):
    write(tmp_path, {"elsewhere/photo": b"12345", "photos/x.txt": b""})
    (tmp_path / "photos" / "link.jpg").symlink_to(tmp_path / "elsewhere" / "photo")
    (image,) = images_in(source(tmp_path / "photos"))
    assert (image.path, image.bytes) == ("link.jpg", 5)
    assert source(tmp_path / "photos").read(Image("link.jpg")) == b"12345"


def test_symlinked_folder_is_followed_in_path_order(tmp_path):
    write(
        tmp_path, {"elsewhere/a.jpg": b"1", "elsewhere/deep/c.jpg": b"2", "photos/b.jpg": b"", "photos/link-b.jpg": b""}
    )
    for name in ("link", "link.jpg"):
        (tmp_path / "photos" / name).symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "further").symlink_to("deep")
    photos = source(tmp_path / "photos")
    linked = ["a.jpg", "deep/c.jpg", "further/c.jpg"]
    expected = ["b.jpg", "link-b.jpg", *(f"link.jpg/{name}" for name in linked), *(f"link/{name}" for name in linked)]
    assert paths(photos) == expected
    assert photos.read(Image("link/further/c.jpg")) == b"2"
    assert photos.left_out.ignored == photos.left_out.loops.count == 0


def test_linked_folder_that_contains_the_link_is_counted_and_not_followed(tmp_path):
    write(tmp_path, {"photos/a/b.jpg": b"", "photos/c/d.jpg": b"", "outside/e.jpg": b""})
    (tmp_path / "photos" / "self").symlink_to(tmp_path / "photos")
    (tmp_path / "photos" / "a" / "up").symlink_to("..")
    (tmp_path / "photos" / "c" / "other").symlink_to("../a")  # no loop: `a` does not contain it
    (tmp_path / "outside" / "back").symlink_to(tmp_path / "photos")
    (tmp_path / "photos" / "out").symlink_to(tmp_path / "outside")
    photos = source(tmp_path / "photos")
    assert paths(photos) == ["a/b.jpg", "c/d.jpg", "c/other/b.jpg", "out/e.jpg"]
    assert photos.left_out.loops == Examples(4, ["a/up", "c/other/up", "out/back", "self"])


def test_many_loops_are_counted_and_the_first_ones_named(tmp_path):
    for number in range(20):
        (tmp_path / f"loop{number:02d}").symlink_to(".")
    photos = source(tmp_path)
    assert paths(photos) == []
    assert (photos.left_out.loops.count, len(photos.left_out.loops.first)) == (20, 5)


def test_link_that_leads_nowhere_is_named_unless_it_is_an_images_row(tmp_path):
    (tmp_path / "roses").symlink_to(tmp_path / "lost disk" / "roses")
    (tmp_path / "round").symlink_to("round")
    (tmp_path / "a.jpg").symlink_to(tmp_path / "lost disk" / "a.jpg")
    (tmp_path / ".hidden").symlink_to("nowhere")
    photos = source(tmp_path)
    assert paths(photos) == ["a.jpg"]
    assert photos.left_out.broken_links == Examples(2, ["roses", "round"])
    assert photos.left_out.ignored == 0


def test_link_that_cannot_be_followed_is_refused_unless_it_is_left_out(tmp_path, monkeypatch):
    write(tmp_path, {"a.jpg": b""})
    (tmp_path / "disk").symlink_to(tmp_path / "elsewhere")
    stat = os.stat

    def refuse(path, **options):
        if os.fspath(path).endswith(b"disk"):
            raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")
        return stat(path, **options)

    monkeypatch.setattr(walking.os, "stat", refuse)
    with pytest.raises(
        InputError, match=r"^The link .*/disk cannot be followed \(Transport .*leave it out with `exclude`\.$"
    ):
        paths(source(tmp_path))
    assert paths(open_source(tmp_path, skipping=Skipping(exclude=("disk",)))) == ["a.jpg"]


SYSTEM_FILES = [
    "daisy/@eaDir/a.jpg/SYNOPHOTO_THUMB_XL.jpg",
    "daisy/@eaDir/a.jpg/SYNOINDEX_MEDIA_INFO",
    "daisy/@eaDir/b.jpg/SYNOPHOTO_THUMB_XL.jpg",
    ".Trash-1000/files/deleted.jpg",
    "daisy/._a.jpg",
    "daisy/.cache/c.jpg",
    "daisy/.d.jpg",
    "daisy/.DS_Store",
    "Thumbs.db",
    "My.photoslibrary/resources/derivatives/e.jpg",
]


def test_system_names_are_left_out_and_counted_by_kind(opened, tmp_path):
    write(tmp_path / "photos", dict.fromkeys([*SYSTEM_FILES, "daisy/a.jpg", "daisy/clip.MOV"], b"x"))
    for _ in range(2):
        assert paths(opened) == ["daisy/a.jpg"]
        assert opened.left_out.skipped == {
            "@eaDir": 2,
            ".Trash-*": 1,
            "._*": 1,
            "hidden": 2,
            "*.photoslibrary/resources": 1,
        }
        assert opened.left_out.endings == {".mov": 1}
        assert not opened.left_out.at_least


def test_hidden_names_are_taken_if_asked_for(opened, tmp_path):
    write(tmp_path / "photos", dict.fromkeys([*SYSTEM_FILES, "daisy/a.jpg"], b"x"))
    everything = FolderSource(opened.folder, Skipping(include_hidden=True, exclude=("files",)))
    expected = [*SYSTEM_FILES, "daisy/a.jpg"]
    expected.remove(".Trash-1000/files/deleted.jpg")
    assert paths(everything) == sorted(name for name in expected if name.endswith(".jpg"))
    assert everything.left_out.skipped == {"exclude files": 1}


def test_photo_library_as_the_root_is_listed_without_its_previews(tmp_path):
    names = ["originals/0/a.heic", "resources/derivatives/0/a.jpg", "scopes/syndication/resources/b.jpg"]
    library = tmp_path / "My Photos.photoslibrary"
    write(library, dict.fromkeys([*names, "album/resources/c.jpg"], b"x"))
    for photos in (source(library), FolderSource(store(library))):
        assert paths(photos) == ["album/resources/c.jpg", "originals/0/a.heic"]


def test_hidden_root_is_listed(tmp_path):
    write(tmp_path, {".photos/@eaDir/a.jpg": b"", ".photos/b.jpg": b""})
    assert paths(source(tmp_path / ".photos" / "@eaDir")) == ["a.jpg"]
    assert paths(source(tmp_path / ".photos")) == ["b.jpg"]


def test_excluded_patterns_are_left_out_and_counted(opened, tmp_path):
    write(tmp_path / "photos", dict.fromkeys(["a/raw/1.jpg", "a/1.jpg", "a/1.bak.jpg", "raw/2.jpg", "notes.txt"], b"x"))
    photos = FolderSource(opened.folder, Skipping(exclude=("/raw", "*.bak.jpg", "*.txt")))
    assert paths(photos) == ["a/1.jpg", "a/raw/1.jpg"]
    assert photos.left_out.skipped == {"exclude /raw": 1, "exclude *.bak.jpg": 1, "exclude *.txt": 0}
    assert not photos.left_out.endings


def test_photos_in_a_huge_skipped_folder_are_counted_up_to_a_limit(opened, tmp_path, monkeypatch):
    names = [f"#snapshot/{day}/{number}.jpg" for day in range(9) for number in range(9)]
    write(tmp_path / "photos", dict.fromkeys([*names, "a.jpg", "@eaDir/a.jpg"], b"x"))
    monkeypatch.setattr(walking, "_MAX_COUNTED", 50 if opened.folder.is_local else 5000)
    assert paths(opened) == ["a.jpg"]
    assert 0 < opened.left_out.skipped["#snapshot"] < 50
    assert opened.left_out.skipped["@eaDir"] == 1
    assert opened.left_out.at_least == {"#snapshot"}


def test_skipped_folder_that_may_not_be_listed_is_no_error(tmp_path, monkeypatch):
    write(tmp_path, {"a.jpg": b"", "lost+found/b.jpg": b""})
    monkeypatch.setattr(walking.os, "scandir", refusing(b"lost+found"))
    photos = source(tmp_path)
    assert paths(photos) == ["a.jpg"]
    assert not photos.left_out.skipped and not photos.left_out.at_least


def test_root_that_is_a_symlink_is_followed(tmp_path):
    write(tmp_path, {"photos/a.jpg": b""})
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    assert paths(source(tmp_path / "link")) == ["a.jpg"]


def test_broken_link_is_missing(tmp_path):
    (tmp_path / "a.jpg").symlink_to(tmp_path / "nowhere")
    photos = source(tmp_path)
    (image,) = images_in(photos)
    assert (image.path, image.bytes) == ("a.jpg", 0)
    assert reason_of(photos, "a.jpg") == "missing"


def test_link_to_itself_is_unreadable(tmp_path):
    (tmp_path / "a.jpg").symlink_to(tmp_path / "a.jpg")
    photos = source(tmp_path)
    assert paths(photos) == ["a.jpg"]
    assert reason_of(photos, "a.jpg") == "unreadable"


def test_name_not_utf8_round_trips(tmp_path):
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


def test_pipe_and_socket_named_like_images_fail_without_blocking(tmp_path, monkeypatch):
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


def test_deleted_image_is_missing(opened, tmp_path):
    write(tmp_path / "photos", {"a.jpg": b"x", "deep/b.jpg": b"x", "notes.txt": b""})
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


def refusing(name: bytes, number: int = errno.EACCES):
    """Return a `scandir` that fails for folders with a name."""
    scandir = os.scandir

    def refuse(path):
        if path.rstrip(b"/").endswith(name):
            raise OSError(number, os.strerror(number))
        return scandir(path)

    return refuse


def test_folder_that_cannot_be_listed_is_refused_unless_it_is_excluded(tmp_path, monkeypatch):
    write(tmp_path, {"a.jpg": b"", "closed/b.jpg": b""})
    monkeypatch.setattr(walking.os, "scandir", refusing(b"closed"))
    with pytest.raises(
        InputError, match=r"/closed/? cannot be listed \(Permission denied\): .*, or leave it out with `e"
    ):
        paths(source(tmp_path))
    assert paths(open_source(tmp_path, skipping=Skipping(exclude=("closed",)))) == ["a.jpg"]


def test_folder_that_vanishes_while_it_is_listed_is_refused(tmp_path, monkeypatch):
    write(tmp_path, {"a.jpg": b"", "disk/b.jpg": b""})
    monkeypatch.setattr(walking.os, "scandir", refusing(b"disk", errno.ENOENT))
    with pytest.raises(InputError, match=r"/disk/? vanished while it was listed: run the same command again, or leave"):
        paths(source(tmp_path))


def test_prefix_that_cannot_be_listed_is_refused_unless_it_is_excluded(tmp_path, monkeypatch):
    write(tmp_path / "photos", {"a.jpg": b"", "closed/b.jpg": b""})
    folder = store(tmp_path / "photos")
    infos = walking._StoreWalk._infos

    def refuse(walk, prefix):
        if prefix == b"closed/":
            raise OSError("When listing objects: AWS Error ACCESS_DENIED: Access Denied.")
        return infos(walk, prefix)

    monkeypatch.setattr(walking._StoreWalk, "_infos", refuse)
    with pytest.raises(InputError, match=r"run/closed/ cannot be listed \(.*\): .*, or leave it out with `exclude`\.$"):
        paths(FolderSource(folder))
    assert paths(FolderSource(folder, Skipping(exclude=("closed",)))) == ["a.jpg"]


def test_too_large_file_is_refused_without_reading_it(opened, tmp_path):
    write(tmp_path / "photos", {"a.jpg": b"x"})
    os.truncate(tmp_path / "photos" / "a.jpg", 1 << 40)  # a sparse file: takes no disk, and does not fit in memory
    assert reason_of(opened, "a.jpg") == "too_large"


def test_largest_allowed_file_is_read(opened, tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "MAX_BYTES", 10)
    write(tmp_path / "photos", {"a.jpg": bytes(10), "b.jpg": bytes(11)})
    assert opened.read(Image("a.jpg")) == bytes(10)
    assert reason_of(opened, "b.jpg") == "too_large"


def test_missing_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"^There is no folder or file /.*/nowhere: check its name\.$"):
        open_source(tmp_path / "nowhere")


def test_file_of_another_kind_is_refused(tmp_path):
    write(tmp_path, {"a.jpg": b""})
    with pytest.raises(
        InputError,
        match=r"a\.jpg is not a folder, nor a list \(\.txt, \.csv, \.tsv, \.parquet\), a \.tar or a \.parquet table",
    ):
        open_source(str(tmp_path / "a.jpg"))


def test_source_is_known_by_its_absolute_path(tmp_path, monkeypatch):
    write(tmp_path, {"photos/a.jpg": b""})
    monkeypatch.chdir(tmp_path)
    assert open_source(Path("photos")).url == str(tmp_path / "photos")


def test_empty_folder_has_no_images(opened):
    assert paths(opened) == []
    assert opened.left_out.ignored == 0


@pytest.mark.parametrize("gone", ["removed", "emptied"])
def test_missing_folder_ends_the_run_instead_of_failing_images(opened, tmp_path, gone):
    write(tmp_path / "photos", {"a.jpg": b"x"})
    (image,) = images_in(opened)
    shutil.rmtree(tmp_path / "photos")
    if gone == "emptied" and opened.folder.is_local:  # what an unmounted disk leaves
        (tmp_path / "photos").mkdir()
    with pytest.raises(RunError, match=r"no longer exists, is empty, or cannot be listed: mount it again"):
        opened.read(image)


def fails(errors: list[OSError], content: bytes = b"photo"):
    """A reader that fails with each error in turn, then succeeds."""
    left = list(errors)

    def read() -> bytes:
        if left:
            raise left.pop(0)
        return content

    return read


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT, None])
def test_transient_error_is_retried(opened, tmp_path, number):
    write(tmp_path / "photos", {"a.jpg": b"x"})
    errors = [OSError(number, "bad moment") if number else OSError("AWS Error SLOW_DOWN")]
    assert reading.read_bytes(opened.folder, fails(errors * 3)) == b"photo"
    with pytest.raises(ReadError, match=r"^The file cannot be read: .*\.$") as refused:
        reading.read_bytes(opened.folder, fails(errors * 4))
    assert refused.value.reason == "unreadable"


@pytest.mark.parametrize(
    "error",
    [FileNotFoundError(2, "gone"), PermissionError(13, "no"), OSError(errno.ELOOP, "o"), OSError("ACCESS_DENIED")],
)
def test_permanent_error_is_not_retried(opened, tmp_path, monkeypatch, error):
    write(tmp_path / "photos", {"a.jpg": b"x"})
    with pytest.raises(ReadError):
        reading.read_bytes(opened.folder, fails([error]))


def test_retries_wait_longer_each_time(monkeypatch):
    waited: list[float] = []
    monkeypatch.setattr(retries, "RETRY_SECONDS", (0.1, 0.5, 2.0))
    monkeypatch.setattr(folder.time, "sleep", waited.append)
    assert retries.with_retries(fails([OSError("AWS Error NETWORK_CONNECTION")] * 3)) == b"photo"
    assert waited == [0.1, 0.5, 2.0]


def test_file_that_shrank_since_it_was_listed_is_read_as_it_is(opened, tmp_path):
    write(tmp_path / "photos", {"a.jpg": b"12345"})
    (image,) = images_in(opened)
    os.truncate(tmp_path / "photos" / "a.jpg", 2)
    assert opened.read(image) == b"12"


def test_source_can_be_pickled(opened, tmp_path):
    write(tmp_path / "photos", {"a.jpg": b"12345"})
    if opened.folder.is_local:
        assert pickle.loads(pickle.dumps(opened)).read(Image("a.jpg")) == b"12345"


def test_root_is_refused_for_sources_other_than_lists(tmp_path):
    write(tmp_path, {"photos/a.jpg": b""})
    with pytest.raises(InputError, match=r"^`root` is for lists of paths, and /.*/photos is not one: leave it out\.$"):
        open_source(tmp_path / "photos", str(tmp_path))


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz", "list.csv.gz", "a.tar.zst", "a.ZIP"])
def test_compressed_file_is_refused_in_a_sentence(tmp_path, name):
    write(tmp_path, {name: b""})
    with pytest.raises(InputError, match=r" is compressed, so that .*: decompress it first\.$"):
        open_source(tmp_path / name)


def test_pattern_that_matches_several_kinds_is_refused(tmp_path):
    write(tmp_path, {"a.tar": b"", "a.txt": b""})
    with pytest.raises(InputError, match=r"/a\.\* names files of several kinds \(tar, txt\): give one kind per run\.$"):
        open_source(tmp_path / "a.*")


def test_pattern_that_matches_nothing_is_refused(tmp_path):
    write(tmp_path, {"a.tar": b"", "x.tar/a.jpg": b""})
    with pytest.raises(InputError, match=r"^There is no file /.*/b\*\.tar: check its name\.$"):
        open_source(tmp_path / "b*.tar")


@pytest.mark.nightly
def test_hundred_thousand_files_are_listed_in_bounded_memory(tmp_path):
    for number in range(100_000):
        os.close(os.open(tmp_path / f"{number:06d}.jpg", os.O_CREAT | os.O_WRONLY))
    tracemalloc.start()
    try:
        found = sum(map(len, source(tmp_path).batches()))
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
    assert found == 100_000


def test_file_of_unknown_size_is_read_to_its_end():
    from flowers_batch.sources.reading import read_disk

    assert os.stat("/proc/self/mountinfo").st_size == 0
    assert read_disk(b"/proc/self/mountinfo") == Path("/proc/self/mountinfo").read_bytes() != b""
