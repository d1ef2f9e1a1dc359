"""Labels in tables and tars, beside the photos that they are of; the codes are made in this process, without Ray."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import run
from helpers import encoded, random_pixels, run_shards_here

import flowers_batch as fb
from flowers_batch.classifier.label_sources import check_labels
from flowers_batch.classifier.labels import read_labelled
from flowers_batch.dataset.run_folder import open_run
from flowers_batch.dataset.schema import CODES
from flowers_batch.sources.opening import open_source

NULL = fb.EncodeConfig(network="null", shard_size=4)


@pytest.fixture(autouse=True)
def _without_ray(monkeypatch):
    monkeypatch.setattr("flowers_batch.runs.execution.run_shards", run_shards_here)


def picture(number: int) -> bytes:
    return encoded(random_pixels(12, 12, number))


def table(file: Path, **columns: Any) -> Path:
    """Write a table as Hugging Face does, with a row per value of each column."""
    count = len(next(iter(columns.values())))
    images = [{"bytes": picture(number), "path": f"{number}.png"} for number in range(count)]
    pq.write_table(pa.table({"image": images, **columns}), file, row_group_size=3)
    return file


def with_features(file: Path, metadata: Any) -> Path:
    rows = pq.read_table(file)
    pq.write_table(rows.replace_schema_metadata({"huggingface": json.dumps(metadata)}), file, row_group_size=3)
    return file


def class_label(*names: str) -> dict[str, Any]:
    return {"info": {"features": {"label": {"names": list(names), "_type": "ClassLabel"}}}}


def tar(file: Path, members: Iterable[tuple[str, bytes | str]]) -> Path:
    with tarfile.open(file, "w") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            content = content.encode() if isinstance(content, str) else content
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file


def labels_in(tmp_path: Path, images: Path | str, column: str) -> dict[str, str]:
    """Encode, and return the labels of a column by path."""
    fb.encode(images, tmp_path / "codes", NULL)
    found = read_labelled(open_run(tmp_path / "codes", CODES, {"images": images}), [f"column:{column}"])
    return dict(zip(found.paths, found.labels.tolist(), strict=True))


def refusal(codes: Path, *labels: str) -> str:
    with pytest.raises(fb.InputError) as refused:
        read_labelled(open_run(codes, CODES), labels)
    return str(refused.value)


def test_integers_of_a_class_label_become_its_names(tmp_path):
    images = table(tmp_path / "train.parquet", label=[0, 1, 0, 1, -1, 2, None, 1])
    with_features(images, class_label("daisy", "rose"))
    fb.encode(images, tmp_path / "codes", NULL)
    found = read_labelled(open_run(tmp_path / "codes", CODES), ["column:label"])
    assert found.labels.tolist() == ["daisy", "rose", "daisy", "rose", "rose"]
    assert (found.counts.unlabelled, found.counts.unreadable_labels) == (3, 1), "2 is not the number of a class"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["daisy", " rose ", "", None], ["daisy", "rose"]),
        ([0, 1, 2, 0], ["0", "1", "2", "0"]),
        ([1.0, 2.0, float("nan"), None], ["1", "2"]),
        ([1.5, 2.0, 1.0, None], ["1.5", "2", "1"]),
        (pa.array(["daisy", "rose", None, "rose"]).dictionary_encode(), ["daisy", "rose", "rose"]),
        (["Ga\u0308nse", "G\u00e4nse", "x", "x" * 256], ["G\u00e4nse", "G\u00e4nse", "x"]),
    ],
)
def test_values_of_a_column_are_labels_as_those_of_files(tmp_path, values, expected):
    assert list(labels_in(tmp_path, table(tmp_path / "a.parquet", kind=values), "kind").values()) == expected


@pytest.mark.parametrize(
    "metadata", [None, [], {"info": 3}, {"info": {"features": {"label": {"_type": "ClassLabel", "names": [1, {}]}}}}]
)
def test_metadata_that_is_not_hugging_faces_is_ignored(tmp_path, metadata):
    images = with_features(table(tmp_path / "a.parquet", label=[5, 6, 5]), metadata)
    assert list(labels_in(tmp_path, images, "label").values()) == ["5", "6", "5"]


def test_fields_of_structs_are_columns(tmp_path):
    images = table(tmp_path / "a.parquet", meta=[{"species": "daisy"}, {"species": "rose"}, None])
    assert list(labels_in(tmp_path, images, "meta.species").values()) == ["daisy", "rose"]


def test_rows_are_found_by_place_not_by_path(tmp_path):
    """Two files with equal paths, which become unique names; a third comes later, and shards are out of order."""
    for name, label in ("b", "rose"), ("a", "daisy"):
        table(tmp_path / f"{name}.parquet", label=[f"{label}{number}" for number in range(7)])
    found = labels_in(tmp_path, tmp_path / "*.parquet", "label")
    assert found["3.png"] == "daisy3" and found["3.png#2"] == "rose3" and len(found) == 14
    table(tmp_path / "Z.parquet", label=["tulip"] * 2)
    found = labels_in(tmp_path, tmp_path / "*.parquet", "label")
    assert found["3.png#2"] == "rose3" and len(found) == 16 and list(found.values()).count("tulip") == 2


def test_missing_column_is_refused_with_those_that_exist(tmp_path):
    images = table(tmp_path / "a.parquet", label=["a", "b"], tags=[["x"], ["y"]], meta=[{"n": 1}, {"n": 2}])
    fb.encode(images, tmp_path / "codes", NULL)
    for name in ("kind", "tags", "image", "meta"):
        told = refusal(tmp_path / "codes", f"column:{name}")
        assert f"no labels column:{name} in {images}: choose `labels` column:label, column:meta.n." in told
        with pytest.raises(fb.InputError, match=f"no labels column:{name}"):
            check_labels([f"column:{name}"], open_source(images))
    check_labels(["column:label", "column:meta.n"], open_source(images))
    for column in ("column:", os.fsdecode(b"column:caf\xe9")):
        assert "must have a name in UTF-8" in refusal(tmp_path / "codes", column)


def test_members_beside_a_photo_are_its_labels(tmp_path):
    members = [
        ("a/000.jpg", picture(0)),
        ("a/000.cls", "3\n"),
        ("a/000.json", '{"label": "daisy", "meta": {"n": 1.0}, "meta.x": true, "tags": ["x"]}'),
        ("a/001.txt", "\ufeff rose "),
        ("a/001.CLS", "4"),
        ("a/001.left.png", picture(1)),
        ("a/001.right.png", picture(2)),
        ("a/002.jpg", picture(3)),
        ("b/000.jpg", picture(4)),
    ]
    images = tar(tmp_path / "wds.tar", members)
    both = {"wds.tar!a/001.left.png": "4", "wds.tar!a/001.right.png": "4"}
    assert labels_in(tmp_path, images, "cls") == {"wds.tar!a/000.jpg": "3"} | both
    assert labels_in(tmp_path, images, "txt") == dict.fromkeys(both, "rose")
    assert labels_in(tmp_path, images, "json.label") == {"wds.tar!a/000.jpg": "daisy"}
    assert labels_in(tmp_path, images, "json.meta.n") == {"wds.tar!a/000.jpg": "1"}
    assert labels_in(tmp_path, images, "json.meta.x") == {"wds.tar!a/000.jpg": "true"}


def test_members_of_one_name_are_samples_of_their_own(tmp_path):
    first, second = [("0.png", picture(0)), ("0.cls", "a")], [("0.png", picture(1)), ("0.cls", "b")]
    assert labels_in(tmp_path, tar(tmp_path / "a.tar", first + second), "cls") == {
        "a.tar!0.png": "a",
        "a.tar!0.png#2": "b",
    }


def test_labels_may_be_far_from_their_photos(tmp_path):
    photos = [(f"{number}.png", picture(number)) for number in range(9)]
    images = tar(tmp_path / "a.tar", [*photos, *((f"./{number}.cls", str(number % 2)) for number in range(9))])
    assert labels_in(tmp_path, images, "cls") == {f"a.tar!{number}.png": str(number % 2) for number in range(9)}


def test_linked_photo_has_its_own_label_or_that_of_its_target(tmp_path):
    images = tar(tmp_path / "a.tar", [("0.png", picture(0)), ("0.cls", "a"), ("1.cls", "b")])
    with tarfile.open(images, "a") as archive:
        for name in ("1.png", "linked"):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, "0.png" if name == "1.png" else "."
            archive.addfile(link)
    found = labels_in(tmp_path, images, "cls")
    assert found["a.tar!0.png"] == "a" and found["a.tar!1.png"] == "b"


def test_label_members_that_cannot_be_read_are_counted(tmp_path):
    values = ["daisy", b"\xff\xfe\x00", "x" * 256, "y" * 1_000_001, "rose", " "]
    members = [(f"{number}.png", picture(number)) for number in range(len(values))]
    images = tar(tmp_path / "a.tar", [*members, *((f"{number}.txt", value) for number, value in enumerate(values))])
    fb.encode(images, tmp_path / "codes", NULL)
    found = read_labelled(open_run(tmp_path / "codes", CODES), ["column:txt"])
    assert found.labels.tolist() == ["daisy", "rose"]
    assert (found.counts.unreadable_labels, found.counts.unlabelled) == (3, 4)


@pytest.mark.parametrize(
    "content",
    [
        *("{", "[1]", '"rose"', '{"label": ["rose"]}', '{"label": {}}', b'{"label": "\xff"}', "[" * 100_000, ""),
        r'{"label": "ros\ud83d"}',
    ],
)
def test_broken_json_is_an_unlabelled_photo(tmp_path, content):
    images = tar(tmp_path / "a.tar", [("0.png", picture(0)), ("0.json", content), ("1.png", picture(1))])
    tar(tmp_path / "b.tar", [("0.png", picture(2)), ("0.json", '{"label": "rose"}')])
    fb.encode(images.parent / "*.tar", tmp_path / "codes", NULL)
    found = read_labelled(open_run(tmp_path / "codes", CODES), ["column:json.label"])
    assert found.labels.tolist() == ["rose"] and found.counts.unreadable_labels == 1


def test_missing_member_is_refused_with_those_that_exist(tmp_path):
    members = [("0.png", picture(0)), ("0.cls", "1"), ("0.json", '{"label": 3, "box": [1]}'), ("README.md", "hello")]
    images = tar(tmp_path / "a.tar", members)
    fb.encode(images, tmp_path / "codes", NULL)
    for name in ("txt", "json", "png", "json.kind"):
        told = refusal(tmp_path / "codes", f"column:{name}")
        assert f"no labels column:{name} in {images}: choose `labels` column:cls, column:json.label." in told
    for name in ("txt", "png"):
        with pytest.raises(fb.InputError, match=f"no labels column:{name}"):
            check_labels([f"column:{name}"], open_source(images))
    check_labels(["column:CLS", "column:json.label"], open_source(images))


def test_photos_in_folders_have_no_columns(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "0.png").write_bytes(picture(0))
    fb.encode(tmp_path / "photos", tmp_path / "codes", NULL)
    assert "is for photos in tables and tars" in refusal(tmp_path / "codes", "column:label")


def test_file_that_was_replaced_or_deleted_is_named(tmp_path):
    images = table(tmp_path / "a.parquet", label=["a", "b", "c"])
    fb.encode(images, tmp_path / "codes", NULL)
    os.utime(images, (1, 1))
    assert f"{images} was replaced since its photos were encoded" in refusal(tmp_path / "codes", "column:label")
    images.unlink()
    assert f"no folder or file {images}" in refusal(tmp_path / "codes", "column:label")


def test_table_that_lost_rows_is_named(tmp_path):
    images = table(tmp_path / "a.parquet", label=["a", "b", "c"])
    fb.encode(images, tmp_path / "codes", NULL)
    found = images.stat()
    table(images, label=["a"])
    os.utime(images, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert f"The labels in {images} cannot be read" in refusal(tmp_path / "codes", "column:label")


def test_column_that_is_not_utf8_is_named(tmp_path):
    images = table(tmp_path / "a.parquet", label=pa.array([b"ros\xe9", b"daisy"]).view(pa.string()))
    fb.encode(images, tmp_path / "codes", NULL)
    assert f"The labels in {images} cannot be read ('utf-8' codec can't" in refusal(tmp_path / "codes", "column:label")


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_labels_are_read_from_an_object_store(tmp_path, s3, kind):
    (tmp_path / "here").mkdir()
    if kind == "tar":
        members = [
            (f"{n}.{ending}", content) for n in range(3) for ending, content in (("png", picture(n)), ("cls", "a"))
        ]
        tar(tmp_path / "here" / "a.tar", members)
    else:
        table(tmp_path / "here" / "a.parquet", cls=["a"] * 3)
    s3.upload(tmp_path / "here", f"labels-{kind}")
    url = s3.url(f"labels-{kind}/*.{kind}")
    check_labels(["column:cls"], open_source(url))
    assert list(labels_in(tmp_path, url, "cls").values()) == ["a"] * 3


def test_rows_of_a_file_that_is_missing_need_no_label(tmp_path):
    table(tmp_path / "a.parquet", label=["a", "b"])
    table(tmp_path / "b.parquet", label=["c", "d"])
    fb.encode(tmp_path / "*.parquet", tmp_path / "codes", NULL)
    (tmp_path / "a.parquet").unlink()
    assert list(labels_in(tmp_path, tmp_path / "*.parquet", "label").values()) == ["c", "d"]


def test_later_labels_override_a_column(tmp_path):
    images = table(tmp_path / "a.parquet", label=["a", "b", "c"])
    fb.encode(images, tmp_path / "codes", NULL)
    (tmp_path / "mine.csv").write_text("path,label\n1.png,z\n")
    found = read_labelled(open_run(tmp_path / "codes", CODES), ["column:label", str(tmp_path / "mine.csv")])
    assert found.labels.tolist() == ["a", "z", "c"]


def test_commands_train_on_a_column_and_offer_it(tmp_path, capsys):
    images = table(tmp_path / "a.parquet", label=[number % 2 for number in range(60)], tag=["x", "y"] * 30)
    with_features(images, class_label("daisy", "rose"))
    codes, model = str(tmp_path / "codes"), str(tmp_path / "model")
    run(capsys, "encode", str(images), codes, "--network", "null")
    code, _, err = run(capsys, "train", codes, model)
    assert (
        code == 2
        and "labels come from: --labels column:label, column:tag, xmp (keywords in the photos, with --classes), or a"
        in err
    )
    code, _, err = run(capsys, "train", codes, model, "--labels", "column:lable")
    assert code == 2 and "no labels column:lable" in err and "choose --labels column:label, column:tag." in err
    arguments = ("--labels", "column:label", "--head", "logistic", "--json")
    code, out, _ = run(capsys, "train", codes, model, *arguments)
    assert code == 0 and json.loads(out)["classes"] == ["daisy", "rose"]
    assert json.loads(Path(model, "model.json").read_text())["training"]["labels"] == ["column:label"]
