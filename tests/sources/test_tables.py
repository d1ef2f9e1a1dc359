from __future__ import annotations

import os
import pickle
import random
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import images_in, write

from flowers_batch.dataset.schema import folder_of
from flowers_batch.errors import InputError, RunError
from flowers_batch.sources import reading
from flowers_batch.sources.images import Image
from flowers_batch.sources.opening import open_source
from flowers_batch.sources.reading import ReadError
from flowers_batch.sources.source import Source
from flowers_batch.sources.tables import RowReader
from flowers_batch.storage import retries

HUGGING_FACE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch):
    monkeypatch.setattr(retries, "RETRY_SECONDS", ())


def table(file: Path, rows: list[Any] | pa.Array, column: str = "image", row_group: int = 10, **others: Any) -> Path:
    pq.write_table(pa.table({"label": list(range(len(rows))), column: rows, **others}), file, row_group_size=row_group)
    return file


def contents(count: int, size: int = 500) -> list[bytes]:
    return [random.Random(number).randbytes(size + number) for number in range(count)]


def reader_of(file: Path, **limits: int) -> RowReader:
    return RowReader(pa.OSFile(str(file)), str(file), **limits)


def paths(source: Source) -> list[str]:
    return [image.path for image in images_in(source)]


def reason_of(source: Source, image: Image) -> str:
    with pytest.raises(ReadError) as refused:
        source.read(image)
    assert str(refused.value).endswith(".")
    return refused.value.reason


@pytest.mark.parametrize("type_", [pa.binary(), pa.large_binary()])
def test_rows_without_paths_are_known_by_file_and_row(tmp_path, type_):
    rows = contents(25)
    photos = open_source(table(tmp_path / "a.parquet", pa.array(rows, type_)))
    found = images_in(photos)
    assert [i.path for i in found] == [f"a.parquet#{row:09d}" for row in range(25)]
    assert [(i.source, i.offset, i.bytes) for i in found] == [("a.parquet", row, 0) for row in range(25)]
    assert [photos.read(image) for image in found] == rows
    assert photos.left_out.ignored == photos.repeated == 0 and photos.root is None and not photos.in_path_order


def test_images_of_hugging_face_keep_their_paths(tmp_path):
    rows = [{"bytes": data, "path": f"class/{number}.jpg"} for number, data in enumerate(contents(15))]
    rows[3]["path"] = rows[4]["path"] = None
    rows[5]["path"] = ""
    photos = open_source(table(tmp_path / "a.parquet", pa.array(rows, HUGGING_FACE)))
    expected = [row["path"] or f"a.parquet#{number:09d}" for number, row in enumerate(rows)]
    assert paths(photos) == expected
    assert [photos.read(image) for image in images_in(photos)] == [row["bytes"] for row in rows]


def test_column_path_names_the_rows(tmp_path):
    photos = open_source(table(tmp_path / "a.parquet", contents(3), path=["c/x.jpg", None, "../z"]))
    assert paths(photos) == ["c/x.jpg", "a.parquet#000000001", "../z"]
    assert [folder_of(i.path, i.source) for i in images_in(photos)] == ["c", None, None]


def test_path_within_the_image_takes_precedence(tmp_path):
    rows = pa.array([{"bytes": b"1", "path": "own"}, {"bytes": b"2", "path": None}, None], HUGGING_FACE)
    photos = open_source(table(tmp_path / "a.parquet", rows, path=["x", "y", "z"]))
    assert paths(photos) == ["own", "y", "z"]


def test_paths_that_repeat_are_numbered_within_and_across_files(tmp_path):
    for name, names in (("a", ["x", "x", "x#2"]), ("b", ["x", "y"])):
        table(tmp_path / f"{name}.parquet", contents(len(names)), path=names)
    photos = open_source(tmp_path / "*.parquet")
    assert paths(photos) == ["x", "x#2", "x#2#2", "x#3", "y"]
    assert [photos.read(i) for i in images_in(photos)] == contents(3) + contents(2)


