"""Groups of similar photos."""

from __future__ import annotations

import os

import numpy as np
import pytest
from codes_folder import labels, write_codes
from safetensors.numpy import load_file, save_file

from flowers_batch.dataset.run_folder import Run, open_run
from flowers_batch.dataset.schema import CODES
from flowers_batch.errors import InputError
from flowers_batch.search import groups
from flowers_batch.search.groups import GROUPS, Groups, group_photos, split_group, typical_rows


def run_of(tmp_path, **options) -> Run:
    """A run of 40 daisies, 30 roses and 20 tulips, whose codes are far apart."""
    return open_run(write_codes(tmp_path / "codes", labels(daisy=40, rose=30, tulip=20), spread=0.2, **options), CODES)


def as_lists(found: Groups) -> list[list[int]]:
    return [rows.tolist() for rows in found.rows]


@pytest.fixture
def computed(monkeypatch) -> list[int]:
    """The number of points of each clustering that was computed."""
    counts, clusters = list[int](), groups._clusters
    monkeypatch.setattr(
        groups, "_clusters", lambda points, count: counts.append(len(points)) or clusters(points, count)
    )
    return counts


def test_groups_are_clusters_of_codes_the_largest_first(tmp_path):
    found = group_photos(run_of(tmp_path), 3)
    assert [sorted(rows) for rows in as_lists(found)] == [list(range(40)), list(range(40, 70)), list(range(70, 90))]


def test_photos_nearest_to_the_centre_come_first(tmp_path):
    run = run_of(tmp_path)
    rows = group_photos(run, 3).rows[0]
    (batch,) = run.batches(["code"])
    codes = np.array(batch["code"].take(rows).to_pylist(), np.float32)
    roots = np.sign(codes) * np.sqrt(np.abs(codes))
    roots /= np.linalg.norm(roots, axis=1, keepdims=True)
    distances = np.linalg.norm(roots - roots.mean(0), axis=1)
    assert distances[:10].mean() < distances[10:30].mean() < distances[30:].mean()
    assert typical_rows(rows).tolist() == rows[:4].tolist()
    assert [len(typical_rows(np.arange(size))) for size in (2, 10, 100, 1000)] == [2, 4, 10, 100]


def test_of_equally_large_groups_the_distinct_one_comes_first():
    random = np.random.default_rng(0)
    vague = [random.normal((centre, 0), 1, (40, 2)) for centre in (0, 3)]
    points = np.concatenate([*vague, random.normal((30, 0), 1, (40, 2))]).astype(np.float32)
    assert sorted(groups._clusters(points, 3)[0]) == list(range(80, 120))


def test_failed_photos_and_copies_are_in_no_group(tmp_path):
    run = run_of(tmp_path, broken=(3, 50), copies=2)
    found = as_lists(group_photos(run, 3))
    copies = {90, 91}  # 92 and 93 have other bytes
    assert sorted(row for rows in found for row in rows) == sorted(set(range(94)) - {3, 50} - copies)


def test_groups_are_kept_for_the_next_start(tmp_path, computed):
    run = run_of(tmp_path)
    first = as_lists(group_photos(run, 3))
    assert as_lists(group_photos(run, 3)) == first and computed == [90]
    assert len(as_lists(group_photos(run, 2))) == 2 and len(computed) == 2


def test_kept_groups_of_other_photos_are_not_used(tmp_path, computed):
    kept = run_of(tmp_path)
    group_photos(kept, 3)
    larger = open_run(write_codes(tmp_path / "larger", labels(daisy=40, rose=60)), CODES)
    os.replace(tmp_path / "codes" / GROUPS, tmp_path / "larger" / GROUPS)
    group_photos(larger, 3)
    assert computed == [90, 100]


@pytest.mark.parametrize(
    "change",
    [
        lambda arrays: arrays | {"rows": arrays["rows"] + 1},
        lambda arrays: arrays | {"rows": np.zeros_like(arrays["rows"])},
        lambda arrays: arrays | {"rows": arrays["rows"].astype(np.int32)},
        lambda arrays: arrays | {"sizes": -arrays["sizes"]},
        lambda arrays: arrays | {"sizes": arrays["sizes"][:2]},
        lambda arrays: arrays | {"sizes": arrays["sizes"][:, None]},
        lambda arrays: {name: arrays[name] for name in ("rows", "identity")},
    ],
)
def test_damaged_groups_are_made_again(tmp_path, computed, change):
    run = run_of(tmp_path)
    first = as_lists(group_photos(run, 3))
    save_file(change(load_file(tmp_path / "codes" / GROUPS)), tmp_path / "codes" / GROUPS)
    assert as_lists(group_photos(run, 3)) == first and len(computed) == 2


def test_other_files_in_place_of_groups_are_not_read(tmp_path, computed):
    run = run_of(tmp_path)
    first = as_lists(group_photos(run, 3))
    for place in (lambda file: file.write_bytes(b"\xff" * 100), lambda file: os.truncate(file, 1 << 33), os.unlink):
        place(tmp_path / "codes" / GROUPS)
        assert as_lists(group_photos(run, 3)) == first
    assert len(computed) == 4


def test_a_folder_that_cannot_be_written_is_grouped_each_time(tmp_path, computed, monkeypatch):
    run = run_of(tmp_path)
    os.mkdir(tmp_path / "codes" / GROUPS)  # stands in the way, for root, too
    assert as_lists(group_photos(run, 3)) == as_lists(group_photos(run, 3)) and len(computed) == 2


def test_large_archive_is_grouped_by_a_sample(tmp_path, monkeypatch):
    run = run_of(tmp_path)
    monkeypatch.setattr(groups, "MAX_PHOTOS", 30)
    found = as_lists(group_photos(run, 3))
    assert sum(map(len, found)) == 30 and len({row for rows in found for row in rows}) == 30


@pytest.mark.parametrize("photos", [0, 1, 2, 5])
def test_few_photos_are_grouped_too(tmp_path, photos):
    names = labels(daisy=5)
    run = open_run(write_codes(tmp_path / "codes", names, failed=5 - photos), CODES)
    assert sorted(row for rows in as_lists(group_photos(run)) for row in rows) == list(range(photos))


def test_mixed_group_is_split_in_two_the_larger_part_first(tmp_path):
    larger, smaller = split_group(run_of(tmp_path), np.array([*range(60, 90), 0]))
    assert {*smaller.tolist()} <= {0, *range(60, 70)} and {*range(70, 90)} <= {*larger.tolist()}
    assert len(larger) + len(smaller) == 31


def test_group_of_equal_codes_is_split_in_the_middle(tmp_path):
    run = open_run(write_codes(tmp_path / "codes", labels(daisy=8), spread=0), CODES)
    assert [len(part) for part in split_group(run, np.arange(7))] == [4, 3]
    with pytest.raises(InputError, match="cannot be split"):
        split_group(run, np.arange(1))
