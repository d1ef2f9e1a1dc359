"""Reads HDF5 in a process of its own, because damaged files hang or crash HDF5's library.

The file is the process's standard input. The answers on standard output are messages: the length of a JSON object in
four bytes, the object, and after a layer's object the bytes of those of its arrays that the parent cannot map. The
process can write no files, and its CPU time and memory are limited (see `h5_process`).
"""

from __future__ import annotations

import json
import math
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import h5py
import numpy as np

from tensorflow_vgg.formats.errors import WeightsError, check_arrays, check_part_count, missing_layer, unreadable
from tensorflow_vgg.formats.h5_messages import LENGTH_BYTES, keras_name

_FILE = "/dev/stdin"
# Deflate, shuffle, Fletcher-32, N-bit, scale-offset and LZF: what h5py writes. HDF5 loads others from plugins.
_FILTERS = {
    h5py.h5z.FILTER_DEFLATE,
    h5py.h5z.FILTER_SHUFFLE,
    h5py.h5z.FILTER_FLETCHER32,
    h5py.h5z.FILTER_NBIT,
    h5py.h5z.FILTER_SCALEOFFSET,
    h5py.h5z.FILTER_LZF,
}
_MAX_CHUNK_NUMBERS = 1 << 20  # of a chunk that is larger than its array

Message = tuple[dict[str, Any], list[Any]]  # a JSON object, and the arrays whose bytes follow


def answer(file: str, request: dict[str, Any], out: IO[bytes]) -> None:
    """Read what a request names from a file, and write the answer.

    Args:
        file: The file to open.
        request: `path`, the file's name in messages; and `layers`, the shapes to read by layer, or `candidates`, the
            layers to look for, or neither: then the file's attributes are read.
        out: Where the messages go.
    """
    path = Path(request["path"])
    try:
        try:
            with h5py.File(file, "r") as opened:
                for message, arrays in _messages(opened, path, request):
                    _send(out, message)
                    for array in arrays:
                        out.write(np.ascontiguousarray(array).data)
                    out.flush()
        except (OSError, RuntimeError, KeyError, AttributeError, TypeError, ValueError, MemoryError) as error:
            if isinstance(error, WeightsError | BrokenPipeError):
                raise
            raise unreadable(path, "a readable file of Keras weights", error) from None
    except WeightsError as error:
        _send(out, {"error": str(error)})


def _messages(file: Any, path: Path, request: dict[str, Any]) -> Iterator[Message]:
    if "layers" in request:
        for name, shapes in request["layers"].items():
            yield _read_layer(file, path, name, shapes)
    elif "candidates" in request:
        yield {"found": [name for name in request["candidates"] if keras_name(name) in file]}, []
    else:
        yield {"attributes": {name: value for name, value in file.attrs.items() if isinstance(value, str)}}, []


def _send(out: IO[bytes], message: dict[str, Any]) -> None:
    content = json.dumps(message).encode()
    out.write(len(content).to_bytes(LENGTH_BYTES, "little") + content)
    out.flush()


def _read_layer(file: Any, path: Path, name: str, shapes: Any) -> Message:
    """Return a layer's two arrays; the group's attribute `weight_names` names its kernel and its bias."""
    group = _open_member(file, keras_name(name), path)
    stored = group.attrs.get("weight_names", ())
    check_part_count(path, keras_name(name), len(stored))
    parts = [part.decode("latin1") if isinstance(part, bytes) else str(part) for part in stored]
    kernel, bias = (_open_member(group, part, path) for part in parts)
    check_arrays(path, name, kernel, bias, (tuple(shapes[0]), tuple(shapes[1])))
    entries, arrays = [], []
    for dataset in (kernel, bias):
        _check_storage(dataset, path)
        offset = _offset(dataset)
        array = dataset if offset is not None else dataset[()]
        entries.append({"dtype": array.dtype.str, "shape": array.shape, "offset": offset})
        arrays += [array] if offset is None else []
    return {"arrays": entries}, arrays


def _open_member(group: Any, name: str, path: Path) -> Any:
    """Open a member of an HDF5 group that is stored in the file itself; links out of the file are not followed."""
    for part in name.split("/"):
        link = group.get(part, getlink=True)
        if link is None:
            raise missing_layer(path, name, group)
        if not isinstance(link, h5py.HardLink):
            raise WeightsError(f"{name} in {path} is a link, and links are not followed: store the arrays in the file.")
        group = group[part]
        if isinstance(group, h5py.Dataset) and (group.external or group.is_virtual):
            raise WeightsError(f"{name} in {path} refers to other files, which are not read: store its numbers here.")
    return group


def _check_storage(dataset: Any, path: Path) -> None:
    """Raise if an array of the right shape is stored so that reading it may take far more than its numbers do."""
    if dataset.chunks is None:
        return
    if math.prod(dataset.chunks) > max(dataset.size, _MAX_CHUNK_NUMBERS):
        raise WeightsError(f"{dataset.name} in {path} has chunks larger than itself: store it in smaller ones.")
    plist = dataset.id.get_create_plist()
    if not {plist.get_filter(index)[0] for index in range(plist.get_nfilters())} <= _FILTERS:
        raise WeightsError(f"{dataset.name} in {path} is compressed by a plugin of HDF5: store it with gzip.")


def _offset(dataset: Any) -> int | None:
    """Return where the numbers are in the file if they are stored in one piece, as NumPy stores them."""
    # NumPy has no equivalent of some HDF5 types, such as bfloat16: there h5py converts the numbers as it reads them.
    has_numpy_type = dataset.id.get_type() == h5py.h5t.py_create(dataset.dtype)
    return dataset.id.get_offset() if dataset.chunks is None and has_numpy_type else None


def _limit_process(cpu_seconds: int, memory_bytes: int) -> None:
    """Limit what reading may take, in addition to what this process has used so far; on Linux, its memory too."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    _lower(resource.RLIMIT_CPU, math.ceil(usage.ru_utime + usage.ru_stime) + cpu_seconds)
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_FSIZE, 0)
    if sys.platform == "linux":  # elsewhere the limit has no effect
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        _lower(resource.RLIMIT_AS, pages * os.sysconf("SC_PAGE_SIZE") + memory_bytes)


def _lower(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))


def main() -> None:
    """Answer the request that is the only argument."""
    request = json.loads(sys.argv[1])
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever the libraries print is no answer
    _limit_process(request["cpu_seconds"], request["memory_bytes"])
    _send(out, {"ready": True})
    answer(_FILE, request, out)


if __name__ == "__main__":
    main()
