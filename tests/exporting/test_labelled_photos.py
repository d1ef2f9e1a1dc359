from __future__ import annotations

import pytest
from dataset_rows import finished, image_row, labelled, predictions_batch

from flowers_batch.dataset.run_folder import open_run
from flowers_batch.dataset.schema import PREDICTIONS
from flowers_batch.exporting.labelled_photos import LabelledPhoto, labelled_photos

NOTHING = dict.fromkeys(("prediction", "probability", "top_labels", "top_probabilities", "is_unknown"))


def failed(path: str) -> dict:
    return image_row(path, "missing") | NOTHING


def unknown(path: str, label: str, probability: float) -> dict:
    return labelled(path, label, probability) | {"is_unknown": True}


def photos_of(tmp_path, *shards: list[dict], min_probability: float | None = None) -> list[LabelledPhoto]:
    run = open_run(finished(tmp_path / "run", PREDICTIONS, [predictions_batch(rows) for rows in shards]), PREDICTIONS)
    return list(labelled_photos(run, min_probability))


def test_photo_has_its_label_unless_it_failed_or_is_unknown(tmp_path):
    assert photos_of(tmp_path, [labelled("a/1.jpg"), failed("a/2.jpg"), unknown("b.jpg", "roses", 0.5)]) == [
        LabelledPhoto(("b.jpg",), None, None, False),
        LabelledPhoto(("a/1.jpg",), "roses", 0.75, False),
        LabelledPhoto(("a/2.jpg",), None, None, True),
    ]


@pytest.mark.parametrize(("least", "label"), [(None, None), (0.5, "roses"), (0.51, None)])
def test_least_probability_replaces_the_mark_unknown(tmp_path, least, label):
    (photo,) = photos_of(tmp_path, [unknown("a.jpg", "roses", 0.5)], min_probability=least)
    assert photo.label == label


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (labelled("a/1.CR2", "tulips", 0.5), ("roses", 0.75)),
        (labelled("a/1.CR2", "tulips", 0.875), ("tulips", 0.875)),
        (unknown("a/1.CR2", "tulips", 0.875), ("roses", 0.75)),
        (failed("a/1.CR2"), ("roses", 0.75)),
    ],
    ids=["less probable", "more probable", "unknown", "failed"],
)
def test_pair_has_the_most_probable_certain_label(tmp_path, raw, expected):
    """The RAW file is of a later generation than the JPEG."""
    first, pair = photos_of(tmp_path, [labelled("0/1.jpg"), labelled("a/1.jpg")], [raw])
    assert first.paths == ("0/1.jpg",)
    assert (pair.paths, pair.label, pair.probability, pair.has_failed) == (("a/1.CR2", "a/1.jpg"), *expected, False)
