"""A folder per class with links to photos: what is made, moved and left alone."""

from __future__ import annotations

import errno
import os
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from commands import run
from dataset_rows import image_row, labelled, predictions_batch
from helpers import fingerprint
from hypothesis import given, settings
from hypothesis import strategies as st
from run_folders import write_run

import flowers_batch as fb
from flowers_batch import OrganizeConfig
from flowers_batch.dataset.job import Job
from flowers_batch.dataset.schema import PREDICTIONS
from flowers_batch.errors import InputError, RunError
from flowers_batch.exporting import tree_disk, tree_kinds
from flowers_batch.exporting.tree_disk import TreeDisk
from flowers_batch.storage.opening import open_folder

FAILED = dict.fromkeys(("prediction", "probability", "top_labels", "top_probabilities", "is_unknown"))
HARD, COPY = OrganizeConfig(hardlink=True), OrganizeConfig(copy=True)


class Archive:
    """Photos in a folder, and predictions of them."""

    def __init__(self, where: Path):
        self.where, self.photos, self.tree = where, where / "photos", where / "tree"
        self.images = str(self.photos)

    def label(self, labels: Mapping[str, str | tuple[str, float] | None]) -> None:
        """Make the photos, and predictions: None has failed, and a label with a probability is unknown."""
        rows = []
        for path, label in sorted(labels.items()):
            if not (self.photos / path).exists():
                (self.photos / path).parent.mkdir(parents=True, exist_ok=True)
                (self.photos / path).write_text(path)
            if label is None:
                rows.append(image_row(path, "truncated") | FAILED)
            elif isinstance(label, str):
                rows.append(labelled(path, label))
            else:
                rows.append(labelled(path, *label) | {"is_unknown": True})
        shutil.rmtree(self.where / "run", ignore_errors=True)
        job = Job(PREDICTIONS, self.images, fingerprint(), "random:0")
        write_run(open_folder(self.where / "run"), job, [[predictions_batch(rows)]])

    def organize(self, config: OrganizeConfig = OrganizeConfig()) -> dict:  # noqa: B008
        return fb.organize(self.where / "run", self.tree, config)

    def shown(self) -> dict[str, str]:
        """Return what each entry of the tree shows, without what is the program's."""
        files = (path for path in self.tree.rglob("*") if path.is_file() and ".flowers-batch" not in path.parts)
        return {str(path.relative_to(self.tree)): path.read_text() for path in files}


def counts(result: dict) -> dict[str, int]:
    return {name: value for name, value in result.items() if isinstance(value, int) and value}


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    found = {path: path.lstat() for path in (folder, *folder.rglob("*")) if path.name != "_lock"}
    return {str(path): (status.st_ino, status.st_mtime_ns) for path, status in found.items()}


@pytest.fixture
def archive(tmp_path):
    return Archive(tmp_path)


LABELS = {"a/1.jpg": "rose", "a/2.jpg": "animal/bird/owl", "b/3.jpg": ("rose", 0.4), "b/4.jpg": None}


def test_photos_are_links_in_the_folders_of_their_classes(archive):
    archive.label(LABELS)
    result = archive.organize()
    assert archive.shown() == {"rose/1.jpg": "a/1.jpg", "animal/bird/owl/2.jpg": "a/2.jpg"}
    assert os.readlink(archive.tree / "animal/bird/owl/2.jpg") == "../../../../photos/a/2.jpg"
    assert counts(result) == {"photos": 2, "new": 2, "unknown": 1, "failed": 1}
    assert result["classes"] == {"animal/bird/owl": 1, "rose": 1}


@pytest.mark.parametrize("config", [OrganizeConfig(), HARD, COPY], ids=["symlink", "hardlink", "copy"])
def test_second_run_changes_nothing(archive, config):
    archive.label(LABELS)
    archive.organize(config)
    before = snapshot(archive.where)
    assert counts(archive.organize(config)) == {"photos": 2, "unchanged": 2, "unknown": 1, "failed": 1}
    assert snapshot(archive.where) == before


