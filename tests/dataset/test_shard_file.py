"""A shard's file is complete, or it is no shard."""

from __future__ import annotations

import errno
import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dataset_rows import IMAGE_FIELDS, LIKE, codes_batch, image_row, labelled, predictions_batch, shard_like
from helpers import store

from flowers_batch.dataset import schema as schema_module
from flowers_batch.dataset import shard_file
from flowers_batch.dataset.schema import CODES, PREDICTIONS, codes_schema, predictions_schema
from flowers_batch.dataset.shard_file import (
    Footer,
    content_digest_of,
    digests_of,
    interleave,
    read_footer,
    shard_name,
    write_shard,
)
from flowers_batch.dataset.shard_reading import read_shard
from flowers_batch.errors import InputError, RunError
from flowers_batch.storage import folder as folder_module
from flowers_batch.storage import retries
from flowers_batch.storage.folder import Folder
from flowers_batch.storage.opening import open_folder

SHARD = shard_name(CODES, 3)


@pytest.mark.parametrize("kind", ["float16", "float32"])
def test_shard_is_read_as_it_was_written(tmp_path, kind):
    folder, batches = open_folder(tmp_path), [codes_batch(5, kind=kind, failed=(1,)), codes_batch(3, kind=kind)]
    write_shard(folder, CODES, batches[0].schema, batches, LIKE)
    written = pq.read_table(tmp_path / SHARD)
    assert written.schema.equals(codes_schema(8, kind))
    assert written.equals(pa.Table.from_batches(batches))
    assert written["code"].null_count == 1 and not written["code"][1].is_valid


def test_predictions_are_read_as_they_were_written(tmp_path):
    failed = image_row("x.jpg", "missing") | dict.fromkeys(predictions_schema().names[len(IMAGE_FIELDS) :])
    batch = predictions_batch([labelled("a/b.jpg"), failed])
    write_shard(open_folder(tmp_path), PREDICTIONS, batch.schema, [batch], LIKE)
    assert pq.read_table(tmp_path / shard_name(PREDICTIONS, 3)).equals(pa.Table.from_batches([batch]))


def test_shard_is_compressed_with_zstd_and_codes_are_split_into_planes(tmp_path):
    batches = [codes_batch(100) for _ in range(15)]
    write_shard(open_folder(tmp_path), CODES, batches[0].schema, batches, LIKE)
    metadata = pq.read_metadata(tmp_path / SHARD)
    assert (metadata.num_row_groups, metadata.num_rows) == (1, 1500)
    columns = [metadata.row_group(0).column(number) for number in range(metadata.num_columns)]
    assert {column.compression for column in columns} == {"ZSTD"}
    (code,) = [column for column in columns if column.path_in_schema.startswith("code")]
    assert "BYTE_STREAM_SPLIT" in code.encodings


def test_large_shard_is_written_and_read_a_row_group_at_a_time(tmp_path, monkeypatch):
    folder, batch, taken, written = open_folder(tmp_path), codes_batch(100), 0, []

    def batches():
        nonlocal taken
        for _ in range(70):
            taken += 1
            yield batch

    write_table = pq.ParquetWriter.write_table
    monkeypatch.setattr(
        pq.ParquetWriter,
        "write_table",
        lambda self, table, **options: written.append((taken, len(table))) or write_table(self, table, **options),
    )
    footer = write_shard(folder, CODES, batch.schema, batches(), LIKE)
    assert [rows for _, rows in written] == [2100, 2100, 2100, 700]
    assert [batches for batches, _ in written] == [21, 42, 63, 70]  # no row group is held longer than necessary
    assert pq.read_metadata(tmp_path / SHARD).num_row_groups == 4
    assert (footer.ok, footer.failed) == (7000, 0)
    assert footer.content_digest == content_digest_of(pq.read_table(tmp_path / SHARD))
    groups = read_shard(folder, CODES, shard_like(7000), "print", ["path"])
    assert len(next(groups)) == 2100
    assert sum(map(len, groups)) == 4900


