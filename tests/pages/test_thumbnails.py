"""Thumbnails are made in processes of their own, whatever the photos are."""

from __future__ import annotations

import io
from contextlib import closing

import pytest
from helpers import changing, decode_processes, draw_archive, encoded, images_in, random_pixels, source, write
from PIL import Image as Pillow

import flowers_batch as fb
from flowers_batch.pages.thumbnails import SMALL, NoThumbnail, ThumbnailPool
from flowers_batch.sources.images import Image
from flowers_batch.sources.opening import open_source


def test_thumbnails_are_in_order_and_bad_photos_have_sentences(tmp_path, monkeypatch):
    """More photos than there are slots; this process reads none of them."""
    count = 20 * SMALL.in_flight
    names = [f"{number:04d}.png" for number in range(count)]
    files = {name: encoded(random_pixels(1 + number % 99, 200)) for number, name in enumerate(names)}
    write(tmp_path, files | {names[3]: b"nothing", names[count - 2]: b""})
    (tmp_path / names[5]).unlink()
    monkeypatch.setattr("flowers_batch.sources.folders.FolderSource.read", None)
    before = decode_processes()
    with closing(ThumbnailPool(source(tmp_path))) as pool:
        assert decode_processes() == before, "none is started before a thumbnail is wanted"
        made = list(pool.make_all([Image(name) for name in names]))
        assert pool.make(Image(names[7])) == made[7] and decode_processes() != before
    assert decode_processes() == before
    failed = {number: str(each) for number, each in enumerate(made) if isinstance(each, NoThumbnail)}
    assert sorted(failed) == [3, 5, count - 2] and failed[5] == "The file no longer exists."
    for number, each in enumerate(made):
        if number not in failed:
            width, height = Pillow.open(io.BytesIO(each)).size
            assert max(width, height) == 160 and abs(height / width - (1 + number % 99) / 200) < 0.01


def test_lost_folder_is_no_fault_but_a_bug_and_a_broken_installation_are(tmp_path, monkeypatch):
    photos = draw_archive(tmp_path / "photos", 2)
    images = [Image("red/0000.png"), Image("red/0001.png")]
    with closing(ThumbnailPool(source(photos))) as pool:
        assert pool.make(images[0])
        photos.rename(tmp_path / "moved")
        assert [str(each)[-31:] for each in pool.make_all(images)] == ["and run the same command again."] * 2
        (tmp_path / "moved").rename(photos)
        assert pool.make(images[0])
    bug = changing(
        tmp_path / "changed", "flowers_batch.decoding.outputs", "def change(module): module.WebpThumbnail.write = None"
    )
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
