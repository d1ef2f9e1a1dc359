"""Links in tars are photos with the bytes of their targets, as they are in the folder that the tar was made from."""

from __future__ import annotations

import io
import os
import random
import tarfile
import tracemalloc
from pathlib import Path

import pytest
from helpers import add_sparse, images_in, write
from listings import Listing

from flowers_batch.dataset.growth import grow_manifest, write_manifest
from flowers_batch.dataset.manifest import read_manifest, read_rows
from flowers_batch.errors import InputError
from flowers_batch.sources import tar_links
from flowers_batch.sources.images import images_of
from flowers_batch.sources.opening import open_source
from flowers_batch.sources.reading import ReadError
from flowers_batch.sources.skipping import Skipping
from flowers_batch.sources.source import Source
from flowers_batch.storage.opening import open_folder

HARD, SYMBOLIC, FOLDER, PIPE = tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE


def tar(path: Path, members: list[tuple[str, object]], kind: int = tarfile.PAX_FORMAT) -> Source:
    """Write a tar of files (name, bytes), links (name, (type, target)) and others (name, type), and open it."""
    with tarfile.open(path, "w", format=kind, encoding="utf-8", errors="surrogateescape") as file:
        for name, what in members:
            header = tarfile.TarInfo(name)
            if isinstance(what, bytes) and what not in (FOLDER, PIPE):
                header.size = len(what)
                file.addfile(header, io.BytesIO(what))
            else:
                header.type, header.linkname = what if isinstance(what, tuple) else (what, "")
                file.addfile(header)
    return open_source(path)


def content(source: Source) -> dict[str, bytes | str]:
    """Return the bytes of each photo by its path without the tar's name, or the reason why it failed."""
    found: dict[str, bytes | str] = {}
    for image in images_in(source):
        name = image.path.partition("!")[2] or image.path
        assert name not in found
        try:
            found[name] = source.read(image)
        except ReadError as error:
            found[name] = error.reason
    return found


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_links_have_the_bytes_of_their_targets(tmp_path, kind):
    photos = tar(
        tmp_path / "a.tar",
        [
            ("./best/link.jpg", (SYMBOLIC, "../roses/a.jpg")),  # before its target
            ("./roses/a.jpg", b"a"),
            ("./roses/hard.jpg", (HARD, "./roses/a.jpg")),
            ("./roses/chain.jpg", (SYMBOLIC, "../best/./link.jpg")),
            ("./roses/hard_to_link.jpg", (HARD, "./roses/chain.jpg")),
            ("blobs/0123", b"no photo by its name"),
            ("blob.jpg", (SYMBOLIC, "blobs/0123")),
        ],
        kind,
    )
    linked = ["./best/link.jpg", "./roses/hard.jpg", "./roses/chain.jpg", "./roses/hard_to_link.jpg"]
    expected = {"./roses/a.jpg": b"a", **dict.fromkeys(linked, b"a"), "blob.jpg": b"no photo by its name"}
    assert content(photos) == expected
    assert list(content(photos)) == list(expected), "photos first, as in a tar that was listed by an earlier version"
    assert photos.left_out.ignored == 1 and photos.left_out.endings == {"": 1}


@pytest.mark.parametrize(
    "target",
    ["nowhere.jpg", "/roses/a.jpg", "../../roses/a.jpg", "link.jpg", "x/loop.jpg", "", "pipe.jpg", "a/" * 3000],
)
def test_link_that_leads_to_no_file_of_the_tar_fails(tmp_path, target):
    photos = tar(
        tmp_path / "a.tar",
        [
            ("x/a.jpg", b"a"),
            ("x/link.jpg", (SYMBOLIC, target)),
            ("x/x/loop.jpg", (SYMBOLIC, "../link.jpg")),
            ("x/pipe.jpg", PIPE),
        ],
    )
    failed = dict.fromkeys(["x/link.jpg", "x/x/loop.jpg", "x/pipe.jpg"], "missing")
    assert content(photos) == {"x/a.jpg": b"a"} | failed
    broken = [image for image in images_in(photos) if image.path.endswith("link.jpg")]
    with pytest.raises(ReadError, match=r"^The tar has no bytes for it: it is no file, or a link to none in"):
        photos.read(broken[0])


