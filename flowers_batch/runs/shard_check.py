"""Checking one shard's file against the manifest, its own footer and its schema."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flowers_batch.dataset.job import Job
from flowers_batch.dataset.manifest import read_rows
from flowers_batch.dataset.schema import (
    FAILED,
    OK,
    PIXELS,
    PREDICTIONS,
    codes_schema,
    pixels_schema,
    predictions_schema,
)
from flowers_batch.dataset.shard import Shard
from flowers_batch.dataset.shard_file import Footer, content_digest_of, read_footer, shard_name
from flowers_batch.dataset.shard_reading import columns_problem, open_unchecked, size_problem
from flowers_batch.dataset.shard_rows import values_problem
from flowers_batch.errors import InputError
from flowers_batch.storage.folder import Folder

_NAMED_PATHS = 5  # in one problem's sentence
_RESULTS = ("code", "prediction", "pixels", "thumbnail")  # of which an image that is ok has values


@dataclass
class ShardCheck:
    """What was found in a shard's file.

    Attributes:
        rows: Rows in all.
        ok, failed: Rows of each status.
        problems: One sentence per problem.
    """

    rows: int = 0
    ok: int = 0
    failed: int = 0
    problems: list[str] = field(default_factory=list)


def check_shard(folder: Folder, job: Job, shard: Shard) -> ShardCheck:
    """Compare a shard's file with what the manifest and the job say about it; return what was found.

    Raises:
        InputError: The manifest's rows cannot be read.
    """
    name = shard_name(job.kind, shard.number)
    check = ShardCheck()
    footer = read_footer(folder, job.kind, shard.number)
    if footer is None:
        check.problems.append(f"{name} is missing or incomplete.")
        return check
    if footer.fingerprint != job.fingerprint.digest:
        check.problems.append(f"{name} has another fingerprint than {folder.url_of('job.json')}.")
    if (footer.shard, footer.inputs_digest) != (shard.number, shard.inputs_digest):
        check.problems.append(f"{name} was made from other images than the manifest names.")
    try:
        table = _read_table(folder, job, shard)
    except InputError as error:
        check.problems.append(str(error))
        return check
    check.problems += _path_problems(name, table["path"].to_pylist(), read_rows(folder, shard)["path"].to_pylist())
    statuses = Counter(table["status"].to_pylist())
    check.rows, check.ok, check.failed = len(table), statuses[OK], statuses[FAILED]
    check.problems += _footer_problems(name, footer, table, check)
    check.problems += _status_problems(name, table)
    if problem := values_problem(table):
        check.problems.append(f"{name} is damaged: {problem}.")
    return check


def _read_table(folder: Folder, job: Job, shard: Shard) -> pa.Table:
    """Read all rows, without pixels and thumbnails: of these, which rows have them. Checksums of all are checked."""
    name = shard_name(job.kind, shard.number)
    with open_unchecked(folder, job.kind, shard.number) as file:
        if columns_problem(file, job.kind) or not _has_schema(file.schema_arrow, job):
            raise InputError(f"{name} has other columns than a shard of {job.kind}.")
        if problem := size_problem(file, file.metadata.num_rows):
            raise InputError(f"{name} is damaged: {problem}.")
        tables = [_without_pictures(table) for table in _row_groups(file)]
    return pa.concat_tables(tables)


def _row_groups(file: pq.ParquetFile) -> Iterator[pa.Table]:
    yield file.schema_arrow.empty_table()
    for number in range(file.num_row_groups):
        table = file.read_row_group(number)
        table.validate(full=True)
        yield table


def _without_pictures(table: pa.Table) -> pa.Table:
    """Replace each picture by true, so that a shard fits in memory."""
    for name in ("pixels", "thumbnail"):
        if name in table.column_names:
            has_one = pc.if_else(pc.is_valid(table[name]), True, None)
            table = table.set_column(table.column_names.index(name), name, has_one)
    return table


def _has_schema(schema: pa.Schema, job: Job) -> bool:
    if job.kind == PREDICTIONS:
        return schema.equals(predictions_schema())
    if job.kind == PIXELS:
        return schema.equals(pixels_schema(has_thumbnails=job.fingerprint.thumbnail_edge is not None))
    width = getattr(schema.types[-1], "list_size", 1)
    return schema.equals(codes_schema(width, job.fingerprint.code_dtype))


def _path_problems(name: str, found: list[str], expected: list[str]) -> list[str]:
    rows, images = Counter(found), Counter(expected)
    if rows == images and found != expected:
        return [f"{name} has its rows in another order than the manifest."]
    differences = (("lacks", images - rows), ("has in excess", rows - images))
    return [f"{name} {verb} {_rows_text(paths)}." for verb, paths in differences if paths]


def _rows_text(paths: Counter[str]) -> str:
    named = ", ".join(list(paths)[:_NAMED_PATHS])
    return f"{paths.total()} rows, such as {named}" if paths.total() > 1 else f"a row of {named}"


def _footer_problems(name: str, footer: Footer, table: pa.Table, check: ShardCheck) -> list[str]:
    problems = []
    if content_digest_of(table) != footer.content_digest:
        problems.append(f"{name} says that its images have other bytes than its rows do.")
    if (footer.ok, footer.failed) != (check.ok, check.failed):
        problems.append(
            f"{name} says {footer.ok} ok and {footer.failed} failed, and has {check.ok} and {check.failed}."
        )
    return problems


def _status_problems(name: str, table: pa.Table) -> list[str]:
    """Return what is wrong with rows that are ok and have a reason or no result, or failed and the reverse."""
    is_ok = pc.equal(table["status"], OK)
    problems = []
    results = [(column, is_ok) for column in _RESULTS if column in table.column_names]
    for column, expected in (("reason", pc.invert(is_ok)), *results):
        wrong = pc.sum(pc.not_equal(pc.is_valid(table[column]), expected)).as_py()
        if wrong:
            problems.append(f"{name} has {wrong} rows whose status and {column} contradict each other.")
    return problems
