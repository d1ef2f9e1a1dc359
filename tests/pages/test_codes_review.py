"""The review of codes without labels: groups, fits in the background, random photos, filters, and the end."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from archive_runs import predict_with_link
from codes_folder import labels, write_codes
from dataset_rows import finished, labelled, predictions_batch

import flowers_batch as fb
from flowers_batch.classifier import labelling
from flowers_batch.classifier.labels_file import read_labels
from flowers_batch.dataset.schema import PREDICTIONS
from flowers_batch.pages.review import memory, random_photos, views
from flowers_batch.pages.review.filters import Filters, filters_in
from flowers_batch.pages.review.random_photos import mixed
from flowers_batch.pages.review.review import Review
from flowers_batch.search.groups import typical_rows

CLASSES = {"daisy": 70, "rose": 50, "tulip": 40}


@pytest.fixture(scope="module")
def codes(tmp_path_factory) -> Path:
    """A codes folder of 160 photos of three classes and 12 copies; one failed."""
    return write_codes(tmp_path_factory.mktemp("review") / "codes", labels(**CLASSES), failed=1, copies=6)


@contextmanager
def reviewing(codes: Path, file: Path) -> Iterator[Review]:
    with closing(Review(codes, file)) as review:
        review.start()
        yield review


def computed(ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return an answer once it is computed."""
    deadline = time.monotonic() + 30
    while "computing" in (found := ask()):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return found


def groups_of(review: Review, **filters: Any) -> dict[str, Any]:
    return computed(lambda: review.views.groups(Filters(**filters)))


def rows_of(review: Review, kind: str) -> list[int]:
    """Return the rows of the photos in a folder, which is their true class, without those that failed."""
    paths = enumerate(review.table.paths.to_pylist())
    return [row for row, path in paths if path.startswith(f"{kind}/") and review.table.is_ok[row]]


def label(review: Review, rows: list[int], name: str | None, chosen: str = "view") -> dict[str, Any]:
    return review.label(rows, [name] * len(rows), [chosen] * len(rows))


def fitted(review: Review, number: int) -> dict[str, Any]:
    """Return the status of the fits once so many were finished and none is running."""
    deadline = time.monotonic() + 30
    while (state := review.state()["fit"])["number"] < number or state["running"]:
        assert time.monotonic() < deadline and not state["error"], state
        time.sleep(0.005)
    assert state["number"] == number
    return state


def fitted_to(review: Review, count: int) -> dict[str, Any]:
    """Return the status of the fits once the last one was fitted to so many labels."""
    deadline = time.monotonic() + 30
    while (state := review.state()["fit"])["labels"] != count or state["running"]:
        assert time.monotonic() < deadline and not state["error"], state
        time.sleep(0.005)
    return state


def test_review_opens_on_groups_of_similar_photos(codes, tmp_path):
    with reviewing(codes, tmp_path / "labels.csv") as review:
        assert next(iter(review.state()["views"])) == "groups" and review.state()["kind"] == "codes"
        found = groups_of(review, labelled=False)
        shown = [row for group in found["groups"] for row in group["rows"]]
        assert len(set(shown)) == len(shown) and found["total"] == len(found["groups"]) > 3
        assert sum(group["size"] for group in found["groups"]) == 165, "of equal files one, and none that failed"
        assert all(len(group["rows"]) == len(typical_rows(np.arange(group["size"]))) for group in found["groups"])
        first, second = found["groups"][:2]
        label(review, first["rows"], "a", "group")
        label(review, second["rows"][:1], "b", "group")
        left = groups_of(review, labelled=False)
        assert left["total"] == found["total"] - 1 - (len(second["rows"]) == 1)
        assert not {row for group in left["groups"] for row in group["rows"]} & {*first["rows"], second["rows"][0]}
        assert groups_of(review)["groups"] == found["groups"]
        roses = groups_of(review, folder="rose")
        assert {row for group in roses["groups"] for row in group["rows"]} <= set(rows_of(review, "rose"))
        assert roses["random"] == [] and len(found["random"]) == views._RANDOM_PHOTOS
        assert {row["label"] for row in review.photos(first["rows"])} == {"a"}


