from __future__ import annotations

import os
import re
import time

import pytest
from helpers import ROOT

from flowers_batch.errors import InputError
from flowers_batch.sources.images import SUFFIXES
from flowers_batch.sources.skipping import HIDDEN, SKIP_SYSTEM, SYSTEM, Skipping


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("@eaDir", "@eaDir"),
        ("2019/@eaDir", "@eaDir"),
        ("#recycle", "#recycle"),
        ("a/#snapshot", "#snapshot"),
        ("$RECYCLE.BIN", "$RECYCLE.BIN"),
        ("$Recycle.Bin", "$RECYCLE.BIN"),
        ("System Volume Information", "System Volume Information"),
        ("x/__MACOSX", "__MACOSX"),
        (".Trash-1000", ".Trash-*"),
        ("lost+found", "lost+found"),
        ("LR Previews.lrdata", "*.lrdata"),
        ("Pictures/My.photoslibrary/resources", "*.photoslibrary/resources"),
        ("My.photoslibrary/RESOURCES", "*.photoslibrary/resources"),
        (".cache", HIDDEN),
        ("resources", None),
        ("photoslibrary/resources", None),
        ("My.photoslibrary", None),
        ("My.photoslibrary/originals", None),
        ("eaDir", None),
        ("found.roses", None),
    ],
)
def test_system_folders_are_left_out_by_name_in_any_case(folder, kind):
    assert Skipping().kind(folder.encode(), is_folder=True) == kind
    assert Skipping(include_hidden=True).kind(folder.encode(), is_folder=True) is None


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("a/._rose.jpg", "._*"),
        (".rose.jpg", HIDDEN),
        ("Thumbs.db", "Thumbs.db"),
        ("a/THUMBS.DB", "Thumbs.db"),
        ("a/rose.jpg", None),
        ("@eaDir", None),  # a file of that name is not a system's folder
        ("..rose.jpg", HIDDEN),
    ],
)
def test_system_files_and_hidden_names_are_left_out(file, kind):
    assert Skipping().kind(file.encode(), is_folder=False) == kind


def test_every_system_name_is_left_out():
    for pattern in SYSTEM:
        example = pattern.removeprefix("**/").replace("[0-9]", "0").replace("*", "x")
        kind = Skipping().kind(b"a/" + example.rstrip("/").encode(), is_folder=pattern.endswith("/"))
        assert kind == pattern.removeprefix("**/").rstrip("/")


def test_documentation_names_every_system_name_and_ending():
    page = (ROOT / "docs" / "encoding.md").read_text()
    names = [pattern.rstrip("/").rpartition("/")[2] for pattern in SYSTEM]
    names = [name.replace("[0-9]", "0").replace("\r", "") for name in names if name != "THMBNL"]
    assert [name for name in names if name not in page] == []
    endings = page[page.index("a file whose name ends in") : page.index("in upper or lower case")]
    assert [suffix for suffix in SUFFIXES if suffix not in re.findall(r"\w+", endings)] == []


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("raw", ["raw/", "a/raw/", "raw", "a/b/raw"], ["raws/", "Raw/", "a/raw.jpg"]),
        ("raw/", ["raw/", "a/raw/"], ["raw", "a/raw"]),
        ("/raw", ["raw/", "raw"], ["a/raw", "a/raw/"]),
        ("*.bak.jpg", ["1.bak.jpg", "a/b/.bak.jpg"], ["bak.jpg", "a.bak.jpg.jpg"]),
        ("./raw/", ["raw/"], ["raw", "a/raw/"]),
        ("a/*", ["a/b", "a/b/"], ["a/b/c", "x/a/b", "a"]),
        ("a/**", ["a/b", "a/b/c/"], ["x/a/b"]),
        ("**/raw/*.jpg", ["raw/1.jpg", "a/b/raw/1.jpg"], ["raw/x/1.jpg", "raw/1.png"]),
        ("a/**/b", ["a/b", "a/x/b", "a/x/y/b/"], ["a/x", "z/a/b"]),
        ("IMG_[0-9]?.jpg", ["IMG_01.jpg"], ["IMG_1.jpg", "IMG_ab.jpg"]),
        ("M\u00fcll", ["M\u00fcll/", "Mu\u0308ll/"], ["Mull/"]),
        ("Mu\u0308ll", ["M\u00fcll/", "Mu\u0308ll/"], []),
    ],
)
def test_exclude_patterns_match_names_or_paths_below_the_root(pattern, matching, others):
    skipping = Skipping(include_hidden=True, exclude=(pattern,))
    for path in matching + others:
        kind = skipping.kind(path.rstrip("/").encode(), is_folder=path.endswith("/"))
        assert kind == (f"exclude {pattern}" if path in matching else None), path


def test_name_that_is_not_utf8_is_matched():
    assert Skipping(exclude=("*.jpg",)).kind(b"a/\xff.jpg", is_folder=False) == "exclude *.jpg"


def test_pattern_that_is_not_utf8_is_matched_and_written_as_utf8():
    pattern = os.fsdecode(b"caf\xe9*")
    kind = Skipping(exclude=(pattern,)).kind(b"a/caf\xe9.jpg", is_folder=False)
    assert kind == "exclude caf\\xe9*" and [kind] == Skipping(exclude=(pattern,)).exclude_kinds


def test_member_of_a_container_is_judged_with_all_folders_above_it():
    skipping = Skipping(exclude=("/drafts",))
    assert skipping.kind_within(b"./a/b.jpg") is None  # tar writes names from `.` on
    assert skipping.kind_within(b"../b.jpg") is None
    assert skipping.kind_within(b"./a/@eaDir/b.jpg/THUMB.jpg") == "@eaDir"
    assert skipping.kind_within(b"./drafts/b.jpg") == "exclude /drafts"
    assert skipping.kind_within(b"a/drafts/.b.jpg") == HIDDEN


@pytest.mark.parametrize("exclude", ["*.bak", ["*.bak"], ("",), ("/",), (3,)])
def test_exclude_that_is_not_a_tuple_of_patterns_is_refused(exclude):
    with pytest.raises(InputError, match="`exclude`"):
        Skipping(exclude=exclude)


def test_path_of_a_hostile_tar_is_judged_quickly():
    started = time.monotonic()
    assert SKIP_SYSTEM.kind_within(b"a/" * 500_000 + b"._x.jpg") == "._*"
    assert time.monotonic() - started < 5


def test_folders_may_be_nested_deeply():
    assert SKIP_SYSTEM.kind_within(b"a/" * 2000 + b"@eaDir/" + b"a/" * 2000 + b"x.jpg") == "@eaDir"