def test_row_without_bytes_is_missing_alone(tmp_path):
    rows = [{"bytes": b"1", "path": "a"}, {"bytes": None, "path": "b"}, None, {"bytes": b"", "path": "d"}]
    photos = open_source(table(tmp_path / "a.parquet", pa.array(rows, HUGGING_FACE)))
    first, second, third, last = images_in(photos)
    assert photos.read(first) == b"1" and photos.read(last) == b""
    assert reason_of(photos, second) == reason_of(photos, third) == "missing"


def test_column_named_image_is_used_else_the_only_binary_one(tmp_path):
    other = pa.array([b"x"])
    for column, others, expected in (("image", {"mask": other}, b"i"), ("photo", {}, b"i"), ("a.b", {}, b"i")):
        photos = open_source(table(tmp_path / "a.parquet", [b"i"], column, **others))
        assert [photos.read(image) for image in images_in(photos)] == [expected]
        os.unlink(tmp_path / "a.parquet")


def test_several_image_columns_are_refused_by_name(tmp_path):
    photos = open_source(table(tmp_path / "a.parquet", [b"i"], "photo", mask=pa.array([b"x"])))
    with pytest.raises(
        InputError, match=r"must have one column of images' bytes, or name it `image`\. Found: photo, mask\.$"
    ):
        paths(photos)


def test_file_without_images_among_tables_is_refused(tmp_path):
    table(tmp_path / "a.parquet", [b"i"])
    table(tmp_path / "b.parquet", ["no bytes"], "text")
    with pytest.raises(InputError, match=r"/b\.parquet must have one column .* Found: none\.$"):
        paths(open_source(tmp_path / "*.parquet"))


def test_truncated_table_is_refused_in_a_sentence(tmp_path):
    path = table(tmp_path / "a.parquet", [b"i"])
    table(tmp_path / "b.parquet", [b"i"])
    os.truncate(tmp_path / "b.parquet", 100)
    assert len(paths(open_source(path))) == 1
    with pytest.raises(
        InputError, match=r"^The table /.*/b\.parquet cannot be read: .*; restore it, or move it away\.$"
    ):
        paths(open_source(tmp_path / "*.parquet"))


def test_time_is_that_of_the_file(tmp_path):
    path = table(tmp_path / "a.parquet", [b"i"])
    os.utime(path, (1_700_000_000.25, 1_700_000_000.25))
    assert images_in(open_source(path))[0].mtime == datetime.fromtimestamp(1_700_000_000.25, UTC)


@pytest.mark.parametrize("seed", range(5))
def test_rows_may_be_read_in_any_order(tmp_path, seed):
    rows = contents(60, 50)
    photos = open_source(table(tmp_path / f"{seed}.parquet", rows, row_group=7))
    images = images_in(photos)
    draw = random.Random(seed)
    wanted = [draw.randrange(60) for _ in range(100)] if seed else [*range(60), *range(59, -1, -1)]
    assert [photos.read(images[row]) for row in wanted] == [rows[row] for row in wanted]


def test_skipped_rows_are_dropped_and_read_again(tmp_path):
    rows = contents(30)
    reader = reader_of(table(tmp_path / "a.parquet", rows, row_group=30), max_kept_rows=3)
    wanted = [20, 19, 18, 17, 5, 4, 1, 29, 0]
    assert [reader.read(row) for row in wanted] == [rows[row] for row in wanted]


def test_table_is_read_by_threads_and_another_process(tmp_path):
    rows = contents(300, 5000)
    photos = open_source(table(tmp_path / "a.parquet", rows, row_group=100))
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(photos.read, images_in(photos))) == rows
        assert list(pool.map(pickle.loads(pickle.dumps(photos)).read, images_in(photos))) == rows


def test_row_group_is_streamed_once_for_nearby_rows(tmp_path, monkeypatch):
    started = []
    stream_group = RowReader.stream_group
    monkeypatch.setattr(
        RowReader, "stream_group", lambda self, group: started.append(group) or stream_group(self, group)
    )
    photos = open_source(table(tmp_path / "a.parquet", contents(200), row_group=50))
    images = images_in(photos)
    swapped = [images[row ^ 7] for row in range(200)]
    for image in swapped:
        photos.read(image)
    assert started == [0, 1, 2, 3]


