"""A part of the manifest: a Parquet file whose row groups hold rows of one shard each."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from flowers_batch.dataset import formats_0_1
from flowers_batch.dataset.format_version import in_current_format
from flowers_batch.dataset.shard_file import read_metadata_json
from flowers_batch.errors import InputError, RunError
from flowers_batch.json_values import check_shape
from flowers_batch.sources.images import FIRST_TIME, IMAGES, LAST_TIME
from flowers_batch.sources.left_out import LEFT_OUT_SHAPE
from flowers_batch.storage.folder import Folder
from flowers_batch.storage.io_errors import raise_io_error
from flowers_batch.storage.parquet_files import open_parquet
from flowers_batch.storage.retries import with_retries

MANIFEST = "manifest"
ADD, CHANGE, MISSING, REMOVE = "add", "change", "missing", "remove"
PART_KEY = b"flowers_batch.manifest"  # version 0.1, which has another key, refuses parts of this one
MANIFEST_SCHEMA = pa.schema(
    [
        pa.field("shard", pa.int32(), nullable=False),
        *IMAGES,
        pa.field("attempt", pa.int32(), nullable=False),  # how often it was retried after it had failed
        pa.field("action", pa.string(), nullable=False),  # of its last generation: one of the four above
    ]
)
_ACTIONS = pa.array([ADD, CHANGE, MISSING, REMOVE])
_PART_SHAPE = {
    "runs": [str],
    "last": bool,
    "in_path_order": bool,
    "shards": [{"number": int, "images": int, "inputs_digest": str, "missing": int}],
    "source": str,
    "skipping?": {"include_hidden?": bool, "exclude?": [str]},
    "repeated": int,
    **LEFT_OUT_SHAPE,
}


def part_name(part: int) -> str:
    """Return the name of a part's file in a run's folder."""
    return f"{MANIFEST}/part-{part:06d}.parquet"


def parts_from(folder: Folder, part: int) -> list[str]:
    """Return the names of all parts with this number or a higher one, in their order."""
    names = (f"{MANIFEST}/{name}" for name in folder.names(MANIFEST) if name.startswith("part-"))
    return [name for name in names if name >= part_name(part)]


def delete_parts_from(folder: Folder, part: int) -> None:
    """Delete all parts with this number or a higher one."""
    for name in reversed(parts_from(folder, part)):  # the last first: a kill must leave no gap
        folder.delete(name)


def read_part(folder: Folder, part: int) -> dict[str, Any] | None:
    """Return what a part's metadata says; None if there is no such part.

    Raises:
        InputError: The part is damaged, or a newer version of flowers_batch wrote it.
        RunError: The disk or the store fails.
    """
    try:
        content = read_metadata_json(folder, part_name(part), PART_KEY, formats_0_1.PART_KEY)
        content = in_current_format(content, folder.url_of(part_name(part)), formats_0_1.upgrade_part)
        check_shape(content, _PART_SHAPE)
        if not content["runs"]:
            raise ValueError("no run wrote it")
        return content
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):  # parts are published atomically, so no killed run left it like this
        raise damaged_part(folder, part) from None


def read_row_group(folder: Folder, part: int, row_group: int) -> pa.Table:
    """Return a row group of a part: rows of one shard.

    Raises:
        InputError: The part is damaged.
        RunError: It no longer exists, or the disk or the store fails.
    """

    def read() -> pa.Table:
        with folder.open(part_name(part)) as file:
            parquet = open_parquet(file, page_checksum_verification=True)
            if not parquet.schema_arrow.equals(MANIFEST_SCHEMA) or row_group >= parquet.num_row_groups:
                raise damaged_part(folder, part)
            rows = parquet.read_row_group(row_group)
            rows.validate(full=True)  # such as that paths are UTF-8
            is_old = formats_0_1.PART_KEY in (parquet.metadata.metadata or {})
            return formats_0_1.upgrade_rows(rows) if is_old else rows

    try:
        rows = with_retries(read)
    except FileNotFoundError:  # it was there when the manifest was read
        raise RunError(
            f"{folder.url_of(part_name(part))} no longer exists: restore the folder, and run the same command again."
        ) from None
    except (OSError, pa.ArrowException) as error:
        raise_io_error(folder.url_of(part_name(part)), error)
        raise damaged_part(folder, part) from None
    if not _have_valid_values(rows):
        raise damaged_part(folder, part)
    return rows


def _have_valid_values(rows: pa.Table) -> bool:
    """Return whether there are rows, with values that a listing may give."""
    if not len(rows):
        return False
    required = [rows[field.name] for field in MANIFEST_SCHEMA if not field.nullable]
    times = pc.min_max(rows["mtime"].cast(pa.int64())).as_py()
    return (
        not any(column.null_count for column in required)
        and pc.min(rows["bytes"]).as_py() >= 0
        and FIRST_TIME <= times["min"] <= times["max"] <= LAST_TIME
        and pc.all(pc.is_in(rows["action"], _ACTIONS)).as_py()
    )


def damaged_part(folder: Folder, part: int) -> InputError:
    """Return the error for a part that is missing between others, or cannot be read."""
    return InputError(f"{folder.url_of(part_name(part))} is missing or damaged: restore it, or begin in a new folder.")
