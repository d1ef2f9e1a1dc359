import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers import assert_parameters_equal
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from tensorflow_vgg import formats, network, weights
from tensorflow_vgg.weights import WeightsError

SUFFIXES = [".npy", ".h5", ".safetensors"]
NETWORKS = ["vgg16", "vgg19"]


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """A machine without weights."""
    monkeypatch.delenv(weights.ENVIRONMENT_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def some_parameters(name="vgg16", layer="prob", seed=3):
    random = np.random.default_rng(seed)
    return [
        (each, random.normal(size=kernel).astype(np.float32), random.normal(size=bias).astype(np.float32))
        for each, (kernel, bias) in network.parameter_shapes(name, layer).items()
    ]


def written(path, parameters, dtype="float32"):
    formats.write(path, parameters, dtype, {})
    return path


def load(path, layer="prob", name="vgg16"):
    return list(weights.load(weights.find(str(path)), name, layer))


def refusal(action, *words):
    """Return the error message of an action; it is one sentence and contains all words."""
    with pytest.raises(WeightsError) as error:
        action()
    message = str(error.value)
    assert "\n" not in message
    assert message.endswith(".")
    assert "Traceback" not in message
    for word in words:
        assert str(word) in message
    return message


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


# Conversion between formats


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("target", SUFFIXES)
@pytest.mark.parametrize("source", SUFFIXES)
def test_formats_convert_into_each_other_without_loss(tmp_path, narrow, source, target, name):
    parameters = some_parameters(name)
    first = written(tmp_path / f"first{source}", parameters)
    before = first.read_bytes()
    weights.convert(first, tmp_path / f"second{target}")
    assert_parameters_equal(load(tmp_path / f"second{target}", name=name), parameters)
    assert weights.check(tmp_path / f"second{target}").identity == weights.identity(iter(parameters))
    assert first.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {first.name, f"second{target}"}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_convert_can_overwrite_its_source(tmp_path, narrow, suffix):
    path = written(tmp_path / f"weights{suffix}", some_parameters())
    weights.convert(str(path), str(path), "float16")
    halves = [(name, *(each.astype("f2").astype("f4") for each in arrays)) for name, *arrays in some_parameters()]
    assert_parameters_equal(load(path), halves)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_random_weights_can_be_written(tmp_path, narrow, suffix):
    weights.convert("random:5", tmp_path / f"weights{suffix}")
    assert_parameters_equal(
        load(tmp_path / f"weights{suffix}"), list(weights.load(weights.find("random:5"), "vgg16", "prob"))
    )


def test_written_files_are_readable_by_the_formats_libraries(tmp_path, narrow):
    parameters = some_parameters()
    npy, h5, tensors = (written(tmp_path / f"weights{suffix}", parameters) for suffix in SUFFIXES)
    table, arrays = np.load(npy, allow_pickle=True).item(), load_file(tensors)
    assert len(arrays) == 2 * len(table) == 2 * len(parameters)
    with h5py.File(h5) as file:
        assert list(file.attrs["layer_names"]) == [formats.keras_name(name) for name, *_ in parameters]
        for name, kernel, bias in parameters:
            published = formats.keras_name(name)
            pairs = [
                table[name],
                [arrays[f"{name}.kernel"], arrays[f"{name}.bias"]],
                [file[published][f"{published}_{part}_1:0"][()] for part in "Wb"],
            ]
            for pair in pairs:
                np.testing.assert_array_equal(pair[0], kernel)
                np.testing.assert_array_equal(pair[1], bias)


def test_keras_applications_loads_a_written_h5_file(tmp_path):
    import keras

    npy = written(tmp_path / "weights.npy", weights.load(weights.find("random:4"), "vgg16", "pool5"))
    weights.convert(npy, tmp_path / "weights.h5")
    application = keras.applications.VGG16(weights=None, include_top=False, input_shape=(224, 224, 3))
    application.load_weights(tmp_path / "weights.h5")
    kernels = {name: kernel for name, kernel, _ in load(npy, "pool5")}
    for name, kernel in kernels.items():
        layer = application.get_layer(formats.keras_name(name))
        np.testing.assert_array_equal(np.asarray(layer.get_weights()[0]), kernel)
    photo = np.random.default_rng(0).uniform(0, 255, (1, 224, 224, 3)).astype(np.float32)
    model = network.build("vgg16", "pool5", weights.load(weights.find(str(tmp_path / "weights.h5")), "vgg16", "pool5"))
    ours = np.asarray(model(photo))
    theirs = np.asarray(application(keras.applications.vgg16.preprocess_input(photo.copy())))
    assert np.linalg.norm(ours - theirs) < 1e-4 * np.linalg.norm(theirs)


# float16


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_float16_halves_a_file_and_is_read_as_float32(tmp_path, suffix):
    parameters = some_parameters(layer="pool2")
    whole = written(tmp_path / f"whole{suffix}", parameters)
    weights.convert(whole, tmp_path / f"half{suffix}", "float16")
    assert (tmp_path / f"half{suffix}").stat().st_size == pytest.approx(whole.stat().st_size / 2, rel=0.02)
    expected = [(name, *(each.astype("f2").astype("f4") for each in arrays)) for name, *arrays in parameters]
    assert_parameters_equal(load(tmp_path / f"half{suffix}", "pool2"), expected)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("part", [1, 2])
def test_number_that_float16_cannot_hold_is_refused(tmp_path, narrow, suffix, part):
    parameters = some_parameters()
    parameters[4][part].flat[1] = -65600
    source = written(tmp_path / "weights.npy", parameters)

    def convert():
        weights.convert(source, tmp_path / f"half{suffix}", "float16")

    refusal(convert, parameters[4][0], "float16", "float32")
    assert list(tmp_path.iterdir()) == [source]
    parameters[4][part].flat[1] = -65504
    written(source, parameters)
    convert()


# Metadata


def about(path):
    if path.suffix == ".h5":
        with h5py.File(path) as file:
            return dict(file.attrs)
    with safe_open(path, "numpy") as file:
        return file.metadata()


@pytest.mark.parametrize("suffix", [".h5", ".safetensors"])
@pytest.mark.parametrize("name", NETWORKS)
def test_conversion_writes_network_source_and_licence(tmp_path, narrow, suffix, name):
    source = written(tmp_path / "source.npy", some_parameters(name))
    weights.convert(source, tmp_path / f"target{suffix}")
    found = about(tmp_path / f"target{suffix}")
    assert found["network"] == name
    assert found["source"] == f"sha256:{sha256(source)}"
    assert "CC BY 4.0" in found["licence"]
    assert "Simonyan" in found["licence"]


@pytest.mark.parametrize("suffix", [".h5", ".safetensors"])
def test_random_numbers_are_under_no_licence(tmp_path, narrow, suffix):
    weights.convert("random:5", tmp_path / f"target{suffix}")
    found = about(tmp_path / f"target{suffix}")
    assert (found["network"], found["source"]) == ("vgg16", "random:5")
    assert "CC BY" not in found["licence"]


# Files without the last layers


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", NETWORKS)
def test_file_without_fully_connected_layers_works_up_to_pool5(tmp_path, narrow, suffix, name):
    parameters = some_parameters(name, "pool5")
    path = written(tmp_path / f"notop{suffix}", parameters)
    assert_parameters_equal(load(path, "pool5", name), parameters)
    assert formats.stored_layers(path) == list(network.parameter_shapes(name, "pool5"))
    assert weights.missing_layers(weights.find(str(path)), name, "pool5") == []
    assert weights.missing_layers(weights.find(str(path)), name, "relu7") == ["fc6", "fc7"]
    missing = "fc1" if suffix == ".h5" else "fc6"
    for layer in ("fc6", "relu6", "prob"):
        refusal(lambda layer=layer: load(path, layer, name), path, f"no layer {missing}")
    weights.convert(path, tmp_path / "again.safetensors")
    assert_parameters_equal(load(tmp_path / "again.safetensors", "pool5", name), parameters)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_only_vgg19_has_a_fourth_convolution_in_a_block(tmp_path, narrow, suffix):
    path = written(tmp_path / f"weights{suffix}", some_parameters("vgg16"))
    refusal(lambda: load(path, "pool3", "vgg19"), path, "block3_conv4" if suffix == ".h5" else "conv3_4")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("name", "missing"), [("vgg16", "conv1_1"), ("vgg16", "conv4_2"), ("vgg16", "fc7"), ("vgg19", "conv3_4")]
)
def test_file_with_a_missing_layer_is_refused(tmp_path, narrow, suffix, name, missing):
    parameters = [each for each in some_parameters(name) if each[0] != missing]
    path = written(tmp_path / f"weights{suffix}", parameters)
    refusal(lambda: weights.check(path), path, f"no layer {missing}")
    refusal(lambda: weights.convert(path, tmp_path / "target.h5"), path, f"no layer {missing}")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_file_of_other_layers_is_refused(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    arrays = np.ones((3, 3, 3, 2), np.float32), np.ones(2, np.float32)
    if suffix == ".h5":
        with h5py.File(path, "w") as file:
            file["dense"] = arrays[0]
    else:
        written(path, [("dense", *arrays)])
    refusal(lambda: weights.check(path), path, "no layer conv1_1")
    refusal(lambda: load(path, "conv1_1"), path, "no layer")


# Description of a file


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("name", "layer"), [("vgg16", "prob"), ("vgg19", "prob"), ("vgg19", "pool5"), ("vgg16", "pool1")]
)
def test_check_describes_a_file(tmp_path, narrow, suffix, name, layer):
    parameters = some_parameters(name, layer)
    path = written(tmp_path / f"weights{suffix}", parameters)
    found = weights.check(path)
    assert found.path == str(path)
    assert found.network == name
    assert found.layers == network.parameter_shapes(name, layer)
    assert list(found.layers) == [each for each, *_ in parameters]
    assert found.sha256 == sha256(path)
    assert found.identity == weights.identity(iter(parameters))
    assert found.known is None


