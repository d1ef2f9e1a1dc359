"""Codes of labelled photos: in memory if they fit, else streamed from their folder, in order or shuffled."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import psutil
from numpy.typing import NDArray

from flowers_batch.dataset.run_folder import Run
from flowers_batch.dataset.schema import codes_of

CHUNK_SIZE = 8192  # photos that are in memory at once, and shuffled among each other: 64 MB of VGG16's in float16
_BYTES_PER_VALUE = 12  # of codes to train on: as stored, in float32, and standardised
ROW_GROUPS_AHEAD = 2  # that are read ahead of the one in use

CodesChunk = tuple[NDArray[np.int_], NDArray[np.floating]]


class Codes(Protocol):
    """Codes by index, in the order of their folder."""

    width: int

    def take(self, indices: NDArray[np.int_]) -> NDArray[np.floating]:
        """Return codes [indices, width]; `indices` must ascend."""

    def chunks(
        self, indices: NDArray[np.int_], random: np.random.Generator | None, chunk_size: int
    ) -> Iterator[CodesChunk]:
        """Yield positions in `indices`, which must ascend, and their codes [chunk, width], until all were yielded.

        Args:
            indices: Of the codes.
            random: Shuffles them; None keeps the order.
            chunk_size: Codes in a chunk, approximately.
        """


class CodesInMemory:
    """Codes that are in memory.

    Args:
        codes: [N, width].
    """

    def __init__(self, codes: NDArray[np.floating]):
        self._codes, self.width = codes, codes.shape[1]

    def take(self, indices: NDArray[np.int_]) -> NDArray[np.floating]:
        """Return codes by index."""
        return self._codes[indices]

    def chunks(
        self, indices: NDArray[np.int_], random: np.random.Generator | None, chunk_size: int
    ) -> Iterator[CodesChunk]:
        """Yield positions and codes."""
        positions = random.permutation(len(indices)) if random else np.arange(len(indices))
        for start in range(0, len(indices), chunk_size):
            chunk = positions[start : start + chunk_size]
            yield chunk, self._codes[indices[chunk]]


class CodesOnDisk:
    """Codes that are read whenever they are needed.

    Args:
        run: The codes folder.
        rows: The row of each code in the folder, counted over all its shards; ascending.
        max_bytes: Memory that codes may take.
    """

    def __init__(self, run: Run, rows: NDArray[np.int_], max_bytes: int):
        self._run, self._rows, self._max_bytes = run, rows, max_bytes
        self.width = run.code_width
        self._groups = run.row_groups()
        self._starts = np.cumsum([0, *(group.rows for group in self._groups)])

    def fits_in_memory(self, count: int) -> bool:
        """Return whether `count` codes can be trained on in memory."""
        return count * self.width * _BYTES_PER_VALUE <= self._max_bytes

    def take(self, indices: NDArray[np.int_]) -> NDArray[np.floating]:
        """Return codes by index."""
        parts = [codes for _, codes in self._read(indices, None)]
        return np.concatenate(parts) if parts else np.empty((0, self.width), np.float16)

    def chunks(
        self, indices: NDArray[np.int_], random: np.random.Generator | None, chunk_size: int
    ) -> Iterator[CodesChunk]:
        """Yield positions and codes; a shuffled chunk mixes a few row groups from all over the folder."""
        held: list[CodesChunk] = []
        for part in self._read(indices, random):
            held.append(part)
            if sum(len(positions) for positions, _ in held) >= chunk_size:
                yield _joined(held, random)
                held = []
        if held:
            yield _joined(held, random)

    def _read(self, indices: NDArray[np.int_], random: np.random.Generator | None) -> Iterator[CodesChunk]:
        """Yield positions in `indices` and codes of each row group that has any."""
        rows = self._rows[indices]
        bounds = np.searchsorted(rows, self._starts)
        groups = np.flatnonzero(np.diff(bounds))
        if random:
            groups = random.permutation(groups)

        def read(number: int) -> CodesChunk:
            group = self._groups[number]
            positions = np.arange(bounds[number], bounds[number + 1])
            wanted = rows[positions] - self._starts[number]
            parts = [codes_of(batch) for batch in self._run.read_shard(group.shard, ["code"], group.number)]
            ok = np.concatenate([ok for _, ok in parts])
            codes = np.concatenate([codes for codes, _ in parts])
            return positions, codes[np.cumsum(ok)[wanted] - 1]

        ahead: deque[Future[CodesChunk]] = deque()
        with ThreadPoolExecutor(1) as reader:
            for number in groups.tolist():
                ahead.append(reader.submit(read, number))
                if len(ahead) > ROW_GROUPS_AHEAD:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()


def _joined(parts: list[CodesChunk], random: np.random.Generator | None) -> CodesChunk:
    positions = np.concatenate([positions for positions, _ in parts])
    codes = np.concatenate([codes for _, codes in parts])
    if random is None:
        return positions, codes
    order = random.permutation(len(positions))
    return positions[order], codes[order]


@dataclass(frozen=True)
class LabelledCodes:
    """Codes of labelled photos, to fit a head to or to evaluate it on.

    Attributes:
        codes: Codes of these and perhaps of other photos.
        indices: int [N]: each photo's index in `codes`; ascending.
        targets: int [N]: each photo's class.
        groups: int [N]: each photo's group of near-duplicates.
    """

    codes: Codes
    indices: NDArray[np.int_]
    targets: NDArray[np.int_]
    groups: NDArray[np.int_]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, chosen: NDArray[np.bool_] | NDArray[np.int_]) -> LabelledCodes:
        """Return some of them in the same order, by a mask or by ascending positions."""
        return replace(self, indices=self.indices[chosen], targets=self.targets[chosen], groups=self.groups[chosen])

    @property
    def is_in_memory(self) -> bool:
        """Whether all codes are in memory."""
        return isinstance(self.codes, CodesInMemory)

    def loaded(self) -> LabelledCodes:
        """Return the same photos with their codes in memory, if they fit; else itself."""
        if not isinstance(self.codes, CodesOnDisk) or not self.codes.fits_in_memory(len(self)):
            return self
        return labelled_codes_of(self.array(), self.targets, self.groups)

    def subsample(self, count: int, seed: int) -> LabelledCodes:
        """Return a random choice of `count` photos, in order; itself, if it has no more."""
        if len(self) <= count:
            return self
        return self[np.sort(np.random.default_rng(seed).permutation(len(self))[:count])]

    def array(self) -> NDArray[np.floating]:
        """Return all codes [N, width]."""
        return self.codes.take(self.indices)

    def chunks(self, random: np.random.Generator | None = None, chunk_size: int = CHUNK_SIZE) -> Iterator[CodesChunk]:
        """Yield positions in 0..N-1 and their codes, chunk by chunk; shuffled if `random` is given."""
        return self.codes.chunks(self.indices, random, chunk_size)


def labelled_codes_of(
    codes: NDArray[np.floating], targets: NDArray[np.int_], groups: NDArray[np.int_] | None = None
) -> LabelledCodes:
    """Return codes [N, width] in memory with their targets; without groups, no photo is a near-duplicate."""
    indices = np.arange(len(codes))
    return LabelledCodes(CodesInMemory(codes), indices, targets, indices if groups is None else groups)


def labelled_codes_in(
    run: Run,
    rows: NDArray[np.int_],
    targets: NDArray[np.int_],
    groups: NDArray[np.int_],
    max_memory_mb: int | None = None,
) -> LabelledCodes:
    """Return codes of some rows of a codes folder with their targets, in memory if they fit.

    Args:
        run: The codes folder.
        rows: int [N], as for `CodesOnDisk`.
        targets, groups: int [N], as in `LabelledCodes`.
        max_memory_mb: Megabytes (10^6 bytes) that codes may take; None: half of the available memory.
    """
    codes = CodesOnDisk(run, rows, max_memory_mb * 10**6 if max_memory_mb else available_memory() // 2)
    return LabelledCodes(codes, np.arange(len(rows)), targets, groups).loaded()


def available_memory() -> int:
    """Return the bytes that this process could take: of the machine or, if that is less, of its container."""
    available = psutil.virtual_memory().available
    with suppress(OSError, ValueError):  # ValueError: "max", i.e. no limit
        limit, used = (int(Path("/sys/fs/cgroup", f"memory.{name}").read_text()) for name in ("max", "current"))
        available = min(available, limit - used)
    return max(0, available)
