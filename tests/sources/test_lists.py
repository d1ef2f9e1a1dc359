from __future__ import annotations

import csv
import os
import pickle
import shutil
import traceback
import tracemalloc
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import images_in, write

from flowers_batch.errors import InputError, RunError
from flowers_batch.sources import list_files
from flowers_batch.sources.images import EPOCH, Image
from flowers_batch.sources.opening import open_source
from flowers_batch.sources.reading import ReadError
from flowers_batch.sources.source import Source
from flowers_batch.storage import retries

TIME = datetime(2024, 5, 1, 12, 0, 0, 250000, UTC)


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch):
    monkeypatch.setattr(retries, "RETRY_SECONDS", ())


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
    """Write a list of one kind into the folder `photos`."""
    (tmp_path / "photos").mkdir()
    return lambda entries, **columns: LISTS[request.param](tmp_path / "photos" / request.param, entries, **columns)


def paths(source: Source) -> list[str]:
    return [image.path for image in images_in(source)]


def reason_of(source: Source, path: str) -> tuple[str, str]:
    with pytest.raises(ReadError) as refused:
        source.read(Image(path))
    assert str(refused.value).endswith(".")
    return refused.value.reason, str(refused.value)


def test_entries_are_relative_or_absolute_and_keyed_as_written(listing, tmp_path):
    write(tmp_path, {"photos/a/b.jpg": b"1", "photos/ä ö.jpg": b"22", "other/no-suffix": b"333"})
    entries = [str(tmp_path / "other/no-suffix"), "../photos/a/b.jpg", "a/b.jpg", "ä ö.jpg"]
    photos = open_source(listing(entries))
    found = images_in(photos)
    assert [image.path for image in found] == sorted(entries, key=str.encode)
    assert {image.path: photos.read(image) for image in found} == dict(
        zip(entries, [b"333", b"1", b"1", b"22"], strict=True)
    )
    assert photos.in_path_order and photos.repeated == photos.left_out.ignored == 0


def test_size_and_time_are_the_files_unless_the_list_has_both(tmp_path):
    write(tmp_path, {"a.jpg": b"12345"})
    os.utime(tmp_path / "a.jpg", (TIME.timestamp(), TIME.timestamp()))
    expected = Image("a.jpg", 5, TIME)
    assert images_in(open_source(text(tmp_path / "l.txt", ["a.jpg"]))) == [expected]
    for write_list, name in ((comma_separated, "l.csv"), (table, "l.parquet")):
        path = write_list(tmp_path / name, ["a.jpg"], size=[7])
        assert images_in(open_source(path)) == [expected]
        path = write_list(tmp_path / name, ["a.jpg"], bytes=[7], mtime=["2020-01-02T03:04:05.000Z"])
        assert images_in(open_source(path)) == [Image("a.jpg", 7, datetime(2020, 1, 2, 3, 4, 5, 0, UTC))]


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
    path = table(tmp_path / "l.parquet", ["s3://b/a.jpg"], size=[1], mtime=[written])
    assert images_in(open_source(path))[0].mtime == meant


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


def test_entry_with_an_empty_part_below_the_root_is_not_read_from_elsewhere(listing, tmp_path):
    write(tmp_path, {"data/tmp.jpg": b"1"})
    entry = f"{tmp_path}/data//tmp.jpg"
    photos = open_source(listing([entry, "s3://b/data//a.jpg"]), str(tmp_path / "data"))
    assert paths(photos) == [entry, "s3://b/data//a.jpg"] and photos.read(Image(entry)) == b"1"


def test_root_is_absolute_for_processes_that_run_elsewhere(tmp_path, monkeypatch):
    write(tmp_path, {"data/a.jpg": b"1"})
    monkeypatch.chdir(tmp_path)
    photos = open_source(text(tmp_path / "l.txt", ["a.jpg"]), "data")
    monkeypatch.chdir("/")
    assert open_source(photos.url, photos.root).read(Image("a.jpg")) == b"1"


