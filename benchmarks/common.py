"""Shared parts of the benchmarks: photos to work on, peers timed in alternation, and the report of the results.

A peer is one of the programs that a benchmark compares, each in a process of its own. Its rounds alternate with the
other peers' rounds, and claims are made on the ratios within a round.
"""

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
from typing import TYPE_CHECKING, TypeVar

import cv2
import numpy as np

if TYPE_CHECKING:
    from flowers_batch.storage.folder import Folder

PHOTOS_VARIABLE = "FLOWERS_BATCH_PHOTOS"  # names a folder of photos, as for the tests
WEIGHTS_VARIABLE = "FLOWERS_BATCH_CONV_WEIGHTS"  # names real weights of the convolutions, as for the tests
CAMERA_VARIABLE = "FLOWERS_BATCH_CAMERA_PHOTOS"  # names a folder of photos of many megapixels, as for the tests
CODES_VARIABLE = "FLOWERS_BATCH_CODES"  # names a folder of codes of photos in one folder per class
_DRAWN_PHOTOS = 60
CAMERA_SIZE = 4000, 3000  # pixels: width and height of enlarged photos that stand in for a camera's
CAMERA_OPTION = {
    "type": Path,
    "default": os.environ.get(CAMERA_VARIABLE),
    "help": f"a folder of a camera's photos (default: ${CAMERA_VARIABLE}, else enlarged photos)",
}


@dataclass(frozen=True)
class Claim:
    """A target and the measured value.

    Attributes:
        claim: A description of what is measured.
        value: The measured number; a ratio wherever possible.
        target: The number that `value` must reach.
        at_least: Whether `value` must be at least `target`; else at most.
        spread: The lowest and the highest value of the rounds.
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
    """Parse the command line: `--photos`, and a benchmark's own options.

    Args:
        description: The text of `--help`.
        more: Keyword arguments of `ArgumentParser.add_argument`, by the option's name.
    """
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
    """Return the JPEG files of a folder in a fixed random order; without a folder, draw photos of several shapes."""
    if folder is None:
        from flowers_batch.demo.drawings import draw_photos

        print(f"No photos are given (--photos or {PHOTOS_VARIABLE}): drawn ones are used.", file=sys.stderr)
        folder = scratch / "drawn"
        draw_photos(folder, _DRAWN_PHOTOS)
    found = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    if not found:
        raise SystemExit(f"There are no JPEG files in {folder}: name another folder with --photos.")
    return [found[index] for index in np.random.default_rng(0).permutation(len(found))]


def write_archive(sources: Sequence[Path], folder: Path, count: int) -> Path:
    """Write `count` JPEG files with different bytes: copies of the sources, each with a comment of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = [path.read_bytes() for path in sources[:count]]
    for number in range(count):
        comment = b"photo %09d" % number
        segment = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment  # JPEG's COM marker, ITU T.81
        data = contents[number % len(contents)]
        (folder / f"{number:06d}.jpg").write_bytes(data[:2] + segment + data[2:])
    return folder


def write_summary(folder: Folder, shards: int, images: int) -> None:
    """Write `_SUCCESS` of a run whose images are all ok."""
    from flowers_batch.dataset.run_folder import SUCCESS
    from flowers_batch.storage.json_files import write_json

    counts = {"shards": shards, "images": images, "ok": images, "failed": 0, "ignored": 0, "duplicates": 0}
    others = {"changes": {}, "resumed": 0, "seconds": 1.0, "images_per_second": 1.0, "stage_rates": {}}
    rest = {"stage_shares": {}, "reasons": {}, "actors": [], "deaths": 0, "stalls": 0, "notes": []}
    write_json(folder, SUCCESS, counts | others | rest)


def enlarge(path: Path, width: int, height: int) -> bytes:
    """Return a JPEG file of a camera's resolution and about its size in bytes: an enlarged photo with noise."""
    photo = cv2.resize(cv2.imread(str(path)), (width, height), interpolation=cv2.INTER_CUBIC)
    noise = np.random.default_rng(0).normal(0, 6, photo.shape)
    noisy = np.clip(photo + noise, 0, 255).astype(np.uint8)
    return cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


