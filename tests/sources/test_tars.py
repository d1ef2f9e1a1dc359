from __future__ import annotations

import bz2
import errno
import gzip
import io
import lzma
import os
import pickle
import random
import tarfile
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from helpers import add_sparse, images_in, write
from hypothesis import given
from hypothesis import strategies as st

from flowers_batch.dataset.schema import folder_of
from flowers_batch.errors import InputError, RunError
from flowers_batch.sources import reading
from flowers_batch.sources.images import Image, path_bytes
from flowers_batch.sources.opening import open_source
from flowers_batch.sources.reading import ReadError
from flowers_batch.sources.skipping import SKIP_NOTHING
from flowers_batch.sources.source import Source
from flowers_batch.storage import retries
from flowers_batch.storage.folder import Folder

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch):
    monkeypatch.setattr(retries, "RETRY_SECONDS", ())


def tar(path: Path, members: list[tuple[str, bytes]], kind: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=kind, encoding="utf-8", errors="surrogateescape") as file:
        for name, content in members:
            header = tarfile.TarInfo(name)
            header.size = len(content)
            file.addfile(header, io.BytesIO(content))
    return path


def paths(source: Source) -> list[str]:
    return [image.path for image in images_in(source)]


@pytest.mark.parametrize("kind", FORMATS.values(), ids=FORMATS)
def test_members_are_listed_by_offset_and_read_in_place(tmp_path, kind):
    members = [(f"class/{number}.jpg", random.Random(number).randbytes(number * 300)) for number in range(9, -1, -1)]
    photos = open_source(tar(tmp_path / "a.tar", members, kind))
    found = images_in(photos)
    assert [(image.path, photos.read(image)) for image in found] == [(f"a.tar!{name}", data) for name, data in members]
    assert {image.source for image in found} == {"a.tar"}
    whole = (tmp_path / "a.tar").read_bytes()
    assert all(whole[i.offset : i.offset + i.bytes] == photos.read(i) for i in found)
    assert not photos.in_path_order and photos.root is None
    assert os.listdir(tmp_path) == ["a.tar"]


def test_time_is_that_of_the_tar(tmp_path):
    path = tar(tmp_path / "a.tar", [("a.jpg", b"old")])
    os.utime(path, (1_700_000_000.25, 1_700_000_000.25))
    photos = open_source(path)
    (old,) = images_in(photos)
    assert old.mtime == datetime.fromtimestamp(1_700_000_000.25, UTC)
    assert photos.read(old) == b"old"
    tar(path, [("b.jpg", b""), ("a.jpg", b"new")])
    new = images_in(photos)[1]
    assert new.mtime > old.mtime
    assert photos.read(new) == b"new"


def test_all_matching_tars_are_one_source_in_name_order(tmp_path):
    for number in (2, 10, 1):
        tar(tmp_path / f"part-{number:03d}.tar", [("b.jpg", b"%d" % number), ("a.jpg", b"")])
    tar(tmp_path / "other.tar", [("x.jpg", b"")])
    photos = open_source(tmp_path / "part-*.tar")
    assert paths(photos) == [f"part-{number:03d}.tar!{name}.jpg" for number in (1, 2, 10) for name in "ba"]
    assert [photos.read(image) for image in images_in(photos)][::2] == [b"1", b"2", b"10"]
    assert photos.url == str(tmp_path / "part-*.tar")


@pytest.mark.parametrize("kind", FORMATS.values(), ids=FORMATS)
def test_name_of_a_member_is_only_a_name(tmp_path, kind):
    names = [
        "../../etc/passwd.jpg",
        "/etc/shadow.jpg",
        "./a.jpg",
        "a!b.jpg",
        "Zoë 😀.jpg",
        "new\nline.jpg",
        "x" * 90 + ".jpg",
    ]
    names.append("/".join(["long" * 20] * 2) + "/a.jpg")
    photos = open_source(tar(tmp_path / "a.tar", [(name, name.encode()) for name in names], kind))
    assert {i.path: photos.read(i) for i in images_in(photos)} == {f"a.tar!{name}": name.encode() for name in names}
    assert os.listdir(tmp_path) == ["a.tar"]


