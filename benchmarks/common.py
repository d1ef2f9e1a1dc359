"""What the benchmarks share: photos to work on, peers timed in turn, and how results are told."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

PHOTOS_VARIABLE = "FLOWERS_BATCH_PHOTOS"  # as for the tests: a folder of photos
_DRAWN = 60


@dataclass(frozen=True)
class Claim:
    """One line of the targets, and what was measured.

    Attributes:
        claim: What is measured, in words.
        value: The measured number; a ratio wherever that is possible.
        target: What it is held to.
        at_least: Whether `value` is to be at least `target`, or at most.
        spread: The lowest and the highest of the rounds.
    """

    claim: str
    value: float
    target: float
    at_least: bool = True
    spread: tuple[float, float] | None = None

    @property
    def holds(self) -> bool:
        """Whether the target is met."""
        return self.value >= self.target if self.at_least else self.value <= self.target


def parse_arguments(description: str, **more: dict) -> argparse.Namespace:
    """The command line: `--photos`, and what a benchmark adds (`argparse`'s keywords, by name)."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--photos",
        type=Path,
        default=os.environ.get(PHOTOS_VARIABLE),
        help=f"a folder of photos (default: ${PHOTOS_VARIABLE})",
    )
    for name, settings in more.items():
        parser.add_argument(f"--{name.replace('_', '-')}", **settings)
    return parser.parse_args()


def find_photos(folder: str | Path | None, scratch: Path) -> list[Path]:
    """The JPEG files of a folder, or drawn ones where none is named; of several shapes, in a mixed order."""
    if folder is None:
        from flowers_batch.demo.drawings import draw_photos

        print(f"No photos are named (--photos or {PHOTOS_VARIABLE}): drawn ones are taken.", file=sys.stderr)
        folder = scratch / "drawn"
        draw_photos(folder, _DRAWN)
    found = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    if not found:
        raise SystemExit(f"There are no JPEG files in {folder}: name another folder with --photos.")
    return [found[index] for index in np.random.default_rng(0).permutation(len(found))]


def write_archive(sources: Sequence[Path], folder: Path, count: int) -> Path:
    """A folder of so many JPEG files with different bytes, made of a few by a comment in each."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = [path.read_bytes() for path in sources[:count]]
    for number in range(count):
        comment = b"photo %09d" % number
        segment = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment  # JPEG's COM marker, ITU T.81
        data = contents[number % len(contents)]
        (folder / f"{number:06d}.jpg").write_bytes(data[:2] + segment + data[2:])
    return folder


def enlarge(path: Path, width: int, height: int) -> bytes:
    """A JPEG file of a camera's size and roughly its number of bytes, made from a small photo and noise."""
    photo = cv2.resize(cv2.imread(str(path)), (width, height), interpolation=cv2.INTER_CUBIC)
    noise = np.random.default_rng(0).normal(0, 6, photo.shape)
    noisy = np.clip(photo + noise, 0, 255).astype(np.uint8)
    return cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


def run_interleaved(rounds: int, **measures: Callable[[], float]) -> dict[str, list[float]]:
    """Takes each measure once a round, one after the other, so that a busy moment of the machine hits them all."""
    results: dict[str, list[float]] = {name: [] for name in measures}
    for number in range(rounds):
        for name, measure in measures.items():
            results[name].append(measure())
            print(f"round {number + 1} of {rounds}: {name} {results[name][-1]:.4g}", file=sys.stderr)
    return results


def ratio_claim(
    claim: str, ours: Sequence[float], peers: Sequence[float], target: float, at_least: bool = True
) -> Claim:
    """A claim on the median of the rounds' ratios."""
    ratios = [mine / theirs for mine, theirs in zip(ours, peers, strict=True)]
    return Claim(claim, statistics.median(ratios), target, at_least, (min(ratios), max(ratios)))


@contextmanager
def warm_process(script: str, *options: object) -> Iterator[Callable[[], float]]:
    """Keeps a script in a process of its own, where `serve` measures once for each call of what this gives.

    It begins when that process is ready, so that its start disturbs no measure.
    """
    command = [sys.executable, script, *map(str, options)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout

        def answer() -> str:
            if line := process.stdout.readline():
                return line
            raise SystemExit(f"{' '.join(command[1:])} ended with code {process.wait()} before it had answered.")

        def measure() -> float:
            print(file=process.stdin, flush=True)
            return json.loads(answer())

        answer()
        yield measure


def run_once(script: str, *options: object) -> float:
    """One measure by a script in a process of its own, which ends with it."""
    with warm_process(script, *options) as measure:
        return measure()


def serve(measure: Callable[[], float]) -> None:
    """What the other process of `kept` does: says that it is ready, and measures as often as it is asked."""
    print("ready", flush=True)
    for _ in sys.stdin:
        with redirect_stdout(sys.stderr):  # libraries that print must not answer
            answer = measure()
        print(json.dumps(answer), flush=True)


@contextmanager
def stopwatch() -> Iterator[Callable[[], float]]:
    """Gives what tells the seconds since the block began."""
    began = time.perf_counter()
    yield lambda: time.perf_counter() - began


def markdown_table(rows: list[dict[str, object]]) -> list[str]:
    """Figures that belong together as the lines of a table in Markdown."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [names, ["---"] * len(names), *([str(row.get(name, "")) for name in names] for row in rows)]
    return [f"| {' | '.join(line)} |" for line in cells]


def report(benchmark: str, claims: Sequence[Claim], figures: dict[str, object]) -> None:
    """Prints the claims as a table, then all as one JSON line."""
    width = max((len(claim.claim) for claim in claims), default=0)
    for claim in claims:
        sign = ">=" if claim.at_least else "<="
        spread = f"  ({claim.spread[0]:.3g} to {claim.spread[1]:.3g})" if claim.spread else ""
        verdict = "holds" if claim.holds else "FAILS"
        print(f"{claim.claim:{width}}  {claim.value:10.4g} {sign} {claim.target:<8g} {verdict}{spread}")
    for name, value in figures.items():
        print(
            f"{name:{width}}  {value}"
            if not isinstance(value, list)
            else "\n".join([f"{name}:", *markdown_table(value)])
        )
    told = [asdict(claim) | {"holds": claim.holds} for claim in claims]
    print(json.dumps({"benchmark": benchmark, "claims": told, "figures": figures}))