def test_hard_link_leads_to_the_last_member_before_it_and_symbolic_link_to_the_last(tmp_path):
    members = [
        ("hard.jpg", (HARD, "a.jpg")),
        ("a.jpg", b"1"),
        ("hard.jpg", (HARD, "a.jpg")),
        ("link.jpg", (SYMBOLIC, "a.jpg")),
        ("a.jpg", b"2"),
        ("hard.jpg", (HARD, "a.jpg")),
        ("a.jpg", b"3"),
    ]
    assert content(tar(tmp_path / "a.tar", members)) == {
        **{"a.jpg": b"1", "a.jpg#2": b"2", "a.jpg#3": b"3"},
        **{"hard.jpg": "missing", "hard.jpg#2": b"1", "hard.jpg#3": b"2", "link.jpg": b"3"},
    }


def test_photos_of_linked_folders_are_listed(tmp_path):
    members = [
        ("a/1.jpg", b"1"),
        ("a/deep/2.jpg", b"2"),
        ("a/3.jpg", (SYMBOLIC, "1.jpg")),
        ("b", (SYMBOLIC, "a")),
        ("c/in.jpg", (SYMBOLIC, "../b/deep")),  # named like a photo
        ("d", (SYMBOLIC, "b/../c")),
        ("through.jpg", (SYMBOLIC, "b/deep/../1.jpg")),
        ("empty", FOLDER),
        ("to_empty", (SYMBOLIC, "empty")),
    ]
    photos = tar(tmp_path / "a.tar", members)
    assert content(photos) == {
        **{"a/1.jpg": b"1", "a/deep/2.jpg": b"2", "a/3.jpg": b"1"},
        **{"b/1.jpg": b"1", "b/deep/2.jpg": b"2", "b/3.jpg": b"1"},
        **{"c/in.jpg/2.jpg": b"2", "d/in.jpg/2.jpg": b"2", "through.jpg": b"1"},
    }
    assert photos.left_out.loops.count == photos.left_out.broken_links.count == photos.left_out.ignored == 0


def test_loops_and_broken_links_are_counted_and_named(tmp_path):
    members = [
        ("a/1.jpg", b"1"),
        ("a/up", (SYMBOLIC, "..")),
        ("a/here", (SYMBOLIC, ".")),
        ("broken", (SYMBOLIC, "nowhere")),
        ("outside", (SYMBOLIC, "/mnt/disk2")),
    ]
    photos = tar(tmp_path / "a.tar", members)
    assert content(photos) == {"a/1.jpg": b"1"}
    assert vars(photos.left_out.loops) == {"count": 2, "first": ["a.tar!a/up", "a.tar!a/here"]}
    assert vars(photos.left_out.broken_links) == {"count": 2, "first": ["a.tar!broken", "a.tar!outside"]}


def test_links_are_left_out_by_their_own_names(tmp_path):
    members = [
        ("blobs/@eaDir/x.jpg", b"x"),
        (".hidden/y.jpg", b"y"),
        ("a.jpg", (SYMBOLIC, "blobs/@eaDir/x.jpg")),
        ("b.jpg", (HARD, ".hidden/y.jpg")),
        ("@eaDir/c.jpg", (SYMBOLIC, "../a.jpg")),
        ("._d.jpg", (HARD, ".hidden/y.jpg")),
        ("e", (SYMBOLIC, ".hidden")),
        (".hidden_link", (SYMBOLIC, ".hidden")),
        ("no_photo.txt", (SYMBOLIC, "a.jpg")),
    ]
    photos = tar(tmp_path / "a.tar", members)
    assert content(photos) == {"a.jpg": b"x", "b.jpg": b"y", "e/y.jpg": b"y"}
    assert photos.left_out.skipped == {"@eaDir": 2, "hidden": 2, "._*": 1}
    assert photos.left_out.endings == {".txt": 1}
    everything = open_source(tmp_path / "a.tar", skipping=Skipping(include_hidden=True, exclude=("e/",)))
    assert len(content(everything)) == 7 and everything.left_out.skipped == {"exclude e/": 1}


