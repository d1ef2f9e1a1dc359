"""The caller's process, such as a notebook, which is left as it was before Ray was used."""

from __future__ import annotations

import faulthandler
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def restored_environment() -> Iterator[None]:
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


@contextmanager
def restored_faulthandler() -> Iterator[None]:
    """Disable the fault handler, which `ray.init` enables, unless it was enabled before."""
    was_enabled = faulthandler.is_enabled()
    try:
        yield
    finally:
        if not was_enabled:
            faulthandler.disable()


@contextmanager
def restored_sigterm_handler() -> Iterator[None]:
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
