"""Training on codes that exceed the allowed memory: the memory above the libraries' own, and the time.

Codes are random, as in `heads.py`, in a folder such as `encode` writes. `--codes 1000000` needs 9 GB of disk and
an hour.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from common import Claim, most_memory, parse_arguments, report, serve, stopwatch, warm_process, write_summary

CODES = 100_000
MEMORY = 300  # megabytes that codes may take, less than a tenth of these
ALLOWED = 2e9  # bytes, whatever the number of codes
WIDTH, CLASSES, FACTORS, SHARD, BATCH = 4096, 10, 64, 8192, 1024
NOISE = 2.2


def drawn(targets: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Classes and their codes, a batch at a time."""
    random = np.random.default_rng(0)
    centres = random.normal(0, 1, (CLASSES, FACTORS))
    features = random.normal(0, FACTORS**-0.5, (FACTORS, WIDTH)).astype(np.float32)
    for start in range(0, len(targets), BATCH):
        batch = targets[start : start + BATCH]
        factors = random.normal(centres[batch], NOISE).astype(np.float32)
        codes = factors @ features + random.standard_normal((len(batch), WIDTH), np.float32)
        yield batch, np.maximum(codes, 0).astype(np.float16)


def write(folder: Path, count: int) -> None:
    """Write a list of photos that do not exist, and a folder of their codes as `encode` leaves it."""
    from flowers_batch.dataset import job, shard_file
    from flowers_batch.dataset import schema as schema_module
    from flowers_batch.dataset.growth import write_manifest
    from flowers_batch.fingerprint import Fingerprint
    from flowers_batch.sources.opening import open_source
    from flowers_batch.storage.opening import open_folder

    photos = folder.with_suffix(".txt")
    random = np.random.default_rng(1)
    targets = np.sort(random.integers(0, CLASSES, count))  # an archive has its photos in the order of their folders
    paths = [f"{target}/{number:09d}.jpg" for number, target in enumerate(targets)]
    photos.write_text("\n".join(paths), encoding="utf-8")
    target = open_folder(folder)
    fingerprint = Fingerprint("null", "pixels", "null", "float32", "float16")
    schema = schema_module.codes_schema(WIDTH, "float16")
    number = 0

    def batch(targets: np.ndarray, codes: np.ndarray) -> pa.RecordBatch:
        nonlocal number
        names = paths[number : number + len(targets)]
        number += len(targets)
        columns = {name: [None] * len(targets) for name in schema_module.IMAGE_COLUMNS} | {
            "path": names,
            "folder": [str(target) for target in targets],
            "sha256": [hashlib.sha256(name.encode()).digest() for name in names],
            "phash": random.integers(0, 2**64, len(targets), np.uint64),
            "status": ["ok"] * len(targets),
        }
        values = pa.FixedSizeListArray.from_arrays(pa.array(codes.ravel()), type=schema.field("code").type)
        arrays = [values if field.name == "code" else pa.array(columns[field.name], field.type) for field in schema]
        return pa.RecordBatch.from_arrays(arrays, schema=schema)

    job.write_job(target, job.Job(schema_module.CODES, str(photos), fingerprint, "null"))
    batches = (batch(*both) for both in drawn(targets))
    shards = write_manifest(target, open_source(photos), SHARD, "run").shards
    for shard in shards:
        footer = shard_file.Footer(fingerprint.digest, shard.number, shard.inputs_digest, 0, 0)
        rows = itertools.islice(batches, SHARD // BATCH)
        shard_file.write_shard(target, schema_module.CODES, schema, rows, footer)
    write_summary(target, len(shards), count)


def train(folder: Path, head: str, memory: int) -> list[float]:
    """Bytes above the libraries' own, seconds and test accuracy of a training."""
    import keras
    import scipy.optimize
    import sklearn.model_selection

    import flowers_batch as fb

    assert keras and scipy and sklearn
    fb.train  # noqa: B018  loads the module
    before = most_memory()
    with stopwatch() as seconds:
        metrics = fb.train(
            folder / "codes", folder / head, fb.TrainConfig(("folder",), head=head, max_memory_mb=memory)
        )
        took = seconds()
    return [float(most_memory() - before), took, metrics["test"]["accuracy"]]


def main() -> None:
    """Measures both heads, each in a process of its own."""
    options = parse_arguments(
        __doc__, codes={"type": int, "default": CODES}, folder={"type": Path}, head={}, memory={"type": int}
    )
    if options.head:
        serve(lambda: train(options.folder, options.head, options.memory))  # type: ignore[arg-type,return-value]
        return
    figures: dict[str, object] = {}
    claims = []
    with tempfile.TemporaryDirectory() as scratch:
        write(Path(scratch, "codes"), options.codes)
        for head in ("logistic", "mlp"):
            with warm_process(__file__, "--folder", scratch, "--head", head, "--memory", MEMORY) as measure:
                taken, seconds, accuracy = measure()  # type: ignore[misc]
            print(json.dumps({head: [taken, seconds, accuracy]}), file=sys.stderr)
            claims.append(Claim(f"bytes to train {head} on {options.codes} codes", taken, ALLOWED, at_least=False))
            figures[head] = f"{seconds:.0f} s, test accuracy {accuracy:.2%}"
    report("training", claims, figures)


if __name__ == "__main__":
    main()
