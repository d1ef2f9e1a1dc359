"""What `factories_module.EncoderFactory` makes of networks, layers and weights; shallow ones, in this process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import encoded, manifest_rows, random_pixels, store
from safetensors.numpy import load_file

import flowers_batch as fb
from flowers_batch import config as config_module
from flowers_batch.dataset.schema import codes_of
from flowers_batch.decoding.decode import decode
from flowers_batch.encoding.factories import EncoderFactory
from flowers_batch.encoding.networks import NullNetwork, code_width, codes_fingerprint, ends_at_pool5, weights_identity
from flowers_batch.sources.opening import open_source
from tensorflow_vgg import images, network, weights


def encode_one(archive, config: fb.EncodeConfig) -> tuple[fb.EncodeConfig, np.ndarray, np.ndarray]:
    """The worker's fingerprint, the code of one photo, and its pixels."""
    path = "red/0000.png"
    worker = EncoderFactory(config, open_source(archive))(1, False)
    (batch,) = worker.batches(0, manifest_rows([path]), {})
    return worker.fingerprint, codes_of(batch)[0][0], decode((archive / path).read_bytes()).pixels


@pytest.mark.parametrize("pool", ["avg", "max", "flatten"])
def test_map_becomes_a_row_by_the_requested_pooling(archive, pool):
    config = fb.EncodeConfig(weights="random:0", network="vgg19", layer="pool2", pool=pool, precision="float32")
    fingerprint, code, pixels = encode_one(archive, config)
    maps = network.build("vgg19", "pool2", weights.load(weights.find("random:0"), "vgg19", "pool2"))
    map_ = maps.predict_on_batch(pixels[None])[0]
    expected = {"avg": map_.mean((0, 1)), "max": map_.max((0, 1)), "flatten": map_.ravel()}[pool]
    assert len(code) == code_width(config) == len(expected)
    assert np.linalg.norm(code - expected) / np.linalg.norm(expected) < 1e-3  # float16 on disk
    assert (fingerprint.network, fingerprint.layer, fingerprint.pool) == ("vgg19", "pool2", pool)


def test_default_codes_are_the_references_relu6(archive, narrow):
    config = fb.EncodeConfig(weights="random:0", precision="float32", code_dtype="float32")
    fingerprint, code, pixels = encode_one(archive, config)
    reference = network.build("vgg16", "relu6", weights.load(weights.find("random:0"), "vgg16", "relu6"))
    expected = reference.predict_on_batch(pixels[None])[0]
    assert (fingerprint.network, fingerprint.layer, fingerprint.pool) == ("vgg16", "relu6", None)
    assert np.linalg.norm(code - expected) < 1e-4 * np.linalg.norm(expected)


def keras_pool5(file: Path, photos: list[Path]) -> np.ndarray:
    """Averaged pool5 of photos, by Keras' own VGG16 and preprocessing, and scikit-image's resizing."""
    import keras

    arrays = load_file(file)
    model = keras.applications.VGG16(weights=None, include_top=False, pooling="avg", input_shape=(224, 224, 3))
    model.set_weights(
        [arrays[f"{name}.{part}"] for name in network.parameter_shapes("vgg16", "pool5") for part in ("kernel", "bias")]
    )
    pixels = np.stack([images.load_image(photo) * 255 for photo in photos]).astype(np.float32)
    return model.predict_on_batch(keras.applications.vgg16.preprocess_input(pixels))


@pytest.mark.slow
def test_codes_of_real_weights_equal_those_of_keras(real_photos, real_weights):
    photos = [min(folder.glob("*.jpg")) for folder in sorted(real_photos.iterdir()) if folder.is_dir()][:2]
    settings = {"layer": "pool5", "pool": "avg", "precision": "float32", "code_dtype": "float32"}
    config = fb.EncodeConfig(weights=str(real_weights), **settings)
    worker = EncoderFactory(config, open_source(real_photos))(1, False)
    rows = manifest_rows([str(photo.relative_to(real_photos)) for photo in photos])
    received = np.concatenate([codes_of(batch)[0] for batch in worker.batches(0, rows, {})])
    expected = keras_pool5(real_weights, photos)
    assert np.linalg.norm(received - expected, axis=1).max() < 1e-4 * np.linalg.norm(expected, axis=1).min()


@pytest.mark.parametrize(("layer", "width"), [("fc6", 4096), ("relu7", 4096), ("fc8", 1000), ("prob", 1000)])
def test_rows_have_the_width_of_their_layer_and_are_not_pooled(layer, width):
    assert code_width(fb.EncodeConfig(layer=layer)) == width
    with pytest.raises(fb.InputError, match="leave `pool` avg out"):
        code_width(fb.EncodeConfig(layer=layer, pool="avg"))


