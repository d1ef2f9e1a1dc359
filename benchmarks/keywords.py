"""How fast keywords are read, from photos with a small sidecar each."""

from __future__ import annotations

import tempfile
from pathlib import Path

from common import Claim, find_photos, parse_arguments, report, stopwatch, write_archive

import flowers_batch as fb

PHOTOS = 10_000
SIDECAR = """<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:lr="http://ns.adobe.com/lightroom/1.0/">
<dc:subject><rdf:Bag><rdf:li>rose</rdf:li><rdf:li>garden</rdf:li></rdf:Bag></dc:subject>
<lr:hierarchicalSubject><rdf:Bag><rdf:li>plant|flower|rose</rdf:li></rdf:Bag></lr:hierarchicalSubject>
</rdf:Description></rdf:RDF></x:xmpmeta>"""


def main() -> None:
    """Measure, and print the claim."""
    options = parse_arguments(__doc__, count={"type": int, "default": PHOTOS})
    with tempfile.TemporaryDirectory() as scratch:
        photos = write_archive(find_photos(options.photos, Path(scratch)), Path(scratch, "photos"), options.count)
        for photo in list(photos.iterdir()):
            photo.with_name(f"{photo.name}.xmp").write_text(SIDECAR)
        with stopwatch() as seconds:
            found = fb.keywords(photos)
            taken = seconds()
    if found["with_keywords"] != options.count or found["unread"]:
        raise SystemExit("Not all keywords were read.")
    rate = round(options.count / taken)
    claim = Claim("photos/s whose keywords are read, from files and sidecars", rate, 300)
    report("keywords", [claim], {"runs": [{"photos": options.count, "seconds": round(taken, 1), "photos/s": rate}]})


if __name__ == "__main__":
    main()
