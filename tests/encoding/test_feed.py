from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest
from encoders import Photos, drawn, mean_colour, thread_pool
from helpers import listed

from flowers_batch.decoding.decode import decode
from flowers_batch.decoding.groups import requests_of
from flowers_batch.encoding.feed import Feed
from flowers_batch.encoding.shard_feed import PixelBatch
from flowers_batch.errors import RunError
from flowers_batch.sources.images import IMAGES, batches_of

UNREAD = RunError("The folder is gone.")


def feed(photos, network=mean_colour, batch_size=4, dtype="float32", threads=2) -> Feed:
    source = photos if isinstance(photos, Photos) else Photos(photos)
    return Feed(network, thread_pool(source, batch_size, threads, dtype), batch_size, "float32")


def requests(paths) -> pa.RecordBatch:
    return requests_of(pa.Table.from_batches(batches_of(listed(paths)), IMAGES))


def run(made: Feed, paths, stages=None) -> list[np.ndarray | None]:
    """Each image's code, None where it failed."""
    codes = []
    for fed in made.run(requests(paths), {} if stages is None else stages):
        left = iter(() if fed.codes is None else fed.codes)
        codes += [None if reason else next(left) for reason in fed.rows["reason"].to_pylist()]
    return codes


def expected(photos) -> list[np.ndarray]:
    return [mean_colour(decode(photo).pixels[None])[0] for photo in photos]


def test_pixels_are_rounded_to_bytes_where_the_network_takes_bytes():
    seen = []

    def network(pixels):
        seen.append(pixels.copy())
        return mean_colour(pixels)

    photos = drawn(8)
    codes = run(feed(photos, network, 8, "uint8"), photos)
    (pixels,) = seen
    assert pixels.dtype == np.uint8
    exact = np.stack([decode(photo).pixels for photo in photos.values()])
    np.testing.assert_array_equal(pixels, np.rint(exact))
    np.testing.assert_array_equal(codes, mean_colour(pixels).astype(np.float32))


@pytest.mark.parametrize(("images", "sizes"), [(1, [1]), (5, [8]), (8, [8]), (11, [4, 8]), (12, [4, 8]), (24, [8] * 3)])
def test_network_gets_full_batches_and_powers_of_two(images, sizes):
    seen = []

    def network(pixels):
        seen.append(len(pixels))
        return mean_colour(pixels)

    photos = drawn(images)
    np.testing.assert_array_equal(run(feed(photos, network, 8), photos), expected(photos.values()))
    assert sorted(seen) == sizes


def test_network_takes_pixels_from_where_they_were_decoded():
    made = feed(drawn(20), lambda pixels: seen.append(pixels) or mean_colour(pixels))
    seen: list[np.ndarray] = []
    run(made, drawn(20))
    assert all(np.shares_memory(pixels, made.pool.slots) for pixels in seen)


def test_batches_are_freed_at_once_and_not_by_the_garbage_collector():
    photos = drawn(40)
    gc.collect()
    before = {id(each) for each in gc.get_objects() if isinstance(each, PixelBatch)}  # of other tests
    gc.disable()
    try:
        run(feed(photos), photos)
        left = [each for each in gc.get_objects() if isinstance(each, PixelBatch) and id(each) not in before]
        assert len(left) <= 2  # threads may have the last ones
    finally:
        gc.enable()


def test_slow_photo_does_not_delay_the_batches_behind_it():
    photos, came = drawn(20), threading.Event()
    first = next(iter(photos))

    class Slow(Photos):
        def read(self, image):
            if image.path == first:
                assert came.wait(20)  # until others were computed
            return super().read(image)

    def network(pixels):
        came.set()
        return mean_colour(pixels)

    np.testing.assert_array_equal(run(feed(Slow(photos), network), photos), expected(photos.values()))


