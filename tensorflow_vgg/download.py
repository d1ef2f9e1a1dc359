"""Fetches a published file: resumed, verified, and put into place whole."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import http.client
import os
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

_BLOCK = 1 << 20
_TIMEOUT = 10.0  # seconds without an answer, or without a byte


class DownloadError(OSError):
    """A file that cannot be had from where it is published, or is not what was published."""


@dataclass(frozen=True)
class Published:
    """A file as its publisher describes it.

    Attributes:
        url: Where it lies.
        bytes: Its size.
        digest: `md5:...` or `sha256:...`, in hexadecimal.
    """

    url: str
    bytes: int
    digest: str

    @property
    def name(self) -> str:
        """Its file name."""
        return self.url.rsplit("/", 1)[1]


def cache_folder() -> Path:
    """Where fetched files are kept: `$XDG_CACHE_HOME/flowers_batch`, by default in `~/.cache`."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "flowers_batch"


def cached(file: Published) -> Path | None:
    """Where a file lies in the cache, if it does; it was verified when it was put there."""
    path = cache_folder() / file.name
    return path if path.is_file() and path.stat().st_size == file.bytes else None


def is_reachable(file: Published, seconds: float = _TIMEOUT) -> bool:
    """Whether a file's server answers within so many seconds, looking its name up included."""

    def ask() -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            request = urllib.request.Request(file.url, method="HEAD")
            with urllib.request.urlopen(request, timeout=seconds) as answer:
                answers.append(answer.status)

    answers: list[int] = []
    asking = threading.Thread(target=ask, daemon=True)  # a name server that is silent cannot be hurried
    asking.start()
    asking.join(seconds)
    return bool(answers)


def fetch(file: Published) -> Path:
    """Gives a file's place in the cache, downloading it if need be, once on a machine.

    A broken download goes on where it stopped. The file's size is told on standard error before it begins.

    Raises:
        DownloadError: It cannot be reached, or is not what its publisher's checksum says.
    """
    if found := cached(file):
        return found
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{file.name}.part"
    with (folder / f"{file.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # whoever waits here finds the file when the first is done
        if found := cached(file):
            return found
        part.touch()
        _download(file, part)
        if (received := _digest(part, file.digest.split(":")[0])) != file.digest:
            part.unlink()
            raise DownloadError(
                f"{file.url} is not the published file: its checksum should be {file.digest}. Received: {received}."
            )
        part.replace(folder / file.name)
    return folder / file.name


def _download(file: Published, part: Path) -> None:
    have = part.stat().st_size
    request = urllib.request.Request(file.url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer, part.open("r+b") as out:
            have = have if answer.status == 206 else 0
            out.truncate(have)
            out.seek(have)
            with tqdm(
                desc=f"downloading {file.name}",
                initial=have,
                total=file.bytes,
                unit="B",
                unit_scale=True,
                mininterval=0.5,
            ) as bar:
                while block := answer.read(_BLOCK):
                    out.write(block)
                    bar.update(len(block))
            out.flush()
            os.fsync(out.fileno())
            missing = answer.length  # of what was announced; a connection that is cut ends like a whole one
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing is left to fetch: the checksum decides
            return
        raise DownloadError(f"{file.url} cannot be downloaded: {error}.") from None
    except (OSError, http.client.HTTPException) as error:
        reason = str(getattr(error, "reason", error)).strip()
        raise DownloadError(f"{file.url} cannot be reached: {reason}.") from None
    if missing:  # what came is kept, and the next download goes on from there
        raise DownloadError(f"{file.url} broke off {missing} bytes before its end: ask for it again.")


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"
