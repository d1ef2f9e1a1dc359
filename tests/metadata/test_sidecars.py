from __future__ import annotations

import os

import pytest

from flowers_batch.metadata.packet import MAX_BYTES
from flowers_batch.metadata.sidecars import CHANGED, PhotoFile, SidecarError, retag, sidecars_of
from flowers_batch.metadata.tags import Tag, with_tag

TAG = Tag("rose", 0.5, "m")


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("a.b/c.d.jpg", ("a.b/c.d.jpg.xmp", "a.b/c.d.jpg.XMP", "a.b/c.d.xmp", "a.b/c.d.XMP")),
        ("a.b/c", ("a.b/c.xmp", "a.b/c.XMP")),
        (".jpg", (".jpg.xmp", ".jpg.XMP")),
    ],
)
def test_sidecars_have_the_names_that_programs_give_them(path, names):
    assert sidecars_of(path) == names


@pytest.mark.parametrize("kind", ["too large", "not a file"])
def test_sidecar_that_is_none_is_refused(tmp_path, kind):
    (tmp_path / "1.jpg").touch()
    if kind == "too large":
        (tmp_path / "1.jpg.xmp").touch()
        os.truncate(tmp_path / "1.jpg.xmp", MAX_BYTES + 1)
    else:
        (tmp_path / "1.jpg.xmp").mkdir()
    with pytest.raises(SidecarError) as refused:
        retag(PhotoFile(os.fsencode(tmp_path), b"1.jpg"), ["1.jpg.xmp"], TAG)
    assert refused.value.kind == kind


def test_sidecar_that_another_program_changes_meanwhile_is_read_again(tmp_path, monkeypatch):
    (tmp_path / "1.jpg").touch()
    sidecar = tmp_path / "1.jpg.xmp"
    first, second = (with_tag(None, Tag(label, 0.5, "other")) for label in ("first", "second"))
    sidecar.write_bytes(first)

    def with_tag_while_changed(content, tag):
        if content == first:
            sidecar.write_bytes(second)
        return with_tag(content, tag)

    monkeypatch.setattr("flowers_batch.metadata.sidecars.with_tag", with_tag_while_changed)
    assert retag(PhotoFile(os.fsencode(tmp_path), b"1.jpg"), ["1.jpg.xmp"], TAG) == CHANGED
    assert sidecar.read_bytes() == with_tag(second, TAG)
