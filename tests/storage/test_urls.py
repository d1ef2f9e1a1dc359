"""URLs as people write them."""

from __future__ import annotations

import pytest

from flowers_batch.storage.urls import as_uri, name_in_url, scheme_of, split_options, with_known_scheme


@pytest.mark.parametrize(
    ("url", "scheme", "known"),
    [
        ("S3://Bucket/Key", "s3", "s3://Bucket/Key"),
        ("s3a://b/k", "s3", "s3://b/k"),
        ("s3N://b/k", "s3", "s3://b/k"),
        ("FILE:///a", "file", "file:///a"),
        ("GS://b", "gs", "gs://b"),
        ("/a/s3://b", "", "/a/s3://b"),
        ("C:\\a", "", "C:\\a"),
        ("://b", "", "://b"),
    ],
)
def test_schemes_are_taken_in_any_case_and_by_other_names(url, scheme, known):
    assert (scheme_of(url), with_known_scheme(url)) == (scheme, known)


@pytest.mark.parametrize(
    ("url", "uri"),
    [
        ("s3://b/a b/#1?region=x", "s3://b/a%20b/%231?region=x"),
        ("s3://b/a%20b", "s3://b/a%20b"),
        ("s3://b/100%", "s3://b/100%25"),
        ("s3://b/ä[1]+@:", "s3://b/%C3%A4%5B1%5D+@:"),
        ("hdfs://[::1]:8020/a", "hdfs://[::1]:8020/a"),
        ("s3://b", "s3://b"),
    ],
)
def test_signs_that_no_uri_has_are_encoded(url, uri):
    assert as_uri(url) == uri


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("s3://b/a.jpg?region=x&scheme=http", ("s3://b/a.jpg", "region=x&scheme=http")),
        ("s3://b/a?.jpg?region=x", ("s3://b/a?.jpg", "region=x")),
        ("s3://b/a.jpg?versionId=1", ("s3://b/a.jpg?versionId=1", "")),
        ("s3://b/a?", ("s3://b/a?", "")),
        ("s3://b/a", ("s3://b/a", "")),
    ],
)
def test_options_are_told_from_names_with_a_question_mark(url, parts):
    assert split_options(url) == parts


def test_names_in_urls_hold_no_options_and_no_escapes():
    assert name_in_url("a?b%41 50%.tar") == "a%3Fb%2541 50%.tar"
