"""Labels files: tables of paths and labels, CSV or Parquet."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from flowers_batch.dataset.spreadsheet import cell_of, text_of
from flowers_batch.errors import InputError
from flowers_batch.storage.folder import PathOrUrl, split_file

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
    """

    labels: dict[str, str]
    empty: int


def read_labels(file: str) -> LabelsFile:
    """Return the `path,label` rows of a CSV (UTF-8, with a header) or Parquet file; of equal paths the last one counts.

    Raises:
        InputError: The file does not exist, or lacks the columns.
    """
    folder, name = split_file(file)
    if folder.filesystem.get_file_info(folder.at(name)).type != fs.FileType.File:
        raise InputError(f"There is no labels file {file}: give `folder`, or a CSV or Parquet file with path,label.")
    try:
        with folder.open(name) as stream:
            if name.lower().endswith(".parquet"):
                rows = pq.read_table(stream, columns=["path", "label"]).to_pylist()
            else:
                table = csv.DictReader(io.StringIO(stream.read().decode("utf-8-sig"), newline=""))
                if not {"path", "label"} <= set(table.fieldnames or ()):
                    raise KeyError
                rows = [{name: text_of(row[name] or "") for name in ("path", "label")} for row in table]
        labels = [(str(row["path"]), label_text(row["label"])) for row in rows]
    except (pa.ArrowInvalid, KeyError, csv.Error, UnicodeDecodeError):
        raise invalid_labels_file(file) from None
    return LabelsFile({path: label for path, label in labels if label}, sum(not label for _, label in labels))


def invalid_labels_file(file: str) -> InputError:
    """Return the error for a file that is no labels file."""
    return InputError(
        f"{file} is not a labels file: it must be CSV (UTF-8) or Parquet with the columns path and label."
    )


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
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # what pandas makes of integers beside empty cells
    return "" if value is None or value != value else class_name(str(value))