@pytest.mark.parametrize("mask", ["", "0", "1", "0110", "1" * 1500 + "01" * 800 + "0" * 700])
def test_two_streams_of_rows_are_interleaved_as_requested(mask):
    is_first = np.array([letter == "1" for letter in mask], bool)
    numbers = {True: itertools.count(), False: itertools.count()}
    expected = [f"{'first' if first else 'second'} {next(numbers[first])}" for first in is_first.tolist()]
    schema = pa.schema([pa.field("path", pa.string())])

    def stream(name: str, count: int):
        rows = [{"path": f"{name} {number}"} for number in range(count)]
        for start in range(0, count, 7):
            yield pa.RecordBatch.from_pylist(rows[start : start + 7], schema)

    first, second = stream("first", int(is_first.sum())), stream("second", int((~is_first).sum()))
    rows = pa.Table.from_batches(interleave(first, second, is_first, schema), schema)
    assert rows["path"].to_pylist() == expected


def test_shard_without_rows_is_valid(tmp_path):
    folder = open_folder(tmp_path)
    write_shard(folder, CODES, codes_schema(8, "float16"), [], LIKE)
    assert replace(read_footer(folder, CODES, 3), content_digest="") == LIKE
    assert sum(len(batch) for batch in read_shard(folder, CODES, shard_like(0), "print", ["path"])) == 0


@pytest.mark.parametrize("is_local", [True, False])
def test_footer_has_fingerprint_number_inputs_and_counts(tmp_path, is_local):
    folder = open_folder(tmp_path / "run") if is_local else store(tmp_path / "run")
    batch = codes_batch(9, failed=(1, 4, 8))
    table = pa.Table.from_batches([batch]).to_pylist()
    table[4]["reason"] = "truncated"
    batch = pa.RecordBatch.from_pylist(table, batch.schema)
    written = write_shard(folder, CODES, batch.schema, [batch], replace(LIKE, ok=77, failed=78))
    assert replace(written, content_digest="") == Footer("print", 3, "inputs", 6, 3, {"missing": 2, "truncated": 1})
    assert read_footer(folder, CODES, 3) == written


def test_missing_shard_has_no_footer(tmp_path):
    assert read_footer(open_folder(tmp_path), CODES, 3) is None
    assert read_footer(store(tmp_path / "run"), CODES, 3) is None


def leave_what_a_failed_writer_leaves(folder: Folder, monkeypatch) -> Path:
    """Fail while rows are written, and keep the scratch file, as if the process had died."""
    write_table = pq.ParquetWriter.write_table

    def fail(self, table, **options):
        write_table(self, table.slice(0, 2), **options)
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(pq.ParquetWriter, "write_table", fail)
        patch.setattr(folder_module.os, "unlink", lambda *_, **__: None)
        with pytest.raises(RunError, match="disk full"):
            write_shard(folder, CODES, codes_schema(8, "float16"), [codes_batch(9)], LIKE)
    (left,) = (Path(folder.path) / CODES).iterdir()
    return left


def test_file_left_by_a_failed_writer_is_no_shard(tmp_path, monkeypatch):
    folder = open_folder(tmp_path)
    left = leave_what_a_failed_writer_leaves(folder, monkeypatch)
    assert len(pq.read_table(left)) == 2  # complete to other readers
    assert read_footer(folder, CODES, 3) is None
    left.rename(tmp_path / SHARD)
    assert read_footer(folder, CODES, 3) is None


def test_failed_writer_deletes_its_scratch_file(tmp_path):
    def batches():
        yield codes_batch(3)
        raise ValueError

    with pytest.raises(ValueError):
        write_shard(open_folder(tmp_path), CODES, codes_schema(8, "float16"), batches(), LIKE)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_truncated_file_is_no_shard(tmp_path):
    folder, batch = open_folder(tmp_path), codes_batch(5)
    write_shard(folder, CODES, batch.schema, [batch], LIKE)
    whole = (tmp_path / SHARD).read_bytes()
    for length in [*range(0, len(whole), 61), len(whole) - 1]:
        (tmp_path / SHARD).write_bytes(whole[:length])
        assert read_footer(folder, CODES, 3) is None


@pytest.mark.parametrize("content", [b"[]", b"{}", b"null", b"{", b'{"fingerprint": "print"}', b'{"unknown": 1}'])
def test_footer_of_another_version_is_no_footer(tmp_path, content):
    (tmp_path / CODES).mkdir()
    table = pa.table({"path": ["a"]}).replace_schema_metadata({b"flowers_batch.shard": content})
    pq.write_table(table, tmp_path / SHARD)
    assert read_footer(open_folder(tmp_path), CODES, 3) is None


