"""Codes of labelled photos: in memory where they fit, else streamed from their folder, in order or shuffled."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from flowers_batch.dataset.run_folder import Run
from flowers_batch.dataset.schema import CODES, codes_of
from flowers_batch.dataset.shard_file import read_shard

_CHUNK = 8192  # photos that are in memory at once, and shuffled among each other: of VGG16 64 MB in float16
_BYTES = 12  # for each number of a code that is trained on: as stored, in float32, and standardised
_GROUPS_AHEAD = 2  # that are read while the ones before are worked on

Chunk = tuple[NDArray[np.int_], NDArray[np.floating]]


class Codes(Protocol):
    """Codes, each by a number, which grows as they lie in their folder."""

    width: int

    def take(self, numbers: NDArray[np.int_]) -> NDArray[np.floating]:
        """Codes [numbers, width]; `numbers` must grow."""

    def chunks(self, numbers: NDArray[np.int_], random: np.random.Generator | None) -> Iterator[Chunk]:
        """Positions in `numbers`, and their codes [chunk, width], until there were all; shuffled if `random` is given.
        `numbers` must grow."""


class CodesInMemory:
    """Codes that are held.

    Args:
        codes: [N, width].
    """

    def __init__(self, codes: NDArray[np.floating]):
        self._codes, self.width = codes, codes.shape[1]

    def take(self, numbers: NDArray[np.int_]) -> NDArray[np.floating]:
        """Codes by their numbers."""
        return self._codes[numbers]

    def chunks(self, numbers: NDArray[np.int_], random: np.random.Generator | None) -> Iterator[Chunk]:
        """Positions and codes."""
        positions = random.permutation(len(numbers)) if random else np.arange(len(numbers))
        for start in range(0, len(numbers), _CHUNK):
            chunk = positions[start : start + _CHUNK]
            yield chunk, self._codes[numbers[chunk]]


class CodesOnDisk:
    """Codes that are read whenever they are asked for.

    Args:
        run: The codes folder.
        rows: The row of the folder, counted over all its shards, that each code lies in; they grow.
        memory: Bytes that are there for codes.
    """

    def __init__(self, run: Run, rows: NDArray[np.int_], memory: int):
        self._run, self._rows, self.memory = run, rows, memory
        self.width = run.code_width
        self._groups = run.row_groups()
        self._starts = np.cumsum([0, *(group.rows for group in self._groups)])

    def take(self, numbers: NDArray[np.int_]) -> NDArray[np.floating]:
        """Codes by their numbers."""
        parts = [codes for _, codes in self._read(numbers, None)]
        return np.concatenate(parts) if parts else np.empty((0, self.width), np.float16)

    def chunks(self, numbers: NDArray[np.int_], random: np.random.Generator | None) -> Iterator[Chunk]:
        """Positions and codes. Shuffled ones are those of a few row groups, drawn from all of the folder."""
        held: list[Chunk] = []
        for part in self._read(numbers, random):
            held.append(part)
            if sum(len(positions) for positions, _ in held) >= _CHUNK:
                yield _joined(held, random)
                held = []
        if held:
            yield _joined(held, random)

    def _read(self, numbers: NDArray[np.int_], random: np.random.Generator | None) -> Iterator[Chunk]:
        """Each row group that has codes of these numbers: positions in `numbers`, and the codes."""
        rows = self._rows[numbers]
        bounds = np.searchsorted(rows, self._starts)
        groups = np.flatnonzero(np.diff(bounds))
        if random:
            groups = random.permutation(groups)

        def read(number: int) -> Chunk:
            group = self._groups[number]
            positions = np.arange(bounds[number], bounds[number + 1])
            wanted = rows[positions] - self._starts[number]
            parts = [
                codes_of(batch) for batch in read_shard(self._run.folder, CODES, group.shard, ["code"], group.number)
            ]
            ok = np.concatenate([ok for _, ok in parts])
            codes = np.concatenate([codes for codes, _ in parts])
            return positions, codes[np.cumsum(ok)[wanted] - 1]

        ahead: deque[Future[Chunk]] = deque()
        with ThreadPoolExecutor(1) as reader:
            for number in groups.tolist():
                ahead.append(reader.submit(read, number))
                if len(ahead) > _GROUPS_AHEAD:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()


def _joined(parts: list[Chunk], random: np.random.Generator | None) -> Chunk:
    positions = np.concatenate([positions for positions, _ in parts])
    codes = np.concatenate([codes for _, codes in parts])
    if random is None:
        return positions, codes
    order = random.permutation(len(positions))
    return positions[order], codes[order]


@dataclass(frozen=True)
class LabelledCodes:
    """Photos that a head is fitted to, or judged by.

    Attributes:
        codes: Codes of these and maybe of other photos.
        numbers: int [N]: the number of each one's code; they grow.
        targets: int [N]: the number of each one's class.
        groups: int [N]: photos of equal groups are copies of each other.
    """

    codes: Codes
    numbers: NDArray[np.int_]
    targets: NDArray[np.int_]
    groups: NDArray[np.int_]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, chosen: NDArray[np.bool_] | NDArray[np.int_]) -> LabelledCodes:
        """Some of them, in the same order: a mask, or positions that grow."""
        return replace(self, numbers=self.numbers[chosen], targets=self.targets[chosen], groups=self.groups[chosen])

    @property
    def is_in_memory(self) -> bool:
        """Whether the codes are held anyway."""
        return isinstance(self.codes, CodesInMemory)

    def loaded(self) -> LabelledCodes:
        """The same, with its codes in memory if they fit."""
        codes = self.codes
        if not isinstance(codes, CodesOnDisk) or len(self) * codes.width * _BYTES > codes.memory:
            return self
        return sample_of(self.array(), self.targets, self.groups)

    def array(self) -> NDArray[np.floating]:
        """All codes [N, width]."""
        return self.codes.take(self.numbers)

    def chunks(self, random: np.random.Generator | None = None) -> Iterator[Chunk]:
        """Positions in the sample and their codes; shuffled if `random` is given."""
        return self.codes.chunks(self.numbers, random)


def sample_of(
    codes: NDArray[np.floating], targets: NDArray[np.int_], groups: NDArray[np.int_] | None = None
) -> LabelledCodes:
    """A sample of codes [N, width] in memory; without groups, no photo is a copy of another."""
    numbers = np.arange(len(codes))
    return LabelledCodes(CodesInMemory(codes), numbers, targets, numbers if groups is None else groups)


def labelled_codes_in(
    run: Run,
    rows: NDArray[np.int_],
    targets: NDArray[np.int_],
    groups: NDArray[np.int_],
    max_memory_mb: int | None = None,
) -> LabelledCodes:
    """A sample of a codes folder's rows, in memory if it fits.

    Args:
        run: The codes folder.
        rows: int [N], as for `CodesOnDisk`.
        targets, groups: int [N], as in `LabelledCodes`.
        max_memory_mb: Megabytes that codes may take; None: half of what is free.
    """
    codes = CodesOnDisk(run, rows, max_memory_mb * 10**6 if max_memory_mb else free_memory() // 2)
    return LabelledCodes(codes, np.arange(len(rows)), targets, groups).loaded()


def free_memory() -> int:
    """Bytes that this process could take: of the machine or, where that is less, of the container that it runs in."""
    free = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    with suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free.append(1024 * int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]))
    with suppress(OSError, ValueError):  # ValueError: "max", which is none
        most, taken = (int(Path("/sys/fs/cgroup", f"memory.{name}").read_text()) for name in ("max", "current"))
        free.append(most - taken)
    return max(0, min(free))
