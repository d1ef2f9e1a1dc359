"""A run folder from a stranger: rows of its manifest name files that are not of the images' source."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from archives import as_list, as_tables, as_tars
from doctored import doctor_row
from helpers import draw_archive, run_shards_here

import flowers_batch as fb
from flowers_batch.classifier.column_labels import ColumnLabels
from flowers_batch.dataset.run_folder import open_run
from flowers_batch.dataset.schema import CODES
from flowers_batch.sources.images import Image
from flowers_batch.sources.opening import open_source
from flowers_batch.sources.reading import ReadError

pytestmark = pytest.mark.usefixtures("in_threads")

CONFIG = fb.EncodeConfig(network="null")
SECRET = "../secret/red/0000.png"


@pytest.fixture(autouse=True, scope="module")
def without_ray() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flowers_batch.runs.execution.run_shards", run_shards_here)
        yield


@pytest.fixture
def photos(tmp_path) -> Path:
    """A folder of photos, beside a folder that a stranger wants to be read."""
    draw_archive(tmp_path / "secret", 1, seed=1)
    return draw_archive(tmp_path / "photos", 2)


def doctored(images: Path, out: Path, **values) -> Path:
    """A folder of an unfinished run, a row of whose manifest was changed by a stranger."""
    fb.encode(images, out, CONFIG)
    doctor_row(out, **values)
    return out


def rows_of(out: Path) -> dict[str, dict]:
    columns = ["path", "sha256", "reason", "message"]
    return {row["path"]: row for batch in open_run(out, CODES).batches(columns) for row in batch.to_pylist()}


@pytest.mark.parametrize(
    "path", [SECRET, "red/../../secret/red/0000.png", "{}", "//bytes/..%2Fsecret%2Fred%2F0000.png", "//bytes/{}"]
)
def test_row_that_leads_out_of_the_folder_ends_the_run(photos, tmp_path, path):
    path = path.format(tmp_path / "secret" / "red" / "0000.png")
    out = doctored(photos, tmp_path / "out", path=path)
    with pytest.raises(fb.InputError, match=r"names no image of .*/photos, so it was altered") as refused:
        fb.encode(photos, out, CONFIG)
    assert path.rpartition("/")[2] in str(refused.value) and not list(out.glob("codes/*.parquet"))
    problems = fb.verify(out).problems
    assert f"{path} names no image of {photos}." in problems


def test_list_is_trusted_and_not_the_manifest_of_it(photos, tmp_path):
    """Entries may be anywhere, so rows that are no entries are not read, such as those that were removed from it."""
    listed = as_list(photos, tmp_path)
    secret = str(tmp_path / "secret" / "red" / "0000.png")
    out = doctored(listed, tmp_path / "out", path=secret)
    assert f"{secret} names no image of {listed}." in fb.verify(out).problems
    summary = fb.encode(listed, out, CONFIG)
    row = rows_of(out)[secret]
    assert row["sha256"] is None and row["reason"] == "missing" and summary.missing == 1
    assert summary.ok == 6, "all entries have rows, also the one that was replaced"
    assert fb.verify(out).is_complete


@pytest.mark.parametrize("archive", [as_tars, as_tables])
def test_row_in_a_file_that_is_not_of_the_pattern_ends_the_run(photos, tmp_path, archive):
    (tmp_path / "own").mkdir()
    (tmp_path / "secret" / "own").mkdir()
    images, other = archive(photos, tmp_path / "own"), archive(tmp_path / "secret", tmp_path / "secret" / "own")
    (file,) = list(other.parent.glob("red.*"))
    out = doctored(images, tmp_path / "out", source=f"../secret/own/{file.name}", mtime=_mtime(file))
    with pytest.raises(fb.InputError, match=r"names no image of .*/own/"):
        fb.encode(images, out, CONFIG)
    assert any("names no image of" in problem for problem in fb.verify(out).problems)


def test_labels_are_read_only_from_files_of_the_pattern(photos, tmp_path):
    for folder in (tmp_path / "own", tmp_path / "secret"):
        folder.mkdir(exist_ok=True)
        as_tars(photos, folder)
    fb.encode(tmp_path / "own" / "*.tar", tmp_path / "out", CONFIG)
    labels = ColumnLabels(open_run(tmp_path / "out", CODES), "cls")
    for name in ("../secret/red.tar", str(tmp_path / "secret" / "red.tar")):
        with pytest.raises(fb.InputError, match=r"names no image of .*/own/"):
            labels._open(name, _mtime(tmp_path / "secret" / "red.tar"))


def _mtime(file: Path):
    from datetime import UTC, datetime

    from pyarrow import fs

    return fs.LocalFileSystem().get_file_info(str(file)).mtime or datetime.fromtimestamp(0, UTC)


@pytest.mark.parametrize(
    "change", [{"offset": 1}, {"offset": -512}, {"offset": 2**62}, {"bytes": 3}, {"bytes": -5}, {"bytes": 2**20}]
)
def test_only_members_of_a_tar_are_read(photos, tmp_path, change):
    source = open_source(as_tars(photos, tmp_path))
    rows = [row for batch in source.batches() for row in batch.to_pylist()]
    assert source.read(Image(**rows[0]))[:4] == b"\x89PNG"
    with pytest.raises(ReadError, match=r"The tar (has no photo of its size|ends before)|is negative"):
        source.read(Image(**rows[0] | change))
    with pytest.raises(ReadError, match="has no photo"):
        source.read(Image(**rows[0] | {"offset": rows[0]["offset"] + 512, "bytes": 100}))


@pytest.mark.parametrize("row", [-1, -7, 2, 2**62])
def test_only_rows_of_a_table_are_read(photos, tmp_path, row):
    source = open_source(as_tables(photos, tmp_path))
    image = next(source.batches()).to_pylist()[0]
    with pytest.raises(ReadError, match="The table ends before"):
        source.read(Image(**image | {"offset": row}))
