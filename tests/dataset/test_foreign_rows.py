"""Manifests with rows that no listing gives, or that changed while a run reads them."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from doctored import doctor_row
from listings import PATHS, Listing

from flowers_batch.dataset.growth import write_manifest
from flowers_batch.dataset.manifest import read_manifest, read_rows
from flowers_batch.dataset.manifest_part import MANIFEST_SCHEMA
from flowers_batch.errors import InputError
from flowers_batch.sources.images import Image
from flowers_batch.storage.opening import open_folder


@pytest.fixture
def run(tmp_path):
    """A folder with a manifest of one shard."""
    write_manifest(open_folder(tmp_path), Listing([Image(path) for path in PATHS]), 100, "run")
    return tmp_path


def test_rows_that_are_not_those_of_the_digest_are_refused(run):
    (shard,) = read_manifest(open_folder(run)).shards
    assert len(read_rows(open_folder(run), shard)) == shard.images
    for change in ({"path": f"{PATHS[3]}x"}, {"offset": 1}, {"bytes": 5}, {"attempt": 1}, {"action": "missing"}):
        doctor_row(run, 3, **change)
        with pytest.raises(InputError, match=r"part-000000\.parquet is missing or damaged"):
            read_rows(open_folder(run), shard)
        doctor_row(run, 3, path=PATHS[3], offset=None, bytes=0, attempt=0, action="add")
    assert len(read_rows(open_folder(run), shard)) == shard.images


@pytest.mark.parametrize("change", [{"bytes": -1}, {"action": "other"}, {"mtime": 2**62}, {"path": b"\xff"}])
def test_rows_with_impossible_values_are_refused(run, change):
    part = run / "manifest" / "part-000000.parquet"
    ((name, value),) = change.items()
    place = MANIFEST_SCHEMA.get_field_index(name)
    with pq.ParquetFile(part) as file:
        table, metadata = file.read(), file.metadata.metadata
    type_ = {"mtime": pa.int64(), "path": pa.binary()}.get(name, table.schema.types[place])
    column = pa.array([value] * len(table), type_)
    column = column.view(table.schema.types[place]) if name in ("mtime", "path") else column
    with pq.ParquetWriter(part, MANIFEST_SCHEMA) as writer:
        writer.write_table(table.set_column(place, MANIFEST_SCHEMA.field(place), column))
        writer.add_key_value_metadata(metadata)
    (shard,) = read_manifest(open_folder(run)).shards
    with pytest.raises(InputError, match=r"part-000000\.parquet is missing or damaged"):
        read_rows(open_folder(run), shard)
