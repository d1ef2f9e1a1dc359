"""Labels files: tables of paths and labels, CSV or Parquet, as people and programs write them."""

from __future__ import annotations

import codecs
import csv
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import pyarrow as pa
from pyarrow import fs

from flowers_batch.classifier.chosen import CHOSEN, NOT_RECORDED, combined
from flowers_batch.classifier.label_values import column_texts, without_zero_decimals
from flowers_batch.dataset.spreadsheet import cell_of, text_of
from flowers_batch.errors import InputError
from flowers_batch.progress import NULL_REPORTER, Reporter
from flowers_batch.storage.io_errors import raise_io_error
from flowers_batch.storage.local_files import reason_of
from flowers_batch.storage.opening import PathOrUrl, split_file
from flowers_batch.storage.parquet_files import open_parquet
from flowers_batch.storage.text_tables import TextTable, find_columns
from flowers_batch.text import shortened

LABEL_COLUMNS = ("path", "label")
CHOSEN_COLUMN = "chosen"
MAX_LABEL_CHARACTERS = 255  # as of a folder's name: NumPy gives every label the memory of the longest one
_PARQUET = b"PAR1"  # begins every Parquet file
_BLOCK_BYTES = 1 << 20
_INVISIBLE = "\u200b-\u200f\u2060\ufeff"  # zero-width characters, marks of direction, the byte order mark
_ENDS = re.compile(rf"^[\s{_INVISIBLE}]+|[\s{_INVISIBLE}]+$")


@lru_cache(maxsize=4096)
def class_name(text: str) -> str:
    """Return a class's name as it is compared: in NFC, without spaces and invisible characters at its ends."""
    return _ENDS.sub("", unicodedata.normalize("NFC", text))


@dataclass(frozen=True)
class LabelsFile:
    """The content of a labels file.

    Attributes:
        labels: By path.
        empty: Rows with a path and no label.
        chosen: How photos with a label were chosen, by path, where that is recorded: one of `CHOSEN`.
    """

    labels: dict[str, str]
    empty: int
    chosen: dict[str, str] = field(default_factory=dict)


def read_labels(file: str, reporter: Reporter = NULL_REPORTER) -> LabelsFile:
    """Return the rows of a labels file; of equal paths the last one with a label counts.

    Args:
        file: CSV in any usual form (`TextTable`), or Parquet, with the columns `path` and `label`, and perhaps
            `chosen`.
        reporter: Receives a warning if the file is not UTF-8 and is taken for Windows-1252.

    Raises:
        InputError: The file does not exist, lacks the columns, or has a row that is damaged or lacks its path, or
            whose `chosen` is none of `CHOSEN`.
    """
    folder, name = split_file(file)
    if folder.info(name).type != fs.FileType.File:
        raise InputError(f"There is no labels file {file}: name a CSV or Parquet file with path,label.")
    try:
        with folder.open(name) as stream:
            is_parquet = stream.read(len(_PARQUET)) == _PARQUET
            stream.seek(0)
            columns = _read_parquet(stream, file) if is_parquet else _read_text(stream, file, reporter)
    except (OSError, pa.ArrowException) as error:
        raise_io_error(file, error)
        raise InputError(f"The labels file {file} cannot be read ({reason_of(error)}): restore it.") from None
    labels, chosen, empty = dict[str, str](), dict[str, str](), 0
    for row, (path, label, way) in enumerate(zip(*columns, strict=True), 1):
        if label and not path:
            raise InputError(f"Row {row} of the labels file {file} has a label and no path: fill it in, or remove it.")
        if way not in (NOT_RECORDED, *CHOSEN):
            raise InputError(
                f"Row {row} of the labels file {file} has {shortened(way)} in its column `{CHOSEN_COLUMN}`, which says "
                f"how its photo was chosen ({', '.join(CHOSEN)}, or nothing): correct it, or rename the column if it "
                "means something else."
            )
        if label:
            chosen[path] = combined(chosen.get(path), way)
            labels[path] = label
        else:
            empty += bool(path)
    return LabelsFile(labels, empty, {path: way for path, way in chosen.items() if way != NOT_RECORDED})


def _read_parquet(stream: pa.NativeFile, file: str) -> list[list[str]]:
    """Return the paths, the labels, and how the photos were chosen."""
    title = f"the labels file {file}"
    try:
        table = open_parquet(stream)
        names = table.schema_arrow.names
        places = find_columns(names, title, LABEL_COLUMNS, (CHOSEN_COLUMN,))
        rows = table.read([names[place] for place in places.values()])
        texts = {name: column_texts(rows[names[place]]) for name, place in places.items()}
    except UnicodeDecodeError as error:
        raise InputError(f"The labels file {file} cannot be read ({reason_of(error)}): give UTF-8.") from None
    except TypeError as error:
        raise InputError(f"The labels file {file} has a column {reason_of(error)}: text is expected.") from None
    ways = map(_way, texts.get(CHOSEN_COLUMN, [NOT_RECORDED] * len(rows)))
    return [texts["path"], list(map(class_name, texts["label"])), list(ways)]


def _read_text(stream: pa.NativeFile, file: str, reporter: Reporter) -> list[list[str]]:
    """Return the paths, the labels, and how the photos were chosen."""
    encoding = "utf-8" if _is_unicode(stream) else "cp1252"
    if encoding != "utf-8":
        reporter.message(f"{file} is not UTF-8, and is read as Windows-1252: save it as UTF-8 if its names look wrong")
    stream.seek(0)
    table = TextTable(stream, f"the labels file {file}", LABEL_COLUMNS, (CHOSEN_COLUMN,), encoding=encoding)
    paths, labels, ways = list[str](), list[str](), list[str]()
    for path, label, *rest in table.rows():
        paths.append(text_of(path or ""))
        labels.append(class_name(text_of(label or "")))
        ways.append(_way(*rest))
    return [paths, without_zero_decimals(labels), ways]


def _way(text: str | None = None) -> str:
    return (text or NOT_RECORDED).strip().casefold()


def _is_unicode(stream: pa.NativeFile) -> bool:
    """Return whether a file is UTF-8, or says by its byte order mark what else it is."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    block = stream.read(_BLOCK_BYTES)
    if block.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return True
    try:
        while block:
            decoder.decode(block)
            block = stream.read(_BLOCK_BYTES)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def write_labels(out: PathOrUrl, columns: Sequence[str], rows: Iterable[dict[str, Any]]) -> None:
    """Write a CSV file that spreadsheets and `read_labels` read.

    Args:
        out: The file.
        columns: `path` and `label` among them.
        rows: A value for each column.
    """
    folder, name = split_file(out)
    with folder.publish(name) as scratch, open(scratch, "w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows([cell_of(row[column]) for column in columns] for row in rows)


def label_text(value: Any) -> str:
    """Return a label as text, empty for null and NaN. Numbers are labels too, 0 among them."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # what pandas makes of integers beside empty cells
    return "" if value is None or value != value else class_name(str(value))
