import gc
import importlib.util

import numpy as np
import pytest
from helpers import ROOT

from tensorflow_vgg import formats, network, weights

NETWORKS = ["vgg16", "vgg19"]
EQUAL = 1e-4  # relative distance of two float32 computations of the same


def random_parameters(name, layer, seed=0):
    """Random kernels as `random:SEED` draws them, with biases that are not zero; no class has all the probability."""
    random = np.random.default_rng(99)
    for each, kernel, bias in weights.load(weights.Weights(f"random:{seed}", seed=seed), name, layer):
        kernel *= np.float32(0.02 if each == "fc8" else 1)
        yield each, kernel, random.normal(0, 0.1, bias.shape).astype(np.float32)


def random_photo():
    """A photo whose red, green and blue differ clearly: RGB, [0, 255]."""
    pixels = np.random.default_rng(1).uniform(0, 1, (1, 224, 224, 3))
    return (pixels * (250, 120, 40) + (0, 60, 10)).astype(np.float32)


def relative_error(found, expected):
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def softmax(values):
    powers = np.exp(values - values.max())
    return powers / powers.sum()


def keras_values(name, photo, parameters):
    """Return each layer's values by Keras' own network, and the names of its layers with parameters."""
    import keras

    application = getattr(keras.applications, name.upper())(weights=None, classifier_activation=None)
    for each, kernel, bias in parameters:
        application.get_layer(formats.keras_name(each)).set_weights([kernel, bias])
    names = {
        each: each.replace("pool", "block") + "_pool" if each.startswith("pool") else formats.keras_name(each)
        for each in network.layer_names(name)
        if each.startswith(("conv", "pool")) or each == "fc8"
    } | {"relu6": "fc1", "relu7": "fc2"}
    outputs = [application.get_layer(each).output for each in names.values()]
    preprocess = getattr(keras.applications, name).preprocess_input
    found = keras.Model(application.input, outputs)(preprocess(photo.copy()))
    values = {each: np.asarray(value) for each, value in zip(names, found, strict=True)}
    # Keras applies the ReLU inside its fully connected layers, and was built without the softmax.
    arrays = {each: pair for each, *pair in parameters}
    values["fc6"] = values["pool5"].reshape(1, -1) @ arrays["fc6"][0] + arrays["fc6"][1]
    values["fc7"] = values["relu6"] @ arrays["fc7"][0] + arrays["fc7"][1]
    values["prob"] = softmax(values["fc8"])
    return values, [each.name for each in application.layers if each.weights]


@pytest.fixture(scope="module", params=["vgg16", pytest.param("vgg19", marks=pytest.mark.slow)])
def compared(request):
    """A network's name, each layer's values by this package and by Keras, and the names of Keras' layers."""
    name, photo = request.param, random_photo()
    parameters = list(random_parameters(name, "prob"))
    model = network.build(name, network.layer_names(name), parameters)
    ours = {each: np.asarray(value) for each, value in model(photo).items()}
    del model
    gc.collect()  # both networks at once would take 1.1 GB
    theirs, names = keras_values(name, photo, parameters)
    del parameters
    gc.collect()
    return name, ours, theirs, names


def test_each_layer_equals_that_of_keras(compared):
    name, ours, theirs, _ = compared
    assert set(ours) == set(theirs) == set(network.layer_names(name))
    for layer in network.layer_names(name):
        assert ours[layer].shape == theirs[layer].shape == (1, *network.layer_shape(name, layer)), layer
        assert ours[layer].dtype == np.float32, layer
        assert np.count_nonzero(theirs[layer]) > 0.1 * theirs[layer].size, layer
        assert relative_error(ours[layer], theirs[layer]) < EQUAL, layer


def test_relu_and_softmax_layers_equal_numpys(compared):
    _, ours, _, _ = compared
    for number in (6, 7):
        assert ours[f"fc{number}"].min() < 0
        np.testing.assert_array_equal(ours[f"relu{number}"], np.maximum(ours[f"fc{number}"], 0))
    assert np.sort(ours["prob"].ravel())[-2] > 1e-3
    np.testing.assert_allclose(ours["prob"], softmax(ours["fc8"]), rtol=1e-4)


def test_weighted_layers_are_in_keras_order(compared):
    name, _, _, names = compared
    assert [formats.keras_name(each) for each in network.parameter_shapes(name)] == names


def test_comparison_with_keras_detects_swapped_channels(compared):
    name, _, theirs, _ = compared
    model = network.build(name, "pool1", random_parameters(name, "pool1"))
    assert relative_error(np.asarray(model(random_photo())), theirs["pool1"]) < EQUAL
    assert relative_error(np.asarray(model(random_photo()[..., ::-1])), theirs["pool1"]) > 0.05


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (200, 150, 120)])
@pytest.mark.parametrize("name", NETWORKS)
def test_first_layer_receives_bgr_minus_the_mean_pixel(monkeypatch, name, colour):
    monkeypatch.setattr(network, "FILTERS", (6, 6, 6, 6, 6))
    kernel = np.zeros((3, 3, 3, 6), np.float32)
    kernel[1, 1, range(3), range(3)] = 1  # each channel as it is, and then what the rectifier would cut off
    kernel[1, 1, range(3), range(3, 6)] = -1
    model = network.build(name, "conv1_1", [("conv1_1", kernel, np.zeros(6, np.float32))])
    photo = np.broadcast_to(np.float32(colour), (1, 224, 224, 3))
    found = np.asarray(model(photo))
    red, green, blue = colour
    expected = np.broadcast_to((blue - 103.939, green - 116.779, red - 123.68), (1, 224, 224, 3))
    np.testing.assert_allclose(found[..., :3] - found[..., 3:], expected, atol=1e-4)