def test_missing_root_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"^There is no folder /.*/nowhere: check `root`\.$"):
        open_source(text(tmp_path / "l.txt", ["a"]), str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    "content", [b"a.jpg\nb c.jpg\n", b"\xef\xbb\xbfa.jpg\r\n\r\n  \r\nb c.jpg", b"\n\na.jpg\n\nb c.jpg"]
)
def test_text_may_have_a_mark_blank_lines_and_any_line_ends(tmp_path, content):
    (tmp_path / "l.txt").write_bytes(content)
    assert paths(open_source(tmp_path / "l.txt")) == ["a.jpg", "b c.jpg"]


@pytest.mark.parametrize("name", ["l.txt", "l.csv", "l.tsv"])
@pytest.mark.parametrize("mark", ["\ufeff", ""])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-8"])
def test_list_may_be_in_any_unicode_encoding(tmp_path, name, mark, encoding):
    entries = ["Zoë 😀.jpg", "a\u2028b.jpg"]
    header = "" if name == "l.txt" else "path\r\n"
    (tmp_path / name).write_bytes((mark + header + "".join(f"{entry}\r\n" for entry in entries)).encode(encoding))
    if not mark and encoding != "utf-8" and header:
        with pytest.raises(InputError, match=r"^The header of the list .* \(it has NUL characters\): .* UTF-8\.$"):
            paths(open_source(tmp_path / name))
    elif mark or encoding == "utf-8":
        assert paths(open_source(tmp_path / name)) == sorted(entries, key=str.encode)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("id;Path;Bytes\n1;s3://b/a,b.jpg;7\n", [("s3://b/a,b.jpg", 7)]),
        ("PATH\tsize\ns3://b/a,b;c.jpg\t7\n", [("s3://b/a,b;c.jpg", 7)]),
        ("sep=;\npath;size\ns3://b/a.jpg;7\n", [("s3://b/a.jpg", 7)]),
        ('"sep=|"\r\npath|size\r\ns3://b/a.jpg|7\r\n', [("s3://b/a.jpg", 7)]),
        ("path , size\ns3://b/a b.jpg , 7\n", [("s3://b/a b.jpg", 7)]),
        ('path, size\n"s3://b/a,b.jpg", 7\n', [("s3://b/a,b.jpg", 7)]),
        ("path\na,b.jpg\nc;d.jpg\n", [("a,b.jpg", 0), ("c;d.jpg", 0)]),
        ('"path"\n"a,b.jpg"\n', [("a,b.jpg", 0)]),
        ('"size";"path"\n7;"s3://b/a;""b"".jpg"\n', [('s3://b/a;"b".jpg', 7)]),
        ("path,size,,\ns3://b/a.jpg,7,,\n,,,\n", [("s3://b/a.jpg", 7)]),
        ("other,path\n1, a.jpg\n", [(" a.jpg", 0)]),
        ("path,size\rs3://b/a.jpg,7\r", [("s3://b/a.jpg", 7)]),
    ],
)
def test_csv_is_read_as_programs_and_people_write_it(tmp_path, content, expected):
    (tmp_path / "l.csv").write_text(content, newline="")
    assert [(image.path, image.bytes) for image in images_in(open_source(tmp_path / "l.csv"))] == expected


@pytest.mark.parametrize("name", ["l.txt", "l.csv"])
def test_name_not_utf8_is_found(tmp_path, name):
    raw = b"caf\xe9.jpg"
    with open(os.path.join(os.fsencode(tmp_path), raw), "wb") as file:
        file.write(b"photo")
    (tmp_path / name).write_bytes((b"path\n" if name == "l.csv" else b"") + raw + b"\n//bytes/caf%E9.jpg\n")
    photos = open_source(tmp_path / name)
    (image,) = images_in(photos)
    assert image == Image("//bytes/caf%E9.jpg", 5, image.mtime)
    assert photos.read(image) == b"photo" and photos.repeated == 1


