"""The result of a training as text."""

from __future__ import annotations

from typing import Any

import pytest
from codes_folder import write_codes

import flowers_batch as fb
from flowers_batch.cli.metrics_rendering import training_text

LOGISTIC = fb.TrainConfig(("folder",), head="logistic")


@pytest.fixture
def text_of(tmp_path):
    """Train on classes of four photos each, and return the text."""

    def text(classes: list[str], spread: float) -> str:
        write_codes(tmp_path / "codes", [name for name in classes for _ in range(4)], spread=spread)
        return training_text(fb.train(tmp_path / "codes", tmp_path / "model", LOGISTIC), "model")

    return text


def test_few_classes_are_shown_as_a_matrix(text_of):
    text = text_of([f"class {number}" for number in range(30)], 0.1)
    assert "and the confusion matrix" in text
    assert sum(line.startswith("    class ") for line in text.splitlines()) == 1 + 30


def test_columns_are_aligned_beside_names_with_line_breaks(text_of):
    lines = text_of(["a\nb", "c"], 0.1).splitlines()
    heading = next(line for line in lines if line.startswith("    class "))
    assert all(
        line[heading.index(" photos") :].startswith("      ") for line in lines if line[4:].startswith(("a\\", "c "))
    )
    assert any(line.startswith("    a\\u000ab ") for line in lines)


def test_many_classes_are_shown_by_the_worst_confusions(text_of):
    text = text_of([f"class {number:02d}" for number in range(31)], 9)
    lines = text.splitlines()
    assert "confusion matrix" not in text and max(map(len, lines)) < 150
    assert "  the 10 of 31 classes with the lowest F1 on cross-validated photos (metrics.json has all)" in lines
    confusions = lines[lines.index("  the most common confusions") + 1 :]
    assert len(confusions) == 10
    assert all(" class " in line and " taken for class " in line for line in confusions)


def test_names_begin_no_line_and_control_no_terminal(text_of):
    text = text_of(["da\nisy", "ro\x1b[31mse", "tu\x9b2Jlip"], 0.1)
    assert "da\\u000aisy" in text and "ro\\u001b[31mse" in text and "tu\\u009b2Jlip" in text


def test_confusion_is_told_in_a_sentence():
    names = [*(f"class {number:02d}" for number in range(29)), "daisies", "asters"]
    lines = training_text(metrics_of(names, [[29, 30, 12], [29, 29, 68]]), "model").splitlines()
    assert "    12 of 80 daisies were taken for asters" in lines
    assert "confusions" not in training_text(metrics_of(names, [[29, 29, 80]]), "model")


def metrics_of(classes: list[str], confusion: list[list[int]]) -> dict[str, Any]:
    """Return metrics with what the text needs."""
    scores = {"photos": 80, "precision": 0.5, "recall": 0.5, "f1": 0.5}
    test = {"photos": 80, "accuracy": 0.8, "interval95": [0.7, 0.9], "confusion": confusion}
    test["per_class"] = dict.fromkeys(classes, scores)
    return {
        "head": "logistic",
        "classes": classes,
        "photos": {"train": 1},
        "validation": test,
        "test": test,
        "accuracy_of": "test",
        "split": {"accuracy_without_groups": None, "grouped_photos": 0, "moved": 0},
        "calibration": {"ece_before": 0, "ece_after": 0, "temperature": 1},
        "unknown": {"threshold": 2.0, "precision": None, "min_precision": 0.95},
        "learning_curve": [],
        "left_out_classes": {"min_photos_per_class": 3, "rare": {}, "copies": {}},
        "conflicts": [],
        "without_code": 0,
        "unknown_paths": 0,
        "empty_labels": 0,
    }
