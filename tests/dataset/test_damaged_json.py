"""Every JSON file of a run's or a model's folder, mutated: a sentence, or a result, and never another exception."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from codes_folder import labels, write_codes

import flowers_batch as fb
from flowers_batch.classifier.model_folder import METRICS, MODEL, SPLIT, load_model, read_metrics, read_split
from flowers_batch.dataset.job import JOB
from flowers_batch.dataset.manifest_part import PART_KEY, part_name
from flowers_batch.dataset.run_folder import SUCCESS, open_run
from flowers_batch.dataset.schema import CODES
from flowers_batch.dataset.shard_file import FOOTER_KEY, shard_name
from flowers_batch.errors import FlowersError
from flowers_batch.pages.report.held_out import sentences_on_left_out_classes
from flowers_batch.sources.left_out_text import describe_left_out
from flowers_batch.storage.opening import open_folder

_VALUES = [None, -1, 0, 10**12, 1e300, float("nan"), float("inf"), True, "x", "\ud800", "\0", [], [[]], {}, {"": 0}]
_NESTED = b"[" * 100_000
_CONTENTS = [b"", b"null", b"[]", b'"x"', b"\xff\xfe", b"PAR1", _NESTED, b'{"a":' * 100_000, b"9" * 5000]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    """A codes folder and a model on it."""
    base = tmp_path_factory.mktemp("mutated")
    codes = write_codes(base / "codes", labels(daisy=30, rose=30), failed=1)
    fb.train(codes, base / "model", fb.TrainConfig(("folder",), head="logistic"))
    return base


def test_changed_byte_of_a_models_rows_is_noticed(folders):
    file, folder, columns = folders / "model" / SPLIT, open_folder(folders / "model"), ["path", "label", "prediction"]
    content, rows = file.read_bytes(), read_split(folder, columns)
    wrong = []
    for place in range(4, len(content) // 2, 7):  # of its pages, which the metadata follows
        file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        if is_read(lambda: read_split(folder, columns)) and read_split(folder, columns) != rows:
            wrong.append(place)
    file.write_bytes(content)
    assert not wrong


def places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """Yield the path to each value; of a list or an object of many, to the first two."""
    items = enumerate(value) if isinstance(value, list) else value.items() if isinstance(value, dict) else ()
    for number, (key, each) in enumerate(items):
        if number < 2 or isinstance(value, dict):
            yield (*path, key)
            yield from places(each, (*path, key))


def mutations(content: dict[str, Any]) -> Iterator[bytes]:
    """Yield contents that are no such object, and every eleventh change of a value; all of them take 20 s."""
    yield from _CONTENTS
    changes = itertools.product(places(content), [*_VALUES, "removed"])
    for (*parents, key), change in itertools.islice(changes, 0, None, 11):
        changed = copy.deepcopy(content)
        holder = changed
        for parent in parents:
            holder = holder[parent]
        if change == "removed":
            del holder[key]
        else:
            holder[key] = change
        yield json.dumps(changed).encode()


def is_read(read: Callable[[], Any]) -> bool:
    """Return whether a reader accepts what it reads; it may refuse it in a sentence only."""
    try:
        read()
    except FlowersError as error:
        assert str(error).endswith(".") and "\n" not in str(error)
        return False
    return True


def read_codes(base: Path) -> None:
    run = open_run(base / "codes", CODES)
    describe_left_out(run.summary)
    assert sum(len(batch) for batch in run.batches(["path"])) == 60


def read_model(base: Path) -> None:
    trained = load_model(base / "model")
    trained.head.probabilities(np.zeros((1, len(trained.head.layers[0][0]))))


def read_figures(base: Path) -> None:
    sentences_on_left_out_classes(read_metrics(open_folder(base / "model"))["left_out_classes"])


@pytest.mark.parametrize(
    ("name", "read"),
    [
        (f"codes/{JOB}", read_codes),
        (f"codes/{SUCCESS}", read_codes),
        (f"model/{MODEL}", read_model),
        (f"model/{METRICS}", read_figures),
    ],
)
def test_mutated_json_file_is_refused_in_a_sentence(folders, name, read):
    file = folders / name
    whole = file.read_bytes()
    refused = 0
    try:
        for content in mutations(json.loads(whole)):
            file.write_bytes(content)
            refused += not is_read(lambda: read(folders))
    finally:
        file.write_bytes(whole)
    assert is_read(lambda: read(folders)) and refused > 15


@pytest.mark.parametrize(
    ("name", "key"), [(shard_name(CODES, 0), FOOTER_KEY), (part_name(0), PART_KEY)], ids=["footer", "manifest"]
)
def test_mutated_json_in_parquet_is_refused_in_a_sentence(folders, name, key):
    file = folders / "codes" / name
    whole, table = file.read_bytes(), pq.read_table(file)
    refused = 0
    try:
        for content in mutations(json.loads(pq.read_metadata(file).metadata[key])):
            with pq.ParquetWriter(file, table.schema.remove_metadata()) as writer:
                writer.write_table(table)
                writer.add_key_value_metadata({key: content})
            refused += not is_read(lambda: read_codes(folders))
    finally:
        file.write_bytes(whole)
    assert is_read(lambda: read_codes(folders)) and refused > 10
