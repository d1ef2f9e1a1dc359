"""Progress of long work, as people and programs see it."""

from __future__ import annotations

import json
import re
from contextlib import nullcontext

import pytest
from codes_folder import labels, write_codes

from flowers_batch import progress
from flowers_batch.cli import app
from flowers_batch.cli.main import main
from flowers_batch.progress import BarReporter, JsonReporter, LineReporter, Progress, console_reporter


@pytest.mark.parametrize(
    ("head", "step"), [("logistic", "logistic: sqrt_l2, C = 1, fold 2"), ("mlp", r"mlp: (\d+) of \1 photos of epoch 1")]
)
def test_train_command_reports_its_steps(monkeypatch, tmp_path, capsys, head, step):
    monkeypatch.setattr(app, "console_reporter", lambda verb, style: nullcontext(LineReporter(verb, seconds=0)))
    codes = write_codes(tmp_path / "codes", labels(daisy=30, rose=30))
    with pytest.raises(SystemExit):
        main(["train", str(codes), str(tmp_path / "model"), "--labels", "folder", "--head", head, "--json"])
    reported = capsys.readouterr().err
    for expected in (step, "learning curve: 25%"):
        assert re.search(f"train: {expected}", reported), expected


def test_updates_within_fifteen_seconds_write_no_line(capsys):
    with console_reporter("train", "lines") as reporter:
        reporter.update(Progress("first"))
        assert capsys.readouterr().err == "", "less than 15 seconds have passed"
        reporter.message("a word")
    assert capsys.readouterr().err == "train: a word\n"


def test_line_reporter_shows_rate_and_time_left(monkeypatch, capsys):
    clock = iter([0.0, 1.0, 1.0, 3.0, 3.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    reporter = LineReporter("encode", seconds=0)
    reporter.update(Progress(done=110, total=400, resumed=100))
    reporter.update(Progress(done=130, total=400, failed=1, resumed=100))
    assert capsys.readouterr().err.splitlines() == [
        "encode: 110 of 400 images, 0 failed",
        "encode: 130 of 400 images, 1 failed, 10.0 images/s, 27 s left",
    ]


def test_line_reporter_writes_the_last_counts_when_it_is_closed(capsys):
    with console_reporter("encode", "lines") as reporter:
        reporter.update(Progress(done=3, total=5, failed=1))
        reporter.update(Progress(done=5, total=5, failed=1))
    assert capsys.readouterr().err == "encode: 5 of 5 images, 1 failed\n"


def test_line_reporter_writes_the_counts_of_completed_work_once(capsys):
    with console_reporter("demo", "lines") as reporter:
        for done in (3, 5, 5):
            reporter.update(Progress(done=done, total=5))
        reporter.message("[4/6] train ...")
        reporter.update(Progress("epoch 1"))
    assert capsys.readouterr().err == "demo: 5 of 5 images, 0 failed\ndemo: [4/6] train ...\n"


def test_bar_of_completed_work_stands_above_later_messages(capsys):
    with console_reporter("demo", "bar") as reporter:
        for done in (3, 5):
            reporter.update(Progress(done=done, total=5))
        reporter.message("[4/6] train ...")
        reporter.update(Progress(done=5, total=5))
    bars, _, after = capsys.readouterr().err.partition("demo: [4/6] train ...")
    assert "5/5" in bars and not after.strip()


def test_bar_reporter_shows_text_on_one_line(capsys):
    reporter = BarReporter("train", seconds=0)
    reporter.update(Progress("epoch 3"))
    reported = capsys.readouterr().err
    assert "train: epoch 3 [00:00]" in reported and "\n" not in reported


def test_bar_reporter_shows_a_bar_of_images_after_text(capsys):
    reporter = BarReporter("finetune", seconds=0)
    reporter.update(Progress("finding near-duplicates"))
    reporter.update(Progress(done=1, total=4))
    reporter.update(Progress(done=2, total=4, failed=1))
    reporter.close()
    reported = capsys.readouterr().err
    assert "2/4" in reported and "failed=1" in reported


def test_json_reporter_writes_an_object_per_line(capsys):
    reporter = JsonReporter("encode", seconds=0)
    reporter.message("An actor died.")
    reporter.update(Progress(done=3, total=5, failed=1, resumed=2))
    message, update = map(json.loads, capsys.readouterr().err.splitlines())
    assert (message["command"], message["event"], message["text"]) == ("encode", "message", "An actor died.")
    assert update["event"] == "progress"
    assert [update[name] for name in ("done", "total", "failed", "resumed")] == [3, 5, 1, 2]


def test_unknown_progress_style_is_refused(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--progress", "loud", "encode", "photos", "codes"])
    assert ended.value.code == 2
    assert "--progress must be one of auto, bar, lines, json" in capsys.readouterr().err