def test_requested_columns_of_a_shard_are_read(tmp_path):
    folder, batch = open_folder(tmp_path), codes_batch(5)
    write_shard(folder, CODES, batch.schema, [batch], LIKE)
    (read,) = read_shard(folder, CODES, shard_like(5), "print", ["status", "path"])
    assert read.schema.names == ["status", "path"]
    assert read["path"].to_pylist() == [f"a/{n}.jpg" for n in range(5)]


def test_shard_that_cannot_be_read_is_refused_in_a_sentence(tmp_path):
    folder = open_folder(tmp_path)
    with pytest.raises(InputError, match=r"There is no .*shard-000003\.parquet: run the same `flowers-batch encode`"):
        list(read_shard(folder, CODES, shard_like(5), "print", ["path"]))
    (tmp_path / CODES).mkdir()
    (tmp_path / SHARD).write_bytes(b"PAR1 and so on")
    message = r"codes/shard-000003\.parquet cannot be used \(.+\): delete it, and run the same `flowers-batch encode`"
    with pytest.raises(InputError, match=message):
        list(read_shard(folder, CODES, shard_like(5), "print", ["path"]))


def test_shard_with_flipped_bit_in_its_footer_is_incomplete(tmp_path):
    """pyarrow raises many kinds of exceptions for such files; each means that the shard is incomplete."""
    folder = open_folder(tmp_path)
    schema = codes_schema(2, "float16")
    row = dict.fromkeys(schema.names) | {"path": "a", "status": "ok", "code": [1, 2]}
    batches = [pa.RecordBatch.from_pylist([row], schema)]
    shard_file.write_shard(folder, schema_module.CODES, schema, batches, shard_file.Footer("f", 0, "i", 0, 0))
    file = tmp_path / shard_file.shard_name(schema_module.CODES, 0)
    whole = file.read_bytes()
    assert shard_file.read_footer(folder, schema_module.CODES, 0).ok == 1
    random = np.random.default_rng(0)
    unread = 0
    for place in random.integers(len(whole) - 600, len(whole) - 8, 200):
        broken = bytearray(whole)
        broken[place] ^= 1 << int(random.integers(8))
        file.write_bytes(broken)
        unread += shard_file.read_footer(folder, schema_module.CODES, 0) is None
    assert unread > 20


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (OSError(errno.EIO, "Input/output error"), "check the disk"),
        (PermissionError(errno.EACCES, "Permission denied"), "check the disk and your permissions"),
        (OSError("AWS Error NETWORK_CONNECTION during GetObject operation"), "check the connection"),
    ],
)
def test_disk_or_store_that_fails_does_not_condemn_a_shard(tmp_path, monkeypatch, error, remedy):
    folder, batch = open_folder(tmp_path), codes_batch(5)
    write_shard(folder, CODES, batch.schema, [batch], LIKE)

    def fails(*_):
        raise error

    monkeypatch.setattr(retries, "RETRY_SECONDS", ())
    monkeypatch.setattr(Folder, "open", fails)
    shard = shard_like(5)
    for read in (lambda: list(read_shard(folder, CODES, shard, "print")), lambda: read_footer(folder, CODES, 3)):
        with pytest.raises(RunError, match=rf"shard-000003\.parquet cannot be read \(.*\): {remedy}"):
            read()


def test_error_of_making_rows_is_not_one_of_writing_them(tmp_path):
    def rows():
        yield codes_batch(2)
        raise OSError(errno.EMFILE, "Too many open files")

    with pytest.raises(OSError, match="Too many open files"):
        write_shard(open_folder(tmp_path), CODES, codes_batch(1).schema, rows(), LIKE)
    assert not any(tmp_path.rglob("*.parquet"))


def test_digests_of_slices_have_zeros_where_there_is_none():
    digests = [bytes([number]) * 32 for number in range(1, 9)]
    is_valid = pa.py_buffer(bytes([0b11011011]))  # what is in the place of a missing value may be anything
    array = pa.Array.from_buffers(pa.binary(32), 8, [is_valid, pa.py_buffer(b"".join(digests))])
    values = [digest if number % 3 != 2 else bytes(32) for number, digest in enumerate(digests)]
    column = pa.chunked_array([array, array.slice(1, 3)])
    for start, count in ((0, 11), (1, 4), (5, 6), (3, 0)):
        found = digests_of(pa.table({"sha256": column.slice(start, count)}))
        assert found.to_pybytes() == b"".join([*values, *values[1:4]][start : start + count])