def test_listed_file_that_does_not_exist_is_missing(listing):
    photos = open_source(listing(["nowhere.jpg"]))
    assert images_in(photos) == [Image("nowhere.jpg")]
    assert reason_of(photos, "nowhere.jpg")[0] == "missing"


@pytest.mark.parametrize("entry", ["folder", "gs://b/a//b.jpg", "gs://b/./a.jpg", "nul\0.jpg", "x" * 300, "a.jpg/b"])
def test_unreadable_entry_is_a_row(tmp_path, entry):
    write(tmp_path, {"folder/x": b"", "a.jpg": b""})
    photos = open_source(text(tmp_path / "l.txt", [entry]))
    assert paths(photos) == [entry]
    assert reason_of(photos, entry)[0] == "unreadable"


@pytest.mark.parametrize(
    ("entry", "scheme"),
    [
        ("https://example.org/a.jpg", "https"),
        ("HTTP://example.org/b.jpg?X-Amz-Signature=S3CRET", "http"),
        ("ftp://host/a.jpg", "ftp"),
        ("what://ever/a.jpg", "what"),
        ("hdfs://host:8020/a.jpg", "hdfs"),
    ],
)
def test_entry_that_no_file_system_opens_is_refused_at_planning(listing, entry, scheme):
    if scheme == "hdfs" and shutil.which("hdfs"):
        pytest.skip("this machine has a driver")
    photos = open_source(listing(["a.jpg", entry]))
    with pytest.raises(InputError, match=rf"^The list .* entry .* {scheme}://.* cannot be opened") as refused:
        paths(photos)
    assert "S3CRET" not in str(refused.value)
    if scheme != "hdfs":
        assert "or a URL of s3, gs, abfs, abfss, hdfs or file;" in str(refused.value)


def test_schemes_of_s3_are_one_in_any_case(listing):
    photos = open_source(listing([f"{scheme}://b/a b.jpg" for scheme in ("s3", "S3", "s3a", "S3N")]))
    assert paths(photos) == ["s3://b/a b.jpg"] and photos.repeated == 3


@pytest.mark.parametrize("key", ["a b.jpg", "50%.jpg", "%41.jpg", "#1+.jpg", "what?.jpg", "a?b=c.jpg", "[1].jpg"])
def test_keys_of_urls_are_taken_as_written(listing, key):
    photos = open_source(listing([f"s3://b/photos/{key}", f"s3://b/photos/{key}?region=eu-central-1"]))
    found = [f"s3://b/photos/{key}", f"s3://b/photos/{key}?region=eu-central-1"]
    assert paths(photos) == sorted(found, key=str.encode)
    folder, name = photos._find_in_store(found[1])
    assert (folder.at(name), folder.url) == (f"b/photos/{key}", "s3://b/?region=eu-central-1")


@pytest.mark.parametrize("name", ["l.txt", "l.csv"])
def test_entry_of_a_store_that_is_not_utf8_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes((b"path\n" if name == "l.csv" else b"") + b"s3://b/caf\xe9.jpg\n")
    with pytest.raises(InputError, match=r"^The list .* names s3://b/caf\\xe9.jpg, .*: save the list as UTF-8\.$"):
        paths(open_source(tmp_path / name))


