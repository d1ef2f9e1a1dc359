"""How fast keywords are read: photos of a folder, copied, each with a small sidecar.

.venv/bin/python benchmarks/keywords.py --photos PHOTOS --count 10000
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

import flowers_batch as fb

_SIDECAR = """<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:lr="http://ns.adobe.com/lightroom/1.0/">
<dc:subject><rdf:Bag><rdf:li>{name}</rdf:li><rdf:li>garden</rdf:li></rdf:Bag></dc:subject>
<lr:hierarchicalSubject><rdf:Bag><rdf:li>plant|flower|{name}</rdf:li></rdf:Bag></lr:hierarchicalSubject>
</rdf:Description></rdf:RDF></x:xmpmeta>"""


def copy_photos(photos: Path, folder: Path, count: int) -> None:
    """Copy photos, in turn, into folders named as theirs, with sidecars whose keywords are these names."""
    files = sorted(photos.rglob("*.jpg"))
    for number, file in enumerate(islice(cycle(files), count)):
        target = folder / file.parent.name / f"{number:06d}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
        Path(f"{target}.xmp").write_text(_SIDECAR.format(name=file.parent.name))


def main() -> None:
    """Copy photos, and read their keywords."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, default=os.environ.get("FLOWERS_BATCH_PHOTOS"))
    parser.add_argument("--count", type=int, default=10_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        copy_photos(Path(options.photos), Path(scratch), options.count)
        started = time.perf_counter()
        found = fb.keywords(scratch)
        seconds = time.perf_counter() - started
    assert found["with_keywords"] == options.count and not found["unread"]
    print(f"{options.count} photos with a sidecar each: {seconds:.1f} s, {options.count / seconds:.0f} photos/s")
    print(f"most frequent: {found['keywords'][:3]}")


if __name__ == "__main__":
    main()