@pytest.mark.parametrize("config", [OrganizeConfig(), HARD, COPY], ids=["symlink", "hardlink", "copy"])
def test_photo_whose_label_changed_moves_and_what_a_person_added_stays(archive, config):
    archive.label({"a/1.jpg": "rose", "a/2.jpg": "rose", "a/3.jpg": "tulip"})
    archive.organize(config)
    (archive.tree / "rose/mine.jpg").write_text("mine")
    (archive.tree / "rose/own").mkdir()
    (archive.tree / "rose/link.jpg").symlink_to(archive.photos / "a/1.jpg")
    archive.label({"a/1.jpg": "tulip", "a/2.jpg": ("rose", 0.3), "a/3.jpg": "lily"})
    assert counts(archive.organize(config)) == {"photos": 2, "moved": 2, "removed": 1, "unknown": 1}
    ours = {"tulip/1.jpg": "a/1.jpg", "lily/3.jpg": "a/3.jpg"}
    assert archive.shown() == ours | {"rose/mine.jpg": "mine", "rose/link.jpg": "a/1.jpg"}
    assert (archive.tree / "rose/own").is_dir()
    archive.label({"a/1.jpg": "rose", "a/2.jpg": "rose", "a/3.jpg": "rose"})
    archive.organize(config)
    assert sorted(os.listdir(archive.tree)) == [".flowers-batch", "rose"]
    assert all((archive.photos / path).read_text() == path for path in ("a/1.jpg", "a/2.jpg", "a/3.jpg"))


def test_names_are_unique_and_stay_when_photos_are_added(archive):
    archive.label({"b/1.jpg": "rose", "c/1.JPG": "rose"})
    archive.organize()
    first = {content: name for name, content in archive.shown().items()}
    assert first["b/1.jpg"] == "rose/1.jpg" and first["c/1.JPG"].startswith("rose/1-")
    archive.label({"a/1.jpg": "rose", "b/1.jpg": "rose", "c/1.JPG": "rose", "d/1.jpg": "tulip"})
    assert counts(archive.organize()) == {"photos": 4, "new": 2, "unchanged": 2}
    shown = {content: name for name, content in archive.shown().items()}
    assert first.items() <= shown.items() and len(shown) == 4 and shown["d/1.jpg"] == "tulip/1.jpg"


def test_name_that_a_person_uses_is_left_to_them(archive):
    archive.label({"a/1.jpg": "rose"})
    (archive.tree / "rose").mkdir(parents=True)
    (archive.tree / "rose/1.jpg").write_text("mine")
    assert counts(archive.organize()) == {"photos": 1, "new": 1}
    shown = archive.shown()
    assert shown.pop("rose/1.jpg") == "mine" and list(shown.values()) == ["a/1.jpg"]
    assert counts(archive.organize()) == {"photos": 1, "unchanged": 1}


def test_entry_that_a_person_replaced_is_theirs(archive):
    archive.label({"a/1.jpg": "rose"})
    archive.organize(COPY)
    (archive.tree / "rose/1.jpg").write_text("edited")
    archive.label({"a/1.jpg": "tulip"})
    assert counts(archive.organize(COPY)) == {"photos": 1, "moved": 1, "kept": 1}
    assert archive.shown() == {"rose/1.jpg": "edited", "tulip/1.jpg": "a/1.jpg"}
    assert counts(archive.organize(COPY)) == {"photos": 1, "unchanged": 1}


@pytest.mark.parametrize("config", [HARD, COPY], ids=["hardlink", "copy"])
def test_last_copy_of_a_photo_is_kept(archive, config):
    archive.label({"a/1.jpg": "rose", "a/2.jpg": "rose"})
    archive.organize(config)
    (archive.photos / "a/1.jpg").unlink()
    archive.label({"a/2.jpg": "rose"})
    assert counts(archive.organize(config)) == {"photos": 1, "unchanged": 1, "kept": 1}
    (archive.photos / "a/1.jpg").symlink_to(archive.tree / "rose/1.jpg")
    assert counts(archive.organize(config)) == {"photos": 1, "unchanged": 1, "kept": 1}
    assert archive.shown()["rose/1.jpg"] == "a/1.jpg"


