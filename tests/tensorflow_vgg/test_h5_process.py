"""The process that reads HDF5: hostile files hang, crash or fill it, not its parent."""

import contextlib
import signal
import subprocess
import sys
import time
import zlib

import h5py
import numpy as np
import pytest

from tensorflow_vgg import formats, weights
from tensorflow_vgg.formats import h5_process
from tensorflow_vgg.network import parameter_shapes
from tensorflow_vgg.weights import WeightsError

LAYER = "conv1_1"
SHAPES = parameter_shapes("vgg16", LAYER)
KERNEL, BIAS = SHAPES[LAYER]


@pytest.fixture(autouse=True)
def h5_child():
    """Here the process is a real one."""


def write_h5(path, **options):
    """Write one layer of ones; `options` are those of the kernel's dataset."""
    with h5py.File(path, "w") as file:
        group = file.create_group("block1_conv1")
        group.attrs["weight_names"] = ["kernel", "bias"]
        group.create_dataset("kernel", **{"data": np.ones(KERNEL, np.float32), **options})
        group["bias"] = np.ones(BIAS, np.float32)
    return path


def endless(path):
    """Write a file that HDF5 reads for ever: the size of a string in its heap is zero."""
    content = bytearray(write_h5(path).read_bytes())
    content[content.index(b"GCOL") + 24] = 0
    path.write_bytes(content)
    return path


def refused(path):
    """Return the sentence that refuses a file."""
    with pytest.raises(WeightsError) as error:
        list(weights.load(weights.find(str(path)), "vgg16", LAYER))
    message = str(error.value)
    assert message.isprintable()
    assert message.endswith(".")
    assert str(path) in message
    return message


def test_file_that_hangs_hdf5_is_refused_after_some_seconds(tmp_path, monkeypatch):
    monkeypatch.setattr(h5_process, "CPU_SECONDS", 1)
    assert "1 seconds of processor time" in refused(endless(tmp_path / "weights.h5"))


@pytest.mark.slow
def test_file_that_fills_memory_is_refused(tmp_path):
    """A chunk of 6,912 bytes inflates to 8 gigabytes."""
    path = write_h5(tmp_path / "weights.h5", chunks=KERNEL, compression="gzip")
    compress = zlib.compressobj(9)
    start, rest = (compress.compress(bytes(1 << 20)) + compress.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    with h5py.File(path, "r+") as file:
        file["block1_conv1/kernel"].id.write_direct_chunk((0, 0, 0, 0), start + rest * 8192)
    refused(path)


ENDLESS = """
import sys
from tensorflow_vgg import weights
print("begun", flush=True)
list(weights.load(weights.find(sys.argv[1]), "vgg16", "conv1_1"))
"""


def test_ctrl_c_ends_a_read_that_hangs(tmp_path):
    path = endless(tmp_path / "weights.h5")
    with subprocess.Popen(
        [sys.executable, "-c", ENDLESS, path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "begun\n"
        time.sleep(0.5)
        start = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert "KeyboardInterrupt" in process.communicate(timeout=5)[1]
    assert time.monotonic() - start < 5


def test_process_is_given_no_secrets_and_its_end_is_explained(tmp_path, monkeypatch):
    (tmp_path / "child.py").write_text("import os; raise SystemExit(' '.join(os.environ))")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(h5_process, "_CHILD", "child")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.setenv("HDF5_PLUGIN_PATH", str(tmp_path))
    message = refused(write_h5(tmp_path / "weights.h5"))
    assert "HDF5_PLUGIN_PRELOAD" in message
    assert "AWS" not in message
    assert "PLUGIN_PATH" not in message


# What follows needs no process: what is said about one, or by one


def message_of(content):
    return len(content).to_bytes(4, "little") + content


READY = message_of(b'{"ready": true}')
ARRAYS = """{"arrays":
[{"dtype": "%s", "shape": %s, "offset": %s}, {"dtype": "<f4", "shape": [64], "offset": 0}]}"""
LIES = {
    "nothing": b"",
    "half a message": READY + b"\x09\0\0\0{",
    "four gigabytes": READY + b"\xff\xff\xff\xff",
    "no JSON": READY + message_of(b"["),
    "deep JSON": READY + message_of(b"[" * 100_000),
    "a list": READY + message_of(b"[]"),
    "no arrays": READY + message_of(b"{}"),
    "arrays that are a number": READY + message_of(b'{"arrays": 3}'),
    "another shape": READY + message_of((ARRAYS % ("<f4", [3, 3, 3, 65], 0)).encode()),
    "a type of objects": READY + message_of((ARRAYS % ("|O", list(KERNEL), 0)).encode()),
    "a place behind the end": READY + message_of((ARRAYS % ("<f4", list(KERNEL), 9_999_999)).encode()),
    "a place before the start": READY + message_of((ARRAYS % ("<f4", list(KERNEL), -4)).encode()),
    "a place that is text": READY + message_of((ARRAYS % ("<f4", list(KERNEL), '"0"')).encode()),
    "fewer numbers": READY + message_of((ARRAYS % ("<f4", list(KERNEL), "null")).encode()) + bytes(99),
    "an error with an escape": READY + message_of(b'{"error": "weights.h5 \\u001b[2J is bad."}'),
}


@pytest.mark.parametrize("lie", LIES)
def test_answer_of_a_process_that_lies_is_refused(tmp_path, monkeypatch, lie):
    @contextlib.contextmanager
    def liar(file, request):
        (tmp_path / "answers").write_bytes(LIES[lie])
        with open(tmp_path / "answers", "rb", buffering=0) as out:
            yield out, lambda: "it ended"

    monkeypatch.setattr(h5_process, "child_process", liar)
    path = write_h5(tmp_path / "weights.h5")
    with pytest.raises(WeightsError, match=r"weights\.h5") as error:
        list(formats.READERS[".h5"](path, SHAPES))
    assert str(error.value).isprintable()
