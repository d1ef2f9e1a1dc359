"""Download published files into a cache: resumable, verified by checksum, and complete or absent."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import http.client
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from tqdm import tqdm

_BLOCK_BYTES = 1 << 20
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
    """Return the folder of downloaded files: `$XDG_CACHE_HOME/flowers_batch`, by default in `~/.cache`."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "flowers_batch"


def find_cached(file: PublishedFile) -> Path | None:
    """Return a file's path in the cache, or None if it is not there; its checksum was verified when it was stored."""
    path = cache_folder() / file.name
    return path if path.is_file() and path.stat().st_size == file.size else None


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


def fetch(file: PublishedFile, timeout: float = _TIMEOUT) -> Path:
    """Return a file's path in the cache; download the file first if it is not there.

    Several processes on one machine download a file once. An interrupted download resumes where it stopped. A
    progress bar on standard error shows the file's size.

    Args:
        file: The file.
        timeout: Seconds that the server may take to answer, or to send the next byte.

    Raises:
        DownloadError: The server cannot be reached, the file does not match its checksum, or the cache cannot be
            written.
    """
    if found := find_cached(file):
        return found
    folder = cache_folder()
    with _storing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _fetch_into(folder, file, timeout)
    return folder / file.name


def _fetch_into(folder: Path, file: PublishedFile, timeout: float) -> None:
    part = folder / f"{file.name}.part"
    with (folder / f"{file.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a process that waited here finds the file that the first one stored
        if find_cached(file):
            return
        part.touch()
        _download(file, part, timeout)
        if (received := _digest(part, file.checksum.split(":")[0])) != file.checksum:
            part.unlink()
            raise DownloadError(
                f"{file.url} is not the published file: its checksum should be {file.checksum}. Received: {received}."
            )
        part.replace(folder / file.name)


def _download(file: PublishedFile, part: Path, timeout: float) -> None:
    with part.open("r+b", buffering=0) as out:
        _receive(file, part, out, timeout)


def _receive(file: PublishedFile, part: Path, out: FileIO, timeout: float) -> None:
    offset = part.stat().st_size
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


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"