def test_map_without_pooling_is_refused():
    with pytest.raises(fb.InputError, match=r"7 x 7 x 512\), not a row: .* `pool` avg, max or flatten"):
        code_width(fb.EncodeConfig(layer="pool5"))


def test_weights_behind_a_url_are_copied_once_and_keep_their_url(archive, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    parameters = weights.load(weights.find("random:0"), "vgg16", "conv1_2")
    weights.write(tmp_path / "vgg.safetensors", parameters, "float32", {})
    url = f"file://{tmp_path}/vgg.safetensors"
    config = fb.EncodeConfig(weights=url, layer="conv1_2", pool="max")
    drawn = fb.EncodeConfig(weights="random:0", layer="conv1_2", pool="max")
    assert weights_identity(config) == (weights_identity(drawn)[0], url)
    assert np.array_equal(encode_one(archive, config)[1], encode_one(archive, drawn)[1])
    assert len(list((tmp_path / "cache" / "flowers_batch").glob("*-vgg.safetensors"))) == 1
    with pytest.raises(fb.InputError, match="There is no weights file"):
        weights_identity(fb.EncodeConfig(weights=f"file://{tmp_path}/none.h5", layer="conv1_2", pool="max"))


@pytest.mark.parametrize(
    ("network_name", "layer", "pool", "ends"),
    [("vgg16", "relu6", None, True), ("vgg16", "pool5", "avg", False), ("vgg19", "relu6", None, False)],
)
def test_weights_that_end_at_pool5_are_recognised(tmp_path, narrow, network_name, layer, pool, ends):
    path = tmp_path / "vgg.safetensors"
    weights.write(path, weights.load(weights.find("random:0"), "vgg16", "pool5"), "float32", {})
    config = fb.EncodeConfig(weights=str(path), network=network_name, layer=layer, pool=pool)
    assert ends_at_pool5(config) == ends
    assert not ends_at_pool5(replace(config, weights="random:0"))


def test_gpu_that_tensorflow_cannot_see_is_refused(archive):
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        pytest.skip("this machine has a GPU")
    with pytest.raises(fb.InputError, match=r"\[gpu\] extra"):
        EncoderFactory(fb.EncodeConfig(weights="random:0"), open_source(archive))(1, True)


def test_weights_are_converted_to_and_from_urls(tmp_path, monkeypatch):
    from flowers_batch.encoding import weights as weights_module

    parameters = weights.load(weights.find("random:0"), "vgg16", "conv1_2")
    weights.write(tmp_path / "vgg.h5", parameters, "float32", {})
    bucket = store(tmp_path / "bucket")
    monkeypatch.setattr(weights_module, "split_file", lambda name: (bucket, name.rsplit("/", 1)[1]))
    weights_module.convert_weights(str(tmp_path / "vgg.h5"), "store://bucket/vgg.safetensors", "float32")
    assert (
        weights.check(tmp_path / "bucket" / "vgg.safetensors").identity == weights.check(tmp_path / "vgg.h5").identity
    )
    assert [path.name for path in (tmp_path / "bucket").iterdir()] == ["vgg.safetensors"]


def test_both_packages_use_the_same_variable_for_weights():
    assert config_module.WEIGHTS_ENVIRONMENT == weights.ENVIRONMENT_VARIABLE


@pytest.mark.parametrize(
    ("decode", "precision", "expected"),
    [
        ("auto", "float32", "exact"),
        ("auto", "bfloat16", "fast"),
        ("auto", "auto", "auto"),
        ("exact", "bfloat16", "exact"),
        ("fast", "float32", "fast"),
        ("fast", "auto", "fast"),
    ],
)
def test_photos_are_decoded_as_exactly_as_the_network_computes(decode, precision, expected):
    assert codes_fingerprint(fb.EncodeConfig(decode=decode), "w", precision).decode == expected


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_workers_decode_in_the_mode_of_the_fingerprint(tmp_path, mode):
    noise = encoded(random_pixels(1344, 1344), "JPEG", quality=50)
    (tmp_path / "noise.jpg").write_bytes(noise)
    config = fb.EncodeConfig(network="null", decode=mode, code_dtype="float32")
    worker = EncoderFactory(config, open_source(tmp_path))(1, False)
    (batch,) = worker.batches(0, manifest_rows(["noise.jpg"]), {})
    assert worker.fingerprint.decode == mode
    modes = {name: decode(noise, mode=name).pixels[None] for name in ("exact", "fast")}
    assert np.abs(codes_of(batch)[0][0] - NullNetwork()(modes[mode])).max() < 1e-3
    assert np.abs(modes["exact"] - modes["fast"]).max() > 0.01