@pytest.mark.parametrize(
    "entry",
    [
        "s3://AKIA:S3CRET@bucket/a.jpg",
        "s3://AKIA:S3/CRET@bucket/a.jpg",
        "s3://bucket/a.jpg?access_key=AKIA&secret_key=S3CRET",
        "s3://AKIA:12S3CRET@bucket/a.jpg",
        "S3A://AKIA:S3CRET@bucket/a.jpg",
        "s3://bucket/a.jpg?b?access_key=AKIA&secret_key=S3CRET",
        "s3://bucket/a.jpg?X-Amz-Credential=AKIA&X-Amz-Signature=S3CRET",
        "s3://bucket/a.jpg?X-Amz-Security-Token=S3CRET",
        "gs://bucket/a.jpg?access_token=S3CRET",
        "gs://AKIA:S3CRET@bucket/a.jpg",
        "abfss://box@account.dfs.core.windows.net/a.jpg?client_id=AKIA&tenant_id=x&client_secret=S3CRET",
        "abfs://box@account.dfs.core.windows.net/a.jpg?sv=1&sig=S3CRET",
        "https://host/a.jpg?sig=S3CRET",
        "file://AKIA:S3CRET@host/a.jpg",
        " s3://bucket/a.jpg?sig=S3CRET",
        "s3:/bucket/a.jpg?sig=S3CRET",
    ],
)
def test_secret_in_an_entry_ends_the_listing_and_is_not_repeated(tmp_path, entry):
    photos = open_source(text(tmp_path / "l.txt", ["a.jpg", entry]))
    with pytest.raises(InputError, match=r"^The list .* has an entry that cannot be read: .*\.$") as refused:
        paths(photos)
    shown = "".join(traceback.format_exception(refused.value))
    assert "CRET" not in shown and "AKIA" not in shown


@pytest.mark.parametrize("option", ["endpoint_override=evil.example", "scheme=http", "tls_verify_certificates=false"])
def test_entry_does_not_decide_which_server_is_asked(tmp_path, option):
    photos = open_source(text(tmp_path / "l.txt", [f"s3://bucket/a.jpg?region=x&{option}"]))
    with pytest.raises(InputError, match=r"^The list .*: Options that decide which server is asked count only on"):
        paths(photos)
    reason, _ = reason_of(photos, f"s3://bucket/a.jpg?region=x&{option}")  # as in a doctored manifest
    assert reason == "unreadable"


@pytest.mark.parametrize("entry", ["s3://bucket/a:b@c.jpg", "abfs://box@account/a.jpg", "s3://b/a?b=c d.jpg"])
def test_url_without_credentials_stays_as_it_is(tmp_path, entry):
    assert paths(open_source(text(tmp_path / "l.txt", [entry]))) == [entry]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("file,size\na,1\n", r"^The list .* has no column `path` \(its columns are `file`, `size`\): its header"),
        ("", r"^The list .* has no column `path` \(it is empty\): its header must name `path`\.$"),
        ("path,size\na,1\n,2\n", r"^Row 2 of the list .* has no path: "),
        ("path,size\na,big\n", r"^Row 1 of the list .* cannot be parsed \(.*big.*\): "),
        ("path,size,mtime\na,1,yesterday\n", r"^Row 1 of the list .* cannot be parsed \(.*yesterday.*\): "),
        (f"path\n{'x' * 200_000}\n", r"^Row 1 of the list .* cannot be read \(field larger than .*\): check its quot"),
        ('path,size\na,1\n"b,2\nc,3\n', r"^Row 2 of the list .* cannot be read \(unexpected end of data\): check its"),
        ('path,size\na,1\n"b"c,2\n', r"^Row 2 of the list .* cannot be read \(.*\): check its quotation marks\.$"),
        ("path,size\na,1\nb\0,2\n", r"^Row 2 of the list .* cannot be read \(it has NUL characters\): save"),
        ("path,size\na,b.jpg,1\n", r"^Row 1 of the list .* has 3 cells and the header 2: put cells that contain `,`"),
        (f"path,size\na,1\n{'x' * (2 << 20)}", r"^Row 2 of the list .* cannot be read \(a line is too long\)"),
        ("Path,PATH\n", r"^The list .* has several columns `path`: rename all but one\.$"),
    ],
)
def test_invalid_list_is_refused_in_a_sentence(tmp_path, content, sentence):
    (tmp_path / "l.csv").write_text(content)
    with pytest.raises(InputError, match=sentence):
        paths(open_source(tmp_path / "l.csv"))


@pytest.mark.parametrize("time", [0, 1_700_000_000, 1.5, date(2024, 5, 1), True])
def test_invalid_time_in_parquet_is_refused_in_a_sentence(tmp_path, time):
    pq.write_table(pa.table({"path": ["a.jpg"], "mtime": [time]}), tmp_path / "l.parquet")
    with pytest.raises(
        InputError, match=r"^Row 1 of the list .* cannot be parsed \(.* is not a time\): .* ISO 8601\.$"
    ):
        paths(open_source(tmp_path / "l.parquet"))


