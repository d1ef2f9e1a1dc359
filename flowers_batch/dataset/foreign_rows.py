"""Rows of a manifest that are not of the images' source: whoever writes to a run's folder may add any path."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from flowers_batch.dataset.manifest import KNOWN_SCHEMA, Manifest, read_rows, rows_in_path_order
from flowers_batch.dataset.manifest_part import MISSING
from flowers_batch.sources.list_files import ENTRIES
from flowers_batch.sources.lists import ListSource
from flowers_batch.sources.ordering import aligned
from flowers_batch.sources.relative_paths import foreign_path
from flowers_batch.sources.source import Source
from flowers_batch.storage.folder import Folder


def refuse_foreign_rows(rows: pa.Table, source: Source) -> None:
    """Check some rows of a manifest before their images are read.

    Raises:
        InputError: The source cannot have listed one of them.
    """
    foreign = rows.filter(pc.invert(source.owns(rows)))
    if len(foreign):
        raise foreign_path(foreign["path"][0].as_py(), source.url)


def foreign_paths(folder: Folder, manifest: Manifest, source: Source) -> Iterator[str]:
    """Yield the paths of all rows that a source cannot have listed, a few shards in memory at a time.

    A list is read along with the manifest, both in the order of paths. Rows that are marked as missing need not be in
    it: they are not read.
    """
    if isinstance(source, ListSource):
        for rows, entries in aligned([rows_in_path_order(folder, manifest), source.entries()], [KNOWN_SCHEMA, ENTRIES]):
            is_known = pc.or_(pc.is_in(rows["path"], entries["path"]), pc.equal(rows["action"], MISSING))
            yield from rows["path"].filter(pc.invert(is_known)).to_pylist()
        return
    for shard in manifest.shards:
        table = read_rows(folder, shard)
        yield from table["path"].filter(pc.invert(source.owns(table))).to_pylist()
