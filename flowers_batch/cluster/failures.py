"""Failures of actors, and how often a shard is retried."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from flowers_batch.errors import FlowersError, RunError, first_line

# Deaths or stalls on one shard, or in a row while actors start. The last one ends the run, so a shard is retried one
# time less than this.
MAX_ACTOR_DEATHS = 5


@dataclass(frozen=True)
class ActorFailure:
    """Why an actor is lost.

    Attributes:
        cause: In a sentence.
        has_stalled: Whether it was killed because it made no progress.
        is_node_lost: Whether its node was preempted or died, which is no fault of its shards.
    """

    cause: str
    has_stalled: bool = False
    is_node_lost: bool = False


class FailureTracker:
    """Counts failures by shard, and ends the run when a shard has had too many.

    Args:
        max_deaths: Deaths or stalls on one shard, or in a row while actors start, of which the last ends the run.
    """

    def __init__(self, max_deaths: int = MAX_ACTOR_DEATHS):
        self._max_deaths = max_deaths
        # The nodes of actors that died or stalled, where known, by the shard's number; None stands for their start.
        self._nodes: defaultdict[int | None, list[str | None]] = defaultdict(list)

    def record(
        self, failure: ActorFailure, node: str | None, shards: Iterable[int | None], dead_nodes: set[str]
    ) -> None:
        """Count a lost actor against everything that it was working on, since what was to blame is unknown.

        Args:
            failure: Why it was lost.
            node: Where it ran, if that is known.
            shards: The numbers of its unfinished shards; None stands for its start.
            dead_nodes: All nodes that died so far. Ray may notice a node's death after that of its actors, so earlier
                failures are checked against them again.

        Raises:
            RunError: There were too many failures.
        """
        if failure.is_node_lost:
            return
        for number in shards:
            nodes = self._nodes[number]
            nodes.append(node)
            if sum(each not in dead_nodes for each in nodes) >= self._max_deaths:
                where = "while they started" if number is None else f"on shard {number}"
                raise RunError(
                    f"{self._max_deaths} actors died {where}. Cause of the last: {failure.cause} "
                    "Run the same command again to resume."
                )

    def actor_started(self) -> None:
        """Forget the actors that died while they started."""
        self._nodes.pop(None, None)


def failure_of(death: Exception) -> ActorFailure:
    """Return why an actor died.

    Args:
        death: The exception that Ray raised instead of giving the actor's answer.

    Raises:
        RunError: It could not be created, which a retry would not change.
    """
    from ray.exceptions import NodeDiedError, RayActorError

    if not isinstance(death, RayActorError):
        return ActorFailure(cause_of(death), is_node_lost=isinstance(death, NodeDiedError))
    if death.actor_init_failed:  # its node lacks something that the program needs
        last = str(death).strip().splitlines()[-1]
        raise RunError(f"An actor could not be created: {last}. Install the same packages on all nodes.") from death
    return ActorFailure(cause_of(death), is_node_lost=death.preempted)


def cause_of(death: Exception) -> str:
    """Return the cause of an actor's death in a sentence, which Ray gives at the end of a long text."""
    _, known, cause = str(death).partition("The actor is dead because ")
    return cause.partition(".")[0] + "." if known else first_line(death)


def error_raised_by(error: Any, what: str) -> Exception:
    """Return the exception that a living actor's program raised, ready to be raised in the driver.

    Args:
        error: A `RayTaskError`.
        what: What failed, such as `Shard 3`.

    Returns:
        The exception itself, if a user can fix it; else a `RunError` that reports a bug.
    """
    if isinstance(error.cause, FlowersError | OSError):
        return error.cause
    return RunError(f"{what} failed because of a bug: {error.cause!r}.")
