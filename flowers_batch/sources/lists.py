"""Lists of paths as a source of images."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import lru_cache
from typing import ClassVar
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc

from flowers_batch.errors import InputError, first_line
from flowers_batch.sources.images import (
    EPOCH,
    IMAGES,
    PATH,
    TIME,
    Image,
    path_bytes,
    path_text,
    paths_bytes,
    paths_text,
    stat_image,
)
from flowers_batch.sources.left_out import LeftOut, start_counting
from flowers_batch.sources.list_entries import are_named
from flowers_batch.sources.list_files import ENTRIES, READERS
from flowers_batch.sources.ordering import are_in_path_order, batches_in_order, without_repeats
from flowers_batch.sources.reading import IsEnough, ReadError, read_bytes, read_disk, read_store
from flowers_batch.sources.skipping import SKIP_NOTHING, Skipping
from flowers_batch.storage.folder import NOT_UTF8, Folder
from flowers_batch.storage.io_errors import raise_io_error
from flowers_batch.storage.local_files import is_utf8
from flowers_batch.storage.opening import open_folder
from flowers_batch.storage.retries import with_retries
from flowers_batch.storage.urls import (
    STORE_SCHEMES,
    authority_of,
    check_entry,
    check_server,
    scheme_of,
    split_options,
    with_known_scheme,
)

_SCHEME = "[A-Za-z][A-Za-z0-9+.-]*://"
_URL = re.compile(_SCHEME.encode())
_KNOWN = f"^({'|'.join((*STORE_SCHEMES, 'file'))})://"
# Options, what may be a secret, empty parts, and names that are not UTF-8.
_ODD = rf"[?@]|[^:]//|:///|/[^/]*://|^{NOT_UTF8}"


@dataclass
class ListSource:
    """All images that lists name, whatever their suffix.

    An entry is an absolute path, a URL, or relative to `root`. A URL has no size and no time unless the list gives
    them, so that changes of it are not noticed.

    Attributes:
        folder: The lists' folder.
        name: The list's name, or a pattern of names.
        root: What relative entries are relative to, and what entries below it are keyed by; None: `folder`, and
            entries keep their names.
        skipping: Which entries are left out.
        is_enough: Whether the beginning of a file on this machine is all that is read of it: see `read_disk`.
        left_out: What the last listing left out.
        repeated: Entries that repeat an earlier one, counted while listing.
    """

    folder: Folder
    name: str
    root: str | None = None
    skipping: Skipping = SKIP_NOTHING
    is_enough: IsEnough | None = None
    left_out: LeftOut = field(default_factory=LeftOut, init=False)
    repeated: int = field(default=0, init=False)
    in_path_order: ClassVar[bool] = True
    may_read_stores: ClassVar[bool] = True  # any entry may be a URL
    found_by_path: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self._base = open_folder(self.root) if self.root else self.folder
        self.root = self._base.url if self.root else None  # absolute, for processes that run elsewhere
        base, self._options = self._base.url, ""
        if scheme_of(base):
            base, _, self._options = base.partition("?")
            base = unquote(base)  # as entries are written
        self._prefix = os.fsencode(f"{base.rstrip('/')}/") if self.root else b""  # of entries below the root

    @property
    def url(self) -> str:
        """The list's absolute path, or its URL."""
        return self.folder.url_of(self.name)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """List the images in the order of their paths' bytes; lists in another order are sorted on disk.

        Yields:
            Batches with the columns `IMAGES`.

        Raises:
            InputError: A list cannot be read, or has an entry without a path.
        """
        for batch in self.entries():
            yield self._images(batch)

    def entries(self) -> Iterator[pa.RecordBatch]:
        """Yield what the lists say, in the order of their paths' bytes: columns `ENTRIES`; no file is looked at.

        Raises:
            InputError: A list cannot be read, or has an entry without a path.
        """
        in_order = are_in_path_order(self._entries())
        self.repeated, self.left_out = 0, start_counting(self.skipping)  # what the second reading counts
        entries = self._entries() if in_order else _sorted(self._entries())
        for batch, repeated in without_repeats(entries):
            self.repeated += repeated
            yield batch

    def owns(self, rows: pa.Table) -> pa.Array:
        """Return whether the lists name the images of manifest rows: bool [rows]; the lists are read once.

        Raises:
            InputError: A list cannot be read.
        """
        counts, self.left_out = self.left_out, start_counting(self.skipping)
        try:
            return are_named(rows[PATH], (batch[PATH] for batch in self._entries()))
        finally:
            self.left_out = counts

    def _images(self, entries: pa.RecordBatch) -> pa.RecordBatch:
        """Return entries with the sizes and times that the list gives, else those of files on this machine."""
        paths, sizes, times = entries.columns
        untold = pc.or_(sizes.is_null(), times.is_null())
        if untold.true_count:
            files = [(path, self._local(path_bytes(path))) for path in paths.filter(untold).to_pylist()]
            found = [stat_image(path, where) for path, where in files if where is not None]
            is_local = pa.array([where is not None for _, where in files])
            untold = pc.replace_with_mask(untold, untold, is_local)
            sizes = pc.replace_with_mask(sizes, untold, pa.array([image.bytes for image in found], pa.int64()))
            times = pc.replace_with_mask(times, untold, pa.array([image.mtime for image in found], TIME))
        nowhere = [pa.nulls(len(entries), IMAGES.field(name).type) for name in ("source", "offset")]
        columns = [paths, *nowhere, sizes.fill_null(0), times.fill_null(pa.scalar(EPOCH, TIME))]
        return pa.RecordBatch.from_arrays(columns, schema=IMAGES)

    def _local(self, path: bytes) -> bytes | None:
        """Return the file on this machine that an entry names; None for one in a store."""
        if _URL.match(path) or not (self._base.is_local or path.startswith(b"/")):
            return None
        return os.path.join(os.fsencode(self._base.path), path)  # an absolute path stays as it is

    def local_path(self, image: Image) -> bytes | None:
        """Return the file on this machine that an entry names; None for a URL."""
        return self._local(path_bytes(image.path))

    def is_in_store(self, image: Image) -> bool:
        """Return whether an entry names an object in a store."""
        return self._local(path_bytes(image.path)) is None

    def read(self, image: Image) -> bytes:
        """Return an image's bytes.

        Raises:
            ReadError: It is not there, is not a regular file, is too large, or cannot be read.
            RunError: The folder of relative entries no longer exists.
        """
        return read_bytes(self._base, lambda: self._read(path_bytes(image.path)))

    def _read(self, path: bytes) -> bytes:
        where = self._local(path)
        if where is None:
            return read_store(*self._find_in_store(os.fsdecode(path)))
        return read_disk(where, self.is_enough)

    def _find_in_store(self, path: str) -> tuple[Folder, str]:
        """Return the folder that an entry's file system begins with, and the entry's name in it."""
        if not _URL.match(os.fsencode(path)):
            return self._base, path
        base, options = split_options(path)
        scheme, _, rest = base.partition("://")
        bucket, _, key = rest.partition("/")
        if not options and self._base.url.startswith(f"{scheme}://"):
            options = self._options
        try:
            check_server(options, self._options)
            return _bucket(f"{scheme}://{bucket}/?{options}"), key
        except InputError as error:
            raise ReadError("unreadable", str(error)) from None

    def _entries(self) -> Iterator[pa.RecordBatch]:
        """Yield keys, sizes and times as the lists give them, in their order."""
        for name in self.folder.matching(self.name):
            url = self.folder.url_of(name)
            read = READERS[name.rpartition(".")[2].lower()]
            try:
                with closing(with_retries(lambda name=name: self.folder.open(name))) as file:  # type: ignore[misc]
                    for batch in read(file, url):
                        yield self._without_excluded(batch.set_column(0, ENTRIES.field(0), self._keys(batch[PATH])))
            # ValueError: not UTF-8; OverflowError: a time beyond the year 9999.
            except (OSError, ValueError, OverflowError, pa.ArrowException) as error:
                raise_io_error(url, error)
                raise InputError(f"The list {url} cannot be read: {first_line(error)} Correct it.") from None

    def _without_excluded(self, entries: pa.RecordBatch) -> pa.RecordBatch:
        if not self.skipping.exclude:
            return entries
        kinds = [self.skipping.kind_within(path) for path in paths_bytes(entries[PATH]).to_pylist()]
        self.left_out.skipped.update(filter(None, kinds))
        return entries.filter(pa.array([kind is None for kind in kinds]))

    def _keys(self, paths: pa.Array) -> pa.Array:
        """Return `_key` of each entry: for most of them it is the path without the root.

        Raises:
            InputError: An entry is a URL that cannot be opened.
        """
        keys = paths
        if self._prefix:
            rest = pc.binary_replace_slice(paths, 0, len(self._prefix), "")
            keys = pc.if_else(pc.starts_with(paths, os.fsdecode(self._prefix)), rest, paths)
        other_schemes = pc.and_not(
            pc.match_substring_regex(paths, f"^{_SCHEME}"), pc.match_substring_regex(paths, _KNOWN)
        )
        odd = pc.or_(pc.match_substring_regex(paths, _ODD), other_schemes)
        if not odd.true_count:
            return keys
        found = [path_text(self._key(path_bytes(path))) for path in paths.filter(odd).to_pylist()]
        return pc.replace_with_mask(keys, odd, pa.array(found, pa.string()))

    def _key(self, path: bytes) -> bytes:
        is_url = bool(_URL.match(path))
        if not is_utf8(path) and (is_url or not self._base.is_local):
            raise InputError(
                f"The list {self.url} names {path.decode(errors='backslashreplace')}, and objects' names are UTF-8: "
                "save the list as UTF-8."
            )
        if is_url:
            url = with_known_scheme(path.decode())
            self._check_entry(url)
            url, options = split_options(url)
            if options and not (self.root and options == self._options):  # of another store than the root
                return f"{url}?{options}".encode()
            path = url.encode()
        else:
            self._check_entry(path.decode(errors="replace"))
        rest = path.removeprefix(self._prefix)
        return path if rest.startswith(b"/") or _URL.match(rest) else rest  # it would be read from elsewhere

    def _check_entry(self, url: str) -> None:
        try:
            check_entry(url)
            check_server(split_options(url)[1], self._options)
            if scheme_of(url) and not re.match(_KNOWN, url):
                _bucket(f"{scheme_of(url)}://{authority_of(url)}/")
        except InputError as error:
            raise InputError(f"The list {self.url} has an entry that cannot be read: {error}") from None


@lru_cache(maxsize=64)
def _bucket(url: str) -> Folder:
    return open_folder(url)


def _sorted(entries: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Sort entries by their keys' bytes, those with the same key by size and time, nulls first."""
    raw = pa.field(PATH, pa.binary())
    as_bytes = (batch.set_column(0, raw, paths_bytes(batch[PATH])) for batch in entries)
    for batch in batches_in_order(as_bytes):
        yield batch.set_column(0, ENTRIES.field(0), paths_text(batch[PATH]))
