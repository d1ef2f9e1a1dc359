from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from encoders import Photos, drawn, mean_colour
from helpers import encoded, listed, random_pixels

from flowers_batch.decoding.decode import decode
from flowers_batch.encoding import pending_image
from flowers_batch.encoding.feed import BUFFERS, Feed, FeedSettings
from flowers_batch.encoding.shard_feed import BATCHES_AHEAD
from flowers_batch.errors import RunError

UNREAD = RunError("The folder is gone.")


def feed(photos, network=mean_colour, batch_size=4, pixel_type=np.float32, threads=2) -> Feed:
    return Feed(network, Photos(photos), FeedSettings(batch_size, pixel_type, "float32", threads, 10**9))


def run(made: Feed, paths, stages=None) -> list[pending_image.PendingImage]:
    return [pending for several in made.run(listed(paths), {}, {} if stages is None else stages) for pending in several]


def test_pixels_are_rounded_to_bytes_where_the_network_takes_bytes():
    seen = []

    def network(pixels):
        seen.append(pixels.copy())
        return mean_colour(pixels)

    photos = drawn(8)
    codes = [pending.code for pending in run(feed(photos, network, 8, np.uint8), photos)]
    (pixels,) = seen
    assert pixels.dtype == np.uint8
    exact = np.stack([decode(photo).pixels for photo in photos.values()])
    order = [int(np.abs(pixels - np.rint(one)).sum((1, 2, 3)).argmin()) for one in exact]
    assert sorted(order) == list(range(8))
    np.testing.assert_array_equal(pixels[order], np.rint(exact))
    np.testing.assert_array_equal(codes, mean_colour(pixels)[order].astype(np.float32))


@pytest.mark.parametrize(("images", "sizes"), [(1, [1]), (5, [8]), (8, [8]), (11, [4, 8]), (12, [4, 8]), (24, [8] * 3)])
def test_network_gets_full_batches_and_powers_of_two(images, sizes):
    seen = []

    def network(pixels):
        seen.append(len(pixels))
        return mean_colour(pixels)

    photos = drawn(images)
    expected = {path: mean_colour(decode(photo).pixels[None])[0] for path, photo in photos.items()}
    for pending in run(feed(photos, network, 8), photos):
        np.testing.assert_array_equal(pending.code, expected[pending.image.path])
    assert sorted(seen) == sizes


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

    made = Feed(network, Slow(photos), FeedSettings(4, np.float32, "float32", 2, 10**9))
    assert [pending.image.path for pending in run(made, photos)] == list(photos)


def test_two_shards_are_fed_at_once_and_each_keeps_its_rows():
    photos = drawn(60)
    paths = list(photos)
    made = feed(photos, threads=3)
    with ThreadPoolExecutor(2) as pool:
        shards = list(pool.map(lambda part: run(made, part), [paths[:23], paths[23:40], paths[40:]]))
    assert [[pending.image.path for pending in shard] for shard in shards] == [paths[:23], paths[23:40], paths[40:]]
    for pending in (pending for shard in shards for pending in shard):
        np.testing.assert_array_equal(pending.code, mean_colour(decode(photos[pending.image.path]).pixels[None])[0])


def test_second_shard_is_decoded_while_the_first_is_computed():
    photos = drawn(12)
    paths = list(photos)
    hold, reader = threading.Event(), Photos(photos)

    def network(pixels):
        assert hold.wait(20)
        return mean_colour(pixels)

    made = Feed(network, reader, FeedSettings(4, np.float32, "float32", 2, 10**9))
    with ThreadPoolExecutor(2) as pool:
        shards = [pool.submit(run, made, part) for part in (paths[:6], paths[6:])]
        until = time.monotonic() + 20
        while reader.reads < 12 and time.monotonic() < until:
            time.sleep(0.001)
        assert reader.reads == 12  # and no code is there yet
        hold.set()
        assert [len(shard.result()) for shard in shards] == [6, 6]


def test_many_failures_and_repeats_do_not_block_a_partial_batch():
    one = encoded(random_pixels(20, 20))
    photos = {"000.png": one} | {f"{n:03d}.png": (one if n % 2 else b"a letter") for n in range(1, 300)}
    pending = run(feed(photos), photos)
    assert [each.code is not None for each in pending] == [True, *(bool(n % 2) for n in range(1, 300))]


@pytest.mark.parametrize("threads", [1, 4])
def test_abandoned_run_leaves_the_feed_usable(threads):
    photos = drawn(60)
    paths = list(photos)
    made = feed(photos, threads=threads)
    for _ in range(6):
        given_up = made.run(listed(paths), {}, {})
        next(given_up)
        given_up.close()
    made.reader.photos = photos | {paths[20]: UNREAD}
    for _ in range(6):
        with pytest.raises(RunError) as raised:
            run(made, paths)
        assert raised.value is UNREAD
    made.reader.photos = photos
    assert len(run(made, paths)) == 60
    assert made.limits.buffers.qsize() == BUFFERS


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
    pending = run(feed(photos, lambda pixels: Later(mean_colour(pixels))), photos, stages)
    for each in pending:
        np.testing.assert_array_equal(each.code, mean_colour(decode(photos[each.image.path]).pixels[None])[0])
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


def test_images_are_released_with_their_rows_even_if_repeated_later():
    few = list(drawn(30).values())
    photos = {f"{n:04d}.png": few[n * n % 31 % 30] for n in range(800)}

    def alive() -> int:
        return sum(isinstance(each, pending_image.PendingImage) for each in gc.get_objects())

    gc.collect()
    gc.disable()  # released images must not wait for the cycle collector
    try:
        before = alive()  # of other tests
        most = 0
        for number, several in enumerate(feed(photos).run(listed(photos), {}, {})):
            assert all(pending.code is not None for pending in several)
            if number % 30 == 29:
                most = max(most, alive() - before)
    finally:
        gc.enable()
    assert 0 < most <= (BATCHES_AHEAD + 4) * 4 + len(few)


_GIVEN_UP = """
import threading
from encoders import drawn
from helpers import listed
from MODULE import feed

photos = drawn(40)
run = feed(photos).run(listed(list(photos)), {}, {})
next(run)
print("ended", flush=True)
"""


def test_process_ends_despite_an_unfinished_run():
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", _GIVEN_UP.replace("MODULE", __name__)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (0, "ended\n"), ended.stderr


def test_more_images_are_read_than_decoded_at_once():
    """Images from a store: each read is slow, and few cores decode them."""
    photos = {f"{number}.png": encoded(random_pixels(20, 20, number)) for number in range(64)}
    at_once, most, lock = [0], [0], threading.Lock()

    class Far(Photos):
        def read(self, image) -> bytes:
            with lock:
                at_once[0] += 1
                most[0] = max(most[0], at_once[0])
            time.sleep(0.02)
            with lock:
                at_once[0] -= 1
            return super().read(image)

    made = Feed(mean_colour, Far(photos), FeedSettings(4, np.float32, "float32", 2, 10**9, reads=16))
    pending = [each for chunk in made.run(listed(photos), {}, {}) for each in chunk]
    assert [each.image.path for each in pending] == list(photos) and all(each.code is not None for each in pending)
    assert most[0] >= 12
    made.end()