def test_memory_does_not_hold_a_row_group(tmp_path):
    """A row group of 100 MB, in pages of 1 MB, read by eight threads of which one is slow."""
    path, random_bytes = tmp_path / "a.parquet", os.urandom(100_000)
    rows = pa.table({"image": [random_bytes[:-number] for number in range(1, 1001)]})
    pq.write_table(rows, path, row_group_size=1000, write_batch_size=8, use_dictionary=False, compression="none")
    del rows
    reader = reader_of(path, max_kept_bytes=4 << 20)
    before, most = pa.total_allocated_bytes(), 0

    def read(row: int) -> int:
        nonlocal most
        most = max(most, pa.total_allocated_bytes() - before)
        if row % 100 == 1:
            time.sleep(0.02)
        return len(reader.read(row))

    tracemalloc.start()
    try:
        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(read, range(1000))) == sum(100_000 - number for number in range(1, 1001))
        assert tracemalloc.get_traced_memory()[1] < 12 << 20
    finally:
        tracemalloc.stop()
    assert most < 12 << 20


def test_skipped_rows_are_held_within_a_bound(tmp_path):
    reader = reader_of(table(tmp_path / "a.parquet", contents(50, 100_000), row_group=50), max_kept_bytes=1 << 20)
    before = pa.total_allocated_bytes()
    assert len(reader.read(49)) == 100_049
    assert pa.total_allocated_bytes() - before < 2 << 20


def test_broken_page_affects_only_its_row_group(tmp_path):
    rows = contents(40, 2000)
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": rows}), path, row_group_size=10, compression="zstd", use_dictionary=False)
    start = pq.read_metadata(path).row_group(1).column(0).data_page_offset
    content = bytearray(path.read_bytes())
    content[start + 5 : start + 400] = os.urandom(395)
    path.write_bytes(content)
    photos = open_source(path)
    found = images_in(photos)
    good = [number for number in range(40) if number // 10 != 1]
    assert [photos.read(found[number]) for number in good] == [rows[number] for number in good]
    assert {reason_of(photos, found[number]) for number in range(10, 20)} == {"unreadable"}
    assert photos.read(found[25]) == rows[25]


@pytest.mark.parametrize("column", ["image", "text"])
def test_rows_of_a_replaced_table_are_missing(tmp_path, column):
    rows = contents(20)
    path = table(tmp_path / "a.parquet", rows)
    photos = open_source(path)
    found = images_in(photos)
    table(path, rows[5:] if column == "image" else ["no image"] * 20, column)
    os.utime(path, (1, 1))
    assert {reason_of(photos, image) for image in found} == {"missing"}


def test_rows_of_a_deleted_table_are_missing(tmp_path):
    write(tmp_path, {"t/notes.txt": b""})
    photos = open_source(table(tmp_path / "t" / "a.parquet", contents(3)))
    (image, *_) = images_in(photos)
    (tmp_path / "t" / "a.parquet").unlink()
    assert reason_of(photos, image) == "missing"
    (tmp_path / "t" / "notes.txt").unlink()
    with pytest.raises(RunError, match="mount it again"):
        photos.read(image)


def test_too_large_row_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "MAX_BYTES", 10)
    photos = open_source(table(tmp_path / "a.parquet", [bytes(10), bytes(11)]))
    small, large = images_in(photos)
    assert photos.read(small) == bytes(10)
    assert reason_of(photos, large) == "too_large"


def test_paths_are_listed_without_reading_the_images(tmp_path, monkeypatch):
    rows = pa.array([{"bytes": os.urandom(100_000), "path": str(number)} for number in range(300)], HUGGING_FACE)
    photos = open_source(table(tmp_path / "a.parquet", rows, row_group=300))
    del rows
    before, most = pa.total_allocated_bytes(), 0
    for _ in photos.batches():
        most = max(most, pa.total_allocated_bytes() - before)
    assert most < 4 << 20
