"""The only room with Ray: actors that work on shards, handed out as they finish, and again when an actor dies."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from flowers_batch.config import ClusterConfig, Fingerprint, FlowersError, InputError, RunError
from flowers_batch.dataset import Footer, write_shard
from flowers_batch.encoder import Worker
from flowers_batch.shards import Shard, read_rows
from flowers_batch.storage import open_folder

_SHARDS_AN_ACTOR = 2  # one at work and one waiting, so that an actor never waits for the driver
_POLL_SECONDS = 1.0
_WAIT_SECONDS = 60.0  # an actor that waits this long for resources is worth a word
_MAX_DEATHS = 5  # of actors, on one shard or while starting: beyond this it is no accident
_OBJECT_STORE_BYTES = 100 << 20  # pixels and codes never travel through it


class Factory(Protocol):
    """Makes a worker inside an actor: `encoder.EncoderFactory` or `encoder.LabellerFactory`."""

    @property
    def wants_gpu(self) -> bool:
        """Whether what it makes computes on a GPU where the cluster has one."""

    def __call__(self, threads: int, gpu: bool) -> Worker:
        """Makes a worker that uses so many threads, and a GPU or none."""

    def with_precision(self, precision: str) -> Factory:
        """The same factory, told what to compute in."""


@dataclass(frozen=True)
class Resources:
    """What an actor asks its cluster for.

    Attributes:
        gpus: 1 or 0.
        cpus: Cores.
        node: The node that it must run on; None lets Ray choose.
    """

    gpus: int
    cpus: int
    node: str | None = None


@dataclass(frozen=True)
class Started:
    """What an actor says when it is ready: what its rows depend on, and where it runs."""

    fingerprint: Fingerprint
    host: str
    gpus: tuple[str, ...]


@dataclass(frozen=True)
class Done:
    """A finished shard: its footer as written, and the seconds that each stage took."""

    footer: Footer
    stages: dict[str, float]


@dataclass
class Outcome:
    """What a run of shards gave.

    Attributes:
        footers: By the shard's number.
        stages: Seconds by stage, over all actors.
        seconds: From the first actor that was ready to the last shard.
        actors: Where they ran: host, and GPUs as Ray numbers them.
        deaths: Actors that died.
    """

    footers: dict[int, Footer] = field(default_factory=dict)
    stages: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    actors: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    deaths: int = 0


class Watcher(Protocol):
    """Who is told how a run goes: `progress.Progress`."""

    def update(self, done: int, failed: int) -> None:
        """So many images are done by now, so many of them failed."""

    def say(self, sentence: str) -> None:
        """Something that a person should know now."""


class ShardActor:
    """What runs in a Ray actor: a worker, and the folder that its shards are written to. Knows no Ray itself."""

    def __init__(self, factory: Factory, url: str, kind: str, threads: int, gpus: tuple[str, ...]):
        self._factory, self._threads, self._gpus = factory, threads, gpus
        self._folder, self._kind = open_folder(url), kind
        self._current: tuple[int, int, int] | None = None

    def start(self) -> Started:
        """Makes the worker, which may take a while, and tells what its rows will depend on."""
        self._worker = self._factory(self._threads, bool(self._gpus))
        return Started(self._worker.fingerprint, socket.gethostname(), self._gpus)

    def run(self, shard: Shard) -> Done:
        """Works on a shard and publishes it."""
        stages: dict[str, float] = {}
        rows = read_rows(self._folder, shard)
        expected = Footer(self._worker.fingerprint.digest, shard.number, shard.inputs, 0, 0)
        batches = self._counted(shard.number, self._worker.batches(shard.number, rows, stages))
        table = list(batches)
        if sum(map(len, table)) != shard.images:
            raise RunError(f"Shard {shard.number} has {shard.images} images, and {sum(map(len, table))} rows came out.")
        begun = time.perf_counter()
        footer = write_shard(self._folder, self._kind, self._worker.schema, table, expected)
        stages["write"] = time.perf_counter() - begun
        return Done(footer, stages)

    def _counted(self, shard: int, batches: Iterator[Any]) -> Iterator[Any]:
        done = failed = 0
        self._current = (shard, 0, 0)
        for batch in batches:
            done += len(batch)
            failed += len(batch) - batch["reason"].null_count
            self._current = (shard, done, failed)
            yield batch

    def progress(self) -> tuple[int, int, int] | None:
        """The shard at work, its rows so far, and how many of them failed; called while `run` runs."""
        return self._current


def run_shards(
    factory: Factory,
    url: str,
    kind: str,
    shards: list[Shard],
    cluster: ClusterConfig,
    agree: Callable[[Fingerprint], None],
    watcher: Watcher,
) -> Outcome:
    """Has a cluster's actors work on shards until all are done.

    Args:
        factory: Makes what runs in the actors.
        url: The run's folder.
        kind: `CODES` or `PREDICTIONS`.
        shards: What is to be done.
        cluster: Which cluster, and how many actors.
        agree: Called once, with the first actor's fingerprint, before any shard is worked on; raises to refuse.
        watcher: Is told how it goes.

    Raises:
        FlowersError: As an actor raised it, or a shard outlived its actors too often.
    """
    with _connected(cluster):
        import ray

        plan = plan_actors([node for node in ray.nodes() if node["Alive"]], cluster.actors, factory.wants_gpu)
        pool = _Pool(factory, url, kind, shards, agree, watcher)
        try:
            for resources in plan[: len(shards)]:
                pool.add_actor(resources)
            return pool.run()
        finally:
            pool.kill_actors()


def plan_actors(nodes: list[dict[str, Any]], wanted: int | None, gpu: bool) -> list[Resources]:
    """Decides by the cluster's resources what actors ask for.

    Args:
        nodes: The cluster's nodes, as `ray.nodes()` tells them.
        wanted: How many actors; None takes one a GPU, or one a node where there are no GPUs.
        gpu: Whether GPUs are of use.

    Raises:
        InputError: The cluster has nothing to run an actor on.
    """
    gpus = int(sum(node["Resources"].get("GPU", 0) for node in nodes)) if gpu else 0
    if gpus:
        return [Resources(1, 1)] * (wanted or gpus)
    cores = {node["NodeID"]: int(node["Resources"].get("CPU", 0)) for node in nodes}
    if not any(cores.values()):
        raise InputError("The Ray cluster has neither a GPU nor a CPU to run on: add a node to it.")
    if wanted is None:
        return [Resources(0, count, node) for node, count in cores.items() if count]
    return [Resources(0, max(1, sum(cores.values()) // wanted))] * wanted


class _Pool:
    """The actors of one run, and the shards that are out with them."""

    def __init__(
        self,
        factory: Factory,
        url: str,
        kind: str,
        shards: list[Shard],
        agree: Callable[[Fingerprint], None],
        watcher: Watcher,
    ):
        self._factory, self._url, self._kind = factory, url, kind
        self._agree, self._watcher = agree, watcher
        self._waiting = deque(shards)
        self._starting: dict[Any, tuple[Any, Resources]] = {}  # by the object that `start` will give
        self._working: dict[Any, tuple[Any, Shard]] = {}  # by the object that `run` will give, oldest first
        self._actors: dict[Any, Resources] = {}
        self._polls: dict[Any, Any] = {}
        self._current: dict[Any, tuple[int, int, int]] = {}
        self._deaths: dict[int | None, int] = {}  # by shard; None: while starting
        self._fingerprint: Fingerprint | None = None
        self._outcome = Outcome()

    def add_actor(self, resources: Resources) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        options: dict[str, Any] = {
            "num_gpus": resources.gpus,
            "num_cpus": resources.cpus,
            "runtime_env": {"env_vars": _actor_environment(resources)},
        }
        if resources.node:
            options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(resources.node, soft=True)
        # `progress` has a thread of its own: it is answered while a shard is worked on.
        wrap: Any = ray.remote(concurrency_groups={"progress": 1})  # type: ignore[call-overload]
        remote = wrap(_RemoteShardActor).options(**options)
        actor = remote.remote(self._factory, self._url, self._kind, resources.cpus)
        self._actors[actor] = resources
        self._starting[actor.start.remote()] = (actor, resources)

    def kill_actors(self) -> None:
        import ray

        for actor in self._actors:
            with contextlib.suppress(Exception):
                ray.kill(actor)

    def run(self) -> Outcome:
        import ray

        asked = time.monotonic()
        begun: float | None = None
        while self._waiting or self._working:
            ready, _ = ray.wait([*self._starting, *self._working], num_returns=1, timeout=_POLL_SECONDS)
            for reference in ready:
                if reference in self._starting:
                    self._on_started(reference)
                elif reference in self._working:
                    self._on_finished(reference)
            if begun is None and self._fingerprint:
                begun = time.monotonic()
            if begun is None and time.monotonic() - asked > _WAIT_SECONDS:
                asked = time.monotonic()
                self._say_what_is_missing()
            self._poll()
        self._outcome.seconds = time.monotonic() - (begun or asked)
        return self._outcome

    def _on_started(self, reference: Any) -> None:
        actor, resources = self._starting.pop(reference)
        started = self._get(reference, actor, None)
        if started is None:
            return
        if self._fingerprint is None:
            self._agree(started.fingerprint)
            self._fingerprint = started.fingerprint
            # Whoever starts from now on computes in what the first computes in.
            self._factory = self._factory.with_precision(started.fingerprint.precision)
        elif started.fingerprint != self._fingerprint:
            if started.fingerprint.precision == self._fingerprint.precision:
                raise RunError(
                    f"The actor on {started.host} would make other rows than the first: "
                    f"{started.fingerprint.differences(self._fingerprint)}; give all nodes the same files."
                )
            self._forget(actor)
            self.add_actor(resources)
            return
        self._outcome.actors.append((started.host, started.gpus))
        for _ in range(_SHARDS_AN_ACTOR):
            self._hand_out(actor)

    def _on_finished(self, reference: Any) -> None:
        actor, shard = self._working[reference]
        done = self._get(reference, actor, shard)
        if done is None:
            return
        del self._working[reference]
        self._outcome.footers[shard.number] = done.footer
        for stage, seconds in done.stages.items():
            self._outcome.stages[stage] = self._outcome.stages.get(stage, 0.0) + seconds
        self._hand_out(actor)

    def _hand_out(self, actor: Any) -> None:
        if self._waiting:
            shard = self._waiting.popleft()
            self._working[actor.run.remote(shard)] = (actor, shard)

    def _get(self, reference: Any, actor: Any, shard: Shard | None) -> Any:
        """What an actor answered; None when it died, and then its shards wait for another."""
        import ray

        try:
            return ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            # The actor lives, and its program failed: the same again would fail again.
            if isinstance(error.cause, FlowersError | OSError):
                raise error.cause from error
            where = f"Shard {shard.number}" if shard else "An actor's start"
            raise RunError(f"{where} failed by a fault of the program: {error.cause!r}.") from error
        except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError) as error:
            self._on_death(actor, error)
            return None

    def _on_death(self, actor: Any, error: Exception) -> None:
        lost = {reference: shard for reference, (owner, shard) in self._working.items() if owner == actor}
        for reference in lost:
            del self._working[reference]
        self._waiting.extendleft(reversed(lost.values()))
        at_work = next(iter(lost.values()), None)  # the others only waited, and did nothing to the actor
        key = at_work.number if at_work else None
        self._deaths[key] = self._deaths.get(key, 0) + 1
        self._outcome.deaths += 1
        if self._deaths[key] >= _MAX_DEATHS:
            where = f"on shard {key}" if at_work else "while they started"
            raise RunError(
                f"{_MAX_DEATHS} actors died {where}, the last with: {str(error).splitlines()[0]} "
                "The same command goes on where it stopped."
            ) from error
        self._watcher.say("An actor died; its shards go to another.")
        resources = self._forget(actor)
        self.add_actor(resources)

    def _forget(self, actor: Any) -> Resources:
        import ray

        self._current.pop(actor, None)
        with contextlib.suppress(Exception):
            ray.kill(actor)
        return self._actors.pop(actor)

    def _poll(self) -> None:
        import ray

        busy = {actor for actor, _ in self._working.values()}
        for actor in busy - set(self._polls.values()):
            self._polls[actor.progress.remote()] = actor
        if self._polls:
            ready, _ = ray.wait([*self._polls], num_returns=len(self._polls), timeout=0)
            for reference in ready:
                actor = self._polls.pop(reference)
                with contextlib.suppress(ray.exceptions.RayError):
                    current = ray.get(reference)
                    if current and actor in self._actors:
                        self._current[actor] = current
        footers = self._outcome.footers
        partly = [current for current in self._current.values() if current[0] not in footers]
        done = sum(footer.ok + footer.failed for footer in footers.values()) + sum(done for _, done, _ in partly)
        failed = sum(footer.failed for footer in footers.values()) + sum(failed for _, _, failed in partly)
        self._watcher.update(done, failed)

    def _say_what_is_missing(self) -> None:
        import ray

        wanted = next(iter(self._actors.values()))
        free = ray.available_resources()
        self._watcher.say(
            f"Still waiting for an actor: each asks for {wanted.gpus} GPUs and {wanted.cpus} CPUs, and the cluster has "
            f"{free.get('GPU', 0):g} GPUs and {free.get('CPU', 0):g} CPUs free."
        )


class _RemoteShardActor:
    """`ShardActor`, told by Ray what it was given."""

    def __init__(self, factory: Factory, url: str, kind: str, cpus: int):
        import ray

        context = ray.get_runtime_context()
        gpus = tuple(context.get_accelerator_ids().get("GPU", ()))
        if gpus:
            node = next(node for node in ray.nodes() if node["NodeID"] == context.get_node_id())["Resources"]
            cpus = int(node.get("CPU", 1) // node["GPU"])
        self._actor = ShardActor(factory, url, kind, max(1, cpus), gpus)

    def start(self) -> Started:
        return self._actor.start()

    def run(self, shard: Shard) -> Done:
        return self._actor.run(shard)

    def progress(self) -> tuple[int, int, int] | None:
        return self._actor.progress()

    progress.__ray_concurrency_group__ = "progress"  # type: ignore[attr-defined]


def _actor_environment(resources: Resources) -> dict[str, str]:
    environment = {"TF_CPP_MIN_LOG_LEVEL": "2"}
    if not resources.gpus:
        # An actor that asked for no GPU sees every GPU of its node otherwise.
        environment["CUDA_VISIBLE_DEVICES"] = ""
    return environment


@contextlib.contextmanager
def _connected(cluster: ClusterConfig) -> Iterator[None]:
    """Joins the cluster that is named, or the one that the caller has joined; else starts a Ray of the run's own."""
    import ray

    if ray.is_initialized():
        yield
        return
    address = cluster.address or os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if not address:
        # A bare `ray.init()` would join whatever cluster runs on this machine.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        options |= {
            "address": "local",
            "include_dashboard": False,
            "object_store_memory": _OBJECT_STORE_BYTES,
        }
    else:
        options["address"] = address
    try:
        ray.init(**options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InputError(
            f"The Ray cluster at {address or 'this machine'} cannot be joined ({str(error).splitlines()[0]}): "
            "check --address, or leave it and RAY_ADDRESS out to run on this machine alone."
        ) from error
    try:
        yield
    finally:
        ray.shutdown()
