"""The columns of a shard."""

from __future__ import annotations

import posixpath
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from flowers_batch.decoding.pixels import SIDE
from flowers_batch.storage.folder import NOT_UTF8

# What a folder holds, and the name of the folder in it; and the command that makes it.
CODES, PREDICTIONS, PIXELS = "codes", "predictions", "pixels"
COMMANDS = {CODES: "encode", PREDICTIONS: "predict", PIXELS: "shrink"}
PIXELS_BYTES = SIDE * SIDE * 3  # of a photo
OK, FAILED = "ok", "failed"

_IMAGE_FIELDS = [
    pa.field("path", pa.string(), nullable=False),
    pa.field("folder", pa.string()),
    pa.field("sha256", pa.binary(32)),
    pa.field("phash", pa.uint64()),
    pa.field("bytes", pa.int64()),
    pa.field("width", pa.int32()),
    pa.field("height", pa.int32()),
    pa.field("status", pa.string(), nullable=False),
    pa.field("reason", pa.string()),
    pa.field("message", pa.string()),
]
_PARENT = "(?:^|/)(?P<name>[^/]+)/+[^/]*$"  # the last folder in a path
_NO_NAMES = pa.array([".", ".."])
IMAGE_COLUMNS = [column.name for column in _IMAGE_FIELDS]


def folder_of(path: str, source: str | None = None) -> str | None:
    """Return the name of an image's folder, its column `folder`; None directly in the root.

    Args:
        path: The image's key.
        source: The tar that contains the image, if any: its own folder is not the image's.
    """
    inner = path.removeprefix(NOT_UTF8)
    for tar in (f"{source}!", quote(f"{source}!")):
        inner = inner.removeprefix(tar)
    name = posixpath.basename(posixpath.dirname(inner))
    return name if name not in ("", ".", "..") else None


def folders_of(rows: pa.Table | pa.RecordBatch) -> pa.Array:
    """Return `folder_of` of images, from their columns `path` and `source`: string [images]."""
    if rows["source"].null_count < len(rows):
        pairs = zip(rows["path"].to_pylist(), rows["source"].to_pylist(), strict=True)
        return pa.array([folder_of(path, source) for path, source in pairs], pa.string())
    inner = pc.replace_substring_regex(rows["path"], f"^{NOT_UTF8}", "")
    names = pc.struct_field(pc.extract_regex(inner, _PARENT), 0)
    return pc.if_else(pc.is_in(names, _NO_NAMES), pa.scalar(None, pa.string()), names)


def codes_schema(width: int, code_dtype: str) -> pa.Schema:
    """Return the columns of a shard of codes: `code` is fixed_size_list<code_dtype>[width], null where failed."""
    item = pa.field("element", {"float16": pa.float16(), "float32": pa.float32()}[code_dtype], nullable=False)
    return pa.schema([*_IMAGE_FIELDS, pa.field("code", pa.list_(item, width))])


def predictions_schema() -> pa.Schema:
    """Return the columns of a shard of predictions; all but the image's own are null where failed."""
    return pa.schema(
        [
            *_IMAGE_FIELDS,
            pa.field("prediction", pa.string()),
            pa.field("probability", pa.float32()),
            pa.field("top_labels", pa.list_(pa.string())),
            pa.field("top_probabilities", pa.list_(pa.float32())),
            pa.field("is_unknown", pa.bool_()),
        ]
    )


def pixels_schema(*, has_thumbnails: bool) -> pa.Schema:
    """Return the columns of a shard of pixels; all but the image's own are null where failed.

    `pixels` are uint8 [224, 224, 3], RGB, of the upright photo's centre square; `thumbnail` is a WebP file.
    """
    thumbnail = [pa.field("thumbnail", pa.binary())] if has_thumbnails else []
    return pa.schema([*_IMAGE_FIELDS, pa.field("pixels", pa.binary(PIXELS_BYTES)), *thumbnail])


def codes_of(batch: pa.RecordBatch) -> tuple[NDArray[np.floating], NDArray[np.bool_]]:
    """Return the codes [ok rows, width] of a batch, and which rows are ok: bool [rows]."""
    column = batch["code"].drop_null()
    ok = batch["code"].is_valid().to_numpy(zero_copy_only=False)
    return column.flatten().to_numpy().reshape(len(column), column.type.list_size), ok
