from __future__ import annotations

import io
import math
import pickle
import struct

import pyarrow as pa
import pytest
from helpers import listed

from flowers_batch.decoding import groups
from flowers_batch.decoding.groups import RESULTS, Answer, BrokenAnswerError, Request, failed_row
from flowers_batch.sources.images import batches_of

OK = {"sha256": bytes(32), "phash": 2**64 - 1, "bytes": 9, "width": 8, "height": 7, "reason": None, "message": None}
FAILED = dict.fromkeys(RESULTS.names) | {"reason": "truncated", "message": "Cut short."}


def batch(*rows: dict, schema: pa.Schema = RESULTS) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(list(rows), schema)


def answer(body: bytes, kind: bytes = groups.DECODED, seconds: float = 0.5) -> Answer:
    return Answer(7, kind, seconds, 0.25, body)


def received(data: bytes) -> Answer | None:
    stream = io.BytesIO(data)

    def read(size: int) -> bytes | None:
        part = stream.read(size)
        return part if len(part) == size else None

    return groups.receive_answer(read)


def test_answer_and_request_survive_the_pipe():
    rows = batch(OK, FAILED)
    found = received(answer(rows.serialize().to_pybytes()).encode())
    assert found and found.rows(2) == rows
    assert (found.number, found.kind, found.read_seconds, found.decode_seconds) == (7, groups.DECODED, 0.5, 0.25)
    (images,) = batches_of(listed(["a.png", "ü/🌸.png"]))
    request = Request(2**63, 5, True, groups.requests_of(images, pa.array([False, True])))
    stream = io.BytesIO(request.encode())
    assert groups.receive_request(stream.read) == request


def test_answer_that_ends_early_is_none():
    data = answer(failed_row("timeout", "Late.").serialize().to_pybytes()).encode()
    assert received(data) and all(received(data[:size]) is None for size in (0, 1, 20, len(data) - 1))


@pytest.mark.parametrize("seconds", [-1.0, math.nan, math.inf])
def test_head_of_nonsense_is_refused(seconds):
    for head in (answer(b"", seconds=seconds), answer(b"", kind=b"X"), answer(bytes(groups.MAX_ANSWER_BYTES + 1))):
        with pytest.raises(BrokenAnswerError):
            received(head.encode())


CONTRADICTIONS = {
    "a row too few": [OK],
    "a row too many": [OK, OK, OK],
    "unknown reason": [OK, FAILED | {"reason": "magic"}],
    "failed with a size": [OK, FAILED | {"width": 8}],
    "failed without a message": [OK, FAILED | {"message": None}],
    "decoded with a message": [OK, OK | {"message": "Fine."}],
    "decoded without a height": [OK, OK | {"height": None}],
    "decoded without a digest": [OK, OK | {"sha256": None}],
    "decoded without a length": [FAILED, OK | {"bytes": None}],
    "no pixels": [OK, OK | {"width": 0}],
    "less than no pixels": [FAILED, OK | {"height": -3}],
    "less than no bytes": [OK, OK | {"bytes": -1}],
}


@pytest.mark.parametrize("rows", CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_contradictory_rows_are_refused(rows):
    with pytest.raises(BrokenAnswerError):
        answer(batch(*rows).serialize().to_pybytes()).rows(2)


def stream_of(rows: pa.RecordBatch, part: int, **options: str) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, rows.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_batch(rows)
    return list(pa.ipc.MessageReader.open_stream(sink.getvalue()))[part].serialize().to_pybytes()


def other_schema() -> bytes:
    return pa.RecordBatch.from_pydict({"sha256": ["x", "y"]}).serialize().to_pybytes()


def with_bytes(find: bytes, put: bytes) -> bytes:
    body = batch(OK | {"reason": None}, FAILED).serialize().to_pybytes()
    assert body.count(find) >= 1 and len(find) == len(put)
    return body.replace(find, put)


BODIES = {
    "nothing": b"",
    "zeros": bytes(600),
    "text": b"a letter" * 100,
    "a pickle": pickle.dumps(OK),
    "a schema": stream_of(batch(OK, FAILED), 0),
    "compressed": stream_of(batch(OK, FAILED), 1, compression="zstd"),
    "compressed otherwise": stream_of(batch(OK, FAILED), 1, compression="lz4"),
    "another schema": other_schema(),
    "offset out of bounds": with_bytes(struct.pack("<3i", 0, 0, 10), struct.pack("<3i", 0, 0, 1 << 30)),
    "offset below zero": with_bytes(struct.pack("<3i", 0, 0, 10), struct.pack("<3i", -9, 0, 10)),
    "no UTF-8": with_bytes(b"Cut short.", b"\xff\xfet short."),
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_body_that_is_no_plain_batch_is_refused(body):
    with pytest.raises(BrokenAnswerError):
        answer(body).rows(2)


def test_compressed_bomb_takes_no_memory():
    bomb = stream_of(batch(OK, FAILED | {"message": "x" * (64 << 20)}), 1, compression="zstd")
    assert len(bomb) < groups.MAX_ANSWER_BYTES
    before = pa.total_allocated_bytes()
    pool = pa.default_memory_pool()
    peak = pool.max_memory()
    with pytest.raises(BrokenAnswerError):
        answer(bomb).rows(2)
    assert pa.total_allocated_bytes() - before < 1 << 20 and pool.max_memory() == peak


def test_any_damage_to_a_body_is_refused_or_changes_values_only():
    body = batch(OK, FAILED).serialize().to_pybytes()
    for at in range(len(body)):
        for value in (0, 1, 0x7F, 0xFF):
            damaged = body[:at] + bytes([value]) + body[at + 1 :]
            try:
                rows = answer(damaged).rows(2)
            except BrokenAnswerError:
                continue
            assert len(rows) == 2 and rows.schema == RESULTS
