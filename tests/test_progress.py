"""What a person is told while long work goes on."""

from __future__ import annotations

import logging
import re

import pytest
from test_training import labels, write_codes

from flowers_batch import progress
from flowers_batch.cli.main import main


@pytest.fixture
def at_once(monkeypatch):
    """Every step is shown."""
    monkeypatch.setattr(progress, "_LINE_SECONDS", 0)
    monkeypatch.setattr(progress, "_BAR_SECONDS", 0)


def test_a_training_says_what_it_is_at(at_once, tmp_path, capsys):
    codes = write_codes(tmp_path / "codes", labels(daisy=30, rose=30))
    with pytest.raises(SystemExit):
        main(["train", str(codes), str(tmp_path / "model"), "--json"])
    told = capsys.readouterr().err
    for step in (
        "logistic: strength 0.01 on fold 2 of 3",
        r"mlp: (\d+) of \1 photos of epoch 1",
        "learning curve: 25%",
    ):
        assert re.search(f"train: {step}", told), step


def test_steps_are_shown_while_asked_for_and_seldom(tmp_path, capsys):
    logger = logging.getLogger("flowers_batch.somewhere")
    with progress.steps("train"):
        logger.info("first")
    logger.info("later")
    assert capsys.readouterr().err == "", "less than 15 seconds have gone by"


def test_a_terminal_has_one_line(at_once, monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with progress.steps("train"):
        logging.getLogger("flowers_batch.somewhere").info("epoch %d", 3)
    told = capsys.readouterr().err
    assert "train: epoch 3 [00:00]" in told and "\n" not in told
