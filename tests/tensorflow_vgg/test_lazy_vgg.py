import numpy as np
import pytest
import skimage.io

from tensorflow_vgg import formats, images, network, utils, vgg16, vgg19, weights
from tensorflow_vgg.weights import WeightsError

CLASSES = {"vgg16": vgg16.Vgg16, "vgg19": vgg19.Vgg19}
NAMES = ["tench", "goldfish", "shark", "ray", "cock", "hen", "ostrich"]


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch, narrow):
    """A machine without weights, and with narrow networks."""
    monkeypatch.delenv(weights.ENVIRONMENT_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def photos():
    """Two images as in the notebook: RGB, [0, 1]."""
    return np.random.default_rng(1).uniform(0, 1, (2, 224, 224, 3))


def weights_file(folder, name="vgg16", layer="prob", suffix=".npy"):
    path = folder / f"{name}{suffix}"
    formats.write(path, weights.load(weights.find("random:2"), name, layer), "float32", {})
    return path


def values(path, name, layer, photos):
    """Return a layer's values by the package's own functions."""
    model = network.build(name, layer, weights.load(weights.find(str(path)), name, layer))
    return np.asarray(model(photos.astype(np.float32) * 255))


@pytest.fixture
def built(monkeypatch):
    """The deepest layer of each network that is built."""
    layers = []

    def build(network_, layer, parameters):
        layers.append(layer)
        return network.build(network_, layer, parameters)

    monkeypatch.setattr("tensorflow_vgg.lazy_vgg.build", build)
    return layers


@pytest.mark.parametrize("name", CLASSES)
def test_layers_are_attributes(tmp_path, photos, name):
    path = weights_file(tmp_path, name)
    vgg = CLASSES[name](str(path))
    vgg.build(photos)
    for layer in ("prob", "relu6", "fc6", "pool5", "conv3_2", "conv1_1"):
        found, expected = getattr(vgg, layer), values(path, name, layer, photos)
        assert isinstance(found, np.ndarray)
        assert found.dtype == np.float32
        assert found.shape == (2, *network.layer_shape(name, layer))
        assert np.count_nonzero(found)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    np.testing.assert_allclose(vgg.prob.sum(1), 1, rtol=1e-5)


def test_only_vgg19_has_its_layers(tmp_path, photos):
    path = weights_file(tmp_path, "vgg19")
    vgg = vgg19.Vgg19(path)
    vgg.build(photos)
    assert vgg.conv5_4.shape == (2, 14, 14, 6)
    with pytest.raises(AttributeError, match="Vgg16 has no layer conv5_4"):
        _ = vgg16.Vgg16(path).conv5_4


def test_accessing_a_deeper_layer_extends_the_network(tmp_path, photos, built):
    vgg = vgg16.Vgg16(weights_file(tmp_path))
    vgg.build(photos)
    pool1 = vgg.pool1
    assert vgg.pool1 is pool1
    assert vgg.relu6.shape == (2, 8)
    assert vgg.pool5.shape == (2, 7, 7, 6)
    assert vgg.pool1 is pool1
    assert built == ["pool1", "relu6"]  # none for pool5, which the deeper network contains


def test_new_images_reuse_the_built_network(tmp_path, photos, built):
    path = weights_file(tmp_path)
    vgg = vgg16.Vgg16(path)
    vgg.build(photos)
    first = vgg.pool5
    vgg.build(photos[:1, :, ::-1].tolist())
    assert vgg.pool5.shape == (1, 7, 7, 6)
    assert not np.array_equal(vgg.pool5, first[:1])
    np.testing.assert_allclose(vgg.pool5, values(path, "vgg16", "pool5", photos[:1, :, ::-1]), rtol=1e-4, atol=1e-3)
    assert built == ["pool5"]


def test_build_copies_the_images(tmp_path, photos):
    path = weights_file(tmp_path)
    vgg = vgg16.Vgg16(path)
    mine = photos.astype(np.float32)
    vgg.build(mine)
    mine[...] = 0
    np.testing.assert_allclose(vgg.pool1, values(path, "vgg16", "pool1", photos), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("suffix", [".npy", ".h5", ".safetensors"])
def test_file_without_fully_connected_layers_works_up_to_pool5(tmp_path, photos, suffix):
    vgg = vgg16.Vgg16(weights_file(tmp_path, layer="pool5", suffix=suffix))
    vgg.build(photos)
    assert vgg.pool5.shape == (2, 7, 7, 6)
    with pytest.raises(WeightsError, match="no layer"):
        _ = vgg.relu6
    assert vgg.pool4.shape == (2, 14, 14, 5)


def test_random_weights_need_no_file(photos):
    vgg = vgg16.Vgg16("random:2")
    vgg.build(photos)
    np.testing.assert_allclose(vgg.relu6, values("random:2", "vgg16", "relu6", photos), rtol=1e-4, atol=1e-2)


def test_lazy_vgg_without_a_path_uses_the_environments_weights(tmp_path, photos, monkeypatch):
    path = weights_file(tmp_path)
    monkeypatch.setenv(weights.ENVIRONMENT_VARIABLE, str(path))
    vgg = vgg16.Vgg16()
    vgg.build(photos)
    np.testing.assert_allclose(vgg.pool2, values(path, "vgg16", "pool2", photos), rtol=1e-4, atol=1e-3)


def test_missing_weights_file_is_reported_at_once(tmp_path):
    with pytest.raises(WeightsError, match=rf"no weights file {tmp_path}/none\.npy"):
        vgg16.Vgg16(tmp_path / "none.npy")


def test_layer_has_no_values_before_build():
    with pytest.raises(AttributeError, match=r"^relu6 has no values yet: call build with images first\.$"):
        _ = vgg16.Vgg16("random:0").relu6


@pytest.mark.parametrize("name", ["relu8", "conv6_1", "conv3_4", "Prob", "__len__", "_missing"])
def test_unknown_layer_attribute_is_named_in_the_error(photos, name):
    vgg = vgg16.Vgg16("random:0")
    for _ in range(2):
        with pytest.raises(AttributeError, match=rf"^Vgg16 has no layer {name}\.$"):
            getattr(vgg, name)
        vgg.build(photos)


@pytest.mark.parametrize(
    "shape", [(224, 224, 3), (1, 3, 224, 224), (1, 225, 224, 3), (1, 224, 224, 1), (1, 224, 224, 4)]
)
def test_build_refuses_images_of_another_shape(shape):
    with pytest.raises(ValueError, match=r"\[N, 224, 224, 3\]\. Received: \[\d") as error:
        vgg16.Vgg16("random:0").build(np.zeros(shape))
    assert str(error.value).endswith(f"{list(shape)}.")


def test_load_image_is_the_reference_preprocessing(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (230, 300, 3), np.uint8)
    skimage.io.imsave(tmp_path / "photo.png", pixels)
    np.testing.assert_array_equal(utils.load_image(tmp_path / "photo.png"), images.load_image(tmp_path / "photo.png"))


def test_print_prob_prints_top_classes_and_returns_the_first(tmp_path, capsys):
    (tmp_path / "names.txt").write_text("\n".join(NAMES) + "\n")
    prob = np.array([0.0625, 0.25, 0.125, 0.5, 0.0, 0.03125, 0.015625], np.float32)
    assert utils.print_prob(prob, str(tmp_path / "names.txt")) == "ray"
    assert capsys.readouterr().out == (
        "Top1: ray 0.5\n"
        "Top5: [('ray', 0.5), ('goldfish', 0.25), ('shark', 0.125), ('tench', 0.0625), ('hen', 0.03125)]\n"
    )


def test_print_prob_uses_imagenets_names_by_default(monkeypatch, capsys):
    monkeypatch.setattr(utils, "class_names", lambda: NAMES)
    assert utils.print_prob(np.eye(7)[6]) == "ostrich"
    assert capsys.readouterr().out.startswith("Top1: ostrich 1.0\n")
