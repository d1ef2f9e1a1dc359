"""Who may use a Ray that is started here: processes of this machine that have its token."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from ipaddress import ip_address
from typing import Any

from flowers_batch.errors import RunError


@contextmanager
def restricted_access() -> Iterator[None]:
    """Have a Ray that is started in this block listen on the loopback address only, and demand a random token.

    The environment may say otherwise, and Ray may have been imported before. No token is read from or written to a
    file. Afterwards the environment is what it was before.

    Raises:
        RunError: This version of Ray would ignore these settings.
    """
    constants: Any = import_module("ray._private.ray_constants")
    can_cluster = constants.ENABLE_RAY_CLUSTER  # what the environment said when this process imported Ray
    own = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # where Ray listens on loopback; inherited by Ray's own processes
    }
    before = {name: os.environ.get(name) for name in own}
    os.environ.update(own)
    constants.ENABLE_RAY_CLUSTER = False
    _reread_authentication()
    try:
        _check()
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = can_cluster
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        _reread_authentication()


def _check() -> None:
    """Check that Ray follows the settings, which it does not document.

    Raises:
        RunError: It would listen on another address than loopback, or demand no token.
    """
    import ray

    raylet: Any = import_module("ray._raylet")
    needs_token = raylet.get_authentication_mode() == raylet.AuthenticationMode.TOKEN
    if not (needs_token and ip_address(ray.util.get_node_ip_address()).is_loopback):
        raise RunError(
            f"Ray {ray.__version__} would let other users and machines use this run: install a version that "
            "flowers-batch was tested with (constraints.txt)."
        )


def _reread_authentication() -> None:
    """Have Ray read the environment again: it keeps the first token and mode of a process, also for later clusters."""
    raylet: Any = import_module("ray._raylet")
    with suppress(AttributeError):  # there is no public way
        raylet.Config.initialize("")
        raylet.AuthenticationTokenLoader.instance().reset_cache()
