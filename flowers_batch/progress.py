"""Reporting on long work: a bar on a terminal, plain lines elsewhere, JSON lines in jobs; all on standard error."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from flowers_batch.text import unfiltered, visible

if TYPE_CHECKING:
    from tqdm import tqdm

STYLES = ("auto", "bar", "lines", "json")
_LINE_SECONDS = 15.0  # between two updates where each is a line
_BAR_SECONDS = 0.1  # between two updates of a terminal's line


@dataclass(frozen=True)
class Progress:
    """The state of long work.

    Attributes:
        text: What is being done, for work that is not counted in images.
        done: Images that are done; None for work that is not counted in images.
        total: Images in all; None if not known.
        failed: How many of those that are done failed.
        resumed: How many of those that are done an earlier run did; they do not count towards the rate.
    """

    text: str = ""
    done: int | None = None
    total: int | None = None
    failed: int = 0
    resumed: int = 0

    @property
    def is_complete(self) -> bool:
        """Whether all images are done."""
        return self.done is not None and self.done == self.total


class Reporter(Protocol):
    """Receives what a person should know about long work."""

    def message(self, sentence: str) -> None:
        """Report something that stays visible."""

    def update(self, progress: Progress) -> None:
        """Report the state of the work, in place of the one reported before; may be dropped if it comes too soon."""


class NullReporter:
    """Reports nothing."""

    def message(self, sentence: str) -> None:
        """Report nothing."""

    def update(self, progress: Progress) -> None:
        """Report nothing."""


NULL_REPORTER = NullReporter()


def no_progress() -> None:
    """Stand in for a function that is called with each piece of work, where nothing watches it."""


class _Rate:
    """Images per second since the first image was done, so that start-up does not count."""

    def __init__(self) -> None:
        self._first: tuple[float, int] | None = None

    def update(self, done: int) -> float | None:
        """Return the rate after `done` images of this run; None until it is known."""
        now = time.monotonic()
        if self._first is None:
            if done:
                self._first = now, done
            return None
        since, before = self._first
        # A shard whose actor died counts again, so fewer images may be done than before.
        return (done - before) / (now - since) if done > before and now > since else None


class LineReporter:
    """Writes a line per message, and one per `seconds` of updates.

    Args:
        verb: What is done, such as `encode`; begins each line.
        seconds: Between two lines of updates.
    """

    def __init__(self, verb: str, seconds: float = _LINE_SECONDS):
        self._verb, self._seconds = verb, seconds
        self._last = time.monotonic()
        self._rate = _Rate()
        self._unwritten: Progress | None = None  # counts that no line has shown yet
        self._complete: Progress | None = None  # the last counts of work that is done

    def message(self, sentence: str) -> None:
        """Write a line."""
        print(visible(f"{self._verb}: {sentence}"), file=sys.stderr, flush=True)

    def update(self, progress: Progress) -> None:
        """Write a line, unless one was written just now; the counts of completed work are always written, once."""
        if progress.is_complete:
            if progress != self._complete:
                self._complete, self._unwritten = progress, None
                self._write(progress, None)
            return
        rate = None if progress.done is None else self._rate.update(progress.done - progress.resumed)
        self._unwritten = None if progress.done is None else progress
        now = time.monotonic()
        if now - self._last >= self._seconds:
            self._last, self._unwritten = now, None
            self._write(progress, rate)

    def close(self) -> None:
        """Write the last counts."""
        if self._unwritten:
            self._write(self._unwritten, None)

    def _write(self, progress: Progress, rate: float | None) -> None:
        self.message(_progress_text(progress, rate))


class JsonReporter(LineReporter):
    """Writes a JSON object per line, for programs that read a job's log.

    A message is `{"event": "message", "text": ...}`, an update `{"event": "progress", ...}` with the fields of
    `Progress` and `images_per_second`.
    """

    def message(self, sentence: str) -> None:
        """Write a line."""
        self._write_event("message", text=sentence)

    def _write(self, progress: Progress, rate: float | None) -> None:
        self._write_event("progress", **asdict(progress), images_per_second=rate and round(rate, 1))

    def _write_event(self, event: str, **fields: Any) -> None:
        line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "command": self._verb, "event": event}
        # One write, so that no other process's line comes in between.
        sys.stderr.write(json.dumps(line | fields) + "\n")
        sys.stderr.flush()


class BarReporter:
    """Shows a bar of images, or one line of text that changes, on a terminal.

    Args:
        verb: What is done, such as `encode`.
        seconds: Between two changes of the text.
    """

    def __init__(self, verb: str, seconds: float = _BAR_SECONDS):
        self._verb, self._seconds = verb, seconds
        self._last = time.monotonic()
        self._bar: tqdm[Any] | None = None
        self._complete: Progress | None = None  # the counts of the last bar that was completed

    def message(self, sentence: str) -> None:
        """Write a line above the bar."""
        from tqdm import tqdm

        tqdm.write(visible(f"{self._verb}: {sentence}"), file=unfiltered(sys.stderr))

    def update(self, progress: Progress) -> None:
        """Change the bar or the text."""
        if progress.done is not None:
            self._count(progress)
            return
        now = time.monotonic()
        if now - self._last < self._seconds:
            return
        self._last = now
        if self._bar is None or self._bar.total is not None:
            self.close()
            self._bar = _tqdm(bar_format="{desc} [{elapsed}]", leave=False)
        self._bar.set_description_str(visible(f"{self._verb}: {progress.text}"))

    def _count(self, progress: Progress) -> None:
        assert progress.done is not None
        if progress == self._complete:
            return
        if self._bar is None or self._bar.total != progress.total:
            self.close()
            self._bar = _tqdm(
                desc=self._verb,
                total=progress.total,
                initial=progress.resumed,
                unit=" images",
                smoothing=0.1,
            )
        self._bar.set_postfix(failed=progress.failed, refresh=False)
        self._bar.update(progress.done - self._bar.n)
        if progress.is_complete:
            self._complete = progress
            self.close()

    def close(self) -> None:
        """Leave a bar as it stands; clear a text."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


@contextmanager
def console_reporter(verb: str, style: str = "auto") -> Iterator[Reporter]:
    """Report on standard error until the block ends.

    Args:
        verb: What is done, such as `encode`.
        style: `bar`, `lines`, `json`, or `auto`: a bar on a terminal, else lines.
    """
    if style == "auto":
        style = "bar" if sys.stderr.isatty() else "lines"
    kinds: dict[str, type[BarReporter | LineReporter]]
    kinds = {"bar": BarReporter, "lines": LineReporter, "json": JsonReporter}
    reporter = kinds[style](verb)
    try:
        yield reporter
    finally:
        reporter.close()


def _tqdm(**options: Any) -> tqdm[Any]:
    from tqdm import tqdm  # only where a bar is shown, so that the command starts quickly

    return tqdm(file=unfiltered(sys.stderr), **options)


def _progress_text(progress: Progress, rate: float | None) -> str:
    if progress.done is None:
        return progress.text
    line = f"{progress.done} of {progress.total} images, {progress.failed} failed"
    if not rate or progress.total is None:
        return line
    return f"{line}, {rate:.1f} images/s, {(progress.total - progress.done) / rate:.0f} s left"