@pytest.mark.parametrize(
    ("sizes", "meant"),
    [
        ([1, None, 3], [1, 0, 3]),
        (["1", "", None], [1, 0, 0]),
        ([" 7", "+7", "1_000"], [7, 7, 1000]),
        ([7.9, 7.0, None], [7, 7, 0]),
        (pa.array([1, 2, 3], pa.uint64()), [1, 2, 3]),
        (pa.array([None, None, None]), [0, 0, 0]),
    ],
)
def test_sizes_may_be_written_in_many_ways(tmp_path, sizes, meant):
    entries = ["s3://b/0.jpg", "s3://b/1.jpg", "s3://b/2.jpg"]
    path = table(tmp_path / "l.parquet", entries, size=sizes)
    assert [image.bytes for image in images_in(open_source(path))] == meant


@pytest.mark.parametrize(
    "size", ["0x10", "1e3", "7.5", pa.scalar(2**63, pa.uint64()), str(2**63), date(2024, 5, 1), [1]]
)
def test_invalid_size_is_refused_in_a_sentence(tmp_path, size):
    path = table(tmp_path / "l.parquet", ["s3://b/a.jpg"], size=pa.array([size]))
    with pytest.raises(InputError, match=r"^Row 1 of the list .* cannot be parsed \(.*\): give sizes in bytes"):
        paths(open_source(path))


@pytest.mark.parametrize("write_list", [comma_separated, table])
def test_list_may_mix_times_with_and_without_zone(tmp_path, write_list):
    times = ["2020-01-02T03:04:05", "2020-01-02T03:04:05-01:00", "2020-01-02", "20200102T030405.1234567Z", "", None]
    entries = [f"s3://b/{number}.jpg" for number in range(6)]
    name = "l.csv" if write_list is comma_separated else "l.parquet"
    path = write_list(tmp_path / name, entries, bytes=[1] * 6, mtime=times)
    day = datetime(2020, 1, 2, tzinfo=UTC)
    assert [image.mtime for image in images_in(open_source(path))] == [
        day.replace(hour=3, minute=4, second=5),
        day.replace(hour=4, minute=4, second=5),
        day,
        day.replace(hour=3, minute=4, second=5, microsecond=123456),
        EPOCH,
        EPOCH,
    ]


@pytest.mark.parametrize("time", ["0000-01-01T00:00:00", "10000-01-01", pa.scalar(-(2**60), pa.timestamp("us"))])
def test_time_out_of_pythons_range_is_refused(tmp_path, time):
    pq.write_table(pa.table({"path": ["a.jpg"], "mtime": pa.array([time])}), tmp_path / "l.parquet")
    with pytest.raises(InputError, match=r"l\.parquet cannot be (read|parsed)"):
        paths(open_source(tmp_path / "l.parquet"))


@pytest.mark.parametrize("type_", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())])
def test_text_of_a_parquet_list_may_be_of_any_type(tmp_path, type_):
    entries, times = pa.array(["s3://b/a.jpg", "s3://b/b.jpg"]), pa.array(["2020-01-02", "2020-01-02"])
    path = table(tmp_path / "l.parquet", entries.cast(type_), size=[1, 2], mtime=times.cast(type_))
    day = datetime(2020, 1, 2, tzinfo=UTC)
    assert images_in(open_source(path)) == [Image("s3://b/a.jpg", 1, day), Image("s3://b/b.jpg", 2, day)]


def test_paths_that_are_not_text_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"^Row 1 of the list .* has no path: "):
        paths(open_source(table(tmp_path / "l.parquet", [1, 2])))


