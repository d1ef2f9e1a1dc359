import builtins
import functools
import hashlib
import http.server
import os
import pathlib
import pickle
import shutil
import threading
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers import DATA, assert_parameters_equal

from tensorflow_vgg import formats, weights
from tensorflow_vgg.download import DownloadError, PublishedFile
from tensorflow_vgg.formats.npy import read_npy
from tensorflow_vgg.network import parameter_shapes
from tensorflow_vgg.weights import Weights, WeightsError

PYTHON_2 = DATA / "caffe_layout_python2.npy"
SHAPES = {"conv1_1": ((3, 3, 3, 4), (4,)), "conv1_2": ((3, 3, 4, 4), (4,)), "fc6": ((16, 8), (8,))}


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """A machine without weights."""
    monkeypatch.delenv(weights.ENVIRONMENT_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def tiny(monkeypatch):
    """A network of three small layers."""

    def shapes(network, last_layer="prob"):
        names = list(SHAPES)
        return {name: SHAPES[name] for name in names[: names.index(last_layer) + 1]} if last_layer in names else SHAPES

    monkeypatch.setattr(weights, "parameter_shapes", shapes)


def tiny_parameters(seed=3):
    random = np.random.default_rng(seed)
    return [
        (name, random.normal(size=kernel).astype(np.float32), random.normal(size=bias).astype(np.float32))
        for name, (kernel, bias) in SHAPES.items()
    ]


def load(path, layer="prob", network="vgg16"):
    return list(weights.load(weights.find(str(path)), network, layer))


def write_npy(path, content, protocol=2):
    """Write a file like `numpy.save`'s in any pickle protocol."""
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
        pickle.dump(content, file, protocol)
    return path


def write_table(path, parameters, protocol=2):
    table = np.empty((), object)
    table[()] = {name: [kernel, bias] for name, kernel, bias in parameters}
    return write_npy(path, table, protocol)


def write_h5(path, parameters):
    """Writes Keras' published layout."""
    with h5py.File(path, "w") as file:
        for name, kernel, bias in parameters:
            keras_name = formats.keras_name(name)
            group = file.create_group(keras_name)
            group.attrs["weight_names"] = [f"{keras_name}_{part}_1:0".encode() for part in "Wb"]
            group[f"{keras_name}_W_1:0"] = kernel
            group[f"{keras_name}_b_1:0"] = bias
    return path


WRITERS = {"npy": write_table, "h5": write_h5}


def written(tmp_path, suffix, parameters, name="weights"):
    return WRITERS[suffix](tmp_path / f"{name}.{suffix}", parameters)


def refusal(path, *words, layer="prob"):
    """Return the error message that refuses a file; it is one sentence and contains the file's name and all words."""
    with pytest.raises(WeightsError) as error:
        load(path, layer)
    message = str(error.value)
    assert "\n" not in message
    assert message.endswith(".")
    for word in (str(path), *words):
        assert word in message
    return message


# Random weights


def test_random_weights_are_equal_on_each_call_and_differ_by_seed():
    first, again, other = (list(weights.load(weights.find(f"random:{n}"), "vgg16", "pool2")) for n in (5, 5, 6))
    assert_parameters_equal(first, again)
    assert not np.array_equal(first[0][1], other[0][1])


def test_random_weights_are_he_normal():
    for name, kernel, bias in weights.load(weights.find("random:1"), "vgg16", "pool3"):
        if kernel.size > 30_000:
            inputs = np.prod(kernel.shape[:-1])
            assert kernel.var() == pytest.approx(2 / inputs, rel=0.03), name
            assert abs(kernel.mean()) < 0.02 * kernel.std(), name
        assert not bias.any()


def test_random_weights_of_early_layers_do_not_depend_on_depth():
    shallow, deep = (list(weights.load(weights.find("random:1"), "vgg16", layer)) for layer in ("pool1", "pool3"))
    assert len(shallow) < len(deep)
    assert_parameters_equal(shallow, deep[: len(shallow)])


def test_random_weights_have_the_shapes_of_the_network():
    found = {name: (kernel.shape, bias.shape) for name, kernel, bias in load_random("vgg19", "conv3_4")}
    assert found == parameter_shapes("vgg19", "conv3_4")


def load_random(network, layer):
    return weights.load(weights.find("random:0"), network, layer)


def test_random_weights_are_identified_as_random(tmp_path):
    found = weights.find("random:42", download=False)
    assert (found.name, found.path, found.seed) == ("random:42", None, 42)


@pytest.mark.parametrize("name", ["random:x", "random:", "random:-1", "random:1.5"])
def test_seed_must_be_a_whole_number(name):
    with pytest.raises(WeightsError, match=rf"random:SEED.*Received: {name}\."):
        weights.find(name)


# Where weights are found


@pytest.fixture
def published(tmp_path, monkeypatch):
    """The requests to a local server that has the published file."""
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            super().do_GET()

        def log_message(self, *_):
            pass

    folder = tmp_path / "published"
    folder.mkdir()
    content = written(folder, "h5", tiny_parameters()).read_bytes()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/weights.h5"
        file = PublishedFile(url, len(content), f"md5:{hashlib.md5(content).hexdigest()}")
        monkeypatch.setattr(weights, "PUBLISHED", {"vgg16": file, "vgg19": PublishedFile(f"{url}.none", 1, "md5:0")})
        yield asked
        server.shutdown()


def test_imagenet_weights_are_downloaded_once_and_cached(tmp_path, published, tiny):
    found = weights.find("imagenet")
    assert found == Weights("imagenet", tmp_path / "cache" / "flowers_batch" / "weights.h5")
    assert_parameters_equal(list(weights.load(found, "vgg16", "prob")), tiny_parameters())
    assert weights.find("imagenet", download=False) == found
    assert weights.find("imagenet") == found
    assert len(published) == 1


def test_environments_file_comes_before_the_cache(tmp_path, published, monkeypatch):
    weights.find("imagenet")
    own = written(tmp_path, "npy", tiny_parameters(), "own")
    monkeypatch.setenv("FLOWERS_BATCH_WEIGHTS", str(own))
    assert weights.find("imagenet") == Weights("imagenet", own)


def test_environments_file_prevents_the_download(tmp_path, published, monkeypatch):
    own = written(tmp_path, "npy", tiny_parameters(), "own")
    monkeypatch.setenv("FLOWERS_BATCH_WEIGHTS", str(own))
    assert weights.find("imagenet").path == own
    assert weights.find("imagenet", download=False).path == own
    assert published == []


def test_missing_file_of_the_environment_is_refused_despite_the_cache(tmp_path, published, monkeypatch):
    weights.find("imagenet")
    monkeypatch.setenv("FLOWERS_BATCH_WEIGHTS", str(tmp_path / "none.h5"))
    with pytest.raises(WeightsError, match=r"none\.h5 \(from FLOWERS_BATCH_WEIGHTS\)"):
        weights.find("imagenet")


def test_find_without_download_does_not_download(published):
    with pytest.raises(WeightsError, match=r"vgg19 are not on this machine: name a file"):
        weights.find("imagenet", "vgg19", download=False)
    assert published == []


def test_failed_download_is_a_download_error(published):
    with pytest.raises(DownloadError, match="404"):
        weights.find("imagenet", "vgg19")


def test_file_is_found_by_its_name_and_named_in_full(tmp_path, monkeypatch):
    path = written(tmp_path, "npy", tiny_parameters())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("weights.npy", "~/weights.npy", str(path)):
        assert weights.find(name) == Weights(str(path), path)


def test_missing_file_is_refused_by_its_full_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("none.npy", str(tmp_path / "none.npy")):
        with pytest.raises(WeightsError, match=rf"no weights file {tmp_path}/none\.npy"):
            weights.find(name)
    with pytest.raises(WeightsError, match="no weights file"):
        weights.find(str(tmp_path))


def test_file_of_another_suffix_is_refused(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"x")
    refusal(path, ".npy, .h5, .safetensors")


def test_published_files_have_a_host_a_size_and_a_checksum():
    for network, file in weights.PUBLISHED.items():
        assert file.name == f"{network}_weights_tf_dim_ordering_tf_kernels.h5"
        parameters = sum(np.prod(kernel) + bias[0] for kernel, bias in parameter_shapes(network).values())
        assert 0 < file.size - 4 * parameters < 100_000
        assert file.checksum.startswith("md5:")


# Both formats


@pytest.mark.parametrize("suffix", WRITERS)
def test_load_yields_layers_in_network_order_up_to_the_layer(tmp_path, tiny, suffix):
    parameters = tiny_parameters()
    path = written(tmp_path, suffix, parameters[::-1])
    assert_parameters_equal(load(path), parameters)
    assert_parameters_equal(load(path, "conv1_2"), parameters[:2])


@pytest.mark.parametrize("suffix", WRITERS)
def test_layers_after_the_requested_one_may_be_missing(tmp_path, tiny, suffix):
    path = written(tmp_path, suffix, tiny_parameters()[:1])
    assert_parameters_equal(load(path, "conv1_1"), tiny_parameters()[:1])
    absent = {"npy": "conv1_2", "h5": "block1_conv2"}[suffix]
    refusal(path, f"no layer {absent}", {"npy": "it has conv1_1", "h5": "it has block1_conv1"}[suffix])


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("part", [1, 2])
def test_another_shape_is_refused_with_both_shapes(tmp_path, tiny, suffix, part):
    parameters = [list(each) for each in tiny_parameters()]
    parameters[1][part] = parameters[1][part][..., :3]
    received = {1: "3x3x4x3 and 4", 2: "3x3x4x4 and 3"}[part]
    refusal(written(tmp_path, suffix, parameters), "Layer conv1_2", "3x3x4x4 and 4", f"Received: {received}.")


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("part", [1, 2])
def test_numbers_that_are_not_finite_are_refused(tmp_path, tiny, suffix, value, part):
    parameters = tiny_parameters()
    parameters[1][part].flat[2] = value
    refusal(written(tmp_path, suffix, parameters), "Layer conv1_2", "finite")


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("dtype", ["S4", "c8", "i4"])
def test_arrays_that_are_not_floating_point_are_refused(tmp_path, tiny, suffix, dtype):
    parameters = [(name, kernel, np.ones(bias.shape, dtype)) for name, kernel, bias in tiny_parameters()]
    refusal(written(tmp_path, suffix, parameters), "floating-point")


@pytest.mark.parametrize("suffix", WRITERS)
def test_truncated_file_is_refused_wherever_it_ends(tmp_path, tiny, suffix):
    content = written(tmp_path, suffix, tiny_parameters()).read_bytes()
    path = tmp_path / f"cut.{suffix}"
    for end in [*range(0, len(content), 97), len(content) - 1]:
        path.write_bytes(content[:end])
        refusal(path)


@pytest.mark.parametrize("suffix", WRITERS)
def test_text_under_the_name_of_a_weights_file_is_refused(tmp_path, suffix):
    path = tmp_path / f"weights.{suffix}"
    path.write_text("<html><body>Not found</body></html>\n")
    refusal(path)


@pytest.mark.parametrize("suffix", WRITERS)
def test_other_floating_point_types_become_float32(tmp_path, tiny, suffix):
    parameters = tiny_parameters()
    for dtype in ("f8", ">f4", ">f8"):
        path = written(tmp_path, suffix, [(name, k.astype(dtype), b.astype(dtype)) for name, k, b in parameters])
        assert_parameters_equal(load(path), parameters)


# Identity


def test_identity_is_the_same_in_every_format(tmp_path, tiny):
    parameters = list(weights.load(weights.find("random:7"), "vgg16", "prob"))
    expected = weights.identity(iter(parameters))
    assert len(expected) == 64
    for suffix in WRITERS:
        path = written(tmp_path, suffix, parameters)
        assert weights.identity(weights.load(weights.find(str(path)), "vgg16", "prob")) == expected


def test_identity_differs_by_each_number_and_by_the_layers(tiny):
    parameters = tiny_parameters()
    identities = {weights.identity(iter(parameters)), weights.identity(iter(parameters[:2]))}
    for part in (1, 2):
        changed = [(name, kernel.copy(), bias.copy()) for name, kernel, bias in parameters]
        changed[2][part].flat[-1] += 1
        identities.add(weights.identity(iter(changed)))
    identities.add(weights.identity(iter([("conv9_9", *parameters[0][1:]), *parameters[1:]])))
    assert len(identities) == 5


# The .npy file


def test_file_of_python_2_is_read_as_numpy_reads_it(tiny):
    expected = np.load(PYTHON_2, allow_pickle=True, encoding="latin1").item()
    found = list(read_npy(PYTHON_2, SHAPES))
    assert_parameters_equal(found, [(name, *expected[name]) for name in SHAPES])
    assert_parameters_equal(load(PYTHON_2), found)
    assert any(kernel.any() for _, kernel, _ in found)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("order", "CF")
def test_each_protocol_of_python_3_is_read(tmp_path, tiny, protocol, order):
    parameters = [(name, np.asarray(k, order=order), b) for name, k, b in tiny_parameters()]
    path = write_table(tmp_path / "weights.npy", parameters, protocol)
    assert_parameters_equal(load(path), tiny_parameters())


def test_numpy_saved_file_is_read(tmp_path, tiny):
    path = tmp_path / "weights.npy"
    np.save(path, {name: [kernel, bias] for name, kernel, bias in tiny_parameters()}, allow_pickle=True)
    assert_parameters_equal(load(path), tiny_parameters())


class Attack:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("wrap", ["alone", "in an array", "as a kernel"])
@pytest.mark.parametrize("call", ["os.system", "open", "Path.touch", "exec", "ndarray.tofile", "memmap"])
def test_pickle_that_calls_anything_is_refused_and_not_run(tmp_path, tiny, call, wrap, protocol):
    target = tmp_path / "target"
    attack = {
        "os.system": lambda: Attack(os.system, f"touch {target}"),
        "open": lambda: Attack(builtins.open, str(target), "w"),
        "Path.touch": lambda: Attack(pathlib.Path.touch, target),
        "exec": lambda: Attack(exec, f"open({str(target)!r}, 'w')"),
        "ndarray.tofile": lambda: Attack(np.ndarray.tofile, np.ones(2, np.float32), str(target)),
        "memmap": lambda: Attack(np.memmap, str(target), "float32", "w+", 0, (4,)),
    }[call]()
    table = np.empty((), object)
    table[()] = attack if wrap == "in an array" else {"conv1_1": [attack, np.ones(4, np.float32)]}
    path = write_npy(tmp_path / "weights.npy", attack if wrap == "alone" else table, protocol)
    refusal(path)
    assert not target.exists()


def test_attacks_would_work_on_a_plain_unpickler(tmp_path):
    target = tmp_path / "target"
    pickle.loads(pickle.dumps(Attack(os.system, f"touch {target}"), 2))
    assert target.exists()


def test_refused_pickle_names_the_function_it_calls(tmp_path):
    path = write_npy(tmp_path / "weights.npy", Attack(os.system, "true"))
    refusal(path, "system, which no array needs")


@pytest.mark.parametrize("content", [{"conv1_1": 3}, [1, 2], None, "text"])
def test_pickle_of_something_else_is_refused(tmp_path, content):
    refusal(write_npy(tmp_path / "weights.npy", content))


def test_array_of_numbers_is_refused(tmp_path):
    path = tmp_path / "weights.npy"
    np.save(path, np.ones((3, 3, 3, 64), np.float32))
    refusal(path, "float32", "(3, 3, 3, 64)")


def test_npy_layer_other_than_kernel_and_bias_is_refused(tmp_path, tiny):
    table = np.empty((), object)
    table[()] = {"conv1_1": [np.ones(4, np.float32)] * 3}
    refusal(write_npy(tmp_path / "weights.npy", table), "Layer conv1_1", "Received: 3.")


# The .h5 file


def test_layers_are_named_as_keras_names_them():
    names = {name: formats.keras_name(name) for name in parameter_shapes("vgg19")}
    assert names["conv1_1"] == "block1_conv1"
    assert names["conv5_4"] == "block5_conv4"
    assert [names[name] for name in ("fc6", "fc7", "fc8")] == ["fc1", "fc2", "predictions"]


def test_arrays_are_found_by_weight_names_alone(tmp_path, tiny):
    path = written(tmp_path, "h5", tiny_parameters())
    with h5py.File(path, "r+") as file:
        group = file["block1_conv1"]
        group.move("block1_conv1_W_1:0", "inner/a")
        group.move("block1_conv1_b_1:0", "inner/z")
        group.attrs["weight_names"] = ["inner/a", "inner/z"]  # text, as newer versions write it
        group["extra"] = np.ones(3)
    assert_parameters_equal(load(path), tiny_parameters())


def replaced(path, member, replace):
    """Replaces a member of a weights file by what a function puts there."""
    with h5py.File(path, "r+") as file:
        parent, name = file[str(Path(member).parent)], Path(member).name
        del parent[name]
        replace(parent, name)
    return path


KERNEL = "/block1_conv2/block1_conv2_W_1:0"


@pytest.mark.parametrize("link", ["external", "soft"])
@pytest.mark.parametrize("member", ["/block1_conv2", KERNEL])
def test_h5_links_are_not_followed(tmp_path, tiny, link, member):
    other = written(tmp_path, "h5", tiny_parameters(), "other")
    path = written(tmp_path, "h5", tiny_parameters())
    if link == "soft":
        with h5py.File(path, "r+") as file:
            file.copy(file[member], file, "elsewhere")
        target = h5py.SoftLink("/elsewhere")
    else:
        target = h5py.ExternalLink(str(other), member)
    replaced(path, member, lambda parent, name: parent.__setitem__(name, target))
    with h5py.File(path) as file:
        assert file[KERNEL].shape == (3, 3, 4, 4)  # the link itself is good
    refusal(path, "block1_conv2", "link")


def test_h5_external_storage_is_refused(tmp_path, tiny):
    (tmp_path / "secret").write_bytes(tiny_parameters()[1][1].tobytes())

    def replace(parent, name):
        parent.create_dataset(name, (3, 3, 4, 4), "f4", external=[(str(tmp_path / "secret"), 0, h5py.h5f.UNLIMITED)])

    path = replaced(written(tmp_path, "h5", tiny_parameters()), KERNEL, replace)
    refusal(path, "block1_conv2", "other files")


def test_virtual_datasets_are_not_read(tmp_path, tiny):
    other = written(tmp_path, "h5", tiny_parameters(), "other")

    def replace(parent, name):
        layout = h5py.VirtualLayout((3, 3, 4, 4), "f4")
        layout[:] = h5py.VirtualSource(str(other), KERNEL, (3, 3, 4, 4))
        parent.create_virtual_dataset(name, layout)

    path = replaced(written(tmp_path, "h5", tiny_parameters()), KERNEL, replace)
    refusal(path, "block1_conv2", "other files")


def test_huge_dataset_is_refused_before_it_is_read(tmp_path, tiny):
    def replace(parent, name):
        parent.create_dataset(name, (10**7, 10**7), "f4", chunks=(1000, 1000))  # 364 TiB, none of them written

    path = replaced(written(tmp_path, "h5", tiny_parameters()), KERNEL, replace)
    refusal(path, "Layer conv1_2", "10000000x10000000")


def test_h5_group_in_place_of_an_array_and_the_reverse_are_refused(tmp_path, tiny):
    path = written(tmp_path, "h5", tiny_parameters())
    replaced(path, KERNEL, lambda parent, name: parent.create_group(name))
    refusal(path)
    replaced(path, "/block1_conv2", lambda parent, name: parent.create_dataset(name, data=np.ones(4)))
    refusal(path)


@pytest.mark.parametrize("names", [[], [b"a"], [b"a", b"b", b"c"]])
def test_layer_with_other_than_two_arrays_is_refused(tmp_path, tiny, names):
    path = written(tmp_path, "h5", tiny_parameters())
    with h5py.File(path, "r+") as file:
        file["block1_conv2"].attrs["weight_names"] = names
    refusal(path, "Layer block1_conv2", f"Received: {len(names)}.")


def test_layer_whose_arrays_are_missing_is_refused(tmp_path, tiny):
    path = written(tmp_path, "h5", tiny_parameters())
    with h5py.File(path, "r+") as file:
        del file[KERNEL]
    refusal(path, "block1_conv2_W_1:0")


def test_read_only_file_is_read(tmp_path, tiny):
    path = written(tmp_path, "h5", tiny_parameters())
    copy = shutil.copy(path, tmp_path / "copy.h5")
    Path(copy).chmod(0o444)
    before = Path(copy).read_bytes()
    assert_parameters_equal(load(copy), tiny_parameters())
    assert Path(copy).read_bytes() == before
