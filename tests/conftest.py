"""Fixtures that tests of several packages use: drawn photos, real ones, a browser, an object store, a local Ray."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from object_store import S3
from planting import PRIVATE


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 drawn pictures in three folders, and a file that is not an image."""
    from helpers import draw_archive  # imports many libraries

    folder = draw_archive(tmp_path_factory.mktemp("archive"), 10)
    (folder / "notes.txt").write_text("not an image")
    return folder


def _named_by(variable: str, what: str) -> Path:
    """Return the path that a variable of the environment has; skip the test if it has none."""
    if not os.environ.get(variable):
        pytest.skip(f"{variable} is not set: no {what} to test with")
    return Path(os.environ[variable])


@pytest.fixture(scope="session")
def real_photos() -> Path:
    """The folder of real photos that FLOWERS_BATCH_PHOTOS names."""
    return _named_by("FLOWERS_BATCH_PHOTOS", "real photos")


@pytest.fixture(scope="session")
def real_weights() -> Path:
    """The file of real weights of the convolutions that FLOWERS_BATCH_CONV_WEIGHTS names."""
    return _named_by("FLOWERS_BATCH_CONV_WEIGHTS", "real weights")


@pytest.fixture(scope="session")
def camera_photos() -> Path:
    """The folder of photos as cameras wrote them that FLOWERS_BATCH_CAMERA_PHOTOS names."""
    return _named_by("FLOWERS_BATCH_CAMERA_PHOTOS", "photos of cameras")


@pytest.fixture(scope="module")
def in_threads() -> Iterator[None]:
    """Decode images in threads of this process, where decode workers are not what is tested."""
    from thread_pool import decoding_in_threads

    with decoding_in_threads():
        yield


@pytest.fixture(scope="session")
def chromium():
    """A headless Chromium: one that is installed, else Playwright's own. CI has one."""
    from playwright.sync_api import Error, sync_playwright

    installed = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=installed, args=arguments)
        except Error as error:
            assert not os.environ.get("CI"), "CI has no browser"
            pytest.skip(f"no Chromium to test pages with: {str(error).splitlines()[0]}")
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    """An S3 server (moto) in a process of its own; its keys are in the environment."""
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true"}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        server = S3(free.getsockname()[1])
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(server.port)]
    with (
        pytest.MonkeyPatch.context() as patch,
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process,
    ):
        for name, value in keys.items():
            patch.setenv(name, value)
        try:
            _wait_for(server, process)
            yield server
        finally:
            process.terminate()


def _wait_for(server: S3, process: subprocess.Popen[bytes]) -> None:
    """Create the bucket as soon as the server answers."""
    for _ in range(600):
        try:
            urlopen(Request(f"http://127.0.0.1:{server.port}/{server.bucket}", method="PUT"), timeout=5).close()
            return
        except OSError:
            assert process.poll() is None, "moto's server ended"
            time.sleep(0.05)
    raise TimeoutError("moto's server does not answer")


@pytest.fixture(scope="session")
def local_ray():
    """One Ray for all tests that need one: two cores, no GPU; no other user can reach it."""
    import ray

    from flowers_batch.cluster.caller_process import restored_environment
    from flowers_batch.cluster.restricted_access import restricted_access

    with restored_environment(), restricted_access():
        os.environ.pop("RAY_ADDRESS", None)
        ray.init(
            address="local",
            num_cpus=2,
            num_gpus=0,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            object_store_memory=100 << 20,
        )
        yield
        ray.shutdown()


@pytest.fixture
def private(tmp_path: Path) -> Iterator[Path]:
    """A file of the user in a folder of its own, both of which no test may change."""
    path = tmp_path / "home" / "private"
    path.parent.mkdir()
    path.write_bytes(PRIVATE)
    yield path
    assert os.listdir(path.parent) == [path.name]
    assert path.read_bytes() == PRIVATE


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """VGG16 and VGG19 with all their layers, each narrow and of another width: quick to build and to run."""
    from tensorflow_vgg import network

    monkeypatch.setattr(network, "FILTERS", (2, 3, 4, 5, 6))
    monkeypatch.setattr(network, "FC_WIDTH", 8)
    monkeypatch.setattr(network, "CLASSES", 10)


@pytest.fixture(scope="module")
def thin() -> Iterator[None]:
    """Narrow VGG16 and VGG19 for all tests of a file, wide enough to learn a little."""
    from tensorflow_vgg import network

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, "FILTERS", (4, 6, 8, 10, 12))
        patch.setattr(network, "FC_WIDTH", 64)
        yield


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Group tests for parallel workers: files with tests that share one Ray share a worker."""
    ray = {item.path for item in items if "local_ray" in getattr(item, "fixturenames", ())}
    # The longest group first, then whole runs.
    items.sort(key=lambda item: (item.path not in ray, "end_to_end" not in item.path.parts))
    for item in items:
        item.add_marker(pytest.mark.xdist_group("ray" if item.path in ray else str(item.path)))
