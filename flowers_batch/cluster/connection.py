"""Joining a Ray cluster, or starting a local Ray for one run."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flowers_batch.cluster.caller_process import restored_environment, restored_faulthandler, restored_sigterm_handler
from flowers_batch.cluster.local_ray import check_servers, local_ray
from flowers_batch.config import ClusterConfig
from flowers_batch.errors import InputError, first_line


def living_nodes() -> list[dict[str, Any]]:
    """Return the cluster's living nodes, as `ray.nodes()` describes them.

    Raises:
        RunError: A server of a local Ray has ended.
    """
    import ray

    check_servers()
    return [node for node in ray.nodes() if node["Alive"]]


@contextmanager
def connected(cluster: ClusterConfig) -> Iterator[bool]:
    """Join the cluster that is named, or use the one that the caller has joined; else start a local Ray for this run.

    The caller's environment, handler of SIGTERM and fault handler are afterwards what they were before.

    Yields:
        Whether nodes may join the cluster: not if it is a local Ray that was started here.

    Raises:
        InputError: The cluster cannot be joined, or a local Ray has no temporary folder.
        RunError: A local Ray does not start.
    """
    with restored_environment(), restored_faulthandler():
        import ray

        if ray.is_initialized():
            yield True
            return
        address = cluster.address or os.environ.get("RAY_ADDRESS")
        with _joined(address) if address else local_ray():
            yield bool(address)


@contextmanager
def _joined(address: str) -> Iterator[None]:
    import ray

    try:
        with restored_sigterm_handler():
            try:
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise InputError(
                    f"The Ray cluster at {address} cannot be joined ({first_line(error)}): check `address`, and that "
                    "RAY_AUTH_MODE and the token here are the cluster's; or leave `address` and RAY_ADDRESS out to run "
                    "on this machine alone."
                ) from error
        yield
    finally:
        ray.shutdown()