def test_group_is_split_in_two(codes, tmp_path):
    with reviewing(codes, tmp_path / "labels.csv") as review:
        before = groups_of(review)["groups"]
        split = next(group for group in before if group["size"] > 3)
        assert review.views.split(split["id"], Filters()).keys() == {"computing"}
        halves = computed(lambda: review.views.split(split["id"], Filters()))["groups"]
        after = groups_of(review)["groups"]
        place = before.index(split)
        assert after == [*before[:place], *halves, *before[place + 1 :]]
        assert sum(half["size"] for half in halves) == split["size"] and len({group["id"] for group in after}) == len(
            after
        )
        for number in (split["id"], -1, 10**9):
            with pytest.raises(fb.InputError, match="no group"):
                review.views.split(number, Filters())


def test_classifier_is_fitted_as_labels_come(codes, tmp_path):
    """As soon as two classes have five photos each, then after every 25 changed labels, undone ones among them."""
    with reviewing(codes, tmp_path / "labels.csv") as review:
        daisies, roses = rows_of(review, "daisy"), rows_of(review, "rose")
        label(review, daisies[:5], "daisy", "group")
        label(review, roses[:4], "rose", "group")
        with pytest.raises(fb.InputError, match="too few labels"):
            review.training.start()
        assert review.state()["fit"]["number"] == 0 and not review.state()["fit"]["running"]
        assert [photo["prediction"] for photo in review.photos(daisies[:2])] == [None, None]
        label(review, roses[4:5], "rose", "group")
        state = fitted(review, 1)
        assert state["labels"] == 10 and state["accuracy"] is None and state["random_needed"] > 0
        assert state["certain"] is None and state["wanted_precision"] == 0.95
        photos = review.photos(daisies[10:] + roses[10:])
        assert {photo["prediction"] for photo in photos} == {"daisy", "rose"}
        assert photos[0]["top"] == [[photos[0]["prediction"], photos[0]["probability"]]]
        label(review, daisies[5:15], "daisy")
        label(review, daisies[5:10], "daisy")  # again
        review.undo()
        label(review, roses[5:9], "rose")
        assert not review.state()["fit"]["running"], "24 have changed"
        label(review, roses[9:10], "rose")
        assert fitted(review, 2)["labels"] == 25
        review.training.start()
        assert fitted(review, 3)["labels"] == 25


def test_accuracy_comes_from_random_photos_alone(codes, tmp_path):
    with reviewing(codes, tmp_path / "labels.csv") as review:
        random = groups_of(review)["random"][:40]
        for kind in CLASSES:
            label(review, rows_of(review, kind)[:12], kind, "group")
        review.training.start()
        assert fitted_to(review, 36)["accuracy"] is None
        for photo in review.photos(random):
            label(review, [photo["row"]], photo["path"].partition("/")[0], "random")
        review.training.start()
        state = fitted_to(review, len(review.labels))
        low, high = state["accuracy"]["interval95"]
        assert state["random_needed"] == 0 and 0 <= low <= state["accuracy"]["value"] <= high <= 1


def test_random_photos_come_up_until_they_are_confirmed(codes, tmp_path):
    """Also those that have a label from a group; a later correction leaves them random."""
    file = tmp_path / "labels.csv"
    with reviewing(codes, file) as review:
        first, second = groups_of(review)["random"][:2]
        label(review, [first], "a", "group")
        assert groups_of(review)["random"][0] == first
        label(review, [first], "a", "random")
        assert groups_of(review)["random"][0] == second
        label(review, [first], "b", "view")
        assert groups_of(review)["random"][0] == second and read_labels(str(file)).labels == {
            review.table.path(first): "b"
        }
        for _ in range(2):
            review.undo()
        assert groups_of(review)["random"][0] == first


