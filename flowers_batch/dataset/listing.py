"""How the images of a manifest were listed last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flowers_batch.errors import InputError
from flowers_batch.sources.images import SUFFIXES
from flowers_batch.sources.left_out import LeftOut, left_out_from_json
from flowers_batch.sources.left_out_text import describe_left_out
from flowers_batch.sources.skipping import Skipping, skipping_from_json
from flowers_batch.sources.source import Source


@dataclass(frozen=True)
class Listing:
    """How the images of a manifest were listed last.

    Attributes:
        source: Where, for people.
        skipping: Which names were left out.
        left_out: What was left out.
        repeated: Entries that repeat an image, which is one row.
    """

    source: str
    skipping: Skipping
    left_out: LeftOut = field(default_factory=LeftOut)
    repeated: int = 0

    def would_find_the_same(self, source: Source) -> bool:
        """Return whether a source lists the same place by the same rules, so that only the archive may differ."""
        return (self.source, self.skipping) == (_describe(source), source.skipping)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {"source": self.source, "skipping": self.skipping.to_json()} | self.counts_to_json()

    def counts_to_json(self) -> dict[str, Any]:
        """Return what was left out, and the repeats, as JSON."""
        return {"repeated": self.repeated} | self.left_out.to_json()


def listing_of(source: Source) -> Listing:
    """Return how a source lists its images; the counts are those of its last listing."""
    return Listing(_describe(source), source.skipping, source.left_out, source.repeated)


def listing_from_json(values: Mapping[str, Any]) -> Listing:
    """Read what `Listing.to_json` returned, or what version 0.1 wrote."""
    skipping = skipping_from_json(values.get("skipping", {}))
    return Listing(values["source"], skipping, left_out_from_json(values), values["repeated"])


def no_images(source: Source) -> InputError:
    """Return the error for a source in which no image was found, which says what was found instead."""
    found = describe_left_out(source.left_out.to_json())
    left_out = "; ".join(f"{words}: {text}" for words, text in found.items()) or "it is empty"
    advice = ", or change `include_hidden` and `exclude`" if source.left_out.skipped else ""
    if source.left_out.ignored:
        advice += f"; names of images end in {', '.join(SUFFIXES)}"
    return InputError(f"There are no images in {source.url} ({left_out}): name another source{advice}.")


def _describe(source: Source) -> str:
    return source.url if source.root is None else f"{source.url}, below {source.root}"
