from __future__ import annotations

import io
import os
import re
import signal
import socket
import subprocess
import sys
import time
import traceback
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import store, write
from planting import plant_pipe
from pyarrow import fs

from flowers_batch.errors import InputError, RunError
from flowers_batch.storage import publishing, stores
from flowers_batch.storage.folder import LOCK, SCRATCH, Folder
from flowers_batch.storage.json_files import read_json, write_json
from flowers_batch.storage.opening import open_folder, split_file

HOLDER = """
import sys, time
from flowers_batch.storage.opening import open_folder
with open_folder(sys.argv[1]).locked():
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(params=["local", "store"])
def folder(request, tmp_path, monkeypatch) -> Folder:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    path = tmp_path / "root" / "run"
    return open_folder(path) if request.param == "local" else store(path)


def left_in(tmp_path: Path) -> set[str]:
    """Return the names of all files below a folder."""
    return {path.name for path in tmp_path.rglob("*") if path.is_file()}


def fill(folder: Folder, name: str, content: bytes) -> None:
    with folder.publish(name) as scratch:
        Path(scratch).write_bytes(content)


def content_digest_of(folder: Folder, name: str) -> bytes:
    with folder.open(name) as file:
        return file.read()


def test_published_file_is_complete_and_no_scratch_file_is_left(folder, tmp_path):
    content = os.urandom(3 << 20)
    fill(folder, "codes/one.parquet", content)
    assert content_digest_of(folder, "codes/one.parquet") == content
    assert left_in(tmp_path) == {"one.parquet"}
    assert folder.names("codes") == ["one.parquet"]


def test_file_larger_than_a_block_is_published_completely(tmp_path):
    content, folder = os.urandom(10_001), replace(store(tmp_path / "run"), block_bytes=1000)
    fill(folder, "x", content)
    assert content_digest_of(folder, "x") == content


def test_unfinished_file_does_not_have_its_name(folder):
    with folder.publish("codes/one") as scratch:
        Path(scratch).write_bytes(b"half")
        assert not folder.exists("codes/one")
        assert all(name.startswith("_") for name in folder.names("codes"))


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_exception_while_filling_leaves_neither_file_nor_scratch(folder, tmp_path, error):
    with pytest.raises(error), folder.publish("codes/one") as scratch:
        Path(scratch).write_bytes(b"half")
        raise error
    assert left_in(tmp_path) == set()


def test_exception_while_filling_keeps_the_old_content(folder, tmp_path):
    fill(folder, "one", b"old")
    with pytest.raises(ValueError), folder.publish("one") as scratch:
        Path(scratch).write_bytes(b"new")
        raise ValueError
    assert content_digest_of(folder, "one") == b"old"
    assert left_in(tmp_path) == {"one"}


def test_publishing_replaces_the_old_content(folder):
    fill(folder, "one", b"old and longer")
    fill(folder, "one", b"new")
    assert content_digest_of(folder, "one") == b"new"


def test_scratch_file_is_beside_its_target_and_ignored_by_readers(tmp_path):
    with open_folder(tmp_path / "run").publish("codes/one") as scratch:
        assert Path(scratch).parent.samefile(tmp_path / "run" / "codes")
        assert Path(scratch).name.startswith("_")
        Path(scratch).write_bytes(b"x")


class CutLine(io.BytesIO):
    """A file that can be read only up to its 2000th byte."""

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() >= 2000:
            raise OSError("line cut")
        return super().read(size)


def test_failed_upload_leaves_no_half_file(tmp_path, monkeypatch):
    folder = replace(store(tmp_path / "run"), block_bytes=1000)
    monkeypatch.setattr(publishing, "open", lambda *_: CutLine(bytes(10_000)), raising=False)
    with pytest.raises(RunError, match="line cut"):
        fill(folder, "one", b"x")
    assert left_in(tmp_path) == set()


def test_json_is_read_as_it_was_written(folder):
    value = {"classes": ["Gänseblümchen", "x"], "n": 1, "none": None}
    write_json(folder, "job.json", value)
    assert read_json(folder, "job.json") == value
    assert "Gänseblümchen".encode() in content_digest_of(folder, "job.json")


def test_missing_json_is_distinguished_from_broken_json(folder):
    with pytest.raises(FileNotFoundError):
        read_json(folder, "job.json")
    for broken in (b"", b"{", b"\xff\xfe", b"{'a': 1}"):
        fill(folder, "job.json", broken)
        with pytest.raises(InputError, match=r"job\.json is not a JSON file: restore it, or begin in a new folder\.$"):
            read_json(folder, "job.json")


def test_names_are_the_sorted_files_of_one_folder(folder):
    for name in ("codes/b", "codes/a", "codes/deeper/c", "d"):
        fill(folder, name, b"")
    assert folder.names("codes") == ["a", "b"]
    assert folder.names("nowhere") == []


def test_name_not_utf8_is_skipped_and_refused_if_a_pattern_matches(tmp_path):
    write(tmp_path, {"a.tar": b"", f"{SCRATCH}old": b"", os.fsdecode(b"caf\xe9.tar"): b""})
    folder = open_folder(tmp_path)
    folder.sweep()
    assert folder.names() == folder.matching("a*.tar") == ["a.tar"]
    with pytest.raises(
        InputError, match=r"^The name of /.*/caf\\xe9\.tar is not UTF-8: rename the file, or move it away\.$"
    ):
        folder.matching("*.tar")


def test_pattern_takes_hidden_names_only_if_it_begins_with_a_dot(folder):
    for name in ("a.tar", "._a.tar", ".b.tar"):
        fill(folder, name, b"")
    assert folder.matching("*.tar") == ["a.tar"]
    assert folder.matching(".*.tar") == ["._a.tar", ".b.tar"]


def test_folder_name_not_utf8_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(InputError, match=r"^The name /.*/caf\\xe9 is not UTF-8: rename it, or give a link to it\.$"):
        open_folder(tmp_path / os.fsdecode(b"caf\xe9"))


@pytest.mark.parametrize("where", ["", "file:///tmp/"])
def test_file_name_not_utf8_is_refused_in_a_sentence(where):
    with pytest.raises(InputError, match=r"^The name .*caf\\xe9.csv is not UTF-8: rename it, or give a link to it\.$"):
        split_file(where + os.fsdecode(b"caf\xe9.csv"))


def test_delete_ignores_missing_files(folder):
    fill(folder, "one", b"")
    folder.delete("one")
    folder.delete("one")
    assert not folder.exists("one")


def test_sweep_deletes_old_scratch_files_and_nothing_else(folder, tmp_path):
    path = tmp_path / "root" / "run" / "codes"
    write(path, {f"{SCRATCH}old": b"", f"{SCRATCH}young": b"", "shard": b"", "_other": b"", "deeper/_tmp-x": b""})
    an_hour_ago = time.time() - 3600
    for name in (f"{SCRATCH}old", "shard", "_other", "deeper/_tmp-x"):
        os.utime(path / name, (an_hour_ago, an_hour_ago))
    folder.sweep("codes", older_than=1800)
    assert left_in(path) == {f"{SCRATCH}young", "shard", "_other", "_tmp-x"}
    folder.sweep("codes")
    assert left_in(path) == {"shard", "_other", "_tmp-x"}
    folder.sweep("nowhere")


def test_second_driver_names_the_process_that_holds_the_folder(tmp_path):
    folder = open_folder(tmp_path / "run")
    message = (
        rf"^{re.escape(str(tmp_path))}/run is being written by another run \(host {re.escape(socket.gethostname())}, "
        rf"process {os.getpid()}, since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d UTC\): wait until it ends"
    )
    with folder.locked(), pytest.raises(InputError, match=message), open_folder(tmp_path / "run").locked():
        pass


def test_lock_is_released_when_its_driver_ends_or_fails(tmp_path):
    folder = open_folder(tmp_path / "run")
    with pytest.raises(ValueError), folder.locked():
        raise ValueError
    with folder.locked():
        assert f"process {os.getpid()}" in (tmp_path / "run" / LOCK).read_text()
    with folder.locked():
        assert (tmp_path / "run" / LOCK).read_text().count("process") == 1


def test_lock_is_released_when_its_driver_is_killed(tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=f"process {holder.pid}, "), open_folder(tmp_path).locked():
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with open_folder(tmp_path).locked():
        pass


def test_store_has_no_lock(tmp_path):
    folder = store(tmp_path / "run")
    with folder.locked(), folder.locked():
        assert left_in(tmp_path) == set()


@pytest.mark.parametrize(
    "url",
    [
        "s3://KEY:hunter2@bucket/run",
        "s3://KEY:hun/hunter2@bucket/run",
        "s3://KEY:hunter2+/=@bucket/run",
        "s3://bucket/run?secret_key=hunter2",
        "s3://bucket/run?access_key=KEY&secret_key=hunter2",
        "s3://bucket/run?session_token=hunter2",
        "s3://bucket/run?unknown_key=hunter2",
        "abfs://account.blob.core.windows.net/box/run?sv=1&sig=hunter2",
        "abfs://:hunter2@account.blob.core.windows.net/box/run",
        "ftp://me:hunter2@host/run",
        "https://hunter2@host/run",
        "file://me:hunter2@host/run",
        "file:///run?access_token=hunter2",
        "https://host/run?sig=hunter2",
        "s3://bucket/run?X-Amz-Signature=hunter2&X-Amz-Credential=KEY",
        "s3://bucket/run?X-Amz-Security-Token=hunter2",
        "s3://bucket/run?region=us-east-1#hunter2",
        "s3://bucket/run?region=us-east-1&endpoint_override=me:hunter2@host",
        "s3://bucket/run?region=hunter2.example/x",
        "s3://bucket/run?hunter2",
        "gs://bucket/run?access_token=hunter2",
        "gs://bucket/run?json_credentials=hunter2",
        "gs://me:hunter2@bucket/run",
        "abfs://box@account.dfs.core.windows.net/run?client_id=a&tenant_id=b&client_secret=hunter2",
        "abfss://box@account.dfs.core.windows.net/run?account_key=hunter2",
        "hdfs://me:hunter2@host:8020/run",
        "hdfs://host/run?kerb_ticket=hunter2",
        " s3://bucket/run?sig=hunter2",
        Path("s3://bucket/run?sig=hunter2"),
    ],
)
@pytest.mark.parametrize("opened", [open_folder, split_file])
def test_url_with_credentials_is_refused_and_the_secret_not_repeated(url, opened):
    with pytest.raises(InputError, match=r"credentials|cannot be opened|not one") as refused:
        opened(url)
    assert "hunter2" not in "".join(traceback.format_exception(refused.value))


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("abfs://box@account.dfs.core.windows.net/run", "box/run"),
        ("gs://anonymous@bucket/run/", "bucket/run"),
        ("s3://bucket/a@b/run?region=eu-central-1", "bucket/a@b/run"),
        ("s3://bucket/my photos/ä #1?region=eu-central-1", "bucket/my photos/ä #1"),
        ("s3://bucket/my%20photos/100%?region=eu-central-1", "bucket/my photos/100%"),
    ],
)
def test_url_without_a_secret_is_opened(url, path, monkeypatch):
    monkeypatch.setattr(stores, "_check_azure", lambda *_: None)
    try:
        folder = open_folder(url)
    except InputError as error:
        pytest.skip(f"this pyarrow was built without it: {error}")
    assert folder.path.rstrip("/") == path
    assert not folder.is_local
    assert folder.url == url.rstrip("/")


def test_file_is_opened_by_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for where, path in (
        ("labels.csv", tmp_path),
        ("out/labels.csv", tmp_path / "out"),
        (f"{tmp_path}/labels.csv", tmp_path),
        ("/labels.csv", Path("/")),
        (tmp_path / "a?b" / "labels.csv", tmp_path / "a?b"),
    ):
        folder, name = split_file(where)
        assert (folder.url, name) == (str(path), "labels.csv")


def test_file_is_named_as_a_user_would_write_it(tmp_path):
    store_url = "s3://bucket/run?region=eu-central-1"
    folder, _ = split_file("s3://bucket/run/x.csv?region=eu-central-1")
    assert folder.url == store_url
    assert folder.url_of("job.json") == "s3://bucket/run/job.json?region=eu-central-1"
    assert open_folder(tmp_path).url_of("codes/x") == f"{tmp_path}/codes/x"


@pytest.mark.parametrize("url", ["S3://bucket/run", "s3a://bucket/run", "S3N://bucket/run"])
def test_other_names_of_s3_are_s3(url):
    assert open_folder(f"{url}?region=eu-central-1").url == "s3://bucket/run?region=eu-central-1"


def test_file_of_a_store_is_found_by_its_url():
    folder = open_folder("s3://bucket/a%20b c?region=eu-central-1")
    for name in ("a b.tar", "%41?.tar", "50%.tar", "ä#1.tar"):
        again, found = split_file(folder.url_of(name))
        assert (again.path, found) == ("bucket/a b c", name)


@pytest.mark.parametrize("url", ["https://host/run?sig=x", "HTTP://host/run", "ftp://host/run"])
def test_unsupported_scheme_is_refused_with_what_is_supported(url):
    with pytest.raises(InputError, match=r"/host/run cannot be opened: give a path, or a URL of s3, gs, .* file;"):
        open_folder(url.replace("?sig=x", "?token=x"))


@pytest.mark.parametrize("path", ["bucket//run", "bucket/a/./run", "bucket/a/../run", "/bucket/run"])
def test_url_with_empty_or_dotted_parts_is_refused(path):
    with pytest.raises(InputError, match=r"cannot be opened"):
        open_folder(f"s3://{path}?region=eu-central-1")


@pytest.mark.parametrize("url", ["ftp://host/run", "nonsense://x", "s3://[bucket/run", "s3://bucket:port/run"])
def test_unsupported_url_is_refused_in_a_sentence(url):
    with pytest.raises(InputError, match=r"cannot be opened: .*[^.]\.$"):
        open_folder(url)


def test_local_folder_has_one_absolute_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    urls = {
        open_folder(where).url
        for where in (
            "run",
            "./run/",
            Path("run"),
            tmp_path / "run",
            f"file://{tmp_path}/run",
            f"FILE://{tmp_path}/run",
        )
    }
    assert urls == {str(tmp_path / "run")}
    assert isinstance(open_folder("run").filesystem, fs.LocalFileSystem)
    assert not open_folder("run").exists()


FULL = """
import resource, signal, sys
from flowers_batch.errors import RunError
from flowers_batch.storage.opening import open_folder
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
import pyarrow as pa, pyarrow.parquet as pq
table = pa.table({"x": list(range(100_000))})
try:
    with open_folder(sys.argv[1]).publish("codes/x") as scratch, pq.ParquetWriter(scratch, table.schema) as writer:
        writer.write_table(table)
