"""Joining a Ray cluster, or starting a local Ray for one run."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

from flowers_batch.config import ClusterConfig
from flowers_batch.errors import InputError, first_line

_OBJECT_STORE_BYTES = 100 << 20  # pixels and codes never travel through it


def _living_nodes() -> list[dict[str, Any]]:
    import ray

    return [node for node in ray.nodes() if node["Alive"]]


@contextlib.contextmanager
def _connected(cluster: ClusterConfig) -> Iterator[bool]:
    """Joins the cluster that is named, or the one that the caller has joined; else starts a Ray of the run's own.

    Gives whether nodes may join: all but the last may have them.
    """
    import ray

    if ray.is_initialized():
        yield True
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
    # Ray would put its own handler of SIGTERM in the place of the command's, and end without a word.
    ray._private.utils.set_sigterm_handler = lambda handler: None
    try:
        ray.init(**options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InputError(
            f"The Ray cluster at {address or 'this machine'} cannot be joined ({first_line(error)}): "
            "check --address, and that RAY_AUTH_MODE and the token here are the cluster's; or leave --address and "
            "RAY_ADDRESS out to run on this machine alone."
        ) from error
    with contextlib.redirect_stdout(sys.stderr):  # Ray prints what it knows of dead actors, the last as it ends
        try:
            yield bool(address)
        finally:
            ray.shutdown()
