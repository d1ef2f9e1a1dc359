"""Each way in which a folder can be incomplete is found and named; in this process, without Ray."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import draw_archive, run_shards_here

import flowers_batch as fb
from flowers_batch.dataset.job import read_job
from flowers_batch.dataset.schema import CODES
from flowers_batch.dataset.shard_file import Footer, read_footer, write_shard
from flowers_batch.storage.opening import open_folder


@pytest.fixture(scope="module", autouse=True)
def without_ray() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flowers_batch.runs.execution.run_shards", run_shards_here)
        yield


@pytest.fixture(scope="module")
def complete(without_ray, tmp_path_factory) -> Path:
    base = tmp_path_factory.mktemp("verify")
    photos = draw_archive(base / "photos", 4)
    (photos / "red" / "0000.png").write_bytes(b"")
    fb.encode(str(photos), str(base / "codes"), fb.EncodeConfig(network="null", shard_size=4))
    return base / "codes"


@pytest.fixture
def folder(complete, tmp_path) -> Path:
    return shutil.copytree(complete, tmp_path / "codes")


def rewrite(folder: Path, shard: int, change, **footer) -> None:
    """Write a shard with other rows or another footer, as no run would."""
    out = open_folder(folder)
    footer_before = read_footer(out, CODES, shard)
    table = change(pq.read_table(folder / CODES / f"shard-{shard:06d}.parquet"))
    write_shard(out, CODES, table.schema, table.to_batches(), replace(footer_before, **footer))


def problems(folder: Path) -> str:
    found = fb.verify(str(folder))
    assert not found.is_complete
    return "\n".join(found.problems)


def test_complete_folder_has_no_problems(complete):
    found = fb.verify(str(complete))
    assert (found.is_complete, found.images, found.rows, found.ok, found.failed) == (True, 12, 12, 11, 1)


def test_missing_or_truncated_shard_is_named(folder):
    (folder / CODES / "shard-000001.parquet").unlink()
    (folder / CODES / "shard-000002.parquet").write_bytes(b"PAR1")
    assert "shard-000001.parquet is missing or incomplete" in problems(folder)
    assert "shard-000002.parquet is missing or incomplete" in problems(folder)


def test_flipped_bit_is_found_unless_it_changes_no_row(folder):
    path = folder / CODES / "shard-000001.parquet"
    intact, rows = path.read_bytes(), pq.read_table(path)
    found = 0
    for position in range(4, len(intact), len(intact) // 40):
        path.write_bytes(intact[:position] + bytes([intact[position] ^ 4]) + intact[position + 1 :])
        if not fb.verify(folder).is_complete:
            found += 1
        else:  # in the parts of the file that only speed up reading
            assert pq.read_table(path).equals(rows), position
    assert found > 28


def test_missing_repeated_and_foreign_rows_are_named(folder):
    rewrite(folder, 0, lambda table: table.slice(1))
    rewrite(folder, 1, lambda table: pa.concat_tables([table, table.slice(0, 1)]))
    rewrite(folder, 2, lambda table: table.set_column(0, table.schema.field(0), [["x", "y", "z", "w"]]))
    found = problems(folder)
    assert "shard-000000.parquet lacks a row of blue/0000.png" in found
    assert "shard-000001.parquet has in excess a row of green/0000.png" in found
    assert "shard-000002.parquet lacks 4 rows" in found and "has in excess 4 rows, such as x" in found


def test_shard_of_another_fingerprint_or_other_images_is_named(folder):
    rewrite(folder, 0, lambda table: table, fingerprint="0" * 64)
    rewrite(folder, 1, lambda table: table, inputs_digest="0" * 64)
    assert "shard-000000.parquet has another fingerprint" in problems(folder)
    assert "shard-000001.parquet was made from other images" in problems(folder)


def test_wrong_count_in_the_summary_is_named(folder):
    summary = json.loads((folder / "_SUCCESS").read_text())
    (folder / "_SUCCESS").write_text(json.dumps(summary | {"failed": 0}))
    assert "_SUCCESS says 0 failed, and 1 were found" in problems(folder)


def test_unfinished_run_and_foreign_file_are_named(folder):
    (folder / "_SUCCESS").unlink()
    shutil.copy(folder / CODES / "shard-000000.parquet", folder / CODES / "shard-000009.parquet")
    assert "There is no _SUCCESS" in problems(folder)
    assert "codes/shard-000009.parquet belongs to no shard" in problems(folder)


def test_manifest_without_its_last_part_is_incomplete(folder):
    (folder / "manifest" / "part-000000.parquet").unlink()
    assert "manifest is incomplete" in problems(folder)


def test_folder_of_no_run_is_refused(tmp_path):
    with pytest.raises(fb.InputError, match="not the folder of an encode, predict or shrink run"):
        fb.verify(str(tmp_path))


def test_job_says_what_made_the_folder(complete):
    job = read_job(open_folder(complete))
    assert job.fingerprint.network == "null" and job.versions["ray"]
    assert isinstance(read_footer(open_folder(complete), CODES, 0), Footer)
