"""Runs all benchmarks that stand for a claim, and writes what they say to RESULTS.md beside them.

It exits with 1 when a claim does not hold or a benchmark fails.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from common import PHOTOS_VARIABLE, markdown_table, parse_arguments, stopwatch

SCRIPTS = (
    "decode",
    "fidelity",
    "encode",
    "feed",
    "plan",
    "memory",
    "actors",
    "network",
    "copies",
    "heads",
    "finetune",
    "review",
    "startup",
)
RESULTS = Path(__file__).with_name("RESULTS.md")
LIBRARIES = ("tensorflow", "keras", "ray", "numpy", "pyarrow", "opencv-python-headless", "simplejpeg")
INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16")  # what decides on speed, x86


@dataclass(frozen=True)
class Told:
    """What became of a script.

    Attributes:
        script: Its name.
        seconds: How long it ran.
        claims: As `common.report` prints them.
        figures: Likewise.
        failure: Why it told nothing; None where it did.
    """

    script: str
    seconds: float
    claims: list[dict[str, Any]] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    failure: str | None = None


def run(script: str) -> Told:
    """Runs a script in a process of its own, and passes on what it prints."""
    print(f"== {script}", flush=True)
    last = ""
    command = [sys.executable, str(RESULTS.with_name(f"{script}.py"))]
    with stopwatch() as seconds, subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            print(line, end="", flush=True)
            last = line
        code = process.wait()
        took = seconds()
    if code:
        return Told(script, took, failure=f"ended with code {code}")
    try:
        told = json.loads(last)
        return Told(script, took, told["claims"], told["figures"])
    except (ValueError, TypeError, KeyError):
        return Told(script, took, failure="did not tell its claims in its last line")


def machine(photos: str | None) -> list[str]:
    """What the figures depend on, a line each; asked before anything is measured, since others' work disturbs."""
    cpu = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    model = next((line.split(":")[1].strip() for line in cpu.splitlines() if line.startswith("model name")), "unknown")
    has = ", ".join(name for name in INSTRUCTIONS if name in cpu.split()) or "none of note"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    return [
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, begun at a load of {os.getloadavg()[0]:.1f}",
        f"{model}, {os.cpu_count()} cores ({has}), {memory:.0f} GiB",
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}, {libraries}",
        "Photos: a folder of JPEG files that was named" if photos else "Photos: drawn, since none were named",
    ]


def page(about: list[str], all_told: list[Told]) -> str:
    """RESULTS.md: the machine, a table of the claims, what failed, and the figures."""
    lines = ["# Results of `make bench`", "", *(f"- {line}" for line in about), ""]
    lines += ["| | claim | measured | rounds | target | |", "|---|---|---:|---|---:|---|"]
    for told in all_told:
        for claim in told.claims:
            spread = "{:.3g} to {:.3g}".format(*claim["spread"]) if claim["spread"] else ""
            target = f"{'>=' if claim['at_least'] else '<='} {claim['target']:g}"
            verdict = "holds" if claim["holds"] else "**does not hold**"
            lines.append(
                f"| {told.script} | {claim['claim']} | {claim['value']:.3g} | {spread} | {target} | {verdict} |"
            )
        if told.failure:
            lines.append(f"| {told.script} | **failed: it {told.failure}** | | | | **does not hold** |")
    for told in all_told:
        lines += ["", f"## {told.script}, {told.seconds:.0f} s", ""]
        for name, value in told.figures.items():
            lines += ["", *markdown_table(value), ""] if isinstance(value, list) else [f"- {name}: {value}"]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Runs them in turn."""
    photos = parse_arguments(__doc__).photos
    if photos:
        os.environ[PHOTOS_VARIABLE] = str(photos)
    about = machine(photos)
    all_told = [run(script) for script in SCRIPTS]
    RESULTS.write_text(page(about, all_told), encoding="utf-8")
    short = [f"{told.script}: it {told.failure}" for told in all_told if told.failure]
    short += [f"{told.script}: {claim['claim']}" for told in all_told for claim in told.claims if not claim["holds"]]
    print(f"{RESULTS.name} is written.", *(f"Does not hold: {each}." for each in short), sep="\n")
    sys.exit(bool(short))


if __name__ == "__main__":
    main()
