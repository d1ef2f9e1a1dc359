"""Whole runs over archives of each kind, as they grow, with labels for each."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import draw_archive

import flowers_batch as fb
from flowers_batch.dataset.run_folder import open_run

NULL = fb.EncodeConfig(network="null", shard_size=7)


def names(photos: Path) -> list[str]:
    return sorted(str(path.relative_to(photos)) for path in photos.rglob("*.png"))


def as_list(photos: Path, out: Path) -> Path:
    """A list, in an order of its own."""
    (out / "list.txt").write_text("".join(f"{photos / name}\n" for name in names(photos)[::-1]))
    return out / "list.txt"


def as_tars(photos: Path, out: Path) -> Path:
    """A tar of each class, its members in an order of their own."""
    for folder in filter(Path.is_dir, photos.iterdir()):
        with tarfile.open(out / f"{folder.name}.tar", "w") as tar:
            for path in sorted(folder.iterdir(), reverse=True):
                tar.add(path, f"{folder.name}/{path.name}")
    return out / "*.tar"


def as_tables(photos: Path, out: Path) -> Path:
    """A table of each class, as Hugging Face writes them, in an order of their own."""
    for folder in filter(Path.is_dir, photos.iterdir()):
        paths = sorted(folder.iterdir(), reverse=True)
        rows = [{"bytes": path.read_bytes(), "path": f"{folder.name}/{path.name}"} for path in paths]
        pq.write_table(pa.table({"image": rows}), out / f"{folder.name}.parquet", row_group_size=3)
    return out / "*.parquet"


PATH_OF = {
    as_list: lambda photos, name: str(photos / name),
    as_tars: lambda photos, name: f"{Path(name).parent}.tar!{name}",
    as_tables: lambda photos, name: name,
}


def rows(folder: Path, kind: str, *columns: str) -> dict[str, dict]:
    return {
        row["path"]: row for batch in open_run(folder, kind).batches(["path", *columns]) for row in batch.to_pylist()
    }


@pytest.mark.parametrize("make", PATH_OF, ids=lambda make: make.__name__)
def test_archives_of_each_kind_give_the_codes_and_labels_of_their_photos(
    make: Callable[[Path, Path], Path], local_ray, tmp_path
):
    photos, codes = draw_archive(tmp_path / "photos", 10), tmp_path / "codes"
    (tmp_path / "kind").mkdir()
    archive = make(photos, tmp_path / "kind")
    summary = fb.encode(archive, codes, NULL)
    assert (summary.ok, summary.failed, summary.shards) == (30, 0, 5)
    assert fb.verify(codes, deep=True).is_complete
    fb.encode(photos, tmp_path / "reference", NULL)
    reference, found = rows(tmp_path / "reference", "codes", "code", "folder"), rows(codes, "codes", "code", "folder")
    assert len(found) == 30
    for name, row in reference.items():
        same = found[PATH_OF[make](photos, name)]
        assert (same["code"], same["folder"]) == (row["code"], row["folder"])

    labels = tmp_path / "labels.csv"
    paths = {name: PATH_OF[make](photos, name) for name in names(photos)}
    labels.write_text("path,label\n" + "".join(f"{path},{name[:3]}\n" for name, path in paths.items()))
    fb.train(codes, tmp_path / "model", fb.TrainConfig(labels=(str(labels),)))
    fb.predict(archive, tmp_path / "labels", tmp_path / "model", fb.PredictConfig(shard_size=7))
    labelled = rows(tmp_path / "labels", "predictions", "prediction")
    assert sum(labelled[path]["prediction"] == name[:3] for name, path in paths.items()) >= 27
    page = Path(fb.report(tmp_path / "labels")).read_text()
    assert page.count("data:image/webp") >= 10


@pytest.mark.parametrize("make", PATH_OF, ids=lambda make: make.__name__)
def test_archives_of_each_kind_may_grow(make: Callable[[Path, Path], Path], local_ray, tmp_path):
    photos, codes = draw_archive(tmp_path / "photos", 5), tmp_path / "codes"
    (tmp_path / "kind").mkdir()
    fb.encode(make(photos, tmp_path / "kind"), codes, NULL)
    assert fb.encode(make(photos, tmp_path / "kind"), codes, NULL).changes["new"] == 0
    shutil.copytree(photos / "red", photos / "another red")
    (photos / "green" / "0002.png").unlink()
    shutil.copy(photos / "blue" / "0001.png", photos / "blue" / "0003.png")
    summary = fb.encode(make(photos, tmp_path / "kind"), codes, NULL)
    assert (summary.images, summary.missing, summary.changes["new"]) == (20, 1, 5)
    assert summary.duplicates == 6
    assert fb.verify(codes, deep=True).is_complete
    fb.encode(photos, tmp_path / "reference", NULL)
    found = rows(codes, "codes", "code")
    for name, row in rows(tmp_path / "reference", "codes", "code").items():
        assert found[PATH_OF[make](photos, name)]["code"] == row["code"]
    assert fb.encode(make(photos, tmp_path / "kind"), codes, fb.EncodeConfig(network="null", prune=True)).images == 19
    assert fb.verify(codes).is_complete


STORE = """
import json, sys
import ray
import flowers_batch as fb

photos, tars, new, run = sys.argv[1:]
config = fb.EncodeConfig(network="null", shard_size=4)
ray.init(address="local", num_cpus=2, num_gpus=0, include_dashboard=False, log_to_driver=False, logging_level="ERROR")

def place(name):
    return run.replace("?", f"/{name}?")

def told(summary):
    print(json.dumps([summary.ok, summary.resumed, summary.duplicates, summary.shards]))

told(fb.encode(photos, place("codes"), config))
from flowers_batch.storage.folder import split_file
folder, name = split_file(new)
with folder.publish(name) as scratch, folder.open("0000.png") as old, open(scratch, "wb") as file:
    file.write(old.read())
told(fb.encode(photos, place("codes"), config))
told(fb.encode(photos, place("codes"), config))
fb.train(place("codes"), place("model"))
told(fb.predict(tars, place("labels"), place("model")))
print(json.dumps([fb.verify(place(kind), deep=True).problems for kind in ("codes", "labels")]))
"""


def test_a_run_from_an_object_store_into_one(s3, tmp_path):
    photos = draw_archive(tmp_path / "photos", 6)
    as_tars(photos, tmp_path)
    s3.upload(photos, "photos")
    for path in tmp_path.glob("*.tar"):
        s3.put(f"tars/{path.name}", path.read_bytes())
    places = [s3.url(name) for name in ("photos", "tars/*.tar", "photos/red/new.png", "run")]
    # A process of its own, whose actors reach the store by the environment's keys.
    ended = subprocess.run([sys.executable, "-c", STORE, *places], stdout=subprocess.PIPE, check=True, timeout=150)
    told = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith(b"[")]
    assert told == [[18, 0, 0, 5], [19, 18, 1, 6], [19, 19, 1, 6], [18, 0, 0, 1], [[], []]]
