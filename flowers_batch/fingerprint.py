"""The fingerprint that ties codes, classifier and predictions together."""

from __future__ import annotations

import hashlib
import json
from dataclasses import MISSING, asdict, dataclass, fields, replace
from typing import Any

from flowers_batch.errors import InputError
from flowers_batch.json_values import check_shape

_ENCODING = ("network", "layer", "pool", "precision", "code_dtype", "decode", "uint8_pixels")
CODES_SCHEMA = 1  # raised when the columns of a shard change
PREPROCESSING = 2  # raised when decoding gives other pixels for the same photo
NO_NETWORK, _INPUT, _PIXELS_DTYPE = "none", "input", "uint8"  # of pixels that are kept before any network

# The names under which version 0.1 hashed these fields. They never change, whatever the attributes are called; a field
# that was added later is hashed under its own name, and only if it is not at its default.
_DIGEST_NAMES = {
    "network": "network",
    "layer": "layer",
    "weights": "weights",
    "precision": "precision",
    "code_dtype": "store",
    "pool": "pool",
    "preprocessing": "preprocessing",
    "schema": "schema",
    "head": "head",
    "top_k": "top_k",
}


_SHAPE = {
    "network": str,
    "layer": str,
    "weights": str,
    "precision": ("float32", "bfloat16"),
    "code_dtype": ("float16", "float32", "uint8"),
    "decode?": ("exact", "fast"),
    "pool?": ("avg", "max", "flatten", None),
    "preprocessing?": int,
    "schema?": int,
    "head?": (str, None),
    "top_k?": (int, None),
    "uint8_pixels?": bool,
    "thumbnail_edge?": (int, None),
}


@dataclass(frozen=True)
class Fingerprint:
    """Everything that codes depend on, besides the photos; with `head` and `top_k`, everything that predictions do.

    Rows of two shards may be mixed only if their fingerprints are equal.

    Attributes:
        network, layer: Names in `tensorflow_vgg.network`.
        pool: How a layer whose output is a map is reduced to a row; None for a layer whose output is a row.
        weights: SHA-256 of the used layers' arrays, or a name if the network has no weights.
        precision: What the network computes in, `float32` or `bfloat16`.
        code_dtype: The code's type on disk, `float16` or `float32`.
        preprocessing, schema: Versions of this package's pixels and columns.
        head: Identity of the classifier (`Head.identity`); None for codes.
        top_k: How many labels each prediction keeps; None for codes.
        decode: How photos are decoded: `exact`, as all versions before 0.2 did, or `fast`.
        uint8_pixels: Whether a network that computes in float32 got pixels rounded to bytes, as one that computes in
            bfloat16 always does.
        thumbnail_edge: Of pixels that were kept with thumbnails: the longer edge of these.
    """

    network: str
    layer: str
    weights: str
    precision: str
    code_dtype: str
    pool: str | None = None
    preprocessing: int = PREPROCESSING
    schema: int = CODES_SCHEMA
    head: str | None = None
    top_k: int | None = None
    decode: str = "exact"
    uint8_pixels: bool = False
    thumbnail_edge: int | None = None

    @property
    def is_of_pixels(self) -> bool:
        """Whether it is of the pixels themselves, which no network has seen: what `pixels_fingerprint` returns."""
        return self.code_dtype == _PIXELS_DTYPE

    @property
    def encoding(self) -> dict[str, Any]:
        """The settings of `EncodeConfig` that make codes of this kind, except where the weights are."""
        return {name: getattr(self, name) for name in _ENCODING}

    def with_precision(self, precision: str) -> Fingerprint:
        """Return the fingerprint of what is computed in a precision that was not known before."""
        return replace(self, precision=precision, uint8_pixels=self.uint8_pixels and precision != "bfloat16")

    @property
    def digest(self) -> str:
        """SHA-256 of the fields, in hexadecimal: what a shard's footer carries."""
        named = {_DIGEST_NAMES.get(name, name): value for name, value in self.to_json().items()}
        return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()

    def differences(self, other: Fingerprint) -> str:
        """Return what differs, such as `precision (float32, not bfloat16)`; empty if nothing does."""
        mine, theirs = asdict(self), asdict(other)
        return ", ".join(
            f"{name} ({_short(mine[name])}, not {_short(theirs[name])})" for name in mine if mine[name] != theirs[name]
        )

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON; those that version 0.1 did not have only if they are not at their default."""
        return {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if field.name in _DIGEST_NAMES or getattr(self, field.name) != field.default
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Fingerprint:
        """Read what `to_json` returned.

        Raises:
            InputError: A field is missing, or is unknown: then the rows depend on something that this version ignores.
            TypeError: A field is of another type.
        """
        if not isinstance(value, dict):
            raise InputError("The fingerprint is not a JSON object: encode into a new folder.")
        known = {field.name: field.default is MISSING for field in fields(cls)}
        unknown, missing = sorted(value.keys() - known), [name for name in known if known[name] and name not in value]
        if unknown:
            raise InputError(
                f"The fingerprint depends on {', '.join(unknown)}, which this version of flowers_batch does not know: "
                "install a newer version, or encode into a new folder."
            )
        if missing:
            raise InputError(
                f"The fingerprint lacks {', '.join(missing)}: restore the file, or encode into a new folder."
            )
        check_shape(value, _SHAPE, "the fingerprint")
        return cls(**value)


def pixels_fingerprint(decode: str, thumbnail_edge: int | None = None) -> Fingerprint:
    """Return the fingerprint of pixels that are kept for any network: what its input layer would give.

    Args:
        decode: How photos are decoded, `exact` or `fast`.
        thumbnail_edge: The longer edge of the thumbnails beside them; None without any.
    """
    return Fingerprint(
        NO_NETWORK, _INPUT, NO_NETWORK, "float32", _PIXELS_DTYPE, decode=decode, thumbnail_edge=thumbnail_edge
    )


def _short(value: Any) -> str:
    return value[:12] if isinstance(value, str) and len(value) == 64 else str(value)
