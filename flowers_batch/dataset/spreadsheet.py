"""CSV files that spreadsheets open safely: no cell is evaluated as a formula."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flowers_batch.dataset.run_folder import Run
from flowers_batch.storage.io_errors import passing_errors
from flowers_batch.storage.opening import PathOrUrl, split_file

_CSV_COLUMNS = ("path", "prediction", "probability", "is_unknown", "status", "reason", "message")
# A spreadsheet evaluates cells that begin so, also in full width, in the small forms of Unicode, and with a minus sign.
_FORMULA = (*"=+-@", "\t", "\r", "\n", *"\uff1d\uff0b\uff0d\uff20", *"\ufe66\ufe62\ufe63\ufe6b", "\u2212")
_ESCAPED = (*_FORMULA, *(f"'{sign}" for sign in ("'", *_FORMULA)))  # and cells that look quoted already


def write_csv(run: Run, path: PathOrUrl) -> None:
    """Write predictions as CSV: UTF-8 with a byte order mark, with cells that look like formulas quoted."""
    folder, name = split_file(path)
    with (
        folder.publish(name) as scratch,
        open(scratch, "w", encoding="utf-8-sig", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(_CSV_COLUMNS)
        for batch in passing_errors(run.batches(_CSV_COLUMNS)):
            for row in batch.to_pylist():
                writer.writerow(map(cell_of, row.values()))


def write_rows(path: PathOrUrl, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as CSV, as `write_csv` does, with a value for each column."""
    folder, name = split_file(path)
    with folder.publish(name) as scratch, open(scratch, "w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows([cell_of(row[column]) for column in columns] for row in rows)


def cell_of(value: Any) -> Any:
    """Return the cell for a value: text that a spreadsheet would evaluate as a formula gets a quote in front."""
    if isinstance(value, str) and value.startswith(_ESCAPED):
        return f"'{value}"
    return f"{value:.4f}" if isinstance(value, float) else value


def text_of(cell: str) -> str:
    """Return the text that `cell_of` made a cell of."""
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(_ESCAPED) else cell
