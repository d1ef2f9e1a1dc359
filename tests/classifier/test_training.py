"""Training on codes that are written by hand: heads, splits and figures."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from codes_folder import labels, write_codes
from sklearn.metrics import accuracy_score

import flowers_batch as fb
from flowers_batch.classifier.labelled_split import split_labelled
from flowers_batch.classifier.labels_file import read_labels
from flowers_batch.classifier.model_folder import load_model, read_metrics, read_training_labels
from flowers_batch.classifier.training import fit_best
from flowers_batch.cli.metrics_rendering import training_text
from flowers_batch.dataset.run_folder import SUCCESS, open_run
from flowers_batch.dataset.schema import CODES
from flowers_batch.dataset.shard_file import read_footer, write_shard
from flowers_batch.storage.opening import open_folder

LOGISTIC = fb.TrainConfig(("folder",), head="logistic")  # much faster than the network


@pytest.mark.parametrize("head", ["auto", "logistic", "mlp"])
def test_training_learns_and_reports_its_accuracy(tmp_path, head):
    codes = write_codes(tmp_path / "codes", labels(daisy=160, rose=160, tulip=80))
    metrics = fb.train(str(codes), str(tmp_path / "model"), fb.TrainConfig(("folder",), head=head))
    assert metrics["test"]["accuracy"] > 0.85
    assert sum(metrics["photos"].values()) == 400 and metrics["photos"]["train"] > 280
    assert sum(photos for _, _, photos in metrics["test"]["confusion"]) == metrics["photos"]["test"]
    low, high = metrics["test"]["interval95"]
    assert low <= metrics["test"]["accuracy"] <= high
    assert {"format": 2} | metrics == json.loads((tmp_path / "model" / "metrics.json").read_text())
    assert set(metrics["heads"]) == {metrics["head"]} == {"mlp" if head == "mlp" else "logistic"}
    assert ("cross_validation" in metrics) == (head != "mlp")
    assert ("validation" in metrics) == (head == "mlp")


def test_more_labels_than_are_cross_validated_take_a_validation_side(tmp_path, monkeypatch):
    """Of the heads that are fitted then, the one with the lower validation loss is kept."""
    monkeypatch.setattr("flowers_batch.classifier.training._MAX_CROSS_VALIDATED", 100)
    codes = write_codes(tmp_path / "codes", labels(daisy=80, rose=80))
    metrics = fb.train(codes, tmp_path / "model", fb.TrainConfig(("folder",), min_precision=0.8))
    assert set(metrics["heads"]) == {"logistic", "mlp"} and "cross_validation" not in metrics
    best = min(metrics["heads"], key=lambda kind: metrics["heads"][kind]["validation_log_loss"])
    assert metrics["head"] == best and metrics["accuracy_of"] == "test"
    assert metrics["unknown"]["of_photos"] == metrics["photos"]["validation"]


def test_figures_of_few_labels_are_cross_validated(tmp_path):
    """All photos but the test photos are trained on, and each is judged by heads that were not fitted to it."""
    codes = write_codes(tmp_path / "codes", labels(a=40, b=40, c=40), spread=4, copies=5)
    metrics = fb.train(codes, tmp_path / "model", LOGISTIC)
    folded, test = metrics["cross_validation"], metrics["test"]
    assert metrics["photos"] == {"train": folded["photos"], "validation": 0, "test": test["photos"]}
    assert metrics["accuracy_of"] == "cross_validation" and test["photos"] < 30
    rows = [row for row in pq.read_table(tmp_path / "model" / "split.parquet").to_pylist() if row["split"] == "train"]
    assert np.mean([row["prediction"] == row["label"] for row in rows]) == pytest.approx(folded["accuracy"])
    assert folded["accuracy"] < metrics["train"]["accuracy"]
    assert metrics["unknown"]["of_photos"] == len({row["group"] for row in rows}) < folded["photos"]


def test_random_codes_are_right_by_chance_only(tmp_path):
    """Out of fold nothing is learnt of labels without a pattern, also if each photo has copies."""
    names = [str(number) for number in np.random.default_rng(4).integers(0, 2, 120)]
    codes = write_codes(tmp_path / "codes", names, copies=120, spread=30, width=150)
    metrics = fb.train(codes, tmp_path / "model", LOGISTIC)
    assert metrics["cross_validation"]["accuracy"] < 0.65 and metrics["train"]["accuracy"] > 0.95
    assert metrics["unknown"]["threshold"] > 1 and metrics["unknown"]["bound"] is None


def test_classes_of_one_and_two_photos_are_trained(tmp_path):
    codes = write_codes(tmp_path / "codes", labels(daisy=30, rose=30, tulip=1, violet=2), spread=0.3)
    metrics = fb.train(codes, tmp_path / "model", LOGISTIC)
    assert metrics["classes"] == ["daisy", "rose", "tulip", "violet"]
    assert metrics["test"]["per_class"]["tulip"]["photos"] == metrics["test"]["per_class"]["violet"]["photos"] == 0
    folded = metrics["cross_validation"]["per_class"]
    assert folded["tulip"]["photos"] == 0 and folded["violet"]["photos"] == 2
    found = predictions_of_codes(tmp_path)
    assert found["tulip/060.jpg"] == "tulip" and found["violet/061.jpg"] == "violet"


def predictions_of_codes(base: Path) -> dict[str, str]:
    """Return what the model predicts for all photos of the codes."""
    head = load_model(base / "model").head
    rows = pq.read_table(base / "codes" / "codes", columns=["path", "code"]).to_pylist()
    numbers = head.logits(np.array([row["code"] for row in rows], np.float32)).argmax(1)
    return {row["path"]: head.classes[number] for row, number in zip(rows, numbers, strict=True)}


@pytest.mark.slow
def test_seed_changes_the_network_but_not_the_split(tmp_path):
    run = open_run(write_codes(tmp_path / "codes", labels(daisy=40, rose=40)), CODES)
    identities, splits = [], []
    for seed in (1, 1, 2):
        config = fb.TrainConfig(("folder",), seed=seed, head="mlp")
        labelled = split_labelled(run, config)
        identities.append(fit_best(labelled, config)[0].head.identity)
        splits.append(labelled.splits.tolist())
    assert identities[0] == identities[1] != identities[2]
    assert splits[0] == splits[1] == splits[2]


def test_equal_trainings_write_equal_models(tmp_path):
    codes = write_codes(tmp_path / "codes", labels(daisy=40, rose=40))
    for name in "ab":
        fb.train(str(codes), str(tmp_path / name), LOGISTIC)
    assert load_model(tmp_path / "a").head.identity == load_model(tmp_path / "b").head.identity
    assert pq.read_table(tmp_path / "a" / "split.parquet") == pq.read_table(tmp_path / "b" / "split.parquet")


def test_near_duplicates_stay_in_one_split(tmp_path):
    """Codes without a pattern can be told apart only by a classifier that has seen their near-duplicates."""
    names = [str(number) for number in np.random.default_rng(4).integers(0, 2, 150)]
    codes = write_codes(tmp_path / "codes", names, copies=150, spread=30, width=150)
    metrics = fb.train(str(codes), str(tmp_path / "model"), LOGISTIC)
    assert metrics["split"]["groups"] == 150 and metrics["split"]["grouped_photos"] == 450
    assert metrics["split"]["accuracy_without_groups"] > metrics["cross_validation"]["accuracy"] + 0.1
    rows = pq.read_table(tmp_path / "model" / "split.parquet").to_pylist()
    splits = {row["group"]: {other["split"] for other in rows if other["group"] == row["group"]} for row in rows}
    assert len(splits) == 150 and all(len(found) == 1 for found in splits.values())


def test_accuracy_without_groups_needs_near_duplicates(tmp_path):
    metrics = fb.train(write_codes(tmp_path / "codes", labels(daisy=40, rose=40)), tmp_path / "model", LOGISTIC)
    assert metrics["split"]["accuracy_without_groups"] is None


def test_photos_that_move_with_their_group_are_counted(tmp_path):
    names = labels(daisy=40, rose=40)
    few, many = write_codes(tmp_path / "few", names), write_codes(tmp_path / "many", names, copies=80)
    assert fb.train(str(few), str(tmp_path / "model"), LOGISTIC)["split"]["moved"] == 0
    before = splits_of(tmp_path / "model")
    moved = fb.train(str(many), str(tmp_path / "model"), LOGISTIC)["split"]["moved"]
    after = splits_of(tmp_path / "model")
    assert moved == sum(after[path] != split for path, split in before.items()) > 0
    assert fb.train(str(many), str(tmp_path / "model"), LOGISTIC)["split"]["moved"] == 0


def splits_of(model: Path) -> dict[str, str]:
    return {row["path"]: row["split"] for row in pq.read_table(model / "split.parquet").to_pylist()}


def test_threshold_keeps_the_precision_that_was_asked_for(tmp_path):
    codes = write_codes(tmp_path / "codes", labels(a=300, b=300, c=300), spread=4)
    metrics = fb.train(
        str(codes), str(tmp_path / "model"), fb.TrainConfig(("folder",), head="logistic", min_precision=0.9)
    )
    unknown = metrics["unknown"]
    assert metrics["cross_validation"]["accuracy"] < 0.9 <= unknown["bound"] < unknown["precision"]
    assert 0 < unknown["coverage"] < 1 and unknown["labels_needed"] == {}
    assert sum(kept["photos"] for kept in unknown["per_class"].values()) == unknown["photos"]
    assert load_model(str(tmp_path / "model")).head.threshold == unknown["threshold"]
    assert unknown["test"]["precision"] > metrics["test"]["accuracy"]
    assert unknown["auroc"] > 0.6
    assert load_model(str(tmp_path / "model")).head.temperature == metrics["calibration"]["temperature"]


def test_all_labels_are_unknown_if_none_is_certain_enough(tmp_path):
    random = [str(number) for number in np.random.default_rng(3).integers(0, 2, 600)]
    codes = write_codes(tmp_path / "codes", random, spread=300)
    metrics = fb.train(
        str(codes), str(tmp_path / "model"), fb.TrainConfig(("folder",), head="logistic", min_precision=1.0)
    )
    assert metrics["unknown"]["precision"] is None
    assert metrics["unknown"]["threshold"] > 1
    assert metrics["unknown"]["coverage"] == 0
    assert metrics["unknown"]["labels_needed"]["1"] is None


def test_learning_curve_shows_whether_more_labels_would_help(tmp_path):
    codes = write_codes(tmp_path / "codes", labels(a=300, b=300, c=300), spread=4)
    curve = fb.train(str(codes), str(tmp_path / "model"), LOGISTIC)["learning_curve"]
    assert [point["share"] for point in curve] == [0.1, 0.25, 0.5, 1.0]
    photos = [point["photos"] for point in curve]
    assert photos == sorted(photos) and photos[0] == pytest.approx(photos[-1] / 10, abs=3)
    assert curve[-1]["accuracy"] > curve[0]["accuracy"]


def test_conflicting_labels_of_equal_photos_are_listed(tmp_path):
    names = labels(daisy=30, rose=30)
    codes = write_codes(tmp_path / "codes", names, copies=2)
    (tmp_path / "labels.csv").write_text("path,label\ndaisy/060.jpg,rose\n")  # the copy of the first
    config = fb.TrainConfig(("folder", str(tmp_path / "labels.csv")), head="logistic")
    metrics = fb.train(str(codes), str(tmp_path / "model"), config)
    assert metrics["conflicts"] == [{"daisy/000.jpg": "daisy", "daisy/060.jpg": "rose"}]


def test_held_out_photos_take_no_part_in_training(tmp_path):
    """Negated codes of the test photos change the figures, but not the head."""
    names = labels(daisy=40, rose=40)
    codes = write_codes(tmp_path / "first", names)
    fb.train(str(codes), str(tmp_path / "a"), LOGISTIC)
    test_paths = {path for path, split in splits_of(tmp_path / "a").items() if split == "test"}
    shard = codes / "codes" / "shard-000000.parquet"
    table = pq.read_table(shard)
    negated = [
        [-value for value in code] if path in test_paths else code
        for path, code in zip(table["path"].to_pylist(), table["code"].to_pylist(), strict=True)
    ]
    column = table.schema.get_field_index("code")
    field = table.schema.field("code")
    folder, changed = open_folder(codes), table.set_column(column, field, pa.array(negated, field.type))
    write_shard(folder, CODES, table.schema, changed.to_batches(), read_footer(folder, CODES, 0))
    metrics = fb.train(str(codes), str(tmp_path / "b"), LOGISTIC)
    assert load_model(str(tmp_path / "a")).head.identity == load_model(str(tmp_path / "b")).head.identity
    assert metrics["test"]["accuracy"] < 0.5


def test_metrics_are_those_of_the_split_file(tmp_path):
    codes = write_codes(tmp_path / "codes", labels(daisy=40, rose=40, tulip=40), failed=2)
    metrics = fb.train(str(codes), str(tmp_path / "model"), LOGISTIC)
    rows = pq.read_table(tmp_path / "model" / "split.parquet").to_pylist()
    assert len(rows) == 118 and metrics["without_code"] == 2
    test = [row for row in rows if row["split"] == "test"]
    score = accuracy_score([row["label"] for row in test], [row["prediction"] for row in test])
    assert metrics["test"]["accuracy"] == pytest.approx(score)


def test_model_folder_keeps_a_copy_of_the_labels(tmp_path):
    codes = write_codes(tmp_path / "codes", [*labels(daisy=30, rose=30), None], failed=1)
    (tmp_path / "labels.csv").write_text("path,label\ndaisy/000.jpg,rose\n")
    config = fb.TrainConfig(("folder", str(tmp_path / "labels.csv")), head="logistic")
    fb.train(codes, tmp_path / "first", config)
    copy = tmp_path / "first" / "labels.parquet"
    given = read_labels(str(copy)).labels
    assert len(given) == 60 and given["daisy/000.jpg"] == "rose" and given["daisy/001.jpg"] == "daisy"
    fb.train(codes, tmp_path / "again", fb.TrainConfig((str(copy),), head="logistic"))
    assert load_model(tmp_path / "again").head.identity == load_model(tmp_path / "first").head.identity


def write_chosen(file: Path, paths: list[str], chosen: dict[str, str], wrong: tuple[str, ...] = ()) -> str:
    """Write labels by folder, some of them wrong, and how photos were chosen; those without a way were in groups."""
    rows = []
    for path in paths:
        label = path.split("/")[0]
        rows.append(f"{path},{'other' if path in wrong else label},{chosen.get(path, 'group')}")
    file.write_text("\n".join(["path,label,chosen", *rows, ""]))
    return str(file)


def paths_of(names: list[str]) -> list[str]:
    return [f"{name}/{number:03d}.jpg" for number, name in enumerate(names)]


def test_figures_come_from_randomly_chosen_photos_alone(tmp_path):
    """Photos chosen otherwise have codes without a pattern: they cannot be predicted, and would ruin any figure."""
    names = labels(a=100, b=100)
    codes = write_codes(tmp_path / "codes", names, spread=0.5)
    paths = paths_of(names)
    random = dict.fromkeys(paths[::3], "random")
    wrong = tuple(path for path in paths if path not in random)[::3]
    config = fb.TrainConfig((write_chosen(tmp_path / "l.csv", paths, random, wrong),), min_precision=0.8)
    metrics = fb.train(codes, tmp_path / "model", config)
    rows = pq.read_table(tmp_path / "model" / "split.parquet").to_pylist()
    judged = [row for row in rows if row["split"] == "test" or (row["split"] == "train" and row["chosen"] == "random")]
    assert {row["path"] for row in judged} == set(random) and len(rows) == 200
    assert metrics["test"]["photos"] + metrics["cross_validation"]["photos"] == len(random)
    assert metrics["cross_validation"]["accuracy"] > 0.9 and metrics["train"]["accuracy"] < 0.9
    assert metrics["unknown"]["of_photos"] == metrics["cross_validation"]["photos"]
    assert metrics["unknown"]["threshold"] < 1 and metrics["unknown"]["random_only"]
    assert metrics["calibration"]["curve"] and metrics["learning_curve"][-1]["photos"] == metrics["photos"]["train"]
    assert metrics["chosen"] == {"random": 67, "group": 133} and metrics["random_needed"] == 0
    assert read_labels(str(tmp_path / "model" / "labels.parquet")).chosen == {
        path: random.get(path, "group") for path in paths
    }


def test_recorded_random_photos_are_judged_as_unrecorded_ones(tmp_path):
    names = labels(a=60, b=60)
    codes = write_codes(tmp_path / "codes", names, spread=2)
    paths = paths_of(names)
    all_random = write_chosen(tmp_path / "random.csv", paths, dict.fromkeys(paths, "random"))
    found = [
        fb.train(codes, tmp_path / name, replace(LOGISTIC, labels=(source,)))
        for name, source in (("a", all_random), ("b", "folder"))
    ]
    for metrics in found:
        metrics.pop("seconds"), metrics.pop("chosen"), metrics["unknown"].pop("random_only")
    assert found[0] == found[1]


def test_accuracy_is_not_known_without_random_photos(tmp_path):
    names = labels(a=60, b=60)
    codes = write_codes(tmp_path / "codes", names, copies=20, spread=0.5)
    paths = paths_of(names)
    for count in (0, 12):
        random = dict.fromkeys(paths[: 10 * count : 10], "random")
        config = replace(LOGISTIC, labels=(write_chosen(tmp_path / "l.csv", paths, random),))
        metrics = fb.train(codes, tmp_path / "model", config)
        assert metrics["accuracy_of"] is metrics["calibration"] is None and metrics["random_needed"] == 20 - count
        assert not {"test", "validation", "cross_validation"} & set(metrics) and metrics["learning_curve"] == []
        assert metrics["unknown"]["threshold"] > 1 and metrics["unknown"]["bound"] is None
        text = training_text(metrics, "model")
        assert (
            f"The accuracy is not known yet: only photos chosen at random can tell it. Label {20 - count} more" in text
        )
        assert f"{120 - count} labelled photos were not chosen at random (group {120 - count})" in text
        assert "accuracy:" not in text and "would probably not be enough" not in text
        assert predictions_of_codes(tmp_path)["a/000.jpg"] == "a"
        assert read_metrics(open_folder(tmp_path / "model"))["accuracy_of"] is None


def test_near_duplicate_of_a_test_photo_does_not_train(tmp_path):
    names = labels(a=40, b=40)
    codes = write_codes(tmp_path / "codes", names, copies=80, spread=0.5)
    paths = [*paths_of(names), *(f"{names[n % 80]}/{n:03d}.jpg" for n in range(80, 240))]
    random = dict.fromkeys(paths[:80], "random")
    config = replace(LOGISTIC, labels=(write_chosen(tmp_path / "l.csv", paths, random),))
    metrics = fb.train(codes, tmp_path / "model", config)
    rows = pq.read_table(tmp_path / "model" / "split.parquet").to_pylist()
    groups = {split: {row["group"] for row in rows if row["split"] == split} for split in ("train", "test")}
    assert not groups["train"] & groups["test"]
    assert {row["chosen"] for row in rows if row["split"] == "test"} == {"random"}
    assert metrics["photos"]["test"] + metrics["cross_validation"]["photos"] == 80
    assert metrics["left_out_classes"]["photos"] == 0 and metrics["left_out_classes"]["copies"] == {}


@pytest.mark.parametrize("head", ["mlp", "auto"])
def test_validation_takes_random_photos(tmp_path, monkeypatch, head):
    monkeypatch.setattr("flowers_batch.classifier.training._MAX_CROSS_VALIDATED", 50)
    names = labels(a=60, b=60)
    codes = write_codes(tmp_path / "codes", names, spread=0.5)
    config = fb.TrainConfig((write_chosen(tmp_path / "l.csv", paths_of(names), {}),), head=head)
    assert "label 20 more" in refused(codes, config)


def test_metrics_of_many_classes_are_small(tmp_path):
    """At this rate a file on 2,000 classes stays below 5 MB; a dense matrix would grow with their square."""
    names = [f"species {number:04d}" for number in range(500)]
    write_codes(tmp_path / "codes", [name for name in names for _ in range(4)], spread=9)
    metrics = fb.train(tmp_path / "codes", tmp_path / "model", LOGISTIC)
    assert metrics["test"]["accuracy"] < 0.5 and len(metrics["classes"]) == 500
    assert (tmp_path / "model" / "metrics.json").stat().st_size < 500 * 5_000_000 / 2000


def test_folders_are_no_labels_unless_asked_for(tmp_path):
    codes = write_codes(tmp_path / "codes", labels(daisy=10, rose=10))
    (tmp_path / "empty.csv").write_text("path,label\ndaisy/000.jpg,\n")
    assert "None of the photos" in refused(codes, fb.TrainConfig(labels=(str(tmp_path / "empty.csv"),)))


class Messages:
    """Keeps what a reporter is told."""

    def __init__(self) -> None:
        self.sentences: list[str] = []

    def message(self, sentence: str) -> None:
        self.sentences.append(sentence)

    def update(self, progress: fb.Progress) -> None:
        pass


def test_classes_with_fewer_photos_than_asked_for_are_left_out(tmp_path):
    """Copies count once; the others are trained as if these were not there."""
    config = replace(LOGISTIC, min_photos_per_class=3)
    names = [*labels(rose=30, tulip=1), *labels(daisy=30, violet=2)]
    codes, without = (write_codes(tmp_path / name, names) for name in ("codes", "without"))
    told = Messages()
    metrics = fb.train(codes, tmp_path / "model", config, reporter=told)
    assert metrics["left_out_classes"] == {
        "untested": {},
        "min_photos_per_class": 3,
        "photos": 3,
        "rare": {"tulip": 1, "violet": 2},
        "copies": {},
    }
    assert told.sentences == [
        "2 classes are left out, with fewer than 3 photos that are no copies of each other: tulip (1), violet (2)."
    ]
    assert metrics["classes"] == ["daisy", "rose"] and sum(metrics["photos"].values()) == 60
    assert metrics["unlabelled"] == 0
    assert read_labels(str(tmp_path / "model" / "labels.parquet")).labels.keys() >= {"tulip/030.jpg", "violet/062.jpg"}
    labelled = {row["path"]: row for row in read_training_labels(open_folder(tmp_path / "model")).to_pylist()}
    assert len(labelled) == 63 and labelled["tulip/030.jpg"]["label"] == "tulip"
    assert {path for path, row in labelled.items() if row["split"] is None} == {
        "tulip/030.jpg",
        "violet/061.jpg",
        "violet/062.jpg",
    }
    (tmp_path / "labels.csv").write_text(
        "path,label\n" + "".join(f"{path},{path.split('/')[0]}\n" for path in splits_of(tmp_path / "model"))
    )
    alone = fb.TrainConfig((str(tmp_path / "labels.csv"),), head="logistic")
    assert fb.train(without, tmp_path / "alone", alone)["test"] == metrics["test"]


def test_copies_of_a_photo_count_once_for_its_class(tmp_path):
    codes = write_codes(tmp_path / "codes", labels(tulip=2, rose=30, daisy=30), copies=2)
    metrics = fb.train(codes, tmp_path / "model", LOGISTIC)
    assert metrics["left_out_classes"]["untested"] == {"tulip": 2} and metrics["left_out_classes"]["photos"] == 0


def test_classes_may_need_more_photos(tmp_path):
    codes = write_codes(tmp_path / "codes", labels(rose=30, daisy=30, tulip=9))
    config = replace(LOGISTIC, min_photos_per_class=10)
    assert fb.train(codes, tmp_path / "model", config)["left_out_classes"]["rare"] == {"tulip": 9}
    with pytest.raises(fb.InputError, match="`min_photos_per_class` must be 1 or more"):
        replace(LOGISTIC, min_photos_per_class=0)


def test_class_of_other_classes_copies_is_left_out_and_named(tmp_path):
    """Three photos of daisies have copies that are labelled as tulips, all in one split."""
    codes = write_codes(tmp_path / "codes", labels(daisy=3, rose=3), copies=6)
    rows = {"daisy/006.jpg": "tulip", "rose/009.jpg": "tulip", "daisy/007.jpg": "tulip"}
    (tmp_path / "labels.csv").write_text("path,label\n" + "".join(f"{path},{name}\n" for path, name in rows.items()))
    config = fb.TrainConfig(("folder", str(tmp_path / "labels.csv")), head="logistic")
    told = Messages()
    metrics = fb.train(codes, tmp_path / "model", config, reporter=told)
    assert metrics["classes"] == ["daisy", "rose"] and metrics["left_out_classes"]["copies"] == {"tulip": 3}
    assert "as their photos are copies of other classes' photos: tulip (3); correct their labels." in told.sentences[0]
    assert len(metrics["conflicts"]) == 3


def refused(codes: Path, config: fb.TrainConfig | None = None) -> str:
    with pytest.raises(fb.InputError) as error:
        fb.train(str(codes), str(codes / uuid.uuid4().hex), config or LOGISTIC)
    return str(error.value)


def test_invalid_labels_or_codes_are_refused(tmp_path):
    few = refused(write_codes(tmp_path / "a", labels(tulip=1, violet=2)))
    assert "Too few photos are labelled" in few and "tulip (1), violet (2)" in few
    assert "at least two classes" in refused(write_codes(tmp_path / "b", labels(rose=9)))
    assert "folder named for its class" in refused(write_codes(tmp_path / "c", [None] * 9))
    codes = write_codes(tmp_path / "d", labels(rose=9, tulip=9))
    assert "no labels file" in refused(codes, fb.TrainConfig(labels=(str(tmp_path / "none.csv"),)))
    (tmp_path / "bad.csv").write_text("file;class\n1;2\n")
    assert "its header must name `path`, `label`" in refused(codes, fb.TrainConfig(labels=(str(tmp_path / "bad.csv"),)))
    assert "no labels file" in refused(codes, fb.TrainConfig(labels=(str(tmp_path),)))
    (tmp_path / "foreign.csv").write_text("path,label\nother/1.jpg,rose\n")
    foreign = refused(codes, fb.TrainConfig(labels=(str(tmp_path / "foreign.csv"),)))
    assert "no photo has the path other/1.jpg of " in foreign and "such as rose/000.jpg" in foreign
    for rows in ("", "rose/000.jpg,\n"):
        (tmp_path / "blank.csv").write_text(f"path,label\n{rows}")
        blank = refused(codes, fb.TrainConfig(labels=(str(tmp_path / "blank.csv"),)))
        assert "fill in the column `label` of " in blank and "rose/000.jpg" in blank
    (codes / SUCCESS).unlink()
    assert "not finished" in refused(codes)
    assert "not a folder of codes" in refused(tmp_path)