@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT], ids=["gnu", "pax"])
@pytest.mark.parametrize("length", [100, 101, 155, 156, 255, 256, 257, 1000, 5000])
def test_long_name_is_kept(tmp_path, kind, length):
    name = "d/" + "x" * (length - 6) + ".jpg"
    assert paths(open_source(tar(tmp_path / "a.tar", [(name, b"1")], kind))) == [f"a.tar!{name}"]


@given(st.lists(st.binary(min_size=1, max_size=150).filter(lambda name: b"\0" not in name), max_size=5, unique=True))
def test_any_bytes_may_be_a_members_name(tmp_path_factory, names):
    path = tmp_path_factory.mktemp("any") / "é.tar"
    members = [((name + b"/x.jpg").decode("utf-8", "surrogateescape"), name) for name in names]
    photos = open_source(tar(path, members, tarfile.GNU_FORMAT), skipping=SKIP_NOTHING)
    found = images_in(photos)
    assert [path_bytes(i.path) for i in found] == ["é.tar!".encode() + name + b"/x.jpg" for name in names]
    assert [photos.read(image) for image in found] == names
    for image in found:
        image.path.encode()


def test_members_not_named_like_images_are_ignored(tmp_path):
    write(tmp_path, {"a.jpg": b"1", "b.JPEG": b"2", "notes.txt": b"3", "c.cls": b"4"})
    (tmp_path / "link.jpg").symlink_to("a.jpg")
    os.link(tmp_path / "a.jpg", tmp_path / "hard.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    with tarfile.open(tmp_path / "t.tar", "w") as file:
        for name in ("a.jpg", "b.JPEG", "notes.txt", "c.cls", "link.jpg", "hard.jpg", "pipe.jpg", "folder.jpg"):
            file.add(tmp_path / name, name)
    photos = open_source(tmp_path / "t.tar")
    for _ in range(2):
        assert paths(photos) == [f"t.tar!{name}" for name in ("a.jpg", "b.JPEG", "pipe.jpg", "link.jpg", "hard.jpg")]
        assert photos.left_out.ignored == 2 and photos.repeated == 0


def test_repeats_are_numbered_and_each_is_read(tmp_path):
    names = ["x.jpg", "x.jpg", "y.jpg", "x.jpg", "é\udce9.jpg", "é\udce9.jpg"]
    photos = open_source(tar(tmp_path / "a.tar", [(name, b"%d" % number) for number, name in enumerate(names)]))
    found = images_in(photos)
    assert [i.path for i in found][:4] == ["a.tar!x.jpg", "a.tar!x.jpg#2", "a.tar!y.jpg", "a.tar!x.jpg#3"]
    assert [path_bytes(i.path) for i in found][4:] == [b"a.tar!\xc3\xa9\xe9.jpg", b"a.tar!\xc3\xa9\xe9.jpg#2"]
    assert [photos.read(image) for image in found] == [b"%d" % number for number in range(6)]


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("class/x.jpg", "class"),
        ("x.jpg", None),
        ("./x.jpg", None),
        ("./c/x.jpg", "c"),
        ("../x.jpg", None),
        ("é\udce9/x.jpg", ""),
    ],
)
def test_label_by_folder_is_the_folder_in_the_tar(tmp_path, name, label):
    (tmp_path / "sub").mkdir()
    (image,) = images_in(open_source(tar(tmp_path / "sub" / "a.tar", [(name, b"")])))
    found = folder_of(image.path, image.source)
    assert found == ("%C3%A9%E9" if label == "" else label)


def test_tar_in_a_folder_gives_no_label_of_its_own():
    assert folder_of("a/b.tar!class/x.jpg", "a/b.tar") == "class"
    assert folder_of("a/b.tar!x.jpg", "a/b.tar") is None


