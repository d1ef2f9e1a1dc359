"""Photos with faults beside their pixels are rows that are ok."""

from __future__ import annotations

import json
import zlib

import pyarrow.parquet as pq
import pytest
from helpers import encoded, random_pixels, run_shards_here, write
from image_files import png_chunk

from flowers_batch.cli.main import main


def test_photos_with_broken_metadata_are_encoded(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("flowers_batch.runs.execution.run_shards", run_shards_here)
    jpeg, png, avif = (encoded(random_pixels(60, 80), kind) for kind in ("JPEG", "PNG", "AVIF"))
    text = png_chunk(b"zTXt", b"XML:com.adobe.xmp\0\0" + zlib.compress(bytes(2 << 20)))
    files = {
        "exif.jpg": jpeg[:20] + b"\xff\xe1\0\x10Exif\0\0no TIFF!" + jpeg[20:],
        "no_end.jpg": jpeg[:-2],
        "text.png": png[:33] + text + png[33:],
        "container.avif": avif[:8] + b"mif1" + avif[12:],
        "cut.jpg": jpeg[:-9],
    }
    with pytest.raises(SystemExit) as ended:
        main(["encode", str(write(tmp_path / "photos", files)), str(tmp_path / "out"), "--network", "null", "--json"])
    summary = json.loads(capsys.readouterr().out)
    assert (ended.value.code, summary["images"], summary["reasons"]) == (0, 5, {"truncated": 1})
    rows = pq.read_table(tmp_path / "out" / "codes").to_pylist()
    assert [row["path"] for row in rows if row["status"] == "failed"] == ["cut.jpg"]
    assert {(row["width"], row["height"]) for row in rows if row["status"] == "ok"} == {(80, 60)}
