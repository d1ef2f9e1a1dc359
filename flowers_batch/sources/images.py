"""An image as it was listed, and listings as Arrow batches."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from itertools import islice
from urllib.parse import quote_from_bytes, unquote_to_bytes

import pyarrow as pa
import pyarrow.compute as pc

from flowers_batch.storage.folder import NOT_UTF8

RAW_SUFFIXES = ("cr2", "cr3", "nef", "arw", "dng", "raf", "orf", "rw2", "pef", "srw")  # of cameras
SUFFIXES = (
    *("jpg", "jpeg", "jpe", "jfif", "jfi", "jif", "pjpeg", "pjp"),
    *("mpo", "jps"),  # JPEGs of cameras with two lenses
    *("png", "apng", "bmp", "dib", "gif", "webp", "tif", "tiff"),
    *("heic", "heics", "heif", "heifs", "hif", "avif", "avifs"),
    *("jp2", "j2k", "j2c", "jpc", "jpf", "jpx", "jxl"),
    *RAW_SUFFIXES,
)
_ENDINGS = tuple(b"." + suffix.encode() for suffix in SUFFIXES)
PATH = "path"  # the column of a list or a table that holds images' paths
ROWS_AT_ONCE = 4096  # that are Python objects at once
TIME = pa.timestamp("us", "UTC")
IMAGES = pa.schema(  # the columns of a listing: `Image`'s attributes
    [
        pa.field(PATH, pa.string(), nullable=False),
        pa.field("source", pa.string()),
        pa.field("offset", pa.int64()),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("mtime", TIME, nullable=False),
    ]
)
EPOCH = datetime.fromtimestamp(0, UTC)
# The times that Python can express, as `TIME` counts them: microseconds since the epoch.
FIRST_TIME, LAST_TIME = (
    (time.replace(tzinfo=UTC) - EPOCH) // timedelta(microseconds=1) for time in (datetime.min, datetime.max)
)


@dataclass(frozen=True)
class Image:
    """An image as it was listed.

    Attributes:
        path: Its key: relative to the folder, with `/`; `//bytes/` and percent-encoding if it is not UTF-8.
        bytes: Its size; 0 if the source does not say.
        mtime: When it last changed, UTC; the epoch if the source does not say.
        source: The file that contains it, if that contains others too; then `path` alone does not find it.
        offset: Where in that file it is: a byte of a tar, a row of a table.
    """

    path: str
    bytes: int = 0
    mtime: datetime = EPOCH
    source: str | None = None
    offset: int | None = None


def images_of(rows: pa.Table | pa.RecordBatch) -> list[Image]:
    """Return the images of rows of a listing or of the manifest, which have at least the columns `IMAGES`."""
    columns = [rows[field.name].to_pylist() for field in fields(Image)]
    return [Image(*values) for values in zip(*columns, strict=True)]


def batches_of(images: Iterable[Image]) -> Iterator[pa.RecordBatch]:
    """Yield images as a listing: batches with the columns `IMAGES`, of at most `ROWS_AT_ONCE` rows."""
    iterator = iter(images)
    while chunk := list(islice(iterator, ROWS_AT_ONCE)):
        columns = [pa.array([getattr(image, field.name) for image in chunk], field.type) for field in IMAGES]
        yield pa.RecordBatch.from_arrays(columns, schema=IMAGES)


def is_image(name: bytes) -> bool:
    """Return whether a file's name ends as images' do."""
    return name.lower().endswith(_ENDINGS)


def path_text(path: bytes) -> str:
    """Return an image's key, made from the bytes of its name."""
    try:
        return path.decode()
    except UnicodeDecodeError:
        return NOT_UTF8 + quote_from_bytes(path)


def path_bytes(path: str) -> bytes:
    """Return the bytes of an image's name, by which it is opened, and by which listings are ordered."""
    if path.startswith(NOT_UTF8):
        return unquote_to_bytes(path.removeprefix(NOT_UTF8))
    return path.encode()


def paths_text(names: pa.Array) -> pa.Array:
    """Return `path_text` of each: binary [n] to string [n]."""
    try:
        return names.cast(pa.string())
    except pa.ArrowInvalid:  # one is not UTF-8
        return pa.array([name and path_text(name) for name in names.to_pylist()], pa.string())


def paths_bytes(paths: pa.Array) -> pa.Array:
    """Return `path_bytes` of each: string [n] to binary [n]."""
    names, encoded = paths.cast(pa.binary()), pc.starts_with(paths, NOT_UTF8)
    if not encoded.true_count:
        return names
    decoded = [path_bytes(path) for path in paths.filter(encoded).to_pylist()]
    return pc.replace_with_mask(names, encoded, pa.array(decoded, pa.binary()))


def stat_image(path: str, where: bytes) -> Image:
    """Return an image on this machine with its size and time; without both if it is missing or not accessible."""
    # ValueError: a NUL in the name; it and OverflowError: a time beyond the year 9999.
    with suppress(OSError, OverflowError, ValueError):
        found = os.stat(where)
        return Image(path, found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))
    return Image(path)
