"""What another user can put under a name that a run is about to write."""

from __future__ import annotations

import os
import socket
from pathlib import Path

_held: list[int] = []
PRIVATE = b"another file of the user\n"
PLANTS = {  # what another user can put under a known name, and what an error then says
    "link": "is a link",
    "dangling link": "is a link",
    "hard link": r"has 2 names \(hard links\)",
    "fifo": "is not a regular file",
    "socket": "is not a regular file",
    "folder": "is not a regular file",
}


def plant(kind: str, path: Path, private: Path) -> None:
    """Put something under a name; links lead to a private file, or beside it."""
    if kind == "link":
        path.symlink_to(private)
    elif kind == "dangling link":
        path.symlink_to(private.with_name("missing"))
    elif kind == "hard link":
        path.hardlink_to(private)
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(path))
    else:
        path.mkdir()


def plant_pipe(path: Path) -> None:
    """Put a pipe in place of a file; it is held open, so that a test whose reader waits for it fails, and ends."""
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    _held.append(os.open(path, os.O_RDWR | os.O_NONBLOCK))