def test_class_may_change_its_case(archive):
    archive.label({"a/1.jpg": "rose"})
    archive.organize(HARD)
    archive.label({"a/1.jpg": "Rose"})
    assert counts(archive.organize(HARD)) == {"photos": 1, "moved": 1}
    assert archive.shown() == {"Rose/1.jpg": "a/1.jpg"} and not (archive.tree / "rose").exists()
    assert counts(archive.organize(HARD)) == {"photos": 1, "unchanged": 1}


def test_missing_photo_loses_its_link(archive):
    archive.label({"a/1.jpg": "rose", "a/2.jpg": "rose"})
    archive.organize()
    (archive.photos / "a/1.jpg").unlink()
    assert counts(archive.organize()) == {"photos": 1, "unchanged": 1, "removed": 1, "missing": 1}
    assert not os.path.lexists(archive.tree / "rose/1.jpg")


def test_folder_without_any_of_the_photos_empties_no_tree(archive):
    archive.label({"a/1.jpg": "rose"})
    archive.organize()
    other = archive.where / "other"
    (other / "b").mkdir(parents=True)
    with pytest.raises(InputError, match=r"other has none of the photos .*: say where they are by `images`\.$"):
        fb.organize(archive.where / "run", archive.tree, images=other)
    assert archive.shown() == {"rose/1.jpg": "a/1.jpg"}


def test_each_kind_replaces_the_others(archive):
    archive.label({"a/1.jpg": "rose"})
    entry, photo = archive.tree / "rose/1.jpg", archive.photos / "a/1.jpg"
    os.utime(photo, ns=(10**18, 10**18 + 123))
    for config in (OrganizeConfig(), COPY, HARD, OrganizeConfig(), HARD, COPY, OrganizeConfig()):
        assert counts(archive.organize(config)) in ({"photos": 1, "replaced": 1}, {"photos": 1, "new": 1})
        assert archive.shown() == {"rose/1.jpg": "a/1.jpg"}
        assert entry.is_symlink() == (config == OrganizeConfig())
        assert os.path.samefile(entry, photo) == (config != COPY)
        assert entry.stat().st_mtime_ns == photo.stat().st_mtime_ns


def test_changed_photo_is_copied_again(archive):
    archive.label({"a/1.jpg": "rose"})
    archive.organize(COPY)
    (archive.photos / "a/1.jpg").write_text("new and longer")
    assert counts(archive.organize(COPY)) == {"photos": 1, "replaced": 1}
    assert archive.shown() == {"rose/1.jpg": "new and longer"}


def test_links_follow_a_tree_that_moved(archive):
    archive.label({"a/1.jpg": "rose"})
    archive.organize()
    (archive.where / "elsewhere").mkdir()
    archive.tree = archive.tree.rename(archive.where / "elsewhere/tree")
    assert counts(archive.organize()) == {"photos": 1, "replaced": 1}
    assert archive.shown() == {"rose/1.jpg": "a/1.jpg"}


def test_pair_and_sidecars_stay_together(archive):
    for name in ("0/1.jpg", "a/1.CR2.xmp", "a/1.xmp", "b/1.jpg.XMP"):
        (archive.photos / name).parent.mkdir(parents=True, exist_ok=True)
        (archive.photos / name).write_text(name)
    labels = {"0/1.jpg": "rose", "a/1.CR2": None, "a/1.jpg": "rose", "a/1.png": "rose", "b/1.jpg": "tulip"}
    archive.label(labels)
    assert counts(archive.organize()) == {"photos": 4, "new": 8}
    shown = {content: name for name, content in archive.shown().items()}
    assert shown["0/1.jpg"] == "rose/1.jpg" and shown["b/1.jpg.XMP"] == "tulip/1.jpg.XMP"
    (tag,) = {shown[f"a/1.{suffix}"].removeprefix("rose/1").partition(".")[0] for suffix in ("CR2", "jpg", "xmp")}
    assert len(tag) == 9 and shown["a/1.CR2.xmp"] == f"rose/1{tag}.CR2.xmp" and shown["a/1.png"].startswith("rose/1-")
    archive.label(labels | {"a/1.jpg": "tulip"})
    assert counts(archive.organize()) == {"photos": 4, "moved": 4, "unchanged": 4}
    moved = {content for name, content in archive.shown().items() if name.startswith("tulip/")}
    assert moved == {"b/1.jpg", "b/1.jpg.XMP", "a/1.CR2", "a/1.jpg", "a/1.xmp", "a/1.CR2.xmp"}


