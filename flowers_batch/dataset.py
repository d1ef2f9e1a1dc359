"""A run's folder: its Parquet columns, writing a shard, its description, and streaming reads."""

from __future__ import annotations

import csv
import hashlib
import json
import platform
import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from flowers_batch.config import Fingerprint, InputError, first_line
from flowers_batch.storage import NOT_UTF8, Folder, Where, open_folder, persistently, split_file

CODES, PREDICTIONS = "codes", "predictions"  # what a folder holds, and the name of the folder in it
JOB, SUCCESS = "job.json", "_SUCCESS"
OK, FAILED = "ok", "failed"
_FOOTER_KEY = b"flowers_batch.shard"
ROWS_A_GROUP = 2048  # that are in memory while a shard is written or read
_ROWS_MERGED = 1024
_DIGESTS_AT_ONCE = 1 << 24
_FILES_AT_ONCE = 8
_LIBRARIES = ("flowers-batch", "ray", "tensorflow", "keras", "numpy", "pyarrow", "pillow", "simplejpeg")

_IMAGE_FIELDS = [
    pa.field("path", pa.string(), nullable=False),
    pa.field("folder", pa.string()),
    pa.field("sha256", pa.binary(32)),
    pa.field("phash", pa.uint64()),
    pa.field("bytes", pa.int64()),
    pa.field("width", pa.int32()),
    pa.field("height", pa.int32()),
    pa.field("status", pa.string(), nullable=False),
    pa.field("reason", pa.string()),
    pa.field("message", pa.string()),
]
IMAGE_COLUMNS = [column.name for column in _IMAGE_FIELDS]


def folder_of(path: str, source: str | None = None) -> str | None:
    """The name of the folder that an image lies in, its column `folder`; None directly in the root.

    Args:
        path: The image's key.
        source: The file that holds the image, if that is a tar: its own folder is none of the image's.
    """
    inner = path.removeprefix(NOT_UTF8)
    for tar in (f"{source}!", quote(f"{source}!")):
        inner = inner.removeprefix(tar)
    name = posixpath.basename(posixpath.dirname(inner))
    return name if name not in ("", ".", "..") else None


def codes_schema(width: int, store: str) -> pa.Schema:
    """The columns of a shard of codes: `code` is fixed_size_list<float16 or float32>[width], null where failed."""
    item = pa.field("element", {"float16": pa.float16(), "float32": pa.float32()}[store], nullable=False)
    return pa.schema([*_IMAGE_FIELDS, pa.field("code", pa.list_(item, width))])


def predictions_schema() -> pa.Schema:
    """The columns of a shard of predictions; all but the image's own are null where failed."""
    return pa.schema(
        [
            *_IMAGE_FIELDS,
            pa.field("prediction", pa.string()),
            pa.field("probability", pa.float32()),
            pa.field("top_labels", pa.list_(pa.string())),
            pa.field("top_probabilities", pa.list_(pa.float32())),
            pa.field("is_unknown", pa.bool_()),
        ]
    )


@dataclass(frozen=True)
class Footer:
    """What a shard's file says of itself: it is complete when this is what the manifest expects.

    Attributes:
        fingerprint: `Fingerprint.digest` of the run that wrote it.
        shard: Its number.
        inputs: SHA-256 of the shard's manifest rows.
        ok, failed: Rows of each status.
        reasons: How many rows failed for each reason.
        content: SHA-256 of the rows' `sha256`, which tells whether the images' bytes are others.
    """

    fingerprint: str
    shard: int
    inputs: str
    ok: int
    failed: int
    reasons: dict[str, int] = field(default_factory=dict)
    content: str = ""


def shard_name(kind: str, shard: int) -> str:
    """The name of a shard's file in a run's folder."""
    return f"{kind}/shard-{shard:06d}.parquet"


