"""Augmentation changes photos in training, as documented."""

from __future__ import annotations

import numpy as np
import pytest

from flowers_batch.finetuning.augmentation import RandomResizedCrop, augmentation_layers


def photos(count: int, side: int = 32) -> np.ndarray:
    """Pictures whose red is the row and whose green is the column of each pixel."""
    rows, columns = np.mgrid[:side, :side].astype(np.float32)
    return np.tile(np.stack([rows, columns, np.full_like(rows, 7)], -1), (count, 1, 1, 1))


def test_crops_are_enlarged_to_the_size_of_the_photo():
    side = 32
    found = np.asarray(RandomResizedCrop(0)(photos(400, side), training=True))
    assert found.shape == (400, side, side, 3)
    inner = slice(4, -4)  # at its borders a photo repeats its last pixel
    rows, columns = found[:, inner, 16, 0], found[:, 16, inner, 1]
    for lines in (rows, columns):
        steps = np.diff(lines, axis=1)
        np.testing.assert_allclose(steps, steps[:, :1].repeat(steps.shape[1], 1), atol=1e-4)  # straight
        assert lines.min() >= 0 and lines.max() <= side - 1
    height, width = np.diff(rows, axis=1)[:, 0], np.diff(columns, axis=1)[:, 0]  # of the part, as shares of a side
    area, proportion = height * width, width / height
    assert 0.33 < area.min() < 0.45 and 0.9 < area.max() <= 1 + 1e-4
    assert 0.74 < proportion.min() < 0.85 and 1.18 < proportion.max() < 1.35
    np.testing.assert_allclose(found[..., 2], 7, rtol=1e-5)
    top = rows[:, 0] - 4 * height
    assert top.std() > 1  # crops are in different places


@pytest.mark.parametrize("names", [("crop",), ("flip",), ("colour",), ("crop", "flip", "colour")])
def test_photos_stay_as_they_are_outside_training(names):
    pictures = augmented = photos(3)
    for layer in augmentation_layers(names, 0):
        augmented = layer(augmented, training=False)
    np.testing.assert_array_equal(augmented, pictures)


def test_only_named_augmentations_are_applied():
    assert augmentation_layers((), 0) == []
    kinds = [type(layer).__name__ for layer in augmentation_layers(("colour", "crop"), 0)]
    assert kinds == ["RandomResizedCrop", "RandomColorJitter"]


def test_seed_decides_on_the_crops():
    first, again, other = (np.asarray(RandomResizedCrop(seed)(photos(5), training=True)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_colours_vary_a_little_in_both_directions():
    red = np.tile(np.array([200, 60, 80], np.float32), (64, 8, 8, 1))
    (jitter,) = augmentation_layers(("colour",), 0)
    found = np.asarray(jitter(red, training=True)).mean((1, 2))
    saturation = (found.max(1) - found.min(1)) / (200 - 60)
    assert 0.7 < saturation.min() < 0.95 and 1.05 < saturation.max() < 1.4
    assert np.abs(found.mean(0) - red[0, 0, 0]).max() < 8
    assert (found.argmax(1) == 0).all()
