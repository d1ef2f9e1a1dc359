"""Planning a run of ten million images: listing them, writing the manifest, merging changes, and resuming.

The rate and the peak memory are compared with those for a hundred thousand images.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from common import Claim, parse_arguments, ratio_claim, report, run_interleaved, stopwatch

from flowers_batch import EncodeConfig, encode
from flowers_batch.dataset.job import Job, write_job
from flowers_batch.dataset.manifest import read_manifest, read_rows
from flowers_batch.dataset.run_folder import SUCCESS
from flowers_batch.dataset.schema import CODES, codes_schema
from flowers_batch.dataset.shard_file import Footer, write_shard
from flowers_batch.encoding.networks import codes_fingerprint, weights_identity
from flowers_batch.storage.folder import Folder
from flowers_batch.storage.opening import open_folder

MANY, FEW = 10_000_000, 100_000
ROUNDS = 2
CONFIG = EncodeConfig(network="null", precision="float32", max_failed_share=1)
_BATCH_ROWS = 500_000
_PHOTOS_PER_FOLDER = 1000
_SAMPLE_SECONDS = 0.005
# What `encode` does before it dispatches shards: write the manifest if there is none, else merge changes into it.
_PLAN = f"""
import json, sys, time
from flowers_batch.dataset.growth import grow_manifest, write_manifest
from flowers_batch.dataset.manifest import read_manifest
from flowers_batch.sources.opening import open_source
from flowers_batch.storage.opening import open_folder

began = time.perf_counter()
source, folder = open_source(sys.argv[1]), open_folder(sys.argv[2])
manifest = read_manifest(folder)
if manifest is None:
    changes, manifest = {{}}, write_manifest(folder, source, {CONFIG.shard_size}, "run")
else:
    manifest, changes = grow_manifest(folder, manifest, source, {CONFIG.shard_size}, "run")
print(json.dumps([time.perf_counter() - began, manifest.images, sum(changes.values())]))
"""


def write_list(path: Path, count: int) -> Path:
    """Write a list like an S3 inventory: sorted by path, with sizes and times."""
    random = np.random.default_rng(0)
    schema = pa.schema([("path", pa.string()), ("bytes", pa.int64()), ("mtime", pa.timestamp("ms", "UTC"))])
    with pq.ParquetWriter(path, schema) as writer:
        for first in range(0, count, _BATCH_ROWS):
            numbers = np.arange(first, min(first + _BATCH_ROWS, count))
            folders, names, marks = (
                pc.utf8_lpad(pa.array(values).cast(pa.string()), 9, "0")
                for values in (numbers // _PHOTOS_PER_FOLDER, numbers, random.integers(0, 10**9, len(numbers)))
            )
            parts = ("s3://photos/archive/", folders, "/", names, "-", marks, ".jpg", "")
            sizes = random.integers(20_000, 8_000_000, len(numbers))
            times = pa.array(random.integers(1_600_000_000_000, 1_700_000_000_000, len(numbers))).cast(schema.types[2])
            writer.write_table(pa.table([pc.binary_join_element_wise(*parts), pa.array(sizes), times], schema))
    return path


def plan(images: Path, out: Path) -> tuple[float, int, int, int]:
    """Plan in a process of its own; return seconds, images, changes, and the peak of anonymous memory in bytes."""
    peak = 0
    with subprocess.Popen([sys.executable, "-c", _PLAN, images, out], stdout=subprocess.PIPE, text=True) as child:
        while child.poll() is None:
            peak = max(peak, anonymous_bytes(child.pid))
            time.sleep(_SAMPLE_SECONDS)
        if child.returncode:
            raise SystemExit(f"Planning {images} ended with exit code {child.returncode}: see its error above.")
        seconds, planned, changes = json.load(child.stdout)
    return seconds, planned, changes, peak


def anonymous_bytes(pid: int) -> int:
    """Return a process's anonymous memory in bytes: what is not backed by a file; 0 once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except ProcessLookupError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon")), 0)


def finish(folder: Folder, images: Path) -> int:
    """Write all shards of a manifest with failed rows and random digests; return their number."""
    weights, name = weights_identity(CONFIG)
    job = Job(CODES, str(images), codes_fingerprint(CONFIG, weights, CONFIG.precision), name)
    schema = codes_schema(1, CONFIG.code_dtype)
    shards = read_manifest(folder).shards

    def write(shard) -> None:
        count = shard.images
        digests = pa.py_buffer(np.random.default_rng(shard.number).bytes(32 * count))
        columns = {column.name: pa.nulls(count, column.type) for column in schema}
        columns["path"] = read_rows(folder, shard)["path"].combine_chunks()
        columns["sha256"] = pa.FixedSizeBinaryArray.from_buffers(pa.binary(32), count, [None, digests])
        columns |= {"status": pa.repeat("failed", count), "reason": pa.repeat("missing", count)}
        rows = pa.RecordBatch.from_arrays(list(columns.values()), schema=schema)
        write_shard(
            folder, CODES, schema, [rows], Footer(job.fingerprint.digest, shard.number, shard.inputs_digest, 0, 0)
        )

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, shards))
    write_job(folder, job)
    return len(shards)


def main() -> None:
    """Measure and report."""
    settings = parse_arguments(
        __doc__, images={"type": int, "default": MANY, "help": f"the number of images (default: {MANY})"}
    )
    with tempfile.TemporaryDirectory() as scratch:
        lists = {count: write_list(Path(scratch) / f"{count}.parquet", count) for count in (settings.images, FEW)}
        out = Path(scratch) / "run"
        peaks: dict[int, list[float]] = {count: [] for count in lists}

        def planned(count: int) -> float:
            shutil.rmtree(out, ignore_errors=True)
            seconds, images, _, peak = plan(lists[count], out)
            assert images == count
            peaks[count].append(peak)
            return count / seconds

        rates = run_interleaved(ROUNDS, few=lambda: planned(FEW), many=lambda: planned(settings.images))
        seconds, _, changes, merging_peak = plan(lists[settings.images], out)
        assert changes == 0
        shards = finish(open_folder(out), lists[settings.images])

        def resume() -> float:
            (out / SUCCESS).unlink(missing_ok=True)
            with stopwatch() as passed:
                summary = encode(lists[settings.images], out, CONFIG)
            assert summary.resumed == summary.images == settings.images
            return passed()

        resuming = run_interleaved(ROUNDS, seconds=resume)["seconds"]
    best = max(rates["many"])
    report(
        "plan",
        [
            Claim("images/s planned", best, 200_000, spread=(min(rates["many"]), best)),
            ratio_claim(f"peak memory, {settings.images} images over {FEW}", *(peaks[n] for n in lists), 1.5, False),
            Claim(
                f"seconds to resume a run with {shards} complete shards",
                min(resuming),
                5,
                False,
                (min(resuming), max(resuming)),
            ),
        ],
        {
            f"images/s planned, {FEW} images": round(max(rates["few"])),
            "images/s merged without changes": round(settings.images / seconds),
            f"peak MB of planning {settings.images} images, {FEW} images, and of merging": ", ".join(
                f"{value / 1e6:.0f}" for value in (max(peaks[settings.images]), max(peaks[FEW]), merging_peak)
            ),
        },
    )


if __name__ == "__main__":
    main()