def write_shard(
    folder: Folder, kind: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch], like: Footer
) -> Footer:
    """Publishes a shard, whole; a large one has several row groups, so that no more is ever in memory.

    Args:
        folder: The run's folder.
        kind: `CODES` or `PREDICTIONS`.
        schema: The shard's columns.
        batches: Its rows, which are taken while it is written.
        like: Fingerprint, number and inputs; the counts are filled in from the rows.

    Returns:
        The footer as written.
    """
    rows, reasons, content = 0, Counter[str](), hashlib.sha256()
    # A code's bytes are split into planes, which compress far better than the numbers that they belong to.
    floats = ["code.list.element"] if kind == CODES else []
    with (
        folder.publish(shard_name(kind, like.shard)) as scratch,
        pq.ParquetWriter(
            scratch,
            schema,
            compression="zstd",
            compression_level=1,
            # pyarrow wants each column named that has a dictionary, since split ones cannot have one.
            use_dictionary=["folder", "status", "reason", "prediction", "top_labels.list.element"],
            use_byte_stream_split=floats,
            write_statistics=["path"],
            write_page_checksum=True,
        ) as writer,
    ):
        for group in _row_groups(batches, schema):
            writer.write_table(group, row_group_size=len(group))
            rows += len(group)
            reasons.update(group["reason"].drop_null().to_pylist())
            content.update(_digests(group))
        failed = reasons.total()
        footer = Footer(
            like.fingerprint, like.shard, like.inputs, rows - failed, failed, dict(reasons), content.hexdigest()
        )
        # Last of all: a writer that an error leaves writes a valid file too, but not these keys.
        writer.add_key_value_metadata({_FOOTER_KEY: json.dumps(asdict(footer)).encode()})
    return footer


def _row_groups(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.Table]:
    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        if sum(map(len, held)) >= ROWS_A_GROUP:
            yield pa.Table.from_batches(held, schema)
            held = []
    if any(map(len, held)):
        yield pa.Table.from_batches(held, schema)


