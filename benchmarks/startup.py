"""Seconds until `flowers-batch --help` has answered, compared with a Python process that does nothing."""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path

from common import Claim, parse_arguments, report, run_interleaved, stopwatch

ROUNDS = 10


def seconds_of(*command: object) -> float:
    """Return the wall time of a command in seconds."""
    with stopwatch() as seconds:
        subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
        return seconds()


def main() -> None:
    """Measure both, and report."""
    parse_arguments(__doc__)
    seconds = run_interleaved(
        ROUNDS,
        help=lambda: seconds_of(Path(sys.executable).with_name("flowers-batch"), "--help"),
        nothing=lambda: seconds_of(sys.executable, "-c", "pass"),
    )
    answer = seconds["help"]
    claim = Claim(
        "seconds until flowers-batch --help has answered",
        statistics.median(answer),
        0.5,
        False,
        (min(answer), max(answer)),
    )
    report("startup", [claim], {"seconds of python -c pass": f"{statistics.median(seconds['nothing']):.3f}"})


if __name__ == "__main__":
    main()
