"""Each kind of source from an object store, an S3 server on this machine."""

from __future__ import annotations

import io
import json
import pickle
import random
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import draw_archive, images_in, write

from flowers_batch.errors import InputError, RunError
from flowers_batch.runs.verify import verify
from flowers_batch.sources.images import EPOCH, Image
from flowers_batch.sources.left_out import Examples
from flowers_batch.sources.opening import open_source
from flowers_batch.sources.reading import ReadError
from flowers_batch.sources.skipping import Skipping
from flowers_batch.sources.source import Source
from flowers_batch.storage import retries
from flowers_batch.storage.opening import open_folder

NAMES = ["a/b.jpg", "a-b.jpg", "Zoë 😀.jpg", "b c/%41.jpg", "x+y.jpg"]


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch):
    monkeypatch.setattr(retries, "RETRY_SECONDS", (0.0, 0.0, 0.0))


@pytest.fixture(scope="module")
def archive_of_all(tmp_path_factory) -> Path:
    """Return the same photos as a folder, tars, tables and lists of all kinds."""
    folder = tmp_path_factory.mktemp("all")
    write(folder / "photos", {name: name.encode() * 100 for name in [*NAMES, "notes.txt"]})
    for number in range(2):
        with tarfile.open(folder / f"{number}.tar", "w") as file:
            for name in NAMES:
                header = tarfile.TarInfo(name)
                header.size = 300_000
                file.addfile(header, io.BytesIO(name.encode()[:1] * 300_000))
        rows = [{"bytes": name.encode() * 50, "path": name} for name in NAMES]
        pq.write_table(pa.table({"image": rows}), folder / f"{number}.parquet", row_group_size=2)
    (folder / "list.txt").write_text("\n".join(f"photos/{name}" for name in NAMES))
    pq.write_table(pa.table({"path": [f"photos/{name}" for name in NAMES]}), folder / "paths.parquet")
    return folder


@pytest.fixture(scope="module")
def stored(s3, archive_of_all) -> str:
    """Return the name of its upload."""
    s3.upload(archive_of_all, "all")
    return "all"


def contents(source: Source) -> list[tuple[str, int | None, bytes]]:
    return [(image.path, image.offset, source.read(image)) for image in images_in(source)]


@pytest.mark.parametrize("name", ["photos", "0.tar", "*.tar", "1.parquet", "0*.parquet", "list.txt", "paths.parquet"])
def test_source_in_a_store_equals_its_copy_on_disk(s3, archive_of_all, stored, name):
    local, remote = open_source(archive_of_all / name), open_source(s3.url(f"{stored}/{name}"))
    assert contents(remote) == contents(local)
    assert (remote.left_out, remote.repeated) == (local.left_out, local.repeated)
    assert contents(pickle.loads(pickle.dumps(remote))) == contents(local)
    assert contents(open_source(remote.url)) == contents(local)


def test_size_and_time_come_from_the_store(s3, stored):
    images = images_in(open_source(s3.url(f"{stored}/photos")))
    assert {image.path: image.bytes for image in images} == {name: len(name.encode()) * 100 for name in NAMES}
    assert all(image.mtime > EPOCH for image in images)
    assert images_in(open_source(s3.url(f"{stored}/0.tar")))[0].mtime > EPOCH


def test_list_on_the_disk_names_objects_in_stores(s3, archive_of_all, stored, tmp_path):
    own = s3.url(f"{stored}/photos/a/b.jpg")
    listed = [f"s3://{s3.bucket}/{stored}/photos/x+y.jpg", f"s3://{s3.bucket}/{stored}/photos/Zoë 😀.jpg", own]
    listed.append(f"s3://{s3.bucket}/{stored}/list.txt")
    (tmp_path / "list.txt").write_text("\n".join(listed))
    photos = open_source(tmp_path / "list.txt", s3.url(f"{stored}/photos"))
    assert {image.path: photos.read(image) for image in images_in(photos)} == {
        "x+y.jpg": b"x+y.jpg" * 100,
        "Zoë 😀.jpg": "Zoë 😀.jpg".encode() * 100,
        "a/b.jpg": b"a/b.jpg" * 100,
        listed[3]: (archive_of_all / "list.txt").read_bytes(),
    }


