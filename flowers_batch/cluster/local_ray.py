"""A Ray of our own on this machine, for one run: it needs no home folder, and leaves nothing behind."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import psutil

from flowers_batch.cluster.caller_process import restored_sigterm_handler
from flowers_batch.cluster.restricted_access import restricted_access
from flowers_batch.cluster.shortages import DISK_BYTES, disk_shortages, shortages
from flowers_batch.errors import InputError, RunError, first_line
from flowers_batch.storage.local_files import reason_of
from flowers_batch.storage.scratch import NAME_BYTES, scratch_folder

_OBJECT_STORE_BYTES = 100 << 20  # pixels and codes never travel through it
_TEMPORARY_FOLDERS = ("/tmp", "/var/tmp")  # in place of one that Ray cannot use
_KILL_SECONDS = 5.0  # until a process that was killed has ended
# Paths of Unix sockets have at most 107 bytes (`sun_path` of unix(7), less the final zero). Ray's longest one, below a
# scratch folder, with a process number of seven digits:
_SOCKET = "/ray/session_2026-01-31_23-59-59_999999_4194304/sockets/plasma_store"
_MAX_NAME_BYTES = 107 - len(_SOCKET) - len("/") - NAME_BYTES
_SERVERS = ("gcs_server", "raylet")  # the names of their processes
_servers: list[psutil.Process] = []  # of the local Ray; a process has one at a time


@contextmanager
def local_ray() -> Iterator[None]:
    """Run a Ray on this machine until the block is left. The caller restores the environment.

    Only processes with its token can use it, and only ones on this machine can reach it.

    Raises:
        InputError: No temporary folder is fit for it.
        RunError: It does not start.
    """
    import ray

    with _ray_folder() as folder, restricted_access():
        try:
            with restored_sigterm_handler():
                _start(folder)
            _servers.extend(each for each in psutil.Process().children() if each.name() in _SERVERS)
            yield
        finally:
            started = _started_by(_servers)  # these would outlive a lost server by half a minute
            _servers.clear()
            ray.shutdown()
            _kill(started)
            kill_processes_in(folder)


def check_servers() -> None:
    """Check that the servers of a local Ray still run: without them Ray's calls block, or end this process.

    Raises:
        RunError: One has ended.
    """
    for server in _servers:
        with suppress(psutil.NoSuchProcess):
            if server.status() != psutil.STATUS_ZOMBIE:
                continue
        raise RunError(
            "A server of the Ray on this machine has ended, maybe because memory ran out. Run the same command again "
            "to resume."
        )


def kill_processes_in(folder: str) -> None:
    """End what a Ray that was interrupted while it started has left running: it would write to the folder again."""
    servers = [child for child in psutil.Process().children(recursive=True) if _names_folder(child, folder)]
    _kill([*servers, *_started_by(servers)])


def _started_by(servers: list[psutil.Process]) -> list[psutil.Process]:
    """Return the processes of actors and of Ray's agents, which name no folder once they have started."""
    found: list[psutil.Process] = []
    for server in servers:
        with suppress(psutil.Error):  # it has ended
            found += server.children(recursive=True)
    return found


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(processes, timeout=_KILL_SECONDS)


def _names_folder(process: psutil.Process, folder: str) -> bool:
    with suppress(psutil.Error):  # it has ended
        return any(folder in argument for argument in process.cmdline())
    return False


def _start(folder: str) -> None:
    import ray

    parent = os.path.dirname(folder)
    if missing := shortages(parent):
        raise RunError(f"Ray cannot be started on this machine: {'; '.join(missing)}.")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray.init(
            address="local",  # a bare `ray.init()` would join any cluster that runs on this machine
            include_dashboard=False,
            object_store_memory=_OBJECT_STORE_BYTES,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _temp_dir=folder,
        )
    except Exception as error:  # Ray's own are of no particular type
        raise RunError(
            f"Ray cannot be started on this machine ({first_line(error)}): "
            f"{'; '.join(shortages(parent)) or f'see whether there is room in memory and in {parent}'}. "
            "Then run the same command again."
        ) from error


@contextmanager
def _ray_folder() -> Iterator[str]:
    """Give the path of Ray's temporary folder, which Ray opens to every user, inside one that is private."""
    chosen = [os.path.abspath(os.environ[name]) for name in ("RAY_TMPDIR", "TMPDIR") if os.environ.get(name)]
    unfit: dict[str, str] = {}
    with ExitStack() as stack:
        for parent in dict.fromkeys((*chosen, *_TEMPORARY_FOLDERS)):
            try:
                _check_room(parent)
                folder = stack.enter_context(scratch_folder(parent))
            except OSError as error:
                unfit[parent] = reason_of(error)
            else:
                yield f"{folder}/ray"
                return
    raise InputError(
        f"Ray has no temporary folder here ({', '.join(f'{parent}: {reason}' for parent, reason in unfit.items())}): "
        f"set TMPDIR to a folder with {DISK_BYTES >> 20} MB of room, whose name has at most {_MAX_NAME_BYTES} "
        "bytes, all of them ASCII."
    )


def _check_room(parent: str) -> None:
    """Check that a folder's name and its disk have room for Ray.

    Raises:
        OSError: They do not.
    """
    if (length := len(os.fsencode(parent))) > _MAX_NAME_BYTES:
        raise OSError(f"its name has {length} bytes")
    if not parent.isascii():
        raise OSError("its name is not ASCII")
    if missing := disk_shortages(parent):
        raise OSError("; ".join(missing))
