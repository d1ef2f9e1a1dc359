"""Paths of labels and of photos that are written in different ways."""

from __future__ import annotations

import unicodedata
from types import SimpleNamespace

import pyarrow as pa
import pytest
from codes_folder import labels, write_codes

from flowers_batch.classifier import label_paths
from flowers_batch.classifier.label_paths import PathForm, match_paths, nearest_paths, root_of
from flowers_batch.classifier.labels import read_labelled
from flowers_batch.dataset.run_folder import open_run
from flowers_batch.dataset.schema import CODES

ROOTS = ["/data/photos", "s3://bucket/my photos"]
NFC = "Gänseblümchen/1.jpg"
NFD = unicodedata.normalize("NFD", NFC)


def matched(written: list[str], photos: list[str], root: str = "/data/photos") -> dict[str, str]:
    return match_paths(written, lambda: [pa.array(photos[:1], pa.string()), pa.array(photos[1:])], PathForm(root))


@pytest.mark.parametrize("root", ROOTS)
@pytest.mark.parametrize("photo", [NFC, NFD])
@pytest.mark.parametrize(
    "write",
    [
        lambda path, root: f"./{path}",
        lambda path, root: f"././{path}",
        lambda path, root: path.replace("/", "\\"),
        lambda path, root: f".\\{path}".replace("/", "\\"),
        lambda path, root: f"{root}/{path}",
        lambda path, root: f"{root}/./{path}",
        lambda path, root: f"{root}//{path}",
        lambda path, root: f"{root.rpartition('/')[2]}/{path}",
        lambda path, root: f"./{root.rpartition('/')[2]}/{path}",
        lambda path, root: f" {path} ",
        lambda path, root: path.replace("/", "//"),
        lambda path, root: unicodedata.normalize("NFC", path),
        lambda path, root: unicodedata.normalize("NFD", f"./{path}"),
    ],
)
def test_paths_written_in_another_way_are_matched(root, photo, write):
    for written in (write(photo, root), write(unicodedata.normalize("NFC", photo), root)):
        expected = {} if written == photo else {written: photo}
        assert matched([written], [photo, "other.jpg", "photos.jpg"], root) == expected


@pytest.mark.parametrize(
    ("root", "written", "photo"),
    [
        ("s3://b/my photos", "S3A://b/my photos/a/1.jpg", "a/1.jpg"),
        ("s3://b/p", "s3://b/p/a.jpg?region=x&scheme=http", "a.jpg"),
        ("s3://b/p", "s3n://other/a.jpg", "s3://other/a.jpg"),
        ("/data/photos", "file:///data/photos/a.jpg", "a.jpg"),
        ("/data/photos", "a.jpg", "/data/photos/a.jpg"),
        ("/data", "0.tar!a/1.jpg", "0.tar!./a/1.jpg"),
        ("/data", "./0.tar!./a/1.jpg", "0.tar!a/1.jpg"),
        ("/data", "café.jpg", "//bytes/caf%E9.jpg"),
        ("/", "/a.jpg", "a.jpg"),
    ],
)
def test_urls_members_and_raw_names_are_matched(root, written, photo):
    assert matched([written], [photo], root) == {written: photo}


def test_paths_that_several_photos_may_mean_are_not_matched():
    assert matched(["./" + NFC], [NFC, NFD]) == {}
    assert matched(["./a.jpg"], ["a.jpg", "/data/photos/a.jpg"]) == {}
    assert matched([NFC], [NFD, NFC]) == {}, "it is the one's own path"
    assert matched(["photos/a.jpg"], ["a.jpg", "photos/a.jpg"]) == {}
    assert matched(["./photos/a.jpg"], ["a.jpg", "photos/a.jpg"]) == {"./photos/a.jpg": "photos/a.jpg"}


def test_paths_below_another_root_are_not_matched():
    written = ["/other/photos/a.jpg", "/data/photos2/a.jpg", "b/a.jpg", "A.jpg", "../a.jpg", "C:\\photos\\a.jpg"]
    assert matched(written, ["a.jpg"]) == {}
    assert matched(["a.jpg"], ["photos/a.jpg"]) == {}


def test_photos_are_listed_once_if_all_labels_are_exact():
    listings = []

    def photos():
        listings.append(1)
        return [pa.array(["a.jpg", "b.jpg"])]

    assert match_paths(["b.jpg"], photos, PathForm("/x")) == {} and len(listings) == 1
    assert match_paths([], photos, PathForm("/x")) == {} and len(listings) == 1, "without labels none is listed"


@pytest.mark.parametrize(
    ("images", "root", "expected"),
    [
        ("/data/photos", None, "/data/photos"),
        ("/data/list.CSV", None, "/data"),
        ("/data/list.txt", "/mnt/disk", "/mnt/disk"),
        ("/data/*.tar", None, "/data"),
        ("s3://b/my%20photos?region=x", None, "s3://b/my photos"),
        ("s3://b/t/*.parquet?region=x", None, "s3://b/t"),
    ],
)
def test_root_is_the_folder_of_the_archive(images, root, expected):
    assert root_of(SimpleNamespace(images=images, root=root)) == expected


@pytest.fixture
def codes(tmp_path):
    return open_run(str(write_codes(tmp_path / "codes", labels(daisy=3, rose=3))), CODES)


def test_labels_are_counted_by_photos_and_the_rest_has_a_hint(codes, tmp_path):
    rows = ["./daisy/000.jpg", "daisy\\001.jpg", f"{codes.job.images}/rose/003.jpg", "roses/004.JPG", "gone/9.jpg"]
    (tmp_path / "labels.csv").write_text("path,label\n" + "".join(f"{path},x\n" for path in rows))
    found = read_labelled(codes, [str(tmp_path / "labels.csv")])
    assert found.paths == ["daisy/000.jpg", "daisy/001.jpg", "rose/003.jpg"]
    assert (found.counts.unknown_paths, found.counts.unlabelled) == (2, 3)
    assert found.counts.unknown_examples == ["gone/9.jpg", "roses/004.JPG"]
    assert found.counts.unknown_nearest == [None, "rose/004.jpg"]


def test_exact_path_counts_more_than_another_spelling(codes, tmp_path):
    (tmp_path / "labels.csv").write_text("path,label\ndaisy/000.jpg,exact\n./daisy/000.jpg,other\n./daisy/001.jpg,x\n")
    found = read_labelled(codes, [str(tmp_path / "labels.csv")])
    assert dict(zip(found.paths, found.labels.tolist(), strict=True)) == {
        "daisy/000.jpg": "exact",
        "daisy/001.jpg": "x",
    }
    assert found.counts.unknown_paths == 0


def test_nearest_path_is_the_most_similar_of_that_name(codes, monkeypatch):
    assert nearest_paths(["x/rosé/3.jpg", "old\\rose\\003.png", "daisy/1/000.jpg"], codes) == [
        None,
        "rose/003.jpg",
        "daisy/000.jpg",
    ]
    monkeypatch.setattr(label_paths, "_MAX_CANDIDATES", 0)
    assert nearest_paths(["003.jpg"], codes) == [None], "the work is bounded"
