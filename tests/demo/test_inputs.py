from __future__ import annotations

import os
import tarfile

import pytest
from helpers import write

from flowers_batch.config import IMAGENET, WEIGHTS_ENVIRONMENT, EncodeConfig
from flowers_batch.demo import inputs
from flowers_batch.progress import NULL_REPORTER
from tensorflow_vgg import weights


@pytest.mark.parametrize("named", [True, False])
def test_weights_without_fully_connected_layers_give_pool5(tmp_path, narrow, monkeypatch, named):
    path = tmp_path / "conv.safetensors"
    weights.write(path, weights.load(weights.find("random:0"), "vgg16", "pool5"), "float32", {})
    monkeypatch.setenv(WEIGHTS_ENVIRONMENT, "" if named else str(path))
    config = inputs.find_weights(str(path) if named else None, "vgg16", True, NULL_REPORTER)
    assert config == EncodeConfig(weights=str(path) if named else IMAGENET, layer="pool5", pool="avg")


def test_random_weights_give_the_default_codes(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(WEIGHTS_ENVIRONMENT, raising=False)
    assert inputs.find_weights(None, "vgg16", True, NULL_REPORTER) == EncodeConfig(weights=inputs.RANDOM_WEIGHTS)


def test_photos_are_not_unpacked_through_a_planted_link(tmp_path, private, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(inputs.PHOTOS_ENVIRONMENT, raising=False)
    with tarfile.open(tmp_path / "photos.tgz", "w:gz") as archive:
        archive.add(write(tmp_path / "flower_photos", {"tulips/one.jpg": b"1"}), "flower_photos")
    monkeypatch.setattr(inputs, "fetch", lambda file: tmp_path / "photos.tgz")
    monkeypatch.setattr(inputs, "_is_available", lambda *_: True)
    cache = write(tmp_path / "cache" / "flowers_batch", {"other": b""})
    (cache / "flower_photos.part").symlink_to(private.parent)
    found = inputs.find_photos(tmp_path / "synthetic", 5, True, NULL_REPORTER)
    assert [path.name for path in found.by_class["tulips"]] == ["one.jpg"]
    assert sorted(os.listdir(cache)) == ["flower_photos", "flower_photos.lock", "flower_photos.part", "other"]
