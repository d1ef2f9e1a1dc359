"""Tables in text, as people and programs write them: any usual delimiter, encoding and spelling of the header."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from operator import itemgetter

import pyarrow as pa

from flowers_batch.errors import InputError
from flowers_batch.storage.local_files import reason_of

Cells = tuple[str | None, ...]
_DELIMITERS = (",", ";", "\t")
_NO_DELIMITER = "\x1f"  # of a table of one column, whose cells may contain what delimits those of other tables
# The first line that some programs write for Excel. From Python 3.13 on, the csv module refuses the excepted signs.
_SEPARATOR = re.compile(r'"?sep=([^" \r])"?\s*', re.IGNORECASE)
_AROUND_NAMES = "\"'\ufeff\u200b\u00a0 \t\r\n"
_HEADER_LINES = 8  # read to find the header: blank ones, and those of quoted names with line ends
_LINE_CHARACTERS = 1 << 20  # of a longer line some cell is longer than the csv module allows, or it is no table
_BLOCK_BYTES = 1 << 20
_NAMES_SHOWN, _NAME_CHARACTERS = 10, 40
_NUL = "it has NUL characters"
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True)
class Layout:
    """How a table is written.

    Attributes:
        delimiter: One character.
        header: The columns' names, as written.
        is_padded: Whether spaces surround the names: then cells are taken without those around them, too.
        lines: How many lines the header ends after.
    """

    delimiter: str
    header: tuple[str, ...]
    is_padded: bool
    lines: int


class TextTable:
    """The rows of a table in text, read as a stream.

    Args:
        file: The text, from its beginning.
        title: What errors call it, as in the middle of a sentence.
        required: Columns that it must have.
        optional: Columns that it may have.
        encoding: Of a file without a byte order mark.
        errors: What becomes of bytes that are not in the encoding, as for `open`.

    Attributes:
        columns: The names of those of the columns that it has; case, spaces and quotes around them do not matter.

    Raises:
        InputError: It has no header with the required columns.
    """

    def __init__(
        self,
        file: pa.NativeFile,
        title: str,
        required: Sequence[str],
        optional: Sequence[str] = (),
        encoding: str = "utf-8",
        errors: str = "strict",
    ):
        self._title = title
        self._text = open_text(file, encoding, errors)
        try:
            self._first_lines = list(islice(_lines(self._text), _HEADER_LINES))
            self._layout = find_layout(self._first_lines, required)
        except (csv.Error, UnicodeError) as error:
            raise _reading_error(f"The header of {title}", title, error) from None
        self._places = find_columns(self._layout.header, title, required, optional)
        self.columns = tuple(self._places)

    def rows(self) -> Iterator[Cells]:
        """Yield each row's cells of `columns`, None where the row ends before; rows without any text are left out.

        Raises:
            InputError: A row cannot be read, or has more cells than the header; it is named by its number.
        """
        places, is_padded = tuple(self._places.values()), self._layout.is_padded
        number, width = 0, len(self._layout.header)
        chosen = itemgetter(*places) if len(places) > 1 else lambda cells: (cells[places[0]],)
        try:
            for number, cells in enumerate(self._all_rows(), 1):
                if len(cells) != width:
                    cells = self._fitted(cells, number)
                yield chosen([cell and cell.strip() for cell in cells] if is_padded else cells)
        except (csv.Error, UnicodeError) as error:
            raise _reading_error(f"Row {number + 1} of {self._title}", self._title, error) from None

    def _all_rows(self) -> Iterator[list[str | None]]:
        layout = self._layout
        lines = chain(self._first_lines[layout.lines :], _lines(self._text))
        rows = csv.reader(
            map(_checked, lines), delimiter=layout.delimiter, skipinitialspace=layout.is_padded, strict=True
        )
        return filter(any, rows)  # type: ignore[arg-type]

    def _fitted(self, cells: list[str | None], number: int) -> list[str | None]:
        """Return a row with as many cells as the header has."""
        header, delimiter = self._layout.header, self._layout.delimiter
        if any(cells[len(header) :]):
            raise InputError(
                f"Row {number} of {self._title} has {len(cells)} cells and the header {len(header)}: put cells that "
                f"contain `{delimiter}` in quotation marks."
            )
        return cells + [None] * (len(header) - len(cells))


def open_text(file: pa.NativeFile, encoding: str = "utf-8", errors: str = "strict") -> io.TextIOWrapper:
    """Return a file's text, with its line ends and without its byte order mark, which decides on the encoding."""
    buffered = io.BufferedReader(file, _BLOCK_BYTES)
    start = buffered.peek(4)[:4]
    if start.startswith(_UTF16):
        encoding = "utf-16"
    elif start.startswith(codecs.BOM_UTF8):
        encoding = "utf-8-sig"
    return io.TextIOWrapper(buffered, encoding, errors, newline="")


