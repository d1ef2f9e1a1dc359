"""Tells a person how long work goes: a bar on a terminal, plain lines elsewhere, all on standard error."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

_LINE_SECONDS = 15.0  # between two plain lines
_BAR_SECONDS = 0.1  # between two changes of a terminal's line


class Progress:
    """The progress of a run over images.

    Args:
        verb: What is done, such as `encode`.
        total: Images in all.
        already: Images that were done before.
    """

    def __init__(self, verb: str, total: int, already: int):
        self._verb, self._total, self._already = verb, total, already
        self._began: float | None = None  # when the first image was done: starting up is no rate
        self._last = time.monotonic()
        self._reached = (0, 0)
        self._bar = None
        if sys.stderr.isatty():
            self._bar = tqdm(desc=verb, total=total, initial=already, unit=" images", smoothing=0.1)

    def update(self, done: int, failed: int) -> None:
        """So many images are done by now, so many of them failed."""
        now = time.monotonic()
        self._reached = (done, failed)
        if self._bar is not None:
            self._bar.set_postfix(failed=failed, refresh=False)
            self._bar.update(self._already + done - self._bar.n)
            return
        if self._began is None and done:
            self._began, self._first = now, done
        if now - self._last >= _LINE_SECONDS:
            self._last = now
            self.say(self._line(done, failed, now))

    def _line(self, done: int, failed: int, now: float) -> str:
        line = f"{self._already + done} of {self._total} images, {failed} failed"
        if self._began is None or done <= self._first:  # shards of an actor that died count again
            return line
        rate = (done - self._first) / (now - self._began)
        left = (self._total - self._already - done) / rate
        return f"{line}, {rate:.1f} images/s, {left:.0f} s left"

    def say(self, sentence: str) -> None:
        """Something that a person should know now."""
        if self._bar is not None:
            self._bar.write(sentence, file=sys.stderr)
        else:
            print(f"{self._verb}: {sentence}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leaves the bar as it stands, or tells how far it came."""
        if self._bar is not None:
            self._bar.close()
        else:
            done, failed = self._reached
            self.say(f"{self._already + done} of {self._total} images, {failed} failed")


class Silence:
    """Tells nothing: what the Python interface uses unless asked."""

    def update(self, done: int, failed: int) -> None:
        """Nothing."""

    def say(self, sentence: str) -> None:
        """Nothing."""


@contextmanager
def watch(shown: bool, verb: str, total: int, already: int) -> Iterator[Progress | Silence]:
    """Shows the progress of a run, or nothing."""
    if not shown:
        yield Silence()
        return
    progress = Progress(verb, total, already)
    try:
        yield progress
    finally:
        progress.close()


class _Steps(logging.Handler):
    """Shows the latest step of long work: on a terminal in one line, elsewhere in a line now and then.

    A record whose `stays` is true is shown in any case, in a line of its own.
    """

    def __init__(self, verb: str):
        super().__init__(logging.INFO)
        self._verb = verb
        self._last = time.monotonic()
        self._bar = tqdm(bar_format="{desc} [{elapsed}]", desc=verb, leave=False) if sys.stderr.isatty() else None

    def emit(self, record: logging.LogRecord) -> None:
        """Shows a step, unless one was shown just now."""
        now = time.monotonic()
        stays = getattr(record, "stays", False)
        if not stays and now - self._last < (_LINE_SECONDS if self._bar is None else _BAR_SECONDS):
            return
        self._last = now
        sentence = f"{self._verb}: {record.getMessage()}"
        if self._bar is None:
            print(sentence, file=sys.stderr, flush=True)
        elif stays:
            self._bar.write(sentence, file=sys.stderr)
        else:
            self._bar.set_description_str(sentence)

    def close(self) -> None:
        """Clears the line."""
        if self._bar is not None:
            self._bar.close()
        super().close()


@contextmanager
def steps(verb: str) -> Iterator[None]:
    """Shows what the package's rooms log as they work until the block ends."""
    with heard_by(_Steps(verb)):
        yield


@contextmanager
def heard_by(handler: logging.Handler) -> Iterator[None]:
    """Lets a handler have what the package's rooms log (`logging`, level INFO) until the block ends."""
    logger = logging.getLogger(__package__)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        handler.close()
