"""A shard's Parquet file: atomic writes, its footer, and streaming reads."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from flowers_batch.dataset import formats_0_1
from flowers_batch.dataset.format_version import in_current_format, with_format
from flowers_batch.dataset.schema import CODES, PIXELS
from flowers_batch.json_values import check_shape, parse_json
from flowers_batch.storage.folder import Folder
from flowers_batch.storage.io_errors import passing_errors, raise_io_error
from flowers_batch.storage.retries import with_retries

FOOTER_KEY = b"flowers_batch.shard"
ROWS_PER_GROUP = 2048  # in memory while a shard is written or read
PHOTOS_PER_GROUP = 64  # of pixels: 10 MB, which a store sends in one request
_ROWS_MERGED = 1024
_PAGE_ROWS = 8  # of pixels
_RAW = ("pixels", "thumbnail")  # not compressed: to expand pixels takes longer than to read them, and WebP is small
_FOOTER_SHAPE = {
    "fingerprint": str,
    "shard": int,
    "inputs_digest": str,
    "ok": int,
    "failed": int,
    "reasons": {str: int},
    "content_digest": str,
}


@dataclass(frozen=True)
class Footer:
    """What a shard's file says of itself: it is complete when this is what the manifest expects.

    Attributes:
        fingerprint: `Fingerprint.digest` of the run that wrote it.
        shard: Its number.
        inputs_digest: SHA-256 of the shard's manifest rows.
        ok, failed: Rows of each status.
        reasons: How many rows failed for each reason.
        content_digest: SHA-256 of the rows' `sha256`, which changes with any image's bytes.
    """

    fingerprint: str
    shard: int
    inputs_digest: str
    ok: int
    failed: int
    reasons: dict[str, int] = field(default_factory=dict)
    content_digest: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return what is written into the file's metadata."""
        return with_format(
            {
                "fingerprint": self.fingerprint,
                "shard": self.shard,
                "inputs_digest": self.inputs_digest,
                "ok": self.ok,
                "failed": self.failed,
                "reasons": self.reasons,
                "content_digest": self.content_digest,
            }
        )

    @classmethod
    def from_json(cls, value: Any, where: str) -> Footer:
        """Read what `to_json` returned, or what version 0.1 wrote; unknown fields are ignored.

        Args:
            value: The JSON object.
            where: The file's path or URL, for the error message.

        Raises:
            InputError: A newer version wrote the file.
            TypeError: It is not a footer.
        """
        content = in_current_format(value, where, formats_0_1.upgrade_footer)
        check_shape(content, _FOOTER_SHAPE)
        return cls(
            fingerprint=content["fingerprint"],
            shard=content["shard"],
            inputs_digest=content["inputs_digest"],
            ok=content["ok"],
            failed=content["failed"],
            reasons=content["reasons"],
            content_digest=content["content_digest"],
        )


def shard_name(kind: str, shard: int) -> str:
    """Return the name of a shard's file in a run's folder."""
    return f"{kind}/shard-{shard:06d}.parquet"


def write_shard(
    folder: Folder, kind: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch], expected: Footer
) -> Footer:
    """Publish a shard; a large one has several row groups, one of which is in memory at a time.

    Args:
        folder: The run's folder.
        kind: `CODES`, `PREDICTIONS` or `PIXELS`.
        schema: The shard's columns.
        batches: Its rows, which are consumed while it is written.
        expected: Fingerprint, number and inputs; the counts are filled in from the rows.

    Returns:
        The footer as written.
    """
    rows, reasons, content = 0, Counter[str](), hashlib.sha256()
    # Byte stream split compresses floats far better.
    floats = ["code.list.element"] if kind == CODES else []
    with (
        folder.publish(shard_name(kind, expected.shard)) as scratch,
        pq.ParquetWriter(
            scratch,
            schema,
            **_compression(kind, schema),
            # pyarrow requires each column with a dictionary to be named, since split ones cannot have one.
            use_dictionary=["folder", "status", "reason", "prediction", "top_labels.list.element"],
            use_byte_stream_split=floats,
            write_statistics=["path"],
            write_page_checksum=True,
            write_batch_size=_PAGE_ROWS if kind == PIXELS else None,
        ) as writer,
    ):
        for group in _row_groups(passing_errors(batches), schema, rows_per_group(kind)):
            writer.write_table(group, row_group_size=PHOTOS_PER_GROUP if kind == PIXELS else len(group))
            rows += len(group)
            reasons.update(group["reason"].drop_null().to_pylist())
            content.update(digests_of(group))
        failed = reasons.total()
        footer = Footer(
            expected.fingerprint,
            expected.shard,
            expected.inputs_digest,
            rows - failed,
            failed,
            dict(reasons),
            content.hexdigest(),
        )
        # Last: a writer that is closed by an error writes a valid file too, but not these keys.
        writer.add_key_value_metadata({FOOTER_KEY: json.dumps(footer.to_json()).encode()})
    return footer


