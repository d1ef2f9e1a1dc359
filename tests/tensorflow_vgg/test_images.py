import io

import numpy as np
import pytest
import skimage.io
import skimage.transform
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from flowers_batch.decoding.decode import decode
from flowers_batch.decoding.resizing import resize
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


def test_mean_pixel_is_blue_green_red():
    assert MEAN_BGR == (103.939, 116.779, 123.68)


# Photos of any size and mode

FEW = settings(max_examples=15, deadline=None, derandomize=True, database=None)


def chain(photo):
    """Crop and resize, with scikit-image's defaults written out."""
    height, width = photo.shape[:2]
    side = min(height, width)
    rows, columns = (slice((length - side) // 2, (length - side) // 2 + side) for length in (height, width))
    return skimage.transform.resize(
        photo[rows, columns],
        (224, 224),
        order=1,
        mode="reflect",
        clip=True,
        preserve_range=False,
        anti_aliasing=True,
        anti_aliasing_sigma=(max(0, (side / 224 - 1) / 2),) * 2 + (0,),
    )


@FEW
@given(st.integers(1, 500), st.integers(1, 500))
@example(1, 1)
@example(1, 4000)
@example(3000, 2)
@example(224, 224)
@example(3000, 4000)
def test_centre_square_takes_photos_of_any_size(height, width):
    photo = noise(height, width) / 255.0
    found = centre_square(photo)
    assert found.shape == (224, 224, 3)
    assert found.dtype == np.float64
    assert found.min() >= 0
    assert found.max() <= 1
    np.testing.assert_allclose(found, chain(photo), atol=1e-12)


@FEW
@given(st.integers(1, 1200))
@example(1)
@example(2)
@example(223)
@example(225)
@example(448)
@example(1200)
def test_fast_resize_equals_the_reference_at_any_size(side):
    square = noise(side, side)
    found = resize(square)
    assert found.dtype == np.float32
    assert np.abs(found - centre_square(square / 255.0) * 255).max() < 1e-3


MODES = {
    "1": ["PNG", "TIFF", "BMP"],
    "L": ["PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP"],
    "LA": ["PNG", "TIFF"],
    "P": ["PNG", "GIF", "TIFF", "BMP"],
    "RGB": ["PNG", "JPEG", "TIFF", "BMP", "WEBP", "AVIF", "HEIF"],
    "RGBA": ["PNG", "TIFF", "WEBP", "AVIF", "HEIF"],
    "CMYK": ["JPEG", "TIFF"],
    "I;16": ["PNG", "TIFF"],
}


def picture(mode, height, width):
    """A noisy picture of any mode."""
    if mode == "I;16":
        return Image.fromarray(np.random.default_rng(0).integers(0, 65536, (height, width), np.uint16))
    return Image.fromarray(noise(height, width)).convert(mode)


@settings(FEW, max_examples=60)
@given(
    st.sampled_from([(mode, kind) for mode in MODES for kind in MODES[mode]]), st.integers(1, 300), st.integers(1, 300)
)
@example(("CMYK", "JPEG"), 1, 1)
@example(("1", "PNG"), 1, 300)
@example(("I;16", "TIFF"), 300, 1)
@example(("P", "GIF"), 1, 1)
def test_decode_gives_pixels_of_each_mode_and_size(mode_and_kind, height, width):
    mode, kind = mode_and_kind
    buffer = io.BytesIO()
    picture(mode, height, width).save(buffer, kind)
    found = decode(buffer.getvalue())
    assert (found.height, found.width) == (height, width)
    assert found.pixels.shape == (224, 224, 3)
    assert found.pixels.dtype == np.float32
    assert found.pixels.min() >= 0
    assert found.pixels.max() < 255 + 1e-3  # float32 sums are not exact


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("white", [False, True])
def test_decode_keeps_black_and_white_of_each_mode(mode, white):
    for kind in MODES[mode]:
        buffer = io.BytesIO()
        colour = {"I;16": 65535 * white, "CMYK": (0, 0, 0, 255 * (not white))}.get(mode)
        if colour is None:
            Image.new("RGB", (300, 250), "white" if white else "black").convert(mode).save(buffer, kind)
        else:
            Image.new(mode, (300, 250), colour).save(buffer, kind)
        np.testing.assert_allclose(decode(buffer.getvalue()).pixels, 255 * white, atol=1.5, err_msg=kind)
