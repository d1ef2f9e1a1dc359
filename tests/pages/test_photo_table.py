"""The rows of a run in memory: what they say, and how much they take."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from codes_folder import write_codes
from dataset_rows import finished, image_row, labelled, predictions_batch
from helpers import fingerprint
from listings import grown

import flowers_batch as fb
from flowers_batch.dataset.run_folder import SUCCESS, open_run
from flowers_batch.dataset.schema import CODES, PREDICTIONS, predictions_schema
from flowers_batch.dataset.shard_file import Footer, write_shard
from flowers_batch.pages.review import memory
from flowers_batch.pages.review.photo_table import PhotoTable
from flowers_batch.pages.review.predictions import Predictions
from flowers_batch.sources.images import Image
from flowers_batch.storage.json_files import read_json, write_json
from flowers_batch.storage.opening import open_folder

_COLUMNS = ["path", "prediction", "probability", "status", "reason", "message"]


def written(folder: Path, *shards: list[dict]) -> PhotoTable:
    finished(folder, PREDICTIONS, [predictions_batch(rows) for rows in shards])
    return PhotoTable(open_run(folder, PREDICTIONS))


def test_rows_are_those_of_the_shards(tmp_path):
    shards = [
        [labelled("a/1.jpg", "roses", 0.5), image_row("a/2.jpg", "missing")],
        [image_row("b/1.jpg", "truncated"), labelled("b/2.jpg", "tulips", 0.25), labelled("b/3.jpg", "roses", 0.75)],
    ]
    table = written(tmp_path, *shards)
    expected = predictions_batch([*shards[0], *shards[1]]).select(_COLUMNS).to_pylist()
    assert len(table) == 5 and table.take(range(5)) == expected and table.take([3, 0]) == [expected[3], expected[0]]
    assert table.predictions.classes == ("roses", "tulips") and table.folders == ["a", "b"]
    assert table.is_ok.tolist() == [True, False, False, True, True]
    assert table.predictions.labels_of(np.array([4, 3, 2])).to_pylist() == ["roses", "tulips", None]
    assert table.predictions.is_label("roses").tolist() == [True, False, False, False, True]
    assert not table.predictions.is_label("unheard of").any()
    assert [table.place_of(row) for row in range(5)] == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]
    assert table.find(["b/3.jpg", "no.jpg", "a/1.jpg"]) == {"b/3.jpg": 4, "a/1.jpg": 0}
    assert table.rows_of(pa.array(["no.jpg", "b/1.jpg"])).tolist() == [-1, 2]
    for row in (-1, 5, 10**30):
        with pytest.raises(fb.InputError, match="no photo"):
            table.take([row])


def test_shard_whose_photos_were_all_pruned_has_no_rows(tmp_path):
    finished(tmp_path, PREDICTIONS, [predictions_batch([labelled(f"a/{number}.jpg")]) for number in (1, 2)])
    folder = open_folder(tmp_path)
    summary = read_json(folder, SUCCESS)
    shard = grown(folder, [Image("a/1.jpg")], prune=True)[0].shards[1]
    footer = Footer(fingerprint().digest, 1, shard.inputs_digest, 0, 0)
    write_shard(folder, PREDICTIONS, predictions_schema(), [], footer)
    write_json(folder, SUCCESS, summary | {"images": 1})
    table = PhotoTable(open_run(tmp_path, PREDICTIONS))
    assert len(table) == 1 and table.path(0) == "a/1.jpg"


def test_least_certain_rows_are_limited_and_in_order(tmp_path):
    table = written(tmp_path, [labelled(f"{n}.jpg", probability=(n * 7 % 100) / 100) for n in range(100)])
    in_order = sorted(range(100), key=lambda n: n * 7 % 100)
    chosen = np.ones(100, bool)
    assert table.predictions.least_certain(chosen, 100).tolist() == in_order
    assert table.predictions.least_certain(chosen, 7).tolist() == in_order[:7]


def test_row_takes_its_path_and_some_bytes(tmp_path):
    """Ten million rows are to fit: each takes its path, four bytes for the end of it, and nine more."""
    count, classes = 40_000, [f"class {number:04d}" for number in range(2000)]
    rows = pa.table(
        {
            "path": [f"archive/{number:08d}.jpg" for number in range(count)],
            "status": pa.repeat("ok", count),
            "prediction": pa.array(classes).take(pa.array(np.arange(count) % 2000)),
            "probability": np.linspace(0, 1, count, dtype=np.float32),
        }
    )
    schema = predictions_schema()
    columns = [rows[name] if name in rows.column_names else pa.nulls(count) for name in schema.names]
    shards = pa.table([column.cast(field.type) for column, field in zip(columns, schema, strict=True)], schema=schema)
    finished(tmp_path, PREDICTIONS, shards.combine_chunks().to_batches(4096))
    del rows, columns, shards
    table = PhotoTable(open_run(tmp_path, PREDICTIONS))
    kept = [*vars(table).values(), *vars(table.predictions).values()]
    # Whole buffers, so that a slice counts as what it keeps alive.
    tables = sum(each.get_total_buffer_size() for each in kept if isinstance(each, pa.ChunkedArray | pa.Table))
    arrays = sum(each.nbytes for each in kept if isinstance(each, np.ndarray))
    assert len("archive/00000000.jpg") < (tables + arrays) / count < len("archive/00000000.jpg") + 4 + 9 + 2
    rows, needed = memory.estimate_rows(table.run)
    assert rows == count and needed / count == pytest.approx(len("archive/00000000.jpg") + 66, abs=5)


def test_rows_that_do_not_fit_in_memory_are_refused_with_numbers(tmp_path, monkeypatch):
    finished(tmp_path, PREDICTIONS, [predictions_batch([labelled(f"{n:0200d}.jpg") for n in range(1000)])])
    monkeypatch.setattr(memory, "available_memory", lambda: 400_000)
    with pytest.raises(fb.InputError, match=r"about 1,000 photos.* 0\.3 MB .* 0\.2 MB") as caught:
        PhotoTable(open_run(tmp_path, PREDICTIONS))
    assert f"`flowers-batch suggest {tmp_path} --count 1000" in str(caught.value)
    monkeypatch.setattr(memory, "available_memory", lambda: 1_000_000)
    assert len(PhotoTable(open_run(tmp_path, PREDICTIONS))) == 1000


def test_readers_see_the_predictions_of_one_classifier(tmp_path):
    """Another thread replaces all predictions at once: no class comes with the probability of another classifier."""
    table = written(tmp_path, [labelled(f"{number}.jpg") for number in range(50)])
    versions = [
        Predictions((name,), np.zeros(50, np.int32), np.full(50, probability, np.float32))
        for name, probability in (("roses", 0.25), ("tulips", 0.75))
    ]
    stop = threading.Event()

    def replace() -> None:
        for version in itertools.cycle(versions):
            table.predictions = version
            if stop.is_set():
                return

    thread = threading.Thread(target=replace)
    table.predictions = versions[0]
    thread.start()
    try:
        seen = [{(row["prediction"], row["probability"]) for row in table.take(range(50))} for _ in range(200)]
    finally:
        stop.set()
        thread.join()
    assert all(len(each) == 1 for each in seen) and set().union(*seen) <= {("roses", 0.25), ("tulips", 0.75)}


def test_codes_have_rows_without_predictions(tmp_path):
    write_codes(tmp_path, ["a", "b", "b"], failed=1)
    table = PhotoTable(open_run(tmp_path, CODES))
    assert table.predictions is None and table.folders == ["a", "b"]
    assert table.take([0, 2]) == [
        {"path": "a/000.jpg", "prediction": None, "probability": None, "status": "ok", "reason": None, "message": None},
        {"path": "b/002.jpg", "prediction": None, "probability": None, "status": "failed"}
        | {"reason": "truncated", "message": None},
    ]
