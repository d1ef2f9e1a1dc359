"""A training that the page starts and follows, in a background thread."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from threading import Lock, Thread
from typing import Any

from flowers_batch.errors import FlowersError, InputError
from flowers_batch.pages.review.computation import WAITING, StepReporter
from flowers_batch.pages.review.training_plan import TrainingPlan
from flowers_batch.progress import Reporter


@dataclass
class TaskStatus:
    """How far a task is, as the page shows it.

    Attributes:
        state: `idle`, `running`, `done` or `failed`.
        step: What is being done.
        error: Why it failed.
        result: What `TrainingTask.work` returned; None before.
    """

    state: str = "idle"
    step: str = ""
    error: str = ""
    result: dict[str, Any] | None = None


class TrainingTask(ABC):
    """A task that runs in a daemon thread, once at a time.

    Args:
        plan: What the training is given.
        turn: Held while the task runs: it takes long and much memory.
        failure: A sentence without a full stop that says what has failed, if a fault of the program ends the task.

    Attributes:
        status: Of the latest run.
    """

    def __init__(self, plan: TrainingPlan, turn: Lock, failure: str):
        self._plan, self._turn, self._failure = plan, turn, failure
        self._lock = Lock()  # of the status
        self.status = TaskStatus()

    @abstractmethod
    def work(self, reporter: Reporter) -> dict[str, Any]:
        """Do the task, and return its result."""

    def start(self) -> None:
        """Start in a background thread, unless it runs.

        Raises:
            InputError: There are no codes to train on.
        """
        if not self._plan.codes:
            raise InputError(f"Training is not possible here: {self._plan.unavailable}")
        with self._lock:
            if self.status.state == "running":
                return
            self.status = TaskStatus("running", WAITING)
        Thread(target=self._run, args=(self.status,), daemon=True).start()

    def _run(self, status: TaskStatus) -> None:
        try:
            with self._turn:
                status.result = self.work(StepReporter(status))
            status.state = "done"
        except FlowersError as error:
            status.state, status.error = "failed", str(error)
        except Exception as error:
            status.state, status.error = "failed", f"{self._failure}: {error!r}."
