"""The command `predict` in a process of its own, since Ray may end the process that has started it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from threading import Lock

from flowers_batch.errors import RunError
from flowers_batch.progress import Progress, Reporter

_ERROR = "error: "  # begins the sentence that a failed command ends with
_STOP_SECONDS = 10.0  # until a command that is told to stop has ended


class PredictionProcess:
    """Labels codes as `flowers-batch predict` does; it can be stopped, and continues when it is called again."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._process: subprocess.Popen[str] | None = None
        self._is_closed = False

    def predict(self, codes: str, out: str, model: str, reporter: Reporter) -> None:
        """Label codes.

        Args:
            codes: The codes folder.
            out: The folder of the predictions.
            model: The model folder.
            reporter: Receives progress.

        Raises:
            RunError: The command failed, or was stopped.
        """
        arguments = ["--progress", "json", "predict", codes, out, "--model", model]
        with self._lock:
            if self._is_closed:
                raise RunError("The review has ended.")
            process = self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "flowers_batch", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                env=os.environ | {"PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in sys.path)},
                start_new_session=True,  # Ctrl-C is this process's to answer
            )
        assert process.stderr
        with process.stderr:
            sentence = _follow(process.stderr, reporter)
        if process.wait():
            raise RunError(sentence or f"The command `predict` ended with exit code {process.returncode}.")

    def close(self) -> None:
        """Stop the command, if it runs."""
        with self._lock:
            self._is_closed = True
            process = self._process
        if process is None or process.poll() is not None:
            return
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_SECONDS)
        process.kill()


def _follow(lines: Iterable[str], reporter: Reporter) -> str:
    """Pass on what a command reports until it ends; returns the sentence that says why it failed, if it did."""
    sentence = ""
    for line in lines:
        if line.startswith(_ERROR):
            sentence = line.removeprefix(_ERROR).strip()
            continue
        with suppress(ValueError, KeyError, TypeError):  # a library's own line
            event = json.loads(line)
            if event["event"] == "message":
                reporter.message(event["text"])
            elif event["event"] == "progress":
                text = event["text"] or f"{event['done']} of {event['total']} photos"
                reporter.update(Progress(text))
    return sentence
