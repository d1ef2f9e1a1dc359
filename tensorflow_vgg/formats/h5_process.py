"""The parent's side of the process that reads HDF5: it starts and limits the process, and checks its answers."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from tensorflow_vgg.formats.errors import WeightsError, check_shapes, open_regular, printable, unreadable
from tensorflow_vgg.formats.h5_messages import LENGTH_BYTES
from tensorflow_vgg.network import Parameters, Shapes

_CHILD = "tensorflow_vgg.formats.h5_child"
_EXPECTED = "a readable file of Keras weights"
CPU_SECONDS = 10  # to find a file's layers, which takes milliseconds
_NUMBERS_PER_SECOND = 5_000_000  # a tenth of what gzip takes
MEMORY_BYTES = 256 << 20
# Of the largest array: in float64 as it is stored, decompressed, and as it is passed on.
_BYTES_PER_NUMBER = 24
WALL_SECONDS = 300.0  # for one answer: the libraries or the file may be on a slow disk
_END_SECONDS = 10.0
_MAX_MESSAGE_BYTES = 1 << 20
_MAX_SENTENCE = 2000  # characters
_DTYPE = re.compile(r"[<>]f[248]")
# What starting Python and its libraries may need; the user's other variables, such as credentials, stay here.
_PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONHOME", "LANG", "LC_ALL")
_ENVIRONMENT = {
    "HDF5_PLUGIN_PRELOAD": "::",  # load no plugins
    # Unused threads would count as memory.
    "MALLOC_ARENA_MAX": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


def read_layers(path: Path, layers: dict[str, Shapes]) -> Iterator[Parameters]:
    """Read layers one after the other: see `keras_h5.read_h5`."""
    numbers = [math.prod(shape) for shapes in layers.values() for shape in shapes]
    request = {
        "layers": layers,
        "cpu_seconds": CPU_SECONDS + sum(numbers) // _NUMBERS_PER_SECOND,
        "memory_bytes": MEMORY_BYTES + _BYTES_PER_NUMBER * max(numbers),
    }
    with _asking(path, request) as answers:
        for name, shapes in layers.items():
            yield answers.layer(name, shapes)


def read_object(path: Path, request: dict[str, Any], key: str) -> Any:
    """Return the member `key` of the answer to a request: see `h5_child.answer`."""
    limits = {"cpu_seconds": CPU_SECONDS, "memory_bytes": MEMORY_BYTES}
    with _asking(path, request | limits) as answers:
        return answers.message()[key]


@contextlib.contextmanager
def _asking(path: Path, request: dict[str, Any]) -> Iterator[_Answers]:
    """Have a child process answer a request about a file.

    Raises:
        WeightsError: The child refuses the file, or ends, takes too long, or gives an answer that is not valid.
    """
    try:
        with open_regular(path) as file, child_process(file, request | {"path": str(path)}) as (out, explain_end):
            try:
                answers = _Answers(out, file, path)
                answers.message()  # it is ready
                yield answers
            except EOFError:
                raise ValueError(explain_end()) from None
            except (LookupError, TypeError, RecursionError, json.JSONDecodeError):
                raise ValueError("the process that reads it gave no valid answer") from None
    except WeightsError:
        raise
    except (OSError, ValueError) as error:
        raise unreadable(path, _EXPECTED, error) from None


@contextlib.contextmanager
def child_process(file: IO[bytes], request: dict[str, Any]) -> Iterator[tuple[FileIO, Callable[[], str]]]:
    """Start a child that answers a request; kill it when the block ends.

    Yields:
        Its output, and a function that waits for its end and returns why it ended.
    """
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            [sys.executable, "-P", "-m", _CHILD, json.dumps(request)],
            bufsize=0,
            stdin=file,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=passed_on | _ENVIRONMENT | {"PYTHONPATH": path},
            start_new_session=True,  # Ctrl-C is the parent's to answer
        ) as process,
    ):
        try:
            yield cast(FileIO, process.stdout), lambda: _explain_end(process, errors, request["cpu_seconds"])
        finally:
            process.kill()


def _explain_end(process: subprocess.Popen[bytes], errors: IO[bytes], cpu_seconds: int) -> str:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_END_SECONDS)
    code = process.returncode or 0
    if code in (-signal.SIGXCPU, -signal.SIGKILL):
        return f"reading it takes more than {cpu_seconds} seconds of processor time, or all memory"
    if code < 0:
        return f"reading it ends a process with {signal.Signals(-code).name}"
    errors.seek(0)
    last_line = (errors.read().decode(errors="replace").strip().splitlines() or ["it says nothing"])[-1]
    return f"the process that reads it ends with {last_line.rstrip('.')}"


class _Answers:
    """The messages of a child, which are checked like the file itself.

    Args:
        out: The child's output.
        file: The file that the child reads.
        path: Its name, for messages.
    """

    def __init__(self, out: FileIO, file: IO[bytes], path: Path):
        self._out, self._file, self._path = out, file, path
        self._poll = select.poll()
        self._poll.register(out, select.POLLIN)

    def message(self) -> dict[str, Any]:
        """Return the next message.

        Raises:
            WeightsError: The child refuses the file.
            OSError, EOFError, ValueError: The answer is late, missing, or not valid.
        """
        length = int.from_bytes(self._read(bytearray(LENGTH_BYTES)), "little")
        if length > _MAX_MESSAGE_BYTES:
            raise ValueError(f"its layout takes {length} bytes to describe")
        message = json.loads(self._read(bytearray(length)))
        if "error" in message:
            raise WeightsError(printable(str(message["error"]), _MAX_SENTENCE))
        return message

    def layer(self, name: str, shapes: Shapes) -> Parameters:
        """Return the next layer's name, kernel and bias; an array is a view of the file where possible."""
        message = self.message()
        check_shapes(self._path, name, tuple(tuple(entry["shape"]) for entry in message["arrays"]), shapes)
        kernel, bias = (
            self._array(entry["dtype"], entry["offset"], shape)
            for entry, shape in zip(message["arrays"], shapes, strict=True)
        )
        return name, kernel, bias

    def _array(self, dtype: str, offset: int | None, shape: tuple[int, ...]) -> NDArray[Any]:
        if not _DTYPE.fullmatch(dtype):
            raise ValueError(f"it holds numbers of type {dtype}")
        if offset is None:
            array = np.empty(shape, dtype)
            self._read(array.reshape(-1).view(np.uint8).data)
            return array
        size = os.fstat(self._file.fileno()).st_size
        if not 0 <= offset <= size - math.prod(shape) * np.dtype(dtype).itemsize:
            raise ValueError("an array is outside the file")
        return np.memmap(self._file, dtype, "r", offset, shape)

    def _read(self, buffer: Any) -> Any:
        """Fill a buffer with what comes next."""
        left, end = memoryview(buffer), time.monotonic() + WALL_SECONDS
        while left:
            if not self._poll.poll(max(0.0, end - time.monotonic()) * 1000):
                raise OSError(f"reading it takes more than {WALL_SECONDS:g} seconds")
            count = self._out.readinto(left)
            if not count:
                raise EOFError
            left = left[count:]
        return buffer
