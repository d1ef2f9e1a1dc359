"""A run's folder, on this machine and in a store."""

from __future__ import annotations

import pytest
from helpers import store

from flowers_batch.storage.folder import Folder
from flowers_batch.storage.opening import open_folder


@pytest.fixture(params=["local", "store"])
def folder(request, tmp_path) -> Folder:
    return open_folder(tmp_path / "run") if request.param == "local" else store(tmp_path / "run")
