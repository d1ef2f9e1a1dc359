"""What runs leave out: system and hidden names, what the user excludes, and what is no image."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import draw_archive, run_shards_here, write

import flowers_batch as fb
from flowers_batch.dataset.manifest import read_manifest
from flowers_batch.dataset.run_folder import SUCCESS, open_run, read_summary
from flowers_batch.errors import InputError
from flowers_batch.finetuning.finetune import encoding_config
from flowers_batch.finetuning.frozen import encoding_settings_of
from flowers_batch.sources.skipping import Skipping
from flowers_batch.storage.opening import open_folder

pytestmark = pytest.mark.usefixtures("in_threads")

NULL = fb.EncodeConfig(network="null", shard_size=7)


@pytest.fixture(autouse=True)
def _without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowers_batch.runs.execution.run_shards", run_shards_here)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Six photos, and copies of them as systems make them."""
    photos = draw_archive(tmp_path / "photos", 2)
    content = (photos / "red" / "0000.png").read_bytes()
    write(photos, {"red/@eaDir/0000.png/SYNOPHOTO_THUMB_M.jpg": content, "green/._0000.png": b"fork"})
    write(photos, {"blue/clip.mov": b"", "blue/raw/0000.png": content, "notes": b""})
    return photos


def paths(codes: Path) -> set[str]:
    return {row["path"] for batch in open_run(codes, "codes").batches(["path"]) for row in batch.to_pylist()}


def test_summary_and_report_say_what_was_left_out(photos, tmp_path):
    codes = tmp_path / "codes"
    (photos / "red" / "again").symlink_to("..")
    (photos / "lost").symlink_to("nowhere")
    summary = fb.encode(photos, codes, replace(NULL, exclude=("raw/",)))
    assert (summary.ok, summary.failed, summary.ignored) == (6, 0, 2)
    assert summary.skipped == {"exclude raw/": 1, "@eaDir": 1, "._*": 1}
    assert summary.ignored_endings == {".mov": 1, "": 1}
    assert (summary.loops["first"], summary.broken_links["first"]) == (["red/again"], ["lost"])
    written = read_summary(open_folder(codes))
    assert written["skipped"] == summary.skipped and written["ignored_endings"] == summary.ignored_endings
    listing = read_manifest(open_folder(codes)).listing
    assert listing.skipping == Skipping(exclude=("raw/",)) and listing.left_out.skipped == summary.skipped
    page = Path(fb.report(codes)).read_text()
    for text in ("1 named ._*, 1 in @eaDir, 1 excluded by raw/", "1 without ending, 1 .mov", "red/again", "lost"):
        assert text in page


def test_counts_of_a_listing_without_changes_are_kept(photos, tmp_path):
    codes = open_folder(tmp_path / "codes")
    fb.encode(photos, codes.url, NULL)
    before = read_summary(codes)
    write(photos, {"blue/second.mov": b""})
    assert fb.encode(photos, codes.url, NULL).ignored_endings == {".mov": 2, "": 1}
    assert read_summary(codes) == before | {"ignored": 3, "ignored_endings": {".mov": 2, "": 1}}


def test_include_hidden_takes_what_systems_made(photos, tmp_path):
    summary = fb.encode(photos, tmp_path / "codes", replace(NULL, include_hidden=True))
    assert (summary.ok, summary.failed, summary.skipped) == (8, 1, {})


def test_rows_of_names_excluded_later_are_missing_until_they_are_pruned(photos, tmp_path):
    codes = tmp_path / "codes"
    assert fb.encode(photos, codes, NULL).images == 7
    without = replace(NULL, exclude=("/blue/raw",))
    summary = fb.encode(photos, codes, without)
    assert (summary.images, summary.missing, summary.changes["missing"]) == (7, 1, 1)
    assert fb.encode(photos, codes, replace(without, prune=True)).images == 6
    assert "blue/raw/0000.png" not in paths(codes)
    assert fb.encode(photos, codes, NULL).changes["new"] == 1


