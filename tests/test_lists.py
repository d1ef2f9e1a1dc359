from __future__ import annotations

import csv
import os
import pickle
import tracemalloc
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import images_in, write

from flowers_batch import storage
from flowers_batch.config import InputError, RunError
from flowers_batch.reading import EPOCH, Image, ReadError
from flowers_batch.sources import Source, open_source

TIME = datetime(2024, 5, 1, 12, 0, 0, 250000, UTC)


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch):
    monkeypatch.setattr(storage, "RETRY_SECONDS", ())


def text(path: Path, entries: list[str]) -> Path:
    path.write_text("".join(f"{entry}\n" for entry in entries), encoding="utf-8")
    return path


def table(path: Path, entries: list[str], **columns: list) -> Path:
    pq.write_table(pa.table({"other": list(range(len(entries))), "path": entries, **columns}), path)
    return path


def comma_separated(path: Path, entries: list[str], **columns: list) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["other", "path", *columns])
        writer.writerows([0, entry, *rest] for entry, *rest in zip(entries, *columns.values(), strict=True))
    return path


LISTS = {"list.txt": text, "list.csv": comma_separated, "list.parquet": table}


@pytest.fixture(params=LISTS)
def listing(request, tmp_path) -> Callable[..., Path]:
    """Writes a list of one kind into the folder `photos`."""
    (tmp_path / "photos").mkdir()
    return lambda entries, **columns: LISTS[request.param](tmp_path / "photos" / request.param, entries, **columns)


def paths(source: Source) -> list[str]:
    return [image.path for image in images_in(source)]


def reason_of(source: Source, path: str) -> tuple[str, str]:
    with pytest.raises(ReadError) as refused:
        source.read(Image(path))
    assert str(refused.value).endswith(".")
    return refused.value.reason, str(refused.value)


def test_entries_are_relative_to_the_lists_folder_or_absolute_and_keyed_as_written(listing, tmp_path):
    write(tmp_path, {"photos/a/b.jpg": b"1", "photos/ä ö.jpg": b"22", "other/no-suffix": b"333"})
    entries = [str(tmp_path / "other/no-suffix"), "../photos/a/b.jpg", "a/b.jpg", "ä ö.jpg"]
    photos = open_source(listing(entries))
    found = images_in(photos)
    assert [image.path for image in found] == sorted(entries, key=str.encode)
    assert {image.path: photos.read(image) for image in found} == dict(
        zip(entries, [b"333", b"1", b"1", b"22"], strict=True)
    )
    assert photos.in_path_order and photos.repeated == photos.ignored == 0


def test_size_and_time_are_those_of_the_file_unless_the_list_tells_both(tmp_path):
    write(tmp_path, {"a.jpg": b"12345"})
    os.utime(tmp_path / "a.jpg", (TIME.timestamp(), TIME.timestamp()))
    expected = Image("a.jpg", 5, TIME)
    assert images_in(open_source(text(tmp_path / "l.txt", ["a.jpg"]))) == [expected]
    for write_list, name in ((comma_separated, "l.csv"), (table, "l.parquet")):
        told = write_list(tmp_path / name, ["a.jpg"], size=[7])
        assert images_in(open_source(told)) == [expected]
        told = write_list(tmp_path / name, ["a.jpg"], bytes=[7], mtime=["2020-01-02T03:04:05.000Z"])
        assert images_in(open_source(told)) == [Image("a.jpg", 7, datetime(2020, 1, 2, 3, 4, 5, 0, UTC))]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2020-01-02 03:04:05", datetime(2020, 1, 2, 3, 4, 5, 0, UTC)),
        ("2020-01-02T03:04:05+02:00", datetime(2020, 1, 2, 1, 4, 5, 0, UTC)),
        (datetime(2020, 1, 2, 3, 4, 5, 6), datetime(2020, 1, 2, 3, 4, 5, 6, UTC)),
        (TIME, TIME),
    ],
)
def test_time_may_be_written_in_many_ways(tmp_path, written, meant):
    told = table(tmp_path / "l.parquet", ["s3://b/a.jpg"], size=[1], mtime=[written])
    assert images_in(open_source(told))[0].mtime == meant


def test_entry_at_a_url_has_no_size_and_no_time(tmp_path):
    assert images_in(open_source(text(tmp_path / "l.txt", ["s3://b/a.jpg"]))) == [Image("s3://b/a.jpg", 0, EPOCH)]


