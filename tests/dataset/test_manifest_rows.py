"""The digest of what a shard's file is made from."""

from __future__ import annotations

import hashlib
import random
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
from helpers import START, listed
from listings import PATHS, Listing

from flowers_batch.dataset.growth import write_manifest
from flowers_batch.dataset.listing_differences import new_rows
from flowers_batch.dataset.manifest_part import MANIFEST_SCHEMA
from flowers_batch.dataset.manifest_rows import inputs_digest_of
from flowers_batch.sources.images import EPOCH, Image, batches_of
from flowers_batch.storage.opening import open_folder


def inputs_of(tmp_path: Path, images: list[Image]) -> str:
    return write_manifest(open_folder(tmp_path), Listing(images), 100, "run").shards[0].inputs_digest


def test_inputs_digest_depends_on_path_size_and_time_of_each_image(tmp_path):
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


def test_inputs_digest_does_not_depend_on_run_or_shard(tmp_path):
    images = listed(PATHS)
    one = write_manifest(open_folder(tmp_path / "1"), Listing(images), 9, "one")
    other = write_manifest(open_folder(tmp_path / "2"), Listing(images[9:]), 9, "other")
    assert [shard.inputs_digest for shard in one.shards][1:] == [shard.inputs_digest for shard in other.shards]


def test_inputs_digest_separates_the_paths_of_rows(tmp_path):
    assert inputs_of(tmp_path, listed(["a", "b,c"])) != inputs_of(tmp_path, listed(["a,b", "c"]))


def some_rows(count: int = 40) -> pa.Table:
    """Manifest rows with nulls among them, and text of several lengths."""
    draw = random.Random(1)
    images = [
        Image(f"ü{number}{'x' * draw.randrange(9)}.jpg", number, START, draw.choice([None, "t.tar"]), offset)
        for number, offset in enumerate(draw.choices([None, 0, 7], k=count))
    ]
    return pa.Table.from_batches([new_rows(batch) for batch in batches_of(images)])


def test_inputs_digest_ignores_chunks_and_layout_of_nulls():
    rows = some_rows()
    inputs = inputs_digest_of(rows)
    for size in (1, 3, 7):
        slices = [rows.slice(start, size) for start in range(0, len(rows), size)]
        assert inputs_digest_of(pa.concat_tables(slices)) == inputs
    longer = pa.concat_tables([rows.slice(0, 5), rows, rows.slice(3)]).combine_chunks()
    assert inputs_digest_of(longer.slice(5, len(rows))) == inputs
    assert inputs_digest_of(pa.Table.from_pylist(rows.to_pylist(), rows.schema)) == inputs
    bitmap = pa.py_buffer(b"\xff" * 5)  # where no value is null, there may be a buffer that says so, or none
    sizes = pa.Array.from_buffers(pa.int64(), 40, [bitmap, rows["bytes"].combine_chunks().buffers()[1]])
    assert inputs_digest_of(rows.set_column(4, rows.schema.field(4), sizes)) == inputs
    hidden = pa.array(["left over" if source is None else source for source in rows["source"].to_pylist()])
    validity = rows["source"].combine_chunks().buffers()[0]
    hidden = pa.Array.from_buffers(pa.string(), 40, [validity, *hidden.buffers()[1:]])
    assert inputs_digest_of(rows.set_column(2, rows.schema.field(2), hidden)) == inputs


def test_inputs_digest_equals_its_definition():
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
    assert inputs_digest_of(rows) == whole.hexdigest()


def test_inputs_digest_depends_on_row_and_column_of_a_value():
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
        [Image("a", 1, EPOCH, None, 0), Image("b", 2), images[2]],  # null is not zero
        [Image("a", 1, EPOCH, ""), Image("b", 2), images[2]],
        images[:2],
        [*images, Image("")],
    ]
    tables = [pa.Table.from_batches(map(new_rows, batches_of(some))) for some in moved]
    tables.append(tables[0].set_column(6, MANIFEST_SCHEMA.field("attempt"), pa.array([0, 1, 0], pa.int32())))
    assert len({inputs_digest_of(table) for table in tables}) == len(tables)
