"""Keywords in IPTC blocks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tagged_photos import dataset, iptc, resource

from flowers_batch.metadata.iptc import MalformedIptcError, photoshop_resources, read_iptc


@pytest.mark.parametrize(
    ("word", "encoding", "escape"),
    [
        ("R\u00f6schen", "utf-8", b"\x1b%G"),
        ("R\u00f6schen", "utf-8", b""),
        ("R\u00f6schen", "cp1252", b""),
        ("R\u00f6schen", "cp1252", b"\x1b%G"),
        ("R\u00f6schen", "latin-1", b"\x1b-A"),
        ("\u0141\u00f3d\u017a", "iso8859-2", b"\x1b-B"),
        ("\u0420\u043e\u0437\u0430", "iso8859-5", b"\x1b-L"),
    ],
)
def test_keywords_are_read_in_their_character_set(word, encoding, escape):
    assert read_iptc(iptc(word, "rose", encoding=encoding, escape=escape)) == (word, "rose")


def test_other_datasets_and_repeats_are_passed_over():
    block = dataset(2, 5, b"a title") + iptc("rose", "rose", " ", "cafe\u0301") + dataset(2, 120, b"text") + bytes(7)
    assert read_iptc(block) == ("rose", "caf\u00e9")


def test_extended_dataset_is_read():
    block = b"\x1c\x02\x19\x80\x04" + (4).to_bytes(4, "big") + b"rose"
    assert read_iptc(block) == ("rose",)
    with pytest.raises(MalformedIptcError, match="cut short"):
        read_iptc(block[:-1])


def test_block_that_is_too_large_is_refused():
    with pytest.raises(MalformedIptcError, match="bytes, and 1048576 are allowed"):
        read_iptc(bytes((1 << 20) + 1))


def test_resources_are_found_behind_those_with_names():
    data = resource(1, b"abc", b"name") + resource(0x0404, b"block", b"odd")
    assert list(photoshop_resources(data)) == [(1, b"abc"), (0x0404, b"block")]


@given(st.binary(max_size=100), st.lists(st.binary(max_size=9)))
def test_any_bytes_are_keywords_or_malformed(noise, words):
    for block in (noise, b"".join(dataset(2, 25, word) for word in words) + noise):
        list(photoshop_resources(b"8BIM" + block))
        try:
            assert all(isinstance(word, str) for word in read_iptc(block))
        except MalformedIptcError as error:
            assert str(error)
