"""Each kind of source from an object store: a server of S3 that speaks real HTTP."""

from __future__ import annotations

import io
import pickle
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import images_in, write

from flowers_batch import storage
from flowers_batch.config import InputError, RunError
from flowers_batch.reading import EPOCH, Image, ReadError
from flowers_batch.sources import Source, open_source

NAMES = ["a/b.jpg", "a-b.jpg", "Zoë 😀.jpg", "b c/%41.jpg", "x+y.jpg"]


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch):
    monkeypatch.setattr(storage, "RETRY_SECONDS", (0.0, 0.0, 0.0))


@pytest.fixture(scope="module")
def archive_of_all(tmp_path_factory) -> Path:
    """The same photos as a folder, as tars, as tables and as lists of all kinds."""
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
    """The name of what was uploaded of it."""
    s3.upload(archive_of_all, "all")
    return "all"


def contents(source: Source) -> list[tuple[str, int | None, bytes]]:
    return [(image.path, image.offset, source.read(image)) for image in images_in(source)]


@pytest.mark.parametrize("name", ["photos", "0.tar", "*.tar", "1.parquet", "0*.parquet", "list.txt", "paths.parquet"])
def test_source_in_a_store_gives_what_its_twin_on_the_disk_does(s3, archive_of_all, stored, name):
    local, remote = open_source(archive_of_all / name), open_source(s3.url(f"{stored}/{name}"))
    assert contents(remote) == contents(local)
    assert (remote.ignored, remote.repeated) == (local.ignored, local.repeated)
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


def test_object_that_is_not_there_is_missing_unless_all_is_gone(s3, tmp_path):
    s3.put("some/a.jpg", b"1")
    photos = open_source(s3.url("some"))
    with pytest.raises(ReadError) as refused:
        photos.read(Image("b.jpg"))
    assert refused.value.reason == "missing"
    photos.folder.filesystem.delete_dir(photos.folder.path)
    with pytest.raises(RunError, match=r"is not there any more"):
        photos.read(Image("a.jpg"))


def test_missing_folder_of_a_store_is_refused(s3):
    with pytest.raises(InputError, match=r"^There is no folder or file s3://photos/nowhere\?.*: check its name\.$"):
        open_source(s3.url("nowhere"))


class Faulty(BaseHTTPRequestHandler):
    """Stands before the server: gives an error for the requests that it is told to, and passes others on."""

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


@pytest.fixture
def faulty(s3) -> Iterator[type[Faulty]]:
    Faulty.server_port, Faulty.faults = s3.port, {}
    with ThreadingHTTPServer(("127.0.0.1", 0), Faulty) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        Faulty.port = server.server_port
        yield Faulty
        server.shutdown()


@pytest.mark.parametrize("kind", ["photos", "0.tar", "0.parquet", "list.txt"])
def test_error_of_a_store_that_passes_is_tried_again(s3, stored, faulty, kind):
    photos = open_source(replace(s3, port=faulty.port).url(f"{stored}/{kind}"))
    found = images_in(photos)
    expected = [content for _, _, content in contents(open_source(s3.url(f"{stored}/{kind}")))]
    faulty.faults.update({name: [500, 400, 503, 400] for name in ("a/b.jpg", "0.tar", "0.parquet")})
    assert [photos.read(image) for image in found] == expected
    assert not all(faulty.faults.values())


def test_error_of_a_store_that_lasts_is_a_row_that_is_unreadable(s3, stored, faulty):
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