except RunError as error:
    print(error)
"""


def test_full_disk_is_reported_and_leaves_no_file(tmp_path):
    printed = subprocess.run([sys.executable, "-c", FULL, tmp_path], stdout=subprocess.PIPE, text=True).stdout
    message = "(File too large): make room or give write access, and run the same command again."
    assert printed == f"{tmp_path}/codes/x cannot be written {message}\n"
    assert left_in(tmp_path) == set()


def test_unwritable_folder_is_refused_in_a_sentence():
    with (
        pytest.raises(InputError, match=r"^/proc/nowhere cannot be written to \(.*\): choose another folder\.$"),
        open_folder("/proc/nowhere").locked(),
    ):
        pass
    with pytest.raises(RunError, match=r"^/proc/nowhere/x/y cannot be written \("):
        fill(open_folder("/proc/nowhere"), "x/y", b"")


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_read_only_folder_is_refused_in_a_sentence(tmp_path):
    tmp_path.chmod(0o555)
    with pytest.raises(InputError, match=r"cannot be written to \(Permission denied\)"), open_folder(tmp_path).locked():
        pass


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_pipe_or_device_is_refused_instead_of_read_for_ever(tmp_path, kind):
    if kind == "device":
        (tmp_path / "job.json").symlink_to("/dev/zero")
    else:
        plant_pipe(tmp_path / "job.json")
    folder = open_folder(tmp_path)
    with pytest.raises(OSError, match="not a regular file"):
        folder.open("job.json")
    with pytest.raises(RunError, match=r"job\.json cannot be read \(it is not a regular file\)"):
        read_json(folder, "job.json")
    with pytest.raises(RunError, match="not a regular file"), folder.local_copy("job.json"):
        pass
