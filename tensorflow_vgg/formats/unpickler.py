"""An unpickler that knows arrays of floating-point numbers and refuses everything else.

A pickle can name any callable and have it called. This one resolves only the few names that a pickled array needs,
and resolves them to stand-ins of this module instead of NumPy's own.
"""

from __future__ import annotations

import codecs
import pickle
from typing import IO, Any, ClassVar

import numpy as np
from numpy.typing import NDArray


def text(value: str | bytes) -> str:
    """Return a string of Python 3 or 2 (bytes) as text."""
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


class _Dtype:
    """Stands in for `numpy.dtype` in a pickle: a type code such as `f4`, and a byte order."""

    def __init__(self, code: str | bytes, *_: Any):
        self.code = text(code)
        self.order = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = text(state[1])

    def to_numpy(self) -> np.dtype[Any]:
        """Return the type as NumPy's; only float16, float32 and float64 are known."""
        if self.code not in ("f2", "f4", "f8"):
            raise ValueError(f"it holds numbers of type {self.code}, not floating-point ones")
        return np.dtype(self.code).newbyteorder("=" if self.order == "|" else self.order)  # type: ignore[arg-type]


class _Array:
    """Stands in for `numpy.ndarray` in a pickle: a shape, a type, and either bytes or a list of objects."""

    array: NDArray[Any]

    def __init__(self, *_: Any):
        pass

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, content = state
        if isinstance(content, list):
            self.array = np.empty(len(content), object)
            self.array[:] = content
        else:
            data = content if isinstance(content, bytes) else content.encode("latin1")
            self.array = np.frombuffer(data, dtype.to_numpy()).reshape(shape, order="F" if fortran else "C")


def _from_buffer(data: Any, dtype: _Dtype, shape: tuple[int, ...], order: str) -> _Array:
    result = _Array()
    result.array = np.frombuffer(data, dtype.to_numpy()).reshape(shape, order="F" if order == "F" else "C")
    return result


def _encode(string: str, encoding: str) -> bytes:
    """Stands in for `_codecs.encode`, by which protocols 0 to 2 of Python 3 store bytes: always as Latin-1."""
    return codecs.latin_1_encode(string)[0]


class ArrayUnpickler(pickle.Unpickler):
    """Reads pickled arrays, nested in lists and dicts; every other class or function is refused.

    `encoding="bytes"` leaves Python 2's strings as they are, so that the arrays stored in them are not copied.
    """

    _KNOWN: ClassVar[dict[tuple[str, str], Any]] = {
        ("multiarray", "_reconstruct"): _Array,
        ("numeric", "_frombuffer"): _from_buffer,
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Dtype,
        ("_codecs", "encode"): _encode,
    }

    def __init__(self, file: IO[bytes]):
        super().__init__(file, encoding="bytes")

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in for one of the names that a pickled array needs.

        Raises:
            pickle.UnpicklingError: The pickle names something else.
        """
        short = module.removeprefix("numpy.core.").removeprefix("numpy._core.")
        if (short, name) not in self._KNOWN:
            raise pickle.UnpicklingError(f"its pickle names {module}.{name}, which no array needs")
        return self._KNOWN[short, name]
