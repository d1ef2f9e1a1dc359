"""Run benchmarks that check a claim, all or those that are named, keep their results, and write RESULTS.md.

The results are in `results/`, one JSON file per benchmark, and RESULTS.md shows all of them. The exit code is 1 if a
claim does not hold or a benchmark fails.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from common import PHOTOS_VARIABLE, markdown_table, parse_arguments, stopwatch

SCRIPTS = (
    "decode",
    "decode_modes",
    "camera_formats",
    "fidelity",
    "encode",
    "feed",
    "plan",
    "memory",
    "actors",
    "network",
    "shrink",
    "store",
    "copies",
    "heads",
    "labels",
    "labelling",
    "search",
    "finetune",
    "review",
    "review_codes",
    "tagging",
    "organizing",
    "keywords",
    "startup",
)
RESULTS = Path(__file__).with_name("RESULTS.md")
KEPT = Path(__file__).with_name("results")
LIBRARIES = ("tensorflow", "keras", "ray", "numpy", "pyarrow", "opencv-python-headless", "simplejpeg")
INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16")  # x86 extensions that matter for speed


@dataclass(frozen=True)
class BenchmarkResult:
    """The result of one script.

    Attributes:
        script: Its name.
        machine: What it ran on, and when.
        seconds: Its running time.
        claims: The claims that it printed (`common.report`).
        figures: The figures that it printed.
        failure: Why there are no results; None if there are.
    """

    script: str
    machine: list[str]
    seconds: float
    claims: list[dict[str, Any]] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    failure: str | None = None


def run(script: str, photos: str | None) -> BenchmarkResult:
    """Run a script in a process of its own, print its output, and keep its result."""
    about = machine(photos)
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
    result = BenchmarkResult(script, about, took, **_printed(last, code))
    KEPT.mkdir(exist_ok=True)
    (KEPT / f"{script}.json").write_text(json.dumps(asdict(result), indent=1) + "\n", encoding="utf-8")
    return result


def _printed(line: str, code: int) -> dict[str, Any]:
    """Return the claims and figures in a script's last line, or its failure."""
    if code:
        return {"failure": f"ended with exit code {code}"}
    try:
        printed = json.loads(line)
        return {"claims": printed["claims"], "figures": printed["figures"]}
    except (ValueError, TypeError, KeyError):
        return {"failure": "did not print its claims as JSON in its last line"}


def kept() -> list[BenchmarkResult]:
    """Return the latest result of each script that has one."""
    files = [file for file in (KEPT / f"{script}.json" for script in SCRIPTS) if file.exists()]
    return [BenchmarkResult(**json.loads(file.read_text(encoding="utf-8"))) for file in files]


def machine(photos: str | None) -> list[str]:
    """Return lines that describe the machine; called before measuring, so that its load is that of other programs."""
    cpu = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    model = next((line.split(":")[1].strip() for line in cpu.splitlines() if line.startswith("model name")), "unknown")
    has = ", ".join(name for name in INSTRUCTIONS if name in cpu.split()) or "none of the listed extensions"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    return [
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, started at a load of {os.getloadavg()[0]:.1f}",
        f"{model}, {os.cpu_count()} cores ({has}), {memory:.0f} GiB",
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}, {libraries}",
        "Photos: JPEG files of a given folder" if photos else "Photos: drawn, since no folder was given",
    ]


def page(results: list[BenchmarkResult]) -> str:
    """Return RESULTS.md: a table of the claims and failures, and the machine and the figures of each script."""
    lines = ["# Results of `make bench`", ""]
    lines += ["| | claim | measured | rounds | target | |", "|---|---|---:|---|---:|---|"]
    for result in results:
        for claim in result.claims:
            spread = "{:.3g} to {:.3g}".format(*claim["spread"]) if claim["spread"] else ""
            target = f"{'>=' if claim['at_least'] else '<='} {claim['target']:g}"
            verdict = "holds" if claim["holds"] else "**does not hold**"
            lines.append(
                f"| {result.script} | {claim['claim']} | {claim['value']:.3g} | {spread} | {target} | {verdict} |"
            )
        if result.failure:
            lines.append(f"| {result.script} | **failed: it {result.failure}** | | | | **does not hold** |")
    for result in results:
        lines += ["", f"## {result.script}, {result.seconds:.0f} s", "", "; ".join(result.machine), ""]
        for name, value in result.figures.items():
            table = isinstance(value, list)
            lines += ["", f"{name}:", "", *markdown_table(value), ""] if table else [f"- {name}: {value}"]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the scripts, and write the page."""
    which = f"which to run (default: all): {', '.join(SCRIPTS)}"
    only = {"nargs": "*", "metavar": "SCRIPT", "choices": SCRIPTS, "help": which}
    options = parse_arguments(__doc__, only=only)
    if options.photos:
        os.environ[PHOTOS_VARIABLE] = str(options.photos)
    results = [run(script, options.photos) for script in options.only or SCRIPTS]
    RESULTS.write_text(page(kept()), encoding="utf-8")
    unmet = [f"{result.script}: it {result.failure}" for result in results if result.failure]
    unmet += [
        f"{result.script}: {claim['claim']}" for result in results for claim in result.claims if not claim["holds"]
    ]
    print(f"{RESULTS.name} is written.", *(f"Does not hold: {each}." for each in unmet), sep="\n")
    sys.exit(bool(unmet))


if __name__ == "__main__":
    main()
