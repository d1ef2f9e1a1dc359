"""Labels files, as people and their programs write them."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flowers_batch.classifier.labels_file import LabelsFile, class_name, read_labels
from flowers_batch.errors import InputError


class Messages(list):
    """A reporter that keeps what it is told."""

    message = list.append

    def update(self, progress):
        pass


@pytest.mark.parametrize(
    "written",
    ["Gänse blume", " Ga\u0308nse blume\t", "\ufeffGänse blume\u00a0", "\u200b\u00a0\u200bGänse blume\u2060\n"],
)
def test_class_name_is_composed_and_has_no_invisible_ends(written):
    assert class_name(written) == "Gänse blume"


def test_class_names_of_a_file_are_normalised(tmp_path):
    (tmp_path / "labels.csv").write_text("path,label\na,Ga\u0308nseblume\u00a0\nb,Gänseblume\nc,\u00a0\n", "utf-8")
    assert read_labels(str(tmp_path / "labels.csv")) == LabelsFile({"a": "Gänseblume", "b": "Gänseblume"}, 1)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize(
    "content",
    [
        "path,label\r\nd/1, 2.jpg;rosé\r\n".replace("d/1, 2.jpg;rosé", '"d/1, 2.jpg",rosé'),
        "path;label\r\nd/1, 2.jpg;rosé\r\n",
        "Label\tPATH\r\nrosé\td/1, 2.jpg\r\n",
        'sep=;\n"Path";"Label";"note"\n"d/1, 2.jpg";"rosé";""\n;;\n',
        'path, label\n"d/1, 2.jpg", rosé\n',
        "Path ; Label\nd/1, 2.jpg ; rosé\n",
        " Path;Label \r d/1, 2.jpg;rosé\r".replace("\r d", "\rd"),
    ],
)
def test_csv_is_read_however_it_is_written(tmp_path, content, encoding):
    file = tmp_path / "labels.csv"
    file.write_bytes(content.encode(encoding))
    messages = Messages()
    assert read_labels(str(file), messages) == LabelsFile({"d/1, 2.jpg": "rosé"}, 0)
    warned = [f"{file} is not UTF-8, and is read as Windows-1252: save it as UTF-8 if its names look wrong"]
    assert messages == (warned if encoding == "cp1252" else [])


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"path,class\na,1\n", r"^The labels file .* has no column `label` \(its columns are `path`, `class`\): "),
        (b"", r"^The labels file .* has no column `path` and no column `label` \(it is empty\): its header"),
        (b"path,label\n,rose\n", r"^Row 1 of the labels file .* has a label and no path: fill it in, or remove it\.$"),
        (b"path,label\na,b.jpg,rose\n", r"^Row 1 of the labels file .* has 3 cells and the header 2: put cells"),
        (b'path,label\na,"rose\nb,daisy\n', r"^Row 1 of the labels file .* \(unexpected end of data\): check its quot"),
        (b"path,label\na,ros\0e\n", r"^Row 1 of the labels file .* cannot be read \(it has NUL characters\): save"),
        (b"path,label\na,ros\x81\n", r"^The labels file .* cannot be read \(.* byte 0x81 .*\): save it as UTF-8\.$"),
        (b"sep= \npath label\na b\n", r"^The labels file .* has no column `path` .* \(its columns are `sep=`\): "),
        (b'sep="\npath"label\na"b\n', r"^The labels file .* has no column `path` .* \(its columns are `sep=`\): "),
        (b"PK\3\4\0\0workbook", r"^The header of .* cannot be read \(it has NUL characters\): save the file as CSV"),
        (
            b"path,label,chosen\na,rose,by me\n",
            r"^Row 1 of the labels file .* has by me in its column `chosen`",
        ),
        (b"PAR1 no table", r"^The labels file .* cannot be read \(.*\): restore it\.$"),
    ],
)
def test_invalid_labels_file_is_refused_in_a_sentence(tmp_path, content, sentence):
    (tmp_path / "labels.csv").write_bytes(content)
    with pytest.raises(InputError, match=sentence):
        read_labels(str(tmp_path / "labels.csv"))


def test_labels_that_are_no_values_are_refused(tmp_path):
    pq.write_table(pa.table({"path": ["a"], "label": [["rose", "daisy"]]}), tmp_path / "l.parquet")
    with pytest.raises(InputError, match=r" has a column of the type list<.*>: text is expected\.$"):
        read_labels(str(tmp_path / "l.parquet"))


def test_empty_rows_and_labels_are_told_apart(tmp_path):
    (tmp_path / "labels.csv").write_text("path,label,note\n\na,,\n,,x\n,,\nb,rose\nc\n")
    assert read_labels(str(tmp_path / "labels.csv")) == LabelsFile({"b": "rose"}, 2)


@pytest.mark.parametrize(
    "type_", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string()), pa.binary()]
)
def test_parquet_text_may_be_of_any_type_and_any_case(tmp_path, type_):
    table = {"Path": pa.array(["ä", "b"]).cast(type_), " LABEL": pa.array([" rosé ", None]).cast(type_)}
    pq.write_table(pa.table(table), tmp_path / "l.PARQUET")
    assert read_labels(str(tmp_path / "l.PARQUET")) == LabelsFile({"ä": "rosé"}, 1)
    (tmp_path / "l.PARQUET").rename(tmp_path / "labels.csv")
    assert read_labels(str(tmp_path / "labels.csv")).empty == 1, "the content decides, not the name"


def test_numbers_in_csv_are_integers_if_all_are(tmp_path):
    for labels, expected in (
        (["1.0", "0.0", ""], ["1", "0"]),
        (["1.0", "2", "10.0"], ["1", "2", "10"]),
        (["1.0", "1.5", "007"], ["1.0", "1.5", "007"]),
        (["007", "NA", "true", "null", "None", "1.0"], ["007", "NA", "true", "null", "None", "1.0"]),
    ):
        rows = "".join(f"{number},{label}\n" for number, label in enumerate(labels))
        (tmp_path / "labels.csv").write_text(f"path,label\n{rows}")
        assert list(read_labels(str(tmp_path / "labels.csv")).labels.values()) == expected


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_column_says_how_photos_were_chosen(tmp_path, suffix):
    """Of rows of one photo the last one has its label; a photo that was chosen at random once stays so."""
    paths, ways = ["a", "b", "a", "c", "d", "b"], ["random", "Group", "view", "", "search ", "suggested"]
    file = tmp_path / f"labels.{suffix}"
    if suffix == "parquet":
        ways = [way or None for way in ways]
        pq.write_table(pa.table({"path": paths, "label": list("rstuvw"), "Chosen": ways}), file)
    else:
        rows = "".join(f"{','.join(row)}\n" for row in zip(paths, "rstuvw", ways, strict=True))
        file.write_text(f"path,label,Chosen\n{rows}")
    found = read_labels(str(file))
    assert found.labels == {"a": "t", "b": "w", "c": "u", "d": "v"}
    assert found.chosen == {"a": "random", "b": "suggested", "d": "search"}
