from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import fingerprint, store

from flowers_batch.dataset import duplicates, run_folder, shard_file
from flowers_batch.dataset import schema as schema_module
from flowers_batch.dataset.duplicates import count_duplicates
from flowers_batch.dataset.run_folder import SUCCESS, Job, Run, library_versions, open_run, read_job, write_job
from flowers_batch.dataset.schema import CODES, FAILED, OK, PREDICTIONS, codes_schema, folder_of, predictions_schema
from flowers_batch.dataset.shard_file import (
    Footer,
    content_digest_of,
    interleave,
    read_footer,
    read_shard,
    shard_name,
    write_shard,
)
from flowers_batch.dataset.spreadsheet import write_csv
from flowers_batch.errors import InputError, RunError
from flowers_batch.storage import folder as folder_module
from flowers_batch.storage.folder import Folder, open_folder

IMAGE_FIELDS = [
    pa.field("path", pa.string(), False),
    pa.field("folder", pa.string(), True),
    pa.field("sha256", pa.binary(32), True),
    pa.field("phash", pa.uint64(), True),
    pa.field("bytes", pa.int64(), True),
    pa.field("width", pa.int32(), True),
    pa.field("height", pa.int32(), True),
    pa.field("status", pa.string(), False),
    pa.field("reason", pa.string(), True),
    pa.field("message", pa.string(), True),
]
LIKE = Footer("print", 3, "inputs", 0, 0)
SHARD = shard_name(CODES, 3)


def image_row(path: str, reason: str | None = None) -> dict:
    row = {"path": path, "folder": folder_of(path), "status": FAILED if reason else OK, "reason": reason}
    if reason:
        return row | {"message": f"It is {reason}.", "sha256": None, "phash": None} | dict.fromkeys(SIZES)
    return row | {"message": None, "sha256": hashlib.sha256(path.encode()).digest(), "phash": 2**64 - 1} | SIZES


SIZES = {"bytes": 2**40, "width": 40_000, "height": 3}


def codes_batch(count: int, width: int = 8, kind: str = "float16", failed: tuple[int, ...] = ()) -> pa.RecordBatch:
    codes = np.random.default_rng(0).gamma(1, 3, (count, width)).astype(kind)
    rows = [
        image_row(f"a/{n}.jpg", "missing" if n in failed else None) | {"code": None if n in failed else codes[n]}
        for n in range(count)
    ]
    return pa.RecordBatch.from_pylist(rows, codes_schema(width, kind))