def test_every_fifth_photo_is_a_random_one(codes, tmp_path):
    assert mixed(np.arange(10), [20, 3]).tolist() == [0, 1, 2, 4, 20, 5, 6, 7, 8, 3, 9]
    assert mixed(np.arange(3), []).tolist() == [0, 1, 2]
    with reviewing(codes, tmp_path / "labels.csv") as review:
        groups_of(review)
        found = computed(lambda: review.views.select("suggestions"))
        assert found["rows"][4::5][:25] == found["random"][:25] and len(found["random"]) >= 25
        assert len(set(found["rows"])) == len(found["rows"])
        assert review.views.select("suggestions", Filters(folder="rose"))["random"] == []


def test_random_photos_are_waited_for(codes, tmp_path, monkeypatch):
    """Groups without random photos among them would leave the accuracy unknown."""
    release = threading.Event()
    order = random_photos.random_order
    monkeypatch.setattr(random_photos, "random_order", lambda *each: release.wait(20) and order(*each))
    with reviewing(codes, tmp_path / "labels.csv") as review:
        while review.views.groups(Filters(folder="rose")).get("computing"):
            time.sleep(0.005)
        assert "random" in review.views.groups(Filters())["computing"]
        release.set()
        assert groups_of(review)["random"]


def test_killed_review_loses_nothing_and_fits_again(codes, tmp_path):
    with reviewing(codes, tmp_path / "labels.csv") as review:
        for kind in ("daisy", "rose"):
            label(review, rows_of(review, kind)[:6], kind, "group")
        fitted(review, 1)
    with reviewing(codes, tmp_path / "labels.csv") as review:
        assert fitted(review, 1)["labels"] == 12 and review.state()["class_counts"] == {"daisy": 6, "rose": 6}
        assert review.state()["classes"] == ["daisy", "rose"]
        undone = review.undo()
        assert undone["labels"] == [] and undone["labelled"] == 12, "undoing ends at the start of the review"


def test_fit_that_fails_is_reported_and_tried_again(codes, tmp_path, monkeypatch):
    fit = labelling.fit_labels

    def fail(*_: Any, **__: Any) -> None:
        raise fb.RunError("The disk is lost.")

    monkeypatch.setattr(labelling, "fit_labels", fail)
    with reviewing(codes, tmp_path / "labels.csv") as review:
        for kind in ("daisy", "rose"):
            label(review, rows_of(review, kind)[:5], kind)
        while not review.state()["fit"]["error"]:
            time.sleep(0.005)
        assert review.training.status() == {"state": "failed", "step": "", "error": "The disk is lost.", "result": None}
        monkeypatch.setattr(labelling, "fit_labels", fit)
        review.training.start()
        assert fitted(review, 1)["labels"] == 10


def test_labels_given_during_a_fit_are_fitted_next(codes, tmp_path, monkeypatch):
    """If they are 25, or if that is asked for."""
    started, release, fit = threading.Event(), threading.Event(), labelling.fit_labels

    def fit_slowly(*each: Any, **more: Any) -> Any:
        started.set()
        assert release.wait(20)
        return fit(*each, **more)

    monkeypatch.setattr(labelling, "fit_labels", fit_slowly)
    with reviewing(codes, tmp_path / "labels.csv") as review:
        daisies = rows_of(review, "daisy")
        for number, (more, asks) in enumerate(((25, False), (3, True))):
            for kind in ("daisy", "rose"):
                label(review, rows_of(review, kind)[:5], kind)
            review.training.start()
            assert started.wait(20)
            label(review, daisies[5 : 5 + more], "daisy")
            if asks:
                review.training.start()
            release.set()
            assert fitted(review, 2 + 2 * number)["labels"] == 35
            started.clear()
            release.clear()


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, [0, 1, 2, 3, 4, 5]),
        ({"folder": "a"}, [0, 1, 2]),
        ({"folder": "a/"}, [0, 1, 2]),
        ({"folder": "a/x"}, [2]),
        ({"folder": "."}, []),
        ({"search": "ROSE (1"}, [1]),
        ({"search": ".*"}, []),
        ({"low": "0.5"}, [1, 3, 4]),
        ({"low": "0.5", "high": "0.75"}, [1, 3]),
        ({"label": "tulip"}, [0, 1]),
        ({"label": "rose", "folder": "b"}, [3]),
        ({"labelled": "yes"}, [0, 4]),
        ({"labelled": "no", "low": "0.5"}, [1, 3]),
        ({"labelled": "yes", "label": "tulip", "folder": "a", "search": "0", "high": "0.3"}, [0]),
    ],
)
def test_filters_combine(tmp_path, query, expected):
    rows = [
        labelled("a/0.jpg", "rose", 0.25),
        labelled("a/Rose (1).jpg", "tulip", 0.5),
        labelled("a/x/2.jpg", "rose", 0.375),
        labelled("b/3.jpg", "rose", 0.75),
        labelled("b/4.jpg", "rose", 1.0),
        labelled("5.jpg", "rose", 0.125),
    ]
    finished(tmp_path / "predictions", PREDICTIONS, [predictions_batch(rows)])
    (tmp_path / "labels.csv").write_text("path,label\na/0.jpg,tulip\nb/4.jpg,daisy\n")
    with closing(Review(tmp_path / "predictions", tmp_path / "labels.csv")) as review:
        found = review.views.select("all", filters_in(query))
        assert (found["rows"], found["total"]) == (expected, len(expected))


