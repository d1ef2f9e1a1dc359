"""Whole objects of S3 and Google: how many requests a read takes, and how long."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterator

import pytest
from fake_store import FakeStore, running_store

from flowers_batch.sources import reading
from flowers_batch.sources.folders import FolderSource
from flowers_batch.sources.images import Image
from flowers_batch.sources.reading import ReadError, read_store
from flowers_batch.storage import objects, retries
from flowers_batch.storage.opening import open_folder
from flowers_batch.storage.single_requests import single_request_reader

AGENT = "object_store"  # how the client that takes one request names itself
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true"}


@pytest.fixture(autouse=True)
def _environment(monkeypatch, tmp_path) -> Iterator[None]:
    """Credentials in the environment, no profile, and no readers of other tests."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("AWS_PROFILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(retries, "RETRY_SECONDS", ())
    single_request_reader.cache_clear()
    yield
    single_request_reader.cache_clear()


@pytest.fixture
def server() -> Iterator[FakeStore]:
    with running_store() as server:
        yield server


def source_of(url: str) -> FolderSource:
    """Return a folder as a worker process has it."""
    return pickle.loads(pickle.dumps(FolderSource(open_folder(url))))


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_object_is_read_by_one_request(server, scheme):
    source = source_of(server.url(scheme))
    for name in ("a.jpg", "b/c.jpg"):
        assert source.read(Image(name, bytes=5000)) == server.content
    assert server.methods() == ["GET", "GET"]
    pickle.dumps(source)


@pytest.mark.parametrize("scheme", ["s3", "gs"])
@pytest.mark.parametrize("listed", [0, 1, 4999, 5001, 1 << 50])
def test_object_is_read_whole_whatever_its_listed_size(server, scheme, listed):
    assert source_of(server.url(scheme)).read(Image("a.jpg", bytes=listed)) == server.content


@pytest.mark.parametrize("size", [0, 1, 20 << 20])
@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_empty_and_large_objects_are_read(server, scheme, size):
    server.content = bytes(size)
    assert source_of(server.url(scheme)).read(Image("a.jpg")) == server.content


@pytest.mark.parametrize(
    "key", ["a b/50% #1+?.jpg", "%41/%2F.jpg", "Zoë 😀.jpg", "e\u0301.jpg", "'()*!~\\<>^`{|}.jpg", "tab\t\x7f.jpg"]
)
def test_key_with_any_signs_is_requested_as_it_is(server, key):
    read_store(open_folder(server.url()), key)
    assert {path for _, path in server.asked} == {f"/bucket/folder/{key}"}


@pytest.mark.parametrize(
    "credentials",
    [
        {"AWS_PROFILE": "work"},
        {"AWS_CONFIG_FILE": __file__, "AWS_EC2_METADATA_DISABLED": ""},
        {"AWS_EC2_METADATA_DISABLED": "true"},
    ],
)
def test_credentials_of_a_profile_are_left_to_pyarrow(server, monkeypatch, credentials):
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    for name, value in credentials.items():
        monkeypatch.setenv(name, value)
    assert single_request_reader(open_folder(server.url()), 30) is None


def test_file_of_profiles_in_the_home_folder_is_seen(server, monkeypatch, tmp_path):
    for name in KEYS:
        monkeypatch.delenv(name)
    folder = open_folder(server.url())
    assert single_request_reader(folder, 30)
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").touch()
    single_request_reader.cache_clear()
    assert single_request_reader(folder, 30) is None


def test_client_that_gets_no_access_is_not_asked_again(server):
    server.refused = AGENT
    source = source_of(server.url())
    for _ in range(3):
        assert source.read(Image("a.jpg")) == server.content
    assert server.methods() == ["GET", "HEAD", "GET"] * 3
    assert source.read(Image("a.jpg")) == server.content
    assert server.methods() == ["HEAD", "GET"]


