"""Groups of images on their way to a decode worker and back, as Arrow record batches of fixed schemas.

What a worker sends is untrusted: a photo may have taken it over. It is validated, and nothing of it is unpickled.
"""

from __future__ import annotations

import math
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from flowers_batch.sources.images import IMAGES

REQUESTS = pa.schema([*IMAGES, pa.field("is_missing", pa.bool_(), nullable=False)])
RESULTS = pa.schema(
    [
        pa.field("sha256", pa.binary(32)),
        pa.field("phash", pa.uint64()),
        pa.field("bytes", pa.int64()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("reason", pa.string()),
        pa.field("message", pa.string()),
    ]
)
# Why an image failed.
REASONS = {"missing", "unreadable", "not_an_image", "truncated", "too_large", "unsupported"}
REASONS |= {"crashed_decoder", "timeout"}
MISSING_MESSAGE = "The list no longer names it, or it no longer existed when it was listed."
MAX_ANSWER_BYTES = 1 << 20
_REQUEST = struct.Struct("<IQQ?")  # bytes that follow, number of the group, first slot, alone
_ANSWER = struct.Struct("<IQcdd")  # bytes that follow, number of the group, kind, seconds of reading and of decoding
DECODED, REFUSED, BUG = b"D", b"R", b"B"  # kinds of answers: rows, a sentence for the user, a traceback


class BrokenAnswerError(Exception):
    """What a worker sent is no answer."""


@dataclass(frozen=True)
class Request:
    """What a worker is asked for.

    Attributes:
        number: Of the group.
        first_slot: Where the first image goes; the others follow.
        is_alone: Whether no other photo that needs much memory may be decoded meanwhile.
        rows: The images, with the columns `REQUESTS`.
    """

    number: int
    first_slot: int
    is_alone: bool
    rows: pa.RecordBatch

    def encode(self) -> bytes:
        """Return it as it is sent."""
        body = self.rows.serialize()
        return _REQUEST.pack(body.size, self.number, self.first_slot, self.is_alone) + memoryview(body)


@dataclass(frozen=True)
class Answer:
    """What a worker answers.

    Attributes:
        number: Of the group.
        kind: `DECODED`, `REFUSED` or `BUG`.
        read_seconds, decode_seconds: What it took.
        body: Rows, or a text.
    """

    number: int
    kind: bytes
    read_seconds: float
    decode_seconds: float
    body: bytes | memoryview

    def encode(self) -> bytes:
        """Return it as it is sent."""
        head = _ANSWER.pack(len(self.body), self.number, self.kind, self.read_seconds, self.decode_seconds)
        return head + self.body

    def rows(self, images: int) -> pa.RecordBatch:
        """Return the rows of a group, checked.

        Args:
            images: How many there must be.

        Raises:
            BrokenAnswerError: They are not what a worker sends.
        """
        try:
            message = pa.ipc.read_message(pa.py_buffer(self.body))
            if message.type != "record batch" or _is_compressed(message.metadata):
                raise BrokenAnswerError("It is not a plain record batch.")
            rows = pa.ipc.read_record_batch(message, RESULTS)
            rows.validate(full=True)
        except (pa.ArrowException, OSError, ValueError, EOFError) as error:
            raise BrokenAnswerError(str(error)) from None
        if len(rows) != images or not _is_consistent(rows):
            raise BrokenAnswerError("The rows contradict each other.")
        return rows


def _is_consistent(rows: pa.RecordBatch) -> bool:
    """Return whether every image has a picture or a reason.

    Few functions of Arrow are called: between two groups, decoding has put all code out of the processor's caches.
    """
    sha256, _, size, width, height, reason, message = rows.columns
    if reason.null_count == len(rows):
        known = not any(column.null_count for column in (sha256, size, width, height))
        least = min(column.to_numpy().min() for column in (size, width, height)) if known else 0
        return known and message.null_count == len(rows) and bool(least >= 1)
    if reason.null_count:
        return all(_is_consistent(rows.filter(kind)) for kind in (reason.is_null(), reason.is_valid()))
    unknown = width.null_count == height.null_count == len(rows)
    return unknown and not message.null_count and set(reason.to_pylist()) <= REASONS


def requests_of(rows: pa.RecordBatch | pa.Table, is_missing: pa.Array | None = None) -> pa.RecordBatch:
    """Return images as a worker is sent them.

    Args:
        rows: Rows of a listing or of the manifest, which have at least the columns `IMAGES`.
        is_missing: bool [rows]: those that fail as `missing` without being read; None: none.
    """
    columns = [rows[name] for name in IMAGES.names]
    columns = [each.combine_chunks() if isinstance(each, pa.ChunkedArray) else each for each in columns]
    missing = pa.repeat(pa.scalar(False), len(rows)) if is_missing is None else is_missing
    return pa.RecordBatch.from_arrays([*columns, missing], schema=REQUESTS)


def receive_request(read: Callable[[int], bytes | None]) -> Request | None:
    """Return the next request; None if there are no more.

    Args:
        read: Returns as many bytes as are asked for; None at the end.
    """
    head = read(_REQUEST.size)
    if head is None:
        return None
    size, number, first_slot, is_alone = _REQUEST.unpack(head)
    body = read(size)
    if body is None:
        return None
    return Request(number, first_slot, is_alone, pa.ipc.read_record_batch(pa.py_buffer(body), REQUESTS))


def receive_answer(read: Callable[[int], bytes | None]) -> Answer | None:
    """Return the next answer; None if there are no more.

    Raises:
        BrokenAnswerError: It is too large, of an unknown kind, or says nonsense of the time that it took.
    """
    head = read(_ANSWER.size)
    if head is None:
        return None
    size, number, kind, read_seconds, decode_seconds = _ANSWER.unpack(head)
    if size > MAX_ANSWER_BYTES or kind not in (DECODED, REFUSED, BUG):
        raise BrokenAnswerError("It is too large, or of an unknown kind.")
    if not (0 <= read_seconds < math.inf and 0 <= decode_seconds < math.inf):
        raise BrokenAnswerError("It says nonsense of the time that it took.")
    body = read(size)
    if body is None:
        return None
    return Answer(number, kind, read_seconds, decode_seconds, body)


def _is_compressed(metadata: pa.Buffer) -> bool:
    """Return whether a record batch, of which Arrow has checked the flatbuffer, has compressed buffers.

    They could expand to a thousand times what was sent; Arrow has no option to refuse them. Fields are numbered as in
    Arrow's `Message.fbs`: a message's third is its header, here a record batch, whose fourth is the compression.
    """

    def find(table: int, field: int) -> int:
        vtable = table - struct.unpack_from("<i", metadata, table)[0]
        (size,) = struct.unpack_from("<H", metadata, vtable)
        at = 4 + 2 * field
        offset = struct.unpack_from("<H", metadata, vtable + at)[0] if at < size else 0
        return table + offset if offset else 0

    (message,) = struct.unpack_from("<I", metadata)
    header = find(message, 2)
    return bool(find(header + struct.unpack_from("<I", metadata, header)[0], 3))


def read_exactly(channel: socket.socket, size: int) -> bytes | None:
    """Return as many bytes from a socket as are asked for; None if it ends before."""
    parts = bytearray()
    while len(parts) < size:
        part = channel.recv(size - len(parts))
        if not part:
            return None
        parts += part
    return bytes(parts)


def failed_row(reason: str, message: str) -> pa.RecordBatch:
    """Return the result of an image that failed before it was read."""
    values = {"reason": reason, "message": message}
    return pa.RecordBatch.from_pylist([values], RESULTS)
