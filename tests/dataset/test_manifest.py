"""The manifest: which image is in which shard."""

from __future__ import annotations

import errno
import itertools
import re
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import START, listed, source, store, write
from listings import COUNTS, PATHS, Listing, grown, parts, paths_of

from flowers_batch.dataset.growth import grow_manifest, write_manifest
from flowers_batch.dataset.manifest import (
    copy_manifest,
    find_images,
    read_manifest,
    read_rows,
    rows_in_path_order,
)
from flowers_batch.dataset.manifest_part import PART_KEY
from flowers_batch.errors import InputError, RunError
from flowers_batch.sources.images import Image, batches_of, images_of, path_bytes
from flowers_batch.storage import retries
from flowers_batch.storage.folder import Folder
from flowers_batch.storage.opening import open_folder


@pytest.mark.parametrize("size", [1, 5, 9, 26, 27, 28, 1000])
def test_every_image_is_in_exactly_one_shard_in_order(folder, size):
    manifest = write_manifest(folder, Listing(listed(PATHS)), size, "run")
    shards = paths_of(folder, manifest)
    assert [path for shard in shards for path in shard] == PATHS
    assert all(len(shard) == size for shard in shards[:-1]) and 1 <= len(shards[-1]) <= size
    assert [shard.images for shard in manifest.shards] == list(map(len, shards))
    assert [shard.number for shard in manifest.shards] == list(range(len(shards)))
    assert manifest.images == len(PATHS)


def test_rows_contain_all_that_was_listed(folder):
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
                pa.field("action", pa.string(), False),
            ]
        )
    )
    assert [Image(row["path"], row["bytes"], row["mtime"]) for row in rows.to_pylist()] == images


