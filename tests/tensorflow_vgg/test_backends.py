"""The Keras backends agree. As a script, writes what the backend of its environment computes into a file."""

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest

from tensorflow_vgg import network, weights

OTHERS = {"tensorflow": "jax", "jax": "tensorflow"}


def codes():
    """pool5 of a photo by the true VGG16, and relu6 by one that is narrow."""
    photo = np.random.default_rng(1).uniform(0, 255, (1, 224, 224, 3)).astype(np.float32)
    found = {"pool5": values("pool5", photo)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, "FILTERS", (8, 8, 16, 16, 32))
        patch.setattr(network, "FC_WIDTH", 64)
        found["relu6"] = values("relu6", photo)
    return found


def values(layer, photo):
    model = network.build("vgg16", layer, weights.load(weights.find("random:0"), "vgg16", layer))
    return model.predict_on_batch(photo)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Return the codes of this process's backend, and of the other."""
    import keras

    other = OTHERS.get(keras.backend.backend(), "tensorflow")
    if importlib.util.find_spec(other) is None:
        pytest.skip(f"{other} is not installed")
    path = tmp_path_factory.mktemp("backends") / "codes.npz"
    environment = {**os.environ, "KERAS_BACKEND": other, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, __file__, path], check=True, env=environment, timeout=300)
    with np.load(path) as theirs:
        assert str(theirs["backend"]) == other
        return codes(), dict(theirs)


@pytest.mark.parametrize("layer", ["pool5", "relu6"])
def test_backends_agree(pair, layer):
    ours, theirs = (each[layer] for each in pair)
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype == np.float32
    assert np.count_nonzero(ours) > 0.1 * ours.size
    assert np.linalg.norm(ours - theirs) < 1e-4 * np.linalg.norm(ours)


if __name__ == "__main__":
    found = codes()
    import keras

    np.savez(sys.argv[1], backend=keras.backend.backend(), **found)
