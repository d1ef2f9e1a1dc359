"""Whether rows of a shard are consistent: checked for each row group, as it is read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flowers_batch.dataset.schema import FAILED, OK

# The columns that have a value in each row that is ok. `reason` has one in each row that failed.
_OF_OK = (
    *("sha256", "phash", "code", "prediction", "probability", "top_labels", "top_probabilities", "is_unknown"),
    *("pixels", "thumbnail"),
)
_RESULTS = _OF_OK[2:]  # these have none in rows that failed
_ROUNDING = 1e-3
# Of each type: an integer of its size, the bits of a value without its sign, and those of infinity.
_BITS = {"float16": (np.uint16, 0x7FFF, 0x7C00), "float32": (np.uint32, 0x7FFFFFFF, 0x7F800000)}


def columns_to_read(columns: Sequence[str]) -> list[str]:
    """Return columns, and those that they are checked against."""
    needs_status = any(name in _OF_OK or name == "reason" for name in columns)
    return [*columns, *(["status"] if needs_status and "status" not in columns else [])]


def rows_problem(rows: pa.Table, count: int) -> str | None:
    """Return what is wrong with a row group's rows, as words; None if nothing is.

    Args:
        rows: Some of its columns: those of `columns_to_read`.
        count: How many rows its metadata claims.

    Raises:
        pa.ArrowInvalid: A text is not UTF-8, or an offset or a length is wrong.
    """
    if len(rows) != count:
        return f"a row group has {len(rows)} rows, and should have {count}"
    rows.validate(full=True)
    if "status" in rows.column_names:
        is_ok = pc.equal(rows["status"], OK)
        if not pc.all(pc.or_(is_ok, pc.equal(rows["status"], FAILED)), min_count=0).as_py():
            return f"a row's status is neither {OK} nor {FAILED}"
        for name in rows.column_names:
            if _contradicts(name, rows[name], is_ok):
                return f"a row's status and {name} contradict each other"
    return values_problem(rows)


def _contradicts(name: str, column: pa.ChunkedArray, is_ok: pa.ChunkedArray) -> bool:
    """Return whether a value is missing, or is there, against a row's status."""
    is_valid = pc.is_valid(column)
    if name == "reason":
        wrong = pc.equal(is_valid, is_ok)
    elif name in _RESULTS:
        wrong = pc.not_equal(is_valid, is_ok)
    elif name in _OF_OK:
        wrong = pc.and_not(is_ok, is_valid)
    else:
        return False
    return pc.any(wrong, min_count=0).as_py()


def values_problem(rows: pa.Table) -> str | None:
    """Return what is wrong with the values of codes and predictions, as words; None if nothing is."""
    names = rows.column_names
    if "code" in names and not all(map(_is_finite, rows["code"].chunks)):
        return "a code has a value that is not finite"
    if "probability" in names and not _are_probabilities(rows["probability"]):
        return "a probability is not between 0 and 1"
    for name in ("top_labels", "top_probabilities"):
        if name in names and not _are_filled(rows[name]):
            return f"a row has no {name}, or a null among them"
    if "top_probabilities" in names:
        if not _are_probabilities(pc.list_flatten(rows["top_probabilities"])):
            return "a probability is not between 0 and 1"
        if "top_labels" in names and not rows["top_labels"].combine_chunks().value_lengths().equals(
            rows["top_probabilities"].combine_chunks().value_lengths()
        ):
            return "a row has more labels than probabilities, or fewer"
    return None


def _is_finite(codes: pa.FixedSizeListArray) -> bool:
    """Return whether all values are finite: the bits of their exponents are not all 1 (IEEE 754)."""
    values = codes.flatten().to_numpy()
    bits, without_sign, infinity = _BITS[values.dtype.name]
    return not len(values) or (values.view(bits) & bits(without_sign)).max() < infinity


def _are_probabilities(values: pa.ChunkedArray) -> bool:
    return pc.all(pc.and_(pc.greater_equal(values, 0), pc.less_equal(values, 1 + _ROUNDING)), min_count=0).as_py()


def _are_filled(lists: pa.ChunkedArray) -> bool:
    return pc.min(pc.list_value_length(lists)).as_py() != 0 and not pc.list_flatten(lists).null_count