def test_only_files_are_sidecars_and_private_photos_have_private_copies(archive):
    archive.label({"1.jpg": "rose"})
    (archive.where / "secret").write_text("secret")
    (archive.photos / "1.jpg.xmp").symlink_to(archive.where / "secret")
    (archive.photos / "1.xmp").mkdir()
    (archive.photos / "1.jpg").chmod(0o600)
    assert counts(archive.organize(COPY)) == {"photos": 1, "new": 1}
    assert (archive.tree / "rose/1.jpg").stat().st_mode & 0o777 == 0o600


def test_photos_of_other_folders_never_look_like_a_pair(archive):
    (archive.photos / "a").mkdir(parents=True)
    (archive.photos / "a/1.xmp").write_text("a/1.xmp")
    archive.label({"a/1.CR2": "rose", "b/1.jpg": "rose"})
    archive.organize()
    shown = {content: name for name, content in archive.shown().items()}
    assert shown["a/1.CR2"] == "rose/1.CR2" and shown["a/1.xmp"] == "rose/1.xmp"
    assert shown["b/1.jpg"].startswith("rose/1-")
    archive.label({"0/1.png": "rose", "b/1.jpg": "rose", "a/1.CR2": "rose"})
    archive.organize()
    assert {content: name for name, content in archive.shown().items() if not content.startswith("0")} == shown
    assert len(archive.shown()) == 4 and "rose/1.png" not in archive.shown()


def test_sidecar_that_a_program_wrote_beside_a_link_stays(archive):
    archive.label({"a/1.jpg": "rose"})
    archive.organize()
    (archive.tree / "rose/1.jpg.xmp").write_text("of the program")
    (archive.photos / "a/1.jpg.xmp").write_text("of tag")
    assert counts(archive.organize()) == {"photos": 1, "unchanged": 1}
    assert archive.shown() == {"rose/1.jpg": "a/1.jpg", "rose/1.jpg.xmp": "of the program"}


def test_names_that_are_not_utf8_and_links_in_the_archive_are_shown(archive):
    archive.label({"a/1.jpg": "rose", "//bytes/a/%FF.jpg": "rose"})
    shutil.rmtree(archive.photos / "bytes", ignore_errors=True)
    (archive.photos / "blob").write_text("blob")
    (archive.photos / "a/1.jpg").unlink()
    (archive.photos / "a/1.jpg").symlink_to("../blob")
    Path(os.fsdecode(os.fsencode(archive.photos) + b"/a/\xff.jpg")).write_text("bytes")
    for config in (OrganizeConfig(), HARD, COPY):
        archive.organize(config)
        assert sorted(archive.shown().values()) == ["blob", "bytes"]
    assert os.path.isfile(os.fsencode(archive.tree) + b"/rose/\xff.jpg")


@pytest.mark.parametrize("config", [OrganizeConfig(), HARD, COPY], ids=["symlink", "hardlink", "copy"])
def test_killed_run_is_completed_even_with_other_labels(archive, monkeypatch, config):
    labels = {f"a/{number}.jpg": "rose" for number in range(6)}
    archive.label(labels)
    make, made = TreeDisk.make, []

    def killed(*arguments):
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(make(*arguments))

    with monkeypatch.context() as patch:
        patch.setattr(TreeDisk, "make", killed)
        with pytest.raises(KeyboardInterrupt):
            archive.organize(config)
    assert len(archive.shown()) == 3
    archive.label(dict.fromkeys(labels, "tulip"))
    archive.organize(config)
    assert archive.shown() == {f"tulip/{number}.jpg": f"a/{number}.jpg" for number in range(6)}
    assert counts(archive.organize(config)) == {"photos": 6, "unchanged": 6}


