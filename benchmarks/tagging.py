"""What it takes to write labels into sidecars: new ones, the same again, another model's, and to remove them.

Half of the photos are in folders of 50, half in one folder; each tenth has a sidecar of another program, of the size
that darktable's have.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pyarrow as pa
from common import Claim, parse_arguments, report, timed, write_summary

import flowers_batch as fb
from flowers_batch.dataset.growth import write_manifest
from flowers_batch.dataset.job import Job, write_job
from flowers_batch.dataset.schema import PREDICTIONS, predictions_schema
from flowers_batch.dataset.shard_file import Footer, write_shard
from flowers_batch.fingerprint import Fingerprint
from flowers_batch.sources.opening import open_source
from flowers_batch.storage.opening import open_folder

PHOTOS = 10_000
SHARD = 4096
LABELS = ("animal/bird/owl", "rose")
HISTORY = "".join(
    f'<rdf:li dt:num="{number}" dt:operation="exposure" dt:params="{"0123456789abcdef" * 8}"/>\n'
    for number in range(20)
)
SIDECAR = f"""<?xml version="1.0" encoding="UTF-8"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:dt="http://darktable.sf.net/">
<dt:history><rdf:Seq>{HISTORY}</rdf:Seq></dt:history>
<dc:subject><rdf:Bag><rdf:li>holiday</rdf:li></rdf:Bag></dc:subject>
</rdf:Description></rdf:RDF></x:xmpmeta>
"""


def write_photos(folder: Path, count: int) -> list[str]:
    """Write files that stand for photos, and some sidecars; return the paths of the photos in order."""
    paths = sorted(f"{number // 50:06}/{number}.jpg" if number % 2 else f"all/{number}.jpg" for number in range(count))
    for number, path in enumerate(paths):
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"a photo")
        if number % 10 == 0:
            file.with_name(f"{file.name}.xmp").write_text(SIDECAR)
    return paths


def write_predictions(folder: Path, photos: Path, paths: list[str], model: str) -> Path:
    """Write a predictions folder of these photos."""
    target, schema = open_folder(folder), predictions_schema()
    fingerprint = Fingerprint("null", "relu6", "null", "float32", "float16", head=model, top_k=1)
    write_job(target, Job(PREDICTIONS, str(photos), fingerprint, "null"))
    shards = write_manifest(target, open_source(photos), SHARD, "run").shards
    for start, shard in zip(range(0, len(paths), SHARD), shards, strict=True):
        rows = [
            {
                "path": path,
                "sha256": number.to_bytes(32, "big"),
                "phash": number,
                "bytes": 7,
                "width": 1,
                "height": 1,
                "status": "ok",
                "prediction": LABELS[number % 2],
                "probability": 0.9,
                "top_labels": [LABELS[number % 2]],
                "top_probabilities": [0.9],
                "is_unknown": False,
            }
            for number, path in enumerate(paths[start : start + SHARD], start)
        ]
        batches = pa.Table.from_pylist(rows, schema).to_batches()
        write_shard(
            target, PREDICTIONS, schema, batches, Footer(fingerprint.digest, shard.number, shard.inputs_digest, 0, 0)
        )
    write_summary(target, len(shards), len(paths))
    return folder


def measure(predictions: Path, **config: bool) -> dict[str, object]:
    """Tag, and return what it took."""
    result, taken = timed(lambda: fb.tag(predictions, fb.TagConfig(**config)))
    return {
        "seconds": round(taken.seconds, 2),
        "CPU seconds": round(taken.cpu_seconds, 2),
        "photos/s": round(result.photos / taken.seconds),
        **result.sidecars,
    }


def main() -> None:
    """Measure, and print the claims."""
    options = parse_arguments(__doc__, count={"type": int, "default": PHOTOS})
    with tempfile.TemporaryDirectory() as scratch:
        photos = Path(scratch, "photos")
        paths = write_photos(photos, options.count)
        one, other = (write_predictions(Path(scratch, name), photos, paths, name) for name in ("one", "other"))
        runs = {
            "dry run": measure(one, dry_run=True),
            "new": measure(one),
            "the same again": measure(one),
            "another model": measure(other),
            "removing": measure(other, remove=True),
        }
    claims = [
        Claim(f"seconds to tag {options.count} photos", float(str(runs["new"]["seconds"])), 20, at_least=False),
        Claim("sidecars that a second run writes", float(str(runs["the same again"]["changed"])), 0, at_least=False),
    ]
    report("tagging", claims, {"runs": [{"run": name} | found for name, found in runs.items()]})


if __name__ == "__main__":
    main()