def run_interleaved(rounds: int, **measures: Callable[[], float]) -> dict[str, list[float]]:
    """Take each measurement once per round, one after the other, so that other load on the machine affects all alike.

    Args:
        rounds: The number of rounds.
        measures: Functions that measure once and return the result.

    Returns:
        Each function's results, one per round.
    """
    results: dict[str, list[float]] = {name: [] for name in measures}
    for number in range(rounds):
        for name, measure in measures.items():
            results[name].append(measure())
            print(f"round {number + 1} of {rounds}: {name} {results[name][-1]:.4g}", file=sys.stderr)
    return results


def ratio_claim(
    claim: str, ours: Sequence[float], peers: Sequence[float], target: float, at_least: bool = True
) -> Claim:
    """Return a claim about the median of the rounds' ratios of `ours` to `peers`."""
    ratios = [mine / theirs for mine, theirs in zip(ours, peers, strict=True)]
    return Claim(claim, statistics.median(ratios), target, at_least, (min(ratios), max(ratios)))


def mean_claim(claim: str, values: Sequence[float], target: float, at_least: bool = True) -> Claim:
    """Return a claim about the mean of the rounds' values."""
    return Claim(claim, statistics.mean(values), target, at_least, (min(values), max(values)))


@contextmanager
def warm_process(script: str, *options: object) -> Iterator[Callable[[], float]]:
    """Keep a script running in a process of its own, and yield a function that has it measure once.

    The script calls `serve`. The block begins when the script is ready, so that its start affects no measurement.
    """
    command = [sys.executable, script, *map(str, options)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout

        def answer() -> str:
            if line := process.stdout.readline():
                return line
            name = " ".join(command[1:])
            raise SystemExit(f"{name} ended with exit code {process.wait()} before it answered: see its error above.")

        def measure() -> float:
            print(file=process.stdin, flush=True)
            return json.loads(answer())

        answer()
        yield measure


def run_once(script: str, *options: object) -> float:
    """Measure once with a script in a process of its own, which then ends."""
    with warm_process(script, *options) as measure:
        return measure()


def serve(measure: Callable[[], float]) -> None:
    """Be the process of `warm_process`: report that it is ready, then measure once per line on standard input."""
    print("ready", flush=True)
    for _ in sys.stdin:
        with redirect_stdout(sys.stderr):  # what libraries print is not a result
            answer = measure()
        print(json.dumps(answer), flush=True)


def most_memory() -> int:
    """Return the most bytes that this process has held, without what its parent had before it started."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


@contextmanager
def stopwatch() -> Iterator[Callable[[], float]]:
    """Yield a function that returns the seconds since the block began."""
    start = time.perf_counter()
    yield lambda: time.perf_counter() - start


Result = TypeVar("Result")


@dataclass(frozen=True)
class Taken:
    """What a call took.

    Attributes:
        seconds: By the clock.
        cpu_seconds: Of this process, threads included.
    """

    seconds: float
    cpu_seconds: float


def timed(work: Callable[[], Result]) -> tuple[Result, Taken]:
    """Return what a call returns, and what it took."""
    started, cpu = time.perf_counter(), time.process_time()
    result = work()
    return result, Taken(time.perf_counter() - started, time.process_time() - cpu)


def markdown_table(rows: list[dict[str, object]]) -> list[str]:
    """Return rows as the lines of a Markdown table; a column that some rows lack is empty there."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [names, ["---"] * len(names), *([str(row.get(name, "")) for name in names] for row in rows)]
    return [f"| {' | '.join(line)} |" for line in cells]


def report(benchmark: str, claims: Sequence[Claim], figures: dict[str, object]) -> None:
    """Print the claims and the figures as text, then both as one line of JSON."""
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
    results = [asdict(claim) | {"holds": claim.holds} for claim in claims]
    print(json.dumps({"benchmark": benchmark, "claims": results, "figures": figures}))