def test_repeats_are_dropped_and_counted_each_time(listing, tmp_path):
    photos = open_source(listing(["b.jpg", "a.jpg", "b.jpg", "b.jpg"]))
    for _ in range(2):
        assert paths(photos) == ["a.jpg", "b.jpg"]
        assert photos.repeated == 2


def test_repeats_are_dropped_from_a_list_that_is_in_order(listing, tmp_path):
    photos = open_source(listing(["a.jpg", "a.jpg", "b.jpg"]))
    assert paths(photos) == ["a.jpg", "b.jpg"]
    assert photos.repeated == 1


def test_order_is_that_of_bytes_not_of_the_list(listing):
    names = ["Zoë.jpg", "a/b.jpg", "a.jpg", "a-b.jpg", "ä.jpg", "日本.jpg", "😀.jpg", "B.jpg"]
    assert paths(open_source(listing(names))) == sorted(names, key=str.encode)


def test_entries_below_the_root_are_keyed_relative_to_it(listing, tmp_path):
    write(tmp_path, {"data/a/b.jpg": b"1", "data/c.jpg": b"2", "data2/d.jpg": b"3"})
    entries = [str(tmp_path / name) for name in ("data/a/b.jpg", "data2/d.jpg")] + [
        "c.jpg",
        str(tmp_path / "data/c.jpg"),
    ]
    photos = open_source(listing(entries), str(tmp_path / "data"))
    found = {image.path: photos.read(image) for image in images_in(photos)}
    assert found == {"a/b.jpg": b"1", "c.jpg": b"2", str(tmp_path / "data2/d.jpg"): b"3"}
    assert photos.repeated == 1 and photos.root == str(tmp_path / "data")


def test_root_is_absolute_for_processes_that_run_elsewhere(tmp_path, monkeypatch):
    write(tmp_path, {"data/a.jpg": b"1"})
    monkeypatch.chdir(tmp_path)
    photos = open_source(text(tmp_path / "l.txt", ["a.jpg"]), "data")
    monkeypatch.chdir("/")
    assert open_source(photos.url, photos.root).read(Image("a.jpg")) == b"1"


def test_missing_root_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"^There is no folder /.*/nowhere: check --root\.$"):
        open_source(text(tmp_path / "l.txt", ["a"]), str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    "content", [b"a.jpg\nb c.jpg\n", b"\xef\xbb\xbfa.jpg\r\n\r\n  \r\nb c.jpg", b"\n\na.jpg\n\nb c.jpg"]
)
def test_text_may_have_a_mark_blank_lines_and_line_ends_of_any_kind(tmp_path, content):
    (tmp_path / "l.txt").write_bytes(content)
    assert paths(open_source(tmp_path / "l.txt")) == ["a.jpg", "b c.jpg"]


def test_text_that_is_utf16_is_refused(tmp_path):
    (tmp_path / "l.txt").write_text("a.jpg\n", encoding="utf-16")
    with pytest.raises(InputError, match=r" is UTF-16: save it as UTF-8\.$"):
        paths(open_source(tmp_path / "l.txt"))


@pytest.mark.parametrize("name", ["l.txt", "l.csv"])
def test_name_that_is_no_utf8_is_found(tmp_path, name):
    raw = b"caf\xe9.jpg"
    with open(os.path.join(os.fsencode(tmp_path), raw), "wb") as file:
        file.write(b"photo")
    (tmp_path / name).write_bytes((b"path\n" if name == "l.csv" else b"") + raw + b"\n//bytes/caf%E9.jpg\n")
    photos = open_source(tmp_path / name)
    (image,) = images_in(photos)
    assert image == Image("//bytes/caf%E9.jpg", 5, image.mtime)
    assert photos.read(image) == b"photo" and photos.repeated == 1


def test_named_file_that_is_not_there_is_a_row_that_is_missing(listing):
    photos = open_source(listing(["nowhere.jpg"]))
    assert images_in(photos) == [Image("nowhere.jpg")]
    assert reason_of(photos, "nowhere.jpg")[0] == "missing"


@pytest.mark.parametrize(
    "entry", ["folder", "what://ever/a.jpg", "s3://b/a.jpg?what=1", "nul\0.jpg", "x" * 300, "a.jpg/b"]
)
def test_entry_that_cannot_be_read_is_a_row(tmp_path, entry):
    write(tmp_path, {"folder/x": b"", "a.jpg": b""})
    photos = open_source(text(tmp_path / "l.txt", [entry]))
    assert paths(photos) == [entry]
    assert reason_of(photos, entry)[0] == "unreadable"


