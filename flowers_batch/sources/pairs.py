"""Pairs: several files of one photo, such as the RAW file and the JPEG that a camera writes of it.

A RAW file and the JPEG, HEIC or TIFF with the same name in the same folder are one photo, and so are a HEIC and a JPEG.
Two files of one format are two photos.
"""

from __future__ import annotations

import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import TypeVar, cast

import pyarrow as pa
import pyarrow.compute as pc

from flowers_batch.sources.images import RAW_SUFFIXES
from flowers_batch.sources.ordering import sorted_rows

Row = TypeVar("Row", bound=tuple[str, *tuple[int | float | bytes | str | None, ...]])
_JPEG, _HEIF, _TIFF = "jpeg", "heif", "tiff"
_FORMATS = {  # by suffix
    **dict.fromkeys(("jpg", "jpeg", "jpe", "jfif", "jfi", "jif", "pjpeg", "pjp", "mpo"), _JPEG),
    **dict.fromkeys(("heic", "heics", "heif", "heifs", "hif"), _HEIF),
    **dict.fromkeys(("tif", "tiff"), _TIFF),
    **{suffix: suffix for suffix in RAW_SUFFIXES},
}
_RAW_OR_HEIF = rf"\.(?:{'|'.join(suffix for suffix, kind in _FORMATS.items() if kind not in (_JPEG, _TIFF))})$"
_WITHOUT_RAW = {_HEIF, _JPEG}  # are one photo by themselves
# What follows the photo's own name: IMG_1.CR2.jpg is made of IMG_1.CR2; Pixel phones write PXL_1.RAW-01.COVER.jpg (or
# PXL_1.RAW-01.MP.COVER.jpg) and PXL_1.RAW-02.ORIGINAL.dng.
_ENDING = re.compile(rf"(?:\.(?:{'|'.join(RAW_SUFFIXES)})|\.raw-\d\d(?:\.mp)?\.(?:cover|original))?\.[^.]*\Z", re.I)


def pair_key(path: str) -> str:
    """Return what the paths of a pair have in common: the folder, and the name in lower case without its suffixes."""
    return posixpath.join(*_folder_and_stem(path))


def _folder_and_stem(path: str) -> tuple[str, str]:
    folder, name = posixpath.split(path)
    return folder, own_name(name).casefold()


def own_name(name: str) -> str:
    """Return a file's name without the suffixes in which the files of a pair differ."""
    return _ENDING.sub("", name, count=1)


def may_be_paired(paths: pa.Array) -> bool:
    """Return whether there is a RAW file or a HEIC among paths: without one, there are no pairs."""
    return pc.any(pc.match_substring_regex(paths, _RAW_OR_HEIF, ignore_case=True), min_count=0).as_py()


def pairs_of(paths: Sequence[str]) -> list[list[int]]:
    """Return the positions of the files of each photo that has several, in the order of the paths.

    Args:
        paths: Images' keys, each once.
    """
    by_key = defaultdict(list)
    for position, path in enumerate(paths):
        by_key[pair_key(path)].append(position)
    return [
        [position for _, position in files]
        for positions in by_key.values()
        for files in _photos([(paths[position], position) for position in positions])
        if len(files) > 1
    ]


def by_photo(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Yield the rows of each photo, more than one for a pair: folder by folder, those with one `pair_key` together.

    The rows are sorted on disk: they may be in any order, and more than fit into memory.

    Args:
        rows: Tuples of one length that begin with an image's key; each key comes once.

    Raises:
        RunError: The scratch disk is full.
    """
    in_order = sorted_rows((*_folder_and_stem(row[0]), *row) for row in rows)
    for _, of_key in groupby(in_order, key=itemgetter(0, 1)):
        yield from _photos([cast(Row, row[2:]) for row in of_key])


def _photos(files: list[Row]) -> Iterator[list[Row]]:
    """Yield files with one key by photo; of two with one format, it is not known which one belongs to the others."""
    formats = [_FORMATS.get(row[0].casefold().rpartition(".")[2]) for row in files]
    counts = Counter(formats)
    once = {each for each in counts if each and counts[each] == 1}
    if once.isdisjoint(RAW_SUFFIXES):
        once = _WITHOUT_RAW if once >= _WITHOUT_RAW else set()
    if len(once) > 1:
        yield [row for row, each in zip(files, formats, strict=True) if each in once]
    yield from ([row] for row, each in zip(files, formats, strict=True) if len(once) < 2 or each not in once)
