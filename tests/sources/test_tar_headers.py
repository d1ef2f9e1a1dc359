"""Headers of tars that are made to take time and memory end the listing with a sentence."""

from __future__ import annotations

import tarfile
import time
from pathlib import Path

import pytest
from helpers import images_in

from flowers_batch.errors import InputError
from flowers_batch.sources.opening import open_source

MAX_SECONDS = 3.0  # of processor time, on a busy machine


def block(name: bytes, kind: bytes, size: int) -> bytes:
    """A member's header alone."""
    header = tarfile.TarInfo(name.decode())
    header.type, header.size = kind, size
    return header.tobuf(tarfile.USTAR_FORMAT)


def extension(kind: bytes, content: bytes) -> bytes:
    return block(b"extension", kind, len(content)) + content + bytes(-len(content) % 512)


def record(keyword: bytes, value: bytes) -> bytes:
    size = len(keyword) + len(value) + 3
    size += len(str(size + len(str(size))))
    return b"%d %b=%b\n" % (size, keyword, value)


def write(folder: Path, *parts: bytes) -> Path:
    path = folder / "a.tar"
    path.write_bytes(b"".join(parts) + bytes(10240))
    return path


PHOTO = block(b"a.jpg", tarfile.REGTYPE, 3) + b"abc" + bytes(509)
REFUSED = {
    "PAX records": extension(tarfile.XHDTYPE, record(b"comment", b"x" * 70_000)),
    "Solaris records": extension(tarfile.SOLARIS_XHDTYPE, record(b"comment", b"x" * 70_000)),
    "long name": extension(tarfile.GNUTYPE_LONGNAME, b"x" * 70_000),
    "long target": extension(tarfile.GNUTYPE_LONGLINK, b"x" * 70_000),
    "name of 20 KB": extension(tarfile.GNUTYPE_LONGNAME, b"x" * 20_000),
    "path of 20 KB": extension(tarfile.XHDTYPE, record(b"path", b"x" * 20_000)),
    "one global header": extension(tarfile.XGLTYPE, record(b"comment", b"x" * 70_000)),
    "many global headers": b"".join(extension(tarfile.XGLTYPE, record(b"%d" % n, b"x" * 900)) for n in range(100)),
    "digits": extension(tarfile.XHDTYPE, record(b"comment", b"1" * 60_000)),
}


@pytest.mark.parametrize("header", REFUSED.values(), ids=REFUSED)
def test_large_headers_are_refused(tmp_path, header):
    path = write(tmp_path, PHOTO, header, PHOTO)
    begun = time.process_time()
    with pytest.raises(InputError, match=r"^The tar .*a\.tar cannot be read from byte 1024 on \(.*\): restore it, or"):
        images_in(open_source(path))
    assert time.process_time() - begun < MAX_SECONDS


def test_headers_of_photos_are_read(tmp_path):
    attributes = record(b"SCHILY.xattr.user.note", b"x" * 30_000) + record(b"path", b"b.jpg")
    photos = open_source(
        write(
            tmp_path,
            extension(tarfile.XGLTYPE, record(b"comment", b"0" * 40)),
            PHOTO,
            extension(tarfile.XHDTYPE, attributes),
            PHOTO,
        )
    )
    assert {image.path: photos.read(image) for image in images_in(photos)} == {
        "a.tar!a.jpg": b"abc",
        "a.tar!b.jpg": b"abc",
    }


def test_map_of_a_sparse_file_takes_no_memory(tmp_path):
    records = b"".join(record(b"GNU.sparse.%b" % name, value) for name, value in ((b"major", b"1"), (b"minor", b"0")))
    map_ = b"100000\n" + b"1\n" * 200_000
    blocks = -(-len(map_) // 512) * 512
    sparse = extension(tarfile.XHDTYPE, records) + block(b"b.jpg", tarfile.REGTYPE, blocks) + map_.ljust(blocks, b"\0")
    photos = open_source(write(tmp_path, sparse, PHOTO))
    begun = time.process_time()
    assert [image.path for image in images_in(photos)] == ["a.tar!b.jpg", "a.tar!a.jpg"]
    assert time.process_time() - begun < MAX_SECONDS
