"""The command as a process that tests stop and kill, and photos that keep it busy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from helpers import encoded, write

import flowers_batch as fb

ACTOR = "ray::RemoteShardActor"  # in the command line of its process, as Ray writes it


ENDED_WITHIN = 10.0  # seconds after a signal


class Driver:
    """An encoding command, and all its descendants, which inherit its environment.

    Args:
        photos: The images.
        options: Of the command.
        path: Put in front of PYTHONPATH, for this command and its actors.
    """

    def __init__(self, photos: Path, *options: str, path: str | None = None):
        self.out = photos.parent / "codes"
        self._mark = f"FLOWERS_TEST_RUN={uuid.uuid4().hex}"
        command = [sys.executable, "-m", "flowers_batch", "encode", str(photos), str(self.out), "--json"]
        name, value = self._mark.split("=")
        paths = [found for found in (path, os.environ.get("PYTHONPATH")) if found]
        self.process = subprocess.Popen(
            [*command, "--network", "null", *options],
            env=os.environ | {name: value, "PYTHONPATH": os.pathsep.join(paths)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def processes(self, words: str = "") -> list[int]:
        """Return the living processes of this run whose command line contains these words."""
        found = []
        for process in Path("/proc").iterdir():
            try:
                is_ours = process.name.isdigit() and self._mark.encode() in (process / "environ").read_bytes()
                dead = is_ours and "\nState:\tZ" in (process / "status").read_text()
                if is_ours and not dead and words in (process / "cmdline").read_text():
                    found.append(int(process.name))
            except OSError:  # it has just ended
                continue
        return found

    def actors(self, method: str = "") -> list[int]:
        """Its actors' processes, or only those that run a method, which Ray shows in the command line."""
        return self.processes(f"{ACTOR}.{method}" if method else ACTOR)

    def shards(self) -> int:
        """Return how many shards are done."""
        return len(list(self.out.glob("codes/shard-*")))

    def until(self, condition: Callable[[], Any]) -> Any:
        """Wait until a condition is true, and return its value."""
        while not (found := condition()):
            assert self.process.poll() is None, f"the command ended too early: {self.process.communicate()[1]}"
            time.sleep(0.002)
        return found

    def end(self) -> tuple[int, dict[str, Any], str]:
        """Wait until the command ends; return its exit code, its summary (empty without one) and its standard error."""
        out, err = self.process.communicate(timeout=150)
        return self.process.returncode, json.loads(out or "{}"), err

    def ends(self, words: str = "") -> bool:
        """Return whether all its processes end within `ENDED_WITHIN` seconds."""
        begun = time.monotonic()
        while self.processes(words) and time.monotonic() - begun < ENDED_WITHIN:
            time.sleep(0.05)
        return not self.processes(words)


def photos_that_take_a_while(folder: Path, count: int) -> Path:
    """Write pictures that take long to decode, so that their shard is long in flight."""
    picture = encoded(np.zeros((4000, 4000, 3), np.uint8))
    # Bytes behind the picture's end, since equal files would be decoded once.
    return write(folder, {f"{number:03d}.png": picture + b"%d" % number for number in range(count)})


def rows(folder: Path) -> list[dict[str, Any]]:
    files = sorted((folder / "codes").glob("shard-*"))
    return [row for file in files for row in pq.read_table(file, columns=["path", "status", "reason"]).to_pylist()]


def assert_each_image_is_one_row(photos: Path, out: Path) -> None:
    assert [row["path"] for row in rows(out)] == sorted(str(path.relative_to(photos)) for path in photos.rglob("*.png"))
    assert fb.verify(str(out)).is_complete
