"""Joining a Ray cluster, or starting a local Ray for one run."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

from flowers_batch.config import ClusterConfig
from flowers_batch.errors import InputError, first_line

_OBJECT_STORE_BYTES = 100 << 20  # pixels and codes never travel through it


def living_nodes() -> list[dict[str, Any]]:
    """Return the cluster's living nodes, as `ray.nodes()` describes them."""
    import ray

    return [node for node in ray.nodes() if node["Alive"]]


@contextlib.contextmanager
def connected(cluster: ClusterConfig) -> Iterator[bool]:
    """Join the cluster that is named, or use the one that the caller has joined; else start a local Ray for this run.

    The caller's environment, handler of SIGTERM and fault handler are afterwards what they were before.

    Yields:
        Whether nodes may join the cluster: not if it is a local Ray that was started here.

    Raises:
        InputError: The cluster cannot be joined.
    """
    with _restored_environment():
        import ray

        if ray.is_initialized():
            yield True
            return
        address = cluster.address or os.environ.get("RAY_ADDRESS")
        with _restored_faulthandler():
            with _restored_sigterm_handler():
                _init(address)
            try:
                yield bool(address)
            finally:
                ray.shutdown()


def _init(address: str | None) -> None:
    import ray

    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address:
        options["address"] = address
    else:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        options |= {
            "address": "local",  # a bare `ray.init()` would join any cluster that runs on this machine
            "include_dashboard": False,
            "object_store_memory": _OBJECT_STORE_BYTES,
        }
    try:
        ray.init(**options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InputError(
            f"The Ray cluster at {address or 'this machine'} cannot be joined ({first_line(error)}): "
            "check `address`, and that RAY_AUTH_MODE and the token here are the cluster's; or leave `address` and "
            "RAY_ADDRESS out to run on this machine alone."
        ) from error


@contextlib.contextmanager
def _restored_environment() -> Iterator[None]:
    """Restore the environment variables that Ray sets as it is imported and initialized."""

    def ray_variables() -> dict[str, str]:
        return {
            name: value for name, value in os.environ.items() if name.startswith("RAY_") or name == "PYTHONBREAKPOINT"
        }

    before = ray_variables()
    try:
        yield
    finally:
        for name in ray_variables().keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


@contextlib.contextmanager
def _restored_faulthandler() -> Iterator[None]:
    """Disable the fault handler, which `ray.init` enables, unless it was enabled before."""
    was_enabled = faulthandler.is_enabled()
    try:
        yield
    finally:
        if not was_enabled:
            faulthandler.disable()


@contextlib.contextmanager
def _restored_sigterm_handler() -> Iterator[None]:
    """Restore the handler of SIGTERM, which `ray.init` replaces in the main thread.

    A SIGTERM that Ray's handler took is delivered again, to the caller's handler.
    """
    handler = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread() or handler is None:
        yield
        return
    try:
        yield
    except SystemExit as error:
        signal.signal(signal.SIGTERM, handler)
        if error.code in (1, signal.SIGTERM):  # as Ray's handler exits; in its callbacks all exits have code 1
            signal.raise_signal(signal.SIGTERM)
        raise
    finally:
        signal.signal(signal.SIGTERM, handler)