@pytest.mark.parametrize("algorithm", ["md5", "sha1"])
def test_check_knows_published_files(tmp_path, narrow, monkeypatch, algorithm):
    path = written(tmp_path / "weights.npy", some_parameters())
    digest = hashlib.new(algorithm, path.read_bytes()).hexdigest()
    monkeypatch.setattr(weights, "KNOWN", {**weights.KNOWN, f"{algorithm}:{digest}": "another VGG16"})
    assert weights.check(path).known == "another VGG16"
    assert weights.check(written(tmp_path / "other.npy", some_parameters(seed=4))).known is None


def test_files_that_can_be_downloaded_are_known():
    assert {file.checksum for file in weights.PUBLISHED.values()} <= set(weights.KNOWN)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_check_reads_the_file_completely(tmp_path, narrow, suffix):
    parameters = some_parameters()
    parameters[-1][2][-1] = np.nan
    path = written_anyway(tmp_path / f"weights{suffix}", parameters)
    refusal(lambda: weights.check(path), path, "fc8", "finite")


def test_check_refuses_random_weights():
    refusal(lambda: weights.check("random:3"), "random:3", "no file")


# All or nothing


def written_anyway(path, parameters):
    """Write numbers that `formats.write` refuses."""
    formats.WRITERS[path.suffix](path, parameters, {})
    return path


