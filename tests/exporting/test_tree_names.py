from __future__ import annotations

import os
import unicodedata
from pathlib import PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowers_batch.exporting.tree_names import class_folders, folder_keys, name_key, tagged, tags

_AWKWARD = (
    *(
        "",
        ".",
        "..",
        "...",
        "CON",
        "con.x",
        "aux ",
        "COM1",
        "nul.",
        "~",
        "%",
        "%2E",
        "a ",
        "a.",
        ".git",
        "rose",
        "Rose",
    ),
    *("x" * 300, "X" * 300, "é" * 200, "e\u0301", "\u00e9", "\x00", "a\\b", "c:", "*", "?", "\u017f", "ss", "ß"),
)
PARTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | st.sampled_from(_AWKWARD)
CLASSES = st.sets(st.lists(PARTS, min_size=1, max_size=4).map("/".join), max_size=12)


@settings(deadline=None)
@given(CLASSES)
def test_folders_of_any_classes_are_safe_and_unique(classes):
    folders = class_folders(classes)
    assert folders.keys() == classes
    assert len({name_key(folder) for folder in folders.values()}) == len(classes)
    assert folders == class_folders(sorted(classes, reverse=True))
    for name, folder in folders.items():
        parts = folder.split("/")
        assert len(parts) == len(name.split("/"))
        for part in parts:
            assert part and not part.startswith(".") and part[-1] not in ". "
            assert len(part.encode()) <= 143
            assert not PureWindowsPath(part).is_reserved() and not set(part) & set('<>:"\\|?*')
            assert not any(unicodedata.category(each) == "Cc" and each < "\x80" for each in part)
        assert not PurePosixPath(folder).is_absolute() and os.path.normpath(folder) == folder
        parents = [parent for parent in classes if name.startswith(f"{parent}/")]
        assert all(folder.startswith(f"{folders[parent]}/") for parent in parents)


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("animal/bird/owl", "animal/bird/owl"),
        ("Löwenzahn & Co.; 2", "Löwenzahn & Co.; 2"),
        ("..", "%2E%2E"),
        ("/etc/passwd", "%/etc/passwd"),
        ("a//b", "a/%/b"),
        ("a/../b", "a/%2E%2E/b"),
        ("100%", "100%25"),
        ("con", "%63on"),
        ("LPT1.old", "%4CPT1.old"),
        ("console", "console"),
        ("e.g.", "e.g%2E"),
        ("a\0b", "a%00b"),
        ("C:\\x", "C%3A%5Cx"),
        ("", "%"),
    ],
)
def test_what_a_file_system_refuses_is_escaped(name, folder):
    assert class_folders([name]) == {name: folder}


def test_classes_that_differ_in_case_or_accents_have_folders_of_their_own():
    folders = class_folders(["rose", "Rose/wild", "Rose", "caf\u00e9", "cafe\u0301"])
    assert folders["Rose"] == "Rose" and folders["Rose/wild"] == "Rose/wild"
    assert folders["rose"].startswith("rose%-")
    assert len({name_key(folder) for folder in folders.values()}) == 5


def test_very_deep_class_has_few_folders():
    (folder,) = class_folders(["/".join("a" * 3000)]).values()
    assert folder.count("/") == 15 and len(folder) < 200


def test_folder_keys_are_those_of_all_folders():
    assert folder_keys(["a/B", "c"]) == {b"a", b"a/b", b"c"}


def test_tag_is_before_the_suffixes_of_a_photo():
    _, short, long = tags(["a/IMG_1.CR2"])
    assert len(short) == 9 and long.startswith(short)
    assert tagged("IMG_1.CR2", "") == "IMG_1.CR2"
    assert tagged("IMG_1.CR2", "-x") == "IMG_1-x.CR2"
    assert tagged("IMG_1.CR2.jpg", "-x") == "IMG_1-x.CR2.jpg"
    assert tagged("none", "-x") == "none-x"
    assert tagged("é" * 125 + ".jpg", "-12345678") == "é" * 119 + "-12345678.jpg"
    assert os.fsencode(tagged(os.fsdecode(b"\xff.jpg"), "-x")) == b"\xff-x.jpg"
