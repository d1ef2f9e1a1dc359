"""Manifests as someone may write them who wants a run to read other files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from flowers_batch.dataset.growth import shard_of
from flowers_batch.dataset.manifest_part import MANIFEST_SCHEMA, PART_KEY
from flowers_batch.dataset.shard import shard_to_json
from flowers_batch.sources.images import path_bytes


def doctor_row(run: Path, row: int = 0, **values: Any) -> None:
    """Change a row of a manifest of one part and one shard; digest and order fit again, and the results are deleted."""
    part = run / "manifest" / "part-000000.parquet"
    table = pq.read_table(part)
    rows = table.to_pylist()
    rows[row] |= values
    content = json.loads(pq.read_metadata(part).metadata[PART_KEY])
    if content["in_path_order"]:
        rows.sort(key=lambda each: path_bytes(each["path"]))
    changed = pa.Table.from_pylist(rows, MANIFEST_SCHEMA)
    content["shards"] = [shard_to_json(shard_of(0, changed))]
    with pq.ParquetWriter(part, MANIFEST_SCHEMA, write_page_checksum=True) as writer:
        writer.write_table(changed, row_group_size=len(rows))
        writer.add_key_value_metadata({PART_KEY: json.dumps(content).encode()})
    (run / "_SUCCESS").unlink(missing_ok=True)
    shutil.rmtree(run / "codes", ignore_errors=True)
