"""Work that one actor does alone, with all GPUs of a node."""

from __future__ import annotations

import contextlib
import time
from typing import Any, Protocol

from flowers_batch.cluster.actors import actor_environment
from flowers_batch.cluster.connection import connected, living_nodes
from flowers_batch.cluster.failures import MAX_ACTOR_DEATHS, cause_of, error_raised_by
from flowers_batch.cluster.local_ray import check_servers
from flowers_batch.cluster.scaling import Resources, largest_node
from flowers_batch.config import ClusterConfig
from flowers_batch.errors import RunError
from flowers_batch.progress import Progress, Reporter

_POLL_SECONDS = 1.0  # between two polls of the actor's progress
_WAIT_SECONDS = 60.0  # without a place for the actor, after which the run reports what it waits for


class ResumableJob(Protocol):
    """Work for one actor, such as `finetuning.job.FinetuningJob`; called again after a crash, it resumes from files."""

    def __call__(self, threads: int, gpus: int, reporter: Reporter) -> Any:
        """Do the work.

        Args:
            threads: How many cores the node has.
            gpus: How many GPUs the actor has.
            reporter: Receives its progress; a message marks progress that a retry does not repeat.
        """


def run_on_one_actor(
    job: ResumableJob, cluster: ClusterConfig, reporter: Reporter, max_deaths: int = MAX_ACTOR_DEATHS
) -> Any:
    """Have one actor do a job, with all GPUs of a node or, without GPUs, all its cores.

    An actor that dies, or reports nothing new for too long, is replaced by another, which resumes the job.

    Args:
        job: What to do.
        cluster: Which cluster, and for how long an actor may report nothing.
        reporter: Receives the job's progress.
        max_deaths: Deaths or stalls in a row, before an actor reports a message, of which the last ends the run.

    Returns:
        What the job returned.

    Raises:
        FlowersError: As the actor raised it; or too many actors died.
    """
    with connected(cluster):
        deaths = 0
        while True:
            actor = SingleActor(cluster, reporter)
            try:
                return actor.run(job)
            except _ActorLostError as lost:
                deaths = 1 if actor.has_reported else deaths + 1
                if deaths == max_deaths:
                    raise RunError(
                        f"{deaths} actors died before they made any progress. Cause of the last: {lost} "
                        "Run the same command again to resume."
                    ) from lost
                reporter.message(f"The actor died: {lost} Another resumes the work.")
            finally:
                actor.kill()


class _ActorLostError(Exception):
    """The actor died or stalled; says why."""


class SingleActor:
    """The driver's view of an actor that works alone.

    Args:
        cluster: For how long it may report nothing.
        reporter: Receives what it reports.
    """

    def __init__(self, cluster: ClusterConfig, reporter: Reporter):
        self._cluster, self._reporter = cluster, reporter
        self._place: Any = None  # a placement group: the resources that are reserved for it
        self._handle: Any = None
        self._messages, self._latest = 0, ""  # how many messages it has reported, and the text of its last update
        self._has_answered = False
        self._seconds_without_progress = 0.0  # since it was placed

    @property
    def has_reported(self) -> bool:
        """Whether it has reported a message."""
        return self._messages > 0

    def run(self, job: ResumableJob) -> Any:
        """Have it do a job, and return the job's result.

        Raises:
            FlowersError: As the actor raised it.
            _ActorLostError: It died or stalled.
        """
        import ray

        self._handle = self._create()
        result, heartbeat = self._handle.run.remote(job), self._handle.heartbeat.remote(0)
        while True:
            done, _ = ray.wait([result], timeout=_POLL_SECONDS)
            check_servers()
            self._seconds_without_progress += _POLL_SECONDS
            try:
                if ray.wait([heartbeat], timeout=0)[0]:
                    self._receive(*ray.get(heartbeat))
                    heartbeat = self._handle.heartbeat.remote(self._messages)
                if done:
                    value = ray.get(result)
                    self._receive(*ray.get(self._handle.heartbeat.remote(self._messages)))
                    return value
            except ray.exceptions.RayTaskError as error:
                raise error_raised_by(error, "The actor") from error
            except ray.exceptions.RayError as error:
                raise _ActorLostError(cause_of(error)) from error
            self._check_progress()

    def _check_progress(self) -> None:
        if self._seconds_without_progress > self._cluster.stall_timeout:
            raise _ActorLostError(f"it made no progress for {self._cluster.stall_timeout:g} seconds.")

    def _receive(self, messages: list[str], latest: str) -> None:
        """Pass on what the actor has reported since the last heartbeat."""
        for sentence in messages:
            self._reporter.message(sentence)
        if messages or latest != self._latest or not self._has_answered:
            self._seconds_without_progress = 0.0
        if latest and latest != self._latest:
            self._reporter.update(Progress(latest))
        self._messages, self._latest = self._messages + len(messages), latest
        self._has_answered = True

    def _create(self) -> Any:
        import ray
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        from flowers_batch.cluster import remote_actors

        resources = self._largest_node()
        self._reserve(resources)
        options = {
            "num_gpus": resources.gpus,
            "num_cpus": resources.cpus,
            "runtime_env": {"env_vars": actor_environment(resources)},
            "scheduling_strategy": PlacementGroupSchedulingStrategy(self._place),
        }
        wrap: Any = ray.remote(concurrency_groups={remote_actors.HEARTBEAT_GROUP: 1})  # type: ignore[call-overload]
        return wrap(remote_actors.RemoteSingleActor).options(**options).remote()

    def _largest_node(self) -> Resources:
        """Return the resources of the cluster's largest node, once it has one."""
        import ray

        from flowers_batch.cluster import remote_actors

        placeholder: Any = None
        while (resources := largest_node(living_nodes())) is None:
            if placeholder is None:  # makes an autoscaler start a node
                self._reporter.message("Waiting for the cluster's first node.")
                placeholder = ray.remote(remote_actors.RemoteSingleActor).options(num_cpus=1).remote()
            time.sleep(_POLL_SECONDS)
        if placeholder is not None:
            ray.kill(placeholder)
        return resources

    def _reserve(self, resources: Resources) -> None:
        """Wait until a node's resources are reserved for the actor: from then on it is late if it does not answer.

        An actor that waits for resources and one that hangs while it starts look alike to its driver.
        """
        from ray.util.placement_group import placement_group

        bundle = {"CPU": resources.cpus, "GPU": resources.gpus}
        self._place = placement_group([{name: count for name, count in bundle.items() if count}])
        waited = 0.0
        while not self._place.wait(_POLL_SECONDS):
            check_servers()
            waited += _POLL_SECONDS
            if waited > _WAIT_SECONDS:
                waited = 0.0
                self._reporter.message("Still waiting for a node whose resources are free.")

    def kill(self) -> None:
        """End it, and release its resources."""
        import ray
        from ray.util.placement_group import remove_placement_group

        with contextlib.suppress(Exception):
            if self._handle is not None:
                ray.kill(self._handle)
        with contextlib.suppress(Exception):
            if self._place is not None:
                remove_placement_group(self._place)
