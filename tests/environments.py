"""Environments for processes that tests start."""

from __future__ import annotations

import os


def environment_without_ray() -> dict[str, str]:
    """Return this process's environment without what the tests' shared Ray has set, such as that it is on loopback."""
    return {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
