"""Whether the rows of a run of codes or predictions fit in memory."""

from __future__ import annotations

from flowers_batch.classifier.labelled_codes import available_memory
from flowers_batch.dataset.run_folder import Run
from flowers_batch.dataset.schema import CODES
from flowers_batch.errors import InputError

# Of a row besides its texts: 22 bytes that are held (class, probability and margin of the prediction, whether it is ok,
# the label that it was trained on and whether it was held out, the offset of its path), 12 of the predictions of a new
# classifier, and 30 while a view is sorted.
_ROW_BYTES = 64
# Of a row while near-duplicates are found: 32 of its digest, hash and number, and 65 while these are compared.
_DUPLICATES_BYTES = 100
_TEXT_COLUMNS = ("path", "reason", "message")
_SHARDS_MEASURED = 32


def check_memory(run: Run) -> None:
    """Check that the rows of a run fit in half of the available memory, before they are read.

    Raises:
        InputError: They do not.
    """
    rows, needed = estimate_rows(run)
    usable = available_memory() // 2
    if needed > usable:
        command = "encode" if run.job.kind == CODES else "predict"
        raise InputError(
            f"{run.folder.url} has about {rows:,} photos, whose rows take {_megabytes(needed)} of memory, but half of "
            f"what is available is {_megabytes(usable)}: {command} a part of the photos into a folder of its own and "
            "review that, or have the photos that are most worth a label listed by `flowers-batch suggest "
            f"{run.folder.url} --count 1000 --out labels.csv`."
        )


def check_memory_for_duplicates(run: Run) -> None:
    """Check that near-duplicates can be found in the available memory.

    Raises:
        InputError: They cannot.
    """
    needed, usable = _DUPLICATES_BYTES * run.manifest.images, available_memory()
    if needed > usable:
        raise InputError(
            f"Near-duplicates among {run.manifest.images:,} photos take {_megabytes(needed)} of memory to find, and "
            f"{_megabytes(usable)} are available: run `flowers-batch duplicates` on a machine with more."
        )


def estimate_rows(run: Run) -> tuple[int, int]:
    """Return about how many rows a run has, and how many bytes of memory they take.

    Both are estimated from the footers of some shards.
    """
    rows = text_bytes = 0
    measured = sorted({number * run.shards // _SHARDS_MEASURED for number in range(_SHARDS_MEASURED)})
    for shard in measured:
        with run.open_shard(shard) as file:
            metadata = file.metadata
            texts = [
                number for number in range(metadata.num_columns) if file.schema.column(number).path in _TEXT_COLUMNS
            ]
        rows += metadata.num_rows
        groups = map(metadata.row_group, range(metadata.num_row_groups))
        text_bytes += sum(group.column(number).total_uncompressed_size for group in groups for number in texts)
    return rows * run.shards // len(measured), (rows * _ROW_BYTES + text_bytes) * run.shards // len(measured)


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
