"""Labels are read from folders and files."""

from __future__ import annotations

import csv

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from codes_folder import labels, write_codes

from flowers_batch.classifier.labels import read_labelled
from flowers_batch.classifier.labels_file import LabelsFile, read_labels, write_labels
from flowers_batch.dataset.run_folder import open_run
from flowers_batch.dataset.schema import CODES
from flowers_batch.errors import InputError


def test_labels_from_a_file_override_folders(tmp_path):
    codes = write_codes(tmp_path / "codes", labels(daisy=10, rose=10))
    paths = [f"daisy/{number:03d}.jpg" for number in range(10)] + [f"rose/{number:03d}.jpg" for number in range(10, 20)]
    table = {"path": [*paths, "elsewhere.jpg"], "label": ["x"] * 10 + ["y"] * 10 + ["x"]}
    pq.write_table(pa.table(table), tmp_path / "labels.parquet")
    with (tmp_path / "labels.csv").open("w", encoding="utf-8-sig") as file:
        file.write("path,label\n" + "".join(f"{path},{label}\n" for path, label in zip(*table.values(), strict=True)))
        file.write("daisy/000.jpg,\n")
    for name in ("labels.csv", "labels.parquet"):
        given = read_labelled(open_run(str(codes), CODES), [str(tmp_path / name)])
        assert sorted(set(given.labels)) == ["x", "y"]
        assert (len(given.paths), given.counts.unknown_paths, given.counts.unlabelled) == (20, 1, 0)
        assert given.counts.unknown_examples == ["elsewhere.jpg"]
        assert given.counts.empty_labels == (1 if name == "labels.csv" else 0)


def test_last_label_of_a_photo_counts(tmp_path):
    codes = write_codes(tmp_path / "codes", labels(daisy=2, rose=2))
    (tmp_path / "one.csv").write_text("path,label\ndaisy/000.jpg,one\nrose/002.jpg,one\ngone/1.jpg,one\n")
    (tmp_path / "two.csv").write_text("path,label\ndaisy/000.jpg,two\ndaisy/001.jpg,\ngone/1.jpg,two\n")
    one, two = str(tmp_path / "one.csv"), str(tmp_path / "two.csv")
    for files, expected in (
        ([one, two], ["two", "one"]),
        ([two, one], ["one", "one"]),
        (["folder", one], ["one", "daisy", "one", "rose"]),
        (["folder", one, two], ["two", "daisy", "one", "rose"]),
        ([two, "folder"], ["daisy", "daisy", "rose", "rose"]),
    ):
        given = read_labelled(open_run(str(codes), CODES), files)
        assert given.labels.tolist() == expected, files
        assert given.counts.unknown_paths == 1


def test_label_that_is_too_long_is_refused_with_its_photo(tmp_path):
    run = open_run(write_codes(tmp_path / "codes", labels(daisy=3)), CODES)
    file = tmp_path / "labels.csv"
    file.write_text(f"path,label\ndaisy/001.jpg,{'x' * 255}\n")
    assert read_labelled(run, [str(file)]).labels.tolist() == ["x" * 255]
    file.write_text(f"path,label\ndaisy/001.jpg,{'x' * 256}\n")
    with pytest.raises(InputError, match=r"^The label of daisy/001.jpg has 256 characters, and 255 are allowed: "):
        read_labelled(run, [str(file)])


def test_zero_is_a_label_and_names_may_contain_line_ends(tmp_path):
    pq.write_table(pa.table({"path": ["a", "b", "c"], "label": [0.0, 1.0, float("nan")]}), tmp_path / "numbers.parquet")
    assert read_labels(str(tmp_path / "numbers.parquet")) == LabelsFile({"a": "0", "b": "1"}, 1)
    with (tmp_path / "names.csv").open("w", newline="") as file:
        file.write('path,label\r\nrose\u2028x.jpg,rose\r\n"two\nlines.jpg",tulip\r\n')
    expected = {"rose\u2028x.jpg": "rose", "two\nlines.jpg": "tulip"}
    assert read_labels(str(tmp_path / "names.csv")) == LabelsFile(expected, 0)


@pytest.mark.parametrize(
    "name",
    [
        *("=1+1.jpg", "'=1.jpg", "''x.jpg", "'", "it's.jpg", "-x", "@y\n", 'a,"b".jpg', "\tx", "\rx"),
        *(
            "\uff1d1+1.jpg",
            "'\uff1d1.jpg",
            "\uff0bx",
            "\uff0dx",
            "\uff20x",
            "\ufe66x",
            "\ufe62x",
            "\ufe63x",
            "\ufe6bx",
            "\u2212x",
        ),
    ],
)
def test_names_are_read_back_and_never_written_as_formulas(tmp_path, name):
    file = tmp_path / "labels.csv"
    write_labels(file, ("path", "label", "probability"), [{"path": name, "label": name, "probability": 0.5}])
    assert read_labels(str(file)) == LabelsFile({name: name.strip()}, 0)
    with file.open(encoding="utf-8-sig", newline="") as stream:
        assert (
            list(csv.reader(stream))[1][0][0] not in "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b\u2212"
        )
