import numpy as np
import pytest
import skimage.io
import skimage.transform

from tensorflow_vgg.images import MEAN_BGR, centre_square, load_image


def saved(tmp_path, pixels, name="photo.png"):
    path = tmp_path / name
    skimage.io.imsave(path, pixels, check_contrast=False)
    return path


def noise(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize(("height", "width"), [(300, 401), (401, 300), (224, 224), (60, 90), (50, 50)])
def test_load_image_resizes_the_centre_square_as_skimage_does(tmp_path, height, width):
    pixels = noise(height, width)
    photo = load_image(saved(tmp_path, pixels))
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    crop = pixels[top : top + side, left : left + side] / 255.0
    assert photo.shape == (224, 224, 3)
    assert photo.dtype == np.float64
    np.testing.assert_array_equal(photo, skimage.transform.resize(crop, (224, 224)))


@pytest.mark.parametrize("shape", [(224, 320), (320, 224)])
def test_load_image_leaves_out_the_border_on_both_sides(tmp_path, shape):
    pixels = np.full((*shape, 3), (255, 0, 0), np.uint8)
    top, left = (shape[0] - 224) // 2, (shape[1] - 224) // 2
    pixels[top : top + 224, left : left + 224] = (0, 51, 255)
    photo = load_image(saved(tmp_path, pixels))
    np.testing.assert_allclose(photo, np.broadcast_to((0, 0.2, 1), (224, 224, 3)), atol=1e-12)


def test_load_image_spans_0_to_1_and_keeps_red_first(tmp_path):
    pixels = np.zeros((300, 300, 3), np.uint8)
    pixels[:, :, 0] = 255
    photo = load_image(saved(tmp_path, pixels))
    assert photo[..., 0].min() == pytest.approx(1)
    assert photo[..., 1:].max() == 0
    photo = load_image(saved(tmp_path, noise(90, 120)))
    assert photo.min() >= 0
    assert photo.max() <= 1


def test_load_image_takes_a_string_and_a_jpeg(tmp_path):
    path = saved(tmp_path, np.full((240, 260, 3), 128, np.uint8), "photo.jpg")
    np.testing.assert_allclose(load_image(str(path)), 128 / 255, atol=2 / 255)


def test_centre_square_leaves_its_input_as_it_is():
    photo = noise(250, 300) / 255.0
    before = photo.copy()
    assert centre_square(photo).shape == (224, 224, 3)
    np.testing.assert_array_equal(photo, before)


def test_the_mean_pixel_is_blue_green_red():
    assert MEAN_BGR == (103.939, 116.779, 123.68)