def whole(tmp_path) -> tuple[Path, bytes]:
    path = tar(
        tmp_path / "a.tar", [(f"{number}.jpg", bytes([number]) * 700) for number in range(1, 5)], tarfile.GNU_FORMAT
    )
    return path, path.read_bytes()


@pytest.mark.parametrize("length", [0, 1, 511, 512, 600, 1535, 1536, 1537, 2000, 2048, 4 * 1536 - 1, 4 * 1536])
def test_truncated_tar_is_refused(tmp_path, length):
    path, content = whole(tmp_path)
    path.write_bytes(content[:length])
    with pytest.raises(
        InputError, match=r"^The tar /.*/a\.tar cannot be read from byte \d+ on \(.*\): restore it, or move it"
    ):
        paths(open_source(path))


@pytest.mark.parametrize("place", [0, 1536, 1536 + 150, 3072, 4608 + 124])
def test_tar_with_a_broken_header_is_refused(tmp_path, place):
    path, content = whole(tmp_path)
    path.write_bytes(content[:place] + b"\xff\xfe" + content[place + 2 :])
    with pytest.raises(InputError, match=rf"cannot be read from byte {place // 1536 * 1536} on \("):
        paths(open_source(path))


@pytest.mark.parametrize("program", [gzip, bz2, lzma])
def test_compressed_tar_is_named_as_such_whatever_its_name(tmp_path, program):
    path, content = whole(tmp_path)
    path.write_bytes(program.compress(content))
    with pytest.raises(InputError, match=r"^The tar /.*/a\.tar is compressed, so that .*: decompress it first\.$"):
        paths(open_source(path))


def test_content_after_the_end_of_a_tar_is_refused(tmp_path):
    path, content = whole(tmp_path)
    path.write_bytes(content + content)
    with pytest.raises(InputError, match=r"cannot be read from byte \d+ on \(no header is there\)"):
        paths(open_source(path))


@pytest.mark.parametrize("blocks", [1, 2, 20, 5000])
def test_tar_may_end_in_any_number_of_empty_blocks(tmp_path, blocks):
    path, content = whole(tmp_path)
    path.write_bytes(content.rstrip(b"\0") + bytes(-len(content.rstrip(b"\0")) % 512) + bytes(512 * blocks))
    assert len(paths(open_source(path))) == 4


def test_damaged_tars_are_listed_or_refused(tmp_path):
    draw = random.Random(1)
    long = [("x" * 300 + ".jpg", b"1"), ("é" * 200 + ".jpg", b"2")]
    contents = [tar(tmp_path / "a.tar", [*long, ("a.jpg", b"3" * 600)], kind).read_bytes() for kind in (1, 2)]
    refused = 0
    for turn in range(600):
        content = bytearray(contents[turn % 2])
        for _ in range(draw.choice([1, 1, 5])):
            content[draw.randrange(len(content))] = draw.randrange(256)
        (tmp_path / "a.tar").write_bytes(content)
        try:
            paths(open_source(tmp_path / "a.tar"))
        except InputError as error:
            assert str(error).endswith(".")
            refused += 1
    assert refused > 100


def test_negative_size_is_refused(tmp_path):
    header = bytearray(tarfile.TarInfo("a.jpg").tobuf())
    header[124:136] = b"\xff" * 11 + b"\x00"  # -256, in base 256
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + 8 * 32 + sum(header[156:]))
    (tmp_path / "a.tar").write_bytes(bytes(header) + bytes(10240))
    with pytest.raises(InputError, match=r"cannot be read from byte 0 on"):
        paths(open_source(tmp_path / "a.tar"))