@pytest.mark.parametrize(
    "entry",
    [
        "s3://AKIA:S3CRET@bucket/a.jpg",
        "s3://AKIA:S3/CRET@bucket/a.jpg",
        "s3://bucket/a.jpg?access_key=AKIA&secret_key=S3CRET",
        "s3://AKIA:12S3CRET@bucket/a.jpg",
    ],
)
def test_credentials_of_an_entry_are_refused_and_written_nowhere(tmp_path, entry):
    photos = open_source(text(tmp_path / "l.txt", [entry]))
    (path,) = paths(photos)
    reason, message = reason_of(photos, path)
    assert reason == "unreadable" and "holds credentials" in message
    assert "CRET" not in path + message and "AKIA" not in path + message


@pytest.mark.parametrize("entry", ["hdfs://host:8020/a@b.jpg", "s3://bucket/a:b@c.jpg", "abfs://box@account/a.jpg"])
def test_url_without_credentials_stays_as_it_is(tmp_path, entry):
    assert paths(open_source(text(tmp_path / "l.txt", [entry]))) == [entry]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("file,size\na,1\n", r"has no column `path`: "),
        ("", r"has no column `path`: "),
        ("path,size\na,1\n,2\n", r"^Row 2 of the list .* has no path: "),
        ("path,size\na,big\n", r"^Row 1 of the list .* cannot be understood \(.*big.*\): "),
        ("path,size,mtime\na,1,yesterday\n", r"^Row 1 of the list .* cannot be understood \(.*yesterday.*\): "),
        (f"path\n{'x' * 200_000}\n", r"^The list .* cannot be read: field larger than"),
    ],
)
def test_list_that_cannot_be_understood_is_refused_in_a_sentence(tmp_path, content, sentence):
    (tmp_path / "l.csv").write_text(content)
    with pytest.raises(InputError, match=sentence):
        paths(open_source(tmp_path / "l.csv"))


@pytest.mark.parametrize("time", [0, 1_700_000_000, 1.5, date(2024, 5, 1), True])
def test_time_of_a_parquet_list_that_is_none_is_refused_in_a_sentence(tmp_path, time):
    pq.write_table(pa.table({"path": ["a.jpg"], "mtime": [time]}), tmp_path / "l.parquet")
    with pytest.raises(
        InputError, match=r"^Row 1 of the list .* cannot be understood \(.* is no time\): .* ISO 8601\.$"
    ):
        paths(open_source(tmp_path / "l.parquet"))


def test_parquet_that_is_none_is_refused_in_a_sentence(tmp_path):
    write(tmp_path, {"l.parquet": b"nothing of the kind"})
    with pytest.raises(InputError, match=r"l\.parquet cannot be read as Parquet: .*\.$"):
        open_source(tmp_path / "l.parquet")


def test_several_lists_are_one(tmp_path):
    for number in (2, 0, 1):
        text(tmp_path / f"l{number}.txt", [f"{2 - number}.jpg", "x.jpg"])
    photos = open_source(tmp_path / "l*.txt")
    assert paths(photos) == ["0.jpg", "1.jpg", "2.jpg", "x.jpg"]
    assert photos.repeated == 2 and photos.url == str(tmp_path / "l*.txt")


def test_root_that_vanished_ends_the_run(tmp_path):
    (tmp_path / "data").mkdir()
    photos = open_source(text(tmp_path / "l.txt", ["a.jpg"]), str(tmp_path / "data"))
    with pytest.raises(RunError, match=r"^The folder /.*/data is not there any more, or is empty: mount it again"):
        photos.read(Image("a.jpg"))


def test_list_travels_to_another_process(tmp_path):
    write(tmp_path, {"data/a.jpg": b"1"})
    photos = pickle.loads(pickle.dumps(open_source(text(tmp_path / "l.txt", ["a.jpg"]), str(tmp_path / "data"))))
    assert photos.read(Image("a.jpg")) == b"1" and photos.root == str(tmp_path / "data")


def test_memory_does_not_grow_with_the_list(listing):
    """Its entries take 3 MB as text, and 10 MB as objects."""
    photos = open_source(listing([f"s3://bucket/{number * 7919 % 40_000:060d}.jpg" for number in range(40_000)]))
    tracemalloc.start()
    try:
        found = sum(map(len, photos.batches()))
        assert tracemalloc.get_traced_memory()[1] < 6 << 20
    finally:
        tracemalloc.stop()
    assert found == 40_000