def rows_per_group(kind: str) -> int:
    """Return after how many rows of a shard a row group ends."""
    return PHOTOS_PER_GROUP if kind == PIXELS else ROWS_PER_GROUP


def _compression(kind: str, schema: pa.Schema) -> dict[str, Any]:
    """Return how columns are compressed, as arguments of `ParquetWriter`."""
    if kind != PIXELS:
        return {"compression": "zstd", "compression_level": 1}
    packed = [name for name in schema.names if name not in _RAW]
    return {
        "compression": dict.fromkeys(packed, "zstd") | dict.fromkeys(_RAW, "none"),
        "compression_level": dict.fromkeys(packed, 1),
    }


def _row_groups(batches: Iterable[pa.RecordBatch], schema: pa.Schema, size: int) -> Iterator[pa.Table]:
    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        if sum(map(len, held)) >= size:
            yield pa.Table.from_batches(held, schema)
            held = []
    if any(map(len, held)):
        yield pa.Table.from_batches(held, schema)


def interleave(
    first: Iterator[pa.RecordBatch],
    second: Iterator[pa.RecordBatch],
    is_first: NDArray[np.bool_],
    schema: pa.Schema,
    at_once: int = _ROWS_MERGED,
) -> Iterator[pa.RecordBatch]:
    """Merge two streams of rows: row i is the next one of `first` or of `second`, as `is_first` [rows] says.

    Args:
        first, second: The streams.
        is_first: bool [rows].
        schema: Of the rows.
        at_once: Rows that are merged at once, and in memory.
    """
    streams = _RowStream(first, schema), _RowStream(second, schema)
    for start in range(0, len(is_first), at_once):
        mask = is_first[start : start + at_once]
        rows = pa.concat_tables([streams[0].take(int(mask.sum())), streams[1].take(int((~mask).sum()))])
        order = np.empty(len(mask), np.int64)
        order[np.concatenate([np.flatnonzero(mask), np.flatnonzero(~mask)])] = np.arange(len(mask))
        yield from rows.take(pa.array(order)).to_batches()


class _RowStream:
    """A stream of rows, taken in any number at a time."""

    def __init__(self, batches: Iterator[pa.RecordBatch], schema: pa.Schema):
        self._batches, self._held = batches, schema.empty_table()

    def take(self, count: int) -> pa.Table:
        while len(self._held) < count:
            self._held = pa.concat_tables([self._held, pa.Table.from_batches([next(self._batches)])])
        taken, self._held = self._held.slice(0, count), self._held.slice(count)
        return taken


def content_digest_of(table: pa.Table) -> str:
    """Return SHA-256 of a shard's `sha256` column: `Footer.content_digest`."""
    return hashlib.sha256(digests_of(table)).hexdigest()


def digests_of(table: pa.Table) -> pa.Buffer:
    """Return the values of `sha256`, one after the other; zeros where there is none."""
    digests = table["sha256"].fill_null(bytes(32)).combine_chunks()
    return digests.buffers()[1].slice(32 * digests.offset, 32 * len(digests))


def read_footer(folder: Folder, kind: str, shard: int) -> Footer | None:
    """Return a shard's footer; None if the file is missing or incomplete, or is not a shard."""
    try:
        name = shard_name(kind, shard)
        return Footer.from_json(read_metadata_json(folder, name, FOOTER_KEY), folder.url_of(name))
    except (FileNotFoundError, TypeError, ValueError):
        return None


def read_metadata_json(folder: Folder, name: str, *keys: bytes) -> Any:
    """Return the JSON value that a Parquet file's metadata has under the first of some keys that is there.

    Raises:
        FileNotFoundError: There is no such file.
        RunError: The disk or the store fails, which proves nothing about the file.
        ValueError: It has none of the keys, or is not a complete Parquet file.
    """

    def read() -> dict[bytes, bytes] | None:
        with folder.open(name) as file:
            return pq.read_metadata(file).metadata

    try:
        found = with_retries(read) or {}
        return parse_json(next(found[key] for key in keys if key in found))
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException, StopIteration) as error:  # pyarrow raises all of these for broken footers
        raise_io_error(folder.url_of(name), error)
        raise ValueError(name) from None
