"""A disk or a store that fails is named as such: the file that cannot be read may be in order."""

from __future__ import annotations

import errno
import os
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flowers_batch.errors import RunError
from flowers_batch.sources.opening import open_source
from flowers_batch.storage import retries
from flowers_batch.storage.folder import Folder

ERRORS = {
    "connection": OSError("AWS Error NETWORK_CONNECTION during GetObject operation: curlCode: 28"),
    "disk": OSError(errno.EIO, os.strerror(errno.EIO)),
}


def make(where: Path, kind: str) -> Path:
    path = where / f"photos.{kind}"
    if kind == "tar":
        with tarfile.open(path, "w") as file:
            file.addfile(tarfile.TarInfo("a.jpg"))
    elif kind == "parquet":
        pq.write_table(pa.table({"image": [b"1"]}), path)
    else:
        path.write_text("path\na.jpg\n")
    return path


@pytest.mark.parametrize("cause", ERRORS)
@pytest.mark.parametrize("kind", ["tar", "parquet", "csv", "txt"])
def test_disk_or_store_that_fails_does_not_condemn_a_file(tmp_path, monkeypatch, kind, cause):
    def fail(*_):
        raise ERRORS[cause]

    path = make(tmp_path, kind)
    source = open_source(path)
    monkeypatch.setattr(retries, "RETRY_SECONDS", ())
    monkeypatch.setattr(Folder, "open", fail)
    message = rf"photos\.{kind} cannot be read \(.*\): check the {cause} and your permissions, and run the same command"
    with pytest.raises(RunError, match=message):
        list(source.batches())
    if kind == "parquet":
        with pytest.raises(RunError, match=message):
            open_source(path)


def test_store_that_fails_while_containers_are_looked_for_is_named(tmp_path, monkeypatch):
    def fail(*_):
        raise ERRORS["connection"]

    source = open_source(make(tmp_path, "tar"))
    monkeypatch.setattr(Folder, "matching", fail)
    with pytest.raises(RunError, match=r"photos\.tar cannot be read \(AWS .*\): check the connection"):
        list(source.batches())
