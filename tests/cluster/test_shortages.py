"""What a local Ray lacks is named, with numbers."""

from __future__ import annotations

import os
import re
import resource
from types import SimpleNamespace

import psutil
import pytest

from flowers_batch.cluster import shortages as module
from flowers_batch.cluster.shortages import shortages


def test_machine_with_room_lacks_nothing(tmp_path):
    assert shortages(str(tmp_path)) == []


@pytest.mark.parametrize(
    ("limit", "value", "sentence"),
    [
        ("RLIMIT_NOFILE", 64, r"^a process may have 64 files open \(`ulimit -n`\), and Ray's need 128$"),
        ("RLIMIT_NPROC", 20, r"^\d+ more processes and threads may run \(`ulimit -u`\), and Ray starts 200$"),
        ("RLIMIT_AS", 1 << 30, r"^a process may have 1024 MB of addresses \(`ulimit -v`\), and Ray's need 4096 MB$"),
    ],
)
def test_low_limit_is_named(tmp_path, monkeypatch, limit, value, sentence):
    limits = {getattr(resource, limit): (value, value)}
    infinite = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    monkeypatch.setattr(resource, "getrlimit", lambda which: limits.get(which, infinite))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)  # no limit on processes binds root
    (found,) = shortages(str(tmp_path))
    assert re.search(sentence, found)


def test_full_disk_and_memory_are_named(tmp_path, monkeypatch):
    status = SimpleNamespace(f_bavail=1, f_frsize=1 << 20, f_files=1000, f_favail=3)
    monkeypatch.setattr(module.os, "statvfs", lambda path: status)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=100 << 20))
    assert shortages("/t") == [
        "in /t, 1 MB are free, and Ray takes 32 MB",
        "in /t, there is room for 3 more files, and Ray makes 200",
        "100 MB of memory are free, and Ray takes 256 MB",
    ]
