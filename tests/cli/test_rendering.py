"""Results as text."""

from __future__ import annotations

from flowers_batch.cli.rendering import demo_text

RESULT = {
    "accuracy_of": "cross_validation",
    "scores": {"photos": 21, "accuracy": 17 / 21, "interval95": [0.6, 0.923]},
    "layer": "pool5",
    "pool": "avg",
    "notes": [],
    "predictions": "my demo/predictions",
    "report": "my demo/report.html",
}


def test_demo_says_which_codes_it_used_in_place_of_relu6():
    text = demo_text(RESULT)
    assert "end before the fully connected layers, so the codes are pool5, averaged.\n" in text
    assert "layers" not in demo_text(RESULT | {"layer": "relu6", "pool": None})


def test_demo_says_which_photos_its_accuracy_is_of():
    assert demo_text(RESULT).startswith("cross-validated accuracy: 81.0% of 21 photos")
    assert demo_text(RESULT | {"accuracy_of": "test"}).startswith("test accuracy: ")


def test_demo_ends_with_a_command_that_can_be_pasted():
    assert demo_text(RESULT).endswith("\nto correct labels: flowers-batch review 'my demo/predictions' --follow-links")