def find_layout(lines: Sequence[str], required: Iterable[str]) -> Layout:
    """Return how a table is written, by its first lines: the delimiter is the one that separates required columns.

    Raises:
        csv.Error: There is no valid header.
    """
    announced = _SEPARATOR.fullmatch(lines[0]) if lines else None
    found, invalid = [], None
    for delimiter in (announced[1],) if announced else _DELIMITERS:
        try:
            found.append(_layout_of(lines, 1 if announced else 0, delimiter))
        except csv.Error as error:
            invalid = error
    if not found:
        raise invalid or csv.Error("it is empty")
    wanted = set(required)
    best = max(found, key=lambda layout: (wanted <= set(map(_plain, layout.header)), len(layout.header)))
    if len(best.header) == 1 and not announced:
        return _layout_of(lines, 0, _NO_DELIMITER)
    return best


def _layout_of(lines: Sequence[str], skipped: int, delimiter: str) -> Layout:
    reader = csv.reader(map(_checked, lines[skipped:]), delimiter=delimiter, skipinitialspace=True, strict=True)
    trimmed = next(filter(None, reader), [])
    end = skipped + reader.line_num
    raw = next(filter(None, csv.reader(lines[skipped:], delimiter=delimiter)), [])
    return Layout(delimiter, tuple(trimmed), [name.strip() for name in raw] != raw, end)


def find_columns(
    header: Sequence[str], title: str, required: Iterable[str], optional: Iterable[str] = ()
) -> dict[str, int]:
    """Return the places of columns, by their names in lower case; those in `header` may be written in another way.

    Raises:
        InputError: A required column is missing, or two columns have one of the names.
    """
    plain, required = [_plain(name) for name in header], tuple(required)
    places: dict[str, int] = {}
    for name in (*required, *optional):
        alike = [place for place, written in enumerate(plain) if written == name]
        exact = [place for place in alike if header[place] == name]
        if len(exact or alike) > 1:
            raise InputError(f"{_capitalised(title)} has several columns `{name}`: rename all but one.")
        if alike:
            (places[name],) = exact or alike
    missing = [name for name in required if name not in places]
    if missing:
        found = f"its columns are {quoted(header)}" if header else "it is empty"
        raise InputError(
            f"{_capitalised(title)} has no column {' and no column '.join(map(_shown, missing))} ({found}): its header "
            f"must name {quoted(required)}."
        )
    return places


def quoted(names: Sequence[str]) -> str:
    """Return names as a sentence has them, shortened if there are many."""
    return ", ".join([*map(_shown, names[:_NAMES_SHOWN]), *["..."] * (len(names) > _NAMES_SHOWN)])


def _shown(name: str) -> str:
    return f"`{name.strip(_AROUND_NAMES)[:_NAME_CHARACTERS]}`"


def _capitalised(title: str) -> str:
    return title[0].upper() + title[1:]


def _plain(name: str) -> str:
    return name.strip(_AROUND_NAMES).casefold()


def _lines(text: io.TextIOWrapper) -> Iterator[str]:
    while line := text.readline(_LINE_CHARACTERS):
        yield line


def _checked(line: str) -> str:
    if len(line) == _LINE_CHARACTERS:
        raise csv.Error("a line is too long")
    if "\0" in line:
        raise csv.Error(_NUL)
    return line


def _reading_error(part: str, title: str, error: Exception) -> InputError:
    if isinstance(error, UnicodeError):  # somewhere in the block that was read
        return InputError(f"{_capitalised(title)} cannot be read ({reason_of(error)}): save it as UTF-8.")
    advice = "save the file as CSV in UTF-8" if _NUL in str(error) else "check its quotation marks"
    return InputError(f"{part} cannot be read ({reason_of(error)}): {advice}.")
