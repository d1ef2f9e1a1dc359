"""Measure the review page's server over codes without labels: the first groups, a fit in the background, and labels."""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import psutil
import pyarrow as pa
from common import CODES_VARIABLE, Claim, report, stopwatch, write_summary

CODES, SHARD, WIDTH = 100_000, 4096, 512
NOISE = 0.5  # standard deviation of what is added to a real code, in units of that of the values
GROUPS = 20  # that are labelled


def read_codes(folder: str | None) -> np.ndarray:
    """Return the codes of a folder; without one, those of 200 random clusters."""
    if folder is None:
        print(f"{CODES_VARIABLE} is not set: random codes are used.", file=sys.stderr)
        random = np.random.default_rng(1)
        return np.abs(np.repeat(random.normal(0, 1, (200, WIDTH)), 10, axis=0) + random.normal(0, 0.3, (2000, WIDTH)))
    from flowers_batch.dataset.run_folder import open_run
    from flowers_batch.dataset.schema import CODES as KIND
    from flowers_batch.dataset.schema import codes_of

    return np.concatenate([codes_of(batch)[0] for batch in open_run(folder, KIND).batches(["code"])]).astype(np.float32)


def write(folder: Path, count: int, photos: Path | None = None) -> Path:
    """Write a codes folder of noisy copies of real codes, as `encode` leaves it.

    Args:
        folder: Gets the folder `codes`.
        count: The number of codes.
        photos: A folder of as many files `000000.jpg` and so on; None: the photos are empty files.
    """
    from flowers_batch.dataset import job, schema, shard_file
    from flowers_batch.dataset.growth import write_manifest
    from flowers_batch.fingerprint import Fingerprint
    from flowers_batch.sources.opening import open_source
    from flowers_batch.storage.opening import open_folder

    images = photos or folder / "photos"
    if photos is None:
        images.mkdir()
        for number in range(count):
            (images / f"{number:06d}.jpg").touch()
    real, random = read_codes(os.environ.get(CODES_VARIABLE)), np.random.default_rng(0)
    columns = schema.codes_schema(real.shape[1], "float16")
    fingerprint = Fingerprint("null", "pixels", "null", "float32", "float16")
    target = open_folder(folder / "codes")
    job.write_job(target, job.Job(schema.CODES, str(images), fingerprint, "null"))
    shards = write_manifest(target, open_source(str(images)), SHARD, "run").shards
    for start, shard in zip(range(0, count, SHARD), shards, strict=True):
        numbers = range(start, min(start + SHARD, count))
        chosen = real[random.integers(0, len(real), len(numbers))]
        codes = np.maximum(chosen + random.normal(0, NOISE * real.std(), chosen.shape), 0).astype(np.float16)
        values = {name: [None] * len(numbers) for name in columns.names} | {
            "path": [f"{number:06d}.jpg" for number in numbers],
            "sha256": [random.bytes(32) for _ in numbers],
            "phash": random.integers(0, 2**64, len(numbers), np.uint64),
            "status": ["ok"] * len(numbers),
            "code": pa.FixedSizeListArray.from_arrays(codes.ravel(), type=columns.field("code").type),
        }
        arrays = [
            value if isinstance(value := values[field.name], pa.Array) else pa.array(value, field.type)
            for field in columns
        ]
        footer = shard_file.Footer(fingerprint.digest, shard.number, shard.inputs_digest, 0, 0)
        rows = pa.table(arrays, schema=columns)
        shard_file.write_shard(target, schema.CODES, columns, rows.to_batches(), footer)
    write_summary(target, len(shards), count)
    return folder / "codes"


class Page:
    """Sends the requests of the page.

    Args:
        address: With the token, as the command prints it.
        process: The server's number.
    """

    def __init__(self, address: str, process: int):
        self._process = psutil.Process(process)
        self._origin = address.partition("/?")[0]
        with urlopen(address) as answer:
            found = re.search(r'url=(/[^"]+/)"', answer.read().decode())
            assert found
            self._page, self._cookie = found[1], answer.headers["Set-Cookie"].partition(";")[0]

    def __call__(self, path: str, body: Any = None) -> Any:
        """Return the answer of a request; with a body it is a POST."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Cookie": self._cookie, "Origin": self._origin}
        with urlopen(Request(f"{self._origin}{self._page}api/{path}", data, headers)) as answer:
            return json.load(answer)

    def cpu_seconds(self) -> float:
        """Return the CPU time of the server so far, which other programs of the machine hardly change."""
        times = self._process.cpu_times()
        return times.user + times.system

    def computed(self, path: str, body: Any = None) -> Any:
        """Return an answer once it is computed."""
        while "computing" in (found := self(path, body)):
            time.sleep(0.1)
        return found


@contextmanager
def serving(codes: Path, labels: Path) -> Iterator[Page]:
    """Run the command; it is killed at the end."""
    command = [sys.executable, "-m", "flowers_batch", "review", str(codes), "--labels", str(labels), "--no-open"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        try:
            yield Page(server.stdout.readline().strip(), server.pid)
        finally:
            server.kill()


def main() -> None:
    """Measure, and print the claims."""
    with tempfile.TemporaryDirectory() as scratch:
        codes, labels = write(Path(scratch), CODES), Path(scratch, "labels.csv")
        with stopwatch() as seconds, serving(codes, labels) as page:
            groups = page.computed("groups?labelled=no")["groups"]
            first, first_cpu = seconds(), page.cpu_seconds()
        with stopwatch() as seconds, serving(codes, labels) as page:
            page.computed("groups?labelled=no")
            kept, kept_cpu = seconds(), page.cpu_seconds()
            answers = []
            for number, group in enumerate(groups[:GROUPS]):
                with stopwatch() as since:
                    page("label", {"rows": group["rows"], "labels": f"class {number % 5}", "chosen": "group"})
                    answers.append(since())
            with stopwatch() as since:
                page("train", {})
                while (fit := page("state")["fit"])["running"]:
                    time.sleep(0.05)
                fitted = since()
            assert fit["number"] and not fit["error"], fit
            with stopwatch() as since:
                page.computed("similar", {"rows": groups[0]["rows"][:1], "count": 100})
                prepared = since()
            with stopwatch() as since:
                page("similar", {"rows": groups[1]["rows"][:3], "count": 100})
                similar = since()
            with stopwatch() as since:
                page("view?name=uncertain&labelled=no&low=0.2&search=1")
                view = since()
        with stopwatch() as seconds, serving(codes, labels) as page:
            while not page("state")["fit"]["number"]:
                time.sleep(0.05)
            again = seconds()
    report(
        "review_codes",
        [
            Claim("seconds from the start until the first groups", first, 5, at_least=False),
            Claim("seconds from the start until the groups of an earlier start", kept, 1, at_least=False),
            Claim("seconds until the labels of a group are on disk", statistics.median(answers), 0.1, at_least=False),
            Claim("seconds until a view is selected, while filters combine", view, 0.5, at_least=False),
            Claim("seconds until similar photos are found", similar, 0.5, at_least=False),
        ],
        {
            "codes": CODES,
            "CPU seconds of the server until the first groups": round(first_cpu, 2),
            "CPU seconds of the server until the groups of an earlier start": round(kept_cpu, 2),
            "labels that are fitted to": fit["labels"],
            "seconds of a fit, and of its predictions of all codes": round(fitted, 2),
            "seconds until the first similar photos": round(prepared, 2),
            "seconds from the start after kill -9 until a classifier is fitted again": round(again, 2),
        },
    )


if __name__ == "__main__":
    main()
