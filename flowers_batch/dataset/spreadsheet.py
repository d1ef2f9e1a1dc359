"""CSV files that spreadsheets open safely: no cell is taken for a formula."""

from __future__ import annotations

import csv
from typing import Any

from flowers_batch.dataset.run_folder import Run
from flowers_batch.storage.folder import PathOrUrl, split_file

_CSV_COLUMNS = ("path", "prediction", "probability", "is_unknown", "status", "reason", "message")
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")  # what a spreadsheet takes for the beginning of a formula
_ESCAPED = (*_FORMULA, *(f"'{sign}" for sign in ("'", *_FORMULA)))  # and what looks as if it were one already


def write_csv(run: Run, path: PathOrUrl) -> None:
    """Writes predictions for a spreadsheet: UTF-8 with a mark that says so, and no name taken for a formula."""
    folder, name = split_file(path)
    with (
        folder.publish(name) as scratch,
        open(scratch, "w", encoding="utf-8-sig", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(_CSV_COLUMNS)
        for batch in run.batches(_CSV_COLUMNS):
            for row in batch.to_pylist():
                writer.writerow(map(cell_of, row.values()))


def cell_of(value: Any) -> Any:
    """What stands for a value in a CSV file: a quote goes before text that a spreadsheet would take for a formula."""
    if isinstance(value, str) and value.startswith(_ESCAPED):
        return f"'{value}"
    return f"{value:.4f}" if isinstance(value, float) else value


def text_of(cell: str) -> str:
    """The text that a cell stands for."""
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(_ESCAPED) else cell
