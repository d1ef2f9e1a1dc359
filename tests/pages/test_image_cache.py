"""The cache of thumbnails holds a number of bytes."""

from __future__ import annotations

from flowers_batch.pages.review.image_cache import ImageCache


def test_cache_is_bounded_in_bytes_and_keeps_what_was_used_last():
    cache = ImageCache(100)
    for row in range(10):
        cache.add(row, bytes(30))
        assert cache.get(0) == bytes(30)
    assert [row for row in range(10) if cache.get(row) is not None] == [0, 8, 9]
    cache.add(9, bytes(41))
    assert cache.get(9) == bytes(41) and cache.get(0) is None
    cache.add(1, bytes(101))
    assert all(cache.get(row) is None for row in range(10))
    cache.add(2, bytes(100))
    assert cache.get(2) == bytes(100)