def test_dry_run_changes_nothing_and_tells_what_would_be(archive, capsys):
    archive.label({"a/1.jpg": "rose", "a/2.jpg": "tulip"})
    before = snapshot(archive.where)
    command = ("organize", str(archive.where / "run"), str(archive.tree), "--dry-run")
    code, printed, _ = run(capsys, *command)
    assert code == 0 and "would show 2 photos of 2 classes" in printed and "new: rose/1.jpg, of a/1.jpg" in printed
    assert snapshot(archive.where) == before
    archive.organize()
    archive.label({"a/1.jpg": "tulip", "a/2.jpg": ("tulip", 0.5)})
    before = snapshot(archive.where)
    would = archive.organize(OrganizeConfig(dry_run=True))
    assert snapshot(archive.where) == before
    assert counts(would) == {"photos": 1, "moved": 1, "removed": 1, "unknown": 1} == counts(archive.organize())


@pytest.mark.parametrize(
    ("tree", "photos"),
    [
        ("photos", "photos"),
        ("run", "photos"),
        ("photos/tree", "photos"),
        (".", "photos"),
        ("link/tree", "photos"),
        ("tree", "tree/photos"),
    ],
)
def test_tree_is_no_run_and_never_contains_photos_nor_is_among_them(archive, tree, photos):
    archive.photos = archive.where / photos
    archive.images = str(archive.photos)
    archive.label({"a/1.jpg": "rose"})
    (archive.where / "link").symlink_to(archive.photos / "a")
    archive.tree = archive.where / tree
    before = snapshot(archive.where)
    with pytest.raises(InputError, match="choose another place"):
        archive.organize()
    assert snapshot(archive.where) == before


def test_folder_that_leads_into_the_tree_is_refused(archive):
    archive.label({"a/1.jpg": "rose", "b/1.jpg": "rose"})
    shutil.move(archive.photos / "b", archive.tree / "rose")
    (archive.photos / "b").symlink_to(archive.tree / "rose")
    with pytest.raises(InputError, match="contains the photos' folder"):
        archive.organize()


def failing(number: int):
    def fail(*arguments, **options):
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize(
    ("config", "call", "number", "words"),
    [
        (OrganizeConfig(), "symlink", errno.ENOSPC, "make room"),
        (OrganizeConfig(), "symlink", errno.EROFS, "write access"),
        (OrganizeConfig(), "symlink", errno.EPERM, "use `hardlink` or `copy`"),
        (HARD, "link", errno.EXDEV, "another file system"),
        (HARD, "link", errno.EPERM, "use `copy`"),
        (COPY, "fsync", errno.ENOSPC, "make room"),
    ],
)
def test_failing_disk_is_one_sentence_and_the_next_run_completes(archive, monkeypatch, config, call, number, words):
    archive.label({"a/1.jpg": "rose", "a/2.jpg": "tulip"})
    with monkeypatch.context() as patch:
        patch.setattr(tree_kinds.os, call, failing(number))
        with pytest.raises(RunError, match=words) as raised:
            archive.organize(config)
    assert str(archive.tree) in str(raised.value) and str(raised.value).count(". ") == 0
    archive.organize(config)
    assert archive.shown() == {"rose/1.jpg": "a/1.jpg", "tulip/2.jpg": "a/2.jpg"}
    assert sorted(os.listdir(archive.tree / ".flowers-batch")) == ["_lock", "tree.parquet"]


def test_file_system_without_hard_links_takes_copies(archive, monkeypatch):
    archive.label({"a/1.jpg": "rose"})
    monkeypatch.setattr(tree_disk.os, "link", failing(errno.EPERM))
    archive.organize(COPY)
    assert archive.shown() == {"rose/1.jpg": "a/1.jpg"}