def test_parquet_text_not_utf8_is_refused_in_a_sentence(tmp_path):
    offsets, content = pa.array([0, 2], pa.int32()).buffers()[1], pa.py_buffer(b"\xff\xfe")
    broken = pa.Array.from_buffers(pa.string(), 1, [None, offsets, content])
    with pytest.raises(InputError, match=r"l\.parquet cannot be read: "):
        paths(open_source(table(tmp_path / "l.parquet", broken)))


@pytest.mark.parametrize("write_list", [comma_separated, table])
@pytest.mark.parametrize("broken", ["", None])
def test_wrong_row_is_reported_by_its_number(tmp_path, monkeypatch, write_list, broken):
    monkeypatch.setattr(list_files, "ROWS_AT_ONCE", 4)
    monkeypatch.setattr(list_files, "_COLUMN_ROWS", 4)
    entries = [f"{number:02d}.jpg" for number in range(10)]
    name = "l.csv" if write_list is comma_separated else "l.parquet"
    with pytest.raises(InputError, match=r"^Row 7 of the list .* has no path"):
        paths(open_source(write_list(tmp_path / name, [*entries[:6], broken, *entries[7:]])))


def test_csv_rows_may_be_short_and_blank_lines_are_ignored(tmp_path):
    (tmp_path / "l.csv").write_text('size,path,mtime\n\n1,"s3://b/a,\n1.jpg"\n\n2,s3://b/b.jpg,,\n3\n')
    photos = open_source(tmp_path / "l.csv")
    with pytest.raises(InputError, match=r"^Row 3 of the list .* has no path"):
        paths(photos)
    (tmp_path / "l.csv").write_text('size,path,mtime\n\n1,"s3://b/a,\n1.jpg"\n\n2,s3://b/b.jpg\n')
    assert images_in(photos) == [Image("s3://b/a,\n1.jpg", 1), Image("s3://b/b.jpg", 2)]


def test_repeats_and_order_are_noticed_across_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(list_files, "_COLUMN_ROWS", 2)
    for entries, repeated in ((["a", "b", "b", "b", "b", "c"], 3), (["a", "c", "b", "d"], 0), (["b", "b", "a"], 1)):
        photos = open_source(table(tmp_path / "l.parquet", entries))
        assert (paths(photos), photos.repeated) == (sorted(set(entries)), repeated)


def test_entries_of_all_kinds_below_a_root_are_keyed(tmp_path):
    root = write(tmp_path / "dätä", {"a.jpg": b"1"})
    raw = os.fsencode(root) + b"/caf\xe9.jpg"
    entries = [str(root / "a?b@c.jpg").encode(), b"x", os.fsencode(root) + b"/", b"s3://b/k?p", raw, b"/dat"]
    (tmp_path / "l.txt").write_bytes(b"\n".join(entries))
    found = {"a?b@c.jpg", "x", "", "s3://b/k?p", "//bytes/caf%E9.jpg", "/dat"}
    assert set(paths(open_source(tmp_path / "l.txt", str(root)))) == found


def test_file_not_parquet_is_refused_in_a_sentence(tmp_path):
    write(tmp_path, {"l.parquet": b"nothing of the kind"})
    with pytest.raises(InputError, match=r"l\.parquet cannot be read as Parquet: .*\.$"):
        open_source(tmp_path / "l.parquet")


def test_several_lists_are_one(tmp_path):
    for number in (2, 0, 1):
        text(tmp_path / f"l{number}.txt", [f"{2 - number}.jpg", "x.jpg"])
    photos = open_source(tmp_path / "l*.txt")
    assert paths(photos) == ["0.jpg", "1.jpg", "2.jpg", "x.jpg"]
    assert photos.repeated == 2 and photos.url == str(tmp_path / "l*.txt")


def test_missing_root_ends_the_run(tmp_path):
    (tmp_path / "data").mkdir()
    photos = open_source(text(tmp_path / "l.txt", ["a.jpg"]), str(tmp_path / "data"))
    with pytest.raises(RunError, match=r"/data no longer exists, is empty, or cannot be listed: mount it again"):
        photos.read(Image("a.jpg"))


def test_list_can_be_pickled(tmp_path):
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
