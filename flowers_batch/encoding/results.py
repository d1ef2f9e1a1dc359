"""What is kept of a photo besides what is known of it: the columns of its code, or of its pixels."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flowers_batch.dataset.schema import PIXELS_BYTES, codes_schema, pixels_schema
from flowers_batch.decoding.outputs import WebpThumbnail


class Results(Protocol):
    """Makes columns of what the network returns: `CodeResults`, `PixelResults`, or a `Labeller`.

    Attributes:
        schema: Of the rows, in which the photos' own columns come first.
    """

    @property
    def schema(self) -> pa.Schema: ...  # noqa: D102

    def columns(self, outputs: NDArray[Any], ok: NDArray[np.bool_]) -> dict[str, pa.Array]:
        """Return the columns besides the photos' own.

        Args:
            outputs: [photos with `ok`, width]: what the network returned, in the type that is stored. If no photo is
                ok, of any width and type.
            ok: bool [photos]: which were decoded; the rows of the others become nulls.
        """


class CodeResults:
    """Codes as they are.

    Args:
        width: Numbers in a code.
        code_dtype: Their type, float16 or float32.

    Attributes:
        schema: See `Results`.
    """

    def __init__(self, width: int, code_dtype: str):
        self.schema, self._code_dtype = codes_schema(width, code_dtype), code_dtype

    def columns(self, outputs: NDArray[Any], ok: NDArray[np.bool_]) -> dict[str, pa.Array]:
        """Return the column `code`: see `Results`."""
        kind = self.schema.field("code").type
        if ok.all():
            return {"code": pa.FixedSizeListArray.from_arrays(pa.array(outputs.ravel()), type=kind)}
        values = pa.array(_padded(outputs, ok, kind.list_size, self._code_dtype).ravel())
        return {"code": pa.FixedSizeListArray.from_arrays(values, type=kind, mask=pa.array(~ok))}


class PixelResults:
    """Pixels and, if there are any, thumbnails: what `ShrunkPhoto` has put into slots.

    Args:
        has_thumbnails: Whether there are.

    Attributes:
        schema: See `Results`.
    """

    def __init__(self, *, has_thumbnails: bool):
        self.schema = pixels_schema(has_thumbnails=has_thumbnails)

    def columns(self, outputs: NDArray[Any], ok: NDArray[np.bool_]) -> dict[str, pa.Array]:
        """Return the columns `pixels` and `thumbnail`: see `Results`."""
        pixels = np.ascontiguousarray(outputs[:, :PIXELS_BYTES])
        mask = None
        if not ok.all():
            pixels, mask = _padded(pixels, ok, PIXELS_BYTES, "uint8"), pa.array(ok).buffers()[1]
        kind = self.schema.field("pixels").type
        columns = {"pixels": pa.Array.from_buffers(kind, len(ok), [mask, pa.py_buffer(pixels)])}
        if "thumbnail" in self.schema.names:
            files = iter(outputs[:, PIXELS_BYTES:])
            thumbnails = [WebpThumbnail.read(next(files)) if decoded else None for decoded in ok]
            columns["thumbnail"] = pa.array(thumbnails, pa.binary())
        return columns


def _padded(outputs: NDArray[Any], ok: NDArray[np.bool_], width: int, dtype: str) -> NDArray[Any]:
    """Return one row per photo, [photos, width], with zeros for those that failed."""
    padded = np.zeros((len(ok), width), dtype)
    if len(outputs):
        padded[ok] = outputs
    return padded