ODD = ["odd/a b/50% #1+?.jpg", "odd/a b/%41.jpg"]


def test_names_with_signs_are_found_by_url_and_by_list(s3, tmp_path):
    for name in ODD:
        s3.put(name, name.encode())
    s3.put("odd/a b/my list?.txt", ODD[0].rpartition("/")[2].encode())
    for folder in ("odd/a b", "odd/a%20b"):
        for scheme in ("s3", "S3", "s3a"):
            photos = open_source(s3.url(folder).replace("s3:", f"{scheme}:"))
            assert [content for *_, content in contents(photos)] == sorted(name.encode() for name in ODD)
    photos = open_source(s3.url("odd/a b/my%20list%3F.txt"))
    assert contents(photos) == [(ODD[0].rpartition("/")[2], None, ODD[0].encode())]
    (tmp_path / "l.txt").write_text("".join(f"s3a://{s3.bucket}/{name}\n{s3.url(name)}\n" for name in ODD))
    for folder in ("odd/a b", "odd/a%20b"):
        photos = open_source(tmp_path / "l.txt", s3.url(folder))
        keys = sorted(name.rpartition("/")[2] for name in ODD)
        assert [path for path, *_ in contents(photos)] == keys and photos.repeated == len(ODD)


def test_key_with_an_empty_or_dotted_part_fails_with_the_reason(s3, tmp_path):
    keys = ["dots//a.jpg", "dots/./b.jpg", "dots/../c.jpg", "dots/d.jpg"]
    for key in keys:
        s3.put_key(key, key.encode())
    (tmp_path / "l.txt").write_text("".join(f"s3://{s3.bucket}/{key}\n" for key in keys))
    photos = open_source(tmp_path / "l.txt", s3.url("dots"))
    for image in images_in(photos):
        if image.path == "d.jpg":
            assert photos.read(image) == b"dots/d.jpg"
            continue
        with pytest.raises(ReadError, match=r"^The key .* has a part that is empty, `\.` or `\.\.`") as refused:
            photos.read(image)
        assert refused.value.reason == "unreadable"


def test_odd_keys_of_a_prefix_are_rows_or_named_and_never_fail_it(s3):
    keys = ["a.jpg", "x//b.jpg", "/c.jpg", "./d.jpg", "y/../e.jpg", "z/"]
    for key in keys:
        s3.put_key(f"strange/{key}", b"1")
    photos = open_source(s3.url("strange"))
    found = images_in(photos)
    assert [image.path for image in found] == ["./d.jpg", "a.jpg", "y/../e.jpg"]
    assert photos.read(found[1]) == b"1"
    for image in (found[0], found[2]):
        with pytest.raises(ReadError):
            photos.read(image)
    assert photos.left_out.nameless_folders == Examples(2, ["/", "x//"])


def test_system_names_in_a_store_are_left_out(s3):
    for key in ("a.jpg", "@eaDir/1/t.jpg", ".h.jpg", "#recycle/2.jpg", "clip.mov", "raw/b.jpg"):
        s3.put_key(f"nas/{key}", b"1")
    photos = open_source(s3.url("nas"), skipping=Skipping(exclude=("raw",)))
    assert [path for path, *_ in contents(photos)] == ["a.jpg"]
    assert photos.left_out.skipped == {"@eaDir": 1, "hidden": 1, "#recycle": 1, "exclude raw": 1}
    assert photos.left_out.endings == {".mov": 1}


def test_deleted_object_is_missing_unless_all_are(s3, tmp_path):
    s3.put("some/a.jpg", b"1")
    photos = open_source(s3.url("some"))
    with pytest.raises(ReadError) as refused:
        photos.read(Image("b.jpg"))
    assert refused.value.reason == "missing"
    photos.folder.filesystem.delete_dir(photos.folder.path)
    with pytest.raises(RunError, match=r"no longer exists"):
        photos.read(Image("a.jpg"))


