"""Reading shards: each file is checked when it is opened, and its rows while they are read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flowers_batch.dataset.schema import (
    COMMANDS,
    PIXELS,
    PIXELS_BYTES,
    PREDICTIONS,
    codes_schema,
    pixels_schema,
    predictions_schema,
)
from flowers_batch.dataset.shard import Shard
from flowers_batch.dataset.shard_file import FOOTER_KEY, Footer, digests_of, shard_name
from flowers_batch.dataset.shard_rows import columns_to_read, rows_problem
from flowers_batch.errors import InputError
from flowers_batch.json_values import parse_json
from flowers_batch.storage.folder import Folder
from flowers_batch.storage.io_errors import raise_io_error
from flowers_batch.storage.local_files import reason_of
from flowers_batch.storage.parquet_files import open_parquet
from flowers_batch.storage.retries import with_retries

# Bounds of what a file's metadata may claim. A text of a row, such as a path, has 4 kB at most; with `top_k` 1000, a
# row's labels take 20 kB.
_MAX_ROW_BYTES = 64 << 10  # besides its code, pixels and thumbnail
_MAX_THUMBNAIL_BYTES = 1 << 20
_MAX_PHOTOS = 256  # in a row group of pixels: twice as many as are written, and some
_MAX_GROUP_BYTES = 4 << 30  # of the codes of a row group


def read_shard(
    folder: Folder,
    kind: str,
    shard: Shard,
    fingerprint: str,
    columns: Sequence[str] | None = None,
    group: int | None = None,
) -> Iterator[pa.RecordBatch]:
    """Stream columns of a shard, a row group in memory at a time.

    If `sha256` of all rows is read, it is compared with the footer's digest after the last row.

    Args:
        folder: The run's folder.
        kind: `CODES`, `PREDICTIONS` or `PIXELS`.
        shard: The shard as the manifest has it.
        fingerprint: `Fingerprint.digest` of the run.
        columns: Names; None: all.
        group: The number of a row group; None: all.

    Raises:
        InputError: The shard's file is not what `open_shard` expects, fails its checksums, or has rows that contradict
            themselves or its footer.
        RunError: The disk or the store fails.
    """
    with open_shard(folder, kind, shard, fingerprint) as file:
        wanted = list(columns or file.schema_arrow.names)
        content = hashlib.sha256()
        for number in range(file.num_row_groups) if group is None else (group,):
            rows = read_group(folder, kind, shard, file, number, wanted)
            if "sha256" in wanted:
                content.update(digests_of(rows))
            yield from rows.select(wanted).to_batches()
        footer = footer_of(file, folder.url_of(shard_name(kind, shard.number)))
        if "sha256" in wanted and group is None and footer and content.hexdigest() != footer.content_digest:
            raise _damaged(folder, kind, shard.number, "its images have other bytes than its footer says")


def read_group(
    folder: Folder, kind: str, shard: Shard, file: pq.ParquetFile, group: int, columns: Sequence[str]
) -> pa.Table:
    """Return columns of a row group of an open shard, and perhaps others that they are checked against.

    Args:
        folder, kind, shard: As for `open_shard`, whose block must not have ended.
        file: What it gave.
        group: The row group's number.
        columns: Names.

    Raises:
        InputError: The rows contradict themselves.
    """
    rows = with_retries(lambda: file.read_row_group(group, columns_to_read(columns)))
    if problem := rows_problem(rows, file.metadata.row_group(group).num_rows):
        raise _damaged(folder, kind, shard.number, problem)
    return rows


@contextmanager
def open_shard(folder: Folder, kind: str, shard: Shard, fingerprint: str) -> Iterator[pq.ParquetFile]:
    """Open a shard's file until the block ends, after checking that it is this shard, of this run.

    Compared are its footer's fingerprint, number, inputs and counts, its rows, and its columns with what the manifest
    and the run say.

    Raises:
        InputError: The file is missing, is another shard, or is not a Parquet file whose checksums are right.
        RunError: The disk or the store fails.
    """
    name = shard_name(kind, shard.number)
    with open_unchecked(folder, kind, shard.number) as file:
        problem = _footer_problem(footer_of(file, folder.url_of(name)), shard, fingerprint)
        problem = problem or columns_problem(file, kind) or size_problem(file, shard.images)
        if problem:
            raise _damaged(folder, kind, shard.number, problem)
        yield file


@contextmanager
def open_unchecked(folder: Folder, kind: str, number: int) -> Iterator[pq.ParquetFile]:
    """Open a shard's file until the block ends, whatever it holds.

    Raises:
        InputError: The file is missing, or is not a Parquet file whose checksums are right.
        RunError: The disk or the store fails.
    """
    name = shard_name(kind, number)
    try:
        with with_retries(lambda: folder.open(name)) as handle:
            yield with_retries(lambda: open_parquet(handle, page_checksum_verification=True))
    except FileNotFoundError:
        raise InputError(
            f"There is no {folder.url_of(name)}: run the same `flowers-batch {COMMANDS[kind]}` again."
        ) from None
    except (OSError, pa.ArrowException) as error:
        raise_io_error(folder.url_of(name), error)
        raise _damaged(folder, kind, number, reason_of(error)) from None


def footer_of(file: pq.ParquetFile, where: str) -> Footer | None:
    """Return the footer of an open file; None if it is not that of a complete shard.

    Raises:
        InputError: A newer version of flowers_batch wrote the file.
    """
    try:
        return Footer.from_json(parse_json((file.metadata.metadata or {})[FOOTER_KEY]), where)
    except (KeyError, TypeError, ValueError):
        return None


def shard_described_by(footer: Footer) -> Shard:
    """Return the shard as it was when a file was written, which the manifest may have changed since."""
    return Shard(footer.shard, footer.ok + footer.failed, footer.inputs_digest)


def failed_paths(folder: Folder, kind: str, footer: Footer, reasons: Sequence[str]) -> set[str]:
    """Return the paths of rows that failed for one of some reasons, of the shard whose footer this is."""
    found: set[str] = set()
    for batch in read_shard(folder, kind, shard_described_by(footer), footer.fingerprint, ["path", "reason"]):
        found.update(batch.filter(pc.is_in(batch["reason"], pa.array(reasons, pa.string())))["path"].to_pylist())
    return found


def columns_problem(file: pq.ParquetFile, kind: str) -> str | None:
    """Return what is wrong with the columns of a shard's file, as words; None if nothing is."""
    schema = file.schema_arrow
    return None if schema.equals(_expected_schema(schema, kind)) else f"it has other columns than a shard of {kind}"