def test_two_shards_are_fed_at_once_and_each_keeps_its_rows():
    photos = drawn(60)
    paths = list(photos)
    made = feed(photos, threads=3)
    with ThreadPoolExecutor(2) as pool:
        shards = list(pool.map(lambda part: run(made, part), [paths[:23], paths[23:40], paths[40:]]))
    assert [len(shard) for shard in shards] == [23, 17, 20]
    codes = [code for shard in shards for code in shard]
    np.testing.assert_array_equal(codes, expected(photos.values()))


def test_second_shard_is_decoded_while_the_first_is_computed():
    photos = drawn(12)
    paths = list(photos)
    hold, reader = threading.Event(), Photos(photos)

    def network(pixels):
        assert hold.wait(20)
        return mean_colour(pixels)

    made = feed(reader, network)
    with ThreadPoolExecutor(2) as pool:
        shards = [pool.submit(run, made, part) for part in (paths[:6], paths[6:])]
        until = time.monotonic() + 20
        while reader.reads < 12 and time.monotonic() < until:
            time.sleep(0.001)
        assert reader.reads == 12  # and no code is there yet
        hold.set()
        assert [len(shard.result()) for shard in shards] == [6, 6]


def test_images_that_fail_leave_their_neighbours_their_own_codes():
    photos = {path: photo if number % 3 else b"a letter" for number, (path, photo) in enumerate(drawn(50).items())}
    good = expected(photo for photo in photos.values() if photo != b"a letter")
    codes = run(feed(photos), photos)
    assert [code is None for code in codes] == [photo == b"a letter" for photo in photos.values()]
    np.testing.assert_array_equal([code for code in codes if code is not None], good)


@pytest.mark.parametrize("threads", [1, 4])
def test_abandoned_run_leaves_the_feed_usable(threads):
    photos = drawn(60)
    paths = list(photos)
    made = feed(photos, threads=threads)
    buffers = made.free.qsize()
    for _ in range(6):
        given_up = made.run(requests(paths), {})
        next(given_up)
        given_up.close()
    made.pool.source.photos = photos | {paths[20]: UNREAD}
    for _ in range(6):
        with pytest.raises(RunError) as raised:
            run(made, paths)
        assert raised.value is UNREAD
    made.pool.source.photos = photos
    assert len(run(made, paths)) == 60
    assert made.free.qsize() == buffers


def test_network_that_fails_once_ends_that_shard_only():
    photos, calls = drawn(30), []

    def network(pixels):
        calls.append(len(pixels))
        if len(calls) == 2:
            raise MemoryError("no room")
        return mean_colour(pixels)

    made = feed(photos, network)
    with pytest.raises(MemoryError, match="no room"):
        run(made, photos)
    assert len(run(made, photos)) == 30


def test_codes_that_are_computed_asynchronously_are_awaited():
    class Later:
        def __init__(self, codes):
            self.codes = codes

        def __array__(self, dtype=None, copy=None):
            time.sleep(0.01)
            return self.codes

    photos, stages = drawn(20), {}
    codes = run(feed(photos, lambda pixels: Later(mean_colour(pixels))), photos, stages)
    np.testing.assert_array_equal(codes, expected(photos.values()))
    assert stages["network"] >= 0.05
    assert stages.keys() == {"read", "decode", "wait", "network"}


def test_waiting_for_the_network_is_not_counted_as_decoding():
    photos, stages = drawn(60), {}

    def slow(pixels):
        time.sleep(0.05)
        return mean_colour(pixels)

    run(feed(photos, slow), photos, stages)
    assert stages["network"] >= 0.05 * 15
    assert stages["decode"] < 0.3 * stages["network"]


_GIVEN_UP = """
import threading
from encoders import drawn
from MODULE import feed, requests

photos = drawn(40)
run = feed(photos).run(requests(list(photos)), {})
next(run)
print("ended", flush=True)
"""


def test_process_ends_despite_an_unfinished_run():
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", _GIVEN_UP.replace("MODULE", __name__)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (0, "ended\n"), ended.stderr
