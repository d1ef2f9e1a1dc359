from __future__ import annotations

import errno
import hashlib
import itertools
import random
import tracemalloc
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import START, listed, source, store, write

from flowers_batch.dataset import growth
from flowers_batch.dataset import manifest as manifest_module
from flowers_batch.dataset.completeness import completed, reusable_rows
from flowers_batch.dataset.growth import grow_manifest, write_manifest
from flowers_batch.dataset.manifest import copy_manifest, find_images, read_manifest, read_rows
from flowers_batch.dataset.schema import CODES, codes_schema
from flowers_batch.dataset.shard_file import Footer, write_shard
from flowers_batch.errors import InputError
from flowers_batch.sources.images import EPOCH, Image, batches_of, images_of, path_bytes
from flowers_batch.storage import retries
from flowers_batch.storage.folder import Folder, open_folder

PATHS = [f"{folder}/{number:03d}.jpg" for folder in ("a", "b", "ü") for number in range(9)]  # 27


class Listing:
    """A source that lists what it is told."""

    url = "/photos"
    root = None
    repeated = 0
    in_path_order = True

    def __init__(self, images: list[Image], ignored: int = 0, batch: int = 6):
        self._images, self.ignored, self._batch = images, ignored, batch

    def batches(self):
        for start in range(0, len(self._images), self._batch):
            yield from batches_of(self._images[start : start + self._batch])


@pytest.fixture(params=["local", "store"])
def folder(request, tmp_path) -> Folder:
    return open_folder(tmp_path / "run") if request.param == "local" else store(tmp_path / "run")


def paths_of(folder: Folder, manifest: manifest_module.Manifest) -> list[list[str]]:
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
                pa.field("action", pa.string(), False),
            ]
        )
    )
    assert [Image(row["path"], row["bytes"], row["mtime"]) for row in rows.to_pylist()] == images


