"""Thumbnails are made in processes of their own, whatever the photos are."""

from __future__ import annotations

import io
import os
import signal
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urljoin
from urllib.request import Request, urlopen

import pytest
from archive_runs import predict_with_link
from browsing import command, enter
from helpers import changing, descendants, draw_archive, encoded, images_in, poisonous, random_pixels, source, write
from PIL import Image as Pillow

import flowers_batch as fb
from flowers_batch.dataset.run_folder import open_run
from flowers_batch.dataset.schema import PREDICTIONS
from flowers_batch.pages.review.review import Review
from flowers_batch.pages.thumbnails import IN_FLIGHT, NoThumbnail, ThumbnailPool
from flowers_batch.sources.images import Image
from flowers_batch.sources.opening import open_source


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """Folders `photos`, `codes`, `model` and `predictions` of 31 photos."""
    return predict_with_link(tmp_path_factory.mktemp("thumbnails"))


def processes() -> list[int]:
    return [process for process, line in descendants(os.getpid()).items() if "fork_server" in line]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_thumbnails_are_in_order_and_bad_photos_have_sentences(tmp_path, monkeypatch):
    """More photos than there are slots; this process reads none of them."""
    count = 20 * IN_FLIGHT
    names = [f"{number:04d}.png" for number in range(count)]
    files = {name: encoded(random_pixels(1 + number % 99, 200)) for number, name in enumerate(names)}
    write(tmp_path, files | {names[3]: b"nothing", names[count - 2]: b""})
    (tmp_path / names[5]).unlink()
    monkeypatch.setattr("flowers_batch.sources.folders.FolderSource.read", None)
    with closing(ThumbnailPool(source(tmp_path))) as pool:
        assert not processes(), "none is started before a thumbnail is wanted"
        made = list(pool.make_all([Image(name) for name in names]))
        assert pool.make(Image(names[7])) == made[7] and processes()
    assert not processes()
    failed = {number: str(each) for number, each in enumerate(made) if isinstance(each, NoThumbnail)}
    assert sorted(failed) == [3, 5, count - 2] and failed[5] == "The file no longer exists."
    for number, each in enumerate(made):
        if number not in failed:
            width, height = Pillow.open(io.BytesIO(each)).size
            assert max(width, height) == 160 and abs(height / width - (1 + number % 99) / 200) < 0.01


def test_processes_end_with_the_review(base, tmp_path):
    with closing(Review(base / "predictions", tmp_path / "labels.csv")) as review:
        assert not processes()
        assert review.thumbnails.thumbnail(0) == review.thumbnails.thumbnail(0) and processes()
    assert not processes()
    with pytest.raises(fb.RunError, match="were ended"):
        review.thumbnails.thumbnail(1)


def test_lost_folder_is_no_fault_but_a_bug_and_a_broken_installation_are(tmp_path, monkeypatch):
    photos = draw_archive(tmp_path / "photos", 2)
    images = [Image("red/0000.png"), Image("red/0001.png")]
    with closing(ThumbnailPool(source(photos))) as pool:
        assert pool.make(images[0])
        photos.rename(tmp_path / "moved")
        assert [str(each)[-31:] for each in pool.make_all(images)] == ["and run the same command again."] * 2
        (tmp_path / "moved").rename(photos)
        assert pool.make(images[0])
    bug = changing(tmp_path / "changed", "flowers_batch.decoding.outputs", "def change(module): del module.cv2")
    with monkeypatch.context() as patch, closing(ThumbnailPool(source(photos))) as pool:
        patch.syspath_prepend(bug)
        with pytest.raises(fb.RunError, match="a bug"):
            pool.make(images[0])
    monkeypatch.setattr("flowers_batch.decoding.worker_process._SERVER", "flowers_batch.no_such_module")
    with closing(ThumbnailPool(source(photos))) as pool, pytest.raises(fb.RunError, match="do not start"):
        list(pool.make_all(images))


def test_objects_that_a_list_on_disk_names_have_thumbnails(s3, tmp_path, monkeypatch):
    """The workers get the store's credentials and address."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{s3.port}")
    s3.put("listed.png", encoded(random_pixels(20, 20)))
    local = write(tmp_path, {"local.png": encoded(random_pixels(20, 20, seed=1))}) / "local.png"
    (tmp_path / "list.txt").write_text(f"{s3.url('listed.png').partition('?')[0]}\n{local}\n")
    listed = open_source(str(tmp_path / "list.txt"))
    with closing(ThumbnailPool(listed)) as pool:
        assert [isinstance(made, bytes) for made in pool.make_all(images_in(listed))] == [True, True]


def fetch(url: str, cookie: str) -> tuple[int, str]:
    try:
        with urlopen(Request(url, headers={"Cookie": cookie})) as answer:
            return answer.status, answer.read().decode("latin1")
    except HTTPError as error:
        return error.code, error.read().decode()


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
def test_server_outlives_photos_and_no_process_outlives_the_server(base, tmp_path, monkeypatch, ending):
    """A photo that crashes the process that decodes it has no thumbnail; the others have one."""
    table = open_run(base / "predictions", PREDICTIONS)
    paths = [path for batch in table.batches(["path"]) for path in batch["path"].to_pylist()]
    (base / "photos" / "red" / "0001.png").write_bytes(b"POISON crash")
    monkeypatch.setenv("PYTHONPATH", poisonous(tmp_path / "poison"))
    with command(base / "predictions", tmp_path / "labels.csv") as (url, server):
        page, cookie = enter(url)
        for path in ("red/0001.png", "red/0002.png", "blue/0001.png"):
            status, text = fetch(urljoin(url, f"{page}thumbnail/{paths.index(path)}"), cookie)
            if path == "red/0001.png":
                assert (status, text) == (404, "Decoding it ends the process with SIGSEGV.")
            else:
                assert (status, text[:4]) == (200, "RIFF")
        started = descendants(server.pid)
        assert len(started) > 1
        server.send_signal(ending)
        assert server.wait(20) == (0 if ending == signal.SIGTERM else -signal.SIGKILL)
        until(lambda: not any(Path(f"/proc/{process}").exists() for process in started))
