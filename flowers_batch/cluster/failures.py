"""What ended an actor or a shard, in words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from flowers_batch.encoding.worker import Quarantined
from flowers_batch.errors import FlowersError, RunError, first_line


@dataclass
class _Trouble:
    """What befell a shard.

    Attributes:
        nodes: Where the actors ran that died on it; None where that is not known.
        suspect: Whether its images are to be inspected, unless they were.
        condemned: Images that are to blame; None until they were inspected.
    """

    nodes: list[str | None] = field(default_factory=list)
    suspect: bool = False
    quarantined: Quarantined | None = None


def _cause_of(error: Any, what: str) -> Exception:
    """What a live actor raised, as it is to be told."""
    if isinstance(error.cause, FlowersError | OSError):
        return error.cause
    return RunError(f"{what} failed by a fault of the program: {error.cause!r}.")


def _cause(death: Exception) -> str:
    """What Ray says that an actor died of, as the end of a sentence."""
    _, known, cause = str(death).partition("The actor is dead because ")
    return cause.partition(".")[0] + "." if known else first_line(death)