@pytest.mark.parametrize("seed", range(100))
def test_tar_of_a_folder_gives_what_the_folder_gives(tmp_path, seed):
    draw, root = random.Random(seed), tmp_path / "root"
    folders = ["", "a", "b", "a/c", "a/c/d", "b/.h"]
    write(root, {f"{folder}/{n}{draw.choice(['.jpg', '.txt'])}": os.urandom(9) for folder in folders for n in range(2)})
    files = [path for path in root.rglob("*") if path.is_file()]
    for number in range(draw.randrange(1, 9)):
        where = root / draw.choice(folders) / f"link{number}{draw.choice(['.jpg', '', '.jpg'])}"
        if draw.random() < 0.3:
            os.link(draw.choice(files), where)
        else:
            links = [f"link{number}{suffix}" for number in range(9) for suffix in ("", ".jpg")]
            names = ["a", "b", "c", "d", "..", "..", "0.jpg", "1.jpg", *links]
            where.symlink_to(draw.choice(["", "./"]) + "/".join(draw.choices(names, k=draw.randrange(1, 4))))
            if not os.path.realpath(where).startswith(str(root)):
                where.unlink()
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        file.add(root, "")
    photos, folder = open_source(tmp_path / "a.tar"), open_source(root)
    expected = {name: "missing" if found == "unreadable" else found for name, found in content(folder).items()}
    assert content(photos) == expected
    assert photos.left_out.skipped == folder.left_out.skipped and photos.left_out.endings == folder.left_out.endings
    assert photos.left_out.loops.count == folder.left_out.loops.count
    assert photos.left_out.broken_links.count == folder.left_out.broken_links.count


def test_links_join_an_archive_that_was_listed_without_them(tmp_path):
    members = [
        ("link.jpg", (HARD, "x.jpg")),
        ("x.jpg", b"1"),
        ("link.jpg", b"2"),
        ("lost.jpg", (SYMBOLIC, "gone.jpg")),
        ("link.jpg", (HARD, "x.jpg")),
    ]
    photos, folder = tar(tmp_path / "a.tar", members), open_folder(tmp_path / "run")
    images = images_in(photos)
    old = [image for image in images if image.path in ("a.tar!x.jpg", "a.tar!link.jpg")][::-1]  # as version 0.1 did
    manifest = write_manifest(folder, Listing(old), 9, "first")
    manifest, changes = grow_manifest(folder, manifest, photos, 9, "second")
    assert {name: count for name, count in changes.items() if count} == {"new": 3}
    rows = [image for shard in read_manifest(folder).shards for image in images_of(read_rows(folder, shard))]
    assert [photos.read(image) for image in rows[:2]] == [b"2", b"1"]
    with pytest.raises(ReadError, match="no file, or a link to none in the tar"):
        photos.read(next(image for image in rows if image.path == "a.tar!lost.jpg"))


def test_memory_does_not_grow_with_the_links(tmp_path):
    members = [(f"{number}.jpg", (HARD, "a.jpg")) for number in range(5000)]
    photos = tar(tmp_path / "a.tar", [("a.jpg", b"a"), *members, ("b", (SYMBOLIC, "."))])
    tracemalloc.start()
    try:
        found = sum(map(len, photos.batches()))
        assert tracemalloc.get_traced_memory()[1] < 3 << 20
    finally:
        tracemalloc.stop()
    assert found == 5001


def test_sparse_target_is_unreadable_and_links_of_several_tars_stay_apart(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        add_sparse(file, "hole.jpg")
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = SYMBOLIC, "hole.jpg"
        file.addfile(link)
    tar(tmp_path / "b.tar", [("hole.jpg", b"b"), ("link.jpg", (HARD, "hole.jpg"))])
    photos = open_source(tmp_path / "*.tar")
    found = {image.path: image for image in images_in(photos)}
    assert list(found) == ["a.tar!hole.jpg", "a.tar!link.jpg", "b.tar!hole.jpg", "b.tar!link.jpg"]
    assert photos.read(found["b.tar!link.jpg"]) == b"b"
    with pytest.raises(ReadError) as refused:
        photos.read(found["a.tar!link.jpg"])
    assert refused.value.reason == "unreadable"


def test_links_that_lead_to_far_more_than_the_tar_has_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tar_links, "_MAX_ENTRIES", 1000)
    doubling: list[tuple[str, object]] = [("0/a.jpg", b"a")]
    for number in range(1, 41):
        doubling += [(f"{number}/{name}", (SYMBOLIC, f"../{number - 1}")) for name in "xy"]
    with pytest.raises(InputError, match=r"^Links in the tar a\.tar lead to folders with links, and so to more than"):
        images_in(tar(tmp_path / "a.tar", doubling))
    without_photos = tar(tmp_path / "b.tar", [("0/", FOLDER), *doubling[1:]])
    with pytest.raises(InputError, match=r"^Links in the tar b\.tar"):
        images_in(without_photos)