def test_client_that_has_worked_is_asked_again(server):
    source = source_of(server.url())
    for refused in ("nobody", *[AGENT] * 5):
        server.refused = refused
        assert source.read(Image("a.jpg")) == server.content
    server.refused = "nobody"
    server.methods()
    assert source.read(Image("a.jpg")) == server.content
    assert server.methods() == ["GET"]


def test_server_in_the_environment_is_asked(server, monkeypatch):
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("AWS_ENDPOINT", "http://127.0.0.1:1")  # which pyarrow does not know
        assert source_of("s3://bucket/folder?region=us-east-1").read(Image("a.jpg")) == server.content
        assert server.methods() == ["GET"]
        single_request_reader.cache_clear()
        monkeypatch.setenv(name, "http://127.0.0.1:1")
        monkeypatch.delenv(name)


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_object_that_is_too_large_is_refused(server, monkeypatch, scheme):
    source = source_of(server.url(scheme))
    monkeypatch.setattr(reading, "MAX_BYTES", 4999)
    with pytest.raises(ReadError) as refused:
        source.read(Image("a.jpg"))
    assert refused.value.reason == "too_large" and "5000 bytes" in str(refused.value)


@pytest.mark.parametrize("scheme", ["s3", "gs"])
@pytest.mark.parametrize("stalls_after", [-1, 100])
@pytest.mark.parametrize("has_worked", [True, False])
def test_stalled_read_becomes_an_unreadable_row(server, monkeypatch, scheme, stalls_after, has_worked):
    monkeypatch.setattr(objects, "STALL_SECONDS", 0.1)
    monkeypatch.setattr(retries, "RETRY_SECONDS", (0.0,))
    source = source_of(server.url(scheme))
    if has_worked:
        source.read(Image("a.jpg"))
    server.stall(stalls_after)
    server.methods()
    with pytest.raises(
        ReadError, match=r"^The file cannot be read: The store has sent nothing for .* sec.*\.$"
    ) as failed:
        source.read(Image("b.jpg"))
    assert failed.value.reason == "unreadable" and "\n" not in str(failed.value)
    assert server.methods() == ["GET", "GET"] or not has_worked
    server.release()
    assert source.read(Image("a.jpg")) == server.content


def test_stall_that_ends_costs_no_row(server, monkeypatch):
    monkeypatch.setattr(objects, "STALL_SECONDS", 0.1)
    monkeypatch.setattr(retries, "RETRY_SECONDS", (0.0,))
    source = source_of(server.url())
    source.read(Image("a.jpg"))
    server.stall(100)
    monkeypatch.setattr(retries.time, "sleep", lambda _: server.release())
    assert source.read(Image("b.jpg")) == server.content


def test_connection_that_ends_early_gives_no_part_of_an_object(server):
    folder = open_folder(server.url())
    reader = single_request_reader(folder, objects.STALL_SECONDS)
    assert reader and reader.read("a.jpg", reading.check_size) == server.content
    server.is_broken = True
    assert reader.read("a.jpg", reading.check_size) is None


MEMORY = """
import sys
import obstore
from flowers_batch.sources.reading import read_store
from flowers_batch.storage.opening import open_folder

def most_memory():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) * 1024

folder, before = open_folder(sys.argv[1]), most_memory()
content = read_store(folder, "a.jpg")
print((most_memory() - before) / len(content))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_large_object_is_in_memory_once(server, scheme):
    server.content = bytes(100 << 20)
    program = [sys.executable, "-c", MEMORY, server.url(scheme)]
    printed = subprocess.run(program, timeout=60, check=True, stdout=subprocess.PIPE).stdout
    assert 1 < float(printed) < 1.5


def test_no_store_is_opened_by_importing_and_pickling():
    program = (
        "import sys\nfrom flowers_batch.sources.folders import FolderSource\n"
        "from flowers_batch.storage.opening import open_folder\nimport pickle\n"
        "pickle.loads(pickle.dumps(FolderSource(open_folder('s3://b/k?region=us-east-1'))))\n"
        "sys.exit('obstore' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 0