def predictions_batch(rows: list[dict]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(rows, predictions_schema())


def labelled(path: str, label: str = "roses", probability: float = 0.75) -> dict:
    return image_row(path) | {
        "prediction": label,
        "probability": probability,
        "top_labels": [label, "other"],
        "top_probabilities": [probability, 1 - probability],
        "is_unknown": False,
    }


def finished(where: Path, kind: str, shards: list[pa.RecordBatch]) -> Path:
    folder = open_folder(where)
    for number, batch in enumerate(shards):
        write_shard(folder, kind, batch.schema, [batch], replace(LIKE, shard=number))
    write_job(folder, Job(kind, "/photos", fingerprint(), "random:0"))
    folder.write_json(SUCCESS, {"shards": len(shards)})
    return where


@pytest.mark.parametrize(("store_as", "number"), [("float16", pa.float16()), ("float32", pa.float32())])
def test_columns_of_codes_are_as_agreed(store_as, number):
    code = pa.field("code", pa.list_(pa.field("element", number, nullable=False), 4096), True)
    assert codes_schema(4096, store_as).equals(pa.schema([*IMAGE_FIELDS, code]))


def test_columns_of_predictions_are_as_agreed():
    more = [
        pa.field("prediction", pa.string()),
        pa.field("probability", pa.float32()),
        pa.field("top_labels", pa.list_(pa.string())),
        pa.field("top_probabilities", pa.list_(pa.float32())),
        pa.field("is_unknown", pa.bool_()),
    ]
    assert predictions_schema().equals(pa.schema([*IMAGE_FIELDS, *more]))


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
    assert [batches for batches, _ in written] == [21, 42, 63, 70]  # none is held longer than it must be
    assert pq.read_metadata(tmp_path / SHARD).num_row_groups == 4
    assert (footer.ok, footer.failed) == (7000, 0)
    assert footer.content_digest == content_digest_of(pq.read_table(tmp_path / SHARD))
    groups = read_shard(folder, CODES, 3, ["path"])
    assert len(next(groups)) == 2100
    assert sum(map(len, groups)) == 4900


@pytest.mark.parametrize("mask", ["", "0", "1", "0110", "1" * 1500 + "01" * 800 + "0" * 700])
def test_two_streams_of_rows_become_one_in_the_order_that_is_asked_for(mask):
    is_first = np.array([letter == "1" for letter in mask], bool)
    expected = [
        f"{'first' if first else 'second'} {is_first[:row].tolist().count(first)}" for row, first in enumerate(is_first)
    ]
    schema = pa.schema([pa.field("path", pa.string())])

    def stream(name: str, count: int):
        rows = [{"path": f"{name} {number}"} for number in range(count)]
        for start in range(0, count, 7):
            yield pa.RecordBatch.from_pylist(rows[start : start + 7], schema)

    first, second = stream("first", int(is_first.sum())), stream("second", int((~is_first).sum()))
    rows = pa.Table.from_batches(interleave(first, second, is_first, schema), schema)
    assert rows["path"].to_pylist() == expected


def test_shard_without_rows_is_a_shard(tmp_path):
    folder = open_folder(tmp_path)
    write_shard(folder, CODES, codes_schema(8, "float16"), [], LIKE)
    assert replace(read_footer(folder, CODES, 3), content_digest="") == LIKE
    assert sum(len(batch) for batch in read_shard(folder, CODES, 3, ["path"])) == 0


@pytest.mark.parametrize("is_local", [True, False])
def test_footer_tells_fingerprint_number_inputs_and_counts(tmp_path, is_local):
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
    """Fails while the rows are written, and keeps the scratch file, as the death of a process does."""
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


def test_file_that_a_failed_writer_left_is_not_taken_for_a_shard(tmp_path, monkeypatch):
    folder = open_folder(tmp_path)
    left = leave_what_a_failed_writer_leaves(folder, monkeypatch)
    assert len(pq.read_table(left)) == 2  # whole to everyone else
    assert read_footer(folder, CODES, 3) is None
    left.rename(tmp_path / SHARD)
    assert read_footer(folder, CODES, 3) is None


def test_failed_writer_leaves_nothing_while_it_lives(tmp_path):
    def batches():
        yield codes_batch(3)
        raise ValueError

    with pytest.raises(ValueError):
        write_shard(open_folder(tmp_path), CODES, codes_schema(8, "float16"), batches(), LIKE)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_cut_shard_is_not_taken_for_a_shard(tmp_path):
    folder, batch = open_folder(tmp_path), codes_batch(5)
    write_shard(folder, CODES, batch.schema, [batch], LIKE)
    whole = (tmp_path / SHARD).read_bytes()
    for length in [*range(0, len(whole), 61), len(whole) - 1]:
        (tmp_path / SHARD).write_bytes(whole[:length])
        assert read_footer(folder, CODES, 3) is None


@pytest.mark.parametrize("content", [b"[]", b"{}", b"null", b"{", b'{"fingerprint": "print"}', b'{"unknown": 1}'])
def test_footer_of_another_version_is_not_taken_for_one(tmp_path, content):
    (tmp_path / CODES).mkdir()
    table = pa.table({"path": ["a"]}).replace_schema_metadata({b"flowers_batch.shard": content})
    pq.write_table(table, tmp_path / SHARD)
    assert read_footer(open_folder(tmp_path), CODES, 3) is None


def test_columns_of_a_shard_are_read_as_asked(tmp_path):
    folder, batch = open_folder(tmp_path), codes_batch(5)
    write_shard(folder, CODES, batch.schema, [batch], LIKE)
    (read,) = read_shard(folder, CODES, 3, ["status", "path"])
    assert read.schema.names == ["status", "path"]
    assert read["path"].to_pylist() == [f"a/{n}.jpg" for n in range(5)]


def test_shard_that_cannot_be_read_is_refused_in_a_sentence(tmp_path):
    folder = open_folder(tmp_path)
    told = r"codes/shard-000003\.parquet cannot be read \(.+\): delete it, and run the same command again\.$"
    with pytest.raises(InputError, match=told):
        list(read_shard(folder, CODES, 3, ["path"]))
    (tmp_path / CODES).mkdir()
    (tmp_path / SHARD).write_bytes(b"PAR1 and so on")
    with pytest.raises(InputError, match=told):
        list(read_shard(folder, CODES, 3, ["path"]))


@pytest.mark.parametrize(
    ("path", "folder"),
    [
        ("a.jpg", None),
        ("roses/a.jpg", "roses"),
        ("x/y/Löwenzahn/a.jpg", "Löwenzahn"),
        ("./a.jpg", None),
        ("../a.jpg", None),
        ("../roses/a.jpg", "roses"),
        ("//bytes/%FF.jpg", None),
        ("//bytes/roses/%FF.jpg", "roses"),
    ],
)
def test_folder_is_the_parents_name(path, folder):
    assert folder_of(path) == folder


def test_job_is_read_as_it_was_written(tmp_path):
    folder = open_folder(tmp_path)
    made = fingerprint(head="h", top_k=3)
    job = Job(PREDICTIONS, "/photos", made, "random:0", "/root", "/model", "/codes", library_versions())
    assert read_job(folder) is None
    write_job(folder, job)
    assert read_job(folder) == job
    content = json.loads((tmp_path / "job.json").read_text())
    assert content["digest"] == job.fingerprint.digest
    assert content["fingerprint"] == asdict(job.fingerprint)
    assert {"python", "ray", "tensorflow", "numpy", "pyarrow"} <= content["versions"].keys()


@pytest.mark.parametrize("content", ["[]", "{}", "null", "3", '{"digest": "x"}', '{"format": "x"}', "less"])
def test_damaged_job_is_refused(tmp_path, content):
    folder = open_folder(tmp_path)
    write_job(folder, Job(CODES, "/photos", fingerprint(), "random:0"))
    if content == "less":
        known = folder.read_json("job.json")
        del known["images"]
        content = json.dumps(known)
    (tmp_path / "job.json").write_text(content)
    with pytest.raises(InputError, match=r"job\.json is damaged \(.+\): restore it, or begin in a new folder\.$"):
        read_job(folder)


def test_job_ignores_fields_that_it_does_not_know(tmp_path):
    folder, job = open_folder(tmp_path), Job(CODES, "/photos", fingerprint(), "random:0")
    write_job(folder, job)
    folder.write_json("job.json", folder.read_json("job.json") | {"new": 1})
    assert read_job(folder) == job


def test_job_with_unknown_field_in_its_fingerprint_is_refused(tmp_path):
    folder = open_folder(tmp_path)
    write_job(folder, Job(CODES, "/photos", fingerprint(), "random:0"))
    content = folder.read_json("job.json")
    content["fingerprint"]["dropout"] = 0.5
    folder.write_json("job.json", content)
    with pytest.raises(InputError, match=r"depends on dropout, which .* does not know: install a newer version"):
        read_job(folder)


def test_finished_run_is_opened_and_streams_its_rows_in_order(tmp_path):
    shards = [codes_batch(4), codes_batch(2), codes_batch(3)]
    run = open_run(str(finished(tmp_path, CODES, shards)), CODES)
    assert run.shards == 3
    rows = [path for batch in run.batches(["path"]) for path in batch["path"].to_pylist()]
    assert rows == [path for batch in shards for path in batch["path"].to_pylist()]


@pytest.mark.parametrize("at_once", [2, 1 << 24])
def test_duplicates_are_counted_but_for_the_first_of_each_kind_and_failed_rows(tmp_path, monkeypatch, at_once):
    monkeypatch.setattr(duplicates, "_DIGESTS_AT_ONCE", at_once)
    folder, schema = open_folder(tmp_path), codes_schema(1, "float16")
    contents = [["a", "b", None, "a"], ["c", None, "a"], [], ["b"]]
    for number, names in enumerate(contents):
        rows = [image_row(name, None) if name else image_row("x", "missing") for name in names]
        batch = pa.RecordBatch.from_pylist([row | {"code": None} for row in rows], schema)
        write_shard(folder, CODES, schema, [batch], replace(LIKE, shard=number))
    assert count_duplicates(folder, CODES, len(contents), 8) == 3


def test_unfinished_run_is_refused_in_a_sentence(tmp_path):
    finished(tmp_path, CODES, [codes_batch(1)])
    (tmp_path / SUCCESS).unlink()
    with pytest.raises(InputError, match=r"is not finished: run the same `flowers-batch encode` again, which goes on"):
        open_run(str(tmp_path), CODES)


def test_foreign_folder_is_refused_in_a_sentence(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"")
    for where in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match=r"is not a folder of codes: make one with `flowers-batch encode`\.$"):
            open_run(str(where), CODES)


