"""The only room with Ray: actors that work on shards, handed out as they finish, and again when an actor dies."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from flowers_batch.config import (
    WEIGHTS_ENVIRONMENT,
    ClusterConfig,
    Fingerprint,
    FlowersError,
    InputError,
    RunError,
    first_line,
)
from flowers_batch.dataset import Footer, write_shard
from flowers_batch.encoder import Worker
from flowers_batch.shards import Shard, carried_over, read_rows
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
    """A finished shard: its footer as written, the seconds that each stage took, and how many rows were kept."""

    footer: Footer
    stages: dict[str, float]
    carried: int


@dataclass
class Outcome:
    """What a run of shards gave.

    Attributes:
        footers: By the shard's number.
        stages: Seconds by stage, over all actors.
        seconds: From the first actor that was ready to the last shard.
        actors: Where they ran: host, and GPUs as Ray numbers them.
        deaths: Actors that died.
        carried: Rows of shards that had changed which still held.
    """

    footers: dict[int, Footer] = field(default_factory=dict)
    stages: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    actors: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    deaths: int = 0
    carried: int = 0


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
        expected = Footer(self._worker.fingerprint.digest, shard.number, shard.inputs, 0, 0)
        kept = carried_over(self._folder, self._kind, shard, self._worker.schema, expected.fingerprint)
        rows = read_rows(self._folder, shard)
        left = rows.filter(pc.invert(pc.is_in(rows["path"], kept["path"])))
        batches = self._counted(shard.number, self._worker.batches(shard.number, left, stages))
        table = pa.concat_tables([kept, pa.Table.from_batches(batches, self._worker.schema)])
        if len(table) != shard.images:
            raise RunError(f"Shard {shard.number} has {shard.images} images, and {len(table)} rows came out.")
        if len(kept):
            table = table.take(pc.index_in(rows["path"], table["path"]))
        begun = time.perf_counter()
        footer = write_shard(self._folder, self._kind, self._worker.schema, table.to_batches(), expected)
        stages["write"] = time.perf_counter() - begun
        return Done(footer, stages, len(kept))

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
        plan = plan_actors(_wait_for_nodes(watcher), cluster.actors, factory.wants_gpu)
        pool = _Pool(factory, url, kind, shards, agree, watcher)
        try:
            for resources in plan[: len(shards)]:
                pool.add_actor(resources)
            return pool.run()
        finally:
            pool.kill_actors()


def _wait_for_nodes(watcher: Watcher) -> list[dict[str, Any]]:
    """The cluster's living nodes, once one of them has something to run on."""
    import ray

    told = -_WAIT_SECONDS
    while True:
        nodes = [node for node in ray.nodes() if node["Alive"]]
        if any(node["Resources"].get("CPU", 0) or node["Resources"].get("GPU", 0) for node in nodes):
            return nodes
        if time.monotonic() - told > _WAIT_SECONDS:
            told = time.monotonic()
            watcher.say("Waiting for the cluster's first node with a GPU or a CPU to run on.")
        time.sleep(_POLL_SECONDS)


