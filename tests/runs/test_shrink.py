"""Shrunk photos in place of photos: the same rows, as the archive grows, is damaged, or lost; without Ray."""

from __future__ import annotations

import io
import shutil
import tarfile
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import draw_archive, run_on_one_actor_here, run_shards_here
from PIL import Image

import flowers_batch as fb
from flowers_batch.dataset.run_folder import open_run
from flowers_batch.pages.photos import Photos
from flowers_batch.pages.thumbnails import NoThumbnail, ThumbnailPool

pytestmark = pytest.mark.usefixtures("in_threads")

SHRINK = fb.ShrinkConfig(shard_size=4)
NULL = fb.EncodeConfig(network="null", shard_size=3, decode="fast", uint8_pixels=True)


@pytest.fixture(autouse=True)
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowers_batch.runs.execution.run_shards", run_shards_here)
    monkeypatch.setattr("flowers_batch.runs.verify.run_on_one_actor", run_on_one_actor_here)


def rows(folder: Path, kind: str = "codes") -> list[dict]:
    return [row for batch in open_run(folder, kind).batches(None) for row in batch.to_pylist()]


def by_path(folder: Path, kind: str = "codes") -> dict[str, dict]:
    return {row["path"]: row for row in rows(folder, kind)}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """13 photos, one of which cannot be decoded, and one with a name that is not UTF-8."""
    folder = draw_archive(tmp_path / "photos", 4)
    (folder / "blue" / "bad.jpg").write_text("nothing")
    (folder / "red" / "0003.png").rename(folder / "red" / b"caf\xe9.png".decode(errors="surrogateescape"))
    return folder


def test_codes_of_shrunk_photos_equal_those_of_the_photos(photos, tmp_path):
    summary = fb.shrink(photos, tmp_path / "pixels", SHRINK)
    assert (summary.images, summary.ok, summary.failed, summary.shards) == (13, 12, 1, 4)
    fb.encode(tmp_path / "pixels", tmp_path / "codes", fb.EncodeConfig(network="null", shard_size=3))
    fb.encode(photos, tmp_path / "reference", NULL)
    assert rows(tmp_path / "codes") == rows(tmp_path / "reference")
    made, reference = (open_run(tmp_path / name, "codes").job.fingerprint for name in ("codes", "reference"))
    assert made == reference and made.uint8_pixels
    for folder in ("pixels", "codes"):
        assert fb.verify(tmp_path / folder, deep=True).problems == []


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["auto", "float32", "bfloat16"])
def test_codes_of_vgg_equal_those_of_the_photos(photos, narrow, tmp_path, precision):
    config = fb.EncodeConfig(weights="random:1", precision=precision, shard_size=6)
    fb.shrink(photos, tmp_path / "pixels", SHRINK)
    fb.encode(tmp_path / "pixels", tmp_path / "codes", config)
    made = open_run(tmp_path / "codes", "codes").job.fingerprint
    assert made.decode == "fast" and made.uint8_pixels == (made.precision == "float32")
    rounded = made.precision == "float32"
    fb.encode(photos, tmp_path / "reference", replace(config, decode="fast", uint8_pixels=rounded))
    assert open_run(tmp_path / "reference", "codes").job.fingerprint == made
    assert rows(tmp_path / "codes") == rows(tmp_path / "reference")
    assert fb.encode(tmp_path / "pixels", tmp_path / "codes", config).resumed == 13
    assert fb.verify(tmp_path / "codes", deep=True).problems == []


def test_shrunk_photos_of_tars_keep_their_folders(photos, tmp_path):
    with tarfile.open(tmp_path / "photos.tar", "w") as tar:
        for path in sorted(draw_archive(tmp_path / "few", 2).rglob("*.png")):
            tar.add(path, path.relative_to(tmp_path / "few"))
    fb.shrink(tmp_path / "photos.tar", tmp_path / "pixels", SHRINK)
    fb.encode(tmp_path / "pixels", tmp_path / "codes", NULL)
    fb.encode(tmp_path / "photos.tar", tmp_path / "reference", NULL)
    assert rows(tmp_path / "codes") == rows(tmp_path / "reference")


