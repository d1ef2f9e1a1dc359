"""Classifiers while photos are being labelled, on codes that are written by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from codes_folder import labels, write_codes

from flowers_batch.classifier.chosen import GROUP, MIN_RANDOM_PHOTOS, RANDOM, VIEW
from flowers_batch.classifier.enough_labels import can_fit
from flowers_batch.classifier.labelling import LabelFit, fit_labels, predict_run
from flowers_batch.dataset.run_folder import Run, open_run
from flowers_batch.dataset.schema import CODES
from flowers_batch.errors import InputError


def opened(folder: Path) -> tuple[Run, dict[str, str]]:
    """Return a run of codes, and its photos' true labels by path, in the order of rows."""
    rows = pq.read_table(folder / "codes", columns=["path", "folder"]).to_pylist()
    return open_run(folder, CODES), {row["path"]: row["folder"] for row in rows}


def fitted(run: Run, given: dict[str, str], chosen: dict[str, str], min_precision: float = 0.8) -> LabelFit:
    return fit_labels(run, given, chosen, min_precision=min_precision, seed=0)


def test_first_fit_takes_two_classes_of_five_photos():
    assert can_fit({"daisy": 5, "rose": 9, "tulip": 1})
    assert not can_fit({"daisy": 5, "rose": 4}) and not can_fit({"daisy": 50})


def test_fit_labels_the_archive(tmp_path):
    run, true = opened(write_codes(tmp_path / "codes", labels(daisy=60, rose=60), spread=0.5, broken=(3, 77)))
    given = dict(list(true.items())[:10] + list(true.items())[60:70])
    found = fitted(run, given, dict.fromkeys(given, GROUP))
    assert found.labels == 19, "a photo without a code is left out"
    predictions = predict_run(run, found.head)
    names = [found.head.classes[number] if number >= 0 else None for number in predictions.labels]
    assert [row for row, name in enumerate(names) if name is None] == [3, 77]
    assert all(name == label for name, label in zip(names, true.values(), strict=True) if name)
    ok = predictions.labels >= 0
    assert (predictions.probabilities[ok] > 0.5).all() and not predictions.probabilities[~ok].any()
    assert np.allclose(predictions.margins[ok], 2 * predictions.probabilities[ok] - 1, atol=1e-6)


def test_figures_wait_for_random_photos(tmp_path):
    run, true = opened(write_codes(tmp_path / "codes", labels(daisy=100, rose=100), spread=0.5))
    chosen = dict.fromkeys(true, GROUP) | dict.fromkeys(list(true)[::40], RANDOM)
    found = fitted(run, true, chosen)
    assert (found.accuracy, found.certain_at, found.head.threshold) == (None, None, None)
    assert found.random_needed == MIN_RANDOM_PHOTOS - 5 and found.head.temperature == 1


def test_figures_are_of_random_photos_alone(tmp_path):
    """The other photos have wrong labels: they would ruin the figures, and are too few to ruin the classifier."""
    run, true = opened(write_codes(tmp_path / "codes", labels(daisy=150, rose=150), spread=0.5))
    random = list(true)[::5]
    wrong = dict.fromkeys(list(true)[1:130:5], "rose") | dict.fromkeys(list(true)[151:280:5], "daisy")
    right = {path: true[path] for path in [*list(true)[2:150:5], *list(true)[152::5]]}
    given = wrong | right | {path: true[path] for path in random}
    found = fitted(run, given, dict.fromkeys(given, VIEW) | dict.fromkeys(random, RANDOM))
    assert found.accuracy and found.accuracy.photos == len(random) == 60
    assert found.accuracy.value > 0.9 and found.accuracy.interval95[0] < found.accuracy.value
    assert found.certain_at == found.head.threshold is not None
    judged_by_all = fitted(run, given, {})
    assert judged_by_all.accuracy and judged_by_all.accuracy.value < 0.8


def test_labels_without_a_pattern_are_right_by_chance(tmp_path):
    names = [str(number) for number in np.random.default_rng(4).integers(0, 2, 160)]
    run, true = opened(write_codes(tmp_path / "codes", names, copies=160, spread=30, width=150))
    chosen = dict.fromkeys(list(true)[80:], GROUP)  # also of the copies of the random ones
    found = fitted(run, true, chosen)
    assert found.accuracy and found.accuracy.photos == 80
    assert found.accuracy.value < 0.65 and found.certain_at is None


def test_fit_of_one_class_is_refused(tmp_path):
    run, true = opened(write_codes(tmp_path / "codes", labels(daisy=9, rose=9)))
    with pytest.raises(InputError, match=r"^Label at least 5 photos of each of 2 classes\.$"):
        fitted(run, dict(list(true.items())[:9]), {})
