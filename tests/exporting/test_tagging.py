"""Labels in sidecars: which photos get one, under which name, and what stays as it is."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
from commands import run
from dataset_rows import finished, image_row, labelled, predictions_batch
from sidecar_samples import DIGIKAM, LIGHTROOM

import flowers_batch as fb
from flowers_batch.dataset.schema import PREDICTIONS
from flowers_batch.metadata.xmp import read_keywords

NOTHING = dict.fromkeys(("prediction", "probability", "top_labels", "top_probabilities", "is_unknown"))


def failed(path: str) -> dict:
    return image_row(path, "truncated") | NOTHING


def unknown(path: str, label: str = "roses", probability: float = 0.5) -> dict:
    return labelled(path, label, probability) | {"is_unknown": True}


@pytest.fixture
def archive(tmp_path):
    return Archive(tmp_path)


class Archive:
    """Photos that are not opened, and predictions of them."""

    def __init__(self, where: Path):
        self.photos, self.where = where / "photos", where
        self.photos.mkdir()

    def predictions(self, *rows: dict) -> Path:
        for row in rows:
            path = self.photos / row["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"a photo")
        number = sum(1 for _ in self.where.glob("run*"))
        return finished(self.where / f"run{number}", PREDICTIONS, [predictions_batch(list(rows))])

    def tag(self, predictions: Path, **config) -> fb.Tagging:
        return fb.tag(predictions, fb.TagConfig(**config), images=self.photos)

    def sidecars(self) -> dict[str, tuple[str, ...]]:
        """Return what is ours in each sidecar."""
        files = sorted(self.photos.rglob("*.[xX][mM][pP]"))
        return {str(path.relative_to(self.photos)): read_keywords(path.read_bytes()).ours for path in files}


def test_labels_that_are_certain_become_keywords(archive):
    predictions = archive.predictions(
        labelled("a/1.jpg"), labelled("b.c.png", "animal/owl"), unknown("a/2.jpg"), failed("a/3.jpg")
    )
    before = {path: path.stat() for path in archive.photos.rglob("*.*")}
    result = archive.tag(predictions)
    assert archive.sidecars() == {"a/1.jpg.xmp": ("roses",), "b.c.png.xmp": ("animal", "owl", "animal/owl")}
    assert (result.photos, result.labelled, result.sidecars["created"], result.is_complete) == (4, 2, 2, True)
    assert all(
        os.path.samestat(path.stat(), status) and path.read_bytes() == b"a photo" for path, status in before.items()
    )


def test_least_probability_replaces_the_mark_unknown(archive):
    predictions = archive.predictions(labelled("1.jpg", probability=0.4), unknown("2.jpg", probability=0.6))
    archive.tag(predictions, min_probability=0.5)
    assert archive.sidecars() == {"2.jpg.xmp": ("roses",)}


def test_second_run_writes_nothing(archive):
    predictions = archive.predictions(labelled("a/1.jpg"), labelled("2.jpg"))
    (archive.photos / "2.jpg.xmp").write_text(DIGIKAM)
    archive.tag(predictions)
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in archive.photos.rglob("*")}
    result = archive.tag(predictions)
    assert result.sidecars == {"created": 0, "changed": 0, "deleted": 0, "unchanged": 2}
    assert {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in archive.photos.rglob("*")} == before


def test_other_predictions_replace_ours_and_removing_takes_all_away(archive):
    archive.tag(archive.predictions(labelled("1.jpg"), labelled("2.jpg"), labelled("3.jpg")))
    (archive.photos / "3.jpg.xmp").write_text(DIGIKAM)
    second = archive.predictions(labelled("1.jpg", "tulips"), unknown("2.jpg"), labelled("3.jpg", "tulips"))
    result = archive.tag(second)
    assert archive.sidecars() == {"1.jpg.xmp": ("tulips",), "3.jpg.xmp": ("tulips",)}
    assert (result.sidecars["changed"], result.sidecars["deleted"]) == (2, 1)
    archive.tag(second, remove=True)
    assert archive.sidecars() == {"3.jpg.xmp": ()}
    assert (archive.photos / "3.jpg.xmp").read_text() == DIGIKAM


def test_dry_run_counts_and_changes_nothing(archive):
    predictions = archive.predictions(labelled("a/1.jpg"), labelled("2.jpg"))
    (archive.photos / "2.jpg.xmp").write_text(DIGIKAM)
    result = archive.tag(predictions, dry_run=True)
    assert (result.sidecars["created"], result.sidecars["changed"], result.dry_run) == (1, 1, True)
    assert result.examples == [
        {"sidecar": "2.jpg.xmp", "change": "changed", "label": "roses", "probability": 0.75},
        {"sidecar": "a/1.jpg.xmp", "change": "created", "label": "roses", "probability": 0.75},
    ]
    assert archive.sidecars() == {"2.jpg.xmp": ()}


def test_pair_has_one_label_and_shares_the_sidecar_of_lightroom(archive):
    predictions = archive.predictions(
        labelled("a/1.CR2", "tulips", 0.8), labelled("a/1.jpg", "roses", 0.7), failed("2.nef"), labelled("2.JPG")
    )
    archive.tag(predictions)
    assert archive.sidecars() == dict.fromkeys(("a/1.CR2.xmp", "a/1.jpg.xmp"), ("tulips",)) | dict.fromkeys(
        ("2.nef.xmp", "2.JPG.xmp"), ("roses",)
    )
    archive.tag(predictions, remove=True)
    (archive.photos / "2.XMP").write_text(LIGHTROOM)
    archive.tag(predictions, sidecar="lightroom")
    assert archive.sidecars() == {"a/1.xmp": ("tulips",), "2.XMP": ("roses",)}
    archive.tag(predictions, remove=True)
    assert archive.sidecars() == {"2.XMP": ()}


@pytest.mark.parametrize(("name", "sidecar"), [("1.xmp", "full"), ("1.CR2.XMP", "lightroom")])
def test_new_sidecar_beside_one_with_the_other_name_is_counted(archive, name, sidecar):
    predictions = archive.predictions(labelled("1.CR2"), labelled("2.CR2"))
    (archive.photos / name).write_text(LIGHTROOM)
    for dry_run in (True, False):
        result = archive.tag(predictions, sidecar=sidecar, dry_run=dry_run)
        assert (result.sidecars["created"], result.beside) == (2, 1)


def test_failures_are_named_with_counts_and_change_nothing(archive, capsys):
    rows = [labelled(f"{number}.jpg") for number in range(7)]
    predictions = archive.predictions(*rows, labelled("a/x.jpg", "bad\x01"))
    (archive.photos / "0.jpg.xmp").write_text("<no")
    (archive.photos / "1.jpg.xmp").write_text("<no")
    private = archive.where / "private.xmp"
    private.write_text(LIGHTROOM)
    (archive.photos / "2.jpg.xmp").symlink_to(private)
    os.mkfifo(archive.photos / "3.jpg.xmp")
    (archive.photos / "4.jpg").unlink()
    (archive.photos / "5.jpg.xmp").mkdir()
    code, out, _ = run(capsys, "tag", str(predictions), "--images", str(archive.photos), "--json")
    result = json.loads(out)
    assert code == 1
    assert result["failed"] == {"malformed": 2, "not a file": 3, "missing": 1, "label": 1}
    assert result["failures"]["malformed"]["sidecar"] == "0.jpg.xmp"
    assert "not well-formed XML" in result["failures"]["malformed"]["message"]
    assert (result["sidecars"]["created"], private.read_text()) == (1, LIGHTROOM)
    assert (archive.photos / "0.jpg.xmp").read_text() == "<no"
    code, out, _ = run(capsys, "tag", str(predictions), "--images", str(archive.photos))
    assert "  2 not changed (malformed), such as 0.jpg.xmp: it is not well-formed XML" in out


def test_folder_without_write_access_is_one_failure_with_a_count(archive, monkeypatch):
    """The error is simulated, since root may write to every folder."""

    def open_unless_new(path, flags, *rest, **options):
        if str(path).startswith("_tmp-") and os.fstat(options["dir_fd"]).st_ino == (archive.photos / "a").stat().st_ino:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return real_open(path, flags, *rest, **options)

    real_open = os.open
    predictions = archive.predictions(labelled("a/1.jpg"), labelled("a/2.jpg"), labelled("b/1.jpg"))
    monkeypatch.setattr(os, "open", open_unless_new)
    result = archive.tag(predictions)
    assert result.failed == {"unwritable": 2}
    assert "Permission denied" in result.failures["unwritable"]["message"]
    assert archive.sidecars() == {"b/1.jpg.xmp": ("roses",)}


def test_links_to_folders_lead_nowhere_outside(archive):
    predictions = archive.predictions(labelled("in/1.jpg"), labelled("out/1.jpg"), labelled("real/1.jpg"))
    for name, target in (("in", archive.photos / "real"), ("out", archive.where / "elsewhere")):
        (archive.photos / name / "1.jpg").unlink()
        (archive.photos / name).rmdir()
        (archive.photos / name).symlink_to(target)
    (archive.where / "elsewhere").mkdir()
    (archive.where / "elsewhere" / "1.jpg").write_bytes(b"a photo")
    result = archive.tag(predictions)
    assert result.failed == {"outside": 1}
    assert os.listdir(archive.where / "elsewhere") == ["1.jpg"]
    assert sorted(os.listdir(archive.photos / "real")) == ["1.jpg", "1.jpg.xmp"]


def test_photos_of_a_list_are_tagged_where_they_are(archive):
    predictions = archive.predictions(labelled("a/1.jpg"), labelled("2.jpg"), labelled("3.jpg"))
    names = archive.where / "list.txt"
    names.write_text(f"a/1.jpg\n{archive.photos}/2.jpg\n")
    result = fb.tag(predictions, images=names, root=archive.photos)
    assert archive.sidecars() == {"2.jpg.xmp": ("roses",), "a/1.jpg.xmp": ("roses",)}
    assert result.photos == 2, "what the list does not name is left alone"
    names.write_text("other.jpg\n")
    with pytest.raises(fb.InputError, match=r"list\.txt lists none of the predictions' photos: give the list of these"):
        fb.tag(predictions, images=names, root=archive.photos)


def test_entries_of_a_list_in_a_store_are_a_failure_with_a_count(archive):
    rows = [labelled("2.jpg"), labelled("s3://bucket/1.jpg")]
    archive.predictions(rows[0])
    names = archive.where / "list.txt"
    names.write_text("2.jpg\ns3://bucket/1.jpg\n")
    predictions = finished(archive.where / "run", PREDICTIONS, [predictions_batch(rows)])
    result = fb.tag(predictions, images=names, root=archive.photos)
    assert (result.failed, result.sidecars["created"]) == ({"in a store": 1}, 1)


def test_path_out_of_the_folder_is_refused(archive):
    (archive.where / "secret.jpg").write_bytes(b"a photo")
    predictions = finished(archive.where / "run", PREDICTIONS, [predictions_batch([labelled("../secret.jpg")])])
    with pytest.raises(fb.InputError, match="secret"):
        archive.tag(predictions)
    assert not (archive.where / "secret.jpg.xmp").exists()


def test_photos_that_are_no_files_are_refused(archive, tmp_path):
    predictions = archive.predictions(labelled("1.jpg"))
    with tarfile.open(tmp_path / "photos.tar", "w") as tar:
        tar.add(archive.photos / "1.jpg", "1.jpg")
    with pytest.raises(fb.InputError, match="in a tar, a table or an object store"):
        fb.tag(predictions, images=tmp_path / "photos.tar")


def test_names_that_are_not_utf8_are_tagged(archive):
    predictions = archive.predictions(labelled("1.jpg"))
    os.rename(archive.photos / "1.jpg", os.fsencode(archive.photos) + b"/\xff.jpg")
    predictions = finished(archive.where / "odd", PREDICTIONS, [predictions_batch([labelled("//bytes/%FF.jpg")])])
    assert archive.tag(predictions).sidecars["created"] == 1
    assert os.listdir(os.fsencode(archive.photos)).count(b"\xff.jpg.xmp") == 1


def test_private_photo_has_a_private_sidecar(archive):
    predictions = archive.predictions(labelled("1.jpg"), labelled("2.jpg"))
    (archive.photos / "1.jpg").chmod(0o600)
    (archive.photos / "2.jpg").chmod(0o444)
    archive.tag(predictions)
    assert [(archive.photos / f"{n}.jpg.xmp").stat().st_mode & 0o777 for n in (1, 2)] == [0o600, 0o644]


def test_name_too_long_for_a_sidecar_is_a_failure_only_if_one_is_written(archive):
    predictions = archive.predictions(labelled("x" * 251 + ".jpg"))
    assert archive.tag(predictions).failed == {"unwritable": 1}
    assert archive.tag(predictions, remove=True).is_complete


@pytest.mark.faults
def test_killed_run_goes_on_and_leaves_nothing_broken(archive, tmp_path):
    predictions = archive.predictions(*(labelled(f"{number // 50}/{number}.jpg") for number in range(400)))
    for number in range(0, 400, 7):
        (archive.photos / f"{number // 50}/{number}.jpg.xmp").write_text(DIGIKAM)
    program = f"import flowers_batch as fb; fb.tag({str(predictions)!r}, images={str(archive.photos)!r})"
    process = subprocess.Popen([sys.executable, "-c", program])
    first = archive.photos / "0" / "1.jpg.xmp"
    while not first.exists():
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    written = sum(bool(ours) for ours in archive.sidecars().values())  # each can be parsed
    result = archive.tag(predictions)
    assert result.sidecars["unchanged"] == written < 400
    assert set(archive.sidecars().values()) == {("roses",)}
    assert not list(archive.photos.rglob("_tmp-*"))
