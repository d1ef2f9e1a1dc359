"""Which shards are complete, and which of their rows can be reused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
from helpers import listed
from listings import PATHS, Listing, grown

from flowers_batch.dataset.completeness import completed, reusable_rows
from flowers_batch.dataset.growth import write_manifest
from flowers_batch.dataset.manifest import (
    read_rows,
)
from flowers_batch.dataset.schema import CODES, codes_schema
from flowers_batch.dataset.shard import Shard
from flowers_batch.dataset.shard_file import Footer, write_shard
from flowers_batch.storage.folder import Folder


def finish(folder: Folder, expected: Shard, /, images: int | None = None, at: int | None = None, **changes) -> None:
    """Write a shard of failed rows as its manifest expects it, except for the changes; `at` is its file's number."""
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


def test_shard_is_complete_only_if_its_footer_is_as_expected(folder):
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


def test_footers_of_complete_shards_are_returned(folder):
    manifest = write_manifest(folder, Listing(listed(PATHS)), 20, "run")
    finish(folder, manifest.shards[1])
    found = completed(folder, CODES, manifest, "print")
    assert found == {
        1: Footer("print", 1, manifest.shards[1].inputs_digest, 0, 7, {"missing": 7}, found[1].content_digest)
    }


def encoded_shard(folder: Folder, shard: Shard, mark: float, inputs_digest: str | None = None) -> None:
    """Write a shard's file as an encoder does, with a mark in its codes."""
    schema = codes_schema(2, "float16")
    paths = read_rows(folder, shard)["path"].to_pylist()
    row = dict.fromkeys(schema.names) | {"status": "ok", "code": [mark, 0], "sha256": bytes(32), "phash": 0}
    rows = [row | {"path": path} for path in paths]
    rows[0] |= {"status": "failed", "reason": "missing", "code": None}
    footer = Footer("print", shard.number, inputs_digest or shard.inputs_digest, 0, 0)
    write_shard(folder, CODES, schema, [pa.RecordBatch.from_pylist(rows, schema)], footer)


def kept(folder: Folder, shard: Shard, fingerprint: str = "print") -> dict[str, object]:
    schema = codes_schema(2, "float16")
    paths, batches = reusable_rows(folder, CODES, shard, schema, fingerprint)
    rows = pa.Table.from_batches(batches, schema)
    in_file = read_rows(folder, shard)["path"].to_pylist()
    assert rows["path"].to_pylist() == [path for path in in_file if path in paths.to_pylist()]
    return dict(zip(rows["path"].to_pylist(), rows["code"].to_pylist(), strict=True))


def test_unchanged_rows_are_reused_from_any_earlier_generation(folder):
    images = listed(PATHS[:5])
    first = write_manifest(folder, Listing(images), 10, "run").shards[0]
    encoded_shard(folder, first, 1)
    assert kept(folder, first) == {}  # nothing changed: the caller wants all rows made again
    images[1] = replace(images[1], bytes=99)
    second = grown(folder, images)[0].shards[0]
    assert kept(folder, second).keys() == {PATHS[0], *PATHS[2:5]}
    assert kept(folder, second)[PATHS[0]] is None and kept(folder, second)[PATHS[2]] == [1, 0]
    assert kept(folder, second, "other") == {}
    images[2] = replace(images[2], bytes=99)  # and again, before the shard was rewritten
    third = grown(folder, images[:4], prune=True)[0].shards[0]
    assert kept(folder, third).keys() == {PATHS[0], PATHS[3]}
    encoded_shard(folder, third, 3)
    images[3] = replace(images[3], bytes=99)
    fourth = grown(folder, images[:4])[0].shards[0]
    assert kept(folder, fourth).keys() == set(PATHS[:3])
    encoded_shard(folder, fourth, 4, inputs_digest="0" * 64)
    assert kept(folder, fourth) == {}  # a file of a generation that the manifest does not have
