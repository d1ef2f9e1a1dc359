"""Stores that cannot be reached, or give no access: each ends in a sentence."""

from __future__ import annotations

import re
import subprocess
import sys
from types import SimpleNamespace

import pyarrow as pa
import pytest
from pyarrow import fs

from flowers_batch.errors import InputError, RunError
from flowers_batch.storage import stores
from flowers_batch.storage.folder import Folder
from flowers_batch.storage.opening import open_folder

AZURE = "abfs://box@account.dfs.core.windows.net/run"
NO_TOKEN = (
    "Unknown error: Check failed: AuthenticationException: Failed to get token from DefaultAzureCredential.\nSee."
)


class NoAccess:
    """A file system that gives no access."""

    type_name = "abfs"

    def get_file_info(self, path: str) -> fs.FileInfo:
        raise pa.ArrowException(NO_TOKEN)


def test_azure_without_access_ends_in_a_sentence_not_in_an_abort():
    program = f"from flowers_batch.storage.opening import open_folder\nopen_folder('{AZURE}').open('job.json')"
    done = subprocess.run([sys.executable, "-c", program], env={"PATH": ""}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1, done.stderr
    assert re.search(rf"RunError: Azure gives no access to {AZURE} \(.*\): check .*\.$", done.stderr)


def test_azure_is_asked_for_access_once(monkeypatch):
    monkeypatch.setattr(stores, "_CHECKED", set())
    for _ in range(2):
        with pytest.raises(RunError, match=r"^Azure gives no access to .* \(Failed to get token from Default\w+\): "):
            stores._check_azure(NoAccess(), "box", AZURE)
    asked = []
    monkeypatch.setattr(NoAccess, "get_file_info", lambda _, path: asked.append(path))
    for _ in range(2):
        stores._check_azure(NoAccess(), "box", AZURE)
    assert asked == ["box/_"]


def test_azure_url_without_a_container_is_refused():
    with pytest.raises(InputError, match="names no container"):
        open_folder("abfs://account.dfs.core.windows.net/")


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("gs://b/k", "retry_limit_seconds=30"),
        ("gcs://b/k?project_id=x", "project_id=x&retry_limit_seconds=30"),
        ("gs://b/k?retry_limit_seconds=5", "retry_limit_seconds=5"),
        ("s3://b/k?region=x", "region=x"),
    ],
)
def test_google_store_is_given_up_after_half_a_minute(url, options, monkeypatch):
    opened = []
    monkeypatch.setattr(
        stores,
        "fs",
        SimpleNamespace(
            FileSystem=SimpleNamespace(from_uri=lambda uri: opened.append(uri) or (fs.LocalFileSystem(), "b/k"))
        ),
    )
    stores.open_store(url)
    assert [uri.partition("?")[2] for uri in opened] == [options]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError("google::cloud::Status(UNAVAILABLE: no host error_info={reason=,})"), "UNAVAILABLE: no host"),
        (pa.ArrowException("Unknown error: Azure has no answer.\nSee elsewhere."), "Azure has no answer"),
    ],
)
def test_error_of_a_store_is_a_sentence(error, reason):
    class Failing:
        def get_file_info(self, asked: object) -> fs.FileInfo:
            raise error

    folder = Folder("gs://b/k", Failing(), "b/k")
    for ask in (folder.exists, folder.names, lambda: folder.matching("x")):
        with pytest.raises(RunError, match=rf"^gs://b/k\S* cannot be read \(.*{reason}\): check the connection .*\.$"):
            ask()