@pytest.mark.parametrize("stopped", [True, False])
def test_run_that_is_resumed_with_other_rules_lists_again(photos, tmp_path, stopped):
    codes = tmp_path / "codes"
    fb.encode(photos, codes, NULL)
    if stopped:
        os.unlink(codes / SUCCESS)
    (photos / "red" / "0000.png").unlink()
    assert fb.encode(photos, codes, NULL).missing == (0 if stopped else 1)
    if stopped:
        os.unlink(codes / SUCCESS)
    assert fb.encode(photos, codes, replace(NULL, exclude=("raw",))).missing == 2


def test_linked_class_on_a_lost_disk_keeps_its_rows(photos, tmp_path):
    codes = tmp_path / "codes"
    disk = draw_archive(tmp_path / "disk", 2)
    (photos / "linked").symlink_to(disk / "red")
    assert fb.encode(photos, codes, NULL).images == 9
    disk.rename(tmp_path / "unmounted")
    summary = fb.encode(photos, codes, NULL)
    assert (summary.images, summary.missing, summary.broken_links["first"]) == (9, 2, ["linked"])
    assert {"linked/0000.png", "linked/0001.png"} < paths(codes)
    (tmp_path / "unmounted").rename(disk)
    assert fb.encode(photos, codes, NULL).changes["returned"] == 2


def test_source_whose_images_are_all_left_out_is_refused_with_the_counts(photos, tmp_path):
    told = (
        r"^There are no images in .*\(skipped: .*8 excluded by \*.png.*ignored: 1 .*\): .*change `include_hidden` and"
    )
    with pytest.raises(InputError, match=told):
        fb.encode(photos, tmp_path / "codes", replace(NULL, exclude=("*.png",)))
    assert not (tmp_path / "codes" / "manifest").exists()


def test_excluded_entries_of_a_list_are_counted(photos, tmp_path):
    listing = tmp_path / "list.txt"
    names = ["red/0000.png", "blue/raw/0000.png", "red/@eaDir/0000.png/SYNOPHOTO_THUMB_M.jpg"]
    listing.write_text("\n".join([*names, f"{photos}/blue/0000.png", ""]))
    config = replace(NULL, root=str(photos), exclude=("raw",))
    summary = fb.encode(listing, tmp_path / "codes", config)
    assert paths(tmp_path / "codes") == {names[0], names[2], "blue/0000.png"}, "a list names its photos"
    assert summary.skipped == {"exclude raw": 1}


def test_tuned_network_encodes_the_photos_that_it_was_trained_on(photos, tmp_path):
    codes = tmp_path / "codes"
    fb.encode(photos, codes, replace(NULL, include_hidden=True, exclude=("raw",)))
    assert encoding_settings_of(codes)["exclude"] == ("raw",)
    config = encoding_config(open_run(codes, "codes"), fb.FinetuneConfig(), "random:3")
    assert (config.include_hidden, config.exclude) == (True, ("raw",))


def test_predictions_from_codes_refuse_names_to_leave_out(photos, tmp_path):
    fb.encode(draw_archive(tmp_path / "labelled", 6), tmp_path / "codes", NULL)
    fb.train(tmp_path / "codes", tmp_path / "model", fb.TrainConfig(("folder",), head="logistic"))
    for change in ({"exclude": ("raw",)}, {"include_hidden": True}):
        with pytest.raises(InputError, match=r"no photo is listed or read: give .*`exclude` to `encode`"):
            fb.predict(tmp_path / "codes", tmp_path / "labels", tmp_path / "model", fb.PredictConfig(**change))
    summary = fb.predict(photos, tmp_path / "labels", tmp_path / "model", fb.PredictConfig(exclude=("raw",)))
    assert (summary.images, summary.skipped["exclude raw"]) == (6, 1)
