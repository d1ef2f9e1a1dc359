import numpy as np
import pytest
from PIL import Image

from flowers_batch.demo import drawings
from flowers_batch.demo.drawings import FLOWER_CLASSES, draw_flower, draw_photos


def drawn(kind, seed):
    return draw_flower(kind, np.random.default_rng(seed))


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*")}


@pytest.mark.parametrize("kind", FLOWER_CLASSES)
def test_flower_has_the_documented_size_and_contrast(kind):
    for seed in range(4):
        picture = drawn(kind, seed)
        height, width, channels = picture.shape
        assert picture.dtype == np.uint8
        assert channels == 3
        assert 240 <= min(height, width) <= 270
        assert 300 <= max(height, width) <= 360
        assert picture.std() > 10
        assert picture.max() > 120


def test_pictures_are_landscapes_and_portraits():
    shapes = [drawn("tulips", seed).shape for seed in range(10)]
    assert {height < width for height, width, _ in shapes} == {True, False}


@pytest.mark.parametrize("kind", FLOWER_CLASSES)
def test_flower_depends_on_its_seed_alone(kind):
    first, again, other = drawn(kind, 7), drawn(kind, 7), drawn(kind, 8)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_kinds_differ_in_how_they_are_drawn():
    pictures = [drawn(kind, 3) for kind in FLOWER_CLASSES]
    assert len({picture.tobytes() for picture in pictures}) == len(FLOWER_CLASSES)


def test_unknown_kind_is_refused_by_name():
    with pytest.raises(ValueError, match=r"orchid.*daisy, dandelion, roses, sunflowers, tulips"):
        drawn("orchid", 0)


def test_drawing_advances_the_generator():
    generator = np.random.default_rng(0)
    assert not np.array_equal(draw_flower("daisy", generator), draw_flower("daisy", generator))


@pytest.fixture
def quick(monkeypatch):
    """Draw small noise instead of flowers, for tests of files rather than of flowers."""

    def noise(kind, rng):
        return rng.integers(0, 256, (8, 9 + FLOWER_CLASSES.index(kind), 3), np.uint8)

    monkeypatch.setattr(drawings, "draw_flower", noise)


@pytest.mark.parametrize(("count", "numbers"), [(0, [0] * 5), (3, [1, 1, 1, 0, 0]), (12, [3, 3, 2, 2, 2])])
def test_photos_are_spread_evenly_over_the_classes(tmp_path, quick, count, numbers):
    draw_photos(tmp_path / "new", count)
    expected = {
        f"{kind}/{kind}-{n:04d}.jpg" for kind, some in zip(FLOWER_CLASSES, numbers, strict=True) for n in range(some)
    }
    assert set(files(tmp_path / "new")) == expected
    assert {path.name for path in (tmp_path / "new").iterdir()} == set(FLOWER_CLASSES)


def test_larger_count_adds_photos_and_keeps_the_others(tmp_path, quick):
    few, many = tmp_path / "few", tmp_path / "many"
    draw_photos(few, 7, seed=4)
    draw_photos(many, 23, seed=4)
    assert len(files(many)) == 23
    assert files(few).items() <= files(many).items()


def test_photos_differ_from_each_other(tmp_path, quick):
    draw_photos(tmp_path / "a", 15, seed=1)
    draw_photos(tmp_path / "b", 15, seed=2)
    pictures = [*files(tmp_path / "a").values(), *files(tmp_path / "b").values()]
    assert len(set(pictures)) == 30


def test_photo_depends_on_its_seed_class_and_number(tmp_path):
    draw_photos(tmp_path, 6, seed=5)
    for name, number, index in (("daisy/daisy-0001", 0, 1), ("tulips/tulips-0000", 4, 0)):
        with Image.open(tmp_path / f"{name}.jpg") as photo:
            assert photo.format == "JPEG"
            pixels = np.asarray(photo).astype(float)
        flower = drawn(FLOWER_CLASSES[number], (5, number, index))
        assert pixels.shape == flower.shape
        assert np.abs(pixels - flower).mean() < 6


def test_files_of_the_same_name_are_replaced(tmp_path, quick):
    draw_photos(tmp_path, 5, seed=1)
    first = files(tmp_path)
    draw_photos(tmp_path, 5, seed=2)
    assert files(tmp_path).keys() == first.keys()
    assert all(files(tmp_path)[name] != content for name, content in first.items())


@pytest.mark.parametrize("arguments", [{"count": -1}, {"count": 5, "seed": -1}])
def test_negative_numbers_are_refused(tmp_path, arguments):
    with pytest.raises(ValueError, match="-1"):
        draw_photos(tmp_path / "none", **arguments)
    assert not (tmp_path / "none").exists()
