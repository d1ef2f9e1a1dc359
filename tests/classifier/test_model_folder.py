"""Model folders are loaded as they were saved, and only then."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import fingerprint, some_head
from planting import plant_pipe

from flowers_batch.classifier.left_out_classes import LeftOutClasses
from flowers_batch.classifier.model_folder import (
    ARRAYS,
    METRICS,
    MODEL,
    Model,
    load_model,
    read_metrics,
    save_model,
    write_metrics,
)
from flowers_batch.errors import InputError, RunError
from flowers_batch.storage.opening import open_folder

CLASSES = ("daisy", "Löwenzahn", "roses")


def model_of(head, **changes) -> Model:
    values = {
        "weights": "random:0",
        "codes": "/codes",
        "images": "/photos",
        "split": {"train": 8},
        "training": {"seed": 1},
    }
    return Model(head, fingerprint(), **(values | {"versions": {"python": "3"}} | changes))


def saved(folder: Path, **options) -> Path:
    save_model(open_folder(folder), model_of(some_head(CLASSES, 8, **options)))
    return folder


def rewrite(folder: Path, **changes) -> None:
    described = json.loads((folder / MODEL).read_text()) | changes
    (folder / MODEL).write_text(json.dumps(described))


@pytest.mark.parametrize("hidden", [0, 6])
@pytest.mark.parametrize("threshold", [None, 0.25])
def test_model_is_loaded_as_it_was_saved(tmp_path, hidden, threshold):
    model = model_of(some_head(CLASSES, 8, hidden=hidden, temperature=1.3, threshold=threshold))
    save_model(open_folder(tmp_path), model)
    loaded = load_model(str(tmp_path))
    assert (loaded.head.classes, loaded.head.temperature, loaded.head.threshold) == (CLASSES, 1.3, threshold)
    assert len(loaded.head.layers) == (2 if hidden else 1)
    for name, array in model.head.arrays.items():
        assert loaded.head.arrays[name].dtype == np.float32
        np.testing.assert_array_equal(loaded.head.arrays[name], array)
    assert loaded.head.identity == model.head.identity
    for name in ("fingerprint", "weights", "codes", "images", "split", "training", "versions"):
        assert getattr(loaded, name) == getattr(model, name)


def test_views_are_saved_as_the_arrays_that_they_show(tmp_path):
    head = some_head(CLASSES, 8)
    kernel, bias = head.layers[0]
    turned = replace(head, layers=((np.ascontiguousarray(kernel.T).T, bias),))
    assert turned.identity == head.identity
    save_model(open_folder(tmp_path), model_of(turned))
    np.testing.assert_array_equal(load_model(str(tmp_path)).head.layers[0][0], kernel)


def test_model_folder_holds_safetensors_and_json_only(tmp_path):
    saved(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {ARRAYS, MODEL}
    content = (tmp_path / ARRAYS).read_bytes()
    length = int.from_bytes(content[:8], "little")
    assert set(json.loads(content[8 : 8 + length])) >= {"mean", "scale", "layer0.kernel", "layer0.bias"}
    assert json.loads((tmp_path / MODEL).read_text())["classes"] == list(CLASSES)


def test_arrays_of_another_head_are_refused(tmp_path):
    mine, other = saved(tmp_path / "mine"), saved(tmp_path / "other", seed=1)
    (mine / ARRAYS).write_bytes((other / ARRAYS).read_bytes())
    with pytest.raises(
        InputError, match=r"head\.safetensors in .* does not belong to the model\.json beside it: train"
    ):
        load_model(str(mine))


@pytest.mark.parametrize("change", [{"classes": ["a", "b", "c"]}, {"temperature": 2.0}, {"threshold": 0.9}])
def test_description_changed_by_hand_is_refused(tmp_path, change):
    saved(tmp_path)
    rewrite(tmp_path, **change)
    with pytest.raises(InputError, match="does not belong"):
        load_model(str(tmp_path))


def test_pipe_in_place_of_the_arrays_is_refused_in_a_sentence(tmp_path):
    saved(tmp_path)
    plant_pipe(tmp_path / ARRAYS)
    with pytest.raises(RunError, match=r"head\.safetensors cannot be read \(it is not a regular file\)"):
        load_model(tmp_path)


@pytest.mark.parametrize("name", [MODEL, ARRAYS])
def test_folder_without_one_of_the_files_is_no_model(tmp_path, name):
    saved(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(InputError, match=r"is not a model folder: make one with `flowers-batch train`\.$"):
        load_model(str(tmp_path))
    with pytest.raises(InputError, match="is not a model folder"):
        load_model(str(tmp_path / "nowhere"))


@pytest.mark.parametrize("content", [b"", b"x", b"\xff" * 100, b"\x80\x04K\x01.", b"half"])
def test_broken_arrays_are_refused_in_a_sentence(tmp_path, content):
    saved(tmp_path)
    whole = (tmp_path / ARRAYS).read_bytes()
    (tmp_path / ARRAYS).write_bytes(whole[: len(whole) // 2] if content == b"half" else content)
    with pytest.raises(InputError, match=r"^The model in .* cannot be read \(.*\): train it again\.$"):
        load_model(str(tmp_path))


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "null", '"x"', '{"classes": 5}'])
def test_broken_description_is_refused_in_a_sentence(tmp_path, content):
    saved(tmp_path)
    (tmp_path / MODEL).write_text(content)
    with pytest.raises(InputError, match=r"\.$"):
        load_model(str(tmp_path))


@pytest.mark.parametrize("name", ["classes", "temperature", "threshold", "identity", "fingerprint", "codes", "images"])
def test_incomplete_description_is_refused(tmp_path, name):
    saved(tmp_path)
    described = json.loads((tmp_path / MODEL).read_text())
    del described[name]
    (tmp_path / MODEL).write_text(json.dumps(described))
    with pytest.raises(InputError, match=rf"cannot be read \(.{name}.*\): train it again"):
        load_model(str(tmp_path))


def test_fingerprint_of_another_version_is_refused(tmp_path):
    saved(tmp_path)
    rewrite(tmp_path, fingerprint=asdict(fingerprint()) | {"pooling": "max"})
    with pytest.raises(InputError, match="fingerprint depends on pooling, which this version"):
        load_model(str(tmp_path))


def metrics_of(classes: list[str], **scores) -> dict[str, Any]:
    """Return the content of `metrics.json`, as far as it is read."""
    split = {"photos": 6, "accuracy": 1.0, "interval95": [0.25, 1e-9], "macro_f1": 1.0} | scores
    split["per_class"] = {name: {"precision": 1.0, "recall": 1.0, "f1": 1.0, "photos": 3} for name in classes}
    return {
        "classes": classes,
        "photos": {"train": 6, "validation": 6, "test": 6},
        "without_code": 0,
        "unknown_paths": 0,
        "unknown_examples": [],
        "empty_labels": 0,
        "unlabelled": 0,
        "conflicts": [],
        "weights": "null",
        "train": split,
        "validation": split,
        "test": split,
        "calibration": {
            "ece_before": 0.0,
            "ece_after": 0.0,
            "curve": [{"photos": 6, "probability": 1.0, "accuracy": 1.0}],
        },
        "unknown": {
            "min_precision": 0.95,
            "threshold": 1.0,
            "precision": None,
            "coverage": 0.0,
            "test": {"precision": 1.0, "coverage": 1.0},
            "auroc": None,
        },
        "learning_curve": [{"share": 1.0, "photos": 6, "accuracy": 1.0}],
        "split": {"groups": 18, "grouped_photos": 0, "accuracy_without_groups": None, "moved": 0},
        "head": "logistic",
        "seconds": 1.0,
    }


@pytest.mark.parametrize("numbered", [{}, {"format": 2}], ids=["version 0.1", "dense"])
def test_metrics_with_a_dense_matrix_are_read(tmp_path, numbered):
    content = numbered | metrics_of(["a", "b"], confusion_matrix=[[2, 0], [1, 3]])
    (tmp_path / METRICS).write_text(json.dumps(content))
    metrics = read_metrics(open_folder(tmp_path))
    assert metrics["test"]["confusion"] == [[0, 0, 2], [1, 0, 1], [1, 1, 3]]
    assert "confusion_matrix" not in metrics["test"]
    assert metrics["left_out_classes"] == asdict(LeftOutClasses())


def test_lists_of_numbers_take_a_line_and_names_stay_as_they_are(tmp_path):
    metrics = metrics_of(["[\n  1,\n  2]", "[1,  2]", "5"], confusion=[[0, 0, 2], [1, 0, 1]])
    metrics["left_out_classes"] = asdict(LeftOutClasses())
    write_metrics(open_folder(tmp_path), metrics)
    assert read_metrics(open_folder(tmp_path)) == metrics | {"accuracy_of": "test"}
    lines = [line.strip() for line in (tmp_path / METRICS).read_text().splitlines()]
    assert "[0, 0, 2]," in lines and '"interval95": [0.25, 1e-09],' in lines