def interleave(
    first: Iterator[pa.RecordBatch], second: Iterator[pa.RecordBatch], is_first: NDArray[np.bool_], schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    """Merges two streams of rows: row i is the next one of `first` or of `second`, as `is_first` [rows] says."""
    streams = _Rows(first, schema), _Rows(second, schema)
    for start in range(0, len(is_first), _ROWS_MERGED):
        mask = is_first[start : start + _ROWS_MERGED]
        rows = pa.concat_tables([streams[0].take(int(mask.sum())), streams[1].take(int((~mask).sum()))])
        order = np.empty(len(mask), np.int64)
        order[np.concatenate([np.flatnonzero(mask), np.flatnonzero(~mask)])] = np.arange(len(mask))
        yield from rows.take(pa.array(order)).to_batches()


class _Rows:
    """A stream of rows that gives as many as one asks for."""

    def __init__(self, batches: Iterator[pa.RecordBatch], schema: pa.Schema):
        self._batches, self._held = batches, schema.empty_table()

    def take(self, count: int) -> pa.Table:
        while len(self._held) < count:
            self._held = pa.concat_tables([self._held, pa.Table.from_batches([next(self._batches)])])
        taken, self._held = self._held.slice(0, count), self._held.slice(count)
        return taken


def content_of(table: pa.Table) -> str:
    """SHA-256 of a shard's `sha256` column: `Footer.content`."""
    return hashlib.sha256(_digests(table)).hexdigest()


def _digests(table: pa.Table) -> bytes:
    return b"".join(digest or bytes(32) for digest in table["sha256"].to_pylist())


def read_footer(folder: Folder, kind: str, shard: int) -> Footer | None:
    """Reads what a shard's file says of itself; None where there is no such file, or it is not ours or not whole."""
    try:
        return Footer(**read_note(folder, shard_name(kind, shard), _FOOTER_KEY))
    except (FileNotFoundError, TypeError, ValueError):
        return None


def read_note(folder: Folder, name: str, key: bytes) -> dict[str, Any]:
    """What a Parquet file's footer has under a key, as JSON.

    Raises:
        FileNotFoundError: There is no such file.
        OSError: The disk or the store fails, which says nothing of the file.
        ValueError: It has no such key, or is no whole Parquet file.
    """

    def read() -> dict[bytes, bytes] | None:
        with folder.open(name) as file:
            return pq.read_metadata(file).metadata

    try:
        return json.loads((persistently(read) or {})[key])
    except (OSError, pa.ArrowException, KeyError) as error:  # pyarrow tells of broken footers by most of these
        if getattr(error, "errno", None):
            raise
        raise ValueError(name) from None


@dataclass(frozen=True)
class Job:
    """What a run's folder was made by: `job.json`.

    Attributes:
        kind: `CODES` or `PREDICTIONS`.
        images: Where the images lie: an absolute path or a URL.
        fingerprint: What the rows depend on.
        weights: The weights' name.
        root: What the paths of a list are relative to; None: the folder that the list lies in.
        model: The model folder; None for codes.
        codes: The codes folder that predictions were made from; None where they were made from images.
        versions: Versions of Python and of the libraries.
    """

    kind: str
    images: str
    fingerprint: Fingerprint
    weights: str
    root: str | None = None
    model: str | None = None
    codes: str | None = None
    versions: dict[str, str] = field(default_factory=dict)


def library_versions() -> dict[str, str]:
    """The versions of Python and of what decides on the numbers."""
    return {"python": platform.python_version()} | {name: version(name) for name in _LIBRARIES}


def write_job(folder: Folder, job: Job) -> None:
    """Publishes `job.json`."""
    folder.write_json(JOB, asdict(job) | {"digest": job.fingerprint.digest})


def read_job(folder: Folder) -> Job | None:
    """Reads `job.json`; None where there is none.

    Raises:
        InputError: It is not one of this version of flowers_batch.
    """
    try:
        content = folder.read_json(JOB)
    except FileNotFoundError:
        return None
    try:
        content.pop("digest")
        content["fingerprint"] = Fingerprint.from_json(content["fingerprint"])
        return Job(**content)
    except (KeyError, TypeError, AttributeError):
        raise InputError(
            f"{folder.url_of(JOB)} was not written by this version of flowers_batch: begin in a new folder."
        ) from None


@dataclass(frozen=True)
class RowGroup:
    """A part of a shard's file that can be read by itself: which one it is, and how many rows it has."""

    shard: int
    number: int
    rows: int


@dataclass(frozen=True)
class Run:
    """A run's folder, finished: every image is a row in it.

    Attributes:
        folder: Where it lies.
        job: What made it.
        summary: The content of `_SUCCESS`.
    """

    folder: Folder
    job: Job
    summary: dict[str, Any]

    @property
    def shards(self) -> int:
        """How many shards it has."""
        return self.summary["shards"]

    @property
    def code_width(self) -> int:
        """Numbers in a code."""
        with _opened(self.folder, CODES, 0) as file:
            return file.schema_arrow.field("code").type.list_size

    def row_groups(self) -> list[RowGroup]:
        """The parts of the shards' files that can be read by themselves, in the manifest's order."""
        return [group for shard in range(self.shards) for group in _row_groups_of(self.folder, self.job.kind, shard)]

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Streams rows in the manifest's order, a shard in memory at a time."""
        for number in range(self.shards):
            yield from read_shard(self.folder, self.job.kind, number, columns)


def read_shard(
    folder: Folder, kind: str, shard: int, columns: Sequence[str] | None = None, group: int | None = None
) -> Iterator[pa.RecordBatch]:
    """Streams columns of a shard, a row group in memory at a time.

    Args:
        folder: The run's folder.
        kind: `CODES` or `PREDICTIONS`.
        shard: Its number.
        columns: Names; None: all.
        group: The number of a row group; None: all.

    Raises:
        InputError: The shard's file is missing, is no Parquet file, or its bytes are not those that were written.
    """
    with _opened(folder, kind, shard) as file:
        for number in range(file.num_row_groups) if group is None else (group,):
            table = persistently(lambda number=number: file.read_row_group(number, columns and list(columns)))  # type: ignore[misc]
            yield from table.to_batches()


def _row_groups_of(folder: Folder, kind: str, shard: int) -> list[RowGroup]:
    with _opened(folder, kind, shard) as file:
        return [
            RowGroup(shard, number, file.metadata.row_group(number).num_rows) for number in range(file.num_row_groups)
        ]


@contextmanager
def _opened(folder: Folder, kind: str, shard: int) -> Iterator[pq.ParquetFile]:
    """A shard's file; what goes wrong while it is read is told in a sentence."""
    name = shard_name(kind, shard)
    try:
        with persistently(lambda: folder.open(name)) as handle:
            yield persistently(lambda: pq.ParquetFile(handle, page_checksum_verification=True))
    except (OSError, pa.ArrowException) as error:
        raise InputError(
            f"{folder.url_of(name)} cannot be read ({first_line(error)[:-1]}): delete it, and run the same command "
            "again."
        ) from None


def failed_paths(folder: Folder, kind: str, shard: int, reasons: Sequence[str]) -> set[str]:
    """The paths of a shard's rows that failed for one of some reasons."""
    found: set[str] = set()
    for batch in read_shard(folder, kind, shard, ["path", "reason"]):
        found.update(batch.filter(pc.is_in(batch["reason"], pa.array(reasons, pa.string())))["path"].to_pylist())
    return found


def count_duplicates(folder: Folder, kind: str, shards: int, images: int) -> int:
    """How many images have the bytes of another one, the first of each kind aside; memory grows with shards at most.

    Told by the first 64 bits of their SHA-256: for 100 million images, one in 3000 counts is expected to be off by one.
    """
    passes = -(-images // _DIGESTS_AT_ONCE)
    found = 0
    for remainder in range(passes):

        def digests(shard: int, remainder: int = remainder) -> NDArray[np.uint64]:
            columns = [batch["sha256"].drop_null() for batch in read_shard(folder, kind, shard, ["sha256"])]
            whole = [np.frombuffer(c.buffers()[1], "u8", 4 * len(c), 32 * c.offset)[::4] for c in columns if len(c)]
            values = np.concatenate([*whole, np.empty(0, "u8")])
            return values[values % passes == remainder]

        with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
            values = np.concatenate(list(pool.map(digests, range(shards))))
        values.sort()  # many times as fast as np.unique
        found += int(np.count_nonzero(values[1:] == values[:-1]))
    return found


def codes_of(batch: pa.RecordBatch) -> tuple[NDArray[np.floating], NDArray[np.bool_]]:
    """The codes [ok rows, width] of a batch, and which rows are ok: bool [rows]."""
    column = batch["code"].drop_null()
    ok = batch["code"].is_valid().to_numpy(zero_copy_only=False)
    return column.flatten().to_numpy().reshape(len(column), column.type.list_size), ok


_CSV_COLUMNS = ("path", "prediction", "probability", "is_unknown", "status", "reason", "message")
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")  # what a spreadsheet takes for the beginning of a formula
_ESCAPED = (*_FORMULA, *(f"'{sign}" for sign in ("'", *_FORMULA)))  # and what looks as if it were one already


def write_csv(run: Run, path: Where) -> None:
    """Writes predictions for a spreadsheet: UTF-8 with a mark that says so, and no name taken for a formula."""
    folder, name = split_file(path)
    with (
        folder.publish(name) as scratch,
        open(scratch, "w", encoding="utf-8-sig", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(_CSV_COLUMNS)
        for batch in run.batches(_CSV_COLUMNS):
            for row in batch.to_pylist():
                writer.writerow(map(cell_of, row.values()))


def cell_of(value: Any) -> Any:
    """What stands for a value in a CSV file: a quote goes before text that a spreadsheet would take for a formula."""
    if isinstance(value, str) and value.startswith(_ESCAPED):
        return f"'{value}"
    return f"{value:.4f}" if isinstance(value, float) else value


def text_of(cell: str) -> str:
    """The text that a cell stands for."""
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(_ESCAPED) else cell


def open_run(where: Where, kind: str) -> Run:
    """Opens a finished run's folder.

    Raises:
        InputError: There is none, it holds something else, or its run has not ended.
    """
    folder = open_folder(where)
    job = read_job(folder)
    command = "encode" if kind == CODES else "predict"
    if job is None or job.kind != kind:
        raise InputError(f"{folder.url} is not a folder of {kind}: make one with `flowers-batch {command}`.")
    try:
        summary = folder.read_json(SUCCESS)
    except FileNotFoundError:
        raise InputError(
            f"{folder.url} is not finished: run the same `flowers-batch {command}` again, "
            "which goes on where it stopped."
        ) from None
    if not isinstance(summary, dict) or "shards" not in summary:
        raise InputError(f"{folder.url_of(SUCCESS)} is not what a run writes: delete it and run the command again.")
    return Run(folder, job, summary)
