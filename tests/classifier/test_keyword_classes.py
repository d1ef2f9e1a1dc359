"""Which keywords are classes."""

from __future__ import annotations

import pytest

from flowers_batch.classifier.keyword_classes import expand_classes, read_classes
from flowers_batch.errors import InputError


def test_keyword_matches_by_its_flat_form_its_path_and_its_last_level():
    classes = read_classes(("Rose,tulip", "animal/bird"))
    assert classes.names == ("Rose", "tulip", "animal/bird")
    assert classes.of(["rose"]) == classes.of(["plant/flower/ROSE"]) == ["Rose"]
    assert classes.of(["Animal/Bird"]) == ["animal/bird"]
    assert classes.of(["bird", "animal", "rose garden", "rose/garden"]) == []
    assert classes.of(["tulip", "a/rose", "b/rose"]) == ["Rose", "tulip"]


def test_synonyms_stand_for_their_class_whatever_their_case_and_composition():
    classes = read_classes(("rose=Rosa, roses,plant/R\u00f6schen", "daisy"))
    assert classes.of(["ROSA"]) == classes.of(["x/roses"]) == classes.of(["plant/Ro\u0308schen"]) == ["rose"]
    assert classes.of(["R\u00f6schen"]) == []


def test_file_of_classes_is_read_and_recorded_by_its_content(tmp_path):
    file = tmp_path / "classes.txt"
    file.write_text("\ufeff# flowers\nrose=Rosa,roses\n\n tulip \ndaisy,dandelion\n", encoding="utf-8")
    entries = ("rose=Rosa,roses", "tulip", "daisy", "dandelion", "other")
    assert expand_classes((str(file), "other")) == expand_classes(entries) == entries
    assert read_classes((str(file),)).by_keyword["rosa"] == "rose"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (("rose=Rosa", "tulip=rosa"), "rosa stands for rose and for tulip"),
        (("rose,,tulip",), "must be names such as rose,tulip.* Received: nothing"),
        (("rose=",), None),
        (("=rose",), "Received: =rose"),
        (("a//b",), "Received: a//b"),
        (("rose,tulip=Tulipa",), "one class with synonyms at a time.*Received: rose,tulip=Tulipa"),
        (("rose=Rosa=x",), "one class with synonyms at a time"),
        (("x" * 256,), "has 256 characters, and 255 are allowed"),
        (("missing.txt",), r"There is no file of classes missing\.txt"),
    ],
)
def test_wrong_classes_are_refused(values, message):
    if message is None:
        assert read_classes(values).names == ("rose",)
        return
    with pytest.raises(InputError, match=message):
        read_classes(values)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe", "is not UTF-8"),
        (b"other.txt", r"names the file other\.txt"),
        (bytes(1 << 21), "more than 1048576"),
    ],
    ids=["utf-16", "other-file", "too-large"],
)
def test_wrong_file_of_classes_is_refused(tmp_path, content, message):
    (tmp_path / "classes.txt").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_classes((str(tmp_path / "classes.txt"),))
