"""Every way in which a folder can be less than whole is found and named."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import draw_archive

import flowers_batch as fb
from flowers_batch.dataset.run_folder import read_job
from flowers_batch.dataset.schema import CODES, PREDICTIONS
from flowers_batch.dataset.shard_file import Footer, read_footer, write_shard
from flowers_batch.storage.folder import open_folder


@pytest.fixture(scope="module")
def whole(local_ray, tmp_path_factory) -> Path:
    base = tmp_path_factory.mktemp("verify")
    photos = draw_archive(base / "photos", 4)
    (photos / "red" / "0000.png").write_bytes(b"")
    fb.encode(str(photos), str(base / "codes"), fb.EncodeConfig(network="null", shard_size=4))
    return base / "codes"


@pytest.fixture
def folder(whole, tmp_path) -> Path:
    return shutil.copytree(whole, tmp_path / "codes")


def rewrite(folder: Path, shard: int, change, **footer) -> None:
    """Writes a shard anew, with other rows or another footer, as no run of ours would."""
    place = open_folder(folder)
    like = read_footer(place, CODES, shard)
    table = change(pq.read_table(folder / CODES / f"shard-{shard:06d}.parquet"))
    write_shard(place, CODES, table.schema, table.to_batches(), replace(like, **footer))


def problems(folder: Path) -> str:
    found = fb.verify(str(folder))
    assert not found.is_complete
    return "\n".join(found.problems)


def test_a_whole_folder_is_whole(whole):
    found = fb.verify(str(whole))
    assert (found.is_complete, found.images, found.rows, found.ok, found.failed) == (True, 12, 12, 11, 1)


def test_a_missing_or_cut_shard(folder):
    (folder / CODES / "shard-000001.parquet").unlink()
    (folder / CODES / "shard-000002.parquet").write_bytes(b"PAR1")
    assert "shard-000001.parquet is missing" in problems(folder)
    assert "shard-000002.parquet is missing, or is no whole shard" in problems(folder)


def test_a_flipped_bit_is_found_unless_it_changes_no_row(folder):
    path = folder / CODES / "shard-000001.parquet"
    whole, rows = path.read_bytes(), pq.read_table(path)
    found = 0
    for place in range(4, len(whole), len(whole) // 40):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        if not fb.verify(folder).is_complete:
            found += 1
        else:  # in the parts of the file that only speed up reading
            assert pq.read_table(path).equals(rows), place
    assert found > 28


def test_a_row_that_is_missing_double_or_foreign(folder):
    rewrite(folder, 0, lambda table: table.slice(1))
    rewrite(folder, 1, lambda table: pa.concat_tables([table, table.slice(0, 1)]))
    rewrite(folder, 2, lambda table: table.set_column(0, table.schema.field(0), [["x", "y", "z", "w"]]))
    found = problems(folder)
    assert "shard-000000.parquet lacks a row of blue/0000.png" in found
    assert "shard-000001.parquet has unasked a row of green/0000.png" in found
    assert "shard-000002.parquet lacks 4 rows" in found and "has unasked 4 rows, such as x" in found


def test_a_shard_of_another_fingerprint_or_of_other_images(folder):
    rewrite(folder, 0, lambda table: table, fingerprint="0" * 64)
    rewrite(folder, 1, lambda table: table, inputs_digest="0" * 64)
    assert "shard-000000.parquet has another fingerprint" in problems(folder)
    assert "shard-000001.parquet was made from other images" in problems(folder)


def test_counts_that_are_not_true(folder):
    summary = json.loads((folder / "_SUCCESS").read_text())
    (folder / "_SUCCESS").write_text(json.dumps(summary | {"failed": 0}))
    assert "_SUCCESS says 0 failed, and 1 were found" in problems(folder)


def test_a_run_that_has_not_ended_and_a_file_that_belongs_to_none(folder):
    (folder / "_SUCCESS").unlink()
    shutil.copy(folder / CODES / "shard-000000.parquet", folder / CODES / "shard-000009.parquet")
    assert "There is no _SUCCESS" in problems(folder)
    assert "codes/shard-000009.parquet belongs to no shard" in problems(folder)


def test_a_manifest_without_its_end(folder):
    (folder / "manifest" / "part-000000.parquet").unlink()
    assert "manifest is not whole" in problems(folder)


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(fb.InputError, match="not the folder of an encode or predict run"):
        fb.verify(str(tmp_path))


def test_job_says_what_made_the_folder_and_holds_no_secret(whole):
    job = read_job(open_folder(whole))
    assert job.fingerprint.network == "null" and job.versions["ray"]
    assert isinstance(read_footer(open_folder(whole), CODES, 0), Footer)


def deep_problems(folder: Path) -> str:
    assert fb.verify(folder).is_complete
    return "\n".join(fb.verify(folder, deep=True).problems)


def test_deep_reads_a_sample_again_and_finds_bytes_that_changed(whole, folder):
    found = fb.verify(folder, deep=True)
    assert (found.is_complete, found.sampled) == (True, 12)
    photo = whole.parent / "photos" / "green" / "0002.png"
    before, times = photo.read_bytes(), photo.stat()
    try:
        photo.write_bytes((whole.parent / "photos" / "red" / "0003.png").read_bytes())
        assert "green/0002.png has other bytes now" in deep_problems(folder)
        photo.unlink()
        assert "green/0002.png has other bytes now" in deep_problems(folder)
    finally:
        photo.write_bytes(before)
        os.utime(photo, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_deep_finds_codes_and_labels_that_are_not_the_photos(whole, folder, tmp_path):
    def swapped(table: pa.Table) -> pa.Table:
        order = [0, 2, 1, 3]
        return table.set_column(10, table.schema.field("code"), table["code"].take(pa.array(order)))

    rewrite(folder, 1, swapped)
    assert deep_problems(folder).count("has another code in its row") == 2
    photos = whole.parent / "photos"
    fb.train(whole, tmp_path / "model")
    for source, out in ((photos, tmp_path / "labels"), (whole, tmp_path / "same")):
        fb.predict(source, out, tmp_path / "model", fb.PredictConfig(shard_size=4))
        assert fb.verify(out, deep=True).is_complete

    path, place = tmp_path / "labels", open_folder(tmp_path / "labels")
    like = read_footer(place, PREDICTIONS, 1)
    table = pq.read_table(path / PREDICTIONS / "shard-000001.parquet")
    wrong = [row | {"top_labels": ["red"], "top_probabilities": [1.0]} for row in table.to_pylist()]
    table = pa.Table.from_pylist(wrong, table.schema)
    write_shard(place, PREDICTIONS, table.schema, table.to_batches(), like)
    assert "in its row" in deep_problems(path)


def test_deep_says_what_is_not_to_be_had_any_more(whole, tmp_path):
    photos = shutil.copytree(whole.parent / "photos", tmp_path / "photos")
    fb.encode(photos, tmp_path / "codes", fb.EncodeConfig(network="null"))
    photos.rename(tmp_path / "moved")
    with pytest.raises(fb.InputError, match="There is no folder"):
        fb.verify(tmp_path / "codes", deep=True)