def test_missing_folder_of_a_store_is_refused(s3):
    with pytest.raises(InputError, match=r"^There is no folder or file s3://photos/nowhere\?.*: check its name\.$"):
        open_source(s3.url("nowhere"))


class Faulty(BaseHTTPRequestHandler):
    """A proxy that answers chosen requests with an error and forwards the others."""

    faults: ClassVar[dict[str, list[int]]]
    server_port: ClassVar[int]
    port: ClassVar[int]

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def _answer(self) -> None:
        for name, left in self.faults.items():
            if name in self.path and self.command == "GET" and left:
                self.send_response(left.pop(0))
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
        connection = HTTPConnection("127.0.0.1", self.server_port)
        connection.request(self.command, self.path, headers=dict(self.headers))
        response = connection.getresponse()
        content = response.read()
        self.send_response(response.status)
        for name, value in response.getheaders():
            if name.lower() not in ("connection", "transfer-encoding", "date", "server"):
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


_HOP = ("transfer-encoding", "expect", "content-length")  # hop-by-hop headers


class Stormy(Faulty):
    """A proxy that answers at random with errors or late, and records the requests."""

    dice: ClassVar[random.Random]
    asked: ClassVar[list[tuple[str, str]]]
    at_once: ClassVar[int] = 0
    most: ClassVar[int] = 0

    def _answer(self) -> None:
        type(self).at_once += 1
        type(self).most = max(self.most, self.at_once)
        try:
            self.asked.append((self.command, self.path))
            content = b"".join(self._body())
            chance = self.dice.random()
            if chance < 0.1:
                time.sleep(0.3)
            if 0.1 <= chance < 0.25:
                self.send_response(500 if chance < 0.17 else 503)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            time.sleep(0.01)
            connection = HTTPConnection("127.0.0.1", self.server_port)
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
            connection.request(self.command, self.path, content, headers | {"Content-Length": str(len(content))})
            response = connection.getresponse()
            answer = response.read()
            self.send_response(response.status)
            for name, value in response.getheaders():
                if name.lower() not in ("connection", "transfer-encoding", "date", "server", "content-length"):
                    self.send_header(name, value)
            length = response.getheader("Content-Length") if self.command == "HEAD" else str(len(answer))
            self.send_header("Content-Length", length or "0")
            self.end_headers()
            self.wfile.write(answer)
        finally:
            type(self).at_once -= 1

    def _body(self) -> Iterator[bytes]:
        if self.headers.get("Transfer-Encoding") != "chunked":
            yield self.rfile.read(int(self.headers.get("Content-Length") or 0))
            return
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():  # trailing headers
            pass

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _answer


