"""The journal has every acknowledged label on disk, and nothing else."""

from __future__ import annotations

import csv
import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flowers_batch.classifier.labels_file import read_labels
from flowers_batch.errors import InputError, RunError
from flowers_batch.pages.review.journal import Journal


def rows_of(file: Path) -> list[list[str]]:
    with file.open(encoding="utf-8-sig", newline="") as stream:
        return list(csv.reader(stream))


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / "labels.csv"


def test_written_labels_are_in_the_file(file):
    journal = Journal(file)
    journal.write({"a.jpg": "rose", "b,\n.jpg": "=tulip"})
    journal.write({"a.jpg": "daisy"})
    assert read_labels(str(file)).labels == journal.labels == {"a.jpg": "daisy", "b,\n.jpg": "=tulip"}
    assert rows_of(file)[0] == ["path", "label", "chosen", "time"] and len(rows_of(file)) == 4


def test_undo_reverts_changes_one_by_one(file):
    journal = Journal(file)
    journal.write({"a": "rose"})
    journal.write({"a": "daisy", "b": "daisy"})
    before = file.read_bytes()
    journal.write({"c": "tulip"})
    assert journal.undo() == {"c": None} and file.read_bytes() == before
    assert journal.undo() == {"a": "rose", "b": None}
    assert read_labels(str(file)).labels == journal.labels == {"a": "rose"}
    assert journal.undo() == {"a": None} and journal.undo() == {} and journal.labels == {}


def test_journal_continues_a_file_and_locks_it(file):
    journal = Journal(file)
    journal.write({"a": "rose"})
    with pytest.raises(InputError, match="by another review"):
        Journal(file)
    journal.close()
    again = Journal(file)
    assert again.labels == {"a": "rose"} and again.undo() == {}