def test_link_in_place_of_a_class_folder_is_not_followed(archive):
    archive.label({"a/1.jpg": "rose"})
    outside = archive.where / "outside"
    outside.mkdir()
    archive.tree.mkdir()
    (archive.tree / "rose").symlink_to(outside)
    with pytest.raises(InputError, match="is a link"):
        archive.organize()
    assert not list(outside.iterdir())


@pytest.mark.parametrize("name", [b"../mine.jpg", b"/etc/passwd", b".flowers-batch/tree.parquet", b"mine.jpg"])
def test_record_names_only_entries_of_classes(archive, name):
    archive.label({"a/1.jpg": "rose"})
    archive.organize()
    record = archive.tree / ".flowers-batch/tree.parquet"
    table = pq.read_table(record)
    pq.write_table(table.set_column(0, table.schema.field(0), [[name]]), record)
    with pytest.raises(InputError, match="is damaged"):
        archive.organize()


def test_files_that_are_not_of_the_source_are_never_shown(archive):
    archive.label({"a/1.jpg": "rose", "../secret.jpg": "rose"})
    with pytest.raises(InputError, match="names no image of"):
        archive.organize(COPY)
    (archive.where / "list.txt").write_text("photos/a/1.jpg\n")
    archive.images = str(archive.where / "list.txt")
    archive.photos = archive.where
    archive.label({"photos/a/1.jpg": "rose", "secret.jpg": "rose"})
    assert counts(archive.organize(COPY)) == {"photos": 1, "new": 1, "missing": 1}
    assert archive.shown() == {"rose/1.jpg": "a/1.jpg"}


def test_photos_in_a_tar_are_refused(archive, capsys):
    with tarfile.open(archive.where / "a.tar", "w"):
        pass
    archive.images = str(archive.where / "a.tar")
    archive.label({"a/1.jpg": "rose"})
    code, _, printed = run(capsys, "organize", str(archive.where / "run"), str(archive.tree))
    assert code == 2 and "in a tar, a table or an object store" in printed
    assert not archive.tree.exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--hardlink", "--copy"), "leave out --hardlink or --copy"),
        (("--min-probability", "2"), "--min-probability must be from 0 to 1"),
    ],
)
def test_wrong_options_are_refused(archive, capsys, options, words):
    code, _, printed = run(capsys, "organize", str(archive.where), str(archive.tree), *options)
    assert code == 2 and words in printed


PATHS = st.sampled_from(["a/1.jpg", "a/1.CR2", "a/2.jpg", "b/1.jpg", "b/1.JPG", "c/1.jpg", "c/rose.jpg"])
NAMES = st.sampled_from(["rose", "Rose", "rose.jpg", "rose/wild", ".."])


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(st.lists(st.dictionaries(PATHS, NAMES, min_size=1), min_size=1, max_size=3), st.sampled_from([HARD, COPY, None]))
def test_any_sequence_of_predictions_gives_each_photo_one_entry(tmp_path_factory, rounds, config):
    archive = Archive(tmp_path_factory.mktemp("archive"))
    archive.tree.mkdir()
    mine = {"rose/1.jpg": "mine", "Rose/mine.jpg": "mine"}
    for name in mine:
        (archive.tree / name).parent.mkdir(exist_ok=True)
        (archive.tree / name).write_text("mine")
    seen: dict[str, str] = {}
    for labels in rounds:
        archive.label(labels)
        archive.organize(config or OrganizeConfig())
        shown = archive.shown()
        assert {name: shown.pop(name) for name in mine} == mine
        assert sorted(shown.values()) == sorted(labels)
        assert len({name.casefold() for name in shown}) == len(shown)
        before = snapshot(archive.tree)
        archive.organize(config or OrganizeConfig())
        assert snapshot(archive.tree) == before
        seen |= labels
    assert {path for path in seen if (archive.photos / path).read_text() == path} == set(seen)