@pytest.fixture
def stormy(s3) -> Iterator[type[Stormy]]:
    Stormy.server_port, Stormy.dice, Stormy.asked, Stormy.most = s3.port, random.Random(0), [], 0
    with ThreadingHTTPServer(("127.0.0.1", 0), Stormy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        Stormy.port = server.server_port
        yield Stormy
        server.shutdown()


def encode(images: str, out: str) -> dict[str, Any]:
    """Return the command's summary; it starts its own Ray, which has the store's keys."""
    command = [sys.executable, "-m", "flowers_batch", "encode", images, out, "--network=null", "--shard-size=16"]
    return json.loads(subprocess.run([*command, "--json"], stdout=subprocess.PIPE, check=True, timeout=200).stdout)


@pytest.mark.nightly
@pytest.mark.faults
def test_run_from_store_to_store_survives_many_errors(s3, stormy, tmp_path):
    """Each photo is one row, objects are written completely, and resuming lists only the run's own folder."""
    s3.upload(draw_archive(tmp_path / "photos", 40), "storm/photos")
    far = replace(s3, port=stormy.port)
    photos, codes = far.url("storm/photos"), far.url("storm/codes")
    summary = encode(photos, codes)
    assert (summary["images"], summary["ok"]) == (120, 120)
    assert verify(s3.url("storm/codes")).is_complete
    assert stormy.most >= 8, "many photos are requested concurrently"
    # As if the driver had been killed before its end, with a shard missing.
    folder = open_folder(s3.url("storm/codes"))
    folder.delete("_SUCCESS")
    folder.delete("codes/shard-000003.parquet")
    stormy.asked.clear()
    again = encode(photos, codes)
    assert (again["resumed"], again["ok"]) == (104, 120) and verify(s3.url("storm/codes")).is_complete
    lists = [path for _, path in stormy.asked if "list-type" in path]
    prefixes = {parse_qs(urlsplit(path).query).get("prefix", [""])[0] for path in lists}
    # One request with an answer of one name checks that the photos' folder exists; it is not listed.
    assert all(prefix.startswith("storm/codes") or prefix == "storm/photos/" for prefix in prefixes), prefixes
    of_photos = [parse_qs(urlsplit(path).query) for path in lists if "storm%2Fphotos" in path]
    assert all(asked["max-keys"] == ["1"] for asked in of_photos), of_photos
    written = {urlsplit(path).path for method, path in stormy.asked if method == "PUT"}
    assert written and not any("_tmp-" in path for path in written), "no object is renamed into place"


class Refusing(Stormy):
    """Refuses the first `refusals` requests that write."""

    refusals: ClassVar[int] = 0

    def _answer(self) -> None:
        if self.command in ("PUT", "POST") and Refusing.refusals:
            Refusing.refusals -= 1
            b"".join(self._body())
            self.send_response(503)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        super()._answer()

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _answer


@pytest.mark.faults
@pytest.mark.nightly
def test_upload_is_retried_and_failed_upload_changes_nothing(s3):
    Refusing.server_port, Refusing.dice, Refusing.asked = s3.port, SimpleNamespace(random=lambda: 0.9), []
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        folder = open_folder(replace(s3, port=server.server_port).url("uploads"))

        def publish(content: bytes, refusals: int) -> None:
            Refusing.refusals = refusals
            with folder.publish("a.bin") as scratch:
                Path(scratch).write_bytes(content)

        large = bytes(range(256)) * 50_000  # several parts
        publish(large, 0)
        publish(large + b"1", 5)  # more than the library itself retries
        assert Refusing.refusals == 0
        with pytest.raises(RunError, match="cannot be written"):
            publish(b"2", 10**6)
        Refusing.refusals = 0
        with folder.open("a.bin") as file:
            assert file.read() == large + b"1"
        server.shutdown()


@pytest.fixture
def faulty(s3) -> Iterator[type[Faulty]]:
    Faulty.server_port, Faulty.faults = s3.port, {}
    with ThreadingHTTPServer(("127.0.0.1", 0), Faulty) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        Faulty.port = server.server_port
        yield Faulty
        server.shutdown()


@pytest.mark.parametrize("kind", ["photos", "0.tar", "0.parquet", "list.txt"])
def test_transient_error_of_a_store_is_retried(s3, stored, faulty, kind):
    photos = open_source(replace(s3, port=faulty.port).url(f"{stored}/{kind}"))
    found = images_in(photos)
    expected = [content for _, _, content in contents(open_source(s3.url(f"{stored}/{kind}")))]
    faulty.faults.update({name: [500, 400, 503, 400] for name in ("a/b.jpg", "0.tar", "0.parquet")})
    assert [photos.read(image) for image in found] == expected
    assert not all(faulty.faults.values())


def test_permanent_error_of_a_store_is_an_unreadable_row(s3, stored, faulty):
    photos = open_source(replace(s3, port=faulty.port).url(f"{stored}/photos"))
    found = images_in(photos)
    faulty.faults["x%2By.jpg"] = [403] * 100
    for image in found:
        if image.path == "x+y.jpg":
            with pytest.raises(ReadError, match=r"^The file cannot be read: .*ACCESS_DENIED.*\.$") as refused:
                photos.read(image)
            assert refused.value.reason == "unreadable"
        else:
            assert photos.read(image)
