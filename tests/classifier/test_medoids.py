"""Photos that stand for many others."""

from __future__ import annotations

import numpy as np

from flowers_batch.classifier.labelled_codes import CodesInMemory
from flowers_batch.classifier.medoids import reduce_codes, select_medoids


def blobs(*sizes: int, spread: float = 0.1) -> np.ndarray:
    """Points around (0, 0), (10, 0), (20, 0), ..., as many as the sizes say."""
    random = np.random.default_rng(0)
    centres = np.repeat(np.arange(len(sizes)) * 10.0, sizes)
    return np.stack([random.normal(centres, spread), random.normal(0, spread, len(centres))], 1).astype(np.float32)


def test_each_cluster_has_one_medoid_the_largest_first():
    points = blobs(20, 40, 30)
    chosen = select_medoids(points, np.ones(90), 3)
    assert points[chosen, 0].round(-1).tolist() == [10, 20, 0]
    middle = points[:20].mean(0)
    assert np.linalg.norm(points[chosen[2]] - middle) == np.linalg.norm(points[:20] - middle, axis=1).min()


def test_heavy_points_are_represented_in_more_detail():
    points = blobs(50, 50, spread=1)
    assert (select_medoids(points, np.ones(100), 6) < 50).sum() > 1
    assert (select_medoids(points, np.repeat([0.01, 1.0], 50), 6) < 50).sum() == 1


def test_as_many_points_are_chosen_as_wanted_although_some_are_equal():
    points = np.repeat(blobs(1, 1, 1), 4, axis=0)
    chosen = select_medoids(points, np.ones(12), 5)
    assert len(set(chosen.tolist())) == 5 and len(set(points[chosen[:3], 0].tolist())) == 3
    assert sorted(select_medoids(points, np.ones(12), 99).tolist()) == list(range(12))


def test_codes_are_compared_by_direction_and_read_in_chunks(monkeypatch):
    monkeypatch.setattr("flowers_batch.classifier.medoids._CHUNK_SIZE", 7)
    random = np.random.default_rng(0)
    codes = random.exponential(1, (60, 8)).astype(np.float16)
    codes[5] = 4 * codes[4]
    codes[6] = 0
    points = reduce_codes(CodesInMemory(codes), 60)
    assert points.shape == (60, 8) and points.dtype == np.float32 and np.isfinite(points).all()
    assert np.abs(points[4] - points[5]).max() < 1e-3 < np.abs(points[4] - points[7]).max()


def test_components_are_computed_from_a_part_of_the_codes(monkeypatch):
    fitted = []
    monkeypatch.setattr("flowers_batch.classifier.medoids._MAX_FITTED_VALUES", 0)
    random = np.random.default_rng(0)
    codes = CodesInMemory(random.exponential(1, (500, 64)).astype(np.float16))
    take = codes.take
    monkeypatch.setattr(codes, "take", lambda indices: fitted.append(indices) or take(indices))
    assert reduce_codes(codes, 500).shape == (500, 50)
    assert len(fitted) == 1 and len(set(fitted[0].tolist())) == 50 and fitted[0].max() == 499
