from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowers_batch.sources.images import RAW_SUFFIXES
from flowers_batch.sources.pairs import by_photo, pair_key, pairs_of

PAIRS = [
    ["a/IMG_1.CR2", "a/IMG_1.JPG"],
    ["IMG_1.jpeg", "IMG_1.nef"],
    ["a/IMG_1.DNG", "a/IMG_1.HEIC"],
    ["a/IMG_1.HEIC", "a/IMG_1.jpg"],
    ["a/IMG_1.arw", "a/IMG_1.tiff"],
    ["a/IMG_1.cr2", "a/img_1.JPG"],
    ["a/IMG_1.CR3", "a/IMG_1.CR3.jpg"],
    ["PXL_1.RAW-01.COVER.jpg", "PXL_1.RAW-02.ORIGINAL.dng"],
    ["PXL_1.RAW-01.MP.COVER.jpg", "PXL_1.RAW-02.ORIGINAL.dng"],
    ["//bytes/%FF.cr2", "//bytes/%FF.jpg"],
    ["a/IMG_1.CR2", "a/IMG_1.DNG", "a/IMG_1.JPG", "a/IMG_1.tif"],
]
NO_PAIRS = [
    ["a/IMG_1.jpeg", "a/IMG_1.jpg"],
    ["a/IMG_1.CR2", "b/IMG_1.jpg"],
    ["A/IMG_1.CR2", "a/IMG_1.jpg"],
    ["a/IMG_1.CR2", "a/IMG_1-edit.jpg"],
    ["a/IMG_1.CR2", "a/IMG_10.jpg"],
    ["a/IMG_1.jpg", "a/IMG_1.png"],
    ["a/IMG_1.jpg", "a/IMG_1.tif"],
    ["a/IMG_1.cr2", "a/IMG_1.png"],
    ["a/IMG_1.CR2", "a/IMG_1.jpeg", "a/IMG_1.jpg"],  # which one is of the RAW file?
    ["a/IMG_1", "a/IMG_1.jpg"],
    ["a.cr2/1", "a.jpg/1"],
]


@pytest.mark.parametrize("paths", PAIRS)
def test_files_of_one_photo_are_a_pair(paths):
    assert pairs_of(paths) == [list(range(len(paths)))]
    assert len({pair_key(path) for path in paths}) == 1


@pytest.mark.parametrize("paths", NO_PAIRS)
def test_files_of_two_photos_are_no_pair(paths):
    assert pairs_of(paths) == []


def test_a_file_that_may_be_of_several_photos_leaves_a_pair():
    paths = ["a/1.HEIC", "a/1.cr2", "a/1.jpeg", "a/1.jpg", "a/1.png"]
    assert pairs_of(paths) == [[0, 1]]
    assert list(by_photo([(path,) for path in paths]))[1:] == [[("a/1.jpeg",)], [("a/1.jpg",)], [("a/1.png",)]]


NAMES = st.builds(
    "{}{}{}.{}".format,
    st.sampled_from(["", "a/", "A/", "a/b/"]),
    st.sampled_from(["1", "x", "X", "1.RAW-01.COVER"]),
    st.sampled_from(["", "-edit", ".cr2"]),
    st.sampled_from(["jpg", "JPG", "jpeg", "heic", "tif", "png", *RAW_SUFFIXES[:2]]),
)


@settings(max_examples=30, deadline=None)  # each sorts twice on disk
@given(st.lists(NAMES, unique=True))
def test_photos_have_each_row_once_in_any_order(paths):
    rows = [(path, number, 0.5, None) for number, path in enumerate(paths)]
    photos = list(by_photo(rows))
    assert sorted(row for photo in photos for row in photo) == sorted(rows)
    assert photos == list(by_photo(rows[::-1]))
    pairs = {frozenset(row[0] for row in photo) for photo in photos if len(photo) > 1}
    assert pairs == {frozenset(paths[position] for position in pair) for pair in pairs_of(paths)}
    for photo in pairs:
        assert len({pair_key(path) for path in photo}) == 1
        assert len({path.lower().replace("jpeg", "jpg").rpartition(".")[2] for path in photo}) == len(photo)