@pytest.mark.parametrize(
    "query",
    [{"low": "x"}, {"low": "nan"}, {"high": "2"}, {"low": "-1"}, {"labelled": "maybe"}, {"search": "x" * 1001}],
)
def test_invalid_filters_are_refused(query):
    with pytest.raises(fb.InputError, match=next(iter(query))):
        filters_in(query)


def test_views_of_codes_before_and_after_a_fit(codes, tmp_path):
    with reviewing(codes, tmp_path / "labels.csv") as review:
        select = review.views.select
        assert select("uncertain")["rows"] == [] and len(select("all")["rows"]) == 172
        assert select("all", Filters(low=0.5))["rows"] == [] and len(select("failed")["rows"]) == 1
        assert len(computed(lambda: select("groups"))["rows"]) > 40
        with pytest.raises(fb.InputError, match="label more photos"):
            select("label_issues")
        with pytest.raises(fb.InputError, match="no label to accept"):
            label(review, [0], None)
        for kind in CLASSES:
            label(review, rows_of(review, kind)[:12], kind)
        wrong = rows_of(review, "rose")[20]
        label(review, [wrong], "daisy")
        review.training.start()
        fitted_to(review, 37)
        uncertain = select("uncertain", Filters(folder="rose"))["rows"]
        assert len(uncertain) > 30 and not set(uncertain) & review.labels.by_row().keys()
        found = computed(lambda: select("label_issues"))
        assert found["rows"] == [wrong] and found["suggested"][wrong][0] == "rose"
        assert len(select("class", Filters("tulip"))["rows"]) > 35 and select("class")["rows"] == []


def test_similar_photos_and_near_duplicates(codes, tmp_path):
    with reviewing(codes, tmp_path / "labels.csv") as review:
        row = rows_of(review, "tulip")[5]
        found = computed(lambda: review.similar.nearest([row], 20))
        assert (
            row not in found["rows"]
            and len(found["rows"]) == 20
            and found["similarities"] == sorted(found["similarities"])[::-1]
        )
        assert sum(each in rows_of(review, "tulip") for each in found["rows"]) > 15
        for rows, count, sentence in (
            ([], 5, "1 to"),
            ([0] * 101, 5, "1 to"),
            ([0], 0, "count"),
            ([0], 10**4, "count"),
            ([999], 5, "no photo"),
            ([171], 5, "no code"),
        ):
            with pytest.raises(fb.InputError, match=sentence):
                review.similar.nearest(rows, count)
        found = computed(lambda: review.views.select("near_duplicates"))
        assert len(found["groups"]) == 6 and found["total"] == len(found["rows"]) == sum(map(len, found["groups"]))
        label(review, found["groups"][0][1:], "copy")
        assert len(review.views.select("near_duplicates", Filters(labelled=False))["groups"]) == 5