# Several layers at once, and pooling


def parameters_up_to(name, layers):
    return random_parameters(name, network.deepest_layer(name, [layers] if isinstance(layers, str) else layers))


POOLS = {
    "avg": lambda values: values.mean((1, 2)),
    "max": lambda values: values.max((1, 2)),
    "flatten": lambda values: values.reshape(len(values), -1),
}


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("layer", ["conv1_1", "pool3", "pool5"])
def test_pooling_equals_numpys(narrow, layer, pool):
    photo = random_photo()
    values = np.asarray(network.build("vgg16", layer, parameters_up_to("vgg16", layer))(photo))
    model = network.build("vgg16", layer, parameters_up_to("vgg16", layer), pool=pool)
    found = np.asarray(model(photo))
    expected = POOLS[pool](values)
    assert found.shape == expected.shape == (1, *model.output_shape[1:])
    assert found.dtype == np.float32
    assert relative_error(found, expected) < EQUAL


@pytest.mark.parametrize("pool", POOLS)
def test_bfloat16_output_is_pooled_in_float32(narrow, pool):
    photo = random_photo()
    values, found = (
        np.asarray(network.build("vgg16", "pool1", parameters_up_to("vgg16", "pool1"), "bfloat16", each)(photo))
        for each in (None, pool)
    )
    assert found.dtype == np.float32
    assert relative_error(found, POOLS[pool](values.astype(np.float64))) < EQUAL


@pytest.mark.parametrize("pool", [None, *POOLS])
def test_pooling_does_not_change_row_outputs(narrow, pool):
    photo = random_photo()
    plain, pooled = (
        np.asarray(network.build("vgg16", "relu6", parameters_up_to("vgg16", "relu6"), pool=each)(photo))
        for each in (None, pool)
    )
    np.testing.assert_array_equal(pooled, plain)


@pytest.mark.parametrize("pool", [None, *POOLS])
def test_several_layers_give_a_dict_of_each_layers_values(narrow, pool):
    photo, layers = random_photo(), ["relu6", "conv2_2", "pool5"]
    found = network.build("vgg19", layers, parameters_up_to("vgg19", layers), pool=pool)(photo)
    assert set(found) == set(layers)
    for layer in layers:
        alone = np.asarray(network.build("vgg19", layer, parameters_up_to("vgg19", layer), pool=pool)(photo))
        assert np.asarray(found[layer]).shape == alone.shape
        assert relative_error(np.asarray(found[layer]), alone) < EQUAL


def test_list_of_one_layer_gives_a_dict_too(narrow):
    found = network.build("vgg16", ["pool1"], parameters_up_to("vgg16", "pool1"))(random_photo())
    assert list(found) == ["pool1"]


def test_unknown_layer_among_several_is_refused(narrow):
    with pytest.raises(ValueError, match="vgg16 has no layer conv3_4"):
        network.build("vgg16", ["pool1", "conv3_4"], [])


@pytest.mark.parametrize("layer", ["pool1", "relu6"])
@pytest.mark.parametrize("pool", ["mean", "", "AVG"])
def test_unknown_way_to_pool_is_refused(narrow, layer, pool):
    with pytest.raises(ValueError, match=rf"avg, max, flatten\. Received: {pool}\."):
        network.build("vgg16", layer, parameters_up_to("vgg16", layer), pool=pool)


# The table of layers in the README


@pytest.fixture(scope="module")
def script():
    """benchmarks/layers.py."""
    spec = importlib.util.spec_from_file_location("benchmarks_layers", ROOT / "benchmarks" / "layers.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_readme_has_the_printed_layer_tables(script, capsys):
    script.main()
    assert capsys.readouterr().out in (ROOT / "tensorflow_vgg" / "README.md").read_text(encoding="utf-8")


def test_vgg16_up_to_relu6_takes_15_billion_multiply_adds(script):
    assert script.multiply_adds("vgg16", "relu6") / 1e9 == pytest.approx(15.45, abs=0.005)
    assert script.multiply_adds("vgg16", "pool1") == 9 * 3 * 64 * 224**2 + 9 * 64 * 64 * 224**2
    assert script.multiply_adds("vgg19") - script.multiply_adds("vgg19", "relu7") == 4096 * 1000


@pytest.mark.parametrize("name", NETWORKS)
def test_table_has_the_shapes_and_parameters_of_the_built_network(narrow, script, name):
    model = network.build(name, network.layer_names(name), random_parameters(name, "prob"))
    rows = [line.strip("| ").split(" | ") for line in script.table(name).splitlines()[2:-1]]
    assert [row[0] for row in rows] == network.layer_names(name)
    for layer, output, parameters, *_ in rows:
        assert " x ".join(map(str, model.output[layer].shape[1:])) == output
        assert f"{model.get_layer(layer).count_params():,}" == parameters