def plan_actors(nodes: list[dict[str, Any]], wanted: int | None, gpu: bool) -> list[Resources]:
    """Decides by the cluster's resources what actors ask for.

    Args:
        nodes: The cluster's nodes, as `ray.nodes()` tells them.
        wanted: How many actors; None takes one a GPU, or one a node where there are no GPUs.
        gpu: Whether GPUs are of use.
    """
    gpus = int(sum(node["Resources"].get("GPU", 0) for node in nodes)) if gpu else 0
    if gpus:
        return [Resources(1, 1)] * (wanted or gpus)
    cores = {node["NodeID"]: int(node["Resources"].get("CPU", 0)) for node in nodes}
    if wanted is None:
        return [Resources(0, count, node) for node, count in cores.items() if count]
    share = sum(cores.values()) // wanted
    return [Resources(0, max(1, min(share, max(cores.values()))))] * wanted  # no actor spans two nodes


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
        self._actors: dict[Any, Resources] = {}
        self._placed: dict[Any, Any] = {}  # by actor: an answer that it gives as soon as it has its resources
        self._starting: dict[Any, Any] = {}  # actors by the object that `start` will give
        self._in_flight: dict[Any, int] = {}  # shards out with each actor that has started
        self._working: dict[Any, tuple[Any, Shard]] = {}  # by the object that `run` will give, oldest first
        self._polls: dict[Any, Any] = {}  # actors by the object that `progress` will give
        self._current: dict[Any, tuple[int, int, int]] = {}
        self._deaths: dict[int | None, int] = {}  # by shard; None: while starting, since the last that did start
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
        self._placed[actor] = actor.progress.remote()
        self._starting[actor.start.remote()] = actor

    def kill_actors(self) -> None:
        for actor in list(self._actors):
            self._forget(actor)

    def run(self) -> Outcome:
        import ray

        last_work = time.monotonic()
        begun: float | None = None
        while self._waiting or self._working:
            ready, _ = ray.wait([*self._starting, *self._working], num_returns=1, timeout=_POLL_SECONDS)
            for reference in ready:
                if reference in self._starting:
                    self._on_started(reference)
                elif reference in self._working:
                    self._on_finished(reference)
            self._hand_out()
            now = time.monotonic()
            if self._working:
                begun, last_work = begun or now, now
            elif now - last_work > _WAIT_SECONDS:
                last_work = now
                self._say_what_is_missing()
            self._poll()
        self._outcome.seconds = time.monotonic() - (begun or last_work)
        return self._outcome

    def _hand_out(self) -> None:
        """Gives waiting shards to the actors that have fewest: all get one before any gets a second."""
        while self._waiting and self._in_flight:
            actor = min(self._in_flight, key=lambda actor: self._in_flight[actor])
            if self._in_flight[actor] == _SHARDS_AN_ACTOR:
                return
            shard = self._waiting.popleft()
            self._in_flight[actor] += 1
            self._working[actor.run.remote(shard)] = (actor, shard)

    def _on_started(self, reference: Any) -> None:
        actor = self._starting[reference]
        started = self._get(reference, actor, "An actor's start")
        if started is None:
            return
        del self._starting[reference]
        self._deaths.pop(None, None)
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
            self.add_actor(self._forget(actor))
            return
        self._outcome.actors.append((started.host, started.gpus))
        self._in_flight[actor] = 0

    def _on_finished(self, reference: Any) -> None:
        actor, shard = self._working[reference]
        done = self._get(reference, actor, f"Shard {shard.number}")
        if done is None:
            return
        del self._working[reference]
        self._in_flight[actor] -= 1
        self._outcome.footers[shard.number] = done.footer
        self._outcome.carried += done.carried
        for stage, seconds in done.stages.items():
            self._outcome.stages[stage] = self._outcome.stages.get(stage, 0.0) + seconds

    def _get(self, reference: Any, actor: Any, what: str) -> Any:
        """What an actor answered; None when it died, and then its shards wait for another."""
        import ray

        try:
            return ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            # The actor lives, and its program failed: the same again would fail again.
            if isinstance(error.cause, FlowersError | OSError):
                raise error.cause from error
            raise RunError(f"{what} failed by a fault of the program: {error.cause!r}.") from error
        except ray.exceptions.RayError as error:
            if "creation task" in str(error):  # its node lacks something that the program needs
                last = str(error).strip().splitlines()[-1]
                raise RunError(
                    f"An actor could not be made: {last}; install the same packages on all nodes."
                ) from error
            # Besides dead actors: one that used up its node's memory, a node that is gone.
            self._on_death(actor, error)
            return None

    def _on_death(self, actor: Any, error: Exception) -> None:
        # Only the oldest was worked on; the others waited, and did nothing to the actor.
        at_work = next((shard.number for owner, shard in self._working.values() if owner == actor), None)
        self._deaths[at_work] = self._deaths.get(at_work, 0) + 1
        self._outcome.deaths += 1
        if self._deaths[at_work] >= _MAX_DEATHS:
            where = "while they started" if at_work is None else f"on shard {at_work}"
            raise RunError(
                f"{_MAX_DEATHS} actors died {where}, the last with: {first_line(error)} "
                "The same command goes on where it stopped."
            ) from error
        self._watcher.say(f"An actor died ({first_line(error)}); its shards go to others.")
        self.add_actor(self._forget(actor))

    def _forget(self, actor: Any) -> Resources:
        """Ends an actor; its shards wait again, in front."""
        import ray

        lost = {reference: shard for reference, (owner, shard) in self._working.items() if owner == actor}
        self._working = {reference: work for reference, work in self._working.items() if reference not in lost}
        self._waiting.extendleft(reversed(lost.values()))
        self._starting = {reference: owner for reference, owner in self._starting.items() if owner != actor}
        for held in (self._in_flight, self._current, self._placed):
            held.pop(actor, None)
        with contextlib.suppress(Exception):
            ray.kill(actor)
        return self._actors.pop(actor)

    def _poll(self) -> None:
        """Asks the actors at work how far they are, and tells the watcher what is known."""
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

        placed, _ = ray.wait([*self._placed.values()], num_returns=len(self._placed), timeout=0)
        if placed:
            self._watcher.say(f"{len(placed)} of {len(self._actors)} actors have their resources and are starting.")
            return
        wanted = next(iter(self._actors.values()))
        free = ray.available_resources()
        self._watcher.say(
            f"Still waiting for resources: an actor asks for {wanted.gpus} GPUs and {wanted.cpus} CPUs, and the "
            f"cluster has {free.get('GPU', 0):g} GPUs and {free.get('CPU', 0):g} CPUs free."
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
    if weights := os.environ.get(WEIGHTS_ENVIRONMENT):
        environment[WEIGHTS_ENVIRONMENT] = weights
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
    on_term = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(**options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InputError(
            f"The Ray cluster at {address or 'this machine'} cannot be joined ({first_line(error)}): "
            "check --address, or leave it and RAY_ADDRESS out to run on this machine alone."
        ) from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_term)  # Ray puts one in its place that ends without a word
    try:
        yield
    finally:
        ray.shutdown()
