"""Pixels come in the requested order, are decoded once, and belong to the photos that were encoded."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections import namedtuple
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from helpers import encoded, random_pixels, source, write

from flowers_batch.decoding.decode import decode
from flowers_batch.decoding.pool import DecodePool, PoolSettings
from flowers_batch.errors import InputError
from flowers_batch.finetuning import pixels
from flowers_batch.finetuning.pixels import PixelReader

Usage = namedtuple("Usage", "total used free")
SETTINGS = PoolSettings(workers=2, max_pixels=sys.maxsize, image_timeout=60.0)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    files = {f"{number:02d}.png": encoded(random_pixels(40, 50, number)) for number in range(23)}
    return write(tmp_path_factory.mktemp("photos"), files)


@pytest.fixture(autouse=True)
def small_groups(monkeypatch):
    monkeypatch.setattr(pixels, "GROUP", 8)


@pytest.fixture
def submitted(monkeypatch) -> list[str]:
    """The paths of the photos that decode workers were given."""
    paths: list[str] = []
    once = DecodePool.submit

    def submit(pool, rows, first_slot):
        paths.extend(rows["path"].to_pylist())
        return once(pool, rows, first_slot)

    monkeypatch.setattr(DecodePool, "submit", submit)
    return paths


def open_reader(folder: Path, batch_size: int) -> PixelReader:
    """Return a reader of a folder's photos as they are now."""
    digests = [sha256(path.read_bytes()).digest() for path in sorted(folder.iterdir())]
    return PixelReader(source(folder), pa.Table.from_batches(source(folder).batches()), digests, batch_size, SETTINGS)


def read_all(reader: PixelReader, order=None):
    return np.concatenate(list(reader.batches(np.arange(23) if order is None else order)))


def test_pixels_come_in_the_requested_order(photos):
    reader = open_reader(photos, 20)  # three groups of 7, 7 and 6, then one
    order = np.random.default_rng(0).permutation(23)
    batches = list(reader.batches(order))
    reader.close()
    assert [len(batch) for batch in batches] == [20, 3]
    assert all(batch.dtype == np.uint8 for batch in batches)
    exact = np.stack([decode(Path(photos, f"{number:02d}.png").read_bytes()).pixels for number in order])
    assert np.abs(np.concatenate(batches) - exact).max() <= 0.5 + 1e-3  # rounded


def test_only_some_batches_are_decoded_ahead(photos, submitted, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, 1000))  # no room for a scratch file
    reader = open_reader(photos, 2)
    order = np.arange(400) % 23
    batches = reader.batches(order)
    next(batches)
    assert len(submitted) == 10, "two batches for each of two workers, and the batch that was taken"
    batches.close()
    first, again = read_all(reader, order[:80]), read_all(reader)
    np.testing.assert_array_equal(first, again[order[:80]])
    assert len(submitted) == 10 + 80 + 23
    reader.close()


def test_photos_are_decoded_once_if_the_disk_has_room(photos, submitted):
    reader = open_reader(photos, 4)
    first = read_all(reader)
    np.testing.assert_array_equal(read_all(reader, np.arange(23)[::-1]), first[::-1])
    assert len(submitted) == 23
    reader.close()


def test_photos_are_decoded_again_if_the_disk_is_full(photos, submitted, monkeypatch):
    once, written = os.pwrite, []

    def write_few(*arguments):
        written.append(arguments)
        if len(written) > 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        return once(*arguments)

    monkeypatch.setattr(os, "pwrite", write_few)
    reader = open_reader(photos, 9)
    np.testing.assert_array_equal(read_all(reader), read_all(reader))
    assert len(submitted) == 23 + 19
    reader.close()


@pytest.fixture(scope="module")
def reader_of_changed_photos(photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("changed") / "photos"
    write(shutil.copytree(photos, folder), {"99.png": b"not what this machine can decode"})
    reader = open_reader(folder, 2)
    (folder / "02.png").unlink()
    write(folder, {"03.png": (folder / "04.png").read_bytes(), "05.png": b"no photo"})
    yield reader
    reader.close()


@pytest.mark.parametrize(
    ("index", "why"),
    [
        (2, r"02.png is no longer what was encoded \(The file no longer exists\.\): restore it, or"),
        (3, r"03.png is no longer what was encoded \(its file has changed\): restore it, or"),
        (5, r"05.png is no longer what was encoded \(.+\): restore it, or"),
        (23, r"99.png was encoded, but can no longer be decoded \(.+\): run the same command again"),
    ],
)
def test_missing_or_changed_photo_is_named_in_the_error(reader_of_changed_photos, index, why):
    """A replaced file might be a test photo; one that is the same needs more than this machine has."""
    with pytest.raises(InputError, match=why):
        list(reader_of_changed_photos.batches(np.array([0, 1, index])))
