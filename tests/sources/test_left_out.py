from __future__ import annotations

import json
from collections import Counter

import pytest

from flowers_batch.sources.images import RAW_SUFFIXES, SUFFIXES, is_image
from flowers_batch.sources.left_out import Examples, LeftOut, left_out_from_json
from flowers_batch.sources.left_out_text import describe_left_out


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        ("a/clip.MOV", ".mov"),
        ("photo.jpg~", ".jpg~"),
        ("photo.jpg_large", ".jpg_large"),
        ("photo.jpg.bak", ".bak"),
        ("photo.tar.gz", ".gz"),
        ("a.b/noext", ""),
        ("noext", ""),
        ("ends with a dot.", ""),
        ("Dr. No and the very long name of a file", ""),
        ("a.\x1b[31m", ""),
    ],
)
def test_files_that_are_no_images_are_counted_by_ending(name, ending):
    left_out = LeftOut()
    assert not is_image(name.encode())
    assert not left_out.takes(name.encode(), None)
    assert left_out.endings == {ending: 1}


@pytest.mark.parametrize(
    "suffix",
    [
        *("jfif", "jpe", "pjpeg", "pjp", "hif", "heics", "heifs", "avifs", "mpo", "dib", "apng", "jxl", "jp2"),
        *RAW_SUFFIXES,
    ],
)
def test_endings_that_cameras_and_browsers_write_are_images(suffix):
    assert suffix in SUFFIXES
    assert LeftOut().takes(f"a.{suffix.upper()}".encode(), None)


def test_system_file_that_is_no_image_counts_nowhere():
    left_out = LeftOut()
    assert not left_out.takes(b"Thumbs.db", "Thumbs.db")
    assert left_out == LeftOut()


def test_endings_are_bounded_in_memory_and_on_disk():
    left_out = LeftOut()
    for number in range(5000):
        left_out.takes(b"a.mov", None)
        left_out.takes(b"a.x%d" % number, None)
    assert len(left_out.endings) <= 1001
    written = left_out.to_json()
    assert written["ignored"] == 10000 == sum(written["ignored_endings"].values())
    first, *_, last = written["ignored_endings"]
    assert (first, last, len(written["ignored_endings"])) == (".mov", "others", 21)


def test_counts_are_read_as_they_were_written():
    left_out = LeftOut(
        Counter({"@eaDir": 168, "hidden": 12}), {"hidden"}, Counter({".mov": 3, "": 1}), Examples(1, ["a/b"])
    )
    assert left_out_from_json(json.loads(json.dumps(left_out.to_json()))) == left_out


def test_version_0_1_counted_only_what_it_ignored():
    assert left_out_from_json({"ignored": 0}) == LeftOut()
    assert left_out_from_json({"ignored": 7}).ignored == 7


def test_what_was_left_out_is_described_for_people():
    left_out = LeftOut(
        Counter({"#snapshot": 100_000, "@eaDir": 168, "hidden": 12, "._*": 3, "exclude *.bak": 1}),
        {"#snapshot"},
        Counter({".mov": 3, ".txt": 2, "": 1}),
        Examples(7, ["a", "b"]),
        Examples(1, ["roses"]),
    )
    assert describe_left_out(left_out.to_json()) == {
        "skipped": "100,000 or more in #snapshot, 168 in @eaDir, 12 hidden, 3 named ._*, 1 excluded by *.bak",
        "ignored": "3 .mov, 2 .txt, 1 without ending",
        "links to a folder that contains them, not followed": "a, b, ... (7 in all)",
        "links that lead nowhere": "roses",
    }
    assert describe_left_out(LeftOut().to_json()) == describe_left_out({"ignored": 3}) == {}
