"""Shrunk photos as a source: where photos are, what is read of them, and which folders are refused."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dataset_rows import finished, image_row, pixels_batch
from helpers import encoded, random_pixels
from PIL import Image

from flowers_batch.dataset import shard_reading
from flowers_batch.dataset.photo_sources import open_photos
from flowers_batch.dataset.schema import PIXELS, PIXELS_BYTES
from flowers_batch.dataset.shard_file import FOOTER_KEY, shard_name
from flowers_batch.dataset.shrunk import ShrunkSource
from flowers_batch.errors import InputError
from flowers_batch.sources.images import Image as Listed
from flowers_batch.sources.images import images_of
from flowers_batch.sources.reading import ReadError
from flowers_batch.storage.json_files import read_json, write_json


def shrunk(where: Path, *shards: pa.RecordBatch) -> ShrunkSource:
    source = open_photos(finished(where, PIXELS, [*shards]))
    assert isinstance(source, ShrunkSource)
    return pickle.loads(pickle.dumps(source))  # as it is sent to actors


def listed(source: ShrunkSource) -> list[Listed]:
    return [image for batch in source.batches() for image in images_of(batch)]


def rewrite(source: ShrunkSource, table: pa.Table) -> None:
    """Replace the rows of the first shard's file; its footer stays."""
    file = Path(source.folder.path, shard_name(PIXELS, 0))
    footer = pq.read_metadata(file).metadata[FOOTER_KEY]
    with pq.ParquetWriter(file, table.schema.remove_metadata()) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({FOOTER_KEY: footer})


def test_listing_says_where_photos_are_and_which_failed(tmp_path):
    source = shrunk(tmp_path, pixels_batch(3, failed=(1,)), pixels_batch(2))
    places = [(image.path, image.source, image.offset) for image in listed(source)]
    first, second = (shard_name(PIXELS, number) for number in range(2))
    assert places == [
        *(("a/0.jpg", first, 0), ("a/1.jpg", first, -2), ("a/2.jpg", first, 2)),
        *(("a/0.jpg", second, 0), ("a/1.jpg", second, 1)),
    ]


def test_photo_is_read_as_a_bitmap_of_its_pixels(tmp_path):
    source = shrunk(tmp_path, pixels_batch(70, failed=(3,)))
    images = listed(source)
    assert (np.array(Image.open(io.BytesIO(source.read(images[66])))) == 66).all()
    with pytest.raises(ReadError, match="It is missing") as raised:
        source.read(images[3])
    assert raised.value.reason == "missing"


def test_bitmap_has_the_channels_in_their_order(tmp_path):
    pixels, row = random_pixels(224, 224), image_row("a.jpg")
    batch = pa.RecordBatch.from_pylist([row | {"pixels": pixels.tobytes()}], pixels_batch(1).schema)
    source = shrunk(tmp_path, batch)
    assert (np.array(Image.open(io.BytesIO(source.read(listed(source)[0])))) == pixels).all()


def test_thumbnail_is_read_where_there_is_one(tmp_path):
    thumbnail = encoded(random_pixels(20, 30), "WEBP")
    source = shrunk(tmp_path, pixels_batch(4, failed=(1,), thumbnail=thumbnail))
    assert source.read(listed(source)[2]) == thumbnail


@pytest.mark.parametrize(
    ("place", "error"),
    [
        ({"source": None}, InputError),
        ({"source": "pixels/shard-000009.parquet"}, InputError),
        ({"source": "../secret"}, InputError),
        ({"offset": None}, InputError),
        ({"offset": 1}, ReadError),
        ({"offset": 3}, ReadError),
        ({"offset": -(2**63)}, ReadError),
    ],
    ids=str,
)
def test_photo_that_the_folder_does_not_have_there_is_refused(tmp_path, place, error):
    source = shrunk(tmp_path, pixels_batch(3))
    with pytest.raises(error):
        source.read(Listed(**({"path": "a/0.jpg", "source": shard_name(PIXELS, 0), "offset": 0} | place)))


HOSTILE = {
    "pixels of another size": lambda table: table.set_column(
        10, "pixels", pa.array([b"12"] * len(table), pa.binary(2))
    ),
    "pixels as text": lambda table: table.set_column(10, "pixels", pa.array(["1"] * len(table))),
    "an ok row without pixels": lambda table: table.set_column(
        10, table.schema.field(10), pa.nulls(len(table), pa.binary(PIXELS_BYTES))
    ),
    "another column": lambda table: table.append_column("more", table["path"]),
    "fewer rows": lambda table: table.slice(1),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_damaged_shard_is_refused_in_a_sentence(tmp_path, change):
    source = shrunk(tmp_path, pixels_batch(3))
    rewrite(source, change(pq.read_table(Path(tmp_path, shard_name(PIXELS, 0)))))
    sentence = r"shard-000000\.parquet cannot be used \(.+\): delete it, and run the same `flowers-batch shrink` again"
    with pytest.raises(InputError, match=sentence):
        list(source.run.read_shard(0, ["path", "pixels"]))


def test_row_group_that_would_fill_the_memory_is_refused(tmp_path, monkeypatch):
    source = shrunk(tmp_path, pixels_batch(3))
    monkeypatch.setattr(shard_reading, "_MAX_PHOTOS", 2)
    with pytest.raises(InputError, match=r"its row groups are too large \(3 photos\)"):
        list(source.run.read_shard(0, ["pixels"]))
    with pytest.raises(ReadError, match="its row groups are too large"):
        source.read(listed(source)[0])


def test_fingerprint_of_codes_is_refused(tmp_path):
    source = shrunk(tmp_path, pixels_batch(3))
    job = read_json(source.folder, "job.json")
    write_json(source.folder, "job.json", job | {"fingerprint": job["fingerprint"] | {"code_dtype": "float32"}})
    with pytest.raises(InputError, match=r"job\.json is damaged \(its fingerprint is not one of pixels\)"):
        open_photos(tmp_path)
