"""Long computations of the review page: one at a time, in the background, and each only once."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from threading import Condition, Lock, Thread
from time import monotonic
from typing import Generic, Protocol, TypeVar

from flowers_batch.progress import Progress, Reporter

Result = TypeVar("Result")
WAITING = "waiting until other work is done"


class _HasStep(Protocol):
    step: str


class StepReporter:
    """Shows the latest step of a computation in its status.

    Args:
        status: Has the attribute `step`.
    """

    def __init__(self, status: _HasStep):
        self._status = status

    def message(self, sentence: str) -> None:
        """Show a message as the step."""
        self._status.step = sentence

    def update(self, progress: Progress) -> None:
        """Show the text of an update as the step."""
        self._status.step = progress.text


class Computation(Generic[Result]):
    """A long computation in a daemon thread, whose result is kept until its input has another version.

    Args:
        compute: Returns the result; receives a reporter.
        turn: Held while it computes: computations with the same turn wait for each other.

    Attributes:
        step: What is being done.
    """

    def __init__(self, compute: Callable[[Reporter], Result], turn: Lock):
        self.step = ""
        self._compute, self._turn = compute, turn
        self._ended = Condition()  # notified when a computation ends; its lock guards everything below
        self._version: Hashable = None  # of the input that is computed, or was
        self._is_running, self._began = False, 0.0
        self._outcome: Result | BaseException | None = None

    def result(self, version: Hashable, patience: float = 0.0) -> Result | None:
        """Return the result for the current input; None while it is computed, which this starts if necessary.

        Args:
            version: Of the input: changes when a result no longer holds. It is not None.
            patience: Seconds from the start of the computation until which it waits for the result.

        Raises:
            Exception: The computation failed; it is tried again the next time.
        """
        with self._ended:
            if not self._is_running and version != self._version:
                self._version, self._is_running, self.step = version, True, WAITING
                self._began = monotonic()
                Thread(target=self._run, daemon=True).start()
            self._ended.wait_for(lambda: not self._is_running, max(0.0, self._began + patience - monotonic()))
            if self._is_running or version != self._version:
                return None
            outcome = self._outcome
            if isinstance(outcome, BaseException):
                self._version = None
                raise outcome
            return outcome

    def _run(self) -> None:
        outcome: Result | BaseException
        try:
            with self._turn:
                self.step = ""
                outcome = self._compute(StepReporter(self))
        except BaseException as error:
            outcome = error
        with self._ended:
            self._outcome, self._is_running = outcome, False
            self._ended.notify_all()
