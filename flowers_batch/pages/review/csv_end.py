"""The end of a CSV file: where its last row begins, and whether that was written completely."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from flowers_batch.storage.text_tables import Layout


def rows_with_offsets(content: bytes, layout: Layout) -> Iterator[tuple[int, list[str]]]:
    """Yield each row of a CSV file: the offset of its first byte, and its cells."""
    lines = content.removeprefix(codecs.BOM_UTF8).splitlines(keepends=True)
    offsets = [len(content) - sum(map(len, lines))]
    for line in lines:
        offsets.append(offsets[-1] + len(line))
    reader = _reader((line.decode("utf-8", "replace") for line in lines), layout, strict=False)
    lines_before = 0
    for cells in reader:
        yield offsets[lines_before], cells
        lines_before = reader.line_num


def holds_rows(rest: bytes, layout: Layout, *, has_time: bool) -> bool:
    """Return whether an unclosed quotation mark is followed by rows, rather than by the lines of a name.

    A row that was partly written is the last one: lines behind its first are of a name with line ends, and only by
    chance have as many cells as the header, and a time where a review writes it.

    Args:
        rest: The file from the row that has the quotation mark on.
        layout: How the file is written.
        has_time: Whether the last cell of a row is a time, or empty.
    """
    for line in rest.splitlines()[1:]:
        try:
            (cells,) = _reader([line.decode("utf-8", "replace")], layout, strict=True)
        except (csv.Error, ValueError):  # it is part of a row at most, or empty
            continue
        if len(cells) == len(layout.header) and (not has_time or not cells[-1] or is_time(cells[-1])):
            return True
    return False


def has_closed_quotes(row: bytes, layout: Layout) -> bool:
    """Return whether a row's quotation marks are all closed."""
    try:
        list(_reader(io.StringIO(row.decode("utf-8", "replace"), newline=""), layout, strict=True))
    except csv.Error:
        return False
    return True


def _reader(lines: Iterable[str], layout: Layout, *, strict: bool) -> Any:
    return csv.reader(lines, delimiter=layout.delimiter, skipinitialspace=layout.is_padded, strict=strict)


def is_time(text: str) -> bool:
    """Return whether a text is a time with its zone."""
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False