def _expected_schema(schema: pa.Schema, kind: str) -> pa.Schema:
    """Return the columns that a shard of a kind has: those of codes depend on these, those of pixels are optional."""
    if kind == PIXELS:
        return pixels_schema(has_thumbnails="thumbnail" in schema.names)
    if kind == PREDICTIONS:
        return predictions_schema()
    code = schema.types[-1] if "code" in schema.names else pa.null()
    item = {"halffloat": "float16", "float": "float32"}.get(str(getattr(code, "value_type", "")), "float32")
    return codes_schema(max(1, getattr(code, "list_size", 1)), item)


def _footer_problem(footer: Footer | None, shard: Shard, fingerprint: str) -> str | None:
    if footer is None:
        return "it is no complete shard"
    if footer.shard != shard.number:
        return f"it is shard {footer.shard}, not {shard.number}"
    if footer.fingerprint != fingerprint:
        return "it has another fingerprint than job.json"
    if footer.inputs_digest != shard.inputs_digest:
        return "it was made from other images than the manifest names"
    if footer.ok + footer.failed != shard.images:
        return f"it says {footer.ok + footer.failed} images, and the manifest has {shard.images}"
    return None


def size_problem(file: pq.ParquetFile, images: int) -> str | None:
    """Return what is wrong with the sizes that a file's metadata claims, before any memory is taken for them.

    Args:
        file: A file with the columns of a shard.
        images: How many rows it should have.
    """
    metadata = file.metadata
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    rows = [group.num_rows for group in groups]
    if metadata.num_rows != images or sum(rows) != images or min(rows, default=1) < 0:
        return f"it has {metadata.num_rows} rows, and should have {images}"
    schema, most = file.schema_arrow, max(rows, default=0)
    if "pixels" in schema.names and most > _MAX_PHOTOS:
        return f"its row groups are too large ({most:,} photos)"
    code = schema.types[-1]
    row_bytes = code.list_size * code.value_type.bit_width // 8 if pa.types.is_fixed_size_list(code) else 0
    if most * row_bytes > _MAX_GROUP_BYTES:
        return f"its codes are too long ({code.list_size:,} values)"
    row_bytes += PIXELS_BYTES if "pixels" in schema.names else 0
    row_bytes += _MAX_THUMBNAIL_BYTES if "thumbnail" in schema.names else 0
    if any(group.total_byte_size > group.num_rows * (_MAX_ROW_BYTES + 2 * row_bytes) + (1 << 20) for group in groups):
        return "its rows are too large"
    return None


def _damaged(folder: Folder, kind: str, number: int, problem: str) -> InputError:
    return InputError(
        f"{folder.url_of(shard_name(kind, number))} cannot be used ({problem}): delete it, and run the same "
        f"`flowers-batch {COMMANDS[kind]}` again, which writes it again."
    )
