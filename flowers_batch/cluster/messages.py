"""Messages between the driver and its actors: what to do, readiness, progress, results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from flowers_batch.dataset.shard_file import Footer
from flowers_batch.encoding.worker import Worker
from flowers_batch.fingerprint import Fingerprint


class Factory(Protocol):
    """Makes a worker inside an actor: `factories.EncoderFactory` or `factories.LabellerFactory`."""

    @property
    def wants_gpu(self) -> bool:
        """Whether its workers compute on a GPU where the cluster has one."""

    def __call__(self, threads: int, gpu: bool, progress: Callable[[], None]) -> Worker:
        """Make a worker.

        Args:
            threads: How many threads it may use.
            gpu: Whether it must use a GPU.
            progress: Called with each step of making it, which may take minutes.
        """

    def with_precision(self, precision: str) -> Factory:
        """Return the same factory with the precision that its workers compute in."""


@dataclass(frozen=True)
class ShardJob:
    """What all actors of a run need to know.

    Attributes:
        factory: Makes the workers.
        url: The run's folder.
        kind: `CODES` or `PREDICTIONS`.
    """

    factory: Factory
    url: str
    kind: str

    def with_precision(self, precision: str) -> ShardJob:
        """Return the same job in a given precision."""
        return replace(self, factory=self.factory.with_precision(precision))


@dataclass(frozen=True)
class ActorInfo:
    """The answer of an actor that is ready.

    Attributes:
        fingerprint: What its rows depend on.
        host: The name of the machine that it runs on.
        gpus: Its GPUs, as Ray numbers them.
    """

    fingerprint: Fingerprint
    host: str
    gpus: tuple[str, ...]


@dataclass(frozen=True)
class Heartbeat:
    """An actor's progress: two equal heartbeats in a row mean that it made none.

    Attributes:
        node: The node that it runs on, as Ray names it.
        step: Grows with everything it completes: an image, a batch, a file.
        rows: Of each of its shards in flight, by number: the rows so far, and how many of these failed.
    """

    node: str
    step: int = 0
    rows: dict[int, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class ShardResult:
    """A finished shard.

    Attributes:
        footer: As written to its file.
        stages: Seconds by stage; those of `read` and `decode` are summed over the actor's threads.
        reused: How many rows were copied from the shard's previous file.
    """

    footer: Footer
    stages: dict[str, float]
    reused: int = 0


@dataclass
class PoolResult:
    """The result of working on shards.

    Attributes:
        footers: By the shard's number.
        stages: Seconds by stage, over all actors, as in `ShardResult`.
        seconds: From the first dispatch of a shard to the last result.
        actors: Host and GPUs of each actor that started.
        mean_actors: The mean number of actors over these seconds.
        deaths: How many actors died.
        stalls: How many actors were killed because they made no progress.
        reused: Rows that were copied from shards' previous files.
    """

    footers: dict[int, Footer] = field(default_factory=dict)
    stages: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    actors: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    mean_actors: float = 0.0
    deaths: int = 0
    stalls: int = 0
    reused: int = 0