@pytest.mark.parametrize("existed", [False, True])
@pytest.mark.parametrize("target", SUFFIXES)
@pytest.mark.parametrize("fault", ["a number", "the end", "a shape", "no source"])
def test_failed_conversion_leaves_the_folder_unchanged(tmp_path, narrow, fault, target, existed):
    parameters = some_parameters()
    if fault == "a number":
        parameters[-1][1].flat[0] = np.inf
    if fault == "a shape":
        parameters[-1] = (parameters[-1][0], parameters[-1][1][:, :-1], parameters[-1][2])
    source = written_anyway(tmp_path / "source.safetensors", parameters)
    if fault == "the end":
        os.truncate(source, source.stat().st_size - 1)
    if fault == "no source":
        source.unlink()
    path = tmp_path / f"target{target}"
    if existed:
        path.write_bytes(b"what was there")
    before = {each.name for each in tmp_path.iterdir()}
    refusal(lambda: weights.convert(source, path), source)
    assert {each.name for each in tmp_path.iterdir()} == before
    assert not existed or path.read_bytes() == b"what was there"


@pytest.mark.parametrize("target", SUFFIXES)
def test_conversion_on_a_full_disk_leaves_nothing_behind(tmp_path, narrow, monkeypatch, target):
    source = written(tmp_path / "source.npy", some_parameters())

    def fill(path, *_):
        path.write_bytes(b"half a file")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weights, "write", fill)
    with pytest.raises(OSError, match="No space"):
        weights.convert(source, tmp_path / f"target{target}")
    assert list(tmp_path.iterdir()) == [source]


