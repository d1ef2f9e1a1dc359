"""RAW files are decoded by their preview, upright and once, with the photo's own size; ordinary TIFFs stay TIFFs."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import tifffile
from helpers import encoded
from image_files import UNDO, blocks, off, tiff
from PIL import Image
from raw_files import directory, dng

from flowers_batch.decoding import raw
from flowers_batch.decoding.decode import decode
from flowers_batch.decoding.decode_photo import decode_photo
from flowers_batch.decoding.errors import DecodeError
from flowers_batch.decoding.raw import Raw, is_raw

JPEG = {"quality": 100, "subsampling": 0}


def taken(photo: np.ndarray, orientation: int) -> np.ndarray:
    """What the sensor saw of an upright photo."""
    return photo if UNDO[orientation] is None else np.asarray(Image.fromarray(photo).transpose(UNDO[orientation]))


def jpeg(photo: np.ndarray, orientation: int | None = None) -> bytes:
    """A preview: without EXIF, or with some that states an orientation, or 0 for none."""
    exif = Image.Exif()
    exif[0x010E] = "a preview"
    if orientation:
        exif[0x0112] = orientation
    if orientation is None:
        return encoded(photo, "JPEG", **JPEG)
    data = encoded(photo, "JPEG", **JPEG, exif=exif.tobytes())
    return data[:2] + data[data.index(b"\xff\xe1") :]  # EXIF comes first, as cameras write it


def refused(data: bytes, max_pixels: int = 10**8) -> DecodeError:
    with pytest.raises(DecodeError) as error:
        decode(data, max_pixels)
    return error.value


@pytest.mark.parametrize("in_first", [False, True], ids=["preview first", "sensor first"])
@pytest.mark.parametrize("orientation", UNDO)
def test_preview_of_a_raw_comes_out_upright_with_the_full_size(orientation, in_first):
    small, large = blocks(224, 256), blocks(320, 400)
    data = dng(taken(large, orientation), jpeg(taken(small, orientation)), orientation, in_first)
    assert off(decode_photo(data), small) <= 2
    picture = decode(data)
    assert (picture.width, picture.height) == (400, 320)
    assert picture.phash == decode(jpeg(small)).phash


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_raw_whose_preview_states_its_orientation_is_turned_once(orientation):
    small = blocks(240, 360)
    data = dng(taken(blocks(480, 720), orientation), jpeg(taken(small, orientation), orientation), orientation)
    assert off(decode_photo(data), small) <= 2


@pytest.mark.parametrize("stated", [None, 1, 6], ids=["nothing", "upright", "turned"])
def test_preview_that_is_upright_already_is_not_turned(stated):
    small = blocks(360, 240)
    data = dng(taken(blocks(720, 480), 6), jpeg(small, stated), 6)
    assert off(decode_photo(data), small) <= 2


@pytest.mark.parametrize("stated", [0, 1], ids=["nothing", "upright"])
def test_preview_whose_exif_does_not_know_of_the_turn_is_turned(stated):
    small = blocks(360, 240)
    data = dng(taken(blocks(720, 480), 8), jpeg(taken(small, 8), stated), 8)
    assert off(decode_photo(data), small) <= 2


def test_thumbnail_of_a_raw_may_be_decoded_to_less():
    data = dng(blocks(960, 1280), jpeg(blocks(720, 960)))
    assert decode_photo(data, min_side=300).shape == (360, 480, 3)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("preview", [None, (160, 120)], ids=["none", "tiny"])
def test_raw_without_a_preview_of_use_is_developed(preview, orientation):
    large = blocks(480, 720)
    data = dng(taken(large, orientation), preview and jpeg(taken(blocks(*preview), orientation)), orientation)
    picture = decode(data)
    assert (picture.width, picture.height) == (720, 480)
    developed, expected = decode_photo(data), large[::2, ::2]
    assert developed.shape == expected.shape
    for channel in range(3):  # however bright LibRaw makes it
        assert np.corrcoef(developed[:, :, channel].ravel(), expected[:, :, channel].ravel())[0, 1] > 0.9


def test_limit_of_pixels_holds_for_what_is_decoded_of_a_raw():
    preview = jpeg(blocks(240, 360))
    assert decode(dng(blocks(480, 720), preview), 240 * 360).width == 720
    assert str(refused(dng(blocks(480, 720), preview), 240 * 360 - 1)).startswith("It has 360 x 240 pixels;")
    error = refused(dng(blocks(480, 720), None), 480 * 720 - 1)
    assert error.reason == "too_large" and str(error).startswith("It has 720 x 480 pixels;")


def test_bomb_as_a_preview_is_refused_by_its_header():
    preview = bytearray(jpeg(blocks(240, 360)))
    at = preview.index(b"\xff\xc0") + 5
    preview[at : at + 4] = struct.pack(">HH", 50_000, 50_000)
    assert refused(dng(blocks(48, 72), bytes(preview))).reason == "too_large"


def test_raw_without_libraw_says_what_to_install(monkeypatch):
    monkeypatch.setattr(raw, "rawpy", None)
    error = refused(dng(blocks(48, 72), None))
    assert error.reason == "unsupported" and "pip install 'flowers-batch[raw]'" in str(error)


def test_preview_of_a_cut_file_holds_nothing_that_was_in_memory_before():
    data = dng(blocks(480, 720), jpeg(blocks(240, 360)))
    whole = raw.read_raw(data).preview
    for cut in (1, 2000):
        assert raw.read_raw(data[:-cut]).preview == whole[:-cut]
    scan = data.rindex(b"\xff\xda") + 14  # where its header ends
    repeating = data[:8192] + data[scan : scan + 256] + data[8448:]  # as if the preview began there
    assert raw.read_raw(repeating).preview == whole
    assert raw.read_raw(repeating[:-2000]).preview == whole[:-2000]


def test_damaged_preview_and_sensor_values_are_truncated():
    data = dng(blocks(480, 720), jpeg(blocks(240, 360)))
    assert refused(data[:-2000]).reason == "truncated"
    error = refused(dng(blocks(480, 720), None)[:-300_000])
    assert error.reason == "truncated" and str(error).startswith("The RAW file is broken or cut short:")


@pytest.mark.parametrize(
    "start", [b"FUJIFILMCCD-RAW 0201", b"IIU\0\x18\0\0\0", b"IIRO\x08\0\0\0", b"II*\0\x10\0\0\0CR\2\0"]
)
def test_raw_of_which_only_the_beginning_is_there_is_refused(start):
    assert is_raw(start)
    assert refused(start + bytes(500)).reason in ("unsupported", "truncated")


def test_raw_of_canon_in_boxes_is_no_heif():
    assert is_raw(b"\0\0\0\x18ftypcrx \0\0\0\1crx isom")
    assert not is_raw(encoded(blocks(), "HEIF"))


@pytest.mark.parametrize("options", [{}, {"tile": (16, 16)}, {"bigtiff": True}, {"byteorder": ">"}, {"subifds": 1}])
def test_ordinary_tiff_is_no_raw(options):
    buffer, writing = io.BytesIO(), {name: options.pop(name) for name in ("bigtiff", "byteorder") if name in options}
    with tifffile.TiffWriter(buffer, **writing) as file:
        for kind in (options, {}):
            file.write(blocks(), photometric="rgb", **kind)
    assert not is_raw(buffer.getvalue())
    assert off(decode_photo(buffer.getvalue()), blocks()) == 0


def test_tiff_with_the_version_of_dng_is_a_tiff():
    data = tiff(blocks(), photometric="rgb", extratags=[(50706, 1, 4, (1, 4, 0, 0), True)])
    assert off(decode_photo(data), blocks()) == 0


def test_sensor_values_are_found_in_any_directory():
    first, second = directory(8, {256: (4, [8]), 262: (3, [2])}), {262: (3, [32803])}
    chained = bytearray(b"II*\0\x08\0\0\0" + first + directory(8 + len(first), second))
    assert not is_raw(bytes(chained))
    struct.pack_into("<I", chained, 8 + len(first) - 4, 8 + len(first))
    assert is_raw(bytes(chained))
    both = {330: (4, [100, 200])}
    data = (b"II*\0\x08\0\0\0" + directory(8, both)).ljust(200, b"\0") + directory(200, second)
    assert is_raw(data)


def test_thumbnail_of_a_camera_before_other_directories_is_a_raw():
    tags = {254: (4, [1]), 271: (2, b"NIKON\0"), 330: (4, [8])}
    assert is_raw(b"II*\0\x08\0\0\0" + directory(8, tags))
    for tag, other in ((254, {254: (4, [0])}), (271, {}), (330, {})):
        assert not is_raw(b"II*\0\x08\0\0\0" + directory(8, {key: tags[key] for key in tags if key != tag} | other))


@pytest.mark.parametrize("compression", [32767, 32770, 34713, 65535])
def test_compressions_of_cameras_are_raw(compression):
    assert is_raw(b"II*\0\x08\0\0\0" + directory(8, {259: (3, [compression])}))


def test_directories_that_refer_to_each_other_come_to_an_end():
    loop = b"II*\0\x08\0\0\0" + struct.pack("<HHHIII", 1, 330, 4, 1 << 31, 8, 8)
    assert not is_raw(loop * 2000)


def test_square_preview_takes_the_orientation_that_it_states():
    exif = jpeg(blocks(240, 240), 3)
    assert Raw(480, 720, exif, 6).preview_orientation(240, 240) == 3
    assert Raw(480, 720, b"", 6).preview_orientation(240, 240) == 6


def test_preview_of_a_raw_is_decoded_to_a_fraction_like_a_jpeg():
    small = np.asarray(Image.fromarray(blocks(240, 320)).resize((2560, 1920), Image.Resampling.BICUBIC))
    for orientation in (1, 6):
        data = dng(taken(blocks(2000, 2800), orientation), jpeg(taken(small, orientation)), orientation)
        exact, fast = decode(data), decode(data, mode="fast")
        assert (fast.width, fast.height) == (exact.width, exact.height) == (2800, 2000)
        of_jpeg = decode(jpeg(taken(small, orientation), orientation), mode="fast")
        np.testing.assert_array_equal(fast.pixels, of_jpeg.pixels)
        assert not np.array_equal(fast.pixels, exact.pixels)
