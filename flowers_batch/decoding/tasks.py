"""Tasks of decode workers: consecutive images of a group, which is divided where an image ends its worker."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field

import pyarrow as pa

from flowers_batch.decoding.groups import Request
from flowers_batch.errors import RunError

TASKS_PER_WORKER = 2  # so that none waits for the next one


def closed_error() -> RunError:
    """Return the error of images that a closed pool did not decode."""
    return RunError("The decode workers were ended before all images were decoded.")


@dataclass(frozen=True)
class DecodedGroup:
    """The results of a group of images.

    Attributes:
        rows: One row per image, with the columns `groups.RESULTS`.
        read_seconds, decode_seconds: What workers spent.
    """

    rows: pa.RecordBatch
    read_seconds: float = 0.0
    decode_seconds: float = 0.0


class Collector:
    """Collects the results of the parts of a group.

    Args:
        images: In the group.

    Attributes:
        future: Gets the results of all of them.
    """

    def __init__(self, images: int):
        self.future: Future[DecodedGroup] = Future()
        self._left, self._parts = images, dict[int, DecodedGroup]()

    def add(self, place: int, part: DecodedGroup) -> None:
        """Add the results of consecutive images; only one thread does, at a time."""
        self._parts[place] = part
        self._left -= len(part.rows)
        if self._left:
            return
        if len(self._parts) > 1:
            parts = [self._parts[key] for key in sorted(self._parts)]
            rows = pa.concat_batches([each.rows for each in parts])
            read, decode = (sum(getattr(each, name) for each in parts) for name in ("read_seconds", "decode_seconds"))
            part = DecodedGroup(rows, read, decode)
        with suppress(InvalidStateError):
            self.future.set_result(part)

    def fail(self, error: BaseException) -> None:
        """Set what ended the group's work."""
        with suppress(InvalidStateError):
            self.future.set_exception(error)


@dataclass
class Task:
    """Consecutive images of a group.

    Attributes:
        number: Of the group.
        rows: The images, with the columns `groups.REQUESTS`.
        first_slot: Where the first one goes.
        collector: Gets the results.
        place: Of the first image in its group.
        is_alone: Whether it is one image, which is tried again because it has ended a worker.
        ends: How often it has, by kind.
    """

    number: int
    rows: pa.RecordBatch
    first_slot: int
    collector: Collector
    place: int = 0
    is_alone: bool = False
    ends: Counter[str] = field(default_factory=Counter)

    def request(self) -> Request:
        """Return it as it is sent to a worker."""
        return Request(self.number, self.first_slot, self.is_alone, self.rows)

    def part(self, start: int, stop: int, *, is_alone: bool = False) -> Task:
        """Return some of its images as a task."""
        rows = self.rows.slice(start, stop - start)
        return Task(self.number, rows, self.first_slot + start, self.collector, self.place + start, is_alone)

    def finish(self, part: DecodedGroup) -> None:
        """Set its results."""
        self.collector.add(self.place, part)

    def fail(self, error: BaseException) -> None:
        """Set what ended its group's work."""
        self.collector.fail(error)
