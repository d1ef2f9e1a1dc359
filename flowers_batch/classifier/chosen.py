"""How photos were chosen to be labelled: the column `chosen` of labels files.

Photos that were labelled because they are typical, doubtful or alike are no fair sample of their archive. Only randomly
chosen ones tell how good a classifier is.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# An empty value is not recorded, and counts as a random choice: so labels did before there was the column.
GROUP, SUGGESTED, RANDOM, SEARCH, VIEW = CHOSEN = ("group", "suggested", "random", "search", "view")
NOT_RECORDED = ""
RANDOM_EVERY = 5  # of what is shown to be labelled, one in so many is a random photo (benchmarks/labelling.py)
MIN_RANDOM_PHOTOS = 20  # with fewer, the 95% interval of an accuracy is too wide for it to be worth a figure


def are_random(chosen: Collection[str]) -> NDArray[np.bool_]:
    """Return which photos count as randomly chosen, bool [N]."""
    import numpy as np  # not by the command's start, which needs the names above

    return np.array([way in (RANDOM, NOT_RECORDED) for way in chosen], bool)


def combined(before: str | None, now: str) -> str:
    """Return how a photo counts as chosen that is labelled once more.

    A photo of the random sample stays in it, whatever becomes of its label later: otherwise errors that are found and
    corrected would leave the sample, and the accuracy would seem higher than it is.

    Args:
        before: How it was chosen before; None: it had no label.
        now: How it is chosen now.
    """
    return next((way for way in (RANDOM, NOT_RECORDED) if way in (before, now)), now)


def random_needed(chosen: Collection[str]) -> int:
    """Return how many more photos must be chosen at random until an accuracy is told.

    Args:
        chosen: How each labelled photo was chosen. If no choice is recorded, no more are needed.
    """
    is_recorded = any(way != NOT_RECORDED for way in chosen)
    return max(0, MIN_RANDOM_PHOTOS - int(are_random(chosen).sum())) if is_recorded else 0
