from __future__ import annotations

import os
import subprocess
import sys

import pytest

from flowers_batch.devices import hardware_precision


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("sse2 avx2 avx512f", "float32"), ("avx512f avx512_bf16", "bfloat16"), ("amx_bf16", "bfloat16"), ("", "float32")],
)
def test_precision_is_the_one_that_the_processor_supports(tmp_path, flags, expected):
    (tmp_path / "cpuinfo").write_text(f"model name : amx\nflags : {flags}\n")
    assert hardware_precision(False, tmp_path / "cpuinfo") == expected


def test_precision_without_a_description_of_the_processor_is_float32(tmp_path):
    assert hardware_precision(False, tmp_path / "missing") == "float32"


@pytest.mark.parametrize("is_ours", [False, True])
def test_startup_messages_are_hidden_in_our_own_processes_only(is_ours):
    """The process prints what file descriptor 2 is during the import of TensorFlow, and whether it is restored."""
    script = f"""
import os, sys, types
from flowers_batch import devices

def at_import():
    print(os.fstat(2).st_rdev == os.stat(os.devnull).st_rdev)
    config = types.SimpleNamespace(list_physical_devices=lambda kind: [])
    return types.SimpleNamespace(config=config)

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "tensorflow":
            sys.modules[name] = at_import()
            raise KeyError

sys.meta_path.insert(0, Finder())
before = os.fstat(2)
{"devices.hide_startup_messages()" if is_ours else ""}
try:
    devices.init_tensorflow()
except KeyError:
    pass
print(os.fstat(2).st_ino == before.st_ino, os.environ.get("TF_CPP_MIN_LOG_LEVEL"))
"""
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ([str(is_ours), "True", "2"] if is_ours else ["False", "True", "None"])
