"""Weights files that are made to harm: each is refused by a sentence, in bounded time and memory."""

import json
import os
import pickle
import resource
import time
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest

from tensorflow_vgg import formats, weights
from tensorflow_vgg.formats.npy import read_npy
from tensorflow_vgg.network import parameter_shapes
from tensorflow_vgg.weights import WeightsError

LAYER = "conv1_1"
KERNEL, BIAS = parameter_shapes("vgg16", LAYER)[LAYER]


def load(path):
    return list(weights.load(weights.find(str(path)), "vgg16", LAYER))


def refusal(path, *words):
    with pytest.raises(WeightsError) as error:
        load(path)
    message = str(error.value)
    assert message.isprintable()
    assert message.endswith(".")
    assert len(message) < 1000
    for word in (str(path), *words):
        assert word in message


# Pickles


def npy(path, pickled, version=1, length=None):
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': ()}"
    size = len(header) if length is None else length
    path.write_bytes(b"\x93NUMPY" + bytes([version, 0]) + size.to_bytes(2 * version, "little") + header + pickled)
    return path


def opened(text):
    """Return the pickle of a dict with one key, as far as its value."""
    return b"\x80\x02}U\x07" + text


def array(shape, code="f4", data=b"", call=b"cnumpy\nndarray\n"):
    """Return a pickle of an array with any state."""
    dtype = b"cnumpy\ndtype\n" + pickle.dumps((code,), 2)[2:-1] + b"R"
    return call + b")R(K\x01" + pickle.dumps(shape, 2)[2:-1] + dtype + b"\x89" + pickle.dumps(data, 4)[11:-1] + b"tb"


def table(kernel, bias=None, key=b"U\x07conv1_1"):
    """Return a pickle of a weights file's table."""
    bias = array(BIAS, data=bytes(256)) if bias is None else bias
    inner = b"}" + key + b"]" + kernel + b"a" + bias + b"as"
    objects = b"cnumpy\ndtype\n(U\x02O8tR"
    return b"\x80\x02cnumpy\nndarray\n)R(K\x01)" + objects + b"\x89]" + inner + b"atb."


DOUBLING = b"\x80\x02)q\x00" + b"".join(b"h%ch%c\x86q%c" % (n, n, n + 1) for n in range(90))
PICKLES = {
    "a key whose hash never ends": DOUBLING + b"}hZNs.",
    "a tuple that is called with": DOUBLING + b"cnumpy\ndtype\nhZR.",
    "a million tuples in each other": b"\x80\x02)" + b"\x85" * 1_000_000 + b".",
    "lists in each other": b"\x80\x02" + b"]" * 15_000 + b"a" * 14_999 + b".",
    "a memo index of four gigabytes": b"\x80\x02]r\xff\xff\xff\xff.",
    "a memo index in text": b"]p99999999999\n.",
    "a memo index that is not set": b"\x80\x02j\xff\xff\xff\x7f.",
    "bytes of four gigabytes": b"\x80\x03B\xff\xff\xff\xff.",
    "bytes beyond 64 bits": b"\x80\x04\x8e" + b"\xff" * 8 + b".",
    "a bytearray of an exabyte": b"\x80\x05\x96" + bytes(7) + b"\x10.",
    "a number of two gigabytes": b"\x80\x02\x8b\xff\xff\xff\x7f.",
    "a number of a million digits": b"L" + b"9" * 1_000_000 + b"L\n.",
    "a frame that is longer than the file": b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f].",
    "a persistent id": b"\x80\x02U\x01xQ.",
    "an extension": b"\x80\x02\x82\x01.",
    "a new object": b"\x80\x02cnumpy\nndarray\n)\x81.",
    "a buffer from outside": b"\x80\x05\x97.",
    "a state for a list": b"\x80\x02]}b.",
    "no end": b"\x80\x02}",
    "an empty stack": b"\x80\x020.",
    "a mark that is missing": b"\x80\x02t.",
    "an array of a huge shape": table(array((2**62, 2**62))),
    "a negative shape": table(array((-1, 4), data=bytes(16))),
    "a shape of text": table(array("12")),
    "a type of objects": table(array(KERNEL, "O8", bytes(6912))),
    "a type of a billion numbers": table(array(KERNEL, "(1000000000,)f4", bytes(6912))),
    "a type in its own byte order": table(array(KERNEL, "f4", bytes(6912)), b"cnumpy\ndtype\n(U\x02f4tR(K\x03U\x01xtb"),
    "a type in place of an array": table(b"cnumpy\ndtype\n(U\x02f4tR"),
    "a buffer without arguments": table(b"cnumpy.core.numeric\n_frombuffer\n)R"),
    "a buffer of nothing": table(b"cnumpy.core.numeric\n_frombuffer\n(NNNNtR"),
    "encoded nothing": table(b"c_codecs\nencode\n)R"),
    "an encoding that is not text": table(b"c_codecs\nencode\n(K\x01U\x03hextR"),
    "a key that is a number": table(array(KERNEL, data=bytes(6912)), key=b"K\x01"),
    "a key that is a tuple": table(array(KERNEL, data=bytes(6912)), key=b")"),
    "a key with an escape": table(array(KERNEL, data=bytes(6912)), key=b"U\x04\x1b[2J"),
    "a key in Cyrillic": table(array(KERNEL, data=bytes(6912)), key=b"X\x08\0\0\0\xd1\x81onv1_1"),
    "a key of a megabyte": table(array(KERNEL, data=bytes(6912)), key=b"T\0\0\x10\0" + b"x" * (1 << 20)),
}


