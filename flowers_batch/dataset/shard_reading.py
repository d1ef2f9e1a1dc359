"""Reading shards: each file is checked when it is opened, and its rows while they are read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flowers_batch.dataset.schema import CODES, codes_schema, predictions_schema
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
_MAX_ROW_BYTES = 64 << 10  # besides its code
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
        kind: `CODES` or `PREDICTIONS`.
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
            rows = with_retries(lambda number=number: file.read_row_group(number, columns_to_read(wanted)))  # type: ignore[misc]
            if problem := rows_problem(rows, file.metadata.row_group(number).num_rows):
                raise _damaged(folder, shard_name(kind, shard.number), problem)
            if "sha256" in wanted:
                content.update(digests_of(rows))
            yield from rows.select(wanted).to_batches()
        footer = footer_of(file, folder.url_of(shard_name(kind, shard.number)))
        if "sha256" in wanted and group is None and footer and content.hexdigest() != footer.content_digest:
            raise _damaged(folder, shard_name(kind, shard.number), "its images have other bytes than its footer says")


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
            raise _damaged(folder, name, problem)
        yield file


@contextmanager
def open_unchecked(folder: Folder, kind: str, number: int) -> Iterator[pq.ParquetFile]:
    """Open a shard's file until the block ends, whatever it holds.

    Raises:
        InputError: The file is missing, or is not a Parquet file whose checksums are right.
        RunError: The disk or the store fails.
    """
    name, command = shard_name(kind, number), "encode" if kind == CODES else "predict"
    try:
        with with_retries(lambda: folder.open(name)) as handle:
            yield with_retries(lambda: open_parquet(handle, page_checksum_verification=True))
    except FileNotFoundError:
        raise InputError(f"There is no {folder.url_of(name)}: run the same `flowers-batch {command}` again.") from None
    except (OSError, pa.ArrowException) as error:
        raise_io_error(folder.url_of(name), error)
        raise _damaged(folder, name, reason_of(error)) from None


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
    if kind == CODES and "code" in schema.names:
        code = schema.types[-1]
        width, item = getattr(code, "list_size", 0), str(getattr(code, "value_type", ""))
        names = {"halffloat": "float16", "float": "float32"}
        if width > 0 and item in names and schema.equals(codes_schema(width, names[item])):
            return None
    elif kind != CODES and schema.equals(predictions_schema()):
        return None
    return f"it has other columns than a shard of {kind}"


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
    code = file.schema_arrow.types[-1]
    code_bytes = code.list_size * code.value_type.bit_width // 8 if pa.types.is_fixed_size_list(code) else 0
    if max(rows, default=0) * code_bytes > _MAX_GROUP_BYTES:
        return f"its codes are too long ({code.list_size:,} values)"
    if any(group.total_byte_size > group.num_rows * (_MAX_ROW_BYTES + 2 * code_bytes) + (1 << 20) for group in groups):
        return "its rows are too large"
    return None


def _damaged(folder: Folder, name: str, problem: str) -> InputError:
    return InputError(
        f"{folder.url_of(name)} cannot be used ({problem}): delete it, and run the same command again, which writes it "
        "again."
    )
