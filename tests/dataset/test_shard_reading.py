"""A shard's file is checked when it is opened, and its rows while they are read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dataset_rows import codes_batch, finished, image_row, labelled, predictions_batch

from flowers_batch.dataset import shard_reading
from flowers_batch.dataset.run_folder import open_run
from flowers_batch.dataset.schema import CODES, PREDICTIONS
from flowers_batch.dataset.shard_file import FOOTER_KEY, read_footer, shard_name, write_shard
from flowers_batch.errors import InputError
from flowers_batch.storage.json_files import read_json, write_json
from flowers_batch.storage.opening import open_folder

CODE = ["path", "sha256", "code"]


def with_footer(file: Path, table: pa.Table, **changes) -> None:
    """Rewrite a shard's file with other rows, and its footer but for some changes."""
    footer = json.loads(pq.read_metadata(file).metadata[FOOTER_KEY]) | changes
    with pq.ParquetWriter(file, table.schema.remove_metadata()) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({FOOTER_KEY: json.dumps(footer).encode()})


def with_column(name: str, change: Callable[[list], list]) -> Callable[[pa.Table], pa.Table]:
    """Return what changes a column's values."""

    def changed(table: pa.Table) -> pa.Table:
        place = table.schema.get_field_index(name)
        values = pa.array(change(table[name].to_pylist()), table.schema.field(place).type)
        return table.set_column(place, table.schema.field(place), values)

    return changed


def with_bytes(table: pa.Table) -> pa.Table:
    """Put a path into the table that is not UTF-8."""
    paths = pa.array([b"\xff" * 3 for _ in range(len(table))], pa.binary()).view(pa.string())
    return table.set_column(0, table.schema.field(0), paths)


ROWS = {
    "a value of text is not UTF-8": with_bytes,
    "a code that is not finite": with_column("code", lambda codes: [[np.inf] * 8, *codes[1:]]),
    "a code of a failed image": with_column("status", lambda rows: ["failed", *rows[1:]]),
    "an unknown status": with_column("status", lambda rows: ["fine", *rows[1:]]),
    "a missing code": with_column("code", lambda codes: [None, *codes[1:]]),
    "a missing hash": with_column("phash", lambda rows: [None, *rows[1:]]),
    "other bytes": with_column("sha256", lambda rows: [bytes(32), *rows[1:]]),
    "fewer rows": lambda table: table.slice(1),
    "more rows": lambda table: pa.concat_tables([table, table]),
    "other columns": lambda table: table.drop_columns(["bytes"]),
    "a column twice": lambda table: table.append_column("bytes", table["bytes"]),
    "codes as decimals": lambda table: table.set_column(
        table.num_columns - 1, "code", pa.array([[1] * 8] * len(table), pa.list_(pa.decimal128(4), 8))
    ),
    "codes in lists": lambda table: table.set_column(
        table.num_columns - 1, "code", pa.array([[[1.0]]] * len(table), pa.list_(pa.list_(pa.float16())))
    ),
}


@pytest.mark.parametrize("change", ROWS.values(), ids=ROWS)
def test_shard_with_damaged_rows_is_refused_in_a_sentence(tmp_path, change):
    run = open_run(finished(tmp_path, CODES, [codes_batch(4), codes_batch(4)]), CODES)
    file = tmp_path / shard_name(CODES, 1)
    with_footer(file, change(pq.read_table(file)))
    with pytest.raises(InputError, match=r"shard-000001\.parquet cannot be used \(.+\): delete it, and run the same"):
        list(run.batches([*CODE, "phash"]))


@pytest.mark.parametrize(
    "change",
    [{"shard": 0}, {"fingerprint": "x"}, {"inputs_digest": "x"}, {"ok": 3}, {"ok": 10**12}, {"content_digest": "x"}],
    ids=str,
)
def test_shard_with_another_footer_is_refused(tmp_path, change):
    run = open_run(finished(tmp_path, CODES, [codes_batch(4), codes_batch(4)]), CODES)
    file = tmp_path / shard_name(CODES, 1)
    with_footer(file, pq.read_table(file), **change)
    with pytest.raises(InputError, match=r"shard-000001\.parquet cannot be used"):
        list(run.batches(CODE))


def test_renamed_shard_is_refused_by_all_that_open_one(tmp_path):
    run = open_run(finished(tmp_path, CODES, [codes_batch(4), codes_batch(4)]), CODES)
    shutil.copy(tmp_path / shard_name(CODES, 1), tmp_path / shard_name(CODES, 0))
    for read in (lambda: list(run.batches(["path"])), run.row_groups, lambda: run.code_width):
        with pytest.raises(InputError, match=r"shard-000000\.parquet cannot be used \(it is shard 1, not 0\)"):
            read()


def test_codes_of_another_width_are_refused(tmp_path):
    run = open_run(finished(tmp_path, CODES, [codes_batch(4), codes_batch(4)]), CODES)
    wide = codes_batch(4, width=9)
    write_shard(run.folder, CODES, wide.schema, [wide], read_footer(run.folder, CODES, 1))
    with pytest.raises(InputError, match="have 9 values, and those of the first shard 8"):
        run.row_groups()


@pytest.mark.parametrize(
    "changes",
    [
        {"probability": None},
        {"probability": float("nan")},
        {"probability": 7.0},
        {"top_labels": []},
        {"top_labels": [None, "other"]},
        {"top_probabilities": [0.5]},
        {"prediction": None},
        {"is_unknown": None},
    ],
    ids=str,
)
def test_prediction_that_contradicts_itself_is_refused(tmp_path, changes):
    rows = [labelled("a.jpg"), labelled("b.jpg") | changes]
    run = open_run(finished(tmp_path, PREDICTIONS, [predictions_batch(rows)]), PREDICTIONS)
    with pytest.raises(InputError, match=r"shard-000000\.parquet cannot be used"):
        list(run.batches(predictions_batch(rows).schema.names))


def test_codes_that_would_fill_the_memory_are_refused(tmp_path, monkeypatch):
    run = open_run(finished(tmp_path, CODES, [codes_batch(4)]), CODES)
    monkeypatch.setattr(shard_reading, "_MAX_GROUP_BYTES", 4 * 8 * 2 - 1)
    with pytest.raises(InputError, match=r"its codes are too long \(8 values\)"):
        list(run.batches(CODE))


def test_unchanged_shards_are_read(tmp_path):
    failed = image_row("b.jpg", "missing") | {"prediction": None}
    run = open_run(finished(tmp_path, PREDICTIONS, [predictions_batch([labelled("a.jpg"), failed])]), PREDICTIONS)
    assert sum(map(len, run.batches(predictions_batch([]).schema.names))) == 2


def test_counts_that_contradict_the_manifest_are_refused(tmp_path):
    finished(tmp_path, CODES, [codes_batch(4)])
    folder = open_folder(tmp_path)
    write_json(folder, "_SUCCESS", read_json(folder, "_SUCCESS") | {"shards": 10**12})
    with pytest.raises(InputError, match="has other counts than the manifest"):
        open_run(tmp_path, CODES)


def test_shard_with_a_column_whose_name_is_not_utf8_is_refused(tmp_path):
    finished(tmp_path, CODES, [codes_batch(3)])
    file = tmp_path / shard_name(CODES, 0)
    file.write_bytes(file.read_bytes().replace(b"phash", b"phas\xff"))
    with pytest.raises(InputError, match=r"cannot be used \(a column's name is not UTF-8\): delete it"):
        list(open_run(tmp_path, CODES).batches(CODE))
