"""What actors tell the driver: that they are ready, how far they are, what became of a shard."""

from __future__ import annotations

from dataclasses import dataclass, field

from flowers_batch.dataset.shard_file import Footer
from flowers_batch.fingerprint import Fingerprint


@dataclass(frozen=True)
class ActorInfo:
    """What an actor says when it is ready: what its rows depend on, and where it runs."""

    fingerprint: Fingerprint
    host: str
    gpus: tuple[str, ...]


@dataclass(frozen=True)
class Heartbeat:
    """How far an actor is; as long as it gets on, its next answer is another.

    Attributes:
        node: Where it runs, as Ray names the node.
        step: Grows with all that it gets done: a batch, an image that is inspected, a file that is written.
        rows: The shards that it is at: rows so far, and how many of them failed.
    """

    node: str
    step: int = 0
    rows: dict[int, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class ShardResult:
    """A finished shard: its footer as written, the seconds that each stage took, and how many rows were kept.

    Seconds of `read` and `decode` are those of all the actor's threads together.
    """

    footer: Footer
    stages: dict[str, float]
    carried: int = 0
