"""Pixels of shrunk photos come into the slots of the images that were requested, in any order."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pytest
from dataset_rows import finished, pixels_batch

from flowers_batch.dataset.photo_sources import open_photos
from flowers_batch.dataset.schema import PIXELS
from flowers_batch.decoding.groups import requests_of
from flowers_batch.decoding.outputs import SquarePixels
from flowers_batch.decoding.pool import PoolSettings
from flowers_batch.encoding import shrunk_pool
from flowers_batch.encoding.pixel_pools import open_pool
from flowers_batch.encoding.shrunk_pool import ShrunkPool
from flowers_batch.errors import InputError, RunError
from flowers_batch.sources.images import batches_of, images_of

FAILED = 3


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """70 photos and 5 others, each pixel of which is the number of its row; one failed."""
    shards = [pixels_batch(70, failed=(FAILED,)), pixels_batch(5)]
    return open_photos(finished(tmp_path_factory.mktemp("pixels"), PIXELS, shards))


@pytest.fixture
def pool(source):
    pool = open_pool(source, SquarePixels("uint8"), PoolSettings(2, 1, 1), 80)
    assert isinstance(pool, ShrunkPool)
    yield pool
    pool.close()


def requests(source, order) -> pa.RecordBatch:
    """Return the images with some numbers, over both shards."""
    images = [image for batch in source.batches() for image in images_of(batch)]
    (rows,) = batches_of([images[number] for number in order])
    return requests_of(rows)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize(
    "order",
    [range(64), range(30, 75), [74, 2, 69, 0, 64, 63], [5], [7, 7]],
    ids=["a row group", "three row groups", "any order", "one", "one twice"],
)
def test_pixels_come_into_the_slots_of_their_images(source, order, dtype):
    pool = open_pool(source, SquarePixels(dtype), PoolSettings(2, 1, 1), 80)
    rows = pool.submit(requests(source, order), 4).result().rows
    for place, number in enumerate(order):
        value, found = number - 70 if number >= 70 else number, rows.slice(place, 1).to_pylist()[0]
        assert found["reason"] == ("missing" if number == FAILED else None)
        assert number == FAILED or (pool.slots[4 + place] == value).all()
        assert found["folder"] == "a" and (found["width"] == 40_000) == (number != FAILED)
    assert not pool.slots[:4].any() and not pool.slots[4 + len(order) :].any()
    pool.close()


def test_what_is_known_of_a_failed_photo_is_passed_on(source, pool):
    (row,) = pool.submit(requests(source, [FAILED]), 0).result().rows.to_pylist()
    known = {"reason": "missing", "message": "It is missing.", "folder": "a"}
    assert row == dict.fromkeys(row) | known


def test_row_of_another_image_is_a_missing_photo(source, pool):
    rows = requests(source, range(4, 8))
    paths = pa.array(["a/4.jpg", "a/other.jpg", "a/6.jpg", "a/7.jpg"])
    offsets = pa.array([4, 5, 10**9, 7])
    columns = [{"path": paths, "offset": offsets}.get(name, rows[name]) for name in rows.schema.names]
    found = pool.submit(pa.RecordBatch.from_arrays(columns, schema=rows.schema), 0).result().rows
    assert found["reason"].to_pylist() == [None, "missing", "missing", None]
    assert found["sha256"].is_null().to_pylist() == [False, True, True, False]
    assert (pool.slots[3] == 7).all()


def test_image_of_another_source_is_refused(source, pool):
    (image,) = images_of(requests(source, [0]))
    (rows,) = batches_of([replace(image, source=None)])
    with pytest.raises(InputError, match=r"a/0\.jpg"):
        pool.submit(requests_of(rows), 0).result()


def test_closed_pool_fails_what_is_submitted(source, pool):
    pool.close()
    with pytest.raises(RunError, match="ended before all images were decoded"):
        pool.submit(requests(source, [0]), 0).result()


def test_row_group_is_read_once(source, pool, monkeypatch):
    calls = []
    read = shrunk_pool.read_group
    monkeypatch.setattr(shrunk_pool, "read_group", lambda *rest: calls.append(rest[4]) or read(*rest))
    pool.submit(requests(source, range(64)), 0).result()
    assert calls == [0]