@pytest.fixture
def little_memory():
    """One more gigabyte at most, so that a file that takes more does no harm here."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("name", PICKLES)
def test_hostile_pickle_is_refused_at_once(tmp_path, little_memory, name):
    start = time.process_time()
    refusal(npy(tmp_path / "weights.npy", PICKLES[name]))
    assert time.process_time() - start < 3


def test_pickle_of_the_tests_is_read_where_nothing_is_wrong(tmp_path):
    numbers = np.arange(np.prod(KERNEL), dtype=np.float32)
    path = npy(tmp_path / "weights.npy", table(array(KERNEL, data=numbers.tobytes())))
    ((_, kernel, bias),) = load(path)
    np.testing.assert_array_equal(kernel, numbers.reshape(KERNEL))
    assert not bias.any()


@pytest.mark.parametrize(("version", "length"), [(2, 2**32 - 1), (2, 20_000), (1, 65_535), (3, 60)])
def test_npy_header_of_another_length_or_version_is_refused(tmp_path, little_memory, version, length):
    refusal(npy(tmp_path / "weights.npy", bytes(30_000), version, length))


def test_numbers_are_not_copied_until_they_are_used(tmp_path):
    """A layer that is not needed takes no memory."""
    path = tmp_path / "weights.npy"
    large = np.ones(10_000_000, np.float32)
    layers = {LAYER: [np.ones(KERNEL, np.float32), np.ones(BIAS, np.float32)], "fc6": [large, large]}
    np.save(path, np.array(layers, object), allow_pickle=True)
    tracemalloc.start()
    assert len(list(read_npy(path, {LAYER: (KERNEL, BIAS)}))) == 1
    assert tracemalloc.get_traced_memory()[1] < 1 << 20  # the file has 40 MB
    tracemalloc.stop()


# Headers of .safetensors


def safetensors(path, header, body):
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(body))
    return path


def entry(shape, start, end):
    return {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}


GOOD = {f"{LAYER}.kernel": entry(KERNEL, 0, 6912), f"{LAYER}.bias": entry(BIAS, 6912, 7168)}
HEADERS = {
    "a name twice": b'{"conv1_1.bias": 3, ' + json.dumps(GOOD).encode()[1:],
    "metadata in metadata": json.dumps({**GOOD, "__metadata__": {"a": {"b": "c"}}}).encode(),
    "twenty megabytes": json.dumps({**GOOD, "__metadata__": {"a": "x" * 20_000_000}}).encode(),
    "arrays that overlap": json.dumps({**GOOD, "x": entry((64,), 0, 256)}).encode(),
    "a product beyond 64 bits": json.dumps({**GOOD, "x": entry((2**32, 2**32, 0), 7168, 7168 + 2**63)}).encode(),
    "a number of 4,000 digits": json.dumps({**GOOD, "x": entry((10**4000,), 7168, 7168)}).encode(),
    "an entry with an escape": json.dumps({**GOOD, "\x1b[2J": 3}).encode(),
}


@pytest.mark.parametrize("name", HEADERS)
def test_hostile_safetensors_header_is_refused(tmp_path, name):
    assert load(safetensors(tmp_path / "weights.safetensors", json.dumps(GOOD).encode(), 7168))
    refusal(safetensors(tmp_path / "weights.safetensors", HEADERS[name], 7168))


# How an .h5 file stores its arrays


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"maxshape": (None,) * 4, "chunks": (300, 300, 300, 30)}, "chunks larger"),
        ({"chunks": KERNEL, "compression": 32015, "allow_unknown_filter": True}, "plugin"),
        ({"dtype": h5py.string_dtype()}, "floating-point"),
    ],
)
def test_h5_storage_that_takes_too_much_or_a_plugin_is_refused(tmp_path, options, words):
    path = tmp_path / "weights.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("block1_conv1")
        group.attrs["weight_names"] = ["kernel", "bias"]
        group.create_dataset("kernel", KERNEL, **{"dtype": "f4", **options})
        group["bias"] = np.ones(BIAS, np.float32)
    refusal(path, words)


# Files that are no files


@pytest.mark.parametrize("suffix", [".npy", ".h5", ".safetensors"])
def test_pipe_is_refused_instead_of_waited_for(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    os.mkfifo(path)
    with pytest.raises(WeightsError):
        load(path)
    for function in (formats.READERS[suffix], formats.stored_layers):
        arguments = ({LAYER: (KERNEL, BIAS)},) if function is not formats.stored_layers else ()
        with pytest.raises(WeightsError, match="not a regular file"):
            list(function(path, *arguments))
