"""Finished runs' folders, written without a network or Ray."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from itertools import chain
from typing import Any

import pyarrow as pa
from listings import Listing

from flowers_batch.dataset import growth
from flowers_batch.dataset.growth import cut_into_shards
from flowers_batch.dataset.job import Job, write_job
from flowers_batch.dataset.listing import listing_of
from flowers_batch.dataset.listing_differences import new_rows
from flowers_batch.dataset.manifest import Manifest
from flowers_batch.dataset.run_folder import SUCCESS
from flowers_batch.dataset.shard_file import Footer, write_shard
from flowers_batch.runs.summary import Summary
from flowers_batch.sources.images import Image
from flowers_batch.storage.folder import Folder
from flowers_batch.storage.json_files import write_json

_EMPTY = {"int": 0, "float": 0.0, "str": "", "dict[str, Any]": {"count": 0, "first": []}}
EMPTY_SUMMARY: dict[str, Any] = {
    field.name: _EMPTY.get(str(field.type), {} if str(field.type).startswith("dict") else [])
    for field in fields(Summary)
}


def write_run(folder: Folder, job: Job, shards: Sequence[Sequence[pa.RecordBatch]], **summary: Any) -> Manifest:
    """Write a finished run of these shards."""
    paths = [[path for batch in batches for path in batch["path"].to_pylist()] for batches in shards]
    sources = [Listing([Image(path) for path in names]) for names in paths]
    pieces = chain.from_iterable(
        cut_into_shards(map(new_rows, source.batches()), len(paths[number]), number)
        for number, source in enumerate(sources)
    )
    nothing = Manifest([], listing_of(sources[0]), (), (), 0, True)
    manifest = growth._publish(folder, nothing, pieces, sources[0], "run", len(shards))
    for shard, batches in zip(manifest.shards, shards, strict=True):
        expected = Footer(job.fingerprint.digest, shard.number, shard.inputs_digest, 0, 0)
        write_shard(folder, job.kind, batches[0].schema, batches, expected)
    write_job(folder, job)
    counts = {"shards": len(shards), "images": manifest.images, "ok": manifest.images}
    write_json(folder, SUCCESS, EMPTY_SUMMARY | counts | summary)
    return manifest