FULL = """
import resource, signal, sys
import numpy as np
from tensorflow_vgg.formats import save_arrays
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
try:
    save_arrays({"x": np.zeros(9999)}, sys.argv[1], {})
except OSError as error:
    print(error.strerror, error.filename)
"""


def test_safetensors_file_on_a_full_disk_is_an_os_error(tmp_path):
    path = tmp_path / "x.safetensors"
    printed = subprocess.run([sys.executable, "-c", FULL, path], stdout=subprocess.PIPE, text=True).stdout
    assert printed == f"File too large {path}\n"


@pytest.mark.parametrize("name", ["target.pth", "target", "target.H5", "target.h5.part"])
def test_target_of_another_suffix_is_refused(tmp_path, narrow, name):
    refusal(lambda: weights.convert("random:0", tmp_path / name), ".npy", ".h5", ".safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("store", ["bfloat16", "int8", "float64", ""])
def test_writing_another_type_of_numbers_is_refused(tmp_path, narrow, store):
    refusal(lambda: weights.convert("random:0", tmp_path / "target.h5", store), "float32 or float16", f": {store}.")
    assert not list(tmp_path.iterdir())


def test_source_of_another_suffix_is_refused(tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"x")
    refusal(lambda: weights.convert(tmp_path / "weights.pth", tmp_path / "target.h5"), "weights.pth", ".safetensors")
    refusal(lambda: weights.check(tmp_path / "weights.pth"), "weights.pth", ".safetensors")


# Layers after the requested one are not read


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_load_does_not_check_layers_after_the_requested_one(tmp_path, narrow, suffix):
    parameters = some_parameters()
    for _, *arrays in parameters[-3:]:
        for array in arrays:
            array[...] = np.nan
    path = written_anyway(tmp_path / f"weights{suffix}", parameters)
    assert_parameters_equal(load(path, "pool5"), parameters[:-3])
    refusal(lambda: load(path, "fc6"), path, "fc6", "finite")


@pytest.mark.parametrize("suffix", [".h5", ".safetensors"])
def test_load_does_not_read_layers_after_the_requested_one(tmp_path, narrow, monkeypatch, suffix):
    path = written(tmp_path / f"weights{suffix}", some_parameters())
    read = []

    class Map(np.memmap):
        def __new__(cls, path, dtype, mode, offset, shape):
            read.append(shape)
            return super().__new__(cls, path, dtype, mode, offset, shape)

    whole = h5py.Dataset.__getitem__

    def item(dataset, *arguments, **options):
        read.append(dataset.shape)
        return whole(dataset, *arguments, **options)

    monkeypatch.setattr(np, "memmap", Map)
    monkeypatch.setattr(h5py.Dataset, "__getitem__", item)
    load(path, "pool5")
    assert read == [shape for shapes in network.parameter_shapes("vgg16", "pool5").values() for shape in shapes]
    read.clear()
    load(path, "relu6")
    assert read == [shape for shapes in network.parameter_shapes("vgg16", "relu6").values() for shape in shapes]


@pytest.mark.parametrize("suffix", [".h5", ".safetensors"])
def test_load_reads_layers_lazily(tmp_path, narrow, suffix):
    parameters = some_parameters()
    parameters[1][1][...] = np.nan
    stream = weights.load(weights.find(str(written_anyway(tmp_path / f"weights{suffix}", parameters))), "vgg16", "prob")
    assert_parameters_equal([next(stream)], parameters[:1])
    refusal(lambda: next(stream), "conv1_2")


# .h5 files of other programs


@pytest.mark.parametrize("layout", ["chunked", "compressed", "behind a user block", "big-endian", "float64"])
def test_h5_storage_layouts_are_read(tmp_path, narrow, layout):
    parameters = some_parameters()
    path = tmp_path / "weights.h5"
    options = {"chunked": {"chunks": True}, "compressed": {"compression": "gzip"}}.get(layout, {})
    dtype = {"big-endian": ">f4", "float64": "<f8"}.get(layout, "<f4")
    with h5py.File(path, "w", userblock_size=512 if layout == "behind a user block" else 0) as file:
        for name, *arrays in parameters:
            group = file.create_group(formats.keras_name(name))
            group.attrs["weight_names"] = ["kernel", "bias"]
            for part, array in zip(["kernel", "bias"], arrays, strict=True):
                group.create_dataset(part, data=array.astype(dtype), **options)
    assert_parameters_equal(load(path), parameters)


def test_types_that_numpy_lacks_are_read_as_hdf5_reads_them(tmp_path, narrow):
    bfloat16 = h5py.h5t.IEEE_F32LE.copy()
    bfloat16.set_fields(15, 7, 8, 0, 7)
    bfloat16.set_size(2)
    bfloat16.set_ebias(127)
    (name, kernel, bias), *_ = some_parameters()
    kernel = (kernel * 4).round() / 4
    path = written(tmp_path / "weights.h5", [(name, kernel, bias)])
    with h5py.File(path, "r+") as file:
        group = file["block1_conv1"]
        del group["block1_conv1_W_1:0"]
        space = h5py.h5s.create_simple(kernel.shape)
        stored = h5py.Dataset(h5py.h5d.create(group.id, b"block1_conv1_W_1:0", bfloat16, space))
        stored.write_direct(kernel)
        assert stored.id.get_storage_size() == kernel.size * 2
    assert_parameters_equal(load(path, "conv1_1"), [(name, kernel, bias)])


# .safetensors files of other programs


def tensors(path, entries, body=b"", pad=0):
    """Writes a file with any header."""
    header = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    header += b" " * pad
    path.write_bytes(len(header).to_bytes(8, "little") + header + body)
    return path


KINDS = {"float16": "F16", "float32": "F32", "float64": "F64", "int32": "I32"}


def header_and_body(parameters, **kinds):
    """Return a file's header and body; the arrays in `kinds` contain zeros of another type."""
    entries, body = {}, b""
    for name, kernel, bias in parameters:
        for part, array in (("kernel", kernel), ("bias", bias)):
            kind, data = KINDS[str(array.dtype)], array.tobytes()
            if f"{name}_{part}" in kinds:
                kind, size = kinds[f"{name}_{part}"]
                data = bytes(size * array.size)
            offsets = [len(body), len(body) + len(data)]
            entries[f"{name}.{part}"] = {"dtype": kind, "shape": list(array.shape), "data_offsets": offsets}
            body += data
    return entries, body


@pytest.mark.parametrize("pad", range(9))
def test_safetensors_arrays_may_start_at_any_offset(tmp_path, narrow, pad):
    parameters = some_parameters()
    path = tensors(tmp_path / "weights.safetensors", *header_and_body(parameters), pad)
    assert_parameters_equal(load(path), parameters)
    model = network.build("vgg16", "pool1", weights.load(weights.find(str(path)), "vgg16", "pool1"))
    np.testing.assert_array_equal(np.asarray(model.get_layer("conv1_2").get_weights()[0]), parameters[1][1])


def test_safetensors_layers_may_be_in_any_order(tmp_path, narrow):
    parameters = some_parameters()
    extra = ("a", np.ones((3, 5), np.int32), np.ones(5, np.float32))
    path = tensors(tmp_path / "weights.safetensors", *header_and_body([*parameters[::-1], extra]))
    assert_parameters_equal(load(path), parameters)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_floating_point_types_become_float32(tmp_path, narrow, dtype):
    parameters = [(name, *(each.astype(dtype) for each in arrays)) for name, *arrays in some_parameters()]
    path = tensors(tmp_path / "weights.safetensors", *header_and_body(parameters))
    assert_parameters_equal(
        load(path), [(name, *(each.astype("f4") for each in arrays)) for name, *arrays in parameters]
    )


@pytest.mark.parametrize("array", ["fc8_kernel", "fc8_bias"])
@pytest.mark.parametrize(
    "kind", [("I32", 4), ("U32", 4), ("BF16", 2), ("BOOL", 1), ("F8_E4M3", 1), ("I64", 8), ("C64", 8)]
)
def test_another_type_of_numbers_is_refused(tmp_path, narrow, kind, array):
    path = tensors(tmp_path / "weights.safetensors", *header_and_body(some_parameters(), **{array: kind}))
    refusal(lambda: load(path), path, "Layer fc8", "F32", kind[0])
    refusal(lambda: weights.check(path), path, "Layer fc8", kind[0])
    assert_parameters_equal(load(path, "relu7"), some_parameters(layer="relu7"))


@pytest.mark.parametrize("part", [1, 2])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused(tmp_path, narrow, part, value):
    parameters = some_parameters()
    parameters[2][part].flat[-1] = value
    path = tensors(tmp_path / "weights.safetensors", *header_and_body(parameters))
    refusal(lambda: load(path), path, "Layer conv2_1", "finite")


@pytest.mark.parametrize("missing", ["conv1_1.kernel", "conv3_2.bias", "fc8.kernel"])
def test_array_that_is_missing_is_refused(tmp_path, narrow, missing):
    arrays = {
        f"{name}.{key}": array
        for name, kernel, bias in some_parameters()
        for key, array in (("kernel", kernel), ("bias", bias))
    }
    del arrays[missing]
    path = tmp_path / "weights.safetensors"
    save_file(arrays, path)
    refusal(lambda: load(path), path, f"no layer {missing.split('.')[0]}")


@pytest.mark.parametrize(
    ("part", "shape"),
    [
        (1, (3, 3, 3, 2)),
        (1, (1, 3, 3, 2, 3)),
        (1, (54,)),
        (1, (3, 2, 3, 3)),
        (1, (0, 3, 2, 3)),
        (1, ()),
        (2, (2,)),
        (2, (1, 3)),
        (2, (0,)),
        (2, ()),
    ],
)
def test_another_shape_is_refused_with_both_shapes(tmp_path, narrow, part, shape):
    parameters = [list(each) for each in some_parameters()]
    parameters[2][part] = np.ones(shape, np.float32)
    path = tensors(tmp_path / "weights.safetensors", *header_and_body(parameters))
    refusal(lambda: load(path), path, "Layer conv2_1", "3x3x2x3 and 3", "x".join(map(str, shape)))
    assert_parameters_equal(load(path, "pool1"), some_parameters(layer="pool1"))


def false_headers():
    """Return false headers by name: functions that change header and body."""

    def entry(**changes):
        return lambda entries, body: ({**entries, "fc6.kernel": {**entries["fc6.kernel"], **changes}}, body)

    return {
        "an end behind the file's": entry(data_offsets=[0, 10**9]),
        "a start behind the end": entry(data_offsets=[400, 0]),
        "another's bytes": entry(data_offsets=[0, 4 * 294 * 8]),
        "offsets beyond 64 bits": entry(data_offsets=[2**70, 2**70 + 8]),
        "negative offsets": entry(data_offsets=[-8, 0]),
        "offsets that are text": entry(data_offsets=["0", "8"]),
        "one offset": entry(data_offsets=[0]),
        "no offsets": entry(data_offsets=None),
        "a shape of more numbers": entry(shape=[294, 80]),
        "a shape of fewer numbers": entry(shape=[29, 8]),
        "a shape beyond 64 bits": entry(shape=[2**40, 2**40]),
        "a negative shape": entry(shape=[-294, -8]),
        "a shape that is a number": entry(shape=2352),
        "no type": entry(dtype=None),
        "an unknown type": entry(dtype="F33"),
        "bytes that nothing names": lambda entries, body: (entries, body + bytes(8)),
        "fewer bytes": lambda entries, body: (entries, body[:-8]),
        "an entry that is a number": lambda entries, body: ({**entries, "fc6.kernel": 3}, body),
        "a list": lambda entries, body: (list(entries), body),
        "nothing": lambda entries, body: (b"", body),
        "a broken header": lambda entries, body: (json.dumps(entries).encode()[:-1], body),
        "bytes that are no text": lambda entries, body: (b"{\xff\xfe}", body),
        "a deep header": lambda entries, body: (b"[" * 100_000, body),
        "metadata that is a number": lambda entries, body: ({**entries, "__metadata__": 3}, body),
    }


@pytest.mark.parametrize("name", false_headers())
def test_safetensors_false_header_is_refused(tmp_path, narrow, name):
    entries, body = header_and_body(some_parameters())
    path = tensors(tmp_path / "weights.safetensors", *false_headers()[name](entries, body))
    for layer in ("conv1_1", "prob"):
        refusal(lambda layer=layer: load(path, layer), path)
    refusal(lambda: weights.check(path), path)


@pytest.mark.parametrize("length", [0, 1, 2**31, 2**63, 2**64 - 1])
def test_header_of_another_length_is_refused(tmp_path, narrow, length):
    path = tensors(tmp_path / "weights.safetensors", *header_and_body(some_parameters()))
    path.write_bytes(length.to_bytes(8, "little") + path.read_bytes()[8:])
    refusal(lambda: load(path), path)


def test_safetensors_duplicate_name_is_read_as_the_library_reads_it(tmp_path, narrow):
    entries, body = header_and_body(some_parameters())
    twice = json.dumps(entries).encode()
    false = {**entries["conv1_1.bias"], "data_offsets": [0, 10**6]}
    twice = b'{"conv1_1.bias": ' + json.dumps(false).encode() + b", " + twice[1:]
    path = tensors(tmp_path / "weights.safetensors", twice, body)
    try:
        found = load(path)
    except WeightsError:
        return
    assert_parameters_equal(found, some_parameters())


def test_safetensors_truncated_anywhere_is_refused(tmp_path, narrow):
    content = written(tmp_path / "whole.safetensors", some_parameters()).read_bytes()
    path = tmp_path / "cut.safetensors"
    for end in [*range(0, 24), *range(24, len(content), 997), len(content) - 1]:
        path.write_bytes(content[:end])
        refusal(lambda: load(path, "conv1_1"), path)
        refusal(lambda: weights.check(path), path)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("content", [b"", b"<html><body>Not found</body></html>\n", bytes(4096), b"\x93NUMPY", b"{}"])
def test_files_that_are_not_weights_are_refused(tmp_path, suffix, content):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    refusal(lambda: weights.check(path), path)
    refusal(lambda: weights.convert(path, tmp_path / "target.npy"), path)
    refusal(lambda: load(path, "conv1_1"), path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_file_with_the_suffix_of_another_format_is_refused(tmp_path, narrow, suffix):
    path = written(tmp_path / f"weights{suffix}", some_parameters())
    for other in set(SUFFIXES) - {suffix}:
        wrong = Path(path.rename(tmp_path / f"weights{other}"))
        refusal(lambda wrong=wrong: load(wrong), wrong)
        path = wrong


def test_files_have_the_permissions_of_new_files(tmp_path, narrow):
    (tmp_path / "new").touch()
    for suffix in SUFFIXES:
        path = tmp_path / f"weights{suffix}"
        weights.convert("random:0", path)
        assert path.stat().st_mode == (tmp_path / "new").stat().st_mode
