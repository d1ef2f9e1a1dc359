"""Download published files into a cache: resumable, verified by checksum, and complete or absent."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import http.client
import os
import stat
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from tqdm import tqdm

_BLOCK_BYTES = 1 << 20
_WAIT_SECONDS = 0.5  # between two tries to take the lock that another process holds
_FOLDER_MODE, _FILE_MODE = 0o775, 0o664  # less the umask: others never get the right to write
_TIMEOUT = 10.0  # seconds that a server may take to answer, or to send the next byte


class DownloadError(OSError):
    """A file could not be downloaded, or is not the file that was published."""


@dataclass(frozen=True)
class PublishedFile:
    """A file as its publisher describes it.

    Attributes:
        url: Its address.
        size: Its size in bytes.
        checksum: `md5:...` or `sha256:...`, in hexadecimal.
    """

    url: str
    size: int
    checksum: str

    @property
    def name(self) -> str:
        """Its file name, the last part of its address."""
        return self.url.rsplit("/", 1)[1]


def cache_folder() -> Path:
    """Return the folder of downloaded files: `$XDG_CACHE_HOME/flowers_batch`, by default in `~/.cache`.

    Raises:
        DownloadError: There is no home folder, and XDG_CACHE_HOME is not set.
    """
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return Path(base).expanduser() / "flowers_batch"
    except RuntimeError:
        raise DownloadError(
            "This user has no home folder for the cache of downloaded files: name a folder as XDG_CACHE_HOME."
        ) from None


def make_cache_folder() -> Path:
    """Return the folder of downloaded files; it is made if it is not there.

    Raises:
        DownloadError: It cannot be made or written.
    """
    folder = cache_folder()
    with _storing(folder):
        for each in (*reversed(folder.parents), folder):
            each.mkdir(_FOLDER_MODE, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    return folder


def find_cached(file: PublishedFile) -> Path | None:
    """Return a file's path in the cache, or None if it is not there; its checksum was verified when it was stored."""
    try:
        path = cache_folder() / file.name
        return path if path.is_file() and path.stat().st_size == file.size else None
    except OSError:  # there is no home folder, or it cannot be read
        return None


def is_reachable(file: PublishedFile, timeout: float = _TIMEOUT) -> bool:
    """Return whether a file's server answers within a time.

    Args:
        file: The file.
        timeout: The time in seconds, which includes the DNS lookup.
    """

    def send_request() -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            request = urllib.request.Request(file.url, method="HEAD")
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                answers.append(answer.status)

    answers: list[int] = []
    # In a thread, since a DNS lookup has no timeout.
    thread = threading.Thread(target=send_request, daemon=True)
    thread.start()
    thread.join(timeout)
    return bool(answers)


def no_progress() -> None:
    """Stand in for a function that watches a download, where there is none."""


def fetch(file: PublishedFile, timeout: float = _TIMEOUT, progress: Callable[[], None] = no_progress) -> Path:
    """Return a file's path in the cache; download the file first if it is not there.

    Several processes on one machine download a file once. An interrupted download resumes where it stopped. A
    progress bar on standard error shows the file's size.

    Args:
        file: The file.
        timeout: Seconds that the server may take to answer, or to send the next byte.
        progress: Called with each piece that is received, and twice a second while another process downloads the file.

    Raises:
        DownloadError: The server cannot be reached, the file does not match its checksum, or the cache cannot be
            written.
    """
    if found := find_cached(file):
        return found
    folder = make_cache_folder()
    with _storing(folder), _locked(folder / f"{file.name}.lock", progress):
        # A process that waited here finds the file that another one stored.
        return find_cached(file) or _download_verified(file, folder, timeout, progress)


@contextlib.contextmanager
def _locked(path: Path, progress: Callable[[], None]) -> Iterator[None]:
    """Hold a lock file, once no other process does; the kernel releases the lock of one that is killed."""
    with _open_own(path) as lock:
        while not _try_lock(lock):
            progress()
            time.sleep(_WAIT_SECONDS)
        yield


def _open_own(path: Path) -> FileIO:
    """Open a file for writing; it is made if it is not there.

    Whoever can write to the cache can put a link under the name, so that another file of the user would be changed.

    Raises:
        DownloadError: It is a link, has other names, or is no regular file.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        file = FileIO(os.open(path, flags, _FILE_MODE), "r+")
        status = os.fstat(file.fileno())
        if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
            return file
        file.close()
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise
    raise DownloadError(f"{path} cannot be written, since it is a link or no regular file: delete it.")


def _try_lock(file: FileIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _download_verified(file: PublishedFile, folder: Path, timeout: float, progress: Callable[[], None]) -> Path:
    part = folder / f"{file.name}.part"
    with _open_own(part) as out:
        tries = 2 if _size(out) else 1  # what an earlier download left may be of another version than the rest
        for _ in range(tries):
            _receive(file, part, out, timeout, progress)
            if (received := _digest(out, file.checksum.split(":")[0])) == file.checksum:
                return part.replace(folder / file.name)
            out.truncate(0)
    part.unlink()
    raise DownloadError(
        f"{file.url} is not the published file: its checksum should be {file.checksum}. Received: {received}."
    )


def _receive(file: PublishedFile, part: Path, out: FileIO, timeout: float, progress: Callable[[], None]) -> None:
    offset = _size(out)
    request = urllib.request.Request(file.url, headers={"Range": f"bytes={offset}-"} if offset else {})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            offset = offset if answer.status == 206 else 0  # a server without ranges sends all of it again
            with _storing(part):
                out.truncate(offset)
                out.seek(offset)
            with tqdm(
                desc=f"downloading {file.name}",
                initial=offset,
                total=file.size,
                unit="B",
                unit_scale=True,
                mininterval=0.5,
            ) as bar:
                while block := answer.read(_BLOCK_BYTES):
                    with _storing(part):
                        _write(out, block)
                    bar.update(len(block))
                    progress()
            with _storing(part):
                os.fsync(out.fileno())
            missing = answer.length  # of Content-Length: a dropped connection looks like the end of the file
    except urllib.error.HTTPError as error:
        if error.code == 416:  # the file is already complete: its checksum decides
            return
        raise DownloadError(
            f"{file.url} cannot be downloaded ({error}): try again later, or provide the file yourself."
        ) from None
    except DownloadError:
        raise
    except (OSError, http.client.HTTPException) as error:
        reason = str(getattr(error, "reason", error)).strip()
        raise DownloadError(
            f"{file.url} cannot be reached ({reason}): check the network, or provide the file yourself."
        ) from None
    if missing:  # what was received is kept, so that the next download resumes there
        raise DownloadError(f"{file.url} broke off {missing} bytes before its end: try again to download the rest.")


def _write(out: FileIO, block: bytes) -> None:
    left = memoryview(block)
    while left:
        left = left[out.write(left) :]


@contextlib.contextmanager
def _storing(path: Path) -> Iterator[None]:
    """Explain I/O errors of the block, which writes a file, so that they are not taken for those of the network."""
    try:
        yield
    except DownloadError:
        raise
    except OSError as error:
        raise DownloadError(
            f"{path} cannot be written ({error.strerror}): make room or give write access, or name another folder as "
            "XDG_CACHE_HOME."
        ) from None


def _size(file: FileIO) -> int:
    return os.fstat(file.fileno()).st_size


def _digest(file: FileIO, algorithm: str) -> str:
    file.seek(0)
    return f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"
