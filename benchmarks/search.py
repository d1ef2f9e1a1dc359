"""What search, groups and near-duplicates find in real codes, and what searching takes.

- Search: recall of the 20 nearest photos over an exact search, seconds per answer and memory, in a large archive:
  mixtures of two real codes, with noise of 10% on each value.
- Groups: how right a classifier is of all other photos after so many key presses, by how many groups there are and how
  many of a group's photos are shown. A press gives the photos of a group one label, or takes a photo out.
- Near-duplicates: how far codes of edited copies are from their photo's, in median distances of two photos.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from common import (
    CODES_VARIABLE,
    WEIGHTS_VARIABLE,
    Claim,
    find_photos,
    parse_arguments,
    report,
    stopwatch,
    write_summary,
)
from copies import EDITS
from numpy.typing import NDArray
from scipy.spatial.distance import pdist
from sklearn.linear_model import LogisticRegression

from flowers_batch.classifier.labelled_codes import CodesInMemory
from flowers_batch.classifier.medoids import reduce_codes
from flowers_batch.classifier.normalization import L2, Normalization
from flowers_batch.config import ArchiveConfig
from flowers_batch.dataset.growth import write_manifest
from flowers_batch.dataset.job import write_job
from flowers_batch.dataset.listing_differences import new_rows
from flowers_batch.dataset.run_folder import Run, open_run
from flowers_batch.dataset.schema import CODES, codes_of, codes_schema
from flowers_batch.dataset.shard_file import Footer, write_shard
from flowers_batch.encoding.factories import EncoderFactory
from flowers_batch.progress import NULL_REPORTER
from flowers_batch.runs.reproduction import encode_config_for
from flowers_batch.search import codec, groups
from flowers_batch.search.approximate import ApproximateIndex
from flowers_batch.search.duplicates import MAX_DISTANCE
from flowers_batch.search.exact import ExactIndex
from flowers_batch.search.row_reader import RowReader
from flowers_batch.search.similar import CodeSearch
from flowers_batch.sources.opening import open_source
from flowers_batch.storage.opening import open_folder

PHOTOS, QUERIES, NEAREST = 1_000_000, 100, 20
SHARD, NOISE = 4096, 0.1
PROJECTED, PROJECTED_PHOTOS = 128, 100_000  # components and photos of the search of projected codes
PRESSES, SEEDS = (25, 50, 100), 10
COPIED = 50  # photos that are edited


def read_codes(run: Run) -> NDArray[np.floating]:
    """Return all codes of a run."""
    return np.concatenate([codes_of(batch)[0] for batch in run.batches(["code"])])


def write_codes(real: Run, folder: Path, count: int) -> Run:
    """Write a codes folder of `count` mixtures of two codes of a run, with noise."""
    codes, random = read_codes(real).astype(np.float32), np.random.default_rng(0)
    target, schema = open_folder(folder), codes_schema(real.code_width, "float16")
    listed = {"path": pa.array([f"{number:08}.jpg" for number in range(count)]), "bytes": pa.array([0] * count)}
    times = pa.array([0] * count, pa.timestamp("us", "UTC"))
    pq.write_table(pa.table(listed | {"mtime": times}), folder.with_suffix(".parquet"))
    write_job(target, replace(real.job, images=str(folder)))
    digest = real.job.fingerprint.digest
    shards = write_manifest(target, open_source(folder.with_suffix(".parquet")), SHARD, "run").shards
    for start, shard in zip(range(0, count, SHARD), shards, strict=True):
        one, other = codes[random.integers(0, len(codes), (2, shard.images))]
        share = random.random((shard.images, 1), np.float32)
        mixed = (share * one + (1 - share) * other) * random.normal(1, NOISE, one.shape).astype(np.float32)
        columns = {name: pa.nulls(shard.images, schema.field(name).type) for name in schema.names} | {
            "path": listed["path"].slice(start, shard.images),
            "sha256": pa.array([random.bytes(32) for _ in range(shard.images)], pa.binary(32)),
            "phash": pa.array(random.integers(0, 1 << 63, shard.images, np.uint64)),
            "status": pa.repeat("ok", shard.images),
            "code": pa.FixedSizeListArray.from_arrays(mixed.astype(np.float16).ravel(), type=schema.field("code").type),
        }
        rows = pa.table([columns[name] for name in schema.names], schema=schema)
        write_shard(target, CODES, schema, rows.to_batches(), Footer(digest, shard.number, shard.inputs_digest, 0, 0))
    write_summary(target, len(shards), count)
    return open_run(folder, CODES)


def recall(found: NDArray[np.int_], exact: NDArray[np.int_]) -> float:
    """Return which share of the exact answers was found."""
    return float(np.mean([len(set(one) & set(other)) / len(other) for one, other in zip(found, exact, strict=True)]))


def measure_search(run: Run) -> tuple[list[Claim], dict[str, object]]:
    """Measure the search of an archive that is too large for an exact one."""
    process = psutil.Process()
    with stopwatch() as seconds:
        CodeSearch(run)
        made = seconds()
    before = process.memory_info().rss
    with stopwatch() as seconds:
        search = CodeSearch(run)
        opened = seconds()
    memory = process.memory_info().rss - before
    chosen = np.random.default_rng(1).permutation(run.manifest.images)[:QUERIES]
    answers, times = [], []
    for row in chosen.tolist():
        with stopwatch() as seconds:
            answers.append(search.nearest_to_rows([row], NEAREST)[0])
            times.append(seconds())
    queries = Normalization(L2)(search.codes_of(chosen.tolist()))
    exact = ExactIndex(run, NULL_REPORTER).search(queries, NEAREST + 1)[0]
    exact = [[row for row in rows if row != own][:NEAREST] for rows, own in zip(exact, chosen, strict=True)]
    photos = f"{run.manifest.images:,} codes of {run.code_width}"
    return [
        Claim(f"recall of the {NEAREST} nearest, {photos}", recall(answers, exact), 0.95),
        Claim(f"seconds per answer, 95th percentile, {photos}", float(np.quantile(times, 0.95)), 0.2, at_least=False),
    ], {
        "seconds per answer, median": round(statistics.median(times), 4),
        "seconds to make the index": round(made, 1),
        "seconds to open it": round(opened, 2),
        "MB of memory": round(memory / 1e6),
        "MB on disk": round(sum(file.stat().st_size for file in Path(run.folder.path, "index").iterdir()) / 1e6),
    }


def measure_projected(run: Run) -> tuple[list[Claim], dict[str, object]]:
    """Measure the search of codes that are wider than the index."""
    widest, codec._MAX_DIMENSIONS = codec._MAX_DIMENSIONS, PROJECTED
    reader = RowReader(run)
    index = ApproximateIndex(run, reader, NULL_REPORTER)
    codec._MAX_DIMENSIONS = widest
    chosen = np.random.default_rng(1).permutation(run.manifest.images)[:QUERIES]
    queries = Normalization(L2)(codes_of(reader.take(chosen, ["code"]).combine_chunks().to_batches()[0])[0])
    answers, times = [], []
    for query in queries:
        with stopwatch() as seconds:
            answers.append(index.search(query[None], NEAREST)[0][0])
            times.append(seconds())
    exact = ExactIndex(run, NULL_REPORTER).search(queries, NEAREST)[0]
    photos = f"{run.manifest.images:,} codes on {PROJECTED} components"
    return [Claim(f"recall of the {NEAREST} nearest, {photos}", recall(answers, exact), 0.95)], {
        f"seconds per answer, median, {photos}": round(statistics.median(times), 4)
    }


def label_groups(
    clusters: list[NDArray[np.int_]], share: float, targets: NDArray[np.int_]
) -> Iterator[tuple[int, NDArray[np.int_]]]:
    """Yield the presses that each group takes, and the photos that are labelled: those of its most frequent class."""
    for cluster in clusters:
        shown = cluster[: max(groups._MIN_TYPICAL, round(share * len(cluster)))]
        right = shown[targets[shown] == np.bincount(targets[shown]).argmax()]
        if 2 * len(right) > len(shown):
            yield 1 + len(shown) - len(right), right
        else:
            yield 1, right[:0]  # skipped


def measure_groups(run: Run) -> list[dict[str, object]]:
    """Return the accuracy after key presses, by the number of groups and the share of each that is shown."""
    codes = read_codes(run)
    folders = np.concatenate([batch["folder"].to_numpy(zero_copy_only=False) for batch in run.batches(["folder"])])
    targets = np.unique(folders, return_inverse=True)[1]
    values, points = Normalization(L2)(codes), reduce_codes(CodesInMemory(codes), len(codes))
    rows: list[dict[str, object]] = []
    for count in (50, 100, 200):
        for share in (0.1, 0.2, 0.3):
            found: dict[int, list[float]] = {presses: [] for presses in PRESSES}
            for seed in range(SEEDS):
                groups._SEED = seed
                labelled = list(label_groups(groups._clusters(points, count), share, targets))
                spent = np.cumsum([presses for presses, _ in labelled])
                for presses in PRESSES:
                    own = np.concatenate([rows for _, rows in labelled[: int((spent <= presses).sum())]])
                    others = np.setdiff1d(np.arange(len(codes)), own)
                    head = LogisticRegression(C=1000).fit(values[own], targets[own])
                    found[presses].append(head.score(values[others], targets[others]))
            accuracies = {f"{presses} presses": f"{statistics.mean(each):.3f}" for presses, each in found.items()}
            rows.append({"groups": count, "share shown": share} | accuracies)
    return rows


def measure_copies(run: Run, photos: list[Path], weights: str, scratch: Path) -> list[dict[str, object]]:
    """Return the distances of edited copies' codes from their photos', in median distances of two photos of a run."""
    for number, path in enumerate(photos[:COPIED]):
        for name, edit in {"none": lambda photo: photo, **EDITS}.items():
            (scratch / name).mkdir(exist_ok=True, parents=True)
            cv2.imwrite(str(scratch / name / f"{number:03}.jpg"), edit(cv2.imread(str(path))))
    source = open_source(scratch)
    encoder = EncoderFactory(encode_config_for(run.job.fingerprint, weights, ArchiveConfig()), source)
    worker = encoder(os.cpu_count() or 1, gpu=False)
    listed = pa.Table.from_batches([new_rows(batch) for batch in source.batches()])
    encoded = pa.Table.from_batches(list(worker.batches(0, listed, {}))).combine_chunks().to_batches()[0]
    codes = np.concatenate([read_codes(run), codes_of(encoded)[0]])
    points = reduce_codes(CodesInMemory(codes), len(codes))
    between = pdist(points[: -len(encoded)])
    points = points[-len(encoded) :] / np.median(between)
    names = encoded["folder"].to_numpy(zero_copy_only=False)
    rows: list[dict[str, object]] = [
        describe_distances(name, np.linalg.norm(points[names == name] - points[names == "none"], axis=1))
        for name in EDITS
    ]
    return [*rows, describe_distances("different photos", between / np.median(between))]


def describe_distances(pairs: str, distances: NDArray[np.floating]) -> dict[str, object]:
    """Return a row on the distances of pairs."""
    return {
        "pairs": pairs,
        "median": f"{np.median(distances):.2f}",
        "largest": f"{distances.max():.2f}",
        f"within {MAX_DISTANCE}": f"{(distances <= MAX_DISTANCE).mean():.1%}",
    }


def main() -> None:
    """Measure, and print the claims."""
    options = parse_arguments(
        __doc__,
        codes={"type": Path, "default": os.environ.get(CODES_VARIABLE), "help": f"default: ${CODES_VARIABLE}"},
        weights={"default": os.environ.get(WEIGHTS_VARIABLE), "help": f"of these codes; default: ${WEIGHTS_VARIABLE}"},
        count={"type": int, "default": PHOTOS},
    )
    if options.codes is None:
        raise SystemExit(f"Name a codes folder with --codes or {CODES_VARIABLE}.")
    real = open_run(options.codes, CODES)
    figures: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as scratch:
        claims, searched = measure_search(write_codes(real, Path(scratch, "archive"), options.count))
        more, projected = measure_projected(write_codes(real, Path(scratch, "projected"), PROJECTED_PHOTOS))
        figures |= searched | projected | {"groups": measure_groups(real)}
        if options.photos and options.weights:
            photos = find_photos(options.photos, Path(scratch))
            figures["codes of copies"] = measure_copies(real, photos, options.weights, Path(scratch, "copies"))
    report("search", [*claims, *more], figures)


if __name__ == "__main__":
    main()