def test_folder_of_the_other_kind_is_refused_in_a_sentence(tmp_path):
    finished(tmp_path / "codes", CODES, [codes_batch(1)])
    finished(tmp_path / "predictions", PREDICTIONS, [predictions_batch([labelled("a.jpg")])])
    with pytest.raises(InputError, match=r"is not a folder of predictions: make one with `flowers-batch predict`\.$"):
        open_run(str(tmp_path / "codes"), PREDICTIONS)
    with pytest.raises(InputError, match=r"is not a folder of codes"):
        open_run(str(tmp_path / "predictions"), CODES)


def csv_of(tmp_path: Path, rows: list[dict]) -> bytes:
    run: Run = open_run(str(finished(tmp_path / "run", PREDICTIONS, [predictions_batch(rows)])), PREDICTIONS)
    write_csv(run, str(tmp_path / "out" / "labels.csv"))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["labels.csv"]
    return (tmp_path / "out" / "labels.csv").read_bytes()


def test_csv_begins_with_the_mark_of_utf8_and_holds_a_line_for_each_image(tmp_path):
    failed = image_row("kaputt/ü.jpg", "truncated") | dict.fromkeys(predictions_schema().names[len(IMAGE_FIELDS) :])
    content = csv_of(tmp_path, [labelled("a/b.jpg", "Gänseblümchen", 0.98766), failed])
    assert content.startswith(b"\xef\xbb\xbfpath,prediction,probability,is_unknown,status,reason,message\r\n")
    assert list(csv.reader(content.decode("utf-8-sig").splitlines()))[1:] == [
        ["a/b.jpg", "Gänseblümchen", "0.9877", "False", "ok", "", ""],
        ["kaputt/ü.jpg", "", "", "", "failed", "truncated", "It is truncated."],
    ]


