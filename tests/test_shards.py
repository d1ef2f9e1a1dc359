from __future__ import annotations

import itertools
import random
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import listed, source, store, write

from flowers_batch import shards as room
from flowers_batch.config import InputError
from flowers_batch.dataset import CODES, Footer, codes_schema, write_shard
from flowers_batch.shards import (
    completed,
    copy_manifest,
    difference,
    read_manifest,
    read_rows,
    write_manifest,
)
from flowers_batch.sources import Image, path_bytes
from flowers_batch.storage import Folder, open_folder

PATHS = [f"{folder}/{number:03d}.jpg" for folder in ("a", "b", "ü") for number in range(9)]  # 27


class Listing:
    """A source that lists what it is told."""

    url = "/photos"

    def __init__(self, images: list[Image], ignored: int = 0):
        self._images, self.ignored = images, ignored

    def images(self):
        return iter(self._images)


@pytest.fixture(params=["local", "store"])
def folder(request, tmp_path) -> Folder:
    return open_folder(tmp_path / "run") if request.param == "local" else store(tmp_path / "run")


def paths_of(folder: Folder, manifest: room.Manifest) -> list[list[str]]:
    return [read_rows(folder, shard)["path"].to_pylist() for shard in manifest.shards]


def parts(folder: Folder) -> list[str]:
    return folder.names("manifest")


@pytest.mark.parametrize("size", [1, 5, 9, 26, 27, 28, 1000])
def test_every_image_is_in_exactly_one_shard_in_order(folder, size):
    manifest = write_manifest(folder, Listing(listed(PATHS)), size, "run")
    shards = paths_of(folder, manifest)
    assert [path for shard in shards for path in shard] == PATHS
    assert all(len(shard) == size for shard in shards[:-1]) and 1 <= len(shards[-1]) <= size
    assert [shard.images for shard in manifest.shards] == list(map(len, shards))
    assert [shard.number for shard in manifest.shards] == list(range(len(shards)))
    assert manifest.images == len(PATHS)


def test_rows_tell_all_that_was_listed(folder):
    images = listed(["a.jpg", "//bytes/%FF.jpg"], size=2**40)
    manifest = write_manifest(folder, Listing(images), 10, "run")
    rows = read_rows(folder, manifest.shards[0])
    assert rows.schema.equals(
        pa.schema(
            [
                pa.field("shard", pa.int32(), False),
                pa.field("path", pa.string(), False),
                pa.field("source", pa.string()),
                pa.field("offset", pa.int64()),
                pa.field("bytes", pa.int64(), False),
                pa.field("mtime", pa.timestamp("us", "UTC"), False),
                pa.field("attempt", pa.int32(), False),
            ]
        )
    )
    assert [Image(row["path"], row["bytes"], row["mtime"]) for row in rows.to_pylist()] == images


