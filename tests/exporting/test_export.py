"""Exported models label photos as `predict` does, each format in its own runtime."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pyarrow.parquet as pq
import pytest
from helpers import encoded, run_shards_here, write

import flowers_batch as fb
from flowers_batch.classifier import evaluated_head
from flowers_batch.classifier.calibration import TopLabels
from flowers_batch.classifier.promised_precision import Promise, promise_precision
from flowers_batch.cli.main import main
from flowers_batch.decoding.decode import decode
from flowers_batch.decoding.decode_photo import decode_photo
from flowers_batch.exporting.export import FORMATS

# Below and above 224 and 335 pixels, up to which the resize does not blur; portrait and landscape.
SIZES = [(60, 50), (224, 224), (300, 330), (331, 500), (700, 480), (1300, 900)]
EXPORT = "flowers_batch.exporting.export"
CLOSE = 2e-3  # between probabilities: the runtimes round differently


def photo(height: int, width: int, seed: int) -> PIL.Image.Image:
    """Draw a smooth picture with noise, and a little more of the colour of its class."""
    random = np.random.default_rng(seed)
    coarse = PIL.Image.fromarray(random.integers(0, 256, (5, 5, 3), np.uint8)).resize((width, height))
    noisy = np.asarray(coarse) + random.normal(0, 8, (height, width, 3)) + 30 * np.eye(3)[seed % 3]
    return PIL.Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def promise_half(top: TopLabels, *rest: Any) -> Promise:
    return replace(promise_precision(top, *rest), threshold=float(np.median(top.probabilities)))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Photos, JPEG and PNG, the predictions of `predict`, and the model."""
    base = tmp_path_factory.mktemp("export")
    files = {}
    for seed, size in enumerate(SIZES * 4):
        name, kind, options = ("png", "PNG", {}) if seed % 2 else ("jpg", "JPEG", {"quality": 92})
        files[f"{'abc'[seed % 3]}/{seed:02d}.{name}"] = encoded(photo(*size, seed), kind, **options)
    photos = write(base / "photos", files)
    config = fb.EncodeConfig(weights="random:0", layer="pool2", pool="avg", precision="float32", code_dtype="float32")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flowers_batch.runs.execution.run_shards", run_shards_here)
        patch.setattr("flowers_batch.classifier.learning._CURVE_SHARES", ())  # takes three more fits
        # So few photos promise no precision, but some labels must be known, and others unknown.
        patch.setattr(evaluated_head, "promise_precision", promise_half)
        fb.encode(photos, base / "codes", config)
        fb.train(base / "codes", base / "model", fb.TrainConfig(("folder",), head="mlp"))
        fb.predict(base / "codes", base / "labels", base / "model", fb.PredictConfig(top_k=3))
    rows = pq.read_table(base / "labels" / "predictions").to_pylist()
    classes = json.loads((base / "model" / "model.json").read_text())["classes"]
    return base, files, {row["path"]: row for row in rows}, classes


def assert_same(found: dict, rows: list[dict], classes: list[str]) -> None:
    """Assert that an exported model's outputs are some rows of predictions."""
    assert {name: len(found[name]) for name in found} == dict.fromkeys(
        ("label", "probability", "probabilities", "is_unknown"), len(rows)
    )
    for number, row in enumerate(rows):
        expected = dict(zip(row["top_labels"], row["top_probabilities"], strict=True))
        probabilities = dict(zip(classes, np.asarray(found["probabilities"])[number].tolist(), strict=True))
        assert probabilities == pytest.approx(expected, abs=CLOSE), row["path"]
        label = found["label"][number]
        assert (label.decode() if isinstance(label, bytes) else label) == row["prediction"]
        assert found["probability"][number] == pytest.approx(row["probability"], abs=CLOSE)
        assert bool(found["is_unknown"][number]) == row["is_unknown"]


def as_numpy(outputs: dict) -> dict:
    return {name: np.asarray(value) for name, value in outputs.items()}


def test_saved_model_labels_files(trained, tmp_path):
    import tensorflow as tf

    base, files, rows, classes = trained
    fb.export(base / "model", tmp_path / "saved")
    serve = tf.saved_model.load(str(tmp_path / "saved")).signatures["serving_default"]
    outputs = serve(images=tf.constant(list(files.values())))
    assert_same(as_numpy(outputs), [rows[path] for path in files], classes)


