"""A shard as the driver and the actors know it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Shard:
    """A shard as the driver and the actors know it; its images' names stay in the manifest.

    Attributes:
        number: From 0, and the shard's for life.
        images: How many images it holds.
        inputs_digest: SHA-256 of its manifest rows.
        missing: How many of its images the last listing did not find.
        locations: Part and row group of its rows, in the order of their generations.
    """

    number: int
    images: int
    inputs_digest: str
    missing: int = 0
    locations: tuple[tuple[int, int], ...] = ()


def shard_to_json(shard: Shard) -> dict[str, Any]:
    """Return the JSON for a shard in a part's metadata; its location is that of its row group."""
    return {
        "number": shard.number,
        "images": shard.images,
        "inputs_digest": shard.inputs_digest,
        "missing": shard.missing,
    }


def shard_from_json(value: dict[str, Any]) -> Shard:
    """Read what `shard_to_json` returned; unknown fields are ignored."""
    return Shard(value["number"], value["images"], value["inputs_digest"], value["missing"])
