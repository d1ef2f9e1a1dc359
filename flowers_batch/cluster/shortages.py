"""What a machine has too little of for a Ray of our own."""

from __future__ import annotations

import os
import resource
from contextlib import suppress

import psutil

OPEN_FILES = 128  # per process; an idle Ray's server has 56
THREADS = 200  # of all processes of an idle Ray on two cores
INODES = 200
MEMORY_BYTES = 256 << 20
ADDRESS_BYTES = 4 << 30  # per process
DISK_BYTES = 32 << 20  # for Ray's logs; without space Ray starts no process, and does not say why


def shortages(folder: str) -> list[str]:
    """Return what is too little for Ray to start, each as a part of a sentence with its number.

    Args:
        folder: Where Ray's files are.
    """
    found = [*(f"in {folder}, {shortage}" for shortage in disk_shortages(folder)), *_limit_shortages()]
    if (free := psutil.virtual_memory().available) < MEMORY_BYTES:
        found.append(f"{free >> 20} MB of memory are free, and Ray takes {MEMORY_BYTES >> 20} MB")
    return found


def disk_shortages(folder: str) -> list[str]:
    """Return what a folder's file system has too little of, each as a part of a sentence with its number."""
    status = os.statvfs(folder)
    found = []
    if (free := status.f_bavail * status.f_frsize) < DISK_BYTES:
        found.append(f"{free >> 20} MB are free, and Ray takes {DISK_BYTES >> 20} MB")
    if status.f_files and status.f_favail < INODES:  # some file systems have no limit, and say zero
        found.append(f"there is room for {status.f_favail} more files, and Ray makes {INODES}")
    return found


def _limit_shortages() -> list[str]:
    found = []
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files < OPEN_FILES and files != resource.RLIM_INFINITY:
        found.append(f"a process may have {files} files open (`ulimit -n`), and Ray's need {OPEN_FILES}")
    threads, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if threads != resource.RLIM_INFINITY and os.geteuid() != 0 and (left := threads - _own_threads()) < THREADS:
        found.append(f"{max(left, 0)} more processes and threads may run (`ulimit -u`), and Ray starts {THREADS}")
    size, _ = resource.getrlimit(resource.RLIMIT_AS)
    if size < ADDRESS_BYTES and size != resource.RLIM_INFINITY:
        found.append(
            f"a process may have {size >> 20} MB of addresses (`ulimit -v`), and Ray's need {ADDRESS_BYTES >> 20} MB"
        )
    return found


def _own_threads() -> int:
    """Return how many threads this user's processes have, which the limit on processes counts."""
    user, count = os.getuid(), 0
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # it has just ended
            if process.uids().real == user:
                count += process.num_threads()
    return count