@pytest.mark.parametrize("size", [1, 4, 7, 13])
def test_manifest_of_several_parts_is_read_as_it_was_written(folder, size):
    manifest = write_manifest(folder, Listing(listed(PATHS), ignored=3), size, "run", shards_per_part=2)
    assert len(parts(folder)) == -(-len(manifest.shards) // 2) > 1
    assert read_manifest(folder) == manifest
    assert manifest.listing.left_out.ignored == 3
    assert list(itertools.chain(*paths_of(folder, manifest))) == PATHS


def test_manifest_without_its_last_part_is_none(folder):
    write_manifest(folder, Listing(listed(PATHS)), 9, "run", shards_per_part=2)  # 3 shards, 2 parts
    folder.delete(f"manifest/{parts(folder)[-1]}")
    assert read_manifest(folder) is None


def test_manifest_without_a_part_in_the_middle_is_damaged(folder):
    write_manifest(folder, Listing(listed(PATHS)), 9, "run", shards_per_part=1)
    folder.delete("manifest/part-000001.parquet")
    with pytest.raises(InputError, match=r"part-000001\.parquet is missing or damaged"):
        read_manifest(folder)


def test_manifest_that_does_not_exist_is_none(folder):
    assert read_manifest(folder) is None


def test_truncated_or_foreign_part_is_refused(tmp_path):
    folder = open_folder(tmp_path)
    write_manifest(folder, Listing(listed(PATHS)), 9, "run")
    part = tmp_path / "manifest" / "part-000000.parquet"
    whole = part.read_bytes()
    for content in (b"", whole[: len(whole) // 2], whole[:-1]):
        part.write_bytes(content)
        with pytest.raises(InputError, match="missing or damaged"):
            read_manifest(folder)
    pq.write_table(pa.table({"x": [1]}), part)
    with pytest.raises(InputError, match="missing or damaged"):
        read_manifest(folder)


def test_damaged_rows_are_refused(tmp_path):
    folder = open_folder(tmp_path)
    manifest = write_manifest(folder, Listing(listed(PATHS)), 9, "run")
    part = tmp_path / "manifest" / "part-000000.parquet"
    whole = part.read_bytes()
    start = pq.read_metadata(part).row_group(1).column(1).data_page_offset
    part.write_bytes(whole[: start + 30] + bytes(20) + whole[start + 50 :])
    with pytest.raises(InputError, match=r"part-000000\.parquet is missing or damaged"):
        paths_of(folder, manifest)


def test_disk_error_is_not_mistaken_for_a_killed_listing(folder, monkeypatch):
    write_manifest(folder, Listing(listed(PATHS)), 9, "run")

    def fails(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(retries, "RETRY_SECONDS", ())
    monkeypatch.setattr(pq, "read_metadata", fails)
    with pytest.raises(RunError, match=r"part-000000\.parquet cannot be read \(Input/output error\): check the disk"):
        read_manifest(folder)


def test_store_error_is_not_mistaken_for_a_damaged_part(folder, monkeypatch):
    manifest = write_manifest(folder, Listing(listed(PATHS)), 9, "run")

    def fails(*_):
        raise OSError("AWS Error NETWORK_CONNECTION during GetObject operation: curlCode: 28")

    monkeypatch.setattr(retries, "RETRY_SECONDS", ())
    monkeypatch.setattr(Folder, "open", fails)
    for read in (lambda: read_manifest(folder), lambda: read_rows(folder, manifest.shards[0])):
        with pytest.raises(RunError, match=r"part-000000\.parquet cannot be read \(AWS .*\): check the connection"):
            read()


def test_part_that_disappears_during_a_run_is_named(folder):
    manifest = write_manifest(folder, Listing(listed(PATHS)), 9, "run")
    folder.delete("manifest/part-000000.parquet")
    with pytest.raises(RunError, match=r"part-000000\.parquet no longer exists: restore the folder, and run the same"):
        read_rows(folder, manifest.shards[0])


def test_copying_a_manifest_names_the_part_that_cannot_be_read(folder, tmp_path, monkeypatch):
    manifest = write_manifest(folder, Listing(listed(PATHS)), 9, "run")

    def fails(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(retries, "RETRY_SECONDS", ())
    monkeypatch.setattr(Folder, "open", fails)
    message = rf"^{re.escape(folder.url_of('manifest/part-000000.parquet'))} cannot be read \(Input/output error\)"
    with pytest.raises(RunError, match=message):
        copy_manifest(folder, open_folder(tmp_path / "target"), manifest)


class Killed(Listing):
    """A listing that ends after 20 images, as if its process had died."""

    def batches(self):
        yield from Listing(self._images[:20]).batches()
        raise KeyboardInterrupt


def test_killed_listing_leaves_no_complete_manifest(folder):
    with pytest.raises(KeyboardInterrupt):
        write_manifest(folder, Killed(listed(PATHS)), 5, "run", shards_per_part=1)
    assert parts(folder) == ["part-000000.parquet", "part-000001.parquet", "part-000002.parquet"]
    assert read_manifest(folder) is None
    manifest = write_manifest(folder, Listing(listed(PATHS)), 5, "next", shards_per_part=1)
    assert read_manifest(folder) == manifest


def test_parts_of_two_runs_are_no_complete_manifest(folder):
    write_manifest(folder, Listing(listed(PATHS)), 5, "first", shards_per_part=1)
    with pytest.raises(KeyboardInterrupt):
        write_manifest(folder, Killed(listed(PATHS, size=9)), 5, "second", shards_per_part=1)
    assert len(parts(folder)) == 6
    assert read_manifest(folder) is None


def test_manifest_counts_ignored_files(tmp_path):
    write(tmp_path / "photos", {"a.jpg": b"1", "b/c.png": b"12", "b/notes.txt": b""})
    folder = open_folder(tmp_path / "run")
    manifest = write_manifest(folder, source(tmp_path / "photos"), 10, "run")
    assert paths_of(folder, manifest) == [["a.jpg", "b/c.png"]]
    assert read_manifest(folder).listing.left_out.ignored == 1


def test_manifest_that_another_run_overwrote_is_refused(folder):

    class Raced(Listing):
        def batches(self):
            yield from super().batches()
            write_manifest(folder, Listing(self._images), 5, "other", shards_per_part=1)

    with pytest.raises(InputError, match="is being written by another run"):
        write_manifest(folder, Raced(listed(PATHS)), 5, "mine", shards_per_part=1)


def test_folder_without_images_is_refused(tmp_path):
    write(tmp_path / "photos", {"notes.txt": b"", "b/readme.md": b""})
    folder = open_folder(tmp_path / "run")
    with pytest.raises(
        InputError,
        match=r"^There are no images in /.*/photos \(ignored: 1 \.md, 1 \.txt\): name .* end in jpg, .*srw\.$",
    ):
        write_manifest(folder, source(tmp_path / "photos"), 10, "run")
    assert read_manifest(folder) is None


class Large(Listing):
    """A listing of many images that are never all in memory."""

    ROWS = 4000

    def batches(self):
        for number in range(100):
            names = [f"{number:03d}/{'x' * 50}{name:04d}.jpg" for name in range(self.ROWS)]
            yield from batches_of([Image(name, 1, START) for name in names])
            self.most = max(getattr(self, "most", 0), pa.total_allocated_bytes())


@pytest.mark.nightly
def test_memory_does_not_grow_with_the_images(tmp_path):
    """Their columns take 35 MB, and as Python's objects they take 100 MB."""
    folder, listing, before = open_folder(tmp_path), Large([]), pa.total_allocated_bytes()
    tracemalloc.start()
    try:
        manifest = write_manifest(folder, listing, 1000, "run")
        assert listing.most - before < 4 << 20
        listing.most = 0
        assert grow_manifest(folder, manifest, listing, 1000, "next")[1] == dict.fromkeys(COUNTS, 0)
        assert listing.most - before < 6 << 20
        assert tracemalloc.get_traced_memory()[1] < 12 << 20
    finally:
        tracemalloc.stop()
    assert manifest.images == 400_000


def test_copied_manifest_equals_the_original(tmp_path):
    here, there = open_folder(tmp_path / "here"), store(tmp_path / "there")
    manifest = write_manifest(here, Listing(listed(PATHS), ignored=2), 5, "run", shards_per_part=2)
    copy_manifest(here, there, manifest)
    assert read_manifest(there) == manifest
    assert paths_of(there, manifest) == paths_of(here, manifest)


def test_manifest_carries_the_runs_id_in_each_part(tmp_path):
    folder = open_folder(tmp_path)
    write_manifest(folder, Listing(listed(PATHS)), 9, "this run", shards_per_part=1)
    for number, name in enumerate(parts(folder)):
        content = pq.read_metadata(tmp_path / "manifest" / name).metadata[PART_KEY]
        assert b'"runs": ["this run"]' in content
        assert (b'"last": true' in content) == (number == 2)


def test_many_generations_are_merged_outside_memory(folder):
    images = listed(PATHS)
    write_manifest(folder, Listing(images[::3]), 4, "run")
    grown(folder, sorted([*images[::3], *images[1::3]], key=lambda image: path_bytes(image.path)))
    grown(folder, images)
    found = rows_in_path_order(folder, read_manifest(folder), max_merged=2)
    assert [image for rows in found for image in images_of(rows)] == images


def test_images_are_found_by_their_paths(folder):
    images = listed(PATHS)
    write_manifest(folder, Listing(images), 4, "run")
    assert find_images(folder, {PATHS[0], PATHS[20], "nowhere"}) == {PATHS[0]: images[0], PATHS[20]: images[20]}


def test_manifest_that_is_not_in_the_order_it_states_is_refused(folder):
    shuffled = Listing(listed(PATHS)[::-1])
    assert shuffled.in_path_order  # which it is not
    write_manifest(folder, shuffled, 4, "run")
    with pytest.raises(InputError, match="does not have its photos in the order that it says"):
        list(rows_in_path_order(folder, read_manifest(folder)))


def test_row_group_of_the_manifest_without_rows_is_damaged(tmp_path):
    folder = open_folder(tmp_path)
    write_manifest(folder, Listing(listed(PATHS)), 27, "run")
    (part,) = (tmp_path / "manifest").iterdir()
    content, rows = pq.read_metadata(part).metadata[PART_KEY], pq.read_table(part).slice(0, 0)
    with pq.ParquetWriter(part, rows.schema.remove_metadata()) as writer:
        writer.write_table(rows)
        writer.add_key_value_metadata({PART_KEY: content})
    with pytest.raises(InputError, match="is missing or damaged"):
        read_rows(folder, read_manifest(folder).shards[0])
