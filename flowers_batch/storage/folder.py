"""Folders on a local disk or behind any URL that `pyarrow.fs` opens; files are published atomically."""

from __future__ import annotations

import os
import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import pyarrow as pa
from pyarrow import fs

from flowers_batch.errors import InputError
from flowers_batch.progress import no_progress
from flowers_batch.storage.io_errors import reading, writing_scratch
from flowers_batch.storage.local_files import check_is_file, is_utf8
from flowers_batch.storage.locks import hold_lock
from flowers_batch.storage.publishing import renamed, uploaded
from flowers_batch.storage.retries import with_retries
from flowers_batch.storage.scratch import scratch_folder
from flowers_batch.storage.subfolders import delete_file, delete_old_files, delete_tree
from flowers_batch.storage.urls import name_in_url, scheme_of

SCRATCH = "_tmp-"  # begins an unfinished file's name; readers skip names that begin with `_`
LOCK = "_lock"
NOT_UTF8 = "//bytes/"  # begins the percent-encoded path of a file whose name is not UTF-8; no other path does
_BLOCK_BYTES = 8 << 20


@dataclass(frozen=True)
class Folder:
    """A folder, and the file system that it is on.

    Attributes:
        url: How a user would write it: an absolute path, or a URL.
        filesystem: What reads and writes it.
        path: Its name on that file system.
        block_bytes: Bytes of a file in memory while it is copied to or from a store.
    """

    url: str
    filesystem: fs.FileSystem = field(compare=False)
    path: str = field(compare=False)
    block_bytes: int = field(default=_BLOCK_BYTES, compare=False)

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine's own file system."""
        return isinstance(self.filesystem, fs.LocalFileSystem)

    def at(self, name: str) -> str:
        """Return the name of a file of this folder on its file system."""
        return f"{self.path.rstrip('/')}/{name}" if name else self.path

    def url_of(self, name: str) -> str:
        """Return how a user would write the name of a file of this folder."""
        if not scheme_of(self.url):
            return f"{self.url.rstrip('/')}/{name}"
        base, query, options = self.url.partition("?")
        return f"{base.rstrip('/')}/{name_in_url(name)}{query}{options}"

    def info(self, name: str = "") -> fs.FileInfo:
        """Return the type, size and time of a file or folder; the type is `NotFound` if it does not exist.

        Raises:
            RunError: The disk or the store fails.
        """
        with reading(self.url_of(name) if name else self.url):
            return self.filesystem.get_file_info(self.at(name))

    def exists(self, name: str = "") -> bool:
        """Return whether there is such a file or folder.

        Raises:
            RunError: The disk or the store fails.
        """
        return self.info(name).type != fs.FileType.NotFound

    def names(self, name: str = "") -> list[str]:
        """Return the names of the files directly in a folder, sorted; without names that are not UTF-8."""
        return sorted(found.decode() for found in self._files(name) if is_utf8(found))

    def matching(self, pattern: str) -> list[str]:
        """Return the names of the files directly in this folder that match a pattern, sorted; `*` is any text.

        A `*` at the beginning does not match a dot, as in a shell.

        Raises:
            InputError: A matching name is not UTF-8.
        """
        if "*" not in pattern:
            return [pattern] if self.info(pattern).type == fs.FileType.File else []
        fitting = [name for name in self._files("") if fits(name, pattern)]
        for name in fitting:
            if not is_utf8(name):
                raise InputError(
                    f"The name of {self.url_of(name.decode(errors='backslashreplace'))} is not UTF-8: rename the file, "
                    "or move it away."
                )
        return sorted(map(bytes.decode, fitting))

    def _files(self, name: str) -> list[bytes]:
        if not self.is_local:
            with reading(self.url_of(name) if name else self.url):
                found = self.filesystem.get_file_info(fs.FileSelector(self.at(name), allow_not_found=True))
            return [info.base_name.encode() for info in found if info.type == fs.FileType.File]
        try:
            with os.scandir(os.fsencode(self.at(name))) as entries:  # pyarrow accepts only names that are UTF-8
                return [entry.name for entry in entries if os.path.isfile(entry)]
        except FileNotFoundError:
            return []

    def is_missing(self) -> bool:
        """Return whether it does not exist, or, on a disk, is empty, as the mount point of a lost disk is."""
        try:
            if not self.is_local:
                return self.filesystem.get_file_info(self.path).type == fs.FileType.NotFound
            with os.scandir(self.path) as entries:
                return next(entries, None) is None
        except OSError as error:  # a folder that may not be listed exists; a store that fails proves nothing
            return self.is_local and not isinstance(error, PermissionError)

    def open(self, name: str) -> pa.NativeFile:
        """Return a file that is open for random access.

        Raises:
            OSError: It does not exist, cannot be read, or is a device or a pipe, which might never end.
        """
        if self.is_local:
            check_is_file(self.at(name))
        return self.filesystem.open_input_file(self.at(name))

    @contextmanager
    def local_copy(self, name: str) -> Iterator[str]:
        """Give the path of a file on this machine's disk: its own or, for a store, that of a temporary copy.

        Raises:
            InputError: It does not exist.
            RunError: It cannot be read, or the temporary folder is full.
        """
        if self.is_local:
            with reading(self.url_of(name)):
                check_is_file(self.at(name))
            yield self.at(name)
            return
        with ExitStack() as stack:
            with writing_scratch():
                path = os.path.join(stack.enter_context(scratch_folder()), os.path.basename(name))
                self.copy_to(name, path)
            yield path

    def copy_to(self, name: str, path: str, progress: Callable[[], None] = no_progress) -> None:
        """Copy a file to a path on this machine.

        Args:
            name: The file.
            path: The copy's path.
            progress: Called after each block.

        Raises:
            InputError: It does not exist.
            RunError: It cannot be read.
            OSError: The path cannot be written.
        """
        url = self.url_of(name)
        with reading(url):
            file = with_retries(lambda: self.open(name))
            size = file.size()
        with file, open(path, "wb") as copy:
            for offset in range(0, size, self.block_bytes):
                with reading(url):
                    block = with_retries(lambda start=offset: file.read_at(self.block_bytes, start))  # type: ignore[misc]
                copy.write(block)
                progress()

    def delete(self, name: str) -> None:
        """Delete a file, if there is one."""
        if self.is_local:
            delete_file(self.path, name)
        elif self.exists(name):
            self.filesystem.delete_file(self.at(name))

    @contextmanager
    def publish(self, name: str) -> Iterator[str]:
        """Give the path of a scratch file to fill; it gets its name only if the block is left without an error.

        On a local disk it is renamed into place after an fsync; elsewhere it is uploaded as one object. What the block
        reads must have its own errors, such as by `reading` or `passing_errors`: I/O errors of the block without the
        name of a file are taken for errors of writing.

        Yields:
            A path with the suffix of `name`; only this process can use it.

        Raises:
            InputError: A folder in `name` is a link: those inside this folder are not followed.
            RunError: It cannot be written: the disk is full, the folder is read-only, the store fails.
        """
        url, suffix = self.url_of(name), os.path.splitext(name)[1]
        if self.is_local:
            publishing = renamed(self.path, name, f"{SCRATCH}{uuid.uuid4().hex}{suffix}", url)
        else:
            publishing = uploaded(f"{SCRATCH}{suffix}", self.filesystem, self.at(name), url, self.block_bytes)
        with publishing as path:
            yield path

    def delete_folder(self, name: str) -> None:
        """Delete a folder of this one, with all that is in it, if there is one."""
        if self.is_local:
            delete_tree(self.path, name)
        elif self.exists(name):
            self.filesystem.delete_dir(self.at(name))

    def sweep(self, name: str = "", older_than: float = 0.0) -> None:
        """Delete scratch files that killed writers left in a folder, if they are `older_than` seconds old."""
        if self.is_local:
            delete_old_files(self.path, name, SCRATCH, older_than)
            return
        for scratch in self.names(name):
            if scratch.startswith(SCRATCH):
                found = self.info(os.path.join(name, scratch))
                if found.mtime and time.time() - found.mtime.timestamp() >= older_than:
                    self.filesystem.delete_file(found.path)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for one driver; the kernel releases it when the process ends, however it ends.

        Object stores have no locks: there a second driver is detected by its run's id in the manifest.

        Raises:
            InputError: Another driver holds it.
        """
        if not self.is_local:
            yield
            return
        with hold_lock(self.at(LOCK), self.url):
            yield


def fits(name: bytes, pattern: str) -> bool:
    """Return whether the name of a file matches a pattern, as `Folder.matching` takes it."""
    if "*" not in pattern:
        return name == pattern.encode()
    if name.startswith(b".") and not pattern.startswith("."):  # as in a shell: macOS writes `._a.tar` beside `a.tar`
        return False
    return re.fullmatch(b".*".join(map(re.escape, pattern.encode().split(b"*"))), name, re.DOTALL) is not None
