"""Reads pickled arrays of floating-point numbers without running the pickle.

A pickle is a program: it can name any callable and have it called, and even one that calls nothing can take all memory
or never end. So it is not handed to `pickle`. The few instructions (opcodes) by which NumPy's arrays are written are
interpreted here; everything else is refused. The cost is bounded: each instruction takes constant time, there are at
most `_MAX_INSTRUCTIONS`, and numbers are not copied out of the file until they are used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tensorflow_vgg.formats.pickled_arrays import CALLS, Dtype, PickledArray
from tensorflow_vgg.formats.pickled_strings import (
    EncodedText,
    PickleError,
    int_of_bytes,
    int_of_line,
    line_at,
    text_of,
)

_MAX_INSTRUCTIONS = 20_000  # VGG19 takes about 1,500, which leaves room for other layers in the file
_DAMAGED = "its pickle is damaged"


class _Mark:
    """Marks in the stack where the items of a list, a tuple or a dict begin."""


@dataclass(frozen=True)
class _Global:
    """A name from a module, which is looked up nowhere."""

    module: str
    name: str


class PickleReader:
    """Interprets a pickle of arrays in lists, tuples and dicts.

    Args:
        data: The bytes of the file.
        position: Where in them the pickle begins.
    """

    def __init__(self, data: memoryview, position: int):
        self._data, self._position = data, position
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def read(self) -> Any:
        """Return the pickled object.

        Raises:
            PickleError: It is not made of arrays of floating-point numbers, or the pickle is damaged.
        """
        for _ in range(_MAX_INSTRUCTIONS):
            opcode = bytes(self._take(1))
            if opcode == b".":
                return self._pop()
            if opcode not in _INSTRUCTIONS:
                raise PickleError(f"its pickle has the instruction {opcode!r}, which no array needs")
            _INSTRUCTIONS[opcode](self)
        raise PickleError(f"its pickle has more than {_MAX_INSTRUCTIONS} instructions")

    # Bytes of the file

    def _take(self, count: int) -> memoryview:
        if count < 0 or count > len(self._data) - self._position:
            raise PickleError("its pickle is cut off")
        self._position += count
        return self._data[self._position - count : self._position]

    def _sized(self, size_bytes: int) -> memoryview:
        return self._take(int_of_bytes(self._take(size_bytes)))

    def _line(self) -> memoryview:
        line = line_at(self._data, self._position)
        self._position += len(line) + 1
        return line

    def _name(self) -> str:
        return text_of(self._line())

    def _number(self) -> int:
        return int_of_line(self._line())

    # The stack

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _pop(self) -> Any:
        if not self._stack or isinstance(self._stack[-1], _Mark):
            raise PickleError(_DAMAGED)
        return self._stack.pop()

    def _top(self, kind: type) -> Any:
        if not self._stack or type(self._stack[-1]) is not kind:
            raise PickleError(_DAMAGED)
        return self._stack[-1]

    def _pop_to_mark(self) -> list[Any]:
        for index in range(len(self._stack) - 1, -1, -1):
            if isinstance(self._stack[index], _Mark):
                items = self._stack[index + 1 :]
                del self._stack[index:]
                return items
        raise PickleError(_DAMAGED)

    # Instructions

    def _tuple(self, length: int) -> None:
        self._push(tuple([self._pop() for _ in range(length)][::-1]))

    def _append(self, items: list[Any]) -> None:
        self._top(list).extend(items)

    def _set_items(self, items: list[Any]) -> None:
        table = self._top(dict)
        for key, value in _pairs(items):
            table[_layer_name(key)] = value

    def _set_item(self) -> None:
        value, key = self._pop(), self._pop()
        self._set_items([key, value])

    def _dict(self) -> None:
        items = self._pop_to_mark()
        self._push({})
        self._set_items(items)

    def _append_one(self) -> None:
        item = self._pop()
        self._append([item])

    def _append_all(self) -> None:
        items = self._pop_to_mark()
        self._append(items)

    def _set_all(self) -> None:
        items = self._pop_to_mark()
        self._set_items(items)

    def _put(self, index: int) -> None:
        if not self._stack or not 0 <= index < _MAX_INSTRUCTIONS:
            raise PickleError(_DAMAGED)
        self._memo[index] = self._stack[-1]

    def _get(self, index: int) -> None:
        if index not in self._memo:
            raise PickleError(_DAMAGED)
        self._push(self._memo[index])

    def _global(self, module: str, name: str) -> None:
        short = module.removeprefix("numpy.core.").removeprefix("numpy._core.")
        if (short, name) not in CALLS:
            raise PickleError(f"its pickle names {module}.{name}, which no array needs")
        self._push(_Global(short, name))

    def _stack_global(self) -> None:
        name, module = text_of(self._pop()), text_of(self._pop())
        self._global(module, name)

    def _reduce(self) -> None:
        arguments, called = self._pop(), self._pop()
        if not isinstance(called, _Global) or not isinstance(arguments, tuple):
            raise PickleError("its pickle calls something that no array needs")
        self._push(CALLS[called.module, called.name](*arguments))

    def _build(self) -> None:
        state = self._pop()
        if not self._stack or not isinstance(self._stack[-1], Dtype | PickledArray):
            raise PickleError(_DAMAGED)
        self._stack[-1].set_state(state)


def _pairs(items: list[Any]) -> Iterator[tuple[Any, Any]]:
    if len(items) % 2:
        raise PickleError(_DAMAGED)
    return zip(items[::2], items[1::2], strict=True)


def _layer_name(key: Any) -> str:
    name = text_of(key)
    if not (name.isascii() and name.isprintable()):
        raise PickleError("the name of a layer has characters that no layer's name has")
    return name


# Opcodes as in the standard library's `pickletools`, where each is explained.
_INSTRUCTIONS: dict[bytes, Callable[[PickleReader], Any]] = {
    b"\x80": lambda it: it._take(1),  # PROTO
    b"\x95": lambda it: it._take(8),  # FRAME
    b"(": lambda it: it._push(_Mark()),
    b"N": lambda it: it._push(None),
    b"\x88": lambda it: it._push(True),
    b"\x89": lambda it: it._push(False),
    b"I": lambda it: it._push(it._number()),
    b"L": lambda it: it._push(it._number()),
    b"J": lambda it: it._push(int_of_bytes(it._take(4), signed=True)),
    b"K": lambda it: it._push(int_of_bytes(it._take(1))),
    b"M": lambda it: it._push(int_of_bytes(it._take(2))),
    b"\x8a": lambda it: it._push(int_of_bytes(it._sized(1), signed=True)),
    b"U": lambda it: it._push(it._sized(1)),
    b"C": lambda it: it._push(it._sized(1)),
    b"T": lambda it: it._push(it._sized(4)),
    b"B": lambda it: it._push(it._sized(4)),
    b"\x8e": lambda it: it._push(it._sized(8)),
    b"\x96": lambda it: it._push(it._sized(8)),
    b"S": lambda it: it._push(EncodedText(it._line(), "string_escape")),
    b"V": lambda it: it._push(EncodedText(it._line(), "raw_unicode_escape")),
    b"\x8c": lambda it: it._push(EncodedText(it._sized(1), "utf-8")),
    b"X": lambda it: it._push(EncodedText(it._sized(4), "utf-8")),
    b"\x8d": lambda it: it._push(EncodedText(it._sized(8), "utf-8")),
    b"}": lambda it: it._push({}),
    b"]": lambda it: it._push([]),
    b")": lambda it: it._push(()),
    b"d": PickleReader._dict,
    b"l": lambda it: it._push(it._pop_to_mark()),
    b"t": lambda it: it._push(tuple(it._pop_to_mark())),
    b"\x85": lambda it: it._tuple(1),
    b"\x86": lambda it: it._tuple(2),
    b"\x87": lambda it: it._tuple(3),
    b"a": PickleReader._append_one,
    b"e": PickleReader._append_all,
    b"s": PickleReader._set_item,
    b"u": PickleReader._set_all,
    b"p": lambda it: it._put(it._number()),
    b"q": lambda it: it._put(int_of_bytes(it._take(1))),
    b"r": lambda it: it._put(int_of_bytes(it._take(4))),
    b"\x94": lambda it: it._put(len(it._memo)),
    b"g": lambda it: it._get(it._number()),
    b"h": lambda it: it._get(int_of_bytes(it._take(1))),
    b"j": lambda it: it._get(int_of_bytes(it._take(4))),
    b"c": lambda it: it._global(it._name(), it._name()),
    b"\x93": PickleReader._stack_global,
    b"R": PickleReader._reduce,
    b"b": PickleReader._build,
}
