"""One actor that works alone, with all GPUs of a node."""

from __future__ import annotations

import contextlib
import time
from typing import Any, Protocol

from flowers_batch.cluster.actors import _actor_environment
from flowers_batch.cluster.connection import connected, living_nodes
from flowers_batch.cluster.failures import _cause, _cause_of
from flowers_batch.cluster.pool import _MAX_DEATHS, _POLL_SECONDS, _WAIT_SECONDS
from flowers_batch.cluster.scaling import largest_node
from flowers_batch.config import ClusterConfig
from flowers_batch.errors import RunError
from flowers_batch.progress import Progress, Reporter


class Work(Protocol):
    """What one actor does alone, such as `tuning.Tuning`; what it has done when it dies, it leaves on a disk."""

    def __call__(self, threads: int, gpus: int, reporter: Reporter) -> Any:
        """Does it, with so many threads and GPUs, and report how it goes."""


def run_on_one_actor(work: Work, cluster: ClusterConfig, reporter: Reporter) -> Any:
    """Has one actor do something, with all GPUs of a node or, where there are none, all of its cores.

    An actor that dies, or tells nothing new for too long, is replaced by another, which is given the same.

    Args:
        work: What it does.
        cluster: Which cluster, and for how long an actor may be silent.
        reporter: Receives how it goes.

    Returns:
        What the work gave.

    Raises:
        FlowersError: As the actor raised it, or too many actors died.
    """
    with connected(cluster):
        deaths = 0
        while True:
            soloist = _Soloist(work, cluster, reporter)
            try:
                return soloist.run()
            except _DeathError as death:
                deaths = 1 if soloist.has_told else deaths + 1
                if deaths == _MAX_DEATHS:
                    raise RunError(
                        f"{deaths} actors died before they got any further, the last with: {death} The same command "
                        "goes on where it stopped."
                    ) from death
                reporter.message(f"The actor died: {death} Another goes on.")
            finally:
                soloist.kill()


class _DeathError(Exception):
    """An actor is no more; says why."""


class _Soloist:
    """An actor that works alone."""

    def __init__(self, work: Work, cluster: ClusterConfig, reporter: Reporter):
        self._work, self._cluster, self._reporter = work, cluster, reporter
        self._actor: Any = None
        self._stayed, self._latest = 0, ""  # sentences that are to stay, and the last other one
        self._quiet = self._waited = 0.0  # seconds without a new sentence, and without an answer

    @property
    def has_told(self) -> bool:
        """Whether it got so far that it told something that is to stay."""
        return self._stayed > 0

    def run(self) -> Any:
        """Has it work, and gives what came of it."""
        import ray

        self._actor = self._made()
        result, heard = self._actor.run.remote(self._work), self._actor.told.remote(0)
        while True:
            done, _ = ray.wait([result], timeout=_POLL_SECONDS)
            self._quiet += _POLL_SECONDS
            self._waited += _POLL_SECONDS
            try:
                if ray.wait([heard], timeout=0)[0]:
                    self._pass_on(*ray.get(heard))
                    heard = self._actor.told.remote(self._stayed)
                if done:
                    given = ray.get(result)
                    self._pass_on(*ray.get(self._actor.told.remote(self._stayed)))
                    return given
            except ray.exceptions.RayTaskError as error:
                raise _cause_of(error, "The actor") from error
            except ray.exceptions.RayError as error:
                raise _DeathError(_cause(error)) from error
            if self._latest and self._quiet > self._cluster.stall_timeout:
                raise _DeathError(f"it made no progress for {self._cluster.stall_timeout:g} seconds.")
            if self._waited > _WAIT_SECONDS:
                self._waited = 0.0
                self._reporter.message("Still waiting for a node whose resources are free.")

    def _pass_on(self, stay: list[str], latest: str) -> None:
        self._waited = 0.0
        for sentence in stay:
            self._reporter.message(sentence)
        if stay or latest != self._latest:
            self._quiet = 0.0
        if latest and latest != self._latest:
            self._reporter.update(Progress(latest))
        self._stayed, self._latest = self._stayed + len(stay), latest

    def _made(self) -> Any:
        import ray

        scout: Any = None
        resources = largest_node(living_nodes())
        while resources is None:
            if scout is None:  # an autoscaler brings a node for it
                self._reporter.message("Waiting for the cluster's first node.")
                scout = ray.remote(_SoloActor).options(num_cpus=1).remote()
            time.sleep(_POLL_SECONDS)
            resources = largest_node(living_nodes())
        if scout is not None:
            ray.kill(scout)
        options = {
            "num_gpus": resources.gpus,
            "num_cpus": resources.cpus,
            "runtime_env": {"env_vars": _actor_environment(resources)},
        }
        wrap: Any = ray.remote(concurrency_groups={"told": 1})  # type: ignore[call-overload]
        return wrap(_SoloActor).options(**options).remote()

    def kill(self) -> None:
        """Ends it."""
        import ray

        if self._actor is not None:
            with contextlib.suppress(Exception):
                ray.kill(self._actor)


class _SoloActor:
    """What runs in the actor that works alone."""

    def __init__(self) -> None:
        self._lasting: list[str] = []
        self._latest = ""

    def run(self, work: Work) -> Any:
        import ray

        context = ray.get_runtime_context()
        node = next(node for node in ray.nodes() if node["NodeID"] == context.get_node_id())
        threads, gpus = int(node["Resources"].get("CPU", 1)), len(context.get_accelerator_ids().get("GPU", ()))
        return work(threads, gpus, self)

    def message(self, sentence: str) -> None:
        self._lasting.append(sentence)

    def update(self, progress: Progress) -> None:
        self._latest = progress.text

    def told(self, before: int) -> tuple[list[str], str]:
        """The sentences that are to stay, but for so many that were told, and the latest of the others."""
        return self._lasting[before:], self._latest

    told.__ray_concurrency_group__ = "told"  # type: ignore[attr-defined]