@pytest.mark.parametrize("size", [1, 4, 7, 13])
def test_manifest_of_several_parts_is_read_as_it_was_written(folder, size, monkeypatch):
    monkeypatch.setattr(growth, "_SHARDS_A_PART", 2)
    manifest = write_manifest(folder, Listing(listed(PATHS), ignored=3), size, "run")
    assert len(parts(folder)) == -(-len(manifest.shards) // 2) > 1
    assert read_manifest(folder) == manifest
    assert manifest.ignored == 3
    assert list(itertools.chain(*paths_of(folder, manifest))) == PATHS


def test_manifest_without_its_last_part_is_none(folder, monkeypatch):
    monkeypatch.setattr(growth, "_SHARDS_A_PART", 2)
    write_manifest(folder, Listing(listed(PATHS)), 9, "run")  # 3 shards, 2 parts
    folder.delete(f"manifest/{parts(folder)[-1]}")
    assert read_manifest(folder) is None


def test_manifest_without_a_part_in_the_middle_is_damaged(folder, monkeypatch):
    monkeypatch.setattr(growth, "_SHARDS_A_PART", 1)
    write_manifest(folder, Listing(listed(PATHS)), 9, "run")
    folder.delete("manifest/part-000001.parquet")
    with pytest.raises(InputError, match=r"part-000001\.parquet is missing or damaged"):
        read_manifest(folder)


def test_no_manifest_is_none(folder):
    assert read_manifest(folder) is None


def test_cut_or_foreign_part_is_refused_since_no_killed_run_leaves_it(tmp_path):
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


def test_rows_that_are_damaged_are_refused(tmp_path):
    folder = open_folder(tmp_path)
    manifest = write_manifest(folder, Listing(listed(PATHS)), 9, "run")
    part = tmp_path / "manifest" / "part-000000.parquet"
    whole = part.read_bytes()
    start = pq.read_metadata(part).row_group(1).column(1).data_page_offset
    part.write_bytes(whole[: start + 30] + bytes(20) + whole[start + 50 :])
    with pytest.raises(InputError, match=r"part-000000\.parquet is missing or damaged"):
        paths_of(folder, manifest)


def test_an_error_of_the_disk_is_never_taken_for_a_killed_listing(folder, monkeypatch):
    write_manifest(folder, Listing(listed(PATHS)), 9, "run")

    def fails(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(retries, "RETRY_SECONDS", ())
    monkeypatch.setattr(pq, "read_metadata", fails)
    with pytest.raises(OSError, match="Input/output"):
        read_manifest(folder)


class Killed(Listing):
    """A listing that ends after 20 images, as the death of a process ends it."""

    def batches(self):
        yield from Listing(self._images[:20]).batches()
        raise KeyboardInterrupt


def test_killed_listing_leaves_no_whole_manifest(folder, monkeypatch):
    monkeypatch.setattr(growth, "_SHARDS_A_PART", 1)
    with pytest.raises(KeyboardInterrupt):
        write_manifest(folder, Killed(listed(PATHS)), 5, "run")
    assert parts(folder) == ["part-000000.parquet", "part-000001.parquet", "part-000002.parquet"]
    assert read_manifest(folder) is None
    manifest = write_manifest(folder, Listing(listed(PATHS)), 5, "next")
    assert read_manifest(folder) == manifest


def test_parts_of_two_runs_are_no_whole_manifest(folder, monkeypatch):
    monkeypatch.setattr(growth, "_SHARDS_A_PART", 1)
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
    monkeypatch.setattr(growth, "_SHARDS_A_PART", 1)

    class Raced(Listing):
        def batches(self):
            yield from super().batches()
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
    return write_manifest(open_folder(tmp_path), Listing(images), 100, "run").shards[0].inputs_digest


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
    assert [shard.inputs_digest for shard in one.shards][1:] == [shard.inputs_digest for shard in other.shards]


def test_paths_cannot_be_shifted_from_one_row_to_the_next_unnoticed(tmp_path):
    assert inputs_of(tmp_path, listed(["a", "b,c"])) != inputs_of(tmp_path, listed(["a,b", "c"]))


def some_rows(count: int = 40) -> pa.Table:
    """Manifest rows with nulls among them, and text of several lengths."""
    draw = random.Random(1)
    images = [
        Image(f"ü{number}{'x' * draw.randrange(9)}.jpg", number, START, draw.choice([None, "t.tar"]), offset)
        for number, offset in enumerate(draw.choices([None, 0, 7], k=count))
    ]
    return pa.Table.from_batches([growth._added(batch) for batch in batches_of(images)])


def test_inputs_are_the_same_however_the_table_is_cut_and_its_nulls_are_kept():
    rows = some_rows()
    inputs = manifest_module._inputs(rows)
    for size in (1, 3, 7):
        slices = [rows.slice(start, size) for start in range(0, len(rows), size)]
        assert manifest_module._inputs(pa.concat_tables(slices)) == inputs
    longer = pa.concat_tables([rows.slice(0, 5), rows, rows.slice(3)]).combine_chunks()
    assert manifest_module._inputs(longer.slice(5, len(rows))) == inputs
    assert manifest_module._inputs(pa.Table.from_pylist(rows.to_pylist(), rows.schema)) == inputs
    bitmap = pa.py_buffer(b"\xff" * 5)  # where no value is null, there may be a buffer that says so, or none
    sizes = pa.Array.from_buffers(pa.int64(), 40, [bitmap, rows["bytes"].combine_chunks().buffers()[1]])
    assert manifest_module._inputs(rows.set_column(4, rows.schema.field(4), sizes)) == inputs
    hidden = pa.array(["left over" if source is None else source for source in rows["source"].to_pylist()])
    validity = rows["source"].combine_chunks().buffers()[0]
    hidden = pa.Array.from_buffers(pa.string(), 40, [validity, *hidden.buffers()[1:]])
    assert manifest_module._inputs(rows.set_column(2, rows.schema.field(2), hidden)) == inputs


def test_inputs_of_a_table_are_what_their_description_says():
    rows = some_rows(3)
    whole = hashlib.sha256((3).to_bytes(8, "little"))
    for name in ("path", "source", "offset", "bytes", "mtime", "attempt"):
        values = rows[name].to_pylist()
        whole.update(bytes(value is not None for value in values))
        if name in ("path", "source"):
            encoded = [(value or "").encode() for value in values]
            whole.update(b"".join(len(value).to_bytes(8, "little") for value in encoded) + b"".join(encoded))
        else:
            numbers = [(v - EPOCH) // timedelta(microseconds=1) if name == "mtime" else v or 0 for v in values]
            whole.update(b"".join(number.to_bytes(8, "little", signed=True) for number in numbers))
    assert manifest_module._inputs(rows) == whole.hexdigest()


def test_inputs_differ_when_a_value_moves_to_another_row_or_column():
    images = [Image("a", 1), Image("b", 2), Image("c", 3, EPOCH, "t", 5)]
    moved = [
        images,
        [Image("a", 2), Image("b", 1), images[2]],
        [Image("b", 1), Image("a", 2), images[2]],
        [Image("a", 1), Image("b", 2, EPOCH, "t", 5), Image("c", 3)],
        [Image("a", 1), Image("b", 2, EPOCH, None, 5), Image("c", 3, EPOCH, "t")],
        [Image("a", 1), Image("b", 2), Image("c", 5, EPOCH, "t", 3)],
        [Image("a", 1), Image("b", 2), Image("ct", 3, EPOCH, "", 5)],
        [Image("a", 1), Image("bc", 2), Image("", 3, EPOCH, "t", 5)],
        [Image("a", 1, EPOCH, None, 0), Image("b", 2), images[2]],  # nothing is not zero
        [Image("a", 1, EPOCH, ""), Image("b", 2), images[2]],
        images[:2],
        [*images, Image("")],
    ]
    tables = [pa.Table.from_batches(map(growth._added, batches_of(some))) for some in moved]
    tables.append(tables[0].set_column(6, manifest_module._SCHEMA.field("attempt"), pa.array([0, 1, 0], pa.int32())))
    assert len({manifest_module._inputs(table) for table in tables}) == len(tables)


class Large(Listing):
    """A listing of many images that are never all in memory."""

    ROWS = 4000

    def batches(self):
        for number in range(100):
            names = [f"{number:03d}/{'x' * 50}{name:04d}.jpg" for name in range(self.ROWS)]
            yield from batches_of([Image(name, 1, START) for name in names])
            self.most = max(getattr(self, "most", 0), pa.total_allocated_bytes())


@pytest.mark.slow
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


def finish(
    folder: Folder, expected: manifest_module.Shard, /, images: int | None = None, at: int | None = None, **changes
) -> None:
    """Writes a shard of failed rows, as its manifest expects it but for the changes; `at` is its file's number."""
    schema = codes_schema(2, "float16")
    row = dict.fromkeys(schema.names) | {"path": "x", "status": "failed", "reason": "missing"}
    rows = [row] * (expected.images if images is None else images)
    footer = replace(Footer("print", expected.number, expected.inputs_digest, 0, 0), **changes)
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
    finish(folder, shards[2], inputs_digest=shards[3].inputs_digest)
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
    assert found == {
        1: Footer("print", 1, manifest.shards[1].inputs_digest, 0, 7, {"missing": 7}, found[1].content_digest)
    }


def test_copied_manifest_is_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(growth, "_SHARDS_A_PART", 2)
    here, there = open_folder(tmp_path / "here"), store(tmp_path / "there")
    manifest = write_manifest(here, Listing(listed(PATHS), ignored=2), 5, "run")
    copy_manifest(here, there, manifest)
    assert read_manifest(there) == manifest
    assert paths_of(there, manifest) == paths_of(here, manifest)


def test_manifest_carries_the_runs_id_in_each_part(tmp_path, monkeypatch):
    monkeypatch.setattr(growth, "_SHARDS_A_PART", 1)
    folder = open_folder(tmp_path)
    write_manifest(folder, Listing(listed(PATHS)), 9, "this run")
    for number, name in enumerate(parts(folder)):
        content = pq.read_metadata(tmp_path / "manifest" / name).metadata[manifest_module._PART_KEY]
        assert b'"runs": ["this run"]' in content
        assert (b'"last": true' in content) == (number == 2)


def grown(folder: Folder, images: list[Image], size: int = 4, run: str = "next", **options):
    return grow_manifest(folder, read_manifest(folder), Listing(images), size, run, **options)


def test_an_equal_listing_changes_nothing_and_success_stays(folder):
    manifest = write_manifest(folder, Listing(listed(PATHS)), 4, "run")
    folder.write_json("_SUCCESS", {})
    assert grown(folder, listed(PATHS)) == (manifest, dict.fromkeys(COUNTS, 0))
    assert read_manifest(folder) == manifest and folder.exists("_SUCCESS")


def test_new_images_go_into_new_shards_and_success_goes(folder):
    images = listed(PATHS)
    before = write_manifest(folder, Listing(images[1::2]), 4, "run")  # 13 images, 4 shards
    folder.write_json("_SUCCESS", {})
    manifest, counts = grown(folder, images, size=10)
    assert manifest == read_manifest(folder) and not folder.exists("_SUCCESS")
    assert manifest.shards[:4] == before.shards and counts["new"] == 14
    assert paths_of(folder, manifest)[4:] == [PATHS[::2][:10], PATHS[::2][10:]]


def test_a_changed_image_changes_its_shard_alone_and_keeps_its_place(folder):
    images = listed(PATHS)
    before = write_manifest(folder, Listing(images), 4, "run")
    images[5] = replace(images[5], bytes=999)
    manifest, counts = grown(folder, images)
    assert counts == dict.fromkeys(COUNTS, 0) | {"changed": 1}
    same = [one.inputs_digest == other.inputs_digest for one, other in zip(before.shards, manifest.shards, strict=True)]
    assert same == [True, False, True, True, True, True, True]
    assert paths_of(folder, manifest) == paths_of(folder, before)
    assert read_rows(folder, manifest.shards[1])["bytes"].to_pylist()[1] == 999


def test_vanished_images_stay_marked_until_they_are_pruned(folder):
    images = listed(PATHS)
    before = write_manifest(folder, Listing(images), 4, "run")
    manifest, counts = grown(folder, images[3:])
    assert (manifest.missing, manifest.images, counts["missing"]) == (3, 27, 3)
    assert [shard.inputs_digest for shard in manifest.shards] == [shard.inputs_digest for shard in before.shards]
    assert grown(folder, images[3:])[1] == dict.fromkeys(COUNTS, 0)
    manifest, counts = grown(folder, images[3:], prune=True)
    assert (manifest.missing, manifest.images, counts["pruned"]) == (0, 24, 3)
    assert paths_of(folder, manifest)[0] == PATHS[3:4]


def test_a_vanished_image_that_is_back_is_asked_for_again_only_if_it_had_failed(folder):
    images = listed(PATHS)
    before = write_manifest(folder, Listing(images), 4, "run")
    grown(folder, images[2:])
    manifest, counts = grown(folder, images, failed=lambda shard: {PATHS[1]})
    assert (manifest.missing, counts["returned"], counts["retried"]) == (0, 1, 1)
    assert read_rows(folder, manifest.shards[0])["attempt"].to_pylist() == [0, 1, 0, 0]
    grown(folder, images[4:])
    manifest, counts = grown(folder, images)
    assert (manifest.missing, counts["returned"], counts["retried"]) == (0, 4, 0)
    assert [shard.inputs_digest for shard in manifest.shards[1:]] == [
        shard.inputs_digest for shard in before.shards[1:]
    ]


def test_a_name_that_leads_nowhere_any_more_is_gone_and_keeps_its_row(folder):
    """A list's entries and links to a disk that is not there: their rows would be lost for nothing."""
    images = listed(PATHS)
    before = write_manifest(folder, Listing(images), 4, "run")
    nowhere = [Image(path) for path in PATHS]
    manifest, counts = grown(folder, [*nowhere[:3], *images[3:]])
    assert (counts["missing"], counts["changed"], manifest.missing) == (3, 0, 3)
    assert [shard.inputs_digest for shard in manifest.shards] == [shard.inputs_digest for shard in before.shards]
    with pytest.raises(InputError, match="There are no images"):
        grown(folder, nowhere)
    assert grown(folder, images)[1]["returned"] == 3


def test_a_list_that_tells_only_names_may_grow(folder):
    nowhere = [Image(path) for path in PATHS]
    write_manifest(folder, Listing(nowhere[:20]), 4, "run")
    manifest, counts = grown(folder, nowhere)
    assert counts == dict.fromkeys(COUNTS, 0) | {"new": 7} and manifest.missing == 0


def test_pruning_refuses_another_archive_in_the_same_place(folder):
    manifest = write_manifest(folder, Listing(listed(PATHS)), 4, "run")
    with pytest.raises(InputError, match="None of the images"):
        grown(folder, listed(["x.jpg", "y.jpg"]), prune=True)
    assert read_manifest(folder) == manifest


def test_another_root_of_a_list_is_another_place(folder):
    listing = Listing(listed(PATHS))
    listing.root = "/a"
    assert write_manifest(folder, listing, 4, "run").source == manifest_module.describe_source(listing) != listing.url


def test_many_generations_are_merged_outside_memory(folder, monkeypatch):
    monkeypatch.setattr(manifest_module, "_GENERATIONS_MERGED", 2)
    images = listed(PATHS)
    write_manifest(folder, Listing(images[::3]), 4, "run")
    grown(folder, sorted([*images[::3], *images[1::3]], key=lambda image: path_bytes(image.path)))
    grown(folder, images)
    found = manifest_module.rows_in_path_order(folder, read_manifest(folder))
    assert [image for rows in found for image in images_of(rows)] == images


def test_a_shard_may_lose_all_its_images(folder):
    images = listed(PATHS)
    write_manifest(folder, Listing(images), 4, "run")
    manifest, _ = grown(folder, images[4:], prune=True)
    assert manifest.shards[0].images == 0 and paths_of(folder, manifest)[0] == []
    assert read_manifest(folder) == manifest


def test_an_archive_that_is_empty_now_is_refused_and_nothing_changes(folder):
    manifest = write_manifest(folder, Listing(listed(PATHS)), 4, "run")
    folder.write_json("_SUCCESS", {})
    with pytest.raises(InputError, match="There are no images in /photos"):
        grown(folder, [], prune=True)
    assert read_manifest(folder) == manifest and folder.exists("_SUCCESS")


def test_another_archive_is_refused_and_one_that_moved_is_not(folder):
    manifest = write_manifest(folder, Listing(listed(PATHS)), 4, "run")
    other = Listing(listed(["x.jpg", "y.jpg"]))
    other.url = "/others"
    with pytest.raises(InputError, match=r"None of the images in /others is one of those .* in /photos"):
        grow_manifest(folder, manifest, other, 4, "next")
    moved = Listing(listed([*PATHS, "ü/x.jpg"]))
    moved.url = "/moved"
    assert grow_manifest(folder, manifest, moved, 4, "next")[1]["new"] == 1


def test_a_generation_that_was_killed_is_listed_again(folder, monkeypatch):
    monkeypatch.setattr(growth, "_SHARDS_A_PART", 1)
    images = listed(PATHS)
    before = write_manifest(folder, Listing(images[:9]), 5, "run")
    publish, published = manifest_module.Folder.publish, []

    def killed(self, name):
        if len(published) == 2:
            raise KeyboardInterrupt
        published.append(name)
        return publish(self, name)

    with monkeypatch.context() as patch:
        patch.setattr(manifest_module.Folder, "publish", killed)
        with pytest.raises(KeyboardInterrupt):
            grown(folder, images, size=3)
    assert read_manifest(folder) == replace(before, is_complete=False)
    manifest, counts = grown(folder, images, size=18, run="third")
    assert read_manifest(folder) == manifest and manifest.is_complete
    assert counts["new"] == 18 and len(parts(folder)) == 3
    assert sorted(itertools.chain(*paths_of(folder, manifest))) == sorted(PATHS)


def test_a_part_that_is_lost_in_the_middle_is_refused(folder):
    """Taken for a killed listing, it would cost all later generations."""
    images = listed(PATHS)
    write_manifest(folder, Listing(images[:9]), 5, "run")
    grown(folder, images[:18])
    grown(folder, images)
    folder.delete("manifest/part-000001.parquet")
    with pytest.raises(InputError, match=r"part-000001\.parquet is missing"):
        read_manifest(folder)


def test_a_killed_generation_that_nothing_is_left_of_is_cleaned_up(folder, monkeypatch):
    monkeypatch.setattr(growth, "_SHARDS_A_PART", 1)
    images = listed(PATHS)
    before = write_manifest(folder, Listing(images[:9]), 5, "run")

    whole = growth._cut
    monkeypatch.setattr(growth, "_cut", lambda *arguments: killed_after(whole(*arguments), 2))
    with pytest.raises(KeyboardInterrupt):
        grown(folder, images, size=3)
    monkeypatch.setattr(growth, "_cut", whole)
    assert not read_manifest(folder).is_complete
    manifest, counts = grown(folder, images[:9])
    assert counts == dict.fromkeys(COUNTS, 0) and manifest == before
    assert read_manifest(folder) == before and len(parts(folder)) == before.parts


def test_a_kill_while_leftovers_are_deleted_leaves_what_can_be_gone_on_with(folder, monkeypatch):
    monkeypatch.setattr(growth, "_SHARDS_A_PART", 1)
    images = listed(PATHS)
    before = write_manifest(folder, Listing(images[:9]), 5, "run")
    whole, delete = growth._cut, Folder.delete
    monkeypatch.setattr(growth, "_cut", lambda *arguments: killed_after(whole(*arguments), 4))
    with pytest.raises(KeyboardInterrupt):
        grown(folder, images, size=3)
    monkeypatch.setattr(growth, "_cut", whole)

    def killed(self, name):
        delete(self, name)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "delete", killed)
        with pytest.raises(KeyboardInterrupt):
            grown(folder, images[:9])
    assert read_manifest(folder) == replace(before, is_complete=False)
    assert grown(folder, images[:9])[0] == before


def killed_after(pieces, count):
    yield from itertools.islice(pieces, count)
    raise KeyboardInterrupt


COUNTS = growth.CHANGES


@pytest.mark.parametrize("in_path_order", [True, False])
@pytest.mark.parametrize("seed", range(2))
def test_generations_of_random_changes_keep_every_image_in_one_shard(tmp_path, monkeypatch, seed, in_path_order):
    """Against a model of the promise: a path keeps its shard while it is in the manifest, and nothing is lost."""
    monkeypatch.setattr(growth, "_SHARDS_A_PART", 3)
    draw = random.Random(seed)
    names = [f"{draw.choice(['a', 'a-b', 'a.b', 'B', 'é', '😀'])}/{number}.jpg" for number in range(60)]
    names += [f"//bytes/{folder}/%FF{number}.jpg" for folder in ("a", "a-b", "%E9", "zz") for number in range(5)]
    names = sorted(set(names), key=path_bytes)
    folder = open_folder(tmp_path)
    model: dict[str, tuple[int, int, bool]] = {}  # size, shard, gone
    for generation in range(9):
        sizes = {name: draw.randint(1, 2) if draw.random() < 0.3 else 1 for name in names if draw.random() < 0.6}
        images = [replace(listed([name])[0], bytes=size) for name, size in sizes.items()]
        if not in_path_order:
            images = [replace(image, source="t.tar", offset=draw.randrange(1000)) for image in images]
            draw.shuffle(images)
        listing, size, prune = Listing(images), draw.randint(1, 20), draw.random() < 0.3
        listing.in_path_order = in_path_order
        expected = dict.fromkeys(COUNTS, 0)
        if generation:
            manifest, counts = grow_manifest(folder, read_manifest(folder), listing, size, "run", prune=prune)
        else:
            manifest, counts = write_manifest(folder, listing, size, "run"), expected | {"new": len(images)}
        assert read_manifest(folder) == manifest
        tables = [read_rows(folder, shard) for shard in manifest.shards]
        found = {
            row["path"]: (row["bytes"], shard.number, row["action"] == "missing")
            for shard, table in zip(manifest.shards, tables, strict=True)
            for row in table.to_pylist()
        }
        assert len(found) == sum(map(len, tables)) == manifest.images
        for path, (old, _, gone) in model.items():
            if path not in sizes:
                expected["pruned"] += prune
                expected["missing"] += not prune and not gone
            elif in_path_order:
                expected["changed"] += old != sizes[path]
                expected["returned"] += old == sizes[path] and gone
        expected["new"] = len(sizes.keys() - model.keys())
        if in_path_order:
            assert counts == expected
        kept = model.keys() if not prune else model.keys() & sizes.keys()
        assert found.keys() == sizes.keys() | kept
        for path, (size, shard, gone) in found.items():
            assert gone == (path not in sizes)
            assert size == sizes.get(path, size)
            assert shard == (model[path][1] if path in model else shard)
        in_order = [
            path for rows in manifest_module.rows_in_path_order(folder, manifest) for path in rows["path"].to_pylist()
        ]
        assert in_order == sorted(found, key=path_bytes)
        model = found


def encoded_shard(folder: Folder, shard: manifest_module.Shard, mark: float, inputs_digest: str | None = None) -> None:
    """A shard's file as an encoder writes it, whose codes tell when it was written."""
    schema = codes_schema(2, "float16")
    paths = read_rows(folder, shard)["path"].to_pylist()
    row = dict.fromkeys(schema.names) | {"status": "ok", "code": [mark, 0]}
    rows = [row | {"path": path} for path in paths]
    rows[0] |= {"status": "failed", "reason": "missing", "code": None}
    footer = Footer("print", shard.number, inputs_digest or shard.inputs_digest, 0, 0)
    write_shard(folder, CODES, schema, [pa.RecordBatch.from_pylist(rows, schema)], footer)


def kept(folder: Folder, shard: manifest_module.Shard, fingerprint: str = "print") -> dict[str, object]:
    schema = codes_schema(2, "float16")
    paths, batches = reusable_rows(folder, CODES, shard, schema, fingerprint)
    rows = pa.Table.from_batches(batches, schema)
    in_file = read_rows(folder, shard)["path"].to_pylist()
    assert rows["path"].to_pylist() == [path for path in in_file if path in paths.to_pylist()]
    return dict(zip(rows["path"].to_pylist(), rows["code"].to_pylist(), strict=True))


def test_rows_that_did_not_change_are_carried_over_from_whichever_state_the_file_has(folder):
    images = listed(PATHS[:5])
    first = write_manifest(folder, Listing(images), 10, "run").shards[0]
    encoded_shard(folder, first, 1)
    assert kept(folder, first) == {}  # nothing changed: whoever asks wants it anew
    images[1] = replace(images[1], bytes=99)
    second = grown(folder, images)[0].shards[0]
    assert kept(folder, second).keys() == {PATHS[0], *PATHS[2:5]}
    assert kept(folder, second)[PATHS[0]] is None and kept(folder, second)[PATHS[2]] == [1, 0]
    assert kept(folder, second, "other") == {}
    images[2] = replace(images[2], bytes=99)  # and again, before the shard was made anew
    third = grown(folder, images[:4], prune=True)[0].shards[0]
    assert kept(folder, third).keys() == {PATHS[0], PATHS[3]}
    encoded_shard(folder, third, 3)
    images[3] = replace(images[3], bytes=99)
    fourth = grown(folder, images[:4])[0].shards[0]
    assert kept(folder, fourth).keys() == set(PATHS[:3])
    encoded_shard(folder, fourth, 4, inputs_digest="0" * 64)
    assert kept(folder, fourth) == {}  # a file of no state that the manifest knows


def test_images_to_be_tried_again_change_their_shards_and_no_others(folder):
    images = listed(PATHS)
    before = write_manifest(folder, Listing(images), 9, "run")
    again = {1: {PATHS[10], PATHS[12], "elsewhere"}}
    failed = {"failed": lambda shard: again.get(shard.number, set())}
    assert grown(folder, images, **failed)[1]["retried"] == 0
    manifest, counts = grown(folder, images, retry=True, **failed)
    assert counts["retried"] == 2
    assert [s.inputs_digest == t.inputs_digest for s, t in zip(before.shards, manifest.shards, strict=True)] == [
        True,
        False,
        True,
    ]
    assert read_rows(folder, manifest.shards[1])["attempt"].to_pylist() == [0, 1, 0, 1, 0, 0, 0, 0, 0]


def test_images_are_found_by_their_paths(folder):
    images = listed(PATHS)
    write_manifest(folder, Listing(images), 4, "run")
    assert find_images(folder, {PATHS[0], PATHS[20], "nowhere"}) == {PATHS[0]: images[0], PATHS[20]: images[20]}
