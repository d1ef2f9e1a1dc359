"""Keywords of the photos of an archive: from sidecars and files, of every kind of source."""

from __future__ import annotations

import os
import struct
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import store, write
from tagged_photos import exiftool, iptc, jpeg_with_iptc, photo, plain, xmp
from thread_pool import decoding_in_threads

from flowers_batch.errors import InputError
from flowers_batch.metadata.archive_keywords import PhotoKeywords, folded, keywords_of
from flowers_batch.sources.folders import FolderSource
from flowers_batch.sources.images import Image, batches_of
from flowers_batch.sources.opening import open_source
from flowers_batch.sources.source import Source


@pytest.fixture(autouse=True)
def _in_threads(request) -> Iterator[None]:
    if "processes" in request.node.name:
        yield
        return
    with decoding_in_threads():
        yield


def read(source: Source) -> dict[str, PhotoKeywords]:
    return {photo.path: photo for photo in keywords_of(source, source.batches())}


def given(files: dict[str, bytes], folder: Path) -> dict[str, tuple[str, ...]]:
    found = read(open_source(str(write(folder, files))))
    assert not any(photo.problems for photo in found.values())
    return {path: photo.given for path, photo in found.items() if photo.given}


def test_sidecars_of_all_programs_are_read(tmp_path):
    files = {f"{name}.jpg": plain() for name in ("a", "b.c", "d", "in/a")} | {"e.JPG": plain(), "f.jpg": plain()}
    files |= {"a.jpg.xmp": xmp("a full"), "a.xmp": xmp("a stem"), "b.c.xmp": xmp("b stem"), "d.jpg.XMP": xmp("D")}
    files |= {"in/a.jpg.xmp": xmp("in"), "e.JPG.xmp": xmp("e"), "g.xmp": xmp("nothing's")}
    assert given(files, tmp_path) == {
        "a.jpg": ("a full", "a stem"),
        "b.c.jpg": ("b stem",),
        "d.jpg": ("D",),
        "in/a.jpg": ("in",),
        "e.JPG": ("e",),
    }


def test_keywords_of_sidecars_and_files_are_joined(tmp_path):
    files = {"a.jpg": photo("JPEG", xmp("rose", "Garden")), "a.jpg.xmp": xmp("rose", paths=("plant|rose",))}
    assert given(files, tmp_path) == {"a.jpg": ("rose", "plant/rose", "Garden")}


@pytest.mark.parametrize(
    "copied",
    [
        photo("JPEG", xmp("animal", "bird", "Owl", "wedding", paths=("animal|bird|owl", "animal|bird"))),
        jpeg_with_iptc(iptc("owl", "bird", "wedding")),
        photo("JPEG", xmp("wedding", ours="owl")),
    ],
    ids=["xmp", "iptc", "whole-packet"],
)
def test_keywords_that_this_program_wrote_do_not_count_where_they_were_copied(tmp_path, copied):
    sidecar = xmp("animal", ours="animal/bird/owl")
    assert given({"a.jpg": copied, "a.jpg.xmp": sidecar}, tmp_path) == {"a.jpg": ("animal", "wedding")}


def test_keywords_that_exiftool_copied_from_our_sidecar_do_not_count(tmp_path):
    write(tmp_path, {"a.jpg": plain(), "a.jpg.xmp": xmp(ours="owl")})
    exiftool(
        "-tagsfromfile", tmp_path / "a.jpg.xmp", "-XMP-dc:Subject", "-IPTC:Keywords<XMP-dc:Subject", tmp_path / "a.jpg"
    )
    assert b"owl" in (tmp_path / "a.jpg").read_bytes()
    assert given({}, tmp_path) == {}
    (tmp_path / "a.jpg.xmp").unlink()
    assert given({}, tmp_path) == {"a.jpg": ("owl",)}


def test_what_cannot_be_read_is_told_and_costs_its_keywords_only(tmp_path):
    files = {f"{name}.jpg": photo("JPEG", xmp("rose")) for name in "abcd"}
    files |= {"a.jpg.xmp": xmp("garden")[:-5], "b.xmp": plain(), "c.jpg.xmp": b"", "e.jpg": b"no photo"}
    write(tmp_path, files)
    os.symlink(tmp_path / "missing", tmp_path / "d.xmp")
    found = read(open_source(str(tmp_path)))
    assert all(found[f"{name}.jpg"].given == ("rose",) for name in "abcd")
    problems = {path: photo.problems[0] for path, photo in found.items() if photo.problems}
    assert problems.pop("a.jpg").startswith("a.jpg.xmp: Its XMP cannot be read: it is not well-formed XML")
    assert problems == {
        "b.jpg": "b.xmp: It is not XMP.",
        "c.jpg": "c.jpg.xmp: It is not XMP.",
        "d.jpg": "d.xmp: The file no longer exists.",
    }