@pytest.mark.parametrize("size", [1, 4, 7, 13])
def test_manifest_of_several_parts_is_read_as_it_was_written(folder, size, monkeypatch):
    monkeypatch.setattr(room, "_SHARDS_A_PART", 2)
    manifest = write_manifest(folder, Listing(listed(PATHS), ignored=3), size, "run")
    assert len(parts(folder)) == -(-len(manifest.shards) // 2) > 1
    assert read_manifest(folder) == manifest
    assert manifest.ignored == 3
    assert list(itertools.chain(*paths_of(folder, manifest))) == PATHS


def test_manifest_without_its_last_part_is_none(folder, monkeypatch):
    monkeypatch.setattr(room, "_SHARDS_A_PART", 2)
    write_manifest(folder, Listing(listed(PATHS)), 9, "run")  # 3 shards, 2 parts
    folder.delete(f"manifest/{parts(folder)[-1]}")
    assert read_manifest(folder) is None


def test_manifest_without_a_part_in_the_middle_is_none(folder, monkeypatch):
    monkeypatch.setattr(room, "_SHARDS_A_PART", 1)
    write_manifest(folder, Listing(listed(PATHS)), 9, "run")
    folder.delete("manifest/part-000001.parquet")
    assert read_manifest(folder) is None


def test_no_manifest_is_none(folder):
    assert read_manifest(folder) is None


def test_cut_or_foreign_part_is_no_manifest(tmp_path):
    folder = open_folder(tmp_path)
    write_manifest(folder, Listing(listed(PATHS)), 9, "run")
    part = tmp_path / "manifest" / "part-000000.parquet"
    whole = part.read_bytes()
    for content in (b"", whole[: len(whole) // 2], whole[:-1]):
        part.write_bytes(content)
        assert read_manifest(folder) is None
    pq.write_table(pa.table({"x": [1]}), part)
    assert read_manifest(folder) is None


class Killed(Listing):
    """A listing that ends after 20 images, as the death of a process ends it."""

    def images(self):
        yield from self._images[:20]
        raise KeyboardInterrupt


def test_killed_listing_leaves_no_whole_manifest(folder, monkeypatch):
    monkeypatch.setattr(room, "_SHARDS_A_PART", 1)
    with pytest.raises(KeyboardInterrupt):
        write_manifest(folder, Killed(listed(PATHS)), 5, "run")
    assert parts(folder) == ["part-000000.parquet", "part-000001.parquet", "part-000002.parquet"]
    assert read_manifest(folder) is None
    manifest = write_manifest(folder, Listing(listed(PATHS)), 5, "next")
    assert read_manifest(folder) == manifest


def test_parts_of_two_runs_are_no_whole_manifest(folder, monkeypatch):
    monkeypatch.setattr(room, "_SHARDS_A_PART", 1)
    write_manifest(folder, Listing(listed(PATHS)), 5, "first")
    with pytest.raises(KeyboardInterrupt):
        write_manifest(folder, Killed(listed(PATHS, size=9)), 5, "second")
    assert len(parts(folder)) == 6
    assert read_manifest(folder) is None


def test_listing_of_a_folder_is_written_with_what_it_ignored(tmp_path):
    write(tmp_path / "photos", {"a.jpg": b"1", "b/c.png": b"12", "b/notes.txt": b""})
    folder = open_folder(tmp_path / "run")
    manifest = write_manifest(folder, source(tmp_path / "photos"), 10, "run")
    assert paths_of(folder, manifest) == [["a.jpg", "b/c.png"]]
    assert read_manifest(folder).ignored == 1


def test_manifest_that_another_run_overwrote_is_refused(folder, monkeypatch):
    monkeypatch.setattr(room, "_SHARDS_A_PART", 1)

    class Raced(Listing):
        def images(self):
            yield from self._images
            write_manifest(folder, Listing(self._images), 5, "other")

    with pytest.raises(InputError, match="is being written by another run"):
        write_manifest(folder, Raced(listed(PATHS)), 5, "mine")


def test_folder_without_images_is_refused(tmp_path):
    write(tmp_path / "photos", {"notes.txt": b"", "b/readme.md": b""})
    folder = open_folder(tmp_path / "run")
    with pytest.raises(
        InputError, match=r"^There are no images in /.*photos: 2 files are there, .* ends in jpg, .*avif\.$"
    ):
        write_manifest(folder, source(tmp_path / "photos"), 10, "run")
    assert read_manifest(folder) is None


def inputs_of(tmp_path: Path, images: list[Image]) -> str:
    return write_manifest(open_folder(tmp_path), Listing(images), 100, "run").shards[0].inputs


def test_inputs_change_with_path_size_and_time_of_any_image(tmp_path):
    images = listed(["a.jpg", "b.jpg", "c.jpg"])
    variants = [images, images[:2], images[1:], [*images, listed(["d.jpg"])[0]]]
    for number, image in enumerate(images):
        for change in (
            {"path": image.path.replace("jpg", "JPG")},
            {"bytes": image.bytes + 1},
            {"mtime": image.mtime + timedelta(microseconds=1)},
        ):
            variants.append([*images[:number], replace(image, **change), *images[number + 1 :]])
    assert len({inputs_of(tmp_path, variant) for variant in variants}) == len(variants)


def test_inputs_of_equal_images_are_equal_whatever_the_run_and_the_shard(tmp_path):
    images = listed(PATHS)
    one = write_manifest(open_folder(tmp_path / "1"), Listing(images), 9, "one")
    other = write_manifest(open_folder(tmp_path / "2"), Listing(images[9:]), 9, "other")
    assert [shard.inputs for shard in one.shards][1:] == [shard.inputs for shard in other.shards]


def test_paths_cannot_be_shifted_from_one_row_to_the_next_unnoticed(tmp_path):
    assert inputs_of(tmp_path, listed(["a", "b,c"])) != inputs_of(tmp_path, listed(["a,b", "c"]))


def finish(
    folder: Folder, expected: room.Shard, /, images: int | None = None, at: int | None = None, **changes
) -> None:
    """Writes a shard of failed rows, as its manifest expects it but for the changes; `at` is its file's number."""
    schema = codes_schema(2, "float16")
    row = dict.fromkeys(schema.names) | {"path": "x", "status": "failed", "reason": "missing"}
    rows = [row] * (expected.images if images is None else images)
    footer = replace(Footer("print", expected.number, expected.inputs, 0, 0), **changes)
    write_shard(folder, CODES, schema, [pa.RecordBatch.from_pylist(rows, schema)], footer)
    if at is not None:
        written = f"codes/shard-{footer.shard:06d}.parquet"
        with folder.open(written) as file, folder.publish(f"codes/shard-{at:06d}.parquet") as scratch:
            Path(scratch).write_bytes(file.read())
        folder.delete(written)


def test_shard_is_complete_only_when_all_that_its_footer_says_is_expected(folder):
    manifest = write_manifest(folder, Listing(listed(PATHS)), 4, "run")
    shards = manifest.shards  # 7
    finish(folder, shards[0])
    finish(folder, shards[1], fingerprint="other")
    finish(folder, shards[2], inputs=shards[3].inputs)
    finish(folder, shards[3], images=3)
    finish(folder, shards[4], shard=6, at=4)
    finish(folder, shards[5])
    assert completed(folder, CODES, manifest, "print").keys() == {0, 5}
    assert completed(folder, CODES, manifest, "other").keys() == {1}
    assert completed(folder, "predictions", manifest, "print") == {}


def test_footers_of_complete_shards_are_told(folder):
    manifest = write_manifest(folder, Listing(listed(PATHS)), 20, "run")
    finish(folder, manifest.shards[1])
    found = completed(folder, CODES, manifest, "print")
    assert found == {1: Footer("print", 1, manifest.shards[1].inputs, 0, 7, {"missing": 7})}


def test_copied_manifest_is_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "_SHARDS_A_PART", 2)
    here, there = open_folder(tmp_path / "here"), store(tmp_path / "there")
    manifest = write_manifest(here, Listing(listed(PATHS), ignored=2), 5, "run")
    copy_manifest(here, there, manifest)
    assert read_manifest(there) == manifest
    assert paths_of(there, manifest) == paths_of(here, manifest)


def test_equal_listing_does_not_differ(folder):
    manifest = write_manifest(folder, Listing(listed(PATHS)), 4, "run")
    assert difference(folder, manifest, listed(PATHS)) == ""


def test_difference_is_told_in_words(folder):
    images = listed(["b.jpg", "d.jpg", "e.jpg"])
    manifest = write_manifest(folder, Listing(images), 2, "run")
    assert difference(folder, manifest, [listed(["a.jpg"])[0], *images]) == "1 new"
    assert difference(folder, manifest, images[1:]) == "1 gone"
    assert difference(folder, manifest, [replace(images[0], bytes=99), *images[1:]]) == "1 changed"
    later = replace(images[2], mtime=images[2].mtime + timedelta(microseconds=1))
    assert difference(folder, manifest, [*images[:2], later]) == "1 changed"
    assert difference(folder, manifest, [images[0], listed(["c.jpg"])[0], replace(images[1], bytes=9)]) == (
        "1 new, 1 changed, 1 gone"
    )
    assert difference(folder, manifest, []) == "3 gone"


def test_difference_counts_rightly_for_random_listings(tmp_path):
    draw = random.Random(4)
    names = [f"{draw.choice(['a', 'a-b', 'a.b', 'B', 'é', '😀'])}/{number}.jpg" for number in range(40)]
    names += [f"//bytes/{folder}/%FF{number}.jpg" for folder in ("a", "a-b", "%E9", "zz") for number in range(5)]
    names = sorted(set(names), key=path_bytes)
    for trial in range(30):
        before = {name: draw.randint(1, 2) for name in names if draw.random() < 0.6} or {names[0]: 1}
        after = {name: draw.randint(1, 2) for name in names if draw.random() < 0.6}

        def as_listed(sizes: dict[str, int]) -> list[Image]:
            return [replace(listed([name])[0], bytes=size) for name, size in sizes.items()]

        folder = open_folder(tmp_path / str(trial))
        manifest = write_manifest(folder, Listing(as_listed(before)), draw.randint(1, 20), "run")
        counts = {
            "new": len(after.keys() - before.keys()),
            "changed": sum(before[name] != after[name] for name in before.keys() & after.keys()),
            "gone": len(before.keys() - after.keys()),
        }
        expected = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
        assert difference(folder, manifest, as_listed(after)) == expected


def test_manifest_carries_the_runs_id_in_each_part(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "_SHARDS_A_PART", 1)
    folder = open_folder(tmp_path)
    write_manifest(folder, Listing(listed(PATHS)), 9, "this run")
    for number, name in enumerate(parts(folder)):
        content = pq.read_metadata(tmp_path / "manifest" / name).metadata[b"flowers_batch.manifest"]
        assert b'"run": "this run"' in content
        assert (b'"last": true' in content) == (number == 2)