def test_csv_has_no_name_that_a_spreadsheet_takes_for_a_formula(tmp_path):
    names = ["=1+1.jpg", "+a.jpg", "-a.jpg", "@a.jpg", "\ta.jpg", "\ra.jpg", "a=b.jpg"]
    content = csv_of(tmp_path, [labelled(name, label="=HYPERLINK(1)") for name in names]).decode("utf-8-sig")
    rows = list(csv.reader(content.splitlines(keepends=True)))[1:]
    assert [row[0] for row in rows] == [f"'{name}" for name in names[:-1]] + ["a=b.jpg"]
    assert {row[1] for row in rows} == {"'=HYPERLINK(1)"}


def test_csv_quotes_names_with_commas_quotes_and_newlines(tmp_path):
    names = ["a,b.jpg", 'a"b.jpg', "a\nb.jpg", "a\r\nb.jpg", "a;b.jpg"]
    content = csv_of(tmp_path, [labelled(name) for name in names])
    with open(tmp_path / "out" / "labels.csv", encoding="utf-8-sig", newline="") as file:
        assert [row["path"] for row in csv.DictReader(file)] == names
    assert b'"a,b.jpg",' in content and b'"a""b.jpg",' in content and b'"a\nb.jpg",' in content


def test_a_shard_with_a_flipped_bit_in_its_footer_is_no_whole_shard(tmp_path):
    """pyarrow tells of such files by many kinds of exception; each means that the shard is made again."""
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


def test_a_file_in_place_of_a_runs_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="not a folder of codes"):
        run_folder.open_run(str(tmp_path / "file"), schema_module.CODES)
