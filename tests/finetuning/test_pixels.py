"""Pixels come in the requested order, are decoded once, and belong to the photos that were encoded."""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
from collections import namedtuple
from hashlib import sha256

import numpy as np
import pytest
from helpers import encoded, random_pixels

from flowers_batch.decoding.decode import decode
from flowers_batch.errors import InputError
from flowers_batch.finetuning.pixels import PixelReader
from flowers_batch.sources.images import Image
from flowers_batch.sources.reading import ReadError

Usage = namedtuple("Usage", "total used free")


class Slow:
    """A source in memory whose first photos take longest; it counts reads, and those at the same time."""

    def __init__(self, files: dict[str, bytes]):
        self.files, self.lock = files, threading.Lock()
        self.now = self.most = self.read_in_all = 0

    def read(self, image: Image) -> bytes:
        with self.lock:
            self.now += 1
            self.read_in_all += 1
            self.most = max(self.most, self.now)
        time.sleep(0.02 / (1 + int(image.path)))
        with self.lock:
            self.now -= 1
        if image.path not in self.files:
            raise ReadError("missing", "There is no such file.")
        return self.files[image.path]


def photos(count: int) -> tuple[Slow, list[Image], list[bytes]]:
    files = {str(number): encoded(random_pixels(40, 50, number)) for number in range(count)}
    return Slow(files), [Image(name) for name in files], [sha256(data).digest() for data in files.values()]


def test_pixels_come_in_the_requested_order():
    source, images, digests = photos(11)
    reader = PixelReader(source, images, digests, 4, 3)
    order = np.random.default_rng(0).permutation(11)
    batches = [batch.copy() for batch in reader.batches(order)]
    reader.close()
    assert [len(batch) for batch in batches] == [4, 4, 3]
    assert all(batch.dtype == np.uint8 for batch in batches)
    exact = np.stack([decode(source.files[str(number)]).pixels for number in order])
    assert np.abs(np.concatenate(batches) - exact).max() <= 0.5 + 1e-3  # rounded
    assert source.most == 3


def test_only_a_few_batches_are_decoded_ahead():
    source, images, digests = photos(40)
    reader = PixelReader(source, images, digests, 2, 2)
    batches = reader.batches(np.arange(40))
    next(batches)
    time.sleep(0.5)
    assert source.read_in_all == 6
    batches.close()
    reader.close()


def test_photos_are_read_once_if_the_disk_has_room(monkeypatch):
    source, images, digests = photos(9)
    reader = PixelReader(source, images, digests, 4, 2)
    first = np.concatenate(list(reader.batches(np.arange(9))))
    again = np.concatenate(list(reader.batches(np.arange(9)[::-1])))
    np.testing.assert_array_equal(again[::-1], first)
    assert source.read_in_all == 9
    reader.close()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, 1000))  # no room
    reader = PixelReader(source, images, digests, 4, 2)
    for _ in range(2):
        np.testing.assert_array_equal(np.concatenate(list(reader.batches(np.arange(9)))), first)
    assert source.read_in_all == 9 + 18
    reader.close()


def test_photos_are_decoded_again_if_the_disk_is_full(monkeypatch):
    source, images, digests = photos(9)
    once, written = os.pwrite, []

    def write(*arguments):
        written.append(arguments)
        if len(written) > 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        return once(*arguments)

    monkeypatch.setattr(os, "pwrite", write)
    reader = PixelReader(source, images, digests, 4, 1)
    first, again = (np.concatenate(list(reader.batches(np.arange(9)))) for _ in range(2))
    np.testing.assert_array_equal(again, first)
    assert source.read_in_all == 9 + 5
    reader.close()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda files: files.pop("2"), "There is no such file."),
        (lambda files: files.update({"2": files["1"]}), "its file has changed"),
    ],
)
def test_missing_or_changed_photo_is_named_in_the_error(change, why):
    """A replaced file might be a test photo."""
    source, images, digests = photos(3)
    change(source.files)
    reader = PixelReader(source, images, digests, 2, 2)
    with pytest.raises(InputError, match=rf"2 is no longer what was encoded \({why}\): restore it, or"):
        list(reader.batches(np.arange(3)))
    reader.close()
