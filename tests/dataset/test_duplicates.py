"""Counting images with equal bytes."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pytest
from dataset_rows import LIKE, image_row, shard_like
from listings import Listing

from flowers_batch.dataset.duplicates import count_duplicates
from flowers_batch.dataset.listing import listing_of
from flowers_batch.dataset.manifest import Manifest
from flowers_batch.dataset.schema import CODES, codes_schema
from flowers_batch.dataset.shard_file import write_shard
from flowers_batch.storage.opening import open_folder


@pytest.mark.parametrize("max_digests", [2, 1 << 24])
def test_duplicates_count_neither_first_images_nor_failed_rows(tmp_path, max_digests):
    folder, schema = open_folder(tmp_path), codes_schema(1, "float16")
    contents = [["a", "b", None, "a"], ["c", None, "a"], [], ["b"]]
    for number, names in enumerate(contents):
        rows = [image_row(name, None) if name else image_row("x", "missing") for name in names]
        batch = pa.RecordBatch.from_pylist([row | {"code": None} for row in rows], schema)
        write_shard(folder, CODES, schema, [batch], replace(LIKE, shard=number))
    shards = [shard_like(len(names), number) for number, names in enumerate(contents)]
    manifest = Manifest(shards, listing_of(Listing([])), ("run",), (0,), 1, True)
    assert count_duplicates(folder, CODES, manifest, LIKE.fingerprint, max_digests=max_digests) == 3
