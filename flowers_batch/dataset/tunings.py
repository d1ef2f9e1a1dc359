"""What a network was fine-tuned on, as a codes folder's `job.json` has it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from flowers_batch.json_values import check_shape

# Of each fine-tuning, in their order: `images` (where the photos are), `photos` (how many it trained and validated
# on) and `sha256` (see `tuning_on`).
Tunings = tuple[dict[str, Any], ...]
UNKNOWN_TUNING: dict[str, Any] = {}  # by version 0.1, which did not record the photos


def tuning_on(images: str, digests: Sequence[bytes]) -> dict[str, Any]:
    """Describe a fine-tuning by its labelled photos.

    Args:
        images: Where they are.
        digests: SHA-256 of each photo that was trained or validated on.

    Returns:
        `images`, `photos` and `sha256`: of the sorted digests, one after the other.
    """
    identity = hashlib.sha256(b"".join(sorted(digests))).hexdigest()
    return {"images": images, "photos": len(digests), "sha256": identity}


def validated_tunings(value: Any) -> Tunings:
    """Return tunings that were read from JSON.

    Raises:
        TypeError: They are not a list of such objects.
    """
    check_shape(value, [{"images?": str, "photos?": int, "sha256?": str}], "`tuned_on`")
    return tuple(value)
