"""Labels, split, heads and figures; the codes are written by hand, so nothing here needs a network or Ray."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import accuracy_score

import flowers_batch as fb
from flowers_batch import training
from flowers_batch.config import Fingerprint
from flowers_batch.dataset import CODES, IMAGE_COLUMNS, SUCCESS, Footer, Job, codes_schema, write_job, write_shard
from flowers_batch.heads import load_model
from flowers_batch.storage import open_folder

WIDTH = 12


def write_codes(folder: Path, labels: list[str | None], failed: int = 0, seed: int = 0) -> Path:
    """A finished codes folder: codes of a class lie around a point of its own; the last `failed` have none."""
    random = np.random.default_rng(seed)
    centres = {label: random.normal(0, 2, WIDTH) for label in dict.fromkeys(labels)}
    codes = np.stack([random.normal(centres[label], 1) for label in labels]).astype(np.float16)
    ok = np.arange(len(labels)) < len(labels) - failed
    schema = codes_schema(WIDTH, "float16")
    columns = {name: [None] * len(labels) for name in IMAGE_COLUMNS}
    columns |= {
        "path": [f"{label or ''}/{number:03d}.jpg".lstrip("/") for number, label in enumerate(labels)],
        "folder": labels,
        "status": ["ok" if good else "failed" for good in ok],
        "reason": [None if good else "truncated" for good in ok],
        "code": [code if good else None for code, good in zip(codes, ok, strict=True)],
    }
    table = pa.table([pa.array(columns[field.name], field.type) for field in schema], schema=schema)
    target = open_folder(folder)
    fingerprint = Fingerprint("null", "pixels", "null", "float32", "float16")
    write_job(target, Job(CODES, str(folder), fingerprint, "null"))
    write_shard(target, CODES, schema, table.to_batches(), Footer(fingerprint.digest, 0, "x", 0, 0))
    target.write_json(SUCCESS, {"shards": 1, "images": len(labels), "failed": failed})
    return folder


def labels(**counts: int) -> list[str]:
    return [name for name, count in counts.items() for _ in range(count)]


@pytest.mark.parametrize("head", ["logistic", "mlp"])
def test_a_head_learns_what_can_be_learnt_and_says_how_well(tmp_path, head):
    codes = write_codes(tmp_path / "codes", labels(daisy=60, rose=60, tulip=30))
    metrics = fb.train(str(codes), str(tmp_path / "model"), fb.TrainConfig(head=head))
    assert metrics["test"]["accuracy"] > 0.85
    assert metrics["photos"] == {"train": 120, "validation": 15, "test": 15}
    assert np.array(metrics["test"]["confusion_matrix"]).sum() == 15
    low, high = metrics["test"]["interval95"]
    assert low <= metrics["test"]["accuracy"] <= high
    assert metrics == json.loads((tmp_path / "model" / "metrics.json").read_text())


@pytest.mark.parametrize("head", ["logistic", "mlp"])
@pytest.mark.parametrize("names", [("a", "b"), ("a", "b", "c")])
def test_the_saved_head_gives_scikit_learns_probabilities(head, names, monkeypatch):
    fitted = []
    for kind in ("linear_model.LogisticRegression", "neural_network.MLPClassifier"):
        room, name = kind.split(".")
        original = getattr(__import__(f"sklearn.{room}", fromlist=[name]), name)

        class Kept(original):
            def fit(self, codes, targets):
                fitted.append((self, codes))
                return super().fit(codes, targets)

        monkeypatch.setattr(f"sklearn.{kind}", Kept)
    random = np.random.default_rng(0)
    targets = random.integers(0, len(names), 90)
    codes = random.normal(targets[:, None], 1, (90, WIDTH)).astype(np.float32)
    head = training._fit(codes, targets, names, fb.TrainConfig(head=head))
    estimator, standardised = fitted[0]
    expected = estimator.predict_proba(standardised)
    assert np.abs(head.probabilities(codes) - expected).max() < 1e-5


def test_the_same_seed_gives_the_same_model_and_another_seed_another_split(tmp_path):
    codes = write_codes(tmp_path / "codes", labels(daisy=40, rose=40))
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        fb.train(str(codes), str(tmp_path / name), fb.TrainConfig(seed=seed))
    identities = {name: load_model(str(tmp_path / name)).head.identity for name in "abc"}
    assert identities["a"] == identities["b"] != identities["c"]


def test_split_keeps_each_class_on_each_side_and_each_photo_on_one(tmp_path):
    targets = np.repeat([0, 1, 2], [3, 40, 101])
    sides = training.split(targets, seed=5)
    for target, held_out in ((0, 1), (1, 4), (2, 10)):
        counts = np.bincount(sides[targets == target], minlength=3)
        assert counts.tolist() == [counts.sum() - 2 * held_out, held_out, held_out]


def test_held_out_photos_take_no_part_in_training(tmp_path):
    """Test codes that are turned upside down change the figures, and not the head."""
    names = labels(daisy=40, rose=40)
    first = write_codes(tmp_path / "first", names)
    fb.train(str(first), str(tmp_path / "a"))
    rows = pq.read_table(tmp_path / "a" / "split.parquet").to_pylist()
    test_paths = {row["path"] for row in rows if row["side"] != "train"}
    shard = first / "codes" / "shard-000000.parquet"
    table = pq.read_table(shard)
    codes = [
        [-value for value in code] if path in test_paths else code
        for path, code in zip(table["path"].to_pylist(), table["code"].to_pylist(), strict=True)
    ]
    column = table.schema.get_field_index("code")
    turned = table.set_column(column, table.schema.field("code"), pa.array(codes, table.schema.field("code").type))
    pq.write_table(turned, shard)
    metrics = fb.train(str(first), str(tmp_path / "b"))
    assert load_model(str(tmp_path / "a")).head.identity == load_model(str(tmp_path / "b")).head.identity
    assert metrics["test"]["accuracy"] < 0.5


def test_metrics_are_those_of_the_split_that_is_written_down(tmp_path):
    codes = write_codes(tmp_path / "codes", labels(daisy=40, rose=40, tulip=40), failed=2)
    metrics = fb.train(str(codes), str(tmp_path / "model"))
    rows = pq.read_table(tmp_path / "model" / "split.parquet").to_pylist()
    assert len(rows) == 118 and metrics["without_code"] == 2
    test = [row for row in rows if row["side"] == "test"]
    score = accuracy_score([row["label"] for row in test], [row["prediction"] for row in test])
    assert metrics["test"]["accuracy"] == pytest.approx(score)


def test_labels_from_a_file_override_folders(tmp_path):
    codes = write_codes(tmp_path / "codes", labels(daisy=10, rose=10))
    paths = [f"daisy/{number:03d}.jpg" for number in range(10)] + [f"rose/{number:03d}.jpg" for number in range(10, 20)]
    table = {"path": [*paths, "elsewhere.jpg"], "label": ["x"] * 10 + ["y"] * 10 + ["x"]}
    pq.write_table(pa.table(table), tmp_path / "labels.parquet")
    with (tmp_path / "labels.csv").open("w", encoding="utf-8-sig") as file:
        file.write("path,label\n" + "".join(f"{path},{label}\n" for path, label in zip(*table.values(), strict=True)))
        file.write("daisy/000.jpg,\n")
    for name in ("labels.csv", "labels.parquet"):
        given = training.read_labelled(training.open_run(str(codes), CODES), str(tmp_path / name))
        assert sorted(set(given.labels)) == ["x", "y"]
        assert (len(given.paths), given.unknown_paths, given.unlabelled) == (20, 1, 0)


def test_labels_are_never_taken_from_folders_unless_asked(tmp_path):
    codes = write_codes(tmp_path / "codes", labels(daisy=10, rose=10))
    (tmp_path / "empty.csv").write_text("path,label\ndaisy/000.jpg,\n")
    assert "None of the photos" in refused(codes, fb.TrainConfig(labels=str(tmp_path / "empty.csv")))


def test_zero_is_a_label_and_strange_line_ends_are_names(tmp_path):
    pq.write_table(pa.table({"path": ["a", "b", "c"], "label": [0.0, 1.0, float("nan")]}), tmp_path / "numbers.parquet")
    assert training.read_labels(str(tmp_path / "numbers.parquet")) == {"a": "0.0", "b": "1.0"}
    with (tmp_path / "names.csv").open("w", newline="") as file:
        file.write('path,label\r\nrose\u2028x.jpg,rose\r\n"two\nlines.jpg",tulip\r\n')
    assert training.read_labels(str(tmp_path / "names.csv")) == {"rose\u2028x.jpg": "rose", "two\nlines.jpg": "tulip"}


def refused(codes: Path, config: fb.TrainConfig | None = None) -> str:
    with pytest.raises(fb.InputError) as error:
        fb.train(str(codes), str(codes / uuid.uuid4().hex), config)
    return str(error.value)


def test_what_cannot_be_trained_on_is_told_in_a_sentence(tmp_path):
    assert "tulip (1), violet (2)" in refused(write_codes(tmp_path / "a", labels(rose=9, tulip=1, violet=2)))
    assert "at least two classes" in refused(write_codes(tmp_path / "b", labels(rose=9)))
    assert "folder named for its class" in refused(write_codes(tmp_path / "c", [None] * 9))
    codes = write_codes(tmp_path / "d", labels(rose=9, tulip=9))
    assert "no labels file" in refused(codes, fb.TrainConfig(labels=str(tmp_path / "none.csv")))
    (tmp_path / "bad.csv").write_text("file;class\n1;2\n")
    assert "columns path and label" in refused(codes, fb.TrainConfig(labels=str(tmp_path / "bad.csv")))
    assert "no labels file" in refused(codes, fb.TrainConfig(labels=str(tmp_path)))
    (tmp_path / "foreign.csv").write_text("path,label\nother/1.jpg,rose\n")
    assert "such as rose/000.jpg" in refused(codes, fb.TrainConfig(labels=str(tmp_path / "foreign.csv")))
    (codes / SUCCESS).unlink()
    assert "not finished" in refused(codes)
    assert "not a folder of codes" in refused(tmp_path)


def test_wilson_interval_is_the_published_one():
    # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I: 81 of 263.
    assert training.wilson_interval(81, 263) == pytest.approx([0.2553, 0.3662], abs=1e-4)
    assert training.wilson_interval(0, 10)[0] == 0.0
