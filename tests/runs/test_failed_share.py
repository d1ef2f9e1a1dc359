"""Runs in which many images fail; in this process, without Ray."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from commands import run
from helpers import draw_archive, run_shards_here
from PIL import Image

import flowers_batch as fb

CONFIG = fb.EncodeConfig(network="null", shard_size=10)
ACCEPTING = replace(CONFIG, max_failed_share=1)


@pytest.fixture(scope="module", autouse=True)
def without_ray() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flowers_batch.runs.execution.run_shards", run_shards_here)
        yield


def write_photos(folder: Path, ok: int, not_images: int = 0, missing: int = 0, *, ok_first: bool = False) -> Path:
    """Write photos and a list of them, by default those that fail first; return the list."""
    folder.mkdir(exist_ok=True)
    readable = [f"{'a' if ok_first else 'z'}/{number:03d}.png" for number in range(ok)]
    others = [f"m/{number:03d}.png" for number in range(not_images)]
    for number, name in enumerate(readable + others):
        (folder / name).parent.mkdir(exist_ok=True)
        if name in others:
            (folder / name).write_bytes(b"text %d" % number)
        else:
            Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / name)
    names = sorted([*readable, *others, *(f"n/{number:03d}.png" for number in range(missing))])
    (folder / "list.txt").write_text("\n".join(names) + "\n")
    return folder / "list.txt"


def shards_of(codes: Path) -> int:
    return len(list(codes.glob("codes/shard-*.parquet")))


def test_run_in_which_most_images_fail_counts_the_reasons(tmp_path):
    photos, codes = write_photos(tmp_path / "photos", 39, 21, 1040, ok_first=True), tmp_path / "codes"
    sentence = (
        r"^1,061 of 1,100 images failed \(1,040 missing, 21 not_an_image\), which `max_failed_share` 0\.95 does not "
        r"allow: check .*list\.txt and retry them with `retry_all`, or accept .*`max_failed_share` 1\.$"
    )
    with pytest.raises(fb.RunError, match=sentence):
        fb.encode(photos, codes, replace(CONFIG, shard_size=300, max_failed_share=0.95))
    assert not (codes / "_SUCCESS").exists()
    assert shards_of(codes) == 4


def test_run_ends_as_soon_as_too_many_failures_are_certain(tmp_path):
    photos, codes = write_photos(tmp_path / "photos", 0, 5, 195), tmp_path / "codes"
    with pytest.raises(fb.RunError, match=r"110 of 200 images failed \(105 missing, 5 not_an_image; 90 not tried"):
        fb.encode(photos, codes, CONFIG)
    assert shards_of(codes) == 11


def test_shards_done_before_count_before_an_actor_starts(tmp_path, monkeypatch):
    photos, codes = write_photos(tmp_path / "photos", 0, 0, 100), tmp_path / "codes"
    for _ in range(2):
        with pytest.raises(fb.RunError, match=r"60 of 100 .* 40 not tried"):
            fb.encode(photos, codes, CONFIG)
        monkeypatch.setattr("flowers_batch.runs.execution.run_shards", None)


def test_as_many_failures_as_allowed_are_accepted(tmp_path):
    photos = write_photos(tmp_path / "photos", 71, 29)  # 0.29 * 100 is less than 29
    assert fb.encode(photos, tmp_path / "codes", replace(CONFIG, max_failed_share=0.29)).failed == 29
    with pytest.raises(fb.RunError, match=r"29 of 100 .*`max_failed_share` 0\.28"):
        fb.encode(photos, tmp_path / "other", replace(CONFIG, max_failed_share=0.28))


def test_all_of_less_than_a_hundred_images_may_fail(tmp_path):
    photos = write_photos(tmp_path / "photos", 0, 0, 99)
    assert fb.encode(photos, tmp_path / "codes", CONFIG).failed == 99


def test_failed_run_is_accepted_at_once_by_the_same_command(tmp_path, monkeypatch):
    photos, codes = write_photos(tmp_path / "photos", 40, 0, 60, ok_first=True), tmp_path / "codes"
    with pytest.raises(fb.RunError, match=r"60 of 100 images failed \(60 missing\)"):
        fb.encode(photos, codes, CONFIG)
    monkeypatch.setattr("flowers_batch.runs.execution.run_shards", None)
    summary = fb.encode(photos, codes, ACCEPTING)
    assert (summary.ok, summary.failed, summary.resumed) == (40, 60, 100)
    assert fb.verify(codes).is_complete
    assert fb.encode(photos, codes, CONFIG).failed == 60  # it is complete, and nothing is judged again


def test_failed_run_goes_on_after_its_source_was_repaired(tmp_path):
    photos, codes = write_photos(tmp_path / "photos", 0, 0, 100), tmp_path / "codes"
    with pytest.raises(fb.RunError):
        fb.encode(photos, codes, CONFIG)
    for number in range(95):
        (tmp_path / "photos" / "n").mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "photos" / "n" / f"{number:03d}.png")
    summary = fb.encode(photos, codes, replace(CONFIG, retry_all=True))
    assert (summary.ok, summary.failed) == (95, 5)
    assert fb.verify(codes).is_complete


def test_images_that_left_the_archive_do_not_count(tmp_path):
    photos, codes = write_photos(tmp_path / "photos", 75, 25, 45), tmp_path / "codes"
    fb.encode(photos, codes, CONFIG)
    names = photos.read_text().split()
    failed, ok = names[:70], names[70:]
    photos.write_text("\n".join([*ok, *failed[6:-4]]))
    summary = fb.encode(photos, codes, CONFIG)
    assert (summary.images, summary.missing, summary.failed) == (145, 10, 70)
    photos.write_text("\n".join([*ok[15:], *failed[6:-4]]))
    assert fb.encode(photos, codes, CONFIG).missing == 25
    photos.write_text("\n".join([*ok[16:], *failed[6:-4]]))
    with pytest.raises(fb.RunError, match=r"60 of 119 images failed \(41 missing, 19 not_an_image\)"):
        fb.encode(photos, codes, CONFIG)


def test_predictions_of_photos_are_limited_and_those_of_codes_are_not(tmp_path):
    names = [path.relative_to(tmp_path / "photos") for path in draw_archive(tmp_path / "photos", 10).rglob("*.png")]
    photos, labels, codes, model = (tmp_path / name for name in ("photos/list.txt", "labels.csv", "codes", "model"))
    photos.write_text("\n".join([*map(str, names), *(f"missing/{number}.png" for number in range(70))]))
    labels.write_text("path,label\n" + "".join(f"{name},{name.parent}\n" for name in names))
    assert fb.encode(photos, codes, ACCEPTING).failed == 70
    fb.train(codes, model, fb.TrainConfig((str(labels),), head="logistic"))
    with pytest.raises(fb.RunError, match="70 of 100 images failed"):
        fb.predict(photos, tmp_path / "of photos", model)
    assert fb.predict(codes, tmp_path / "of codes", model).failed == 70
    with pytest.raises(fb.InputError, match="`max_failed_share`"):
        fb.predict(codes, tmp_path / "refused", model, fb.PredictConfig(max_failed_share=1))


def test_command_names_its_option(tmp_path, capsys):
    photos, codes = write_photos(tmp_path / "photos", 0, 0, 100), tmp_path / "codes"
    code, out, err = run(capsys, "encode", str(photos), str(codes), "--network", "null", "--max-failed-share", "0.9")
    assert code == 1 and out == ""
    assert "--max-failed-share 0.9 does not allow" in err and "retry them with --retry-all" in err
