from __future__ import annotations

import os

import pytest

from flowers_batch.metadata.packet import MAX_BYTES
from flowers_batch.metadata.sidecars import CHANGED, PhotoFile, SidecarError, read_sidecar, retag, sidecars_of
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


def test_sidecar_is_read_below_the_folder_only(tmp_path):
    root = tmp_path / "photos"
    root.mkdir()
    (tmp_path / "private.xmp").write_bytes(b"private")
    (root / "out.xmp").symlink_to(tmp_path / "private.xmp")
    (root / "1.xmp").write_bytes(b"content")
    (root / "in.xmp").symlink_to("1.xmp")
    os.mkfifo(root / "pipe.xmp")
    with open(root / "large.xmp", "wb") as file:
        file.truncate(MAX_BYTES + 1)
    where = os.fsencode(root)
    assert read_sidecar(where, b"1.xmp") == read_sidecar(where, b"in.xmp") == b"content"
    assert read_sidecar(where, b"none.xmp") is None
    for name, kind in ((b"out.xmp", "outside"), (b"pipe.xmp", "not a file"), (b"large.xmp", "too large")):
        with pytest.raises(SidecarError) as refused:
            read_sidecar(where, name)
        assert refused.value.kind == kind
    assert read_sidecar(None, os.fsencode(root / "out.xmp")) == b"private", "the user's list names it"


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