def test_photo_that_is_missing_is_told(tmp_path):
    write(tmp_path, {"b.jpg": plain()})
    source = open_source(str(tmp_path))
    (found,) = keywords_of(source, batches_of([Image("gone/a.jpg")]))
    assert found.problems == ("The file no longer exists.",)


def test_lists_tars_and_tables_are_read(tmp_path):
    packet, data = xmp("garden"), photo("JPEG", xmp("rose"))
    write(tmp_path, {"p/a.jpg": data, "p/a.jpg.xmp": packet})
    (tmp_path / "list.txt").write_text(f"p/a.jpg\n{tmp_path}/p/a.jpg\n")
    with tarfile.open(tmp_path / "photos.tar", "w") as tar:
        tar.add(tmp_path / "p/a.jpg", "a.jpg")
        tar.add(tmp_path / "p/a.jpg.xmp", "a.jpg.xmp")
    pq.write_table(pa.table({"image": [data], "path": ["p/a.jpg"]}), tmp_path / "photos.parquet")
    found = [read(open_source(str(tmp_path / name))) for name in ("list.txt", "photos.tar", "photos.parquet")]
    assert [[photo.given for photo in each.values()] for each in found] == [
        [("garden", "rose")] * 2,
        [("rose",)],
        [("rose",)],
    ]


def test_photos_in_stores_have_embedded_keywords_only(tmp_path):
    write(tmp_path / "run", {"a.jpg": photo("JPEG", xmp("rose")), "a.jpg.xmp": xmp("garden")})
    assert read(FolderSource(store(tmp_path / "run")))["a.jpg"].given == ("rose",)


def test_names_that_are_not_utf8_have_sidecars(tmp_path):
    name = os.fsencode(tmp_path) + b"/r\xf6schen.jpg"
    Path(os.fsdecode(name)).write_bytes(plain())
    Path(os.fsdecode(name + b".xmp")).write_bytes(xmp("rose"))
    assert [photo.given for photo in read(open_source(str(tmp_path))).values()] == [("rose",)]


def test_sidecars_outside_the_folder_are_not_looked_for(tmp_path):
    write(tmp_path, {"a.jpg": plain(), "a.xmp": xmp("secret"), "photos/b.jpg": plain()})
    source = open_source(str(tmp_path / "photos"))
    with pytest.raises(InputError, match=r"\.\./a\.jpg"):
        list(keywords_of(source, batches_of([Image("../a.jpg")])))


def test_only_the_head_of_large_files_is_read_if_all_metadata_are_there(tmp_path, monkeypatch):
    read_bytes, read_os = {}, os.read

    def counting(handle: int, size: int) -> bytes:
        content = read_os(handle, size)
        name = os.path.basename(os.readlink(f"/proc/self/fd/{handle}"))
        read_bytes[name] = read_bytes.get(name, 0) + len(content)
        return content

    monkeypatch.setattr(os, "read", counting)
    packet, pixels = xmp("rose"), bytes(3 << 20)
    directory = struct.pack("<HHHIII", 1, 700, 7, len(packet), 8 + len(pixels), 0)
    files = {
        "a.jpg": photo("JPEG", packet) + pixels,
        "b.tif": photo("TIFF", packet) + pixels,
        "c.dng": struct.pack("<2sHI", b"II", 42, 8 + len(pixels) + len(packet)) + pixels + packet + directory,
    }
    found = read(open_source(str(write(tmp_path, files))))
    assert [photo.given for photo in found.values()] == [("rose",)] * 3
    assert read_bytes["a.jpg"] == read_bytes["b.tif"] == 1 << 20
    assert read_bytes["c.dng"] > 3 << 20, "its directory is behind its pixels"


def test_case_and_composition_do_not_matter():
    assert folded("CAFE\u0301") == folded("caf\u00e9") and folded("Stra\u00dfe") == folded("STRASSE")


def test_many_photos_are_read_by_processes_in_order(tmp_path):
    files = {f"{number:04d}.jpg": photo("JPEG", xmp(f"word {number}")) for number in range(300)}
    files |= {f"{number:04d}.xmp": xmp(f"sidecar {number}") for number in range(0, 300, 3)}
    files["0100.jpg"] = photo("JPEG", xmp("rose")[:-5])
    found = list(read(open_source(str(write(tmp_path, files)))).values())
    for number, each in enumerate(found):
        expected = [f"sidecar {number}"] if number % 3 == 0 else []
        assert list(each.given) == expected + ([f"word {number}"] if number != 100 else [])
        assert bool(each.problems) == (number == 100)