def turned_files() -> dict[str, bytes]:
    """Photos that cameras stored in all eight orientations, and some whose metadata is unusual."""
    xmp = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="{}"/></x:xmpmeta>'
    files = {}
    for number in range(40):
        orientation = number % 8 + 1
        tags = PIL.Image.Exif()
        tags[0x010E] = "a description"
        tags[0x0112] = orientation
        if number % 3 == 0:
            tags.endian = "<"
        kind = ("JPEG", "JPEG", "JPEG", "PNG", "WEBP")[number // 8]
        options = {"exif": tags.tobytes()}
        if number // 8 == 1:
            options = {"xmp": xmp.format(orientation).encode()}
        elif number // 8 == 2:  # what is said first counts
            options |= {"xmp": xmp.format(9 - orientation).encode(), "icc_profile": bytes(200_000), "comment": b"!"}
        picture = photo(200 + 7 * number, 420 - 5 * number, number)
        files[f"{number:02d}.{kind.lower()}"] = encoded(picture, kind, **options)
    return files


@pytest.mark.slow
def test_saved_model_labels_turned_photos_as_predict_does(trained, tmp_path):
    import tensorflow as tf

    base, _, _, classes = trained
    files = turned_files()
    write(tmp_path / "photos", files)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flowers_batch.runs.execution.run_shards", run_shards_here)
        fb.predict(tmp_path / "photos", tmp_path / "labels", base / "model", fb.PredictConfig(top_k=3))
    rows = {row["path"]: row for row in pq.read_table(tmp_path / "labels" / "predictions").to_pylist()}
    fb.export(base / "model", tmp_path / "saved")
    serve = tf.saved_model.load(str(tmp_path / "saved")).signatures["serving_default"]
    outputs = serve(images=tf.constant(list(files.values())))
    assert_same(as_numpy(outputs), [rows[path] for path in files], classes)


@pytest.mark.slow
def test_onnx_labels_photos_of_any_size(trained, tmp_path):
    import onnxruntime

    base, files, rows, classes = trained
    fb.export(base / "model", tmp_path / "model.onnx", "onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    names = [output.name for output in session.get_outputs()]
    for path, data in files.items():
        outputs = session.run(None, {"image": decode_photo(data)})
        assert_same(dict(zip(names, outputs, strict=True)), [rows[path]], classes)


def test_keras_labels_pixels(trained, tmp_path):
    import keras

    base, files, rows, classes = trained
    fb.export(base / "model", tmp_path / "model.keras", "keras")
    pixels = np.stack([decode(data).pixels for data in files.values()])
    outputs = keras.saving.load_model(tmp_path / "model.keras")(pixels)
    assert_same(as_numpy(outputs), [rows[path] for path in files], classes)


@pytest.mark.parametrize("layer", [{"layer": "relu6"}, {"layer": "pool5", "pool": "flatten"}])
@pytest.mark.nightly
def test_networks_of_full_size_are_exported(tmp_path, local_ray, layer):
    import onnxruntime

    files = {f"{'ab'[seed % 2]}/{seed}.png": encoded(photo(250, 240, seed)) for seed in range(12)}
    photos = write(tmp_path / "photos", files)
    fb.encode(photos, tmp_path / "codes", fb.EncodeConfig(weights="random:0", precision="float32", **layer))
    fb.train(tmp_path / "codes", tmp_path / "model", fb.TrainConfig(("folder",), head="logistic"))
    fb.predict(tmp_path / "codes", tmp_path / "labels", tmp_path / "model")
    fb.export(tmp_path / "model", tmp_path / "model.onnx", "onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for row in pq.read_table(tmp_path / "labels" / "predictions").to_pylist():
        label, probability, *_ = session.run(None, {"image": decode_photo(files[row["path"]])})
        assert (label[0], probability[0]) == (row["prediction"], pytest.approx(row["probability"], abs=0.01))


def test_saved_model_sees_the_pixels_of_decode(trained):
    """The pixels that a SavedModel sees, against those of `decode`, which equal scikit-image's."""
    from flowers_batch.exporting.keras_model import read_pixels

    _, files, _, _ = trained
    for path, data in files.items():
        assert np.abs(read_pixels(data).numpy() - decode(data).pixels).max() < 2e-3, path


def test_unknown_layer_is_refused_by_onnx(trained, tmp_path):
    import keras

    from flowers_batch.classifier.model_folder import load_model
    from flowers_batch.exporting.onnx_model import write_onnx

    head = load_model(trained[0] / "model").head
    layers = keras.layers
    for unknown in (
        layers.AveragePooling2D(2),
        layers.MaxPooling2D(3),
        layers.Conv2D(3, 5, activation="relu"),
        layers.Conv2D(3, 3),
        layers.LeakyReLU(),
        layers.Activation("tanh"),
        layers.Rescaling(2.0),
    ):
        photos = keras.Input((224, 224, 3))
        network = keras.Model(photos, unknown(layers.Conv2D(4, 3, activation="relu")(photos)))
        with pytest.raises(fb.InputError, match=f"layer {unknown.name} .* cannot be exported as onnx"):
            write_onnx(network, head, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


def refused(*arguments) -> str:
    with pytest.raises(fb.InputError) as error:
        fb.export(*arguments)
    return str(error.value)


def test_invalid_exports_are_refused(trained, tmp_path):
    model = trained[0] / "model"
    assert "one of savedmodel, onnx, keras" in refused(model, tmp_path / "x", "tflite")
    (tmp_path / "there").mkdir()
    assert "exists already" in refused(model, tmp_path / "there")
    assert "end in .keras" in refused(model, tmp_path / "model.h5", "keras")
    assert "not a model folder" in refused(tmp_path / "there", tmp_path / "x")
    assert "other weights" in refused(model, tmp_path / "x", "onnx", "random:1")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["there"]


def test_export_that_cannot_be_written_is_a_sentence(trained, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(fb.RunError, match=r"model\.onnx cannot be written \(.*\): make room or give write access"):
        fb.export(trained[0] / "model", tmp_path / "file" / "model.onnx", "onnx")


def write_two_files(network: object, head: object, scratch: Path) -> None:
    scratch.mkdir()
    for name in ("model", "model.keras"):
        (scratch / name).touch()


@pytest.mark.parametrize(("name", "format"), [("m.onnx", "onnx"), ("m.keras", "keras"), ("m", "savedmodel")])
def test_export_follows_no_planted_link_and_is_not_world_writable(
    trained, tmp_path, private, monkeypatch, name, format
):
    monkeypatch.setattr(f"{EXPORT}.write_saved_model", write_two_files)
    monkeypatch.setattr(f"{EXPORT}.write_onnx", lambda network, head, scratch: scratch.write_bytes(b"model"))
    out = tmp_path / "out"
    out.mkdir()
    (out / f"_tmp-{name}").symlink_to(private.parent if format == "savedmodel" else private)
    umask = os.umask(0)
    try:
        fb.export(trained[0] / "model", out / name, format)
    finally:
        os.umask(umask)
    assert sorted(os.listdir(out)) == [f"_tmp-{name}", name]
    for path in (out / name, *(out / name).rglob("*")):
        assert not path.stat().st_mode & stat.S_IWOTH
    with pytest.raises(fb.InputError, match="exists already"):
        fb.export(trained[0] / "model", out / name, format)


def test_command_exports(trained, tmp_path, capsys):
    target = tmp_path / "new" / "model.onnx"
    with pytest.raises(SystemExit) as ended:
        main(["export", str(trained[0] / "model"), str(target), "--format", "onnx"])
    assert ended.value.code == 0 and capsys.readouterr().out.strip() == str(target)
    assert [path.name for path in target.parent.iterdir()] == ["model.onnx"] and set(FORMATS) > {"onnx"}


def test_trained_model_is_not_trivial(trained):
    _, _, rows, classes = trained
    assert len({row["prediction"] for row in rows.values()}) == len(classes) == 3
    assert len({row["is_unknown"] for row in rows.values()}) == 2
    assert isinstance(trained[0], Path)