def test_sparse_member_is_unreadable(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        add_sparse(file, "hole.jpg")
    photos = open_source(tmp_path / "a.tar")
    (image,) = images_in(photos)
    with pytest.raises(ReadError) as refused:
        photos.read(image)
    assert refused.value.reason == "unreadable"


def test_members_of_a_replaced_tar_are_missing(tmp_path):
    members = [(f"{number}.jpg", b"%d" % number * 700) for number in range(3)]
    path = tar(tmp_path / "a.tar", members)
    photos = open_source(path)
    found = images_in(photos)
    tar(path, members[::-1])
    os.utime(path, (1, 1))
    for image in found:
        with pytest.raises(ReadError, match=r"^The file that holds it was replaced since it was listed\.$") as refused:
            photos.read(image)
        assert refused.value.reason == "missing"
    assert [photos.read(image) for image in images_in(photos)] == [content for _, content in members[::-1]]


def test_member_of_a_truncated_tar_is_unreadable(tmp_path):
    path, _ = whole(tmp_path)
    photos = open_source(path)
    found = images_in(photos)
    photos.read(found[0])
    os.truncate(path, found[2].offset + 100)
    assert photos.read(found[1]) == b"\x02" * 700
    for image in found[2:]:
        with pytest.raises(ReadError, match=r"^The tar ends before the photo does: ") as refused:
            photos.read(image)
        assert refused.value.reason == "unreadable"


def test_members_of_a_deleted_tar_are_missing(tmp_path):
    write(tmp_path, {"t/notes.txt": b""})
    path = tar(tmp_path / "t" / "a.tar", [("a.jpg", b"1")])
    photos = open_source(path)
    (image,) = images_in(photos)
    path.unlink()
    with pytest.raises(ReadError) as refused:
        photos.read(image)
    assert refused.value.reason == "missing"
    (tmp_path / "t" / "notes.txt").unlink()
    with pytest.raises(RunError, match="mount it again"):
        photos.read(image)


def test_tar_with_stale_handle_is_opened_again(tmp_path, monkeypatch):
    class Stale:
        def read_at(self, *_):
            raise OSError(errno.ESTALE, "Stale file handle")

    photos = open_source(tar(tmp_path / "a.tar", [("a.jpg", b"1")]))
    (image,) = images_in(photos)
    opened, really = [Stale()], Folder.open
    monkeypatch.setattr(Folder, "open", lambda *of: opened.pop() if opened else really(*of))
    monkeypatch.setattr(retries, "RETRY_SECONDS", (0.0,))
    assert photos.read(image) == b"1"


def test_too_large_member_is_refused_without_reading_it(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "MAX_BYTES", 10)
    photos = open_source(tar(tmp_path / "a.tar", [("a.jpg", bytes(10)), ("b.jpg", bytes(11))]))
    small, large = images_in(photos)
    assert photos.read(small) == bytes(10)
    with pytest.raises(ReadError) as refused:
        photos.read(large)
    assert refused.value.reason == "too_large"


def test_image_of_another_source_is_unreadable(tmp_path):
    photos = open_source(tar(tmp_path / "a.tar", [("a.jpg", b"1")]))
    with pytest.raises(ReadError):
        photos.read(Image("a.jpg"))


def test_tar_is_read_by_threads_and_another_process(tmp_path):
    contents = [random.Random(number).randbytes(5000) for number in range(200)]
    photos = open_source(tar(tmp_path / "a.tar", [(f"{n}.jpg", data) for n, data in enumerate(contents)]))
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(photos.read, images_in(photos))) == contents
        assert list(pool.map(pickle.loads(pickle.dumps(photos)).read, images_in(photos))) == contents


def test_memory_does_not_grow_with_the_members(tmp_path):
    path = tar(tmp_path / "a.tar", [(f"{number}.jpg", b"x") for number in range(5000)])
    tracemalloc.start()
    try:
        found = sum(map(len, open_source(path).batches()))
        assert tracemalloc.get_traced_memory()[1] < 3 << 20  # tarfile's own list of members would take 5 MB
    finally:
        tracemalloc.stop()
    assert found == 5000


def test_negative_size_in_a_doctored_manifest_is_unreadable(tmp_path):
    photos = open_source(tar(tmp_path / "a.tar", [("a.jpg", b"1" * 600)]))
    (image,) = images_in(photos)
    for size in (-1, -(2**62)):
        with pytest.raises(ReadError) as refused:
            photos.read(replace(image, bytes=size))
        assert refused.value.reason == "unreadable"
