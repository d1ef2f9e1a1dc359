"""The keywords of the photos of an archive, from their files and their sidecars, which decode workers read."""

from __future__ import annotations

import os
import unicodedata
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate

import pyarrow as pa

from flowers_batch.config import ArchiveConfig
from flowers_batch.decoding.groups import requests_of
from flowers_batch.decoding.pool import GROUP, DecodePool, PoolSettings
from flowers_batch.decoding.tasks import TASKS_PER_WORKER, DecodedGroup
from flowers_batch.errors import InputError
from flowers_batch.metadata.file_keywords import FileKeywords, KeywordsOutput
from flowers_batch.metadata.sidecars import sidecars_of
from flowers_batch.sources.folders import FolderSource
from flowers_batch.sources.images import Image, batches_of, images_of, path_bytes, path_text
from flowers_batch.sources.lists import ListSource
from flowers_batch.sources.source import Source
from flowers_batch.storage.local_files import reason_of

_WORKERS = min(os.cpu_count() or 1, 16)
_IN_FLIGHT = TASKS_PER_WORKER * _WORKERS  # groups of files
_SECONDS = 10.0  # of CPU time for one file, which takes some tenths of a millisecond
_FOLDERS_KEPT = 8  # whose names are in memory: photos come in the order of their paths


@dataclass(frozen=True)
class PhotoKeywords:
    """The keywords of a photo.

    Attributes:
        path: Its key.
        given: By people or other programs, as `xmp.Keywords` has them.
        problems: Why its file, some of its metadata or a sidecar could not be read: sentences.
    """

    path: str
    given: tuple[str, ...]
    problems: tuple[str, ...]


@lru_cache(maxsize=1 << 16)
def folded(keyword: str) -> str:
    """Return a keyword as it is compared: in NFC, whatever its case."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", keyword).casefold())


def keywords_of(source: Source, batches: Iterable[pa.RecordBatch | pa.Table]) -> Iterator[PhotoKeywords]:
    """Yield the keywords of photos, in their order.

    Photos on this machine have sidecars; those in a store, a tar or a table have embedded keywords only.

    Args:
        source: Where the photos are read from.
        batches: The photos: rows with the columns `IMAGES`, some thousands at a time.

    Raises:
        InputError: A row is none of the source's photos.
        RunError: The source no longer exists.
    """
    if isinstance(source, FolderSource | ListSource):
        from flowers_batch.metadata.blocks import has_all_blocks  # with the image libraries

        source = replace(source, is_enough=has_all_blocks)
    with closing(_KeywordReader(source)) as reader:
        for batch in batches:
            images = images_of(batch)
            sidecars = [reader.sidecars(image) for image in images]
            found = reader.read([*images, *(each for own in sidecars for each in own)])
            photos = [next(found) for _ in images]
            for image, photo, own in zip(images, photos, sidecars, strict=True):
                yield _combined(image, photo, [_of_sidecar(each, next(found)) for each in own])


def _of_sidecar(sidecar: Image, found: FileKeywords) -> FileKeywords:
    """Return what was found in a sidecar, with its name in the problems."""
    is_other = not (found.is_xmp or found.problems)
    problems = ("It is not XMP.",) if is_other else found.problems
    return replace(found, problems=tuple(f"{sidecar.path}: {problem}" for problem in problems))


def _combined(image: Image, photo: FileKeywords, sidecars: Sequence[FileKeywords]) -> PhotoKeywords:
    """Return the keywords of a photo without those that any of its files lists as ours.

    Programs copy keywords from a sidecar into the photo, and paths of keywords level by level.
    """
    files = (*sidecars, photo)
    ours = {folded(word) for each in files for word in each.ours}
    copied = ours.union(*map(_levels_of, ours))
    given = [word for each in sidecars for word in each.given if folded(word) not in ours]
    given += [word for word in photo.given if folded(word) not in copied]
    problems = tuple(problem for each in files for problem in each.problems)
    return PhotoKeywords(image.path, tuple(dict.fromkeys(given)), problems)


def _levels_of(path: str) -> set[str]:
    """Return the levels of a path, and the paths of those above the last one."""
    levels = path.split("/")
    return {*levels, *accumulate(levels, "{}/{}".format)}


class _KeywordReader:
    """Reads keywords in processes of its own.

    Args:
        source: Where photos and their sidecars are read from.
    """

    def __init__(self, source: Source):
        self._source = source
        self._names_in = lru_cache(_FOLDERS_KEPT)(_sidecar_names)
        settings = PoolSettings(_WORKERS, ArchiveConfig.max_pixels, _SECONDS)
        self._pool = DecodePool(source, KeywordsOutput(), settings, _IN_FLIGHT * GROUP)

    def sidecars(self, image: Image) -> list[Image]:
        """Return the sidecars of a photo that exist."""
        file = self._source.local_path(image)
        if file is None:
            return []
        names = self._names_in(os.path.dirname(file))
        candidates = map(path_bytes, sidecars_of(image.path)) if names else ()
        return [Image(path_text(path)) for path in candidates if os.path.basename(path) in names]

    def read(self, files: Sequence[Image]) -> Iterator[FileKeywords]:
        """Yield the keywords in files, in their order; several groups of them are read at once."""
        submitted: deque[tuple[int, Future[DecodedGroup]]] = deque()
        for group, start in enumerate(range(0, len(files), GROUP)):
            if len(submitted) == _IN_FLIGHT:
                yield from self._receive(*submitted.popleft())
            (rows,) = batches_of(files[start : start + GROUP])
            first_slot = group % _IN_FLIGHT * GROUP
            submitted.append((first_slot, self._pool.submit(requests_of(rows), first_slot)))
        while submitted:
            yield from self._receive(*submitted.popleft())

    def _receive(self, first_slot: int, decoded: Future[DecodedGroup]) -> list[FileKeywords]:
        messages = decoded.result().rows["message"].to_pylist()
        slots = self._pool.slots[first_slot:]
        return [
            KeywordsOutput.read(slot) if message is None else FileKeywords(problems=(message,))
            for message, slot in zip(messages, slots, strict=False)
        ]

    def close(self) -> None:
        """End the processes."""
        self._pool.close()


def _sidecar_names(folder: bytes) -> frozenset[bytes]:
    """Return the names of a folder's sidecars; none if it does not exist."""
    try:
        return frozenset(name for name in os.listdir(folder) if name.lower().endswith(b".xmp"))
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()
    except (OSError, ValueError) as error:  # ValueError: a NUL in its name
        raise InputError(
            f"The folder {path_text(folder)} cannot be listed ({reason_of(error)}), so that sidecars in it would be "
            "missed: allow it."
        ) from None
