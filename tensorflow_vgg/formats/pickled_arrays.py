"""Arrays in a pickle, and the stand-ins for the functions that make them: nothing of NumPy is called."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tensorflow_vgg.formats.pickled_strings import EncodedText, PickleError, text_of

_MAX_DIMENSIONS = 32
_CODES = ("f2", "f4", "f8")


@dataclass
class Dtype:
    """A type of numbers: a code such as `f4`, and a byte order."""

    code: str
    order: str = "="

    def set_state(self, state: Any) -> None:
        """Set the byte order, as `numpy.dtype.__setstate__` does.

        Raises:
            PickleError: The state is not that of a type.
        """
        if not isinstance(state, tuple) or len(state) < 2 or (order := text_of(state[1])) not in ("<", ">", "=", "|"):
            raise PickleError("it has a type of an unknown byte order")
        self.order = order

    def to_numpy(self) -> np.dtype[Any]:
        """Return the type as NumPy's; only float16, float32 and float64 are known.

        Raises:
            PickleError: It is another type.
        """
        if self.code not in _CODES:
            raise PickleError(f"it holds numbers of type {self.code}, not floating-point ones")
        return np.dtype(self.code).newbyteorder("=" if self.order == "|" else self.order)  # type: ignore[arg-type]


class PickledArray:
    """An array in a pickle: a shape, a type, and where its numbers are."""

    def __init__(self) -> None:
        self.shape: tuple[int, ...] = ()
        self.content: Any = None
        self._dtype = Dtype("")
        self._order = "C"

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the numbers."""
        return self._dtype.to_numpy()

    def set_state(self, state: Any) -> None:
        """Set everything, as `numpy.ndarray.__setstate__` does.

        Raises:
            PickleError: The state is not that of an array of floating-point numbers.
        """
        if not isinstance(state, tuple) or len(state) != 5:
            raise PickleError("it has an array that is damaged")
        _, shape, dtype, is_fortran, content = state
        self.set(shape, dtype, "F" if is_fortran else "C", content)

    def set(self, shape: Any, dtype: Any, order: str, content: Any) -> None:
        """Set everything at once.

        Raises:
            PickleError: The type is not a floating-point one, or the shape does not fit the numbers.
        """
        if not isinstance(shape, tuple) or not all(type(side) is int and side >= 0 for side in shape):
            raise PickleError("the shape of an array is not a row of numbers")
        if not isinstance(dtype, Dtype) or len(shape) > _MAX_DIMENSIONS:
            raise PickleError("an array has no type, or too many dimensions")
        if not isinstance(content, list):
            needed = math.prod(shape) * dtype.to_numpy().itemsize
            fits = len(content) == needed if isinstance(content, memoryview) else isinstance(content, EncodedText)
            if not fits:
                raise PickleError("the shape of an array does not fit its numbers")
        self.shape, self._dtype, self._order, self.content = shape, dtype, order, content

    def to_numpy(self) -> NDArray[Any]:
        """Return the array, as a view of the file where its bytes are stored as they are.

        Raises:
            PickleError: Its shape does not fit the numbers.
        """
        content = self.content
        if isinstance(content, EncodedText):
            content = content.to_bytes(math.prod(self.shape) * self.dtype.itemsize)
        return np.frombuffer(content, self.dtype).reshape(self.shape, order=self._order)  # type: ignore[call-overload]


def _make_array(*_: Any) -> PickledArray:
    return PickledArray()


def _make_dtype(code: Any = b"", *_: Any) -> Dtype:
    return Dtype(text_of(code))


def _from_buffer(data: Any = None, dtype: Any = None, shape: Any = None, order: Any = b"C", *_: Any) -> PickledArray:
    array = PickledArray()
    array.set(shape, dtype, "F" if text_of(order) == "F" else "C", data)
    return array


def _encode(string: Any = None, *_: Any) -> Any:
    """Return the bytes that protocols 0 to 2 of Python 3 store as text: always as Latin-1."""
    if not isinstance(string, EncodedText):
        raise PickleError("its pickle encodes something that is not text")
    return string


# By the module's name without `numpy.core.` (`numpy._core.` since NumPy 2), and the function's name.
CALLS: dict[tuple[str, str], Callable[..., Any]] = {
    ("multiarray", "_reconstruct"): _make_array,
    ("numeric", "_frombuffer"): _from_buffer,
    ("numpy", "ndarray"): _make_array,
    ("numpy", "dtype"): _make_dtype,
    ("_codecs", "encode"): _encode,
}
