"""A column added to a CSV file, whose rows otherwise keep their bytes."""

from __future__ import annotations

from flowers_batch.pages.review.csv_end import rows_with_offsets
from flowers_batch.storage.text_tables import Layout


def with_column(content: bytes, layout: Layout, name: str, *, before_last: bool) -> bytes:
    """Return a CSV file with one more column, empty in all rows.

    Args:
        content: The file, in UTF-8; its rows are complete.
        layout: How it is written.
        name: Of the column.
        before_last: Whether it comes before the last column, whose cells then have no quotation marks; else at the end.
    """
    delimiter = layout.delimiter.encode()
    rows = list(rows_with_offsets(content, layout))
    ends = [*(start for start, _ in rows[1:]), len(content)]
    parts, has_header = [content[: rows[0][0]]], False  # the byte order mark
    for (start, cells), end in zip(rows, ends, strict=True):
        row = content[start:end]
        is_header = not has_header and tuple(cells) == layout.header
        has_header = has_header or is_header
        if not has_header or not cells:  # a line such as `sep=;`, or an empty one
            parts.append(row)
            continue
        text = row.rstrip(b"\r\n")
        missing = delimiter * max(0, len(layout.header) - len(cells))
        place = text.rfind(delimiter) if before_last and not missing else len(text)
        cell = missing + delimiter + (name.encode() if is_header else b"")
        parts.append(text[:place] + cell + text[place:] + row[len(text) :])
    return b"".join(parts)