def test_near_duplicates_that_do_not_fit_in_memory_are_refused(codes, tmp_path, monkeypatch):
    with reviewing(codes, tmp_path / "labels.csv") as review:
        monkeypatch.setattr(memory, "available_memory", lambda: 17_000)
        with pytest.raises(fb.InputError, match=r"among 172 photos take 0.0 MB .* `flowers-batch duplicates`"):
            computed(lambda: review.views.select("near_duplicates"))
        monkeypatch.setattr(memory, "available_memory", lambda: 18_000)
        assert computed(lambda: review.views.select("near_duplicates"))["groups"]


@pytest.mark.slow
def test_predictions_have_groups_and_similar_photos_of_their_codes(tmp_path):
    """Also if these were encoded again with more photos, so that their rows are others."""
    base = predict_with_link(tmp_path)
    with closing(Review(base / "predictions", tmp_path / "labels.csv")) as review:
        before = [review.table.path(row) for row in computed(lambda: review.similar.nearest([5], 10))["rows"]]
        assert len(groups_of(review)["groups"]) > 3 and review.state()["fit"] is None
    for number in range(3):
        shutil.copy(base / "photos" / "red" / "0001.png", base / "photos" / "blue" / f"+{number}.png")
    shutil.rmtree(base / "codes")
    fb.encode(base / "photos", base / "codes", fb.EncodeConfig(network="null"))
    with closing(Review(base / "predictions", tmp_path / "labels.csv")) as review:
        found = computed(lambda: review.similar.nearest([5], 14))
        paths = [review.table.path(row) for row in found["rows"]]
        assert paths[:10] == before and len(found["similarities"]) == len(paths)
        rows = [row for group in groups_of(review)["groups"] for row in group["rows"]]
        assert max(rows) < len(review.table)


def test_labels_of_another_archive_are_not_counted(codes, tmp_path):
    file = tmp_path / "labels.csv"
    file.write_text("path,label\n" + "".join(f"{number}.jpg,{'ab'[number % 2]}\n" for number in range(20)))
    with reviewing(codes, file) as review:
        assert review.state()["labelled"] == 0 and review.state()["class_counts"] == {}
        assert label(review, [0], "daisy")["class_counts"] == {"daisy": 1}
        with pytest.raises(fb.InputError, match="too few labels"):
            review.training.start()


def test_time_that_the_archive_does_not_say_is_none(codes, tmp_path):
    with closing(Review(codes, tmp_path / "labels.csv")) as review:
        assert review.photo(0)["modified"] is None


def test_photo_is_described(tmp_path):
    base = predict_with_link(tmp_path)
    photo = base / "photos" / "red" / "0001.png"
    with (
        reviewing(base / "codes", tmp_path / "labels.csv") as review,
        closing(Review(base / "predictions", tmp_path / "other.csv")) as other,
    ):
        row = review.table.find(["red/0001.png"])["red/0001.png"]
        found = review.photo(row)
        assert found["bytes"] == photo.stat().st_size and found["top"] == [] and found["label"] is None
        assert found["path"] == "red/0001.png" and 30 <= found["width"] < 60 and found["modified"].endswith("+00:00")
        for kind in ("red", "green"):
            label(review, rows_of(review, kind)[:5], kind)
        fitted(review, 1)
        found = review.photo(row)
        assert found["label"] == "red" and [name for name, _ in found["top"]] == ["red", "green"]
        assert found["top"][0][1] == pytest.approx(review.photos([row])[0]["probability"], abs=1e-5)
        assert [name for name, _ in other.photo(row)["top"]] == [
            "red",
            *{"green", "blue"} - {other.photo(row)["top"][2][0]},
            other.photo(row)["top"][2][0],
        ]
        failed = review.photo(review.views.select("failed")["rows"][0])
        assert failed["top"] == [] and failed["width"] is None
        with pytest.raises(fb.InputError, match="no photo"):
            review.photo(10**6)