def test_file_system_without_locks_is_not_another_review(file, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", fail)
    with pytest.raises(InputError, match=r"labels\.csv cannot lock files \(No locks available\): "):
        Journal(file)


@pytest.mark.parametrize(
    "torn", ["b.jpg,ro", '"b', '"b\nc",rose,2026-01-01T00:00:00+00:0', "b.jpg,rose,2026-01-01T00:00:00+00:00\r"]
)
def test_partly_written_row_is_moved_away(file, torn, tmp_path):
    journal = Journal(file)
    journal.write({"a": "rose", '"q"\n': "daisy"})
    journal.close()
    complete = file.read_bytes()
    with file.open("a", newline="") as stream:
        stream.write(torn)
    journal = Journal(file)
    assert file.read_bytes() == complete and journal.labels == {"a": "rose", '"q"\n': "daisy"}
    assert journal.torn == tmp_path / "labels.csv.torn"
    assert journal.torn.read_text() == torn.replace("\r", "\n"), "nothing is lost"


def test_journal_opens_wherever_an_addition_was_cut(file, tmp_path, monkeypatch):
    """As by kill -9: rows that are complete stay, the rest is kept in another file."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    name = "b\n" * 7 + '"q"\n\n""\n\n\n",\na,\n,b\n,\r\n\r\n\u00e9"'
    label = 'tulip\nof "many"\n\nlines,\n.'
    journal = Journal(file)
    journal.write({"a": "rose", name: "daisy"})
    before = file.stat().st_size
    journal.write({f"1{name}": "rose", f"2{name}": label, name: "tulip"})
    journal.close()
    content, torn, possible = file.read_bytes(), tmp_path / "labels.csv.torn", journal.labels.items()
    for size in range(before, len(content)):
        file.write_bytes(content[:size])
        torn.unlink(missing_ok=True)
        journal = Journal(file)
        journal.close()
        kept = file.read_bytes()
        if kept != content[:size] + b"\r\n":  # only its line end and at most the minutes of the time zone are missing
            assert kept + (torn.read_bytes() if torn.exists() else b"") == content[:size], size
        assert len(kept) >= before and kept.endswith(b"\r\n")
        assert journal.labels.items() - {(name, "daisy")} <= possible and journal.labels["a"] == "rose"


@pytest.mark.parametrize("link", [os.symlink, os.link])
@pytest.mark.parametrize("content", [None, b"", b"path,label\na,rose\n"])
def test_no_link_is_followed_to_another_file(file, tmp_path, link, content):
    """A folder of another person may have one, to a file that would then be made or added to."""
    other = tmp_path / "other"
    if content is None and link is os.link:
        return
    if content is not None:
        other.write_bytes(content)
    link(other, file)
    with pytest.raises(InputError, match=r"labels\.csv cannot be written, since it .* name another file for `labels`"):
        Journal(file)
    assert (other.read_bytes() if other.exists() else None) == content
    file.unlink()
    other.write_bytes(b"mine")
    journal = Journal(file)
    journal.close()
    with file.open("ab") as stream:
        stream.write(b'"torn')
    before = file.read_bytes()
    link(other, tmp_path / "labels.csv.torn")
    with pytest.raises(InputError, match=r"labels\.csv\.torn cannot be written, since it "):
        Journal(file)
    assert other.read_bytes() == b"mine" and file.read_bytes() == before


def test_zeros_after_a_power_loss_are_moved_away(file, tmp_path):
    journal = Journal(file)
    journal.write({"a": "rose"})
    journal.close()
    complete = file.read_bytes()
    for torn in (b"\0" * 9, b'"b\nc\n\0\0', b"b,daisy,2026-01\0"):
        file.write_bytes(complete + torn)
        Journal(file).close()
        assert file.read_bytes() == complete
        assert (tmp_path / "labels.csv.torn").read_bytes().endswith(torn)
    assert len((tmp_path / "labels.csv.torn").read_bytes()) == 32, "the earlier ones are kept, too"


def test_last_row_without_a_line_end_is_kept(file):
    file.write_text("path,label,time\na,rose,2026-01-01T00:00:00+00:00\nb,daisy,2026-01-01T00:00:01+00:00")
    journal = Journal(file)
    journal.write({"c": "tulip"})
    assert journal.labels == read_labels(str(file)).labels == {"a": "rose", "b": "daisy", "c": "tulip"}


def test_stray_quotation_mark_loses_no_label(file):
    file.write_text('path,label,time\na,5" rose,\nb,daisy,\n')
    assert Journal(file).labels == {"a": '5" rose', "b": "daisy"}


@pytest.mark.parametrize("rows", [1, 2, 9])
@pytest.mark.parametrize("row", ["{},daisy,\n", "{},daisy,2026-01-01T00:00:00+00:00\r\n", "{},daisy,"])
def test_unclosed_quotation_mark_is_refused(file, rows, row):
    content = 'path,label,time\n"a,rose,\n' + "".join(row.format(number) for number in range(rows))
    if row.endswith("\n") or rows == 1:
        file.write_text(content, newline="")
        with pytest.raises(InputError, match="unclosed quotation mark after byte 16: correct that row"):
            Journal(file)
        assert file.read_bytes() == content.encode() and os.listdir(file.parent) == [file.name]


def test_own_file_keeps_its_last_row_and_columns(file):
    file.write_text("note,label,path\nmine,rose,a.jpg")
    journal = Journal(file)
    journal.write({"b.jpg": "daisy"})
    header, *rows = rows_of(file)
    assert header == ["note", "label", "path", "chosen"]
    assert rows == [["mine", "rose", "a.jpg", ""], ["", "daisy", "b.jpg", ""]]


@pytest.mark.parametrize(
    ("content", "added"),
    [
        ("path;label\na,1.jpg;rose\n", "b;1.jpg;daisy"),
        ("Label\tPath\tTime\nrose\ta,1.jpg\t\n", "daisy\tb;1.jpg\t"),
        ("sep=;\nid;path;label\n1;a,1.jpg;rose", ";b;1.jpg;daisy"),
        ('path, label\n"a,1.jpg", rose\n', "b;1.jpg,daisy"),
    ],
)
def test_labels_are_added_as_the_file_is_written(file, content, added):
    file.write_text(content)
    journal = Journal(file)
    assert journal.labels == {"a,1.jpg": "rose"}
    journal.write({"b;1.jpg": "daisy"})
    assert file.read_text().splitlines()[-1].replace('"', "").startswith(added)
    journal.close()
    assert Journal(file).labels == {"a,1.jpg": "rose", "b;1.jpg": "daisy"}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"path,label,chosen,chosen\na,b,group,view", r"has several columns `chosen`: rename all but one\.$"),
        (b"name,kind\na,b\n", r"has no column `path` and no column `label` \(its columns are `name`, `kind`\): "),
        (b"no table at all", r"has no column `path` and no column `label` \(its columns are `no table at all`\): "),
        (b"\x00\x01", r"is not a labels file \(it has NUL characters\): "),
        (b"path,label\nr\xf6se,a\nb,c", r"which is not UTF-8: save it as UTF-8\.$"),
        ("\ufeffpath,label\na,b\n".encode("utf-16-le"), r"which is not UTF-8: save it as UTF-8\.$"),
        (b"path,label\n" + b"x" * 200_000, r"is not a labels file \(field larger than"),
    ],
)
def test_other_files_are_refused_and_left_as_they_are(file, content, sentence):
    file.write_bytes(content)
    with pytest.raises(InputError, match=sentence):
        Journal(file)
    assert file.read_bytes() == content
    with pytest.raises(InputError, match="cannot be written"):
        Journal(file / "below")
    for name in ("labels.parquet", "s3://bucket/labels.csv"):
        with pytest.raises(InputError, match="choose a CSV file on this machine"):
            Journal(name)


def test_nothing_is_added_after_a_change_by_another_program(file):
    journal = Journal(file)
    journal.write({"a": "rose"})
    with file.open("a") as stream:
        stream.write("x,y,z\n")
    before = file.read_bytes()
    for change in (lambda: journal.write({"b": "rose"}), journal.undo):
        with pytest.raises(RunError, match="changed by another program"):
            change()
    file.rename(file.with_suffix(".old"))
    with pytest.raises(RunError, match="changed by another program"):
        journal.write({"b": "rose"})
    assert file.with_suffix(".old").read_bytes() == before and not file.exists()


def test_full_disk_leaves_no_partial_row(file, monkeypatch):
    journal = Journal(file)
    journal.write({"a": "rose"})
    before, write = file.read_bytes(), os.write
    calls = []

    def full(handle, data):
        calls.append(data)
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(handle, data[:5])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(RunError, match="No space left"):
        journal.write({"b": "daisy"})
    monkeypatch.undo()
    assert file.read_bytes() == before and journal.labels == {"a": "rose"}
    journal.write({"b": "daisy"})
    assert read_labels(str(file)).labels == {"a": "rose", "b": "daisy"}


def test_each_change_is_synced_before_it_is_acknowledged(file):
    """The system calls are a write of the file, then its fsync, before the call returns."""
    script = (
        "import os, sys; from flowers_batch.pages.review.journal import Journal; from pathlib import Path\n"
        "calls = []; write, fsync = os.write, os.fsync\n"
        "os.write = lambda *a: (calls.append('write'), write(*a))[1]\n"
        "os.fsync = lambda *a: (calls.append('fsync'), fsync(*a))[1]\n"
        "journal = Journal(Path(sys.argv[1])); calls.clear()\n"
        "journal.write({'a': 'rose'}); calls.append('returned')\n"
        "print(calls)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(file)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['write', 'fsync', 'returned']"


def test_undo_steps_are_bounded(file, monkeypatch):
    monkeypatch.setattr("flowers_batch.pages.review.journal._MAX_UNDO_STEPS", 2)
    journal = Journal(file)
    for label in ("rose", "daisy", "tulip"):
        journal.write({"a": label})
    assert journal.undo() == {"a": "daisy"} and journal.undo() == {"a": "rose"} and journal.undo() == {}
    assert read_labels(str(file)).labels == journal.labels == {"a": "rose"}


def test_how_photos_were_chosen_is_recorded_and_undone(file):
    journal = Journal(file)
    journal.write({"a": "rose", "b": "rose"}, {"a": "group", "b": "random"})
    journal.write({"a": "tulip", "c": "daisy"}, {"a": "random", "c": "view"})
    assert [row[:3] for row in rows_of(file)[1:]] == [
        ["a", "rose", "group"],
        ["b", "rose", "random"],
        ["a", "tulip", "random"],
        ["c", "daisy", "view"],
    ]
    assert journal.chosen == {"a": "random", "b": "random", "c": "view"}
    journal.undo()
    assert {path: journal.chosen[path] for path in journal.labels} == {"a": "group", "b": "random"}
    journal.close()
    assert Journal(file).chosen == {"a": "group", "b": "random"}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            '\ufeffpath,label,time\r\n"a,\n.jpg",rose,2026-01-01T00:00:00+00:00\r\n',
            '\ufeffpath,label,chosen,time\r\n"a,\n.jpg",rose,,2026-01-01T00:00:00+00:00\r\n',
        ),
        ("path,label\na,rose\nb,tulip", "path,label,chosen\na,rose,\nb,tulip,\r\n"),
        (
            'sep=;\npath ;"label";note\n\na;"ro;se"\nb;rose;x\n',
            'sep=;\npath ;"label";note;chosen\n\na;"ro;se";;\nb;rose;x;\n',
        ),
        ("Chosen,path,label\n,a,rose\n", "Chosen,path,label\n,a,rose\n"),
    ],
)
def test_older_files_get_the_column_and_keep_their_bytes(file, before, after):
    file.write_text(before, newline="")
    file.chmod(0o600)
    labels = read_labels(str(file)).labels
    journal = Journal(file)
    assert file.read_bytes().decode() == after and file.stat().st_mode & 0o777 == 0o600
    assert os.listdir(file.parent) == [file.name] and journal.labels == labels
    with pytest.raises(InputError, match="by another review"):
        Journal(file)
    journal.write({"new": "daisy"}, {"new": "suggested"})
    journal.undo()
    assert file.read_bytes().decode() == after
    journal.write({"new": "daisy"}, {"new": "suggested"})
    journal.close()
    again = Journal(file)
    assert again.labels == labels | {"new": "daisy"} and again.chosen["new"] == "suggested"


def test_cut_word_in_a_persons_file_is_moved_away(file):
    file.write_text("path,label\na,rose\n")
    journal = Journal(file)
    journal.write({"b": "daisy"}, {"b": "group"})
    journal.close()
    complete = file.read_bytes()
    for torn in (b"c", b"c,tul", b"c,tulip,gro"):
        file.write_bytes(complete + torn)
        journal = Journal(file)
        assert file.read_bytes() == complete and journal.chosen == {"b": "group"} and journal.torn
        journal.close()
    file.write_bytes(complete + b"c,tulip,group")
    assert Journal(file).labels == {"a": "rose", "b": "daisy", "c": "tulip"}
