"""Merging a new listing of the archive into the manifest."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import pytest
from helpers import listed
from listings import COUNTS, PATHS, Listing, grown, parts, paths_of

from flowers_batch.dataset import growth
from flowers_batch.dataset.growth import grow_manifest, write_manifest
from flowers_batch.dataset.manifest import (
    read_manifest,
    read_rows,
    rows_in_path_order,
)
from flowers_batch.errors import InputError
from flowers_batch.sources.images import Image, path_bytes
from flowers_batch.storage.folder import Folder
from flowers_batch.storage.json_files import write_json
from flowers_batch.storage.opening import open_folder


def test_equal_listing_changes_nothing_and_keeps_success(folder):
    manifest = write_manifest(folder, Listing(listed(PATHS)), 4, "run")
    write_json(folder, "_SUCCESS", {})
    assert grown(folder, listed(PATHS)) == (manifest, dict.fromkeys(COUNTS, 0))
    assert read_manifest(folder) == manifest and folder.exists("_SUCCESS")


def test_new_images_go_into_new_shards_and_delete_success(folder):
    images = listed(PATHS)
    before = write_manifest(folder, Listing(images[1::2]), 4, "run")  # 13 images, 4 shards
    write_json(folder, "_SUCCESS", {})
    manifest, counts = grown(folder, images, size=10)
    assert manifest == read_manifest(folder) and not folder.exists("_SUCCESS")
    assert manifest.shards[:4] == before.shards and counts["new"] == 14
    assert paths_of(folder, manifest)[4:] == [PATHS[::2][:10], PATHS[::2][10:]]


def test_changed_image_changes_only_its_shard_and_keeps_its_place(folder):
    images = listed(PATHS)
    before = write_manifest(folder, Listing(images), 4, "run")
    images[5] = replace(images[5], bytes=999)
    manifest, counts = grown(folder, images)
    assert counts == dict.fromkeys(COUNTS, 0) | {"changed": 1}
    same = [one.inputs_digest == other.inputs_digest for one, other in zip(before.shards, manifest.shards, strict=True)]
    assert same == [True, False, True, True, True, True, True]
    assert paths_of(folder, manifest) == paths_of(folder, before)
    assert read_rows(folder, manifest.shards[1])["bytes"].to_pylist()[1] == 999


def test_missing_images_stay_marked_until_they_are_pruned(folder):
    images = listed(PATHS)
    before = write_manifest(folder, Listing(images), 4, "run")
    manifest, counts = grown(folder, images[3:])
    assert (manifest.missing, manifest.images, counts["missing"]) == (3, 27, 3)
    assert [shard.inputs_digest for shard in manifest.shards] == [shard.inputs_digest for shard in before.shards]
    assert grown(folder, images[3:])[1] == dict.fromkeys(COUNTS, 0)
    manifest, counts = grown(folder, images[3:], prune=True)
    assert (manifest.missing, manifest.images, counts["pruned"]) == (0, 24, 3)
    assert paths_of(folder, manifest)[0] == PATHS[3:4]


def test_returned_image_is_retried_only_if_it_had_failed(folder):
    images = listed(PATHS)
    before = write_manifest(folder, Listing(images), 4, "run")
    grown(folder, images[2:])
    manifest, counts = grown(folder, images, failed=lambda shard: {PATHS[1]})
    assert (manifest.missing, counts["returned"], counts["retried"]) == (0, 1, 1)
    assert read_rows(folder, manifest.shards[0])["attempt"].to_pylist() == [0, 1, 0, 0]
    grown(folder, images[4:])
    manifest, counts = grown(folder, images)
    assert (manifest.missing, counts["returned"], counts["retried"]) == (0, 4, 0)
    assert [shard.inputs_digest for shard in manifest.shards[1:]] == [
        shard.inputs_digest for shard in before.shards[1:]
    ]


def test_listed_name_without_a_file_is_missing_and_keeps_its_row(folder):
    """Entries of a list, or links to an unmounted disk: their rows must not be lost."""
    images = listed(PATHS)
    before = write_manifest(folder, Listing(images), 4, "run")
    without_files = [Image(path) for path in PATHS]
    manifest, counts = grown(folder, [*without_files[:3], *images[3:]])
    assert (counts["missing"], counts["changed"], manifest.missing) == (3, 0, 3)
    assert [shard.inputs_digest for shard in manifest.shards] == [shard.inputs_digest for shard in before.shards]
    with pytest.raises(InputError, match="There are no images"):
        grown(folder, without_files)
    assert grown(folder, images)[1]["returned"] == 3


def test_list_with_only_names_may_grow(folder):
    without_files = [Image(path) for path in PATHS]
    write_manifest(folder, Listing(without_files[:20]), 4, "run")
    manifest, counts = grown(folder, without_files)
    assert counts == dict.fromkeys(COUNTS, 0) | {"new": 7} and manifest.missing == 0


def test_pruning_refuses_another_archive_in_the_same_place(folder):
    manifest = write_manifest(folder, Listing(listed(PATHS)), 4, "run")
    with pytest.raises(InputError, match="None of the images"):
        grown(folder, listed(["x.jpg", "y.jpg"]), prune=True)
    assert read_manifest(folder) == manifest


def test_another_root_of_a_list_is_another_place(folder):
    listing = Listing(listed(PATHS))
    listing.root = "/a"
    assert write_manifest(folder, listing, 4, "run").listing.source == f"{listing.url}, below {listing.root}"


def test_shard_may_lose_all_its_images(folder):
    images = listed(PATHS)
    write_manifest(folder, Listing(images), 4, "run")
    manifest, _ = grown(folder, images[4:], prune=True)
    assert manifest.shards[0].images == 0 and paths_of(folder, manifest)[0] == []
    assert read_manifest(folder) == manifest


def test_emptied_archive_is_refused_and_changes_nothing(folder):
    manifest = write_manifest(folder, Listing(listed(PATHS)), 4, "run")
    write_json(folder, "_SUCCESS", {})
    with pytest.raises(InputError, match="There are no images in /photos"):
        grown(folder, [], prune=True)
    assert read_manifest(folder) == manifest and folder.exists("_SUCCESS")


def test_another_archive_is_refused_and_one_that_moved_is_not(folder):
    manifest = write_manifest(folder, Listing(listed(PATHS)), 4, "run")
    other = Listing(listed(["x.jpg", "y.jpg"]))
    other.url = "/others"
    with pytest.raises(InputError, match=r"None of the images in /others is one of those .* in /photos"):
        grow_manifest(folder, manifest, other, 4, "next")
    moved = Listing(listed([*PATHS, "ü/x.jpg"]))
    moved.url = "/moved"
    assert grow_manifest(folder, manifest, moved, 4, "next")[1]["new"] == 1


def test_killed_generation_is_listed_again(folder, monkeypatch):
    images = listed(PATHS)
    before = write_manifest(folder, Listing(images[:9]), 5, "run", shards_per_part=1)
    publish, published = Folder.publish, []

    def killed(self, name):
        if len(published) == 2:
            raise KeyboardInterrupt
        published.append(name)
        return publish(self, name)

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "publish", killed)
        with pytest.raises(KeyboardInterrupt):
            grown(folder, images, size=3, shards_per_part=1)
    assert read_manifest(folder) == replace(before, is_complete=False)
    manifest, counts = grown(folder, images, size=18, run="third", shards_per_part=1)
    assert read_manifest(folder) == manifest and manifest.is_complete
    assert counts["new"] == 18 and len(parts(folder)) == 3
    assert sorted(itertools.chain(*paths_of(folder, manifest))) == sorted(PATHS)


def test_manifest_that_lost_a_middle_part_is_refused(folder):
    """If it were mistaken for a killed listing, all later generations would be lost."""
    images = listed(PATHS)
    write_manifest(folder, Listing(images[:9]), 5, "run")
    grown(folder, images[:18])
    grown(folder, images)
    folder.delete("manifest/part-000001.parquet")
    with pytest.raises(InputError, match=r"part-000001\.parquet is missing"):
        read_manifest(folder)


def test_leftovers_of_a_killed_generation_are_deleted(folder, monkeypatch):
    images = listed(PATHS)
    before = write_manifest(folder, Listing(images[:9]), 5, "run", shards_per_part=1)

    whole = growth.cut_into_shards
    monkeypatch.setattr(growth, "cut_into_shards", lambda *arguments: killed_after(whole(*arguments), 2))
    with pytest.raises(KeyboardInterrupt):
        grown(folder, images, size=3, shards_per_part=1)
    monkeypatch.setattr(growth, "cut_into_shards", whole)
    assert not read_manifest(folder).is_complete
    manifest, counts = grown(folder, images[:9], shards_per_part=1)
    assert counts == dict.fromkeys(COUNTS, 0) and manifest == before
    assert read_manifest(folder) == before and len(parts(folder)) == before.parts


def test_kill_while_deleting_leftovers_can_be_resumed(folder, monkeypatch):
    images = listed(PATHS)
    before = write_manifest(folder, Listing(images[:9]), 5, "run", shards_per_part=1)
    whole, delete = growth.cut_into_shards, Folder.delete
    monkeypatch.setattr(growth, "cut_into_shards", lambda *arguments: killed_after(whole(*arguments), 4))
    with pytest.raises(KeyboardInterrupt):
        grown(folder, images, size=3, shards_per_part=1)
    monkeypatch.setattr(growth, "cut_into_shards", whole)

    def killed(self, name):
        delete(self, name)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "delete", killed)
        with pytest.raises(KeyboardInterrupt):
            grown(folder, images[:9], shards_per_part=1)
    assert read_manifest(folder) == replace(before, is_complete=False)
    assert grown(folder, images[:9], shards_per_part=1)[0] == before


def killed_after(pieces, count):
    yield from itertools.islice(pieces, count)
    raise KeyboardInterrupt


@pytest.mark.parametrize("in_path_order", [True, False])
@pytest.mark.parametrize("seed", range(2))
def test_random_generations_keep_every_image_in_one_shard(tmp_path, seed, in_path_order):
    """Compare with a model: a path keeps its shard while it is in the manifest, and nothing is lost."""
    draw = random.Random(seed)
    names = [f"{draw.choice(['a', 'a-b', 'a.b', 'B', 'é', '😀'])}/{number}.jpg" for number in range(60)]
    names += [f"//bytes/{folder}/%FF{number}.jpg" for folder in ("a", "a-b", "%E9", "zz") for number in range(5)]
    names = sorted(set(names), key=path_bytes)
    folder = open_folder(tmp_path)
    model: dict[str, tuple[int, int, bool]] = {}  # size, shard, missing
    for generation in range(9):
        sizes = {name: draw.randint(1, 2) if draw.random() < 0.3 else 1 for name in names if draw.random() < 0.6}
        images = [replace(listed([name])[0], bytes=size) for name, size in sizes.items()]
        if not in_path_order:
            images = [replace(image, source="t.tar", offset=draw.randrange(1000)) for image in images]
            draw.shuffle(images)
        listing, size, prune = Listing(images), draw.randint(1, 20), draw.random() < 0.3
        listing.in_path_order = in_path_order
        expected = dict.fromkeys(COUNTS, 0)
        if generation:
            manifest, counts = grow_manifest(
                folder, read_manifest(folder), listing, size, "run", prune=prune, shards_per_part=3
            )
        else:
            manifest, counts = (
                write_manifest(folder, listing, size, "run", shards_per_part=3),
                expected | {"new": len(images)},
            )
        assert read_manifest(folder) == manifest
        tables = [read_rows(folder, shard) for shard in manifest.shards]
        found = {
            row["path"]: (row["bytes"], shard.number, row["action"] == "missing")
            for shard, table in zip(manifest.shards, tables, strict=True)
            for row in table.to_pylist()
        }
        assert len(found) == sum(map(len, tables)) == manifest.images
        for path, (old, _, missing) in model.items():
            if path not in sizes:
                expected["pruned"] += prune
                expected["missing"] += not prune and not missing
            elif in_path_order:
                expected["changed"] += old != sizes[path]
                expected["returned"] += old == sizes[path] and missing
        expected["new"] = len(sizes.keys() - model.keys())
        if in_path_order:
            assert counts == expected
        kept = model.keys() if not prune else model.keys() & sizes.keys()
        assert found.keys() == sizes.keys() | kept
        for path, (size, shard, missing) in found.items():
            assert missing == (path not in sizes)
            assert size == sizes.get(path, size)
            assert shard == (model[path][1] if path in model else shard)
        in_order = [path for rows in rows_in_path_order(folder, manifest) for path in rows["path"].to_pylist()]
        assert in_order == sorted(found, key=path_bytes)
        model = found


def test_retried_images_change_only_their_shards(folder):
    images = listed(PATHS)
    before = write_manifest(folder, Listing(images), 9, "run")
    again = {1: {PATHS[10], PATHS[12], "elsewhere"}}
    failed = {"failed": lambda shard: again.get(shard.number, set())}
    assert grown(folder, images, **failed)[1]["retried"] == 0
    manifest, counts = grown(folder, images, retry=True, **failed)
    assert counts["retried"] == 2
    assert [s.inputs_digest == t.inputs_digest for s, t in zip(before.shards, manifest.shards, strict=True)] == [
        True,
        False,
        True,
    ]
    assert read_rows(folder, manifest.shards[1])["attempt"].to_pylist() == [0, 1, 0, 1, 0, 0, 0, 0, 0]
