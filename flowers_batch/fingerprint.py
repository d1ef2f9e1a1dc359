"""The fingerprint that ties codes, classifier and predictions together."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from typing import Any

from flowers_batch.errors import InputError

CODES_SCHEMA = 1  # raised when the columns of a shard change
PREPROCESSING = 2  # raised when decode.py gives other pixels for the same photo


@dataclass(frozen=True)
class Fingerprint:
    """All that codes depend on, besides the photos; with `head` and `top_k`, all that predictions do.

    Two shards with equal fingerprints may stand side by side; others never may.

    Attributes:
        network, layer: Names in `tensorflow_vgg.network`.
        pool: How a layer that is a map became a row; None for one that is a row.
        weights: SHA-256 of the used layers' arrays, or a name where there are none.
        precision: What the network computes in, `float32` or `bfloat16`.
        store: The code's type on disk.
        preprocessing, schema: Versions of this package's pixels and columns.
        head: Identity of the classifier (`heads.Head.identity`); None for codes.
        top_k: How many labels each prediction keeps; None for codes.
    """

    network: str
    layer: str
    weights: str
    precision: str
    store: str
    pool: str | None = None
    preprocessing: int = PREPROCESSING
    schema: int = CODES_SCHEMA
    head: str | None = None
    top_k: int | None = None

    @property
    def encoding(self) -> dict[str, Any]:
        """The settings of `EncodeConfig` that make codes of this kind, but for where the weights lie."""
        return {name: getattr(self, name) for name in ("network", "layer", "pool", "precision", "store")}

    @property
    def digest(self) -> str:
        """SHA-256 of the fields, in hexadecimal: what a shard's footer carries."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def differences(self, other: Fingerprint) -> str:
        """What differs, as words: `precision (float32, not bfloat16)`; empty where nothing does."""
        mine, theirs = asdict(self), asdict(other)
        return ", ".join(
            f"{name} ({_short(mine[name])}, not {_short(theirs[name])})" for name in mine if mine[name] != theirs[name]
        )

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Fingerprint:
        """Reads what `dataclasses.asdict` gave, and refuses what another version of this package wrote."""
        if not isinstance(value, dict) or set(value) != {field.name for field in fields(cls)}:
            raise InputError("The fingerprint is not one of this version of flowers_batch: encode into a new folder.")
        return cls(**value)


def _short(value: Any) -> str:
    return value[:12] if isinstance(value, str) and len(value) == 64 else str(value)