def test_only_new_photos_are_shrunk_and_encoded_as_an_archive_grows(photos, tmp_path):
    pixels, codes = tmp_path / "pixels", tmp_path / "codes"
    fb.shrink(photos, pixels, SHRINK)
    fb.encode(pixels, codes, NULL)
    assert fb.encode(pixels, codes, NULL).resumed == 13
    shutil.copytree(photos / "green", photos / "another green")
    (photos / "red" / "0002.png").unlink()
    shutil.copy(photos / "red" / "0001.png", photos / "red" / "0000.png")
    assert fb.shrink(photos, pixels, SHRINK).resumed == 12
    summary = fb.encode(pixels, codes, NULL)
    expected = {"new": 4, "changed": 1, "missing": 1, "returned": 0, "pruned": 0, "retried": 0}
    assert (summary.changes, summary.resumed, summary.missing) == (expected, 12, 1)
    fb.encode(photos, tmp_path / "reference", NULL)
    reference, found = by_path(tmp_path / "reference"), by_path(codes)
    assert len(found) == 17 and all(found[path] == row for path, row in reference.items())
    assert fb.shrink(photos, pixels, replace(SHRINK, prune=True)).changes["pruned"] == 1
    assert fb.encode(pixels, codes, replace(NULL, prune=True)).images == 16
    assert by_path(codes) == reference
    for folder in (pixels, codes):
        assert fb.verify(folder, deep=True).problems == []


def test_photo_that_is_shrunk_when_it_is_retried_is_encoded(photos, tmp_path):
    small = replace(SHRINK, max_pixels=1800, max_failed_share=1)
    pixels, codes = tmp_path / "pixels", tmp_path / "codes"
    assert fb.shrink(photos, pixels, small).reasons["too_large"] > 2
    fb.encode(pixels, codes, replace(NULL, max_failed_share=1))
    fb.shrink(photos, pixels, replace(SHRINK, retry_failed=True))
    fb.encode(pixels, codes, NULL)
    fb.encode(photos, tmp_path / "reference", NULL)
    assert rows(codes) == rows(tmp_path / "reference")


@pytest.mark.slow
def test_labels_from_shrunk_photos_equal_those_from_the_photos(photos, tmp_path):
    fb.shrink(photos, tmp_path / "pixels", SHRINK)
    for name, config in (("rounded", NULL), ("exact", replace(NULL, decode="exact"))):
        fb.encode(photos, tmp_path / f"{name} codes", config)
        fb.train(tmp_path / f"{name} codes", tmp_path / name, fb.TrainConfig(("folder",), head="logistic"))
    for source in ("pixels", "photos"):
        fb.predict(tmp_path / source, tmp_path / f"of {source}", tmp_path / "rounded")
    assert rows(tmp_path / "of pixels", "predictions") == rows(tmp_path / "of photos", "predictions")
    with pytest.raises(fb.InputError, match=r"than those of the photos in .*pixels: decode \(exact, not fast\)"):
        fb.predict(tmp_path / "pixels", tmp_path / "predictions", tmp_path / "exact")
    shutil.rmtree(photos)
    page = Path(fb.report(tmp_path / "of pixels")).read_text()
    assert page.count("data:image/webp") >= 3


@pytest.mark.parametrize("thumbnails", [False, True])
def test_pages_show_shrunk_photos(photos, tmp_path, thumbnails):
    fb.shrink(photos, tmp_path / "pixels", replace(SHRINK, thumbnails=thumbnails))
    fb.encode(tmp_path / "pixels", tmp_path / "codes", NULL)
    shown = Photos(str(tmp_path / "codes"), str(tmp_path / "pixels"))
    images = shown.find(["red/0001.png", "blue/bad.jpg"])
    with closing(ThumbnailPool(shown.source)) as pool:
        picture, failure = pool.make_all([images["red/0001.png"], images["blue/bad.jpg"]])
    size = Image.open(photos / "red" / "0001.png").size if thumbnails else (160, 160)
    assert Image.open(io.BytesIO(picture)).size == size
    assert isinstance(failure, NoThumbnail) and str(failure) == "No image format is recognised in the file."


