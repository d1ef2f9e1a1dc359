import numpy as np
import pytest

from tensorflow_vgg import network, weights

MEMORABLE = {"vgg16": 138357544, "vgg19": 143667240}  # parameters in all, as Keras counts them


def random_parameters(name, layer, seed=0):
    """Random kernels as `random:SEED` draws them, with biases that are not zero."""
    random = np.random.default_rng(99)
    for layer_name, kernel, bias in weights.load(weights.Weights(f"random:{seed}", seed=seed), name, layer):
        yield layer_name, kernel, random.normal(0, 0.1, bias.shape).astype(np.float32)


def random_photos(count):
    """Photos whose red, green and blue differ clearly: RGB, [0, 255]."""
    pixels = np.random.default_rng(1).uniform(0, 1, (count, 224, 224, 3))
    return (pixels * (250, 120, 40) + (0, 60, 10)).astype(np.float32)


def relative_error(found, expected):
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("name", MEMORABLE)
def test_parameters_add_up_to_the_known_totals(name):
    shapes = network.parameter_shapes(name)
    assert sum(np.prod(kernel) + bias[0] for kernel, bias in shapes.values()) == MEMORABLE[name]


@pytest.mark.parametrize(("name", "layers"), [("vgg16", 16), ("vgg19", 19)])
def test_network_has_as_many_weighted_layers_as_its_name_says(name, layers):
    assert len(network.parameter_shapes(name)) == layers


def test_layer_names_are_the_caffe_models():
    blocks = ["conv1_1", "conv1_2", "pool1", "conv2_1", "conv2_2", "pool2"]
    top = ["pool5", "fc6", "relu6", "fc7", "relu7", "fc8", "prob"]
    for name, last in (("vgg16", "conv5_3"), ("vgg19", "conv5_4")):
        names = network.layer_names(name)
        assert names[:6] == blocks
        assert names[-8:] == [last, *top]
        assert [each for each in names if each in network.parameter_shapes(name)] == list(
            network.parameter_shapes(name)
        )


def test_parameter_shapes_stop_at_the_requested_layer():
    shapes = network.parameter_shapes("vgg16", "relu6")
    assert list(shapes)[-1] == "fc6"
    assert shapes["fc6"] == ((7 * 7 * 512, 4096), (4096,))
    assert network.parameter_shapes("vgg16", "pool1") == {
        "conv1_1": ((3, 3, 3, 64), (64,)),
        "conv1_2": ((3, 3, 64, 64), (64,)),
    }


@pytest.mark.parametrize(
    "ask",
    [
        lambda: network.layer_names("vgg11"),
        lambda: network.parameter_shapes("vgg11"),
        lambda: network.build("vgg11", "pool1", []),
    ],
)
def test_unknown_network_is_refused_by_name(ask):
    with pytest.raises(ValueError, match=r"vgg16, vgg19.*vgg11"):
        ask()


@pytest.mark.parametrize(
    "ask",
    [
        lambda: network.parameter_shapes("vgg16", "conv3_4"),
        lambda: network.build("vgg16", "conv3_4", []),
    ],
)
def test_unknown_layer_is_refused_by_name(ask):
    with pytest.raises(ValueError, match=r"vgg16 has no layer conv3_4"):
        ask()
    assert "conv3_4" in network.parameter_shapes("vgg19", "conv3_4")


def test_build_stops_at_the_requested_layer():
    model = network.build("vgg16", "pool1", random_parameters("vgg16", "pool1"))
    assert model.output_shape == (None, 112, 112, 64)
    assert model.count_params() == 3 * 3 * 3 * 64 + 64 + 3 * 3 * 64 * 64 + 64
    assert {layer.name for layer in model.layers if layer.weights} == {"conv1_1", "conv1_2"}


def test_bfloat16_gives_float32_close_to_float32s():
    photos = random_photos(1)
    exact, rough = (
        np.asarray(network.build("vgg16", "pool2", random_parameters("vgg16", "pool2"), precision)(photos))
        for precision in ("float32", "bfloat16")
    )
    assert exact.dtype == rough.dtype == np.float32
    assert 1e-5 < relative_error(rough, exact) < 0.02


def test_bfloat16_layers_compute_in_bfloat16():
    model = network.build("vgg16", "pool1", random_parameters("vgg16", "pool1"), "bfloat16")
    assert model.get_layer("conv1_2").compute_dtype == "bfloat16"


def test_missing_parameters_are_refused_by_name():
    given = [each for each in random_parameters("vgg16", "pool1") if each[0] != "conv1_2"]
    with pytest.raises(ValueError, match=r"takes parameters for conv1_2 next\. Received: no more"):
        network.build("vgg16", "pool1", given)


@pytest.mark.parametrize("part", ["kernel", "bias"])
def test_parameters_of_another_shape_are_refused_by_name(part):
    given = list(random_parameters("vgg16", "pool1"))
    name, kernel, bias = given[1]
    given[1] = (name, kernel[..., :5], bias) if part == "kernel" else (name, kernel, bias[:5])
    with pytest.raises(ValueError, match=r"conv1_2 of vgg16.*\(3, 3, 64, 64\), \(64,\).*Received: .*5"):
        network.build("vgg16", "pool1", given)


def test_build_refuses_parameters_of_a_layer_it_does_not_build():
    given = list(random_parameters("vgg16", "conv2_1"))
    with pytest.raises(ValueError, match=r"no parameters for a layer conv2_1"):
        network.build("vgg16", "pool1", given)
