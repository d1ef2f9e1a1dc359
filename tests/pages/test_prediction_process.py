"""Predictions that the review has made in a process of its own."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from archive_runs import predict_with_link

import flowers_batch as fb
from flowers_batch.pages.review import prediction_process
from flowers_batch.pages.review.prediction_process import PredictionProcess
from flowers_batch.progress import NULL_REPORTER


def test_what_the_command_reports_is_passed_on():
    seen: list[str] = []
    reporter = SimpleNamespace(message=seen.append, update=lambda progress: seen.append(progress.text))
    counts = {"event": "progress", "text": "", "done": 5, "total": 9}
    lines = [
        json.dumps({"event": "message", "text": "A message."}),
        json.dumps(counts),
        json.dumps(counts | {"text": "starting"}),
        "a library's line",
        "[1]",
        "{",
    ]
    assert prediction_process._follow(lines, reporter) == ""
    assert seen == ["A message.", "5 of 9 photos", "starting"]
    assert prediction_process._follow(["error: The disk is full.\n"], reporter) == "The disk is full."


@pytest.mark.nightly
def test_archive_is_labelled_by_a_process_that_can_be_stopped(tmp_path):
    base = predict_with_link(tmp_path)
    process, out = PredictionProcess(), tmp_path / "labelled"
    process.predict(str(base / "codes"), str(out), str(base / "model"), NULL_REPORTER)
    assert fb.verify(out).is_complete and not Path("labelled").exists()
    with pytest.raises(fb.RunError, match=r"no model|is not a model|holds no model|There is no"):
        process.predict(str(base / "codes"), str(tmp_path / "other"), str(base / "photos"), NULL_REPORTER)
    stopped: list[str] = []

    def predict() -> None:
        try:
            process.predict(str(base / "codes"), str(tmp_path / "stopped"), str(base / "model"), NULL_REPORTER)
        except fb.RunError as error:
            stopped.append(str(error))

    thread = threading.Thread(target=predict)
    thread.start()
    time.sleep(1)
    process.close()
    thread.join(20)
    assert not thread.is_alive() and stopped
    with pytest.raises(fb.RunError, match="has ended"):
        process.predict("codes", "out", "model", NULL_REPORTER)
