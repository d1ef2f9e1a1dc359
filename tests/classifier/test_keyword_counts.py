"""The keywords of an archive, with counts."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from commands import run
from helpers import read_csv, write
from tagged_photos import photo, plain, xmp
from thread_pool import decoding_in_threads

import flowers_batch as fb
from flowers_batch.classifier.keyword_counts import KeywordCounts
from flowers_batch.metadata.archive_keywords import PhotoKeywords


@pytest.fixture(autouse=True)
def _in_threads() -> Iterator[None]:
    with decoding_in_threads():
        yield


def counts(*photos: tuple[str, ...], **options: int) -> KeywordCounts:
    found = KeywordCounts(**options)
    for number, given in enumerate(photos):
        found.add(PhotoKeywords(f"{number}.jpg", given, ()))
    return found


def test_keywords_that_differ_in_case_count_as_one():
    found = counts(("Rose", "rose"), ("ROSE",), ("tulip",), ())
    assert found.most_frequent() == [("Rose", 2), ("tulip", 1)]
    assert (found.photos, found.with_keywords) == (4, 3)


def test_levels_of_a_path_are_not_counted_beside_it():
    found = counts(("animal/bird/owl", "animal", "Owl", "wedding"), ("owl",))
    assert found.most_frequent() == [("animal/bird/owl", 1), ("owl", 1), ("wedding", 1)]


def test_memory_is_bounded_and_what_is_not_counted_is_told():
    found = counts(*((f"word {number}",) for number in range(9)), ("word 0",), max_keywords=3)
    assert found.most_frequent() == [("word 0", 2), ("word 1", 1), ("word 2", 1)]
    assert found.uncounted == 6


@pytest.fixture
def archive(tmp_path):
    files = {f"{number}.jpg": photo("JPEG", xmp("rose", paths=("plant|rose",))) for number in range(3)}
    files |= {"3.jpg": plain(), "3.jpg.xmp": xmp("=tulip", ours="rose"), "4.jpg": plain()}
    return str(write(tmp_path / "photos", files | {"4.xmp": b"<x"}))


def test_keywords_are_listed_with_counts_and_failures(archive, tmp_path):
    found = fb.keywords(archive, csv=tmp_path / "keywords.csv")
    assert found["keywords"] == [{"keyword": "plant/rose", "photos": 3}, {"keyword": "=tulip", "photos": 1}]
    assert (found["photos"], found["with_keywords"], found["unread"], found["uncounted"]) == (5, 4, 1, 0)
    assert found["failures"][0]["path"] == "4.jpg" and "4.xmp: Its XMP cannot" in found["failures"][0]["message"]
    assert read_csv(tmp_path / "keywords.csv") == [
        {"keyword": "plant/rose", "photos": "3"},
        {"keyword": "'=tulip", "photos": "1"},
    ]
    assert fb.keywords(archive, fb.EncodeConfig(exclude=("[0-3]*",)))["photos"] == 1


def test_keywords_command_prints_a_table(archive, capsys):
    code, out, _ = run(capsys, "keywords", archive)
    assert code == 0 and "      3  plant/rose\n      1  =tulip\n2 keywords on 4 of 5 photos\n" in out
    assert "the keywords of 1 photos could not all be read:\n  4.jpg: 4.xmp: Its XMP cannot be read" in out
    assert "--labels xmp --classes plant/rose,=tulip" in out
    code, out, _ = run(capsys, "keywords", archive, "--json", "--exclude", "4*")
    assert code == 0 and json.loads(out)["photos"] == 4


def test_archive_without_keywords_is_said_to_have_none(tmp_path, capsys):
    write(tmp_path, {"a.jpg": plain()})
    assert run(capsys, "keywords", str(tmp_path))[:2] == (0, "0 keywords on 0 of 1 photos\n")