def test_thumbnails_are_upright_photos_in_the_shards(photos, tmp_path):
    fb.shrink(photos, tmp_path / "pixels", replace(SHRINK, thumbnails=True))
    for row in rows(tmp_path / "pixels", "pixels"):
        if row["status"] == "ok":
            assert Image.open(io.BytesIO(row["thumbnail"])).size == (row["width"], row["height"])
        else:
            assert row["thumbnail"] is row["pixels"] is None and row["reason"] == "not_an_image"
    assert fb.verify(tmp_path / "pixels", deep=True).problems == []
    with pytest.raises(fb.InputError, match=r"holds pixels of another kind: thumbnail_edge \(None, not 512\)"):
        fb.shrink(photos, tmp_path / "pixels", SHRINK)


def test_stopped_shrinking_is_resumed_and_not_read_before(photos, tmp_path, monkeypatch):
    def stopped(job, shards, *rest, **more):
        run_shards_here(job, shards[:2], *rest, **more)
        raise fb.RunError("stopped")

    with monkeypatch.context() as patch, pytest.raises(fb.RunError, match="stopped"):
        patch.setattr("flowers_batch.runs.execution.run_shards", stopped)
        fb.shrink(photos, tmp_path / "pixels", SHRINK)
    with pytest.raises(fb.InputError, match="pixels is not finished: run the same `flowers-batch shrink` again"):
        fb.encode(tmp_path / "pixels", tmp_path / "codes", NULL)
    assert fb.shrink(photos, tmp_path / "pixels", SHRINK).resumed == 8
    fb.encode(tmp_path / "pixels", tmp_path / "codes", NULL)
    assert fb.verify(tmp_path / "codes").is_complete


def test_damaged_shard_ends_the_run_in_a_sentence(photos, tmp_path):
    fb.shrink(photos, tmp_path / "pixels", SHRINK)
    shard = tmp_path / "pixels" / "pixels" / "shard-000002.parquet"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1  # a pixel
    shard.write_bytes(content)
    sentence = r"shard-000002\.parquet cannot be used \(.*\): delete it, and run the same `flowers-batch shrink` again"
    with pytest.raises(fb.InputError, match=sentence):
        fb.encode(tmp_path / "pixels", tmp_path / "codes", NULL)
    assert any("shard-000002" in problem for problem in fb.verify(tmp_path / "pixels").problems)
    shard.unlink()
    assert fb.shrink(photos, tmp_path / "pixels", SHRINK).resumed == 9
    assert fb.encode(tmp_path / "pixels", tmp_path / "codes", NULL).ok == 12


def test_folders_of_other_kinds_are_refused(photos, tmp_path):
    fb.shrink(photos, tmp_path / "pixels", SHRINK)
    fb.encode(photos, tmp_path / "codes", NULL)
    for work, sentence in (
        (lambda: fb.shrink(photos, tmp_path / "codes"), "holds codes: shrink into another folder"),
        (lambda: fb.encode(photos, tmp_path / "pixels", NULL), "holds pixels: encode into another folder"),
        (
            lambda: fb.encode(tmp_path / "pixels", tmp_path / "x", replace(NULL, root=str(photos))),
            "`root` is for lists",
        ),
        (lambda: fb.encode(tmp_path / "pixels", tmp_path / "x", replace(NULL, decode="exact")), "with `decode` fast"),
        (lambda: fb.train(tmp_path / "pixels", tmp_path / "x", fb.TrainConfig(("folder",))), "not a folder of codes"),
        (lambda: fb.keywords(tmp_path / "pixels"), "holds shrunk photos, of which only pixels are left"),
    ):
        with pytest.raises(fb.InputError, match=sentence):
            work()


def test_photos_beside_another_programs_job_are_photos(photos, tmp_path):
    (photos / "job.json").write_text('{"kind": ["pixels"]}')
    assert fb.encode(photos, tmp_path / "codes", NULL).ok == 12


def test_photos_of_a_pattern_are_left_out(photos, tmp_path):
    fb.shrink(photos, tmp_path / "pixels", SHRINK)
    summary = fb.encode(tmp_path / "pixels", tmp_path / "codes", replace(NULL, exclude=("green/",)))
    assert summary.images == 9 and summary.skipped == {"exclude green/": 4}
