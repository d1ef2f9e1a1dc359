"""I/O errors name what failed: what was read, the scratch file, or what was to be written."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from helpers import store, write

from flowers_batch.errors import InputError, RunError
from flowers_batch.storage import publishing, retries
from flowers_batch.storage.folder import Folder
from flowers_batch.storage.io_errors import passing_errors
from flowers_batch.storage.opening import open_folder

NETWORK = OSError("AWS Error NETWORK_CONNECTION during GetObject operation: curlCode: 28")
DISK = OSError(errno.EIO, "Input/output error")


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch):
    monkeypatch.setattr(retries, "RETRY_SECONDS", (0.0,))


class Broken:
    """A file that can be opened, but not read."""

    def __init__(self, error: OSError):
        self._error = error

    def size(self) -> int:
        return 10

    def read_at(self, *_) -> bytes:
        raise self._error

    def __enter__(self) -> Broken:
        return self

    def __exit__(self, *_) -> None:
        pass


@pytest.mark.parametrize(("error", "cause"), [(NETWORK, "connection"), (DISK, "disk")])
def test_source_that_fails_while_a_file_is_published_is_named(tmp_path, monkeypatch, error, cause):
    source, target = store(tmp_path / "source"), open_folder(tmp_path / "target")
    monkeypatch.setattr(Folder, "open", lambda *_: Broken(error))
    message = (
        rf"^{re.escape(source.url_of('weights.h5'))} cannot be read \(.*\): check the {cause} and your permissions"
    )
    with pytest.raises(RunError, match=message), target.publish("copy") as scratch:
        source.copy_to("weights.h5", scratch)
    assert os.listdir(tmp_path / "target") == []


def test_file_that_does_not_exist_is_named_when_it_is_copied(tmp_path):
    folder = store(tmp_path)
    message = rf"^There is no {re.escape(folder.url_of('x'))}: check its name\.$"
    with pytest.raises(InputError, match=message), folder.local_copy("x"):
        pass


def test_interrupted_copy_goes_on_where_it_failed(tmp_path, monkeypatch):
    content = os.urandom(1000)
    folder = store(write(tmp_path, {"x": content}))
    failures, read_at = [NETWORK], pa.NativeFile.read_at

    class Shaky:
        def __init__(self, file):
            self._file = file

        def __getattr__(self, name):
            return getattr(self._file, name)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self._file.close()

        def read_at(self, size, offset):
            if failures:
                raise failures.pop()
            return read_at(self._file, size, offset)

    really = Folder.open
    monkeypatch.setattr(Folder, "open", lambda *of: Shaky(really(*of)))
    with folder.local_copy("x") as path:
        assert Path(path).read_bytes() == content


@pytest.mark.parametrize("folder", [open_folder, store], ids=["local", "store"])
def test_store_or_other_file_that_fails_in_the_block_is_not_a_writing_error(tmp_path, folder):
    elsewhere = FileNotFoundError(errno.ENOENT, "No such file or directory", "/nowhere/photo.jpg")
    for error in (NETWORK, elsewhere):
        with pytest.raises(OSError) as raised, folder(tmp_path / "run").publish("x"):
            raise error
        assert raised.value is error


@pytest.mark.parametrize("folder", [open_folder, store], ids=["local", "store"])
def test_error_of_rows_passes_and_error_of_writing_is_explained(tmp_path, folder):
    def rows():
        yield 1
        raise DISK

    with pytest.raises(OSError) as raised, folder(tmp_path / "run").publish("x"):
        list(passing_errors(rows()))
    assert raised.value is DISK
    with (
        pytest.raises(RunError, match=r"cannot be written \(Input/output error\)"),
        folder(tmp_path / "run").publish("x"),
    ):
        raise DISK


FULL = """
import resource, signal, sys
sys.path.insert(0, sys.argv[2])
from helpers import store
from pathlib import Path
from flowers_batch.errors import RunError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
folder = store(Path(sys.argv[1]))
Path(sys.argv[1], "big").write_bytes(bytes(100_000))
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    if sys.argv[3] == "copy":
        with folder.local_copy("big"):
            pass
    else:
        with folder.publish("x") as scratch:
            Path(scratch).write_bytes(bytes(100_000))
except RunError as error:
    print(error)
"""


@pytest.mark.parametrize("action", ["copy", "publish"])
def test_full_temporary_folder_is_named_and_not_the_store(tmp_path, action):
    run, scratch = tmp_path / "run", tmp_path / "scratch"
    run.mkdir(), scratch.mkdir()
    command = [sys.executable, "-c", FULL, run, Path(__file__).parent.parent, action]
    printed = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(scratch)}
    ).stdout
    remedy = "make room there, or set TMPDIR to another folder, and run the same command again"
    assert printed == f"{scratch} cannot be written (File too large): {remedy}.\n"
    assert list(scratch.iterdir()) == []


def test_store_that_refuses_an_upload_is_named_with_its_remedy(tmp_path, monkeypatch):
    folder = store(tmp_path / "run")

    def refuse(*_):
        raise OSError("AWS Error ACCESS_DENIED during PutObject operation: Access Denied.")

    monkeypatch.setattr(publishing, "_upload", refuse)
    message = (
        rf"^{re.escape(folder.url_of('x'))} cannot be written \(AWS Error ACCESS_DENIED .*\): "
        "check the connection and your permissions"
    )
    with pytest.raises(RunError, match=message), folder.publish("x") as scratch:
        Path(scratch).write_bytes(b"1")


def test_scratch_file_has_the_suffix_of_its_target(tmp_path):
    for folder in (open_folder(tmp_path), store(tmp_path)):
        with folder.publish("codes/x.parquet") as scratch:
            assert scratch.endswith(".parquet")
            Path(scratch).write_bytes(b"1")
